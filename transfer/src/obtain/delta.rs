//! One delta: fetched to a [`Partial`], compared with what the server said of it, decoded into the store.
//!
//! The partial download stays until whoever asked has the release whole: killed before, the next run finds the delta here
//! and decodes it again without asking the server.
//!
//! Threats and the defence for each:
//! - *A longer file*: no more bytes are taken than the routes said, which is less than the bundle that was signed.
//! - *A shorter file, another file, damage*: [`DeltaFailure`], and the delta is not tried again.
//! - *A delta that decodes to something else*: the decoder writes no more than was signed, keeps objects under the
//!   digests they have, and ends in the manifest's digest (`content/src/delta/`). Then both bodies are asked for.
//! - *Bytes of an earlier process that a power cut spoilt*: once from the first byte.

use std::io;
use std::path::{Path, PathBuf};

use fs_err as fs;
use mirabelle_content::delta::{DeltaError, Expected, Held, decode};
use mirabelle_content::{ObjectError, ObjectStore, digest, durable};
use mirabelle_manifests::network::delta_path;
use mirabelle_manifests::{CatalogueEntry, Digest};
use tokio::task::spawn_blocking;

use super::ObtainError;
use super::search::Hop;
use crate::fetch::{FetchError, Fetcher};
use crate::partial::Partial;

/// A delta that served, still in the directory of downloads under way.
#[derive(Debug)]
pub struct UsedDelta {
    /// The release it leads to.
    pub to: Digest,
    /// The release it leads from, or nothing.
    pub from: Option<Digest>,
    /// Bytes.
    pub size: u64,
    /// SHA-256 of the file.
    pub sha256: Digest,
    partial: Partial,
}

impl UsedDelta {
    /// Moves the file to `destination`, for others; it is synced before it has that name.
    ///
    /// # Errors
    /// Any error of the file system.
    pub fn keep(self, destination: &Path) -> io::Result<()> {
        if let Some(directory) = destination.parent() {
            fs::create_dir_all(directory)?;
        }
        durable::sync_file(self.partial.path())?;
        durable::rename(self.partial.path(), destination)?;
        destination.parent().map_or(Ok(()), durable::sync_directory)?;
        self.partial.discard()
    }

    /// Removes the file.
    ///
    /// # Errors
    /// Any error of the file system.
    pub fn discard(self) -> io::Result<()> {
        self.partial.discard()
    }
}

/// Why a delta did not serve. Another way may.
#[derive(Debug, thiserror::Error)]
pub(super) enum DeltaFailure {
    #[error(transparent)]
    Fetch(FetchError),
    #[error("the file has digest {got}, and the server said {expected}")]
    NotTheFile { expected: Digest, got: Digest },
    #[error(transparent)]
    Decode(DeltaError),
}

/// What became of a delta.
pub(super) type Tried<T> = Result<Result<T, DeltaFailure>, ObtainError>;

/// Fetches the delta of `hop`. The outer error is the link's or this machine's, and ends everything; the inner one is
/// the delta's own.
pub(super) async fn fetch(hop: &Hop, fetcher: &Fetcher, partials: &Path) -> Tried<UsedDelta> {
    let partial = Partial::new(partials, &format!("{}{}", prefix(hop.to), hop.sha256));
    let path = delta_path(hop.to, hop.from);
    let mut resumed = partial.length() > 0;
    loop {
        if let Err(error) = fetcher.range(&path, 0..hop.size, hop.size, &partial).await {
            return match error {
                FetchError::Unreachable { .. }
                | FetchError::LinkClosed { .. }
                | FetchError::Disk(_)
                | FetchError::Client(_)
                | FetchError::NotAPath { .. } => Err(error.into()),
                // A server that has too much to do now must not be asked for more.
                error if error.is_retryable() => Err(error.into()),
                own => {
                    partial.discard()?;
                    Ok(Err(DeltaFailure::Fetch(own)))
                }
            };
        }
        let file = partial.path().to_owned();
        let hashing =
            spawn_blocking(move || -> io::Result<Digest> { Ok(digest(&mut fs::File::open(file)?)?.0) });
        let got = hashing.await??;
        if got == hop.sha256 {
            let Hop { to, from, size, sha256 } = *hop;
            return Ok(Ok(UsedDelta { to, from, size, sha256, partial }));
        }
        partial.discard()?;
        if !resumed {
            return Ok(Err(DeltaFailure::NotTheFile { expected: hop.sha256, got }));
        }
        // Bytes left by an earlier process may have suffered in a power cut.
        tracing::warn!(release = %hop.to, "a resumed delta was damaged and begins again");
        resumed = false;
    }
}

/// Decodes a delta that was fetched into `store`; returns the bytes of the manifest of the release `to`, whose digest is
/// the approved one. `base` is the manifest of the release that it leads from.
pub(super) async fn rebuild(
    delta: &UsedDelta,
    base: Option<Vec<u8>>,
    to: &CatalogueEntry,
    store: &ObjectStore,
    partials: &Path,
) -> Tried<Vec<u8>> {
    let expected = Expected {
        manifest: to.digest,
        manifest_length: to.length,
        installed_size: to.listing.installed_size,
    };
    let (file, store, scratch) = (delta.partial.path().to_owned(), store.clone(), scratch(partials));
    let decoding = spawn_blocking(move || {
        // A killed process leaves files there.
        durable::remove_tree(&scratch)?;
        fs::create_dir_all(&scratch)?;
        let base = base.as_deref().map(|manifest| Held { manifest, objects: &store });
        let decoded = decode(&file, base, expected, &scratch, &store, &mut |_| {});
        durable::remove_tree(&scratch)?;
        decoded
    });
    let decoded = match decoding.await {
        Err(died) if died.is_panic() => Err(DeltaError::Malformed("no decoder gets through it")),
        decoded => decoded?,
    };
    match decoded {
        Ok(manifest) => Ok(Ok(manifest)),
        // The disk's trouble is not the delta's fault; but where it is full, ranges need less room than both sides do.
        Err(DeltaError::Io(error) | DeltaError::Object(ObjectError::Store(error)))
            if !is_content(&error) && error.kind() != io::ErrorKind::StorageFull =>
        {
            Err(ObtainError::Disk(error))
        }
        Err(error) => {
            delta.partial.discard()?;
            Ok(Err(DeltaFailure::Decode(error)))
        }
    }
}

/// True for errors that a file's content causes.
fn is_content(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput
    )
}

/// Removes what is left of deltas to `release`.
pub(super) fn sweep(release: Digest, partials: &Path, but: &[UsedDelta]) -> io::Result<()> {
    if !partials.exists() {
        return Ok(());
    }
    durable::remove_tree(&scratch(partials))?;
    for entry in fs::read_dir(partials)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let used = but.iter().any(|delta| path.starts_with(delta.partial.path()) || is_tag_of(&path, delta));
        if name.starts_with(&prefix(release)) && !used {
            durable::remove_file(&path)?;
        }
    }
    Ok(())
}

fn is_tag_of(path: &Path, delta: &UsedDelta) -> bool {
    path.with_extension("") == *delta.partial.path()
}

fn prefix(release: Digest) -> String {
    format!("delta-{release}-")
}

fn scratch(partials: &Path) -> PathBuf {
    partials.join("rebuilding")
}
