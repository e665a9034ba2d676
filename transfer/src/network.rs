//! Reading what a TUF refresh brought as Mirabelle: catalogue, deployment, brake, packagers.

use mirabelle_manifests::network::{
    BRAKE_TARGET, DEPLOYMENT_TARGET, MAX_CATALOGUE_BINS, PACKAGERS_TARGET, brake_role, catalogue_role,
    deployment_role, metadata_path, target_path,
};
use mirabelle_manifests::tuf::{ClockBehind, MetadataError, RoleName, TargetFile, Targets, TrustedMetadata};
use mirabelle_manifests::{
    ApprovedRelease, Brake, Catalogue, CatalogueEntry, CatalogueError, Deployment, DeploymentError, Digest,
    Instant, Packagers, Refusal, TargetPath, check_approval,
};

use crate::fetch::{FetchError, Fetcher};
use crate::metadata_store::MetadataStore;
use crate::tuf_client::{MAX_STATED_BYTES, Repository, TufClient, TufError};

/// How often kept metadata is read, where a refresh replaces it each time meanwhile.
const MAX_READS: u32 = 4;

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

impl Network {
    /// The targets roles that were read, in the order they were verified.
    pub fn roles(&self) -> Vec<RoleName> {
        roles_of(&self.trusted)
    }

    /// Since when the metadata has expired: it is what was verified before, within the grace that root grants.
    pub fn stale_since(&self) -> Option<Instant> {
        self.trusted.stale_since()
    }

    /// This machine's clock, if it is behind what was signed.
    pub fn clock_behind(&self) -> Option<ClockBehind> {
        self.trusted.clock_behind()
    }
}

fn roles_of(trusted: &TrustedMetadata) -> Vec<RoleName> {
    let catalogue = trusted.delegated(&catalogue_role(), &RoleName::targets());
    let bins = catalogue.and_then(|role| Some(role.delegations.as_ref()?.bins.as_ref()?.roles()));
    let roles = [RoleName::targets(), catalogue_role(), deployment_role(), brake_role()];
    roles.into_iter().chain(bins.into_iter().flatten()).collect()
}

/// Why there is no network to read. What was verified before it failed is kept.
#[derive(Debug, thiserror::Error)]
pub enum RefreshError {
    /// The metadata could not be had, or is not trusted.
    #[error(transparent)]
    Tuf(#[from] TufError),
    /// A target is not listed by the role that must list it, or not for that role to list.
    #[error("`{role}` does not list `{target}`")]
    Unlisted {
        /// The role.
        role: RoleName,
        /// The target.
        target: TargetPath,
    },
    /// The catalogue is split into more bins than anybody needs.
    #[error("the catalogue has {0} bins")]
    TooManyBins(u64),
    /// The catalogue is split into bins under a name for which root pins nobody.
    #[error("the catalogue delegates to `{0}-…`, for which root pins no approvers")]
    ForeignBins(String),
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
}

impl RefreshError {
    /// True when somebody sent what was not signed for: never worded as a network fault, never retried as one.
    pub fn is_tampering(&self) -> bool {
        match self {
            Self::Tuf(error) => error.is_tampering(),
            Self::Unlisted { .. }
            | Self::TooManyBins(_)
            | Self::ForeignBins(_)
            | Self::Catalogue(_)
            | Self::Deployment(_)
            | Self::MalformedTarget { .. }
            | Self::Refused { .. } => true,
        }
    }

    fn is_expiry(&self) -> bool {
        matches!(self, Self::Tuf(error) if error.is_expiry())
    }
}

impl From<std::io::Error> for RefreshError {
    fn from(error: std::io::Error) -> Self {
        Self::Tuf(error.into())
    }
}

impl From<FetchError> for RefreshError {
    fn from(error: FetchError) -> Self {
        Self::Tuf(error.into())
    }
}

/// Refreshes `store` from the fetcher's server, with `now` as the time of the whole session. Strict: what has expired
/// is refused.
pub async fn refresh(
    fetcher: &Fetcher,
    store: &MetadataStore,
    now: Instant,
) -> Result<Network, RefreshError> {
    let client = TufClient::refresh(store, Repository::of(fetcher), now).await?;
    Reading { client, fetcher: Some(fetcher), store }.network().await
}

/// Asks whether the server has another timestamp than the last one of which everything is in `store`: one request, and no
/// more work than comparing some hundred bytes. Nothing is learnt from the answer but whether a refresh is worth while: what is
/// there was verified when it came, and is read again by whoever uses it.
pub async fn is_unchanged(fetcher: &Fetcher, store: &MetadataStore) -> Result<bool, RefreshError> {
    let Some(complete) = store.last_complete()? else { return Ok(false) };
    let Some(known) = complete.read(&RoleName::timestamp())? else { return Ok(false) };
    let path = metadata_path(&RoleName::timestamp(), None);
    match fetcher.bytes(&path, known.len() as u64).await {
        Ok(bytes) => Ok(bytes == known),
        Err(FetchError::TooLong { .. }) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// As [`refresh`], but when what the server offers has expired, what was verified before is read within its grace:
/// a college that is cut off goes on installing what it knew, and nothing newer is accepted.
pub async fn refresh_or_keep(
    fetcher: &Fetcher,
    store: &MetadataStore,
    now: Instant,
) -> Result<Network, RefreshError> {
    match refresh(fetcher, store, now).await {
        Err(expired) if expired.is_expiry() => kept_network(store, now).await.map_err(|_| expired),
        done => done,
    }
}

/// Reads what the last refresh left in `store`, without asking anybody, within its grace. Another process may be refreshing it.
pub async fn kept_network(store: &MetadataStore, now: Instant) -> Result<Network, RefreshError> {
    let mut attempt = 1;
    loop {
        let complete = store.last_complete_timestamp();
        match read_kept_or_before(store, now).await {
            // Whoever reads while a refresh comes to its end finds half of each: what is there now is whole.
            Err(_) if attempt < MAX_READS && store.last_complete_timestamp() != complete => attempt += 1,
            done => return done,
        }
    }
}

async fn read_kept_or_before(store: &MetadataStore, now: Instant) -> Result<Network, RefreshError> {
    match read_kept(store, now).await {
        Ok(network) => Ok(network),
        // A refresh that was cut, or is under way, left something newer half here.
        Err(error) => match store.last_complete()? {
            // It is no earlier than whatever of the newer one was verified.
            Some(before) => {
                let now = TufClient::no_earlier_than_kept(store, now)?;
                read_kept(&before, now).await.map_err(|_| error)
            }
            None => Err(error),
        },
    }
}

async fn read_kept(store: &MetadataStore, now: Instant) -> Result<Network, RefreshError> {
    let client = TufClient::kept(store, now).await?;
    Reading { client, fetcher: None, store }.network().await
}

/// Fetches a release's manifest, as a difference from one that is `held` if the server has that, and checks both bodies
/// (promise 1). Also returns the manifest's bytes.
pub async fn fetch_release(
    fetcher: &Fetcher,
    network: &Network,
    entry: &CatalogueEntry,
    held: Option<&[u8]>,
) -> Result<(ApprovedRelease, Vec<u8>), RefreshError> {
    let path = target_path(&entry.path, entry.digest)
        .map_err(|_| FetchError::NotAPath { path: entry.path.to_string() })?;
    let limit = entry.length.min(MAX_STATED_BYTES);
    let genuine = |bytes: &[u8]| Digest::of(bytes) == entry.digest;
    let bytes = fetcher.document(&path, limit, held, &genuine).await?;
    Ok((approved(&bytes, network, entry)?, bytes))
}

/// Checks both bodies, whatever way a manifest came.
pub(crate) fn approved(
    manifest: &[u8],
    network: &Network,
    entry: &CatalogueEntry,
) -> Result<ApprovedRelease, RefreshError> {
    check_approval(manifest, entry, &network.packagers).map_err(|source| {
        let package = format!("{} {}", entry.listing.name, entry.listing.version);
        RefreshError::Refused { package, source }
    })
}

/// A refreshed session being read.
struct Reading<'a> {
    client: TufClient<'a>,
    fetcher: Option<&'a Fetcher>,
    store: &'a MetadataStore,
}

impl Reading<'_> {
    /// Reads the verified metadata as Mirabelle.
    async fn network(mut self) -> Result<Network, RefreshError> {
        for role in [catalogue_role(), deployment_role(), brake_role()] {
            self.client.delegated(&role, &RoleName::targets(), &RoleName::root()).await?;
        }
        let catalogue = self.catalogue().await?;
        let packagers = self.target(&RoleName::targets(), PACKAGERS_TARGET).await?;
        let deployment = self.target(&deployment_role(), DEPLOYMENT_TARGET).await?;
        let brake = self.target(&brake_role(), BRAKE_TARGET).await?;
        let malformed = |target: &str| {
            let target = TargetPath::new(target);
            move |source| RefreshError::MalformedTarget { target, source }
        };
        let catalogue = Catalogue::read(&catalogue)?;
        let deployment = Deployment::parse(&deployment)?;
        let brake = Brake::parse(&brake).map_err(malformed(BRAKE_TARGET))?;
        let packagers = Packagers::parse(&packagers).map_err(malformed(PACKAGERS_TARGET))?;
        if self.fetcher.is_some() {
            // All of it reads; and the session still keeps other writers out.
            let trusted = self.client.trusted();
            let roles = [RoleName::timestamp(), RoleName::snapshot()].into_iter().chain(roles_of(trusted));
            let version = trusted.timestamp().map_or(0, |timestamp| timestamp.version);
            if let Err(error) = self.store.keep_complete(version, &roles.collect::<Vec<_>>()) {
                // It is for a later refresh that is cut; this one is well.
                tracing::warn!(%error, "the complete metadata could not be set aside");
            }
        }
        Ok(Network { catalogue, deployment, brake, packagers, trusted: self.client.into_trusted() })
    }

    /// The approved releases: those of the catalogue role, or of its bins.
    async fn catalogue(&mut self) -> Result<Targets, RefreshError> {
        let mut catalogue = self.listed(&catalogue_role())?;
        let Some(bins) = catalogue.delegations.as_ref().and_then(|delegations| delegations.bins.clone())
        else {
            return Ok(catalogue);
        };
        if bins.name_prefix != catalogue_role().as_str() {
            return Err(RefreshError::ForeignBins(bins.name_prefix));
        }
        if bins.count() > MAX_CATALOGUE_BINS {
            return Err(RefreshError::TooManyBins(bins.count()));
        }
        let mut listed = Vec::new();
        for bin in bins.roles() {
            self.client.delegated(&bin, &catalogue_role(), &RoleName::targets()).await?;
            let role = self.client.trusted().delegated(&bin, &catalogue_role());
            let targets = role.into_iter().flat_map(|role| &role.targets);
            // A bin speaks for its own paths only.
            listed.extend(
                targets
                    .filter(|(path, _)| bins.role_of(path) == bin)
                    .map(|(path, file)| (path.clone(), file.clone())),
            );
        }
        let covers = |path: &TargetPath| {
            let delegations =
                self.client.trusted().targets().and_then(|targets| targets.delegations.as_ref());
            let mut roles = delegations.into_iter().flat_map(|all| &all.roles);
            roles.any(|role| role.name == catalogue_role() && role.covers(path))
        };
        listed.retain(|(path, _)| covers(path));
        catalogue.targets.extend(listed);
        Ok(catalogue)
    }

    /// A role's targets, without those that it was not given to speak about.
    fn listed(&self, role: &RoleName) -> Result<Targets, RefreshError> {
        let missing = || self.client.refused(MetadataError::OutOfOrder { role: role.clone() });
        let mut listed =
            self.client.trusted().delegated(role, &RoleName::targets()).ok_or_else(missing)?.clone();
        if *role != RoleName::targets() {
            let delegations =
                self.client.trusted().targets().and_then(|targets| targets.delegations.as_ref());
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
        let Some(fetcher) = self.fetcher else {
            return Err(TufError::Incomplete { role: role.clone() }.into());
        };
        let address = target_path(&target, digest).map_err(|_| unlisted())?;
        let held = self.store.held_target(&target)?;
        let limit = file.length.min(MAX_STATED_BYTES);
        let bytes = fetcher.document(&address, limit, held.as_deref(), &genuine).await?;
        if !genuine(&bytes) {
            let upstream = fetcher.upstream().to_string();
            return Err(TufError::TargetMismatch { target, upstream, role: role.clone() }.into());
        }
        self.store.write_target(&target, digest, &bytes)?;
        Ok(bytes)
    }
}
