//! The client workflow of TUF 1.0.34, section 5, as a state machine over bytes.
//!
//! Invariant: everything it holds was signed by the threshold of the role that the role above it names, and nothing
//! it holds is older than what it was told before. Time is fixed when it is made (5.1).
//!
//! The time is the caller's, but no earlier than the newest timestamp was signed (`x-issued`): a machine whose battery is
//! dead believes that it is 1970, where everything is fresh. A clock that runs ahead can only make everything expire;
//! no later time is ever learnt from the clock, so that nothing stays broken once it is set right.
//!
//! A copy from an earlier session is fed in like a new one: whatever it proves about versions counts even when it has
//! expired, so that an expired copy still is a floor against rollback; whether it is fresh is asked only at the end of
//! each role's step.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp as Instant};
use mirabelle_keys::{Keyring, KeyringError};

use super::{Document, DocumentError, FileMeta, RoleDocument, RoleName, Root, Snapshot, Targets, Timestamp};

/// Why a document is not trusted. Every variant names the role.
#[derive(Debug, thiserror::Error)]
pub enum MetadataError {
    /// The bytes are no document of that role.
    #[error("`{role}` is malformed")]
    Malformed {
        /// The role.
        role: RoleName,
        /// What is wrong with it.
        #[source]
        source: DocumentError,
    },
    /// The signatures do not speak for the role, by what `delegator` says of it.
    #[error("`{role}` is not signed as `{delegator}` demands")]
    Signatures {
        /// The role.
        role: RoleName,
        /// The role whose word decides.
        delegator: RoleName,
        /// What is missing.
        #[source]
        source: KeyringError,
    },
    /// A lower version than one that was trusted, or named, before.
    #[error("`{role}` is version {got}, older than version {trusted} that was seen before: a rollback")]
    Rollback {
        /// The role.
        role: RoleName,
        /// The version in the document.
        got: u64,
        /// The version that was seen.
        trusted: u64,
    },
    /// Not the version that was asked for.
    #[error("`{role}` is version {got}, expected exactly {expected}")]
    WrongVersion {
        /// The role.
        role: RoleName,
        /// The version in the document.
        got: u64,
        /// The version that the role above names.
        expected: u64,
    },
    /// The role's file is not the one that the role above describes.
    #[error("`{role}` does not have the length or digest that `{by}` states")]
    Mismatch {
        /// The role.
        role: RoleName,
        /// Who states it.
        by: RoleName,
    },
    /// The document is no longer valid.
    #[error("`{role}` expired at {expired}, and it is {now}")]
    Expired {
        /// The role.
        role: RoleName,
        /// When it stopped being valid.
        expired: Instant,
        /// The time this session reckons with.
        now: Instant,
    },
    /// A snapshot no longer names a role that it named before.
    #[error("the new snapshot no longer names `{role}`")]
    Vanished {
        /// The role.
        role: RoleName,
    },
    /// Nobody that is trusted delegates to such a role, or the snapshot does not name it.
    #[error("`{role}` is not named by `{by}`")]
    Unnamed {
        /// The role.
        role: RoleName,
        /// Who should name it.
        by: RoleName,
    },
    /// Called out of the order that section 5 gives.
    #[error("`{role}` was needed but has not been verified yet")]
    OutOfOrder {
        /// The role that comes first.
        role: RoleName,
    },
}

/// A clock this much behind what was signed is wrong, rather than one that nobody set to the second or the zone.
const CLOCK_TOLERANCE: SignedDuration = SignedDuration::from_hours(24);

/// A clock that is behind: what it says, and the time that it cannot be earlier than.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockBehind {
    /// What the clock says.
    pub says: Instant,
    /// When something was signed that is here.
    pub at_least: Instant,
}

/// What became of a timestamp that was offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimestampOutcome {
    /// It is newer, and now trusted.
    New,
    /// It has the version of the one already trusted; that one stays (5.4.3).
    Same,
}

/// Everything that was verified in one session.
#[derive(Debug)]
pub struct TrustedMetadata {
    clock: Instant,
    now: Instant,
    /// How long after its expiry a document still counts; not at all, but for what was verified before.
    grace: SignedDuration,
    root: Root,
    timestamp: Option<Timestamp>,
    snapshot: Option<Snapshot>,
    targets: Option<Targets>,
    /// By role and the role whose delegation it was verified against: trust through one delegator is none through
    /// another.
    delegated: BTreeMap<(RoleName, RoleName), Targets>,
}

impl TrustedMetadata {
    /// Begins a session at `now` with a root that is already trusted: from the installation, or kept by the last
    /// session (5.2). It must at least be signed by its own keys.
    pub fn begin(trusted_root: &[u8], now: Instant) -> Result<Self, MetadataError> {
        let document = parse::<Root>(trusted_root, &RoleName::root())?;
        let root = document.signed.clone();
        verify(&document, &RoleName::root(), &RoleName::root(), &keyring_of(&root, &RoleName::root())?)?;
        Ok(Self {
            clock: now,
            now,
            grace: SignedDuration::ZERO,
            root,
            timestamp: None,
            snapshot: None,
            targets: None,
            delegated: BTreeMap::new(),
        })
    }

    /// Begins a session over what an earlier one verified and kept: for as long as the root grants, its expired
    /// documents still count. Never to be fed with anything that comes from elsewhere.
    pub fn begin_with_grace(trusted_root: &[u8], now: Instant) -> Result<Self, MetadataError> {
        let mut trusted = Self::begin(trusted_root, now)?;
        let days = i64::from(trusted.root.grace_days.unwrap_or_default());
        trusted.grace = SignedDuration::from_hours(24 * days);
        Ok(trusted)
    }

    /// Since when something that is trusted here has expired, which only a session with grace can have.
    pub fn stale_since(&self) -> Option<Instant> {
        let roles = self.targets.iter().chain(self.delegated.values()).map(RoleDocument::expires);
        let above = self.timestamp.iter().map(RoleDocument::expires);
        let above = above.chain(self.snapshot.iter().map(RoleDocument::expires));
        let all = std::iter::once(self.root.expires()).chain(above).chain(roles);
        all.min().filter(|expires| *expires <= self.now)
    }

    /// The clock that the session was begun with, if it is wrong for certain.
    pub fn clock_behind(&self) -> Option<ClockBehind> {
        let behind = ClockBehind { says: self.clock, at_least: self.now };
        (self.clock.saturating_add(CLOCK_TOLERANCE).ok()? < self.now).then_some(behind)
    }

    /// The time this session reckons with.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// The trusted root.
    pub fn root(&self) -> &Root {
        &self.root
    }

    /// The trusted timestamp.
    pub fn timestamp(&self) -> Option<&Timestamp> {
        self.timestamp.as_ref()
    }

    /// The trusted snapshot.
    pub fn snapshot(&self) -> Option<&Snapshot> {
        self.snapshot.as_ref()
    }

    /// The trusted top-level targets.
    pub fn targets(&self) -> Option<&Targets> {
        self.targets.as_ref()
    }

    /// A delegated role, as far as it was verified against `delegator`.
    pub fn delegated(&self, role: &RoleName, delegator: &RoleName) -> Option<&Targets> {
        if *role == RoleName::targets() {
            return self.targets.as_ref();
        }
        self.delegated.get(&(role.clone(), delegator.clone()))
    }

    /// Takes the next root (5.3.4 to 5.3.8): signed by the old root's keys *and* its own, and exactly one version on.
    pub fn update_root(&mut self, bytes: &[u8]) -> Result<(), MetadataError> {
        let role = RoleName::root();
        let document = parse::<Root>(bytes, &role)?;
        verify(&document, &role, &role, &keyring_of(&self.root, &role)?)?;
        verify(&document, &role, &role, &keyring_of(&document.signed, &role)?)?;
        // After the last number there is no next root; the same one again is none.
        let next = self.root.version.checked_add(1);
        if next != Some(document.signed.version) {
            let expected = next.unwrap_or(u64::MAX);
            return Err(MetadataError::WrongVersion { role, got: document.signed.version, expected });
        }
        self.root = document.signed;
        Ok(())
    }

    /// Ends the root step: the newest root must not have expired (5.3.10).
    pub fn finish_root(&self) -> Result<(), MetadataError> {
        self.fresh(&self.root, &RoleName::root())
    }

    /// Takes a timestamp (5.4). On [`MetadataError::Expired`] it is kept as a floor against rollback, but nothing can
    /// be built on it.
    pub fn update_timestamp(&mut self, bytes: &[u8]) -> Result<TimestampOutcome, MetadataError> {
        let role = RoleName::timestamp();
        self.finish_root()?;
        let document = parse::<Timestamp>(bytes, &role)?;
        verify(&document, &role, &RoleName::root(), &keyring_of(&self.root, &role)?)?;
        let new = document.signed;
        let named =
            new.snapshot().ok_or(MetadataError::Unnamed { role: RoleName::snapshot(), by: role.clone() })?;
        if let Some(old) = &self.timestamp {
            if new.version < old.version {
                return Err(MetadataError::Rollback { role, got: new.version, trusted: old.version });
            }
            if new.version == old.version {
                return Ok(TimestampOutcome::Same);
            }
            let floor = old.snapshot().map_or(0, |meta| meta.version);
            if named.version < floor {
                return Err(MetadataError::Rollback {
                    role: RoleName::snapshot(),
                    got: named.version,
                    trusted: floor,
                });
            }
        }
        self.now = new.issued.unwrap_or(self.now).max(self.now);
        self.timestamp = Some(new);
        self.finish_root()?;
        self.fresh_timestamp()?;
        Ok(TimestampOutcome::New)
    }

    /// Takes the snapshot that the timestamp names (5.5). `kept`: it comes from the last session's store, where its
    /// digest was checked against the timestamp of that time and need not match a newer one's.
    pub fn update_snapshot(&mut self, bytes: &[u8], kept: bool) -> Result<(), MetadataError> {
        let role = RoleName::snapshot();
        self.fresh_timestamp()?;
        let named = self.snapshot_meta()?.clone();
        if !kept {
            matches_meta(bytes, &named, &role, RoleName::timestamp())?;
        }
        let document = parse::<Snapshot>(bytes, &role)?;
        verify(&document, &role, &RoleName::root(), &keyring_of(&self.root, &role)?)?;
        let new = document.signed;
        if let Some(old) = &self.snapshot {
            for (name, before) in &old.meta {
                let role = || RoleName::new(name.strip_suffix(".json").unwrap_or(name));
                let Some(after) = new.meta.get(name) else {
                    return Err(MetadataError::Vanished { role: role() });
                };
                if after.version < before.version {
                    return Err(MetadataError::Rollback {
                        role: role(),
                        got: after.version,
                        trusted: before.version,
                    });
                }
            }
        }
        // An older snapshot is not final, but its versions are a floor for the next one.
        self.snapshot = Some(new);
        self.final_snapshot().map(|_| ())
    }

    /// Takes the top-level targets (5.6).
    pub fn update_targets(&mut self, bytes: &[u8]) -> Result<(), MetadataError> {
        let keyring = keyring_of(&self.root, &RoleName::targets())?;
        let targets = self.accept_targets(bytes, &RoleName::targets(), &RoleName::root(), &keyring)?;
        self.targets = Some(targets);
        Ok(())
    }

    /// Takes a delegated role (5.6.7), verified against `delegator`, which must have been verified before under
    /// `delegators_delegator`.
    pub fn update_delegated(
        &mut self,
        bytes: &[u8],
        role: &RoleName,
        delegator: &RoleName,
        delegators_delegator: &RoleName,
    ) -> Result<(), MetadataError> {
        let parent = self
            .delegated(delegator, delegators_delegator)
            .ok_or_else(|| MetadataError::OutOfOrder { role: delegator.clone() })?;
        let keyring = delegation_keyring(parent, role, delegator)?;
        let targets = self.accept_targets(bytes, role, delegator, &keyring)?;
        self.delegated.insert((role.clone(), delegator.clone()), targets);
        Ok(())
    }

    /// What the snapshot says about a targets role's file: what to ask for, and how long it may be.
    pub fn targets_meta(&self, role: &RoleName) -> Result<&FileMeta, MetadataError> {
        self.final_snapshot()?
            .meta
            .get(&role.meta_name())
            .ok_or_else(|| MetadataError::Unnamed { role: role.clone(), by: RoleName::snapshot() })
    }

    /// What the timestamp says about the snapshot's file.
    pub fn snapshot_meta(&self) -> Result<&FileMeta, MetadataError> {
        self.timestamp
            .as_ref()
            .and_then(Timestamp::snapshot)
            .ok_or_else(|| MetadataError::OutOfOrder { role: RoleName::timestamp() })
    }

    fn accept_targets(
        &self,
        bytes: &[u8],
        role: &RoleName,
        delegator: &RoleName,
        keyring: &Keyring,
    ) -> Result<Targets, MetadataError> {
        let named = self.targets_meta(role)?;
        matches_meta(bytes, named, role, RoleName::snapshot())?;
        let document = parse::<Targets>(bytes, role)?;
        verify(&document, role, delegator, keyring)?;
        if let Some(quorum) = self.root.quorum_of(role) {
            let of_root = |source| signatures(role, &RoleName::root(), source);
            verify(&document, role, &RoleName::root(), &quorum.keyring(&self.root.keys).map_err(of_root)?)?;
        }
        if document.signed.version != named.version {
            let (got, expected) = (document.signed.version, named.version);
            return Err(MetadataError::WrongVersion { role: role.clone(), got, expected });
        }
        self.fresh(&document.signed, role)?;
        Ok(document.signed)
    }

    fn fresh_timestamp(&self) -> Result<(), MetadataError> {
        let timestamp = self
            .timestamp
            .as_ref()
            .ok_or_else(|| MetadataError::OutOfOrder { role: RoleName::timestamp() })?;
        self.fresh(timestamp, &RoleName::timestamp())
    }

    fn final_snapshot(&self) -> Result<&Snapshot, MetadataError> {
        let role = RoleName::snapshot();
        let snapshot =
            self.snapshot.as_ref().ok_or_else(|| MetadataError::OutOfOrder { role: role.clone() })?;
        let expected = self.snapshot_meta()?.version;
        if snapshot.version != expected {
            return Err(MetadataError::WrongVersion { role, got: snapshot.version, expected });
        }
        self.fresh(snapshot, &role)?;
        Ok(snapshot)
    }

    fn fresh<T: RoleDocument>(&self, document: &T, role: &RoleName) -> Result<(), MetadataError> {
        let until = document.expires().saturating_add(self.grace).unwrap_or(Instant::MAX);
        if until <= self.now {
            return Err(MetadataError::Expired {
                role: role.clone(),
                expired: document.expires(),
                now: self.now,
            });
        }
        Ok(())
    }
}

fn parse<T: RoleDocument>(bytes: &[u8], role: &RoleName) -> Result<Document<T>, MetadataError> {
    Document::parse(bytes).map_err(|source| MetadataError::Malformed { role: role.clone(), source })
}

fn signatures(role: &RoleName, delegator: &RoleName, source: KeyringError) -> MetadataError {
    MetadataError::Signatures { role: role.clone(), delegator: delegator.clone(), source }
}

fn verify<T: RoleDocument>(
    document: &Document<T>,
    role: &RoleName,
    delegator: &RoleName,
    keyring: &Keyring,
) -> Result<(), MetadataError> {
    keyring
        .verify(document.signed_bytes(), &document.signatures)
        .map(|_| ())
        .map_err(|source| signatures(role, delegator, source))
}

fn keyring_of(root: &Root, role: &RoleName) -> Result<Keyring, MetadataError> {
    let keys = root
        .roles
        .get(role)
        .ok_or_else(|| MetadataError::Unnamed { role: role.clone(), by: RoleName::root() })?;
    keys.keyring(&root.keys).map_err(|source| signatures(role, &RoleName::root(), source))
}

fn delegation_keyring(
    parent: &Targets,
    role: &RoleName,
    delegator: &RoleName,
) -> Result<Keyring, MetadataError> {
    let unnamed = || MetadataError::Unnamed { role: role.clone(), by: delegator.clone() };
    // Stored under its name, such a role would replace a top-level one; a bin's prefix could spell one.
    if role.is_top_level() {
        return Err(unnamed());
    }
    let delegations = parent.delegations.as_ref().ok_or_else(unnamed)?;
    delegations.keyring(role).ok_or_else(unnamed)?.map_err(|source| signatures(role, delegator, source))
}

fn matches_meta(bytes: &[u8], meta: &FileMeta, role: &RoleName, by: RoleName) -> Result<(), MetadataError> {
    let length = meta.length.is_none_or(|length| length == bytes.len() as u64);
    let hashes = meta.hashes.as_ref().is_none_or(|hashes| hashes.match_bytes(bytes));
    if length && hashes { Ok(()) } else { Err(MetadataError::Mismatch { role: role.clone(), by }) }
}
