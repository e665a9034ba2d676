//! Rollouts: a release reaches its audience in rings, one after the other, each after the one before has soaked.
//!
//! Workstations follow the rings by their clocks. Whoever watches the fleet (`mirabelle-publisher rollouts watch`) holds the next ring back, by
//! the brake, until this one went well, and everything where it did not; how well is well is said here.

use serde::{Deserialize, Serialize};

use super::audience::{Audience, Groups, Machine};
use crate::names::{GroupName, PackageName};
use crate::{Digest, Instant};

/// The longest soak time: four weeks.
const MAX_SOAK_HOURS: u32 = 28 * 24;

/// Rings, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rollout {
    /// When it stops by itself.
    #[serde(default, skip_serializing_if = "Halt::is_default")]
    pub halt: Halt,
    /// The rings. Whoever is in none comes after the last.
    pub rings: Vec<Ring>,
}

/// When a rollout stops by itself, and what lets it go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Halt {
    /// It stops when so many of a hundred workstations failed, or fell silent; or all of a few, see `machines`.
    pub percent: u8,
    /// But not for fewer than this, where a ring has more.
    pub machines: u32,
    /// A workstation that says nothing for so long, while its college's node does, fell silent.
    pub silent_hours: u32,
    /// The next ring opens when the release runs well on so many of a hundred.
    pub success_percent: u8,
}

impl Default for Halt {
    fn default() -> Self {
        Self { percent: 10, machines: 2, silent_hours: 72, success_percent: 50 }
    }
}

impl Halt {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }

    fn is_sound(self) -> bool {
        (1..=100).contains(&self.percent)
            && self.success_percent <= 100
            && self.machines > 0
            && (1..=MAX_SOAK_HOURS).contains(&self.silent_hours)
    }
}

/// One ring.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Ring {
    /// Its name for people.
    pub name: GroupName,
    /// So many of a hundred of its workstations, chosen by a hash that stays the same: a higher number only adds to them.
    pub percent: u8,
    /// After this ring an operator looks, and lets the release go on.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub confirm: bool,
    /// How long the next ring waits after this one was opened.
    pub soak_hours: u32,
    /// Among whom.
    #[serde(default)]
    pub to: Audience,
}

/// Where a workstation stands in a rollout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place<'a> {
    /// Its ring; none for whoever comes after the last.
    pub ring: Option<&'a GroupName>,
    /// When the release may be installed there.
    pub opens: Instant,
}

impl Rollout {
    /// Where `machine` stands in the rollout of a release of `package` that began at `start`.
    pub fn place(
        &self,
        machine: &Machine,
        groups: &Groups,
        package: &PackageName,
        start: Instant,
    ) -> Place<'_> {
        let drawn = lot(machine, package);
        let mut opens = start;
        for ring in &self.rings {
            if drawn < ring.percent && ring.to.includes(machine, groups) {
                return Place { ring: Some(&ring.name), opens };
            }
            let soak = jiff::SignedDuration::from_hours(ring.soak_hours.into());
            opens = opens.checked_add(soak).unwrap_or(Instant::MAX);
        }
        Place { ring: None, opens }
    }

    /// True when the rollout reaches `machine` after `ring`, or this is no ring of it.
    pub fn comes_after(
        &self,
        machine: &Machine,
        groups: &Groups,
        package: &PackageName,
        ring: &GroupName,
    ) -> bool {
        let own = self.place(machine, groups, package, Instant::UNIX_EPOCH).ring;
        let number = |name: &GroupName| self.rings.iter().position(|ring| ring.name == *name);
        match (own.and_then(number), number(ring)) {
            (Some(own), Some(last)) => own > last,
            _ => true,
        }
    }

    /// True when its rings can be followed: percentages of 1 to 100, soak times of at most four weeks, each name once.
    pub(super) fn is_sound(&self) -> bool {
        let names: std::collections::BTreeSet<_> = self.rings.iter().map(|ring| &ring.name).collect();
        !self.rings.is_empty()
            && names.len() == self.rings.len()
            && self.halt.is_sound()
            && self
                .rings
                .iter()
                .all(|ring| (1..=100).contains(&ring.percent) && ring.soak_hours <= MAX_SOAK_HOURS)
    }
}

/// The lot that a workstation draws for a package, below 100: another for each package, so that not always the same ones
/// go first, and the same for each of its releases.
fn lot(machine: &Machine, package: &PackageName) -> u8 {
    let drawn = Digest::of(format!("{}\0{}\0{package}", machine.college, machine.id).as_bytes());
    let number = drawn.as_bytes()[..8].iter().fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
    u8::try_from(number % 100).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(number: u32) -> Machine {
        Machine {
            college: "57001".parse().unwrap(),
            id: format!("pc-{number}").parse().unwrap(),
            model: None,
            platform: "linux-x86_64".parse().unwrap(),
            room: None,
            tags: [].into(),
        }
    }

    fn ring(name: &str, percent: u8, soak_hours: u32) -> Ring {
        Ring { name: name.parse().unwrap(), confirm: false, percent, soak_hours, to: Audience::everyone() }
    }

    #[test]
    fn rings_open_one_after_the_other() {
        let rollout =
            Rollout { rings: vec![ring("first", 5, 24), ring("second", 30, 48)], ..Rollout::default() };
        let (start, package) = ("2026-01-01T00:00:00Z".parse::<Instant>().unwrap(), "ruff".parse().unwrap());
        let mut counted = [0; 3];
        for number in 0..2000 {
            let machine = machine(number);
            let place = rollout.place(&machine, &Groups::new(), &package, start);
            let hours = (place.opens - start).as_secs() / 3600;
            match (place.ring.map(GroupName::as_str), hours) {
                (Some("first"), 0) => counted[0] += 1,
                (Some("second"), 24) => counted[1] += 1,
                (None, 72) => counted[2] += 1,
                other => panic!("{other:?}"),
            }
        }
        assert!((60..140).contains(&counted[0]), "{counted:?}");
        assert!((430..570).contains(&counted[1]), "{counted:?}");
    }

    #[test]
    fn what_comes_after_a_ring_is_told_by_its_place() {
        let rollout =
            Rollout { rings: vec![ring("first", 5, 24), ring("second", 30, 48)], ..Rollout::default() };
        let (groups, package) = (Groups::new(), "ruff".parse().unwrap());
        let after = |machine: &Machine, ring: &str| {
            rollout.comes_after(machine, &groups, &package, &ring.parse().unwrap())
        };
        for number in 0..500 {
            let machine = machine(number);
            let place = rollout.place(&machine, &groups, &package, Instant::UNIX_EPOCH);
            let expected = match place.ring.map(GroupName::as_str) {
                Some("first") => [false, false],
                Some(_) => [true, false],
                None => [true, true],
            };
            assert_eq!(["first", "second"].map(|ring| after(&machine, ring)), expected);
            assert!(after(&machine, "nothing"), "what nobody knows holds everybody back");
        }
    }

    #[test]
    fn a_higher_percentage_only_adds() {
        let package = "ruff".parse().unwrap();
        for number in 0..500 {
            let machine = machine(number);
            let first = |percent| {
                let rollout = Rollout { rings: vec![ring("first", percent, 1)], ..Rollout::default() };
                rollout.place(&machine, &Groups::new(), &package, Instant::UNIX_EPOCH).ring.is_some()
            };
            assert!(!first(10) || first(20));
            assert!(first(100));
        }
    }
}
