//! A fleet of 400 workstations in four colleges, by the hour.

use mirabelle_manifests::{AssignmentMode, Digest, Listing, Ring, TargetPath, Text, Track};

use super::*;

const HOUR: SignedDuration = SignedDuration::from_hours(1);

fn start() -> Instant {
    "2026-10-05T06:00:00Z".parse().unwrap()
}

fn after(hours: i64) -> Instant {
    start().checked_add(HOUR * i32::try_from(hours).unwrap()).unwrap()
}

struct Fleet {
    deployment: Deployment,
    entry: CatalogueEntry,
    workstations: Vec<Workstation>,
    nodes: BTreeMap<SiteId, Instant>,
    story: Vec<(Instant, Step)>,
}

impl Fleet {
    /// Ring one is college 57001, ring two half of everybody, a day later; then, after two days, the rest.
    fn new() -> Self {
        let text: Text = serde_json::from_str(r#"{"fr":"Règle","en":"Ruler"}"#).unwrap();
        let listing = Listing {
            categories: vec![],
            conflicts: vec![],
            download_size: 1,
            installed_size: 1,
            licence: "MIT".to_owned(),
            name: "ruler".parse().unwrap(),
            platform: "any".parse().unwrap(),
            requires: vec![],
            sequence: 2,
            showcase: None,
            summary: text.clone(),
            title: text,
            version: "2.0".parse().unwrap(),
        };
        let entry = CatalogueEntry {
            listing,
            approved: Some(start()),
            path: TargetPath::new("packages/ruler/2.0/any/release.json"),
            digest: Digest::of(b"ruler"),
            length: 1,
        };
        let first = Audience::colleges(["57001".parse().unwrap()]);
        let ring = |name: &str, percent, soak_hours, to| Ring {
            name: name.parse().unwrap(),
            confirm: false,
            percent,
            soak_hours,
            to,
        };
        let rings = vec![ring("first", 100, 24, first), ring("half", 50, 48, Audience::everyone())];
        let name: GroupName = "careful".parse().unwrap();
        let mut deployment = Deployment::default();
        let halt = Halt { silent_hours: 12, ..Halt::default() };
        deployment.rollouts.insert(name.clone(), Rollout { halt, rings });
        deployment.assignments.push(Assignment {
            deadline: None,
            mode: AssignmentMode::Required,
            package: "ruler".parse().unwrap(),
            rollout: Some(name),
            since: None,
            to: Audience::everyone(),
            track: Track::Newest,
        });
        let colleges = ["57001", "57002", "57003", "57004"].map(|code| code.parse::<SiteId>().unwrap());
        let workstations = colleges.iter().flat_map(|college| {
            (0..100).map(move |number| Workstation {
                machine: Machine {
                    college: college.clone(),
                    id: format!("pc-{number}").parse().unwrap(),
                    model: Some(if number % 5 == 0 { "old" } else { "new" }.to_owned()),
                    platform: "linux-x86_64".parse().unwrap(),
                    room: None,
                    tags: BTreeSet::new(),
                },
                heard: start(),
                installed: None,
                started: false,
                failed: None,
            })
        });
        Self {
            deployment,
            entry,
            workstations: workstations.collect(),
            nodes: colleges.iter().map(|college| (college.clone(), start())).collect(),
            story: Vec::new(),
        }
    }

    fn watch<T>(&self, now: Instant, look: impl FnOnce(&Watched<'_>) -> T) -> T {
        let assignment = &self.deployment.assignments[0];
        look(&Watched {
            deployment: &self.deployment,
            assignment,
            rollout: self.deployment.rollout(assignment).unwrap(),
            entry: &self.entry,
            workstations: &self.workstations,
            nodes: &self.nodes,
            now,
        })
    }

    /// Lets an hour pass: whoever may have the release gets it, and `fare` says what becomes of it there.
    fn hour(&mut self, hours: i64, fare: impl Fn(&Machine) -> Stand) -> Vec<Step> {
        let now = after(hours);
        let course = Course::of(&self.story);
        let rollout = self.deployment.rollouts.values().next().unwrap().clone();
        for workstation in &mut self.workstations {
            let machine = &workstation.machine;
            let place = rollout.place(machine, &self.deployment.groups, &self.entry.listing.name, start());
            let number = place.ring.and_then(|name| rollout.rings.iter().position(|ring| ring.name == *name));
            let before = &rollout.rings[..number.unwrap_or(rollout.rings.len())];
            let is_held = course.began.is_none()
                || before.iter().any(|ring| !course.passed.contains(&ring.name))
                || course.halted.iter().any(|(to, _)| to.includes(machine, &self.deployment.groups));
            let may = place.opens <= now && !is_held;
            match fare(machine) {
                Stand::Silent if may || workstation.installed.is_some() => {
                    workstation.installed.get_or_insert(now);
                    continue;
                }
                Stand::Failed if may => {
                    workstation.failed = workstation.failed.take().or(Some((now, "no".to_owned())));
                }
                _ if may && workstation.installed.is_none() => workstation.installed = Some(now),
                _ => workstation.started |= workstation.installed.is_some(),
            }
            workstation.heard = now;
        }
        self.nodes.values_mut().for_each(|heard| *heard = now);
        let steps = self.watch(now, |watched| watched.next(&Course::of(&self.story)));
        self.story.extend(steps.iter().cloned().map(|step| (now, step)));
        steps
    }

    fn run(&mut self, hours: std::ops::Range<i64>, fare: impl Fn(&Machine) -> Stand) {
        for hour in hours {
            self.hour(hour, &fare);
        }
    }

    fn touched(&self) -> usize {
        let is_touched = |one: &&Workstation| one.installed.is_some() || one.failed.is_some();
        self.workstations.iter().filter(is_touched).count()
    }

    fn told(&self) -> Vec<String> {
        let word = |(at, step): &(Instant, Step)| {
            let hour = at.duration_since(start()).as_hours();
            match step {
                Step::Began => format!("{hour} began"),
                Step::Held { after, until } => format!("{hour} held after {after} {until:?}"),
                Step::Passed { after, by_operator } => format!("{hour} passed {after} {by_operator}"),
                Step::Halted { to, why } => format!("{hour} halted for {to}: {why}"),
                Step::Resumed { to } => format!("{hour} resumed for {to}"),
                Step::Finished => format!("{hour} finished"),
            }
        };
        self.story.iter().map(word).collect()
    }
}

fn well(_: &Machine) -> Stand {
    Stand::Well
}

#[test]
fn what_goes_well_reaches_everybody_ring_by_ring() {
    let mut fleet = Fleet::new();
    fleet.run(0..24, well);
    assert_eq!(fleet.touched(), 100, "the first ring, and nobody else");
    fleet.run(24..90, well);
    assert_eq!(
        fleet.told(),
        [
            "0 began",
            "0 held after first Success",
            "24 passed first false",
            "24 held after half Success",
            "72 passed half false",
            "84 finished"
        ]
    );
    assert_eq!(fleet.touched(), 400);
}

#[test]
fn a_release_that_fails_stops_in_its_first_ring() {
    let mut fleet = Fleet::new();
    fleet.run(0..100, |machine| if machine.id.as_str() < "pc-3" { Stand::Failed } else { Stand::Well });
    let told = fleet.told();
    assert!(told[2].contains("halted for all colleges"), "{told:?}");
    assert_eq!(told.len(), 3);
    assert!(fleet.touched() <= 100);
}

#[test]
fn machines_that_fall_silent_stop_it_likewise() {
    let mut fleet = Fleet::new();
    // Half of those that get it never say anything again.
    fleet.run(0..100, |machine| {
        if machine.id.as_str().ends_with(['1', '3', '5', '7', '9']) { Stand::Silent } else { Stand::Well }
    });
    let told = fleet.told();
    assert!(told.iter().any(|step| step.contains("halted") && step.contains("fell silent")), "{told:?}");
    assert!(!told.iter().any(|step| step.contains("passed")), "{told:?}");
    assert_eq!(fleet.touched(), 100);
}

#[test]
fn a_silence_that_is_everywhere_is_not_the_releases() {
    let mut fleet = Fleet::new();
    fleet.run(0..2, well);
    // Holidays: everything is off, the nodes are not.
    for hour in 2..60 {
        let now = after(hour);
        fleet.nodes.values_mut().for_each(|heard| *heard = now);
        let steps = fleet.watch(now, |watched| watched.next(&Course::of(&fleet.story)));
        assert!(!steps.iter().any(|step| matches!(step, Step::Halted { .. })), "{hour} {steps:?}");
        fleet.story.extend(steps.into_iter().map(|step| (now, step)));
    }
    // A college that is cut off says nothing either, with its node.
    let mut fleet = Fleet::new();
    fleet.run(0..2, well);
    for hour in 2..20 {
        let now = after(hour);
        let cut: SiteId = "57001".parse().unwrap();
        for (college, heard) in &mut fleet.nodes {
            *heard = if *college == cut { *heard } else { now };
        }
        for workstation in fleet.workstations.iter_mut().filter(|one| one.machine.college != cut) {
            workstation.heard = now;
        }
        let steps = fleet.watch(now, |watched| watched.next(&Course::of(&fleet.story)));
        assert!(!steps.iter().any(|step| matches!(step, Step::Halted { .. })), "{hour} {steps:?}");
    }
}

#[test]
fn what_fails_on_one_model_or_at_one_college_stops_there() {
    let on_old = |machine: &Machine| {
        if machine.model.as_deref() == Some("old") { Stand::Failed } else { Stand::Well }
    };
    let mut fleet = Fleet::new();
    fleet.run(0..3, well);
    // They do well at first, so that something is known; then the old ones fail in the second ring.
    fleet.run(3..25, well);
    fleet.workstations.iter_mut().for_each(|one| one.started |= one.installed.is_some());
    fleet.run(25..40, on_old);
    let told = fleet.told();
    assert!(told.iter().any(|step| step.contains("halted for model old")), "{told:?}");
    // It goes on without them, and is not finished before somebody resumed it.
    fleet.run(40..200, on_old);
    let told = fleet.told();
    assert!(told.last().unwrap().contains("passed half"), "{told:?}");
    let mut fleet = Fleet::new();
    fleet.run(0..25, well);
    fleet
        .run(25..40, |machine| if machine.college.as_str() == "57003" { Stand::Failed } else { Stand::Well });
    let told = fleet.told();
    assert!(told.iter().any(|step| step.contains("halted for college 57003")), "{told:?}");
}

#[test]
fn an_operator_resumes_and_what_was_seen_stops_it_no_more() {
    let mut fleet = Fleet::new();
    let bad = |machine: &Machine| if machine.id.as_str() < "pc-3" { Stand::Failed } else { Stand::Well };
    fleet.run(0..3, bad);
    let course = Course::of(&fleet.story);
    assert_eq!(course.halted.len(), 1);
    // The brake holds what the story says: nothing to tell. Then the operator takes the halt away, and the ring stays held.
    assert_eq!(course.operators(|_| true, |_| true), []);
    let resumed = course.operators(|_| false, |_| false);
    assert_eq!(resumed, [Step::Resumed { to: Audience::everyone() }]);
    fleet.story.push((after(3), resumed[0].clone()));
    fleet.run(4..30, |machine| if machine.college.as_str() == "57001" { bad(machine) } else { Stand::Well });
    let told = fleet.told();
    assert!(told.iter().any(|step| step.contains("passed first")), "{told:?}");
    assert_eq!(Course::of(&fleet.story).halted, []);
}

#[test]
fn after_a_ring_that_asks_for_it_an_operator_looks() {
    let mut fleet = Fleet::new();
    fleet.deployment.rollouts.values_mut().next().unwrap().rings[0].confirm = true;
    fleet.run(0..60, well);
    assert_eq!(fleet.told()[2..], ["24 held after first Operator"]);
    assert_eq!(fleet.touched(), 100);
    let passed = Course::of(&fleet.story).operators(|_| true, |_| false);
    assert_eq!(passed, [Step::Passed { after: "first".parse().unwrap(), by_operator: true }]);
    fleet.story.push((after(60), passed[0].clone()));
    fleet.run(61..80, well);
    assert!(fleet.touched() > 200);
}

#[test]
fn the_next_ring_waits_for_success_however_long() {
    let mut fleet = Fleet::new();
    // It is there, and nobody started anew since.
    fleet.run(0..1, well);
    for hour in 1..60 {
        for workstation in &mut fleet.workstations {
            workstation.heard = after(hour);
            workstation.started = false;
        }
        let now = after(hour);
        let steps = fleet.watch(now, |watched| watched.next(&Course::of(&fleet.story)));
        assert_eq!(steps, [], "{hour}");
    }
    fleet.run(60..62, well);
    assert!(fleet.told().iter().any(|step| step.contains("passed first")));
}

#[test]
fn progress_counts_each_workstation_once() {
    let mut fleet = Fleet::new();
    fleet.workstations[7].heard = start().checked_sub(AWAY * 2).unwrap();
    fleet.workstations[8].failed = Some((start(), "no".to_owned()));
    let progress = fleet.watch(after(1), |watched| watched.progress(&Course::default()));
    let counted = |ring: &RingProgress| ring.stands.values().sum::<usize>() + ring.away;
    assert_eq!(progress.rings.iter().map(counted).sum::<usize>(), 400);
    assert_eq!((progress.rings[0].away, progress.causes["no"]), (1, 1));
    assert_eq!(progress.rings.iter().map(|ring| ring.is_open).collect::<Vec<_>>(), [true, false, false]);
}
