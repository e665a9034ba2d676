//! A repository in memory: documents that can be changed before they are signed, by whoever.

use std::collections::BTreeMap;

use mirabelle_keys::SigningKey;
use mirabelle_manifests::Instant;
use mirabelle_manifests::tuf::{
    FileMeta, MetadataError, RoleKeys, RoleName, Root, Snapshot, Targets, Timestamp, TrustedMetadata, sign,
};

pub(crate) const NOW: &str = "2026-06-01T00:00:00Z";

pub(crate) fn time(text: &str) -> Instant {
    text.parse().unwrap()
}

/// Keys and documents, all at version 1 and valid until 2027.
pub(crate) struct Repository {
    pub(crate) keys: BTreeMap<&'static str, SigningKey>,
    pub(crate) root: Root,
    pub(crate) targets: Targets,
    pub(crate) delegated: BTreeMap<String, (Targets, SigningKey)>,
    pub(crate) snapshot: Snapshot,
    pub(crate) timestamp: Timestamp,
}

/// The signed bytes of one state of a repository.
pub(crate) struct Published {
    pub(crate) root: Vec<u8>,
    pub(crate) targets: Vec<u8>,
    pub(crate) snapshot: Vec<u8>,
    pub(crate) timestamp: Vec<u8>,
    pub(crate) delegated: BTreeMap<String, Vec<u8>>,
}

impl Repository {
    pub(crate) fn new() -> Self {
        let expires = time("2027-01-01T00:00:00Z");
        let keys: BTreeMap<&str, SigningKey> =
            ["root", "timestamp", "snapshot", "targets"].map(|role| (role, SigningKey::generate())).into();
        let mut root = Root::new(1, expires);
        for (role, key) in &keys {
            let public = key.public();
            root.roles.insert(RoleName::new(*role), RoleKeys { keyids: vec![public.id()], threshold: 1 });
            root.keys.insert(public.id(), public);
        }
        Self {
            keys,
            root,
            targets: Targets::new(1, expires),
            delegated: BTreeMap::new(),
            snapshot: Snapshot::new(1, expires),
            timestamp: Timestamp::new(1, expires),
        }
    }

    pub(crate) fn key(&self, role: &str) -> &SigningKey {
        &self.keys[role]
    }

    /// Signs everything, each file described by the one above it.
    pub(crate) fn publish(&mut self) -> Published {
        let targets = sign(&self.targets, &[self.key("targets")]).unwrap();
        self.snapshot.meta.insert("targets.json".into(), FileMeta::of(self.targets.version, &targets));
        let mut delegated = BTreeMap::new();
        for (name, (document, key)) in &self.delegated {
            let bytes = sign(document, &[key]).unwrap();
            self.snapshot.meta.insert(format!("{name}.json"), FileMeta::of(document.version, &bytes));
            delegated.insert(name.clone(), bytes);
        }
        let snapshot = sign(&self.snapshot, &[self.key("snapshot")]).unwrap();
        self.timestamp.meta.insert("snapshot.json".into(), FileMeta::of(self.snapshot.version, &snapshot));
        let timestamp = sign(&self.timestamp, &[self.key("timestamp")]).unwrap();
        let root = sign(&self.root, &[self.key("root")]).unwrap();
        Published { root, targets, snapshot, timestamp, delegated }
    }

    /// Raises the versions of what changes with every publication.
    pub(crate) fn next(&mut self) -> &mut Self {
        self.targets.version += 1;
        self.snapshot.version += 1;
        self.timestamp.version += 1;
        self
    }
}

impl Published {
    /// A fresh client's refresh.
    pub(crate) fn refresh(&self) -> Result<TrustedMetadata, MetadataError> {
        let mut trusted = TrustedMetadata::begin(&self.root, time(NOW))?;
        self.continue_in(&mut trusted)?;
        Ok(trusted)
    }

    /// The part of a refresh after the roots.
    pub(crate) fn continue_in(&self, trusted: &mut TrustedMetadata) -> Result<(), MetadataError> {
        trusted.finish_root()?;
        trusted.update_timestamp(&self.timestamp)?;
        trusted.update_snapshot(&self.snapshot, false)?;
        trusted.update_targets(&self.targets)
    }

    /// The refresh of a client that has `kept` from before.
    pub(crate) fn refresh_after(&self, kept: &Published) -> Result<TrustedMetadata, MetadataError> {
        let mut trusted = TrustedMetadata::begin(&kept.root, time(NOW))?;
        trusted.finish_root()?;
        let _ = trusted.update_timestamp(&kept.timestamp);
        let _ = trusted.update_snapshot(&kept.snapshot, true);
        self.continue_in(&mut trusted)?;
        Ok(trusted)
    }
}
