//! Old metadata: what nobody asks for any more goes, so that years of timestamps do not fill the disk.
//!
//! Kept are the roots, for workstations that were away; what is served; and what was served before, for whoever is half-way
//! through a refresh.

use std::collections::BTreeSet;
use std::io;

use fs_err as fs;
use mirabelle_content::durable;
use mirabelle_manifests::TargetPath;
use mirabelle_manifests::network::{
    BRAKE_TARGET, DEPLOYMENT_TARGET, PACKAGERS_TARGET, metadata_path, target_path,
};
use mirabelle_manifests::tuf::{RoleName, Snapshot, Targets};

use super::Served;

/// Folders with files that a newer one replaces.
const FOLDERS: [&str; 4] = ["metadata", "targets/deployment", "targets/brake", "targets/trust"];

impl Served {
    /// Everything that the served timestamp leads to, as paths below the served directory.
    pub(super) fn referenced(&self) -> BTreeSet<String> {
        let mut paths = BTreeSet::new();
        let Some(version) = self.timestamp().and_then(|timestamp| Some(timestamp.snapshot()?.version)) else {
            return paths;
        };
        let snapshot_path = metadata_path(&RoleName::snapshot(), Some(version));
        let snapshot: Option<Snapshot> = self.document(&snapshot_path);
        paths.insert(snapshot_path);
        for (name, meta) in snapshot.into_iter().flat_map(|snapshot| snapshot.meta) {
            let role = RoleName::new(name.strip_suffix(".json").unwrap_or(&name));
            let path = metadata_path(&role, Some(meta.version));
            let targets: Option<Targets> = self.document(&path);
            paths.insert(path);
            let Some(targets) = targets else { continue };
            for small in [PACKAGERS_TARGET, DEPLOYMENT_TARGET, BRAKE_TARGET].map(TargetPath::new) {
                let digest = targets.targets.get(&small).and_then(|file| file.hashes.sha256());
                paths.extend(digest.and_then(|digest| target_path(&small, digest).ok()));
            }
        }
        paths
    }

    /// Removes what neither the served timestamp leads to nor is among `before`, what the one before led to.
    pub(super) fn drop_old(&self, before: &BTreeSet<String>) -> io::Result<()> {
        let current = self.referenced();
        let timestamp = metadata_path(&RoleName::timestamp(), None);
        for folder in FOLDERS {
            let directory = self.path(folder);
            if !directory.exists() {
                continue;
            }
            for entry in fs::read_dir(&directory)? {
                let entry = entry?;
                let name = entry.file_name().to_string_lossy().into_owned();
                let path = format!("{folder}/{name}");
                let kept = path == timestamp
                    || (folder == "metadata" && name.ends_with(".root.json"))
                    || current.contains(&path)
                    || before.contains(&path);
                if !kept && entry.file_type()?.is_file() {
                    durable::remove_file(&entry.path())?;
                }
            }
        }
        Ok(())
    }
}
