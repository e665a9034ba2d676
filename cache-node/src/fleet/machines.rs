//! The machines that are known here: their keys, and how far each has reported.
//!
//! ```text
//! <root>/fleet/machines.json    {"<key id>": {"key": …, "name": "b12-03", "first": <its first report>, "last": {"number": 7, "digest": "…"}}}
//! ```
//!
//! Written after the spool: what a cut left behind is learnt again from there.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant as Tick};

use mirabelle_content::durable;
use mirabelle_fleet::{Last, Report, SignedReport, Standing};
use mirabelle_keys::{KeyId, PublicKey};
use mirabelle_manifests::MachineId;
use serde::{Deserialize, Serialize};

const MAX_FILE_BYTES: u64 = 32 << 20;
/// Machines of one college; a machine that is set up anew is another.
const MAX_MACHINES: usize = 5000;
/// Reports of one machine in an hour: a day of installs has a hundred.
const MAX_AN_HOUR: u32 = 600;

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Machine {
    first: SignedReport,
    key: PublicKey,
    last: Last,
    name: Option<MachineId>,
    /// What it reported in this hour.
    #[serde(skip)]
    budget: Option<(Tick, u32)>,
}

/// Why a report is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotTaken {
    /// Nobody enrolled this key here.
    Unknown,
    /// It is not signed by the machine that it speaks for, or cannot be read.
    Forged,
    /// Another machine has the same key.
    Forked,
    /// It reports too much.
    Flood,
}

/// All of them.
pub(super) struct Machines {
    path: PathBuf,
    machines: BTreeMap<KeyId, Machine>,
}

impl Machines {
    /// Those of before; a file that cannot be read is begun anew, and machines enrol again.
    pub(super) fn open(path: &Path) -> Self {
        let kept = durable::read_if_present(path, MAX_FILE_BYTES).and_then(|bytes| {
            bytes
                .map_or(Ok(BTreeMap::new()), |bytes| serde_json::from_slice(&bytes).map_err(io::Error::other))
        });
        let machines = kept.unwrap_or_else(|error| {
            tracing::warn!(%error, "the list of machines cannot be read, and is begun anew");
            BTreeMap::new()
        });
        Self { path: path.to_owned(), machines }
    }

    pub(super) fn keep(&self) -> io::Result<()> {
        durable::write_atomically(&self.path, &serde_json::to_vec(&self.machines)?)
    }

    /// Makes a key known; true when it was not. `None` when too many are.
    pub(super) fn enrol(&mut self, report: &Report, key: PublicKey, first: SignedReport) -> Option<bool> {
        let id = key.id();
        if self.machines.contains_key(&id) {
            return Some(false);
        }
        if self.machines.len() >= MAX_MACHINES {
            return None;
        }
        let last = Last { number: report.number, digest: first.digest() };
        self.machines.insert(id, Machine { first, key, last, name: report.machine.clone(), budget: None });
        Some(true)
    }

    pub(super) fn key(&self, id: &KeyId) -> Option<&PublicKey> {
        self.machines.get(id).map(|machine| &machine.key)
    }

    pub(super) fn last(&self, id: &KeyId) -> Option<Last> {
        self.machines.get(id).map(|machine| machine.last)
    }

    /// Its first report, for an origin that does not know it.
    pub(super) fn first(&self, id: &KeyId) -> Option<&SignedReport> {
        self.machines.get(id).map(|machine| &machine.first)
    }

    /// Whether a report is the next of its machine, and takes note that it is taken.
    pub(super) fn take(&mut self, id: &KeyId, signed: &SignedReport) -> Result<bool, NotTaken> {
        let machine = self.machines.get_mut(id).ok_or(NotTaken::Unknown)?;
        let report = signed.verify(&machine.key).map_err(|_| NotTaken::Forged)?;
        if report.machine != machine.name {
            return Err(NotTaken::Forged);
        }
        match Standing::after(Some(machine.last), report.number, signed.digest()) {
            Standing::Known => Ok(false),
            Standing::Forked => Err(NotTaken::Forked),
            Standing::Next | Standing::Gap(_) => {
                let (since, count) =
                    machine.budget.filter(|(since, _)| since.elapsed() < HOUR).unwrap_or((Tick::now(), 0));
                if count >= MAX_AN_HOUR {
                    return Err(NotTaken::Flood);
                }
                machine.budget = Some((since, count + 1));
                machine.last = Last { number: report.number, digest: signed.digest() };
                Ok(true)
            }
        }
    }

    /// What was taken since could not be kept.
    pub(super) fn back_to(&mut self, id: &KeyId, last: Option<Last>) {
        if let Some((machine, last)) = self.machines.get_mut(id).zip(last) {
            machine.last = last;
        }
    }

    /// What lies in the spool was taken.
    pub(super) fn was_taken(&mut self, signed: &SignedReport) {
        let known = self.machines.get_mut(signed.key());
        if let Some(machine) = known
            && let Ok(report) = signed.verify(&machine.key)
            && report.number > machine.last.number
        {
            machine.last = Last { number: report.number, digest: signed.digest() };
        }
    }
}

const HOUR: Duration = Duration::from_hours(1);

#[cfg(test)]
mod tests {
    use mirabelle_fleet::{Event, Power};
    use mirabelle_keys::SigningKey;
    use mirabelle_manifests::Instant;

    use super::*;

    fn signed(key: &SigningKey, number: u64, event: Event) -> (Report, SignedReport) {
        let report = Report {
            at: Instant::from_second(1_790_000_000).unwrap(),
            college: "57001".parse().unwrap(),
            event,
            machine: Some("b12-03".parse().unwrap()),
            number,
        };
        let signed = SignedReport::sign(&report, key).unwrap();
        (report, signed)
    }

    #[test]
    fn what_could_not_be_kept_is_taken_again_and_what_a_cut_left_behind_is_learnt_from_the_spool() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("machines.json");
        let mut machines = Machines::open(&path);
        let key = SigningKey::generate();
        let id = key.public().id();
        let (report, first) = signed(&key, 1, Event::Enrolled { key: Box::new(key.public()) });
        assert_eq!(machines.enrol(&report, key.public(), first), Some(true));
        machines.keep().unwrap();
        let (_, second) = signed(&key, 2, Event::Power { power: Power::On });
        let before = machines.last(&id);
        assert_eq!(machines.take(&id, &second), Ok(true));
        // The disk was full.
        machines.back_to(&id, before);
        assert_eq!(machines.take(&id, &second), Ok(true));
        assert_eq!(machines.take(&id, &second), Ok(false));
        // It was kept in the spool, and the power went before the list was written.
        let mut machines = Machines::open(&path);
        machines.was_taken(&second);
        assert_eq!(machines.take(&id, &second), Ok(false));
        // A list that cannot be read is begun anew: machines enrol again.
        fs_err::write(&path, "{").unwrap();
        assert_eq!(Machines::open(&path).take(&id, &second), Err(NotTaken::Unknown));
    }
}
