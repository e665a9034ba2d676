//! Named points at which tests make a transaction fail: killed, or with a full disk.
//!
//! Each stands behind something that the journal or a person could notice; `tests/runner/every_crash_point.rs` visits all of
//! [`POINTS`]. Release builds have none.

use std::io;

/// Every point, in the order in which a transaction passes them; what is between `checked` and `healthy` is taking back.
#[cfg(debug_assertions)]
const POINTS: &[&str] = &[
    "asked",
    "begun",
    "fetched",
    "staged",
    "built",
    "placed",
    "synced",
    "prepared",
    "installer-begun",
    "installer-ran",
    "installed",
    "current-written",
    "switched",
    "original-kept",
    "setting-recorded",
    "setting-written",
    "setting-restored",
    "settled",
    "checked",
    "installer-undone",
    "undoing",
    "returned",
    "unsettled",
    "quarantined",
    "discarded",
    "healthy",
    "ended",
    "generation-swept",
    "tree-swept",
    "swept",
];

/// What is wanted at a point: `MIRABELLE_FAULT=switched:kill`, `staged:full`.
#[cfg(debug_assertions)]
pub(crate) fn point(name: &'static str) -> io::Result<()> {
    debug_assert!(POINTS.contains(&name), "`{name}` is not listed");
    let Ok(wanted) = std::env::var("MIRABELLE_FAULT") else { return Ok(()) };
    match wanted.split_once(':') {
        Some((point, "kill")) if point == name => std::process::abort(),
        Some((point, "full")) if point == name => Err(io::ErrorKind::StorageFull.into()),
        _ => Ok(()),
    }
}

#[cfg(not(debug_assertions))]
pub(crate) fn point(_name: &'static str) -> io::Result<()> {
    Ok(())
}
