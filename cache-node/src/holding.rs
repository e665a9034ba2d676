//! Which releases are being mirrored: who wants something of one waits, rather than fetch it a second time (promise 5).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use mirabelle_manifests::Digest;
use tokio::sync::{Notify, OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

/// The releases under way.
#[derive(Debug, Default)]
pub(crate) struct Holding {
    releases: Mutex<HashMap<Digest, Arc<RwLock<()>>>>,
    /// Somebody waits for a release that is being mirrored.
    asked: Notify,
}

impl Holding {
    /// Mirrors a release: nobody else fetches of it until this is dropped.
    pub(crate) async fn begin(&self, release: Digest) -> OwnedRwLockWriteGuard<()> {
        self.lock_of(release).write_owned().await
    }

    /// Waits until it is not being mirrored, and keeps it so; several may.
    pub(crate) async fn wait(&self, release: Digest) -> OwnedRwLockReadGuard<()> {
        let lock = self.lock_of(release);
        if let Ok(guard) = lock.clone().try_read_owned() {
            return guard;
        }
        self.asked.notify_one();
        lock.read_owned().await
    }

    /// Until somebody waits for what is being mirrored: what is only worth having gives way to her.
    pub(crate) async fn asked(&self) {
        self.asked.notified().await;
    }

    fn lock_of(&self, release: Digest) -> Arc<RwLock<()>> {
        // An insertion or a removal is whole before anything can panic.
        let mut releases = self.releases.lock().unwrap_or_else(PoisonError::into_inner);
        releases.retain(|known, lock| *known == release || Arc::strong_count(lock) > 1);
        releases.entry(release).or_default().clone()
    }
}
