//! Settings: files of the machine that releases set and keep.
//!
//! ```text
//! <root>/settings.json            values of the deployment; which files are set, by whom, and what was there before
//! <root>/originals/<digest>       the content of files that stood there before
//! ```
//!
//! What a machine's files should be is a function of the current generation, the machine's facts and the deployment's values.
//! Applying it is repeated after a cut, and finds what is done. A file that nobody sets any more becomes what it was.
//!
//! A crash: the record of a file is written before the file, its original before both; each file is replaced as a whole.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use fs_err as fs;
use mirabelle_content::durable;
use mirabelle_manifests::{
    Digest, Machine, MachineUser, PackageName, Permissions, Setting, SystemPath, ValueName, fill_template,
};
use mirabelle_terminal::{Failure, OrFail};
use serde::{Deserialize, Serialize};

use crate::faults::point;
use crate::generation::Generation;
use crate::layout::Layout;
use crate::platform;

const MAX_RECORD_BYTES: u64 = 4 << 20;
/// The largest file that is set, or whose original is kept.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// What a file may take on a disk beyond its content.
const BLOCK_BYTES: u64 = 64 << 10;
/// What one takes in the record.
const RECORD_BYTES: u64 = 1 << 10;

/// `settings.json`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Record {
    /// The deployment's values for this machine, as of the last refresh.
    values: BTreeMap<ValueName, String>,
    /// Files that are set.
    files: BTreeMap<SystemPath, Kept>,
}

/// A file that is set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    package: PackageName,
    /// What stood there before; nothing, if nothing did.
    original: Option<Original>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Original {
    content: Digest,
    mode: u32,
    user: u32,
    group: u32,
}

/// A file as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    package: PackageName,
    content: Vec<u8>,
    mode: Permissions,
    owner: MachineUser,
    group: MachineUser,
}

/// The settings of one machine.
pub(crate) struct MachineSettings<'a> {
    pub(crate) layout: &'a Layout,
    pub(crate) machine: &'a Machine,
    /// Where the machine's files are: `/`, but for tests.
    pub(crate) system_root: &'a Path,
}

impl MachineSettings<'_> {
    /// Remembers what the deployment fills settings with.
    pub(crate) fn remember(&self, values: &BTreeMap<&ValueName, &str>) -> Result<(), Failure> {
        let mut record = self.read()?;
        let values = values.iter().map(|(name, value)| ((*name).clone(), (*value).to_owned())).collect();
        if record.values != values {
            record.values = values;
            self.write(&record)?;
        }
        Ok(())
    }

    /// True when this process may look at what was set: values may be secrets, and whoever is no administrator has no business
    /// with them.
    pub(crate) fn may_be_seen(&self) -> bool {
        platform::may_write(self.layout.root())
    }

    /// True when the deployment gives other values than those that the files were made with.
    pub(crate) fn are_stale(&self, values: &BTreeMap<&ValueName, &str>) -> Result<bool, Failure> {
        let known = self.read()?.values;
        let same = known.iter().map(|(name, value)| (name, value.as_str()));
        Ok(!same.eq(values.iter().map(|(name, value)| (*name, *value))))
    }

    /// What the files should be when `generation` is current. Refuses two packages that set one file, and a template that
    /// cannot be filled.
    pub(crate) fn wanted(&self, generation: &Generation) -> Result<BTreeMap<SystemPath, Wanted>, Failure> {
        let record = self.read()?;
        let mut wanted: BTreeMap<SystemPath, Wanted> = BTreeMap::new();
        for (package, installed) in generation.packages.iter().filter(|(_, installed)| installed.sets) {
            let release = self.layout.read_manifest(installed)?;
            let tree = self.layout.release(package, &installed.id);
            for setting in &release.behaviour.settings {
                let file = Wanted {
                    package: package.clone(),
                    content: self.fill(package, setting, &tree, &record.values)?,
                    mode: setting.mode,
                    owner: setting.owner.clone(),
                    group: setting.group.clone(),
                };
                if let Some(other) = wanted.insert(setting.path.clone(), file) {
                    return Err(Failure::no(format!(
                        "`{}` and `{package}` both set `{}`, and cannot be installed together",
                        other.package, setting.path
                    )));
                }
            }
        }
        Ok(wanted)
    }

    /// The first of these files that cannot be made whatever one tries, by whose setting, and why: what stands there is no
    /// file, or too large to be kept, or, with `owners`, its owner or group is unknown here.
    pub(crate) fn impossible(
        &self,
        wanted: &BTreeMap<SystemPath, Wanted>,
        owners: bool,
    ) -> Result<Option<(PackageName, Failure)>, Failure> {
        let record = self.read()?;
        for (path, file) in wanted {
            let owner = || platform::owner(&file.owner, &file.group).map(|_| ());
            let possible = self.can_be_replaced(path, record.files.contains_key(path));
            if let Err(error) = possible.and_then(|()| if owners { owner() } else { Ok(()) }) {
                let why =
                    Failure::no(format!("cannot make the setting `{path}` of `{}`: {error}", file.package))
                        .hint("an administrator of this machine can make way for it");
                return Ok(Some((file.package.clone(), why)));
            }
        }
        Ok(None)
    }

    /// Refuses what stands at `path` if it cannot be kept and replaced; of what is ours nothing has to be kept.
    fn can_be_replaced(&self, path: &SystemPath, ours: bool) -> io::Result<()> {
        let place = self.place(path);
        let metadata = match fs::symlink_metadata(&place) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            metadata => metadata?,
        };
        if metadata.is_dir() || (!ours && !metadata.is_file()) {
            return Err(io::Error::other(format!("`{}` is no file", place.display())));
        }
        if !ours && metadata.len() > MAX_FILE_BYTES {
            return Err(io::Error::other(format!(
                "`{}` is longer than {MAX_FILE_BYTES} bytes, and is not replaced",
                place.display()
            )));
        }
        Ok(())
    }

    /// Bytes that making the files of `generation` may take at most, for a moment: each is written beside itself, its original
    /// kept, and the record replaced. Refuses what [`Self::wanted`] refuses.
    pub(crate) fn room(&self, generation: &Generation) -> Result<u64, Failure> {
        let wanted = self.wanted(generation)?;
        let record = fs::metadata(self.layout.settings()).map_or(0, |file| file.len());
        let files = wanted.values().map(|file| 2 * (file.content.len() as u64 + BLOCK_BYTES) + RECORD_BYTES);
        Ok(files.sum::<u64>() + 2 * record)
    }

    fn fill(
        &self,
        package: &PackageName,
        setting: &Setting,
        tree: &Path,
        values: &BTreeMap<ValueName, String>,
    ) -> Result<Vec<u8>, Failure> {
        let what = || format!("cannot make the setting `{}` of `{package}`", setting.path);
        let path = tree.join(setting.template.as_str());
        let template = durable::read_if_present(&path, MAX_FILE_BYTES)
            .or_fail(what)?
            .ok_or_else(|| Failure::no(format!("`{}` is missing", path.display())))?;
        let template = String::from_utf8(template)
            .map_err(|_| Failure::no(format!("{}: its template is not text", what())))?;
        let Machine { college, id, platform, room, .. } = self.machine;
        let mut facts = BTreeMap::from([
            ("college".to_owned(), college.to_string()),
            ("machine".to_owned(), id.to_string()),
            ("platform".to_owned(), platform.to_string()),
            ("room".to_owned(), room.as_ref().map_or(String::new(), ToString::to_string)),
        ]);
        facts.extend(values.iter().map(|(name, value)| (format!("value.{name}"), value.clone())));
        let facts: BTreeMap<&str, &str> =
            facts.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let filled = fill_template(&template, &facts).map_err(|error| {
            Failure::no(format!("{}: {error}", what())).hint("an operator gives values in the deployment")
        })?;
        Ok(filled.into_bytes())
    }

    /// Makes the files what `generation` says, and those that nobody sets any more what they were; returns the files that
    /// were not as they should be.
    pub(crate) fn apply(&self, generation: &Generation) -> Result<Vec<SystemPath>, Failure> {
        let wanted = self.wanted(generation)?;
        let mut record = self.read()?;
        if wanted.is_empty() && record.files.is_empty() {
            return Ok(Vec::new());
        }
        let mut changed = Vec::new();
        for (path, file) in &wanted {
            let what = || format!("cannot set `{path}` for `{}`", file.package);
            if self.drift(path, file).or_fail(what)?.is_none() {
                continue;
            }
            let known = record.files.get(path).cloned();
            let original = match known {
                Some(known) => known.original,
                None => self.keep_original(path).or_fail(what)?,
            };
            point("original-kept").or_fail(what)?;
            record.files.insert(path.clone(), Kept { package: file.package.clone(), original });
            self.write(&record)?;
            point("setting-recorded").or_fail(what)?;
            let owner = platform::owner(&file.owner, &file.group).or_fail(what)?;
            durable::write_atomically_as(&self.place(path), &file.content, file.mode.bits(), owner)
                .or_fail(what)?;
            point("setting-written").or_fail(what)?;
            changed.push(path.clone());
        }
        let gone: Vec<SystemPath> =
            record.files.keys().filter(|path| !wanted.contains_key(*path)).cloned().collect();
        for path in gone {
            let Some(kept) = record.files.get(&path) else { continue };
            let what = || format!("cannot put back `{path}`, which `{}` had set", kept.package);
            self.restore(&path, kept.original.as_ref()).or_fail(what)?;
            point("setting-restored").or_fail(what)?;
            record.files.remove(&path);
            self.write(&record)?;
            changed.push(path);
        }
        Ok(changed)
    }

    /// Files that are not as `generation` says, each with what is wrong.
    pub(crate) fn audit(
        &self,
        generation: &Generation,
    ) -> Result<Vec<(PackageName, SystemPath, &'static str)>, Failure> {
        let mut faults = Vec::new();
        for (path, file) in self.wanted(generation)? {
            let fault = self.drift(&path, &file).or_fail(|| format!("cannot look at `{path}`"))?;
            faults.extend(fault.map(|what| (file.package, path, what)));
        }
        Ok(faults)
    }

    /// What is wrong with a file, if anything is.
    fn drift(&self, path: &SystemPath, file: &Wanted) -> io::Result<Option<&'static str>> {
        let place = self.place(path);
        let Ok(metadata) = fs::symlink_metadata(&place) else { return Ok(Some("missing")) };
        if !metadata.is_file() {
            return Ok(Some("no file any more"));
        }
        match durable::read_if_present(&place, MAX_FILE_BYTES) {
            Ok(Some(content)) if content == file.content => {}
            Ok(_) => return Ok(Some("changed")),
            Err(error) if error.kind() == io::ErrorKind::FileTooLarge => return Ok(Some("changed")),
            Err(error) => return Err(error),
        }
        let owner = platform::owner(&file.owner, &file.group)?;
        if !platform::belongs(&metadata, file.mode.bits(), owner) {
            return Ok(Some("of another owner or mode"));
        }
        Ok(None)
    }

    /// Keeps what stands at `path`. What is no file, or larger than any setting, is not kept, and not replaced.
    fn keep_original(&self, path: &SystemPath) -> io::Result<Option<Original>> {
        let place = self.place(path);
        let metadata = match fs::symlink_metadata(&place) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            metadata => metadata?,
        };
        self.can_be_replaced(path, false)?;
        let content = durable::read_if_present(&place, MAX_FILE_BYTES)?.unwrap_or_default();
        let digest = Digest::of(&content);
        durable::write_atomically_as(&self.original(digest), &content, 0o600, None)?;
        let (mode, user, group) = platform::mode_and_owner(&metadata);
        Ok(Some(Original { content: digest, mode, user, group }))
    }

    fn restore(&self, path: &SystemPath, original: Option<&Original>) -> io::Result<()> {
        let place = self.place(path);
        let Some(original) = original else { return durable::remove_file(&place) };
        let kept = self.original(original.content);
        let content = durable::read_if_present(&kept, MAX_FILE_BYTES)?.ok_or_else(|| {
            io::Error::new(io::ErrorKind::NotFound, format!("`{}` is missing", kept.display()))
        })?;
        let owner = platform::may_give_away().then_some((original.user, original.group));
        durable::write_atomically_as(&place, &content, original.mode, owner)
    }

    fn place(&self, path: &SystemPath) -> PathBuf {
        self.system_root.join(path.as_str().trim_start_matches('/'))
    }

    fn original(&self, content: Digest) -> PathBuf {
        self.layout.root().join("originals").join(content.to_string())
    }

    fn read(&self) -> Result<Record, Failure> {
        let path = self.layout.settings();
        let what = || format!("cannot read `{}`", path.display());
        match durable::read_if_present(&path, MAX_RECORD_BYTES).or_fail(what)? {
            // Without it, what stood at a path before would be forgotten: nobody goes on by guessing.
            Some(bytes) => serde_json::from_slice(&bytes).or_fail(what),
            None => Ok(Record::default()),
        }
    }

    fn write(&self, record: &Record) -> Result<(), Failure> {
        let path = self.layout.settings();
        let what = || format!("cannot write `{}`", path.display());
        let bytes = serde_json::to_vec_pretty(record).or_fail(what)?;
        durable::write_atomically_as(&path, &bytes, 0o600, None).or_fail(what)
    }
}
