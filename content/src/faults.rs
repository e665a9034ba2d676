//! The n-th change of the disk, at which tests make a process die, or find the disk full from then on.
//!
//! ```text
//! MIRABELLE_DISK_FAULT=17:kill     it dies instead of making the seventeenth change
//! MIRABELLE_DISK_FAULT=17:full     from the seventeenth on, whatever needs room fails; what gives room does not
//! ```
//!
//! Changes are counted by `durable.rs`: each file made, synced, renamed or removed is one by itself.
//! `tests/runner/drills/power_cuts.rs` and `full_disk.rs` visit all of them. Release builds have none.

use std::io;

/// What a change does to the room on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// It may need some.
    Takes,
    /// It needs none.
    Gives,
}

/// The change, and whether the process dies instead of making it.
#[cfg(debug_assertions)]
static WANTED: std::sync::OnceLock<(u64, bool)> = std::sync::OnceLock::new();

/// Takes up what is wanted, `17:kill` or `17:full`; the program that begins knows it.
#[cfg(debug_assertions)]
pub(crate) fn want(wanted: &str) {
    let parsed =
        wanted.split_once(':').and_then(|(number, what)| Some((number.parse().ok()?, what == "kill")));
    if let Some(parsed) = parsed {
        let _ = WANTED.set(parsed);
    }
}

/// Counts a change that is about to be made.
#[cfg(debug_assertions)]
pub(crate) fn passes(change: Change) -> io::Result<()> {
    use std::sync::atomic::{AtomicU64, Ordering};
    static MADE: AtomicU64 = AtomicU64::new(0);
    let Some((number, dies)) = WANTED.get() else { return Ok(()) };
    let made = MADE.fetch_add(1, Ordering::Relaxed) + 1;
    if *dies && made == *number {
        std::process::abort();
    }
    if !dies && made >= *number && change == Change::Takes {
        return Err(io::ErrorKind::StorageFull.into());
    }
    Ok(())
}

#[cfg(not(debug_assertions))]
pub(crate) fn passes(_change: Change) -> io::Result<()> {
    Ok(())
}
