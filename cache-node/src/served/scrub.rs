//! Manifests and deltas, read through like objects: what the disk changed is set aside, so that nobody is offered it.
//!
//! A manifest of what is owed comes again at the next sync, one of another release when somebody asks for it. A delta does not
//! come again: whoever could have used it gets the objects.

use std::io;
use std::path::{Path, PathBuf};

use fs_err as fs;
use mirabelle_content::{digest, durable};
use mirabelle_manifests::network::{delta_path, routes_path};
use mirabelle_manifests::{DeltaOffer, Digest, MAX_ROUTES_BYTES, Routes};

use super::Served;

impl Served {
    /// Reads manifests and deltas through, and moves what is wrong to `quarantine`; says how many that were.
    pub(crate) fn scrub(&self, quarantine: &Path) -> io::Result<u64> {
        let mut wrong = Vec::new();
        for path in files_below(&self.path("targets/packages"))? {
            let name = path.file_name().and_then(|name| name.to_str());
            let stated: Option<Digest> =
                name.and_then(|name| name.strip_suffix(".release.json")?.parse().ok());
            // A name that is none was changed as well; what cannot be read is as wrong as what reads otherwise.
            if stated.is_none() || !of_file(&path).is_ok_and(|found| found.is_none() || found == stated) {
                wrong.push(path);
            }
        }
        for routes in files_below(&self.path("routes"))? {
            let name = routes.file_name().and_then(|name| name.to_str());
            let release: Option<Digest> = name.and_then(|name| name.strip_suffix(".json")?.parse().ok());
            let Some(release) = release.filter(|release| routes == self.path(&routes_path(*release))) else {
                wrong.push(routes);
                continue;
            };
            let Some(bytes) = durable::read_if_present(&routes, MAX_ROUTES_BYTES)? else { continue };
            let offered = Routes::read(&bytes);
            let is_whole = |offer: &DeltaOffer| {
                of_file(&self.path(&delta_path(release, offer.from)))
                    .is_ok_and(|found| found == Some(offer.sha256))
            };
            let damaged: Vec<DeltaOffer> =
                offered.deltas.into_iter().filter(|offer| !is_whole(offer)).collect();
            if !damaged.is_empty() {
                // Not offered first, then gone. A delta that came while these were read stays.
                let mut left =
                    Routes::read(&durable::read_if_present(&routes, MAX_ROUTES_BYTES)?.unwrap_or_default());
                left.deltas.retain(|offer| !damaged.contains(offer));
                durable::write_atomically(&routes, &serde_json::to_vec(&left)?)?;
                wrong.extend(damaged.iter().map(|offer| self.path(&delta_path(release, offer.from))));
            }
        }
        for path in &wrong {
            tracing::warn!(path = %path.display(), "the disk changed what is served; it is set aside");
            fs::create_dir_all(quarantine)?;
            let name = path.strip_prefix(self.path("")).unwrap_or(path).to_string_lossy().replace('/', "-");
            match durable::rename(path, &quarantine.join(name)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(wrong.len() as u64)
    }
}

/// The digest of a file; `None` if it is not there.
fn of_file(path: &Path) -> io::Result<Option<Digest>> {
    match fs::File::open(path) {
        Ok(mut file) => digest(&mut file).map(|(digest, _)| Some(digest)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn files_below(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let (mut found, mut folders) = (Vec::new(), vec![directory.to_owned()]);
    while let Some(folder) = folders.pop() {
        if !fs::exists(&folder)? {
            continue;
        }
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            } else if !durable::is_temporary(&entry.file_name()) {
                found.push(entry.path());
            }
        }
    }
    Ok(found)
}
