//! The repository's directory.
//!
//! ```text
//! <repository>/
//!   repository.toml          how long each role's signature lasts
//!   roles/<role>.json        the newest document of each role that enough keys signed, published or not
//!   roots/<n>.root.json      every root since the first: readers follow them one by one
//!   drafts/<role>.json       a document that still waits for signatures
//!   targets/…                the files those documents name, under their hashed names
//!   submitted/<digest>/      releases waiting for approval, then for publication
//!   public/                  what is served; written by `publish`, and by `deltas` what belongs to those
//!     metadata/ targets/ bundles/ sboms/ media/ routes/ deltas/ encoded/
//!   delta-work/              scratch of making deltas; all of it can be deleted
//!   lock                     held by whoever writes
//!   fleet.db                 what machines reported, unless PostgreSQL has it
//!   rollouts.lock            held by whoever watches rollouts
//! ```
//!
//! Invariant: `public/metadata/timestamp.json` is replaced last, after everything it leads to is there under a name
//! that never changes. Killed at any instant, `publish` leaves readers the old catalogue or the new one, whole, and
//! the next `publish` finishes what is missing.

use std::path::{Path, PathBuf};

use fs_err as fs;
use jiff::SignedDuration;
use mirabelle_content::durable;
use mirabelle_manifests::network::{brake_role, catalogue_role, deployment_role, metadata_path, target_path};
use mirabelle_manifests::tuf::{Document, RoleDocument, RoleKeys, RoleName, SuccinctRoles, Targets};
use mirabelle_manifests::{Digest, Instant, TargetPath};
use mirabelle_terminal::{Failure, OrFail, read_config};
use serde::{Deserialize, Serialize};

use crate::delta_settings::DeltaSettings;
use crate::drafts::{draft_path, role_path};

/// The most of a metadata file, as readers see it too.
const MAX_METADATA_BYTES: u64 = 64 << 20;

/// How long signatures last, in days.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Lifetimes {
    pub(crate) root_days: u16,
    pub(crate) targets_days: u16,
    pub(crate) catalogue_days: u16,
    pub(crate) deployment_days: u16,
    pub(crate) brake_days: u16,
    /// The longest that a college may be cut off and still be served anything new afterwards.
    pub(crate) snapshot_days: u16,
    pub(crate) timestamp_days: u16,
    /// For so long after its expiry, what a workstation verified before stays usable.
    pub(crate) grace_days: u16,
}

impl Default for Lifetimes {
    fn default() -> Self {
        Self {
            root_days: 365,
            targets_days: 365,
            catalogue_days: 180,
            deployment_days: 180,
            brake_days: 365,
            snapshot_days: 14,
            timestamp_days: 14,
            grace_days: 30,
        }
    }
}

/// `repository.toml`
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// The catalogue is split into two to this power of hash bins; absent: it is one role. Set by `init` for good.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) catalogue_bin_bits: Option<u8>,
    pub(crate) lifetimes: Lifetimes,
    pub(crate) deltas: DeltaSettings,
}

/// A repository's directory.
#[derive(Debug)]
pub(crate) struct Repository {
    directory: PathBuf,
    config: Config,
}

impl Repository {
    /// The repository in `directory`, which must be one.
    pub(crate) fn open(directory: &Path) -> Result<Self, Failure> {
        if !directory.join("roles/root.json").is_file() {
            return Err(Failure::usage(format!("`{}` is no repository", directory.display()))
                .hint("make one with `mirabelle-publisher init`, or name another with --repository"));
        }
        let config = read_config(&directory.join("repository.toml"))?;
        Ok(Self { directory: directory.to_owned(), config })
    }

    /// A repository about to be made in `directory`.
    pub(crate) fn create(directory: &Path, config: Config) -> Result<Self, Failure> {
        if directory.join("roles/root.json").exists() {
            return Err(Failure::no(format!("`{}` is a repository already", directory.display())));
        }
        Ok(Self { directory: directory.to_owned(), config })
    }

    /// Keeps other writers out until the file is dropped.
    pub(crate) fn lock(&self) -> Result<fs::File, Failure> {
        durable::try_lock(&self.path("lock"))
            .or_fail(|| format!("cannot lock `{}`", self.directory.display()))?
            .ok_or_else(|| {
                Failure::no(format!("another process is writing to `{}`", self.directory.display()))
                    .hint("wait for it to end, then try again")
            })
    }

    pub(crate) fn path(&self, below: &str) -> PathBuf {
        self.directory.join(below)
    }

    pub(crate) fn public(&self) -> PathBuf {
        self.path("public")
    }

    /// Which deltas are made.
    pub(crate) fn delta_settings(&self) -> &DeltaSettings {
        &self.config.deltas
    }

    /// For so many days after its expiry, what was verified before stays usable.
    pub(crate) fn grace_days(&self) -> u16 {
        self.config.lifetimes.grace_days
    }

    /// How long `role`'s signature lasts.
    pub(crate) fn expiry(&self, role: &RoleName, now: Instant) -> Instant {
        let days = &self.config.lifetimes;
        let days = match role.as_str() {
            "root" => days.root_days,
            "targets" => days.targets_days,
            "catalogue" => days.catalogue_days,
            "deployment" => days.deployment_days,
            "brake" => days.brake_days,
            // The bins of the catalogue.
            name if name.starts_with("catalogue-") => days.catalogue_days,
            "snapshot" => days.snapshot_days,
            _ => days.timestamp_days,
        };
        let expiry = now + SignedDuration::from_hours(24 * i64::from(days));
        // TUF writes whole seconds.
        Instant::from_second(expiry.as_second()).unwrap_or(expiry)
    }

    /// The newest signed document of a role.
    pub(crate) fn role<T: RoleDocument>(&self, role: &RoleName) -> Result<Document<T>, Failure> {
        let path = self.path(&role_path(role));
        read_document(&path)?.ok_or_else(|| Failure::usage(format!("`{}` is missing", path.display())))
    }

    /// The exact bytes of the newest signed document of a role.
    pub(crate) fn role_bytes(&self, role: &RoleName) -> Result<Vec<u8>, Failure> {
        self.read(&role_path(role))
    }

    pub(crate) fn discard_draft(&self, role: &RoleName) -> Result<(), Failure> {
        let path = self.path(&draft_path(role));
        durable::remove_file(&path).or_fail(|| format!("cannot remove `{}`", path.display()))
    }

    /// Stores a file that a role will name, under its hashed name.
    pub(crate) fn put_target(&self, path: &TargetPath, bytes: &[u8]) -> Result<(), Failure> {
        let file = self.target_file(path, Digest::of(bytes))?;
        durable::write_atomically(&file, bytes).or_fail(|| format!("cannot write `{}`", file.display()))
    }

    /// Reads a file that a role names.
    pub(crate) fn target(&self, path: &TargetPath, digest: Digest) -> Result<Vec<u8>, Failure> {
        let below = target_path(path, digest).or_fail(|| format!("cannot read `{path}`"))?;
        let bytes = self.read(&below)?;
        if Digest::of(&bytes) != digest {
            return Err(Failure::trust(format!("`{below}` does not have the digest in its name")));
        }
        Ok(bytes)
    }

    fn target_file(&self, path: &TargetPath, digest: Digest) -> Result<PathBuf, Failure> {
        Ok(self.path(&target_path(path, digest).or_fail(|| format!("cannot store `{path}`"))?))
    }

    /// The one target of a role that has one, and its bytes.
    pub(crate) fn only_target(&self, role: &RoleName, path: &str) -> Result<Vec<u8>, Failure> {
        let path = TargetPath::new(path);
        let targets = self.role::<Targets>(role)?.signed.targets;
        let digest = targets.get(&path).and_then(|file| file.hashes.sha256());
        let digest = digest.ok_or_else(|| Failure::usage(format!("`{role}` does not list `{path}`")))?;
        self.target(&path, digest)
    }

    /// Reads a metadata file below the repository.
    pub(crate) fn read(&self, below: &str) -> Result<Vec<u8>, Failure> {
        let path = self.path(below);
        durable::read_if_present(&path, MAX_METADATA_BYTES)
            .or_fail(|| format!("cannot read `{}`", path.display()))?
            .ok_or_else(|| Failure::usage(format!("`{}` is missing", path.display())))
    }

    /// Writes a file below the repository.
    pub(crate) fn write(&self, below: &str, bytes: &[u8]) -> Result<(), Failure> {
        let path = self.path(below);
        durable::write_atomically(&path, bytes).or_fail(|| format!("cannot write `{}`", path.display()))
    }

    /// Writes a document for readers, under the name that its version gives it, unless it is there.
    pub(crate) fn publish_role(&self, role: &RoleName, version: u64, bytes: &[u8]) -> Result<(), Failure> {
        let below = format!("public/{}", metadata_path(role, Some(version)));
        let path = self.path(&below);
        let published = durable::read_if_present(&path, MAX_METADATA_BYTES)
            .or_fail(|| format!("cannot read `{}`", path.display()))?;
        match published {
            Some(published) if published == bytes => Ok(()),
            // Readers keep what they have under this name for ever.
            Some(_) => {
                Err(Failure::no(format!("version {version} of `{role}` was published with other content"))
                    .hint("sign a new version of it"))
            }
            None => self.write(&below, bytes),
        }
    }

    /// Puts a signed document in its role's place; a root also into the chain that readers follow.
    pub(crate) fn write_role(&self, role: &RoleName, version: u64, bytes: &[u8]) -> Result<(), Failure> {
        if *role == RoleName::root() {
            self.write(&root_path(version), bytes)?;
        }
        self.write(&role_path(role), bytes)
    }

    /// Writes every root for readers, those that came and went between two publications among them.
    pub(crate) fn publish_roots(&self, newest: u64) -> Result<(), Failure> {
        for version in 1..=newest {
            let published = self.public().join(metadata_path(&RoleName::root(), Some(version)));
            if !self.path(&root_path(version)).exists() && published.exists() {
                // Published before the chain was kept here.
                continue;
            }
            self.publish_role(&RoleName::root(), version, &self.read(&root_path(version))?)?;
        }
        Ok(())
    }

    /// The approved releases as signed: the targets of the catalogue role, or of its bins.
    pub(crate) fn catalogue(&self) -> Result<Targets, Failure> {
        let mut catalogue = self.role::<Targets>(&catalogue_role())?.signed;
        for bin in self.catalogue_bins()? {
            catalogue.targets.extend(self.role::<Targets>(&bin)?.signed.targets);
        }
        Ok(catalogue)
    }

    /// The bins that the catalogue is split into, if it is.
    pub(crate) fn bins(&self) -> Result<Option<SuccinctRoles>, Failure> {
        let Some(bits) = self.config.catalogue_bin_bits else { return Ok(None) };
        let none = RoleKeys { keyids: Vec::new(), threshold: 1 };
        SuccinctRoles::new(bits, none, catalogue_role().as_str())
            .map(Some)
            .map_err(|error| Failure::usage(format!("`catalogue_bin_bits` in repository.toml: {error}")))
    }

    /// Their names.
    pub(crate) fn catalogue_bins(&self) -> Result<Vec<RoleName>, Failure> {
        Ok(self.bins()?.iter().flat_map(SuccinctRoles::roles).collect())
    }

    /// The roles whose documents people sign, in the order that readers verify them.
    pub(crate) fn signed_roles(&self) -> Result<Vec<RoleName>, Failure> {
        let mut roles =
            vec![RoleName::root(), RoleName::targets(), catalogue_role(), deployment_role(), brake_role()];
        roles.extend(self.catalogue_bins()?);
        Ok(roles)
    }
}

fn root_path(version: u64) -> String {
    format!("roots/{version}.root.json")
}

/// Reads and parses a document, if it is there.
pub(crate) fn read_document<T: RoleDocument>(path: &Path) -> Result<Option<Document<T>>, Failure> {
    let what = || format!("cannot read `{}`", path.display());
    match durable::read_if_present(path, MAX_METADATA_BYTES).or_fail(what)? {
        Some(bytes) => Document::parse(&bytes).map(Some).or_fail(what),
        None => Ok(None),
    }
}
