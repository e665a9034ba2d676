//! Which packages somebody is using: those whose lock `run` holds, and those of which a process has a file open, runs or maps.

use std::collections::BTreeSet;
use std::path::Path;

use fs_err as fs;
use mirabelle_content::durable;
use mirabelle_manifests::PackageName;

use super::self_update::OWN_PACKAGE;
use crate::generation::Generation;
use crate::layout::Layout;

/// The most of a process's list of maps that is looked through.
const MAX_MAPS_BYTES: u64 = 8 << 20;
/// Open files of one process that are looked at.
const MAX_OPEN_FILES: usize = 4096;

/// The packages of `current` that are in use; the agent's own, which is always, is not among them.
pub(super) fn in_use(layout: &Layout, current: &Generation) -> BTreeSet<PackageName> {
    let mut used = BTreeSet::new();
    for (package, installed) in &current.packages {
        let lock = layout.run_lock(package, &installed.id);
        if lock.exists() && matches!(durable::try_lock(&lock), Ok(None)) {
            used.insert(package.clone());
        }
    }
    let releases = layout.releases();
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        if process.file_name().to_string_lossy().bytes().all(|byte| byte.is_ascii_digit()) {
            look_at(&process.path(), &releases, &mut used);
        }
    }
    used.retain(|package| package.as_str() != OWN_PACKAGE);
    used
}

/// Adds the packages of which a process uses files. One that has ended, or that this user may not look at, has none.
fn look_at(process: &Path, releases: &Path, used: &mut BTreeSet<PackageName>) {
    let mut note = |path: &Path| {
        let below = path.strip_prefix(releases).ok().and_then(|below| below.iter().next());
        used.extend(below.and_then(|name| name.to_str()?.parse().ok()));
    };
    for link in ["exe", "cwd"] {
        if let Ok(path) = fs::read_link(process.join(link)) {
            note(&path);
        }
    }
    for open in fs::read_dir(process.join("fd")).into_iter().flatten().flatten().take(MAX_OPEN_FILES) {
        if let Ok(path) = fs::read_link(open.path()) {
            note(&path);
        }
    }
    if let Ok(Some(maps)) = durable::read_if_present(&process.join("maps"), MAX_MAPS_BYTES) {
        for line in String::from_utf8_lossy(&maps).lines() {
            if let Some(start) = line.find('/') {
                note(Path::new(&line[start..]));
            }
        }
    }
}
