//! Named points at which tests make a transaction fail: killed, or with a full disk.
//!
//! Each stands between two steps of the journal; `tests/runner/every_crash_point.rs` visits all of [`POINTS`]. Release
//! builds have none.

use std::io;

/// Every point, in the order in which a transaction passes them.
#[cfg(debug_assertions)]
const POINTS: &[&str] = &[
    "begun",
    "fetched",
    "staged",
    "built",
    "synced",
    "installer-begun",
    "installer-ran",
    "installed",
    "switched",
    "settled",
    "checked",
    "ended",
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
