//! Reading through what is held, folder by folder, so that a bit the disk changed is found before a workstation finds it.
//!
//! ```text
//! <root>/scrub.json     {"folder": 17, "begun": "…", "objects": …, "bytes": …, "set_aside": …}
//! ```
//!
//! There are 256 folders of objects, and after them manifests and deltas (`served/scrub.rs`); each pass takes at least `scrub-every`, spread evenly, and reads no faster than
//! `scrub-rate`. What is wrong is set aside in `quarantine/`, a doubt is left, and the mirror, told of it, fetches that one object
//! again from any upstream; until then whoever asks for it is served on demand. A node that is switched off goes on at the folder it
//! was at.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant as Moment};

use mirabelle_content::fsck::{self, Fault};
use mirabelle_content::{ObjectStore, durable};
use mirabelle_manifests::Instant;
use mirabelle_transfer::serve::forget_object;
use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use crate::index::leave_doubt;
use crate::site::Site;

const MAX_FILE_BYTES: u64 = 64 << 10;
/// A node that is to stop is noticed within this.
const LONGEST_NAP: Duration = Duration::from_millis(200);
/// Folders of objects.
const FOLDERS: u32 = 256;

/// How far the pass has come.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Scrubbed {
    /// The next folder.
    pub(crate) folder: u32,
    /// When this pass began.
    pub(crate) begun: Option<Instant>,
    /// When the last whole pass ended.
    pub(crate) finished: Option<Instant>,
    /// Objects and bytes read in this pass.
    pub(crate) objects: u64,
    pub(crate) bytes: u64,
    /// What was found wrong in this pass, and set aside.
    pub(crate) set_aside: u64,
    /// Of these, files that the disk could not read at all.
    pub(crate) unreadable: u64,
}

/// Reads through the store of one node.
pub(crate) struct Scrub {
    site: Site,
    store: ObjectStore,
    every: Duration,
    bytes_per_second: u64,
}

impl Scrub {
    pub(crate) fn new(site: &Site, every: Duration, bytes_per_second: u64) -> Self {
        Self { site: site.clone(), store: site.objects_read_only(), every, bytes_per_second }
    }

    fn path(&self) -> PathBuf {
        self.site.path("scrub.json")
    }

    /// Waits for the next folder's turn, and reads it through; true when something was wrong.
    pub(crate) async fn next_folder(&self, stop: &CancellationToken) -> bool {
        let scrubbed = read_scrubbed(&self.path());
        let now = Instant::now();
        let begun = scrubbed.begun.filter(|begun| *begun <= now).unwrap_or(now);
        let turn = self.every.mul_f64(f64::from(scrubbed.folder) / f64::from(FOLDERS));
        let waited = Duration::try_from(now.duration_since(begun)).unwrap_or_default();
        tokio::time::sleep(turn.saturating_sub(waited)).await;
        let (site, store, stop) = (self.site.clone(), self.store.clone(), stop.clone());
        let pace = Pace {
            stop,
            bytes_per_second: self.bytes_per_second.max(1),
            begun: Moment::now(),
            read: AtomicU64::new(0),
        };
        let reading = spawn_blocking(move || {
            read_folder(&site, &store, &pace, Scrubbed { begun: Some(begun), ..scrubbed })
        });
        match reading.await {
            Ok(Ok(found)) => found,
            Ok(Err(error)) => {
                tracing::warn!(%error, "what is held could not be read through");
                tokio::time::sleep(Duration::from_mins(1)).await;
                false
            }
            Err(_) => false,
        }
    }
}

/// How fast is read, and until when.
struct Pace {
    /// A node that is to stop does not wait for a folder's end.
    stop: CancellationToken,
    bytes_per_second: u64,
    begun: Moment,
    read: AtomicU64,
}

impl Pace {
    fn took(&self, bytes: u64) -> ControlFlow<()> {
        let read = self.read.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let due = Duration::from_millis(read.saturating_mul(1000) / self.bytes_per_second);
        while !self.stop.is_cancelled() {
            let ahead = due.saturating_sub(self.begun.elapsed());
            if ahead.is_zero() {
                return ControlFlow::Continue(());
            }
            std::thread::sleep(ahead.min(LONGEST_NAP));
        }
        ControlFlow::Break(())
    }
}

fn read_folder(
    site: &Site,
    store: &ObjectStore,
    pace: &Pace,
    mut scrubbed: Scrubbed,
) -> std::io::Result<bool> {
    let folder = u8::try_from(scrubbed.folder % FOLDERS).unwrap_or(0);
    let Some(report) = fsck::check_folder(store, folder, &|bytes| pace.took(bytes))? else {
        return Ok(false);
    };
    let mut found = !report.findings.is_empty();
    if found {
        // The doubt first: killed in between, the next sync looks at the files.
        leave_doubt(&site.path(""));
    }
    for finding in &report.findings {
        tracing::warn!(path = %finding.path.display(), fault = finding.fault.describe(),
            "the disk changed what is held; it is set aside and fetched again");
        finding.set_aside(&site.path("quarantine"))?;
        if let Some(object) = finding.object {
            forget_object(store, object);
        }
        scrubbed.unreadable += u64::from(matches!(finding.fault, Fault::Unreadable(_)));
    }
    scrubbed.objects += report.files;
    scrubbed.bytes += report.bytes;
    scrubbed.set_aside += report.findings.len() as u64;
    scrubbed.folder += 1;
    if scrubbed.folder >= FOLDERS {
        let wrong = site.served().scrub(&site.path("quarantine"))?;
        scrubbed.set_aside += wrong;
        if wrong > 0 {
            leave_doubt(&site.path(""));
            found = true;
        }
        tracing::info!(
            objects = scrubbed.objects,
            bytes = scrubbed.bytes,
            set_aside = scrubbed.set_aside,
            "everything that is held was read through"
        );
        scrubbed = Scrubbed { finished: Some(Instant::now()), ..Scrubbed::default() };
    }
    durable::write_atomically(&site.path("scrub.json"), &serde_json::to_vec(&scrubbed)?)?;
    Ok(found)
}

/// How far the pass has come, as the node wrote it.
pub(crate) fn read_scrubbed(path: &Path) -> Scrubbed {
    let bytes = durable::read_if_present(path, MAX_FILE_BYTES).ok().flatten();
    bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
}
