//! The TUF refresh over HTTP, and reading what it brought as Mirabelle.
//!
//! Requests are made in exactly the order of TUF 1.0.34, section 5: next roots until there is none, timestamp,
//! snapshot, targets; then, lazily, the delegated roles and the small targets that Mirabelle needs. What the store
//! holds already, and the role above still names, is not asked for again.

use mirabelle_manifests::network::{
    BRAKE_TARGET, DEPLOYMENT_TARGET, PACKAGERS_TARGET, brake_role, catalogue_role, deployment_role,
    metadata_path, target_path,
};
use mirabelle_manifests::tuf::{
    FileMeta, MetadataError, RoleName, TargetFile, Targets, TimestampOutcome, TrustedMetadata,
};
use mirabelle_manifests::{
    ApprovedRelease, Brake, Catalogue, CatalogueEntry, CatalogueError, Deployment, DeploymentError, Instant,
    Packagers, Refusal, TargetPath, check_approval,
};

use crate::fetch::{FetchError, Fetcher};
use crate::metadata_store::{MetadataStore, StoreError};

/// Roots that one refresh follows; the next goes on from there.
const MAX_ROOTS: u32 = 256;
/// The most of a root, which nothing above it bounds.
const MAX_ROOT_BYTES: u64 = 512 << 10;
/// The most of a timestamp, likewise.
const MAX_TIMESTAMP_BYTES: u64 = 16 << 10;
/// The most of a snapshot or targets file whose length the role above does not state.
const MAX_UNSTATED_BYTES: u64 = 5_000_000;
/// The most of any metadata or small target, whatever length is stated.
const MAX_STATED_BYTES: u64 = 64 << 20;

/// What the network's signed metadata says, verified at one moment.
#[derive(Debug)]
pub struct Network {
    /// The metadata it was read from.
    pub trusted: TrustedMetadata,
    /// The approved releases.
    pub catalogue: Catalogue,
    /// What goes where.
    pub deployment: Deployment,
    /// What must not start now.
    pub brake: Brake,
    /// Who may package what.
    pub packagers: Packagers,
}

/// Why a refresh did not end well. What was verified before it failed is kept.
#[derive(Debug, thiserror::Error)]
pub enum RefreshError {
    /// A file could not be had.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// A document is not trusted.
    #[error("the metadata from {upstream} is refused")]
    Metadata {
        /// Where it came from.
        upstream: String,
        /// Why.
        #[source]
        source: MetadataError,
    },
    /// The store does not hold all that its timestamp leads to: the last refresh has not come to its end.
    #[error("the last refresh has not come to its end: `{role}` is not here")]
    Incomplete {
        /// What is missing.
        role: RoleName,
    },
    /// The root we hold ourselves is not one.
    #[error("the trusted root of this installation cannot be used")]
    OwnRoot(#[source] MetadataError),
    /// A target is not listed by the role that must list it, or not for that role to list.
    #[error("`{role}` does not list `{target}`")]
    Unlisted {
        /// The role.
        role: RoleName,
        /// The target.
        target: TargetPath,
    },
    /// A target's bytes are not those that were signed for.
    #[error("`{target}` from {upstream} does not have the length or digest that `{role}` states")]
    TargetMismatch {
        /// The target.
        target: TargetPath,
        /// Where it came from.
        upstream: String,
        /// The role that lists it.
        role: RoleName,
    },
    /// The catalogue is signed but does not read as one.
    #[error("the catalogue cannot be used")]
    Catalogue(#[from] CatalogueError),
    /// The deployment policy likewise.
    #[error("the deployment cannot be used")]
    Deployment(#[from] DeploymentError),
    /// The list of packagers or the brake likewise.
    #[error("`{target}` is malformed")]
    MalformedTarget {
        /// The target.
        target: TargetPath,
        /// What is wrong.
        #[source]
        source: serde_json::Error,
    },
    /// One of the two bodies does not stand behind a release.
    #[error("`{package}` is refused")]
    Refused {
        /// The package and version.
        package: String,
        /// Which body, and why.
        #[source]
        source: Refusal,
    },
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl RefreshError {
    /// True when somebody sent what was not signed for: never worded as a network fault, never retried as one.
    pub fn is_tampering(&self) -> bool {
        match self {
            Self::Metadata { .. }
            | Self::OwnRoot(_)
            | Self::Unlisted { .. }
            | Self::TargetMismatch { .. }
            | Self::Catalogue(_)
            | Self::Deployment(_)
            | Self::MalformedTarget { .. }
            | Self::Refused { .. } => true,
            Self::Fetch(error) => matches!(error, FetchError::TooLong { .. }),
            Self::Store(_) | Self::Incomplete { .. } => false,
        }
    }
}

impl From<std::io::Error> for RefreshError {
    fn from(error: std::io::Error) -> Self {
        Self::Store(error.into())
    }
}

/// Where a document is looked for after the store: a server, or nowhere.
struct Session<'a> {
    fetcher: Option<&'a Fetcher>,
    store: &'a MetadataStore,
    trusted: TrustedMetadata,
}

/// Refreshes `store` from the fetcher's server, with `now` as the time of the whole session.
pub async fn refresh(
    fetcher: &Fetcher,
    store: &MetadataStore,
    now: Instant,
) -> Result<Network, RefreshError> {
    let _lock = store.lock()?;
    let trusted = TrustedMetadata::begin(&store.root()?, now).map_err(RefreshError::OwnRoot)?;
    let mut session = Session { fetcher: Some(fetcher), store, trusted };
    session.roots().await?;
    session.timestamp().await?;
    session.snapshot().await?;
    session.top_level_targets().await?;
    session.network().await
}

/// Reads what the last refresh left in `store`, without asking anybody: for commands that only look.
pub async fn kept_network(store: &MetadataStore, now: Instant) -> Result<Network, RefreshError> {
    let trusted = TrustedMetadata::begin(&store.root()?, now).map_err(RefreshError::OwnRoot)?;
    let mut session = Session { fetcher: None, store, trusted };
    session.trusted.finish_root().map_err(|source| session.refused(source))?;
    session.timestamp().await?;
    session.snapshot().await?;
    session.top_level_targets().await?;
    session.network().await
}

/// Fetches a release's manifest and checks both bodies (promise 1). Also returns the manifest's bytes.
pub async fn fetch_release(
    fetcher: &Fetcher,
    network: &Network,
    entry: &CatalogueEntry,
) -> Result<(ApprovedRelease, Vec<u8>), RefreshError> {
    let path = target_path(&entry.path, entry.digest)
        .map_err(|_| FetchError::NotAPath { path: entry.path.to_string() })?;
    let bytes = fetcher.bytes(&path, entry.length.min(MAX_STATED_BYTES)).await?;
    let package = format!("{} {}", entry.listing.name, entry.listing.version);
    let release = check_approval(&bytes, entry, &network.packagers)
        .map_err(|source| RefreshError::Refused { package, source })?;
    Ok((release, bytes))
}

impl Session<'_> {
    fn refused(&self, source: MetadataError) -> RefreshError {
        let upstream = self.fetcher.map_or("this machine's store".to_owned(), |f| f.upstream().to_string());
        RefreshError::Metadata { upstream, source }
    }

    /// 5.3: follow the chain of roots, keeping each.
    async fn roots(&mut self) -> Result<(), RefreshError> {
        self.store.keep_root(self.trusted.root().version, &self.store.root()?)?;
        for _ in 0..MAX_ROOTS {
            let next = self.trusted.root().version.saturating_add(1);
            let Some(fetcher) = self.fetcher else { break };
            match fetcher.bytes(&metadata_path(&RoleName::root(), Some(next)), MAX_ROOT_BYTES).await {
                Ok(bytes) => {
                    self.trusted.update_root(&bytes).map_err(|source| self.refused(source))?;
                    self.store.keep_root(next, &bytes)?;
                    self.store.write(&RoleName::root(), &bytes)?;
                }
                Err(FetchError::NotFound { .. }) => break,
                Err(error) => return Err(error.into()),
            }
        }
        self.trusted.finish_root().map_err(|source| self.refused(source))
    }

    /// 5.4: the timestamp, with the one that is kept as the floor.
    async fn timestamp(&mut self) -> Result<(), RefreshError> {
        let role = RoleName::timestamp();
        let kept = match self.store.read(&role)? {
            // Not trusted under today's root, or expired: then it is at most a floor, which it is by now.
            Some(bytes) => self.trusted.update_timestamp(&bytes).map(|_| ()),
            None => Err(MetadataError::OutOfOrder { role: role.clone() }),
        };
        let Some(fetcher) = self.fetcher else {
            return kept.map_err(|source| self.refused(source));
        };
        let bytes = fetcher.bytes(&metadata_path(&role, None), MAX_TIMESTAMP_BYTES).await?;
        match self.trusted.update_timestamp(&bytes) {
            Ok(TimestampOutcome::New) => Ok(self.store.write(&role, &bytes)?),
            // Equal versions end the step (5.4.3), but only a fresh one carries the next.
            Ok(TimestampOutcome::Same) => kept.map_err(|source| self.refused(source)),
            Err(source) => Err(self.refused(source)),
        }
    }

    /// 5.5: the snapshot.
    async fn snapshot(&mut self) -> Result<(), RefreshError> {
        let role = RoleName::snapshot();
        if let Some(bytes) = self.store.read(&role)?
            && self.trusted.update_snapshot(&bytes, true).is_ok()
        {
            return Ok(());
        }
        let meta = self.trusted.snapshot_meta().map_err(|source| self.refused(source))?.clone();
        let bytes = self.document(&role, &meta).await?;
        self.trusted.update_snapshot(&bytes, false).map_err(|source| self.refused(source))?;
        Ok(self.store.write(&role, &bytes)?)
    }

    /// 5.6: the top-level targets.
    async fn top_level_targets(&mut self) -> Result<(), RefreshError> {
        let role = RoleName::targets();
        if let Some(bytes) = self.store.read(&role)?
            && self.trusted.update_targets(&bytes).is_ok()
        {
            return Ok(());
        }
        let meta = self.trusted.targets_meta(&role).map_err(|source| self.refused(source))?.clone();
        let bytes = self.document(&role, &meta).await?;
        self.trusted.update_targets(&bytes).map_err(|source| self.refused(source))?;
        Ok(self.store.write(&role, &bytes)?)
    }

    /// 5.6.7, for a role that targets delegates to directly.
    async fn delegated(&mut self, role: &RoleName) -> Result<(), RefreshError> {
        let (targets, root) = (RoleName::targets(), RoleName::root());
        if let Some(bytes) = self.store.read(role)?
            && self.trusted.update_delegated(&bytes, role, &targets, &root).is_ok()
        {
            return Ok(());
        }
        let meta = self.trusted.targets_meta(role).map_err(|source| self.refused(source))?.clone();
        let bytes = self.document(role, &meta).await?;
        self.trusted
            .update_delegated(&bytes, role, &targets, &root)
            .map_err(|source| self.refused(source))?;
        Ok(self.store.write(role, &bytes)?)
    }

    async fn document(&self, role: &RoleName, meta: &FileMeta) -> Result<Vec<u8>, RefreshError> {
        let Some(fetcher) = self.fetcher else { return Err(RefreshError::Incomplete { role: role.clone() }) };
        let limit = meta.length.unwrap_or(MAX_UNSTATED_BYTES).min(MAX_STATED_BYTES);
        Ok(fetcher.bytes(&metadata_path(role, Some(meta.version)), limit).await?)
    }

    /// Reads the verified metadata as Mirabelle.
    async fn network(mut self) -> Result<Network, RefreshError> {
        for role in [catalogue_role(), deployment_role(), brake_role()] {
            self.delegated(&role).await?;
        }
        let packagers = self.target(&RoleName::targets(), PACKAGERS_TARGET).await?;
        let deployment = self.target(&deployment_role(), DEPLOYMENT_TARGET).await?;
        let brake = self.target(&brake_role(), BRAKE_TARGET).await?;
        let malformed = |target: &str| {
            let target = TargetPath::new(target);
            move |source| RefreshError::MalformedTarget { target, source }
        };
        Ok(Network {
            catalogue: Catalogue::read(&self.listed(&catalogue_role())?)?,
            deployment: Deployment::parse(&deployment)?,
            brake: Brake::parse(&brake).map_err(malformed(BRAKE_TARGET))?,
            packagers: Packagers::parse(&packagers).map_err(malformed(PACKAGERS_TARGET))?,
            trusted: self.trusted,
        })
    }

    /// A role's targets, without those that it was not given to speak about.
    fn listed(&self, role: &RoleName) -> Result<Targets, RefreshError> {
        let missing = || self.refused(MetadataError::OutOfOrder { role: role.clone() });
        let mut listed = self.trusted.delegated(role, &RoleName::targets()).ok_or_else(missing)?.clone();
        if *role != RoleName::targets() {
            let delegations = self.trusted.targets().and_then(|targets| targets.delegations.as_ref());
            let delegation = delegations.and_then(|all| all.roles.iter().find(|other| other.name == *role));
            listed.targets.retain(|path, _| delegation.is_some_and(|delegation| delegation.covers(path)));
        }
        Ok(listed)
    }

    /// A small target of exactly this role, from the store or the server.
    async fn target(&self, role: &RoleName, path: &str) -> Result<Vec<u8>, RefreshError> {
        let target = TargetPath::new(path);
        let unlisted = || RefreshError::Unlisted { role: role.clone(), target: target.clone() };
        let listed = self.listed(role)?;
        let file: &TargetFile = listed.targets.get(&target).ok_or_else(unlisted)?;
        let digest = file.hashes.sha256().ok_or_else(unlisted)?;
        let genuine = |bytes: &[u8]| bytes.len() as u64 == file.length && file.hashes.match_bytes(bytes);
        if let Some(bytes) = self.store.read_target(&target, digest)?.filter(|bytes| genuine(bytes)) {
            return Ok(bytes);
        }
        let mismatch = |upstream: String| RefreshError::TargetMismatch {
            target: target.clone(),
            upstream,
            role: role.clone(),
        };
        let Some(fetcher) = self.fetcher else { return Err(RefreshError::Incomplete { role: role.clone() }) };
        let address = target_path(&target, digest).map_err(|_| unlisted())?;
        let bytes = fetcher.bytes(&address, file.length.min(MAX_STATED_BYTES)).await?;
        if !genuine(&bytes) {
            return Err(mismatch(fetcher.upstream().to_string()));
        }
        self.store.write_target(&target, digest, &bytes)?;
        Ok(bytes)
    }
}
