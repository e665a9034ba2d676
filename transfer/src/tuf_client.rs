//! The TUF client over HTTP: one session of TUF 1.0.34, section 5.
//!
//! Requests are made in exactly the order that section gives: next roots until there is none, timestamp, snapshot,
//! targets; then, lazily, the delegated roles that somebody needs, and targets. What the store holds already, and the
//! role above still names, is not asked for again. Every file is verified before it is written, as received.
//!
//! A session holds the store's lock: two processes never write to one store.
//!
//! | attack | defence |
//! |---|---|
//! | anything in the bytes | [`TrustedMetadata`] |
//! | a file without end | the length that the role above states, or a cap |
//! | a root chain without end | [`MAX_ROOTS`] in one session; the next goes on from there |
//! | a refresh cut at any write | each file is verified again when it is read |
//! | a target path that leaves its directory | one file name for the whole path (`local_name.rs`) |

use std::path::{Path, PathBuf};

use fs_err as fs;
use mirabelle_content::durable;
use mirabelle_manifests::tuf::{
    FileMeta, MetadataError, RoleName, Search, Step, TargetFile, TimestampOutcome, TrustedMetadata,
    metadata_name,
};
use mirabelle_manifests::{Instant, TargetPath};

use crate::fetch::{FetchError, Fetcher};
use crate::local_name::local_name;
use crate::metadata_store::{MetadataStore, StoreError, StoreLock};
use crate::partial::Partial;

/// Roots that one session follows; the next goes on from there.
const MAX_ROOTS: u32 = 256;
/// The most of a root, which nothing above it bounds.
const MAX_ROOT_BYTES: u64 = 512 << 10;
/// The most of a timestamp, likewise.
const MAX_TIMESTAMP_BYTES: u64 = 16 << 10;
/// The most of a snapshot or targets file whose length the role above does not state.
const MAX_UNSTATED_BYTES: u64 = 5_000_000;
/// The most of any metadata or small target, whatever length is stated.
pub(crate) const MAX_STATED_BYTES: u64 = 64 << 20;

/// Why a session did not end well. What was verified before it failed is kept.
#[derive(Debug, thiserror::Error)]
pub enum TufError {
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
    /// The root we hold ourselves is not one.
    #[error("the trusted root of this installation cannot be used")]
    OwnRoot(#[source] MetadataError),
    /// The store does not hold all that its timestamp leads to: the last refresh has not come to its end.
    #[error("the last refresh has not come to its end: `{role}` is not here")]
    Incomplete {
        /// What is missing.
        role: RoleName,
    },
    /// No role that may speak about the path lists it.
    #[error("no role lists `{target}`")]
    Unlisted {
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
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl TufError {
    /// True when somebody sent what was not signed for: never worded as a network fault, never retried as one.
    pub fn is_tampering(&self) -> bool {
        match self {
            Self::Metadata { .. }
            | Self::OwnRoot(_)
            | Self::Unlisted { .. }
            | Self::TargetMismatch { .. } => true,
            Self::Fetch(error) => error.is_tampering(),
            Self::Store(_) | Self::Incomplete { .. } => false,
        }
    }

    /// True when what was sent is genuine, and has expired.
    pub fn is_expiry(&self) -> bool {
        matches!(self, Self::Metadata { source: MetadataError::Expired { .. }, .. })
    }
}

impl From<std::io::Error> for TufError {
    fn from(error: std::io::Error) -> Self {
        Self::Store(error.into())
    }
}

/// Where a repository's files are asked for.
#[derive(Clone, Debug)]
pub struct Repository {
    /// Metadata: `<n>.<role>.json` and `timestamp.json` lie directly below.
    pub metadata: Fetcher,
    /// Targets, under their hashed names.
    pub targets: Fetcher,
}

impl Repository {
    /// The two parts of a Mirabelle server: `metadata/` and `targets/`.
    pub fn of(server: &Fetcher) -> Self {
        Self { metadata: server.below("metadata/"), targets: server.below("targets/") }
    }
}

/// A session under way: what it trusts, and where it asks for more.
#[derive(Debug)]
pub struct TufClient<'a> {
    /// `None`: the store is all there is.
    repository: Option<Repository>,
    store: &'a MetadataStore,
    trusted: TrustedMetadata,
    _lock: Option<StoreLock>,
}

impl<'a> TufClient<'a> {
    /// Refreshes `store` from `repository`, with `now` as the time of the whole session (5.1).
    pub async fn refresh(
        store: &'a MetadataStore,
        repository: Repository,
        now: Instant,
    ) -> Result<Self, TufError> {
        let lock = store.lock()?;
        let trusted = TrustedMetadata::begin(&store.root()?, now).map_err(TufError::OwnRoot)?;
        let mut client = Self { repository: Some(repository), store, trusted, _lock: Some(lock) };
        client.roots().await?;
        client.timestamp().await?;
        client.snapshot().await?;
        client.top_level_targets().await?;
        Ok(client)
    }

    /// Reads what the last refresh left in `store`, without asking anybody, within the grace that its root grants.
    pub async fn kept(store: &'a MetadataStore, now: Instant) -> Result<Self, TufError> {
        let trusted = TrustedMetadata::begin_with_grace(&store.root()?, now).map_err(TufError::OwnRoot)?;
        let mut client = Self { repository: None, store, trusted, _lock: None };
        client.trusted.finish_root().map_err(|source| client.refused(source))?;
        client.timestamp().await?;
        client.snapshot().await?;
        client.top_level_targets().await?;
        Ok(client)
    }

    /// `now`, or when the newest timestamp in `store` was signed, if that is later.
    pub(crate) fn no_earlier_than_kept(store: &MetadataStore, now: Instant) -> Result<Instant, TufError> {
        let mut trusted = TrustedMetadata::begin(&store.root()?, now).map_err(TufError::OwnRoot)?;
        if let Some(bytes) = store.read(&RoleName::timestamp())? {
            // Expired, it still tells the time.
            let _ = trusted.update_timestamp(&bytes);
        }
        Ok(trusted.now())
    }

    /// What is trusted so far.
    pub fn trusted(&self) -> &TrustedMetadata {
        &self.trusted
    }

    /// Ends the session.
    pub fn into_trusted(self) -> TrustedMetadata {
        self.trusted
    }

    /// The error for a document of this session that is not trusted.
    pub(crate) fn refused(&self, source: MetadataError) -> TufError {
        let upstream = match &self.repository {
            Some(repository) => repository.metadata.upstream().to_string(),
            None => "this machine's store".to_owned(),
        };
        TufError::Metadata { upstream, source }
    }

    /// 5.3: follow the chain of roots, keeping each.
    async fn roots(&mut self) -> Result<(), TufError> {
        self.store.keep_root(self.trusted.root().version, &self.store.root()?)?;
        for _ in 0..MAX_ROOTS {
            let Some(next) = self.trusted.root().version.checked_add(1) else { break };
            let Some(repository) = &self.repository else { break };
            let name = metadata_name(&RoleName::root(), Some(next));
            match repository.metadata.bytes(&name, MAX_ROOT_BYTES).await {
                Ok(bytes) => {
                    self.trusted.update_root(&bytes).map_err(|source| self.refused(source))?;
                    self.store.keep_root(next, &bytes)?;
                    self.store.write(&RoleName::root(), &bytes)?;
                }
                // Object stores say 403 of what does not exist, to whoever may not list them.
                Err(FetchError::NotFound { .. } | FetchError::Status { status: 403, .. }) => break,
                Err(error) => return Err(error.into()),
            }
        }
        self.trusted.finish_root().map_err(|source| self.refused(source))
    }

    /// 5.4: the timestamp, with the one that is kept as the floor.
    async fn timestamp(&mut self) -> Result<(), TufError> {
        let role = RoleName::timestamp();
        let kept = match self.store.read(&role)? {
            // Not trusted under today's root, or expired: then it is at most a floor, which it is by now.
            Some(bytes) => self.trusted.update_timestamp(&bytes).map(|_| ()),
            None => Err(MetadataError::OutOfOrder { role: role.clone() }),
        };
        let Some(repository) = &self.repository else {
            return kept.map_err(|source| self.refused(source));
        };
        let bytes = repository.metadata.bytes(&metadata_name(&role, None), MAX_TIMESTAMP_BYTES).await?;
        match self.trusted.update_timestamp(&bytes) {
            Ok(TimestampOutcome::New) => Ok(self.store.write(&role, &bytes)?),
            // Equal versions end the step (5.4.3), but only a fresh one carries the next. What a broken refresh left
            // undone is done now, although nothing new was published.
            Ok(TimestampOutcome::Same) => kept.map_err(|source| self.refused(source)),
            Err(source) => Err(self.refused(source)),
        }
    }

    /// 5.5: the snapshot.
    async fn snapshot(&mut self) -> Result<(), TufError> {
        let role = RoleName::snapshot();
        let kept = self.store.read(&role)?;
        if let Some(bytes) = &kept
            && self.trusted.update_snapshot(bytes, true).is_ok()
        {
            return Ok(());
        }
        let meta = self.trusted.snapshot_meta().map_err(|source| self.refused(source))?.clone();
        let bytes = self.document(&role, &meta, kept.as_deref()).await?;
        self.trusted.update_snapshot(&bytes, false).map_err(|source| self.refused(source))?;
        Ok(self.store.write(&role, &bytes)?)
    }

    /// 5.6: the top-level targets.
    async fn top_level_targets(&mut self) -> Result<(), TufError> {
        let role = RoleName::targets();
        let kept = self.store.read(&role)?;
        if let Some(bytes) = &kept
            && self.trusted.update_targets(bytes).is_ok()
        {
            return Ok(());
        }
        let meta = self.trusted.targets_meta(&role).map_err(|source| self.refused(source))?.clone();
        let bytes = self.document(&role, &meta, kept.as_deref()).await?;
        self.trusted.update_targets(&bytes).map_err(|source| self.refused(source))?;
        Ok(self.store.write(&role, &bytes)?)
    }

    /// 5.6.7: a delegated role, verified against `delegator`, which was verified before under `delegators_delegator`.
    pub async fn delegated(
        &mut self,
        role: &RoleName,
        delegator: &RoleName,
        delegators_delegator: &RoleName,
    ) -> Result<(), TufError> {
        let kept = self.store.read(role)?;
        if let Some(bytes) = &kept
            && self.trusted.update_delegated(bytes, role, delegator, delegators_delegator).is_ok()
        {
            return Ok(());
        }
        let meta = self.trusted.targets_meta(role).map_err(|source| self.refused(source))?.clone();
        let bytes = self.document(role, &meta, kept.as_deref()).await?;
        self.trusted
            .update_delegated(&bytes, role, delegator, delegators_delegator)
            .map_err(|source| self.refused(source))?;
        Ok(self.store.write(role, &bytes)?)
    }

    async fn document(
        &self,
        role: &RoleName,
        meta: &FileMeta,
        kept: Option<&[u8]>,
    ) -> Result<Vec<u8>, TufError> {
        let Some(repository) = &self.repository else {
            return Err(TufError::Incomplete { role: role.clone() });
        };
        let limit = meta.length.unwrap_or(MAX_UNSTATED_BYTES).min(MAX_STATED_BYTES);
        // 6.2: without consistent snapshots, only roots have their version in the name.
        let version = self.trusted.root().consistent_snapshot.then_some(meta.version);
        let name = metadata_name(role, version);
        let genuine = |bytes: &[u8]| {
            meta.length.is_none_or(|length| length == bytes.len() as u64)
                && meta.hashes.as_ref().is_none_or(|hashes| hashes.match_bytes(bytes))
        };
        Ok(repository.metadata.document(&name, limit, kept, &genuine).await?)
    }

    /// What the role that speaks for `target` says about it: a search in pre-order, depth first.
    pub async fn find(&mut self, target: &TargetPath) -> Result<(TargetFile, RoleName), TufError> {
        let mut search = Search::new(target.clone());
        loop {
            match search.step(&self.trusted) {
                Step::Need { role, delegator, delegators_delegator } => {
                    self.delegated(&role, &delegator, &delegators_delegator).await?;
                }
                Step::Found(file, role) => return Ok((file, role)),
                Step::NotFound => return Err(TufError::Unlisted { target: target.clone() }),
            }
        }
    }

    /// Finds `target` and brings it into `directory`, under one file name for the whole path; returns where it is. One
    /// that is there already is not asked for again. Memory does not grow with the target.
    pub async fn download(&mut self, target: &TargetPath, directory: &Path) -> Result<PathBuf, TufError> {
        let (file, role) = self.find(target).await?;
        let Some(repository) = &self.repository else { return Err(TufError::Incomplete { role }) };
        let mismatch = || TufError::TargetMismatch {
            target: target.clone(),
            upstream: repository.targets.upstream().to_string(),
            role: role.clone(),
        };
        let path = directory.join(local_name(target.as_str()));
        if is_genuine(&path, &file).await? {
            return Ok(path);
        }
        let digest = file.hashes.for_file_name().ok_or_else(mismatch)?;
        let consistent = self.trusted.root().consistent_snapshot;
        let address = if consistent { target.hashed(digest) } else { target.plain() };
        let address = address.map_err(|_| FetchError::NotAPath { path: target.to_string() })?;
        let work = tempfile::tempdir_in(directory)?;
        let partial = Partial::new(work.path(), "target");
        repository.targets.range(&address, 0..file.length, file.length, &partial).await?;
        if !is_genuine(partial.path(), &file).await? {
            return Err(mismatch());
        }
        fs::File::open(partial.path())?.sync_all()?;
        fs::rename(partial.path(), &path)?;
        durable::sync_directory(directory)?;
        Ok(path)
    }
}

/// True when the file at `path` is there and is the one that was signed for.
async fn is_genuine(path: &Path, stated: &TargetFile) -> std::io::Result<bool> {
    use std::io::Read;
    let (path, stated) = (path.to_owned(), stated.clone());
    let compare = move || {
        let file = match fs::File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        if file.metadata()?.len() != stated.length {
            return Ok(false);
        }
        let mut comparison = stated.hashes.comparison();
        let mut source = file.take(stated.length);
        let mut buffer = vec![0_u8; 256 << 10];
        loop {
            let read = source.read(&mut buffer)?;
            if read == 0 {
                return Ok(comparison.matches());
            }
            comparison.update(&buffer[..read]);
        }
    };
    tokio::task::spawn_blocking(compare).await.map_err(std::io::Error::other)?
}
