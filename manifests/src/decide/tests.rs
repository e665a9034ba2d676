//! Every situation of one package has its decision; `together.rs` has those of several.

mod offers;
mod together;

use super::*;
use crate::brake::Pause;
use crate::catalogue::{Custom, Listing};
use crate::deployment::{Audience, Ring, Rollout};
use crate::names::Text;
use crate::release::release_target;
use crate::tuf::{TargetFile, Targets};

fn time(text: &str) -> Instant {
    text.parse().unwrap()
}

/// The time of every test.
const NOW: &str = "2026-03-01T12:00:00Z";

/// `a`, `a 2..`, `a ..3`
fn relation(text: &str) -> Relation {
    let (package, range) = text.split_once(' ').unwrap_or((text, ".."));
    let (least, most) = range.split_once("..").unwrap();
    Relation { package: package.parse().unwrap(), at_least: least.parse().ok(), at_most: most.parse().ok() }
}

/// A network and a workstation of college 57001, on the way to a decision.
#[derive(Clone, Debug)]
struct World {
    releases: Vec<Custom>,
    deployment: Deployment,
    brake: Brake,
    state: MachineState,
}

impl World {
    fn new() -> Self {
        Self {
            releases: Vec::new(),
            deployment: Deployment::default(),
            brake: Brake::default(),
            state: MachineState::default(),
        }
    }

    /// An approved release; `says` are its relations: `requires b 2..`, `conflicts c`.
    fn release(mut self, package: &str, sequence: u64, says: &[&str]) -> Self {
        let text = Text { fr: "x".into(), en: "x".into() };
        let of = |verb: &str| says.iter().filter_map(|say| say.strip_prefix(verb)).map(relation).collect();
        let listing = Listing {
            categories: vec![],
            conflicts: of("conflicts "),
            download_size: 1,
            installed_size: 1,
            licence: "MIT".into(),
            name: package.parse().unwrap(),
            platform: Platform::any(),
            requires: of("requires "),
            sequence,
            showcase: None,
            summary: text.clone(),
            title: text,
            version: format!("1.{sequence}").parse().unwrap(),
        };
        self.releases.push(Custom { approved: Some(time("2026-02-20T12:00:00Z")), listing });
        self
    }

    /// `required`, `available`, `teachers`, `blocked`, `removed`; with a pin: `required 2`.
    fn line(self, package: &str, says: &str) -> Self {
        let (mode, pin) = says.split_once(' ').map_or((says, None), |(mode, pin)| (mode, pin.parse().ok()));
        let track = pin.map_or(Track::Newest, |sequence| Track::Pinned {
            sequence,
            until: None,
            version: "1".parse().unwrap(),
        });
        let mode = match mode {
            "required" => AssignmentMode::Required,
            "available" => AssignmentMode::Available,
            "teachers" => AssignmentMode::AvailableToTeachers,
            "blocked" => AssignmentMode::Blocked,
            "removed" => AssignmentMode::Removed,
            other => panic!("{other}"),
        };
        self.assign(package, mode, track)
    }

    fn assign(mut self, package: &str, mode: AssignmentMode, track: Track) -> Self {
        self.deployment.assignments.push(Assignment {
            deadline: None,
            mode,
            package: package.parse().unwrap(),
            rollout: None,
            since: None,
            to: Audience::colleges(["57001".parse().unwrap()]),
            track,
        });
        self
    }

    /// The last line follows a rollout whose first ring, which this workstation is not in, soaks for so long.
    fn rollout(mut self, soak_hours: u32) -> Self {
        let elsewhere = Audience::colleges(["57002".parse().unwrap()]);
        let ring =
            Ring { name: "first".parse().unwrap(), confirm: false, percent: 100, soak_hours, to: elsewhere };
        let rest = Ring {
            name: "rest".parse().unwrap(),
            confirm: false,
            percent: 100,
            soak_hours: 1,
            to: Audience::everyone(),
        };
        let name: crate::names::GroupName = "careful".parse().unwrap();
        self.deployment
            .rollouts
            .insert(name.clone(), Rollout { rings: vec![ring, rest], ..Rollout::default() });
        self.deployment.assignments.last_mut().unwrap().rollout = Some(name);
        self
    }

    /// The last release was approved just now.
    fn just_approved(mut self) -> Self {
        self.releases.last_mut().unwrap().approved = Some(time(NOW));
        self
    }

    fn installed(mut self, package: &str, sequence: u64) -> Self {
        let catalogue = self.catalogue();
        let entry = catalogue.get(&package.parse().unwrap(), &Platform::any(), sequence).unwrap();
        self.state.installed.insert(
            entry.listing.name.clone(),
            InstalledRelease {
                release: entry.digest,
                sequence,
                requires: entry.listing.requires.clone(),
                conflicts: entry.listing.conflicts.clone(),
                automatic: false,
            },
        );
        self
    }

    fn automatic(self, package: &str, sequence: u64) -> Self {
        let mut world = self.installed(package, sequence);
        world.state.installed.get_mut(&package.parse().unwrap()).unwrap().automatic = true;
        world
    }

    fn asked(mut self, package: &str, asker: Asker) -> Self {
        self.state.asked.insert(package.parse().unwrap(), asker);
        self
    }

    fn held(mut self, package: &str, sequence: u64) -> Self {
        self.state.held.insert(package.parse().unwrap(), sequence);
        self
    }

    fn failed(mut self, package: &str, sequence: u64) -> Self {
        let catalogue = self.catalogue();
        let entry = catalogue.get(&package.parse().unwrap(), &Platform::any(), sequence).unwrap();
        let failed = Quarantine { since: time(NOW), why: "its check failed".to_owned() };
        self.state.quarantine.insert(entry.digest, failed);
        self
    }

    fn paused(self, package: &str, sequence: u64) -> Self {
        self.paused_for(package, sequence, None, "")
    }

    /// Paused for those after a ring, and of a college where one is named.
    fn paused_for(mut self, package: &str, sequence: u64, after: Option<&str>, college: &str) -> Self {
        self.brake.paused.push(Pause {
            after: after.map(|ring| ring.parse().unwrap()),
            package: package.parse().unwrap(),
            platform: Platform::any(),
            reason: "breaks".into(),
            sequence,
            since: time("2026-02-01T00:00:00Z"),
            to: Audience::colleges(
                Some(college).filter(|code| !code.is_empty()).map(|code| code.parse().unwrap()),
            ),
        });
        self
    }

    fn catalogue(&self) -> Catalogue {
        let mut role = Targets::new(1, time("2030-01-01T00:00:00Z"));
        for custom in &self.releases {
            let Listing { name, version, platform, sequence, .. } = &custom.listing;
            let bytes = format!("{name} {sequence}");
            let file = TargetFile::of(bytes.as_bytes(), Some(serde_json::to_value(custom).unwrap()));
            role.targets.insert(release_target(name, version, platform), file);
        }
        Catalogue::read(&role).unwrap()
    }

    /// Somebody keeps a release here for a day.
    fn keeps(mut self, package: &str, sequence: u64) -> Self {
        let keep = Keep { sequence, until: time("2026-03-02T12:00:00Z") };
        self.state.kept.insert(package.parse().unwrap(), keep);
        self
    }

    fn decide(&self) -> BTreeMap<PackageName, Decision> {
        fn decided(situation: &Situation<'_>) -> BTreeMap<PackageName, Decision> {
            situation.decide()
        }
        self.with_situation(decided)
    }

    fn with_situation<T>(&self, work: impl FnOnce(&Situation<'_>) -> T) -> T {
        let machine = Machine {
            college: "57001".parse().unwrap(),
            id: "b12-03".parse().unwrap(),
            model: None,
            platform: "linux-x86_64".parse().unwrap(),
            room: None,
            tags: [].into(),
        };
        let situation = Situation {
            catalogue: &self.catalogue(),
            deployment: &self.deployment,
            brake: &self.brake,
            machine: &machine,
            state: &self.state,
            now: time(NOW),
        };
        work(&situation)
    }

    /// What is decided, a line for each package: `ruff: update to 2: release 1 is here`.
    fn decides(&self) -> Vec<String> {
        let decisions = self.decide();
        let lines = decisions.iter().map(|(package, decision)| {
            let action = match &decision.action {
                Action::Install(entry) => format!("install {}", entry.listing.sequence),
                Action::Update(entry) => format!("update to {}", entry.listing.sequence),
                Action::Remove => "remove".to_owned(),
                Action::Keep => "keep".to_owned(),
            };
            format!("{package}: {action}: {}", decision.reason().unwrap())
        });
        lines.collect()
    }
}

/// Releases 1 and 2 of ruff.
fn ruff() -> World {
    World::new().release("ruff", 1, &[]).release("ruff", 2, &[])
}

#[test]
fn every_situation_has_its_decision() {
    let until = |until: &str| Track::Pinned {
        sequence: 1,
        until: Some(time(until)),
        version: "1.1".parse().unwrap(),
    };
    let required = || ruff().line("ruff", "required");
    let available = || ruff().line("ruff", "available");
    let teachers = || ruff().line("ruff", "teachers");
    let paused = "keep: release 2 is paused since 2026-02-01T00:00:00Z: breaks";
    let new = "install 2: it is not here yet";
    let update = "update to 2: release 1 is here";
    let cases = vec![
        (required(), "install 2: it is not here yet"),
        (required().installed("ruff", 1), update),
        (required().installed("ruff", 2), "keep: it is what the deployment says"),
        (ruff().installed("ruff", 1), "keep: it is not deployed to college 57001"),
        // offered
        (available(), "keep: it is offered, and nobody here asked for it"),
        (available().asked("ruff", Asker::Anyone), "install 2: it is not here yet"),
        (available().installed("ruff", 1), update),
        (teachers().asked("ruff", Asker::Teacher), "install 2: it is not here yet"),
        (teachers().asked("ruff", Asker::Administrator), "install 2: it is not here yet"),
        (
            teachers().asked("ruff", Asker::Anyone),
            "keep: it is offered to teachers, and somebody who is none asked",
        ),
        (teachers().installed("ruff", 1).asked("ruff", Asker::Anyone), update),
        // pinned
        (ruff().line("ruff", "required 1"), "install 1: it is not here yet"),
        (ruff().line("ruff", "required 1").installed("ruff", 2), "update to 1: release 2 is here"),
        (
            ruff().line("ruff", "required 3"),
            "keep: release 3 is deployed, but the rectorat has not approved it for linux-x86_64",
        ),
        (
            ruff().assign("ruff", AssignmentMode::Required, until("2026-03-02T00:00:00Z")),
            "install 1: it is not here yet",
        ),
        (
            ruff()
                .assign("ruff", AssignmentMode::Required, until("2026-02-28T00:00:00Z"))
                .installed("ruff", 1),
            update,
        ),
        (World::new().line("ruff", "required"), "keep: there is no approved release of it for linux-x86_64"),
        // kept away
        (ruff().line("ruff", "blocked").asked("ruff", Asker::Administrator), "keep: it is blocked here"),
        (ruff().line("ruff", "blocked").installed("ruff", 1), "keep: it is blocked here"),
        (ruff().line("ruff", "removed").installed("ruff", 1), "remove: the deployment takes it away"),
        (ruff().line("ruff", "removed"), "keep: it is blocked here"),
        // withheld
        (required().paused("ruff", 2), "keep: release 2 is paused since 2026-02-01T00:00:00Z: breaks"),
        (
            required().paused("ruff", 2).installed("ruff", 1),
            "keep: release 2 is paused since 2026-02-01T00:00:00Z: breaks",
        ),
        (required().paused("ruff", 2).installed("ruff", 2), "keep: it is what the deployment says"),
        (required().paused("ruff", 1).installed("ruff", 1), update),
        (required().paused_for("ruff", 2, None, "57001"), paused),
        (required().paused_for("ruff", 2, None, "57002"), new),
        // Its ring is the second of two.
        (required().rollout(24).paused_for("ruff", 2, Some("first"), ""), paused),
        (required().rollout(24).paused_for("ruff", 2, Some("rest"), ""), new),
        (required().rollout(24).paused_for("ruff", 2, Some("nobody-knows"), ""), paused),
        (required().paused_for("ruff", 2, Some("first"), ""), paused),
        (
            required().failed("ruff", 2).installed("ruff", 1),
            "keep: release 2 failed here at 2026-03-01T12:00:00Z: its check failed",
        ),
        (
            required().held("ruff", 2).installed("ruff", 1),
            "keep: somebody went back from release 2 on this workstation; `install` takes it again",
        ),
        (required().held("ruff", 1).installed("ruff", 1), update),
        // rings
        (required().rollout(24), "install 2: it is not here yet"),
        (required().just_approved().rollout(24), "install 1: it is not here yet"),
        (
            required().just_approved().rollout(24).installed("ruff", 1),
            "keep: release 2 reaches this workstation at 2026-03-02T12:00:00Z, with ring `rest`",
        ),
        (required().just_approved().rollout(24).installed("ruff", 2), "keep: it is what the deployment says"),
    ];
    for (world, expected) in cases {
        assert_eq!(world.decides(), [format!("ruff: {expected}")], "{:?}", world.deployment);
    }
    let mut withdrawn = ruff().installed("ruff", 2).line("ruff", "required");
    withdrawn.releases.pop();
    assert_eq!(
        withdrawn.decides(),
        ["ruff: keep: release 1 is older than release 2, which is here; only a pin goes back"]
    );
}

#[test]
fn a_later_ring_takes_what_an_earlier_one_had_and_says_what_it_waits_for() {
    let world = ruff().line("ruff", "required").just_approved().rollout(24);
    let decision = &world.decide()[&"ruff".parse().unwrap()];
    assert!(decision.reasons.iter().any(|reason| matches!(reason, Reason::RingClosed { sequence: 2, .. })));
    assert!(decision.reasons.iter().any(|reason| matches!(reason, Reason::RingOpen { sequence: 1, .. })));
}
