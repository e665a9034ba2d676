//! Reports: what a machine saw and did, one signed document each.
//!
//! ```text
//! {"report": {"at": "…", "college": "57001", "event": {"what": "power", …}, "machine": "b12-03", "number": 7},
//!  "signature": {"keyid": "…", "sig": "…"}}        over "mirabelle report 1\n" and the exact bytes of the report
//! ```
//!
//! The reports of a key are numbered from 1 without gaps; the first brings the key itself. Whoever receives them keeps the number and the
//! digest of the last: from there, what comes is the next, known already, or of a machine that forked.
//!
//! What an older receiver does with an event that it does not know: keeps it as it came, and shows it as something else.

use std::collections::{BTreeMap, BTreeSet};

use mirabelle_keys::{PublicKey, Signature, SigningKey};
use mirabelle_manifests::{
    Digest, Instant, Json, Machine, MachineId, PackageName, Platform, RoomName, SiteId, Tag, Version,
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// The most of a signed report: the inventory of a machine with everything installed.
pub const MAX_REPORT_BYTES: usize = 64 << 10;

/// A report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// When it happened, by the machine's clock.
    pub at: Instant,
    /// Where the machine stands.
    pub college: SiteId,
    /// What happened.
    pub event: Event,
    /// Its name; nothing for the college's node itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<MachineId>,
    /// Its number among those of its key, from 1.
    pub number: u64,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "kebab-case")]
pub enum Event {
    /// The first of a key.
    Enrolled {
        /// The key.
        key: Box<PublicKey>,
    },
    /// What the machine is and has, whenever that is another.
    Inventory {
        /// That.
        inventory: Box<Inventory>,
    },
    /// A package came, went, or is another version.
    Changed {
        /// The package.
        package: PackageName,
        /// What was there before.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        from: Option<Version>,
        /// What is there now.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        to: Option<Version>,
    },
    /// A release was taken back, and is not tried again.
    Failed {
        /// The digest of its manifest.
        release: Digest,
        /// What failed, in words for whoever mends it.
        why: String,
    },
    /// An evening ended without something that was due.
    Left {
        /// The package.
        package: PackageName,
        /// Why, in words.
        why: String,
    },
    /// On, off, or on against the rule.
    Power {
        /// Which.
        power: Power,
    },
    /// Nobody took reports for so long that some were not kept.
    Lost {
        /// How many.
        count: u64,
    },
    /// What a node says of itself.
    Node {
        /// That.
        state: Box<NodeState>,
    },
    /// Of a later version.
    #[serde(other)]
    Other,
}

impl Event {
    /// Its name, as it is written.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Enrolled { .. } => "enrolled",
            Self::Inventory { .. } => "inventory",
            Self::Changed { .. } => "changed",
            Self::Failed { .. } => "failed",
            Self::Left { .. } => "left",
            Self::Power { .. } => "power",
            Self::Lost { .. } => "lost",
            Self::Node { .. } => "node",
            Self::Other => "other",
        }
    }
}

/// What a machine is and has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Inventory {
    /// Of what it is made.
    pub hardware: Hardware,
    /// What it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// The version of this program.
    pub program: String,
    /// What is installed.
    pub releases: BTreeMap<PackageName, Version>,
    /// Where it stands in its college.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub room: Option<RoomName>,
    /// Its operating system, as that calls itself.
    pub system: String,
    /// Words that are true of it.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub tags: BTreeSet<Tag>,
}

impl Inventory {
    /// What the deployment can tell of the machine of this name; nothing of one that does not say what it runs.
    pub fn machine(&self, college: SiteId, id: MachineId) -> Option<Machine> {
        Some(Machine {
            college,
            id,
            model: Some(self.hardware.model.clone()).filter(|model| !model.is_empty()),
            platform: self.platform.clone()?,
            room: self.room.clone(),
            tags: self.tags.clone(),
        })
    }
}

/// Of what a machine is made; what it does not tell is empty or 0.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Hardware {
    /// Processors.
    pub cpus: u32,
    /// Bytes of the file system that holds the packages, and how many are free, in GiB.
    pub disk_gib: u64,
    /// Free there, in GiB.
    pub free_gib: u64,
    /// MiB of memory.
    pub memory_mib: u64,
    /// Its model, as its firmware says.
    pub model: String,
    /// Its maker.
    pub vendor: String,
}

/// On or off.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Power {
    /// It came up.
    On,
    /// It was switched off by its hour.
    Off,
    /// It was on after its hour.
    StayedOn {
        /// Why.
        why: String,
    },
    /// Of a later version.
    #[serde(other)]
    Other,
}

/// What a node says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeState {
    /// What is wrong, by the names of its alarms; what expires soon is among them.
    pub alarms: Vec<String>,
    /// Bytes of objects, plain.
    pub bytes: u64,
    /// The snapshot at which it was complete, if it ever was.
    pub complete_at: Option<u64>,
    /// What the disk, or the quota, could hold in all.
    pub disk_capacity_bytes: u64,
    /// What may still be used of it.
    pub disk_left_bytes: u64,
    /// When what it serves stops being fresh.
    pub fresh_until: Option<Instant>,
    /// What the day may cost the link, where that is limited.
    pub link_budget_bytes: Option<u64>,
    /// What this day has cost the link.
    pub link_spent_bytes: u64,
    /// The version of its program.
    pub program: String,
    /// Bytes that came over the link since the node was set up.
    pub received_bytes: u64,
    /// When it last learnt what there is.
    pub refreshed: Option<Instant>,
    /// Releases that it holds.
    pub releases: u64,
    /// Bytes that went to workstations since its program started.
    pub sent_bytes: u64,
    /// What was found damaged while everything is read through, and fetched again.
    pub set_aside: u64,
}

impl NodeState {
    /// True where nothing but counters and clocks went on.
    pub fn is_like(&self, before: &Self) -> bool {
        let alike = Self {
            disk_left_bytes: before.disk_left_bytes,
            fresh_until: before.fresh_until,
            link_spent_bytes: before.link_spent_bytes,
            received_bytes: before.received_bytes,
            refreshed: before.refreshed,
            sent_bytes: before.sent_bytes,
            ..self.clone()
        };
        alike == *before
    }
}

/// A report with the signature of its machine.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedReport {
    report: Box<RawValue>,
    signature: Signature,
}

/// Why a report is refused.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// Longer than any.
    #[error("the report has {0} bytes, more than 64 KiB")]
    TooLarge(usize),
    /// Not JSON of this shape.
    #[error("the report cannot be read")]
    Malformed(#[source] serde_json::Error),
    /// Another key's.
    #[error("the report is not signed by the machine that it speaks for")]
    Signature,
}

impl SignedReport {
    /// Signs a report.
    pub fn sign(report: &Report, key: &SigningKey) -> Result<Self, ReportError> {
        let report = serde_json::value::to_raw_value(report).map_err(ReportError::Malformed)?;
        let signature = key.sign(&message(&report));
        Ok(Self { report, signature })
    }

    /// Reads one; nothing of it is verified.
    pub fn parse(bytes: &[u8]) -> Result<Self, ReportError> {
        if bytes.len() > MAX_REPORT_BYTES {
            return Err(ReportError::TooLarge(bytes.len()));
        }
        serde_json::from_slice(bytes).map_err(ReportError::Malformed)
    }

    /// As it travels: one line.
    pub fn to_line(&self) -> Result<String, ReportError> {
        serde_json::to_string(self).map_err(ReportError::Malformed)
    }

    /// The report that `key` signed.
    pub fn verify(&self, key: &PublicKey) -> Result<Report, ReportError> {
        if !key.verifies(&message(&self.report), &self.signature) {
            return Err(ReportError::Signature);
        }
        self.read()
    }

    /// The first report of a key, and the key that it brings.
    pub fn verify_first(&self) -> Result<(Report, PublicKey), ReportError> {
        match self.read()?.event {
            Event::Enrolled { key } if key.ed25519().is_some() => {
                let report = self.verify(&key)?;
                if report.number == 1 { Ok((report, *key)) } else { Err(ReportError::Signature) }
            }
            _ => Err(ReportError::Signature),
        }
    }

    /// What it says, verified or not.
    fn read(&self) -> Result<Report, ReportError> {
        // Strictly first: no member twice, so that everybody reads the same.
        Json::check(self.text().as_bytes()).map_err(ReportError::Malformed)?;
        serde_json::from_str(self.text()).map_err(ReportError::Malformed)
    }

    /// The report, as it was written.
    pub fn text(&self) -> &str {
        self.report.get()
    }

    /// The id of the key that is said to have signed.
    pub fn key(&self) -> &mirabelle_keys::KeyId {
        &self.signature.keyid
    }

    /// What tells it from another of the same number.
    pub fn digest(&self) -> Digest {
        Digest::of(self.text().as_bytes())
    }
}

fn message(report: &RawValue) -> Vec<u8> {
    [b"mirabelle report 1\n".as_slice(), report.get().as_bytes()].concat()
}

/// The last report of a key that somebody received.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Last {
    /// Its number.
    pub number: u64,
    /// Its digest.
    pub digest: Digest,
}

/// How a report stands to the last one of its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It comes next.
    Next,
    /// It was received before.
    Known,
    /// So many are missing before it.
    Gap(u64),
    /// Another report has its number: two machines have the key.
    Forked,
}

impl Standing {
    /// Of the report with this number and digest, after `last`.
    pub fn after(last: Option<Last>, number: u64, digest: Digest) -> Self {
        let known = last.map_or(0, |last| last.number);
        match number.checked_sub(known) {
            None => Self::Known,
            Some(0) if last.is_none_or(|last| last.digest == digest) => Self::Known,
            Some(0) => Self::Forked,
            Some(1) => Self::Next,
            Some(ahead) => Self::Gap(ahead - 1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(number: u64, event: Event) -> Report {
        Report {
            at: Instant::from_second(1_790_000_000).unwrap(),
            college: "57001".parse().unwrap(),
            event,
            machine: Some("b12-03".parse().unwrap()),
            number,
        }
    }

    fn first(key: &SigningKey) -> SignedReport {
        let event = Event::Enrolled { key: Box::new(key.public()) };
        SignedReport::sign(&report(1, event), key).unwrap()
    }

    #[test]
    fn a_machine_speaks_for_itself_and_nobody_else_does() {
        let (key, other) = (SigningKey::generate(), SigningKey::generate());
        let signed = SignedReport::sign(&report(2, Event::Power { power: Power::On }), &key).unwrap();
        let line = signed.to_line().unwrap();
        assert!(!line.contains('\n'));
        let travelled = SignedReport::parse(line.as_bytes()).unwrap();
        assert_eq!(travelled.verify(&key.public()).unwrap().event, Event::Power { power: Power::On });
        assert!(matches!(travelled.verify(&other.public()), Err(ReportError::Signature)));
        let forged = SignedReport::parse(line.replace("b12-03", "b12-04").as_bytes()).unwrap();
        assert!(matches!(forged.verify(&key.public()), Err(ReportError::Signature)));
    }

    #[test]
    fn the_first_report_brings_its_key() {
        let (key, other) = (SigningKey::generate(), SigningKey::generate());
        let (report, brought) = first(&key).verify_first().unwrap();
        assert_eq!((report.number, brought), (1, key.public()));
        let event = Event::Enrolled { key: Box::new(key.public()) };
        let forged = SignedReport::sign(&super::tests::report(1, event.clone()), &other).unwrap();
        assert!(matches!(forged.verify_first(), Err(ReportError::Signature)), "signed by another");
        let late = SignedReport::sign(&super::tests::report(2, event), &key).unwrap();
        assert!(matches!(late.verify_first(), Err(ReportError::Signature)), "not the first");
    }

    #[test]
    fn what_a_later_version_says_is_kept_and_shown_as_something_else() {
        let key = SigningKey::generate();
        let text = serde_json::to_string(&report(2, Event::Power { power: Power::On })).unwrap();
        let text = text.replace(
            r#""event":{"what":"power","power":"on"}"#,
            r#""event":{"what":"weather","rain":true},"more":1"#,
        );
        assert!(text.contains("weather"));
        let report = RawValue::from_string(text).unwrap();
        let signed = SignedReport { signature: key.sign(&message(&report)), report };
        assert_eq!(signed.verify(&key.public()).unwrap().event, Event::Other);
        assert!(signed.text().contains("rain"));
    }

    #[test]
    fn what_is_no_report_is_refused_as_such() {
        let key = SigningKey::generate().public();
        let endless = vec![b' '; MAX_REPORT_BYTES + 1];
        for bytes in [b"".as_slice(), b"{}", b"[]", b"\xff", &endless] {
            assert!(SignedReport::parse(bytes).is_err());
        }
        let twice = r#"{"report":{"number":1,"number":2},"signature":{"keyid":"a","sig":""}}"#;
        assert!(SignedReport::parse(twice.as_bytes()).unwrap().verify(&key).is_err());
    }

    #[test]
    fn numbers_tell_the_next_from_the_known_the_missing_and_the_forked() {
        let digest = |byte: &[u8]| Digest::of(byte);
        let last = Some(Last { number: 4, digest: digest(b"4") });
        for (number, text, standing) in [
            (5, b"5", Standing::Next),
            (4, b"4", Standing::Known),
            (3, b"?", Standing::Known),
            (4, b"x", Standing::Forked),
            (7, b"7", Standing::Gap(2)),
        ] {
            assert_eq!(Standing::after(last, number, digest(text)), standing, "{number}");
        }
        assert_eq!(Standing::after(None, 1, digest(b"1")), Standing::Next);
        assert_eq!(Standing::after(None, 3, digest(b"3")), Standing::Gap(2));
    }
}
