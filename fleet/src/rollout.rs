//! How a rollout goes: what its workstations reported decides when the next ring opens, and whether everything stops.
//!
//! ```text
//!           ring 1 ──soaked, and runs well──▶ ring 2 ──▶ … ──▶ everybody else
//!              │ held: a pause for whoever comes after the ring, written before the next one opens
//!              └─too many failed or fell silent─▶ halted: a pause for everybody, or for the one college or model that it is about,
//!                                                 until an operator resumes
//! ```
//!
//! Pure: the deployment, what is known of workstations, the story so far ([`Course`]) and the time come in; the next [`Step`]s come out. The
//! brake is what makes them count, so a story is always written after it: what the story says is held and the brake does not hold was
//! let go by an operator.
//!
//! Fails safe: where nobody watches, the pause after the ring stays.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use jiff::SignedDuration;
use mirabelle_manifests::{
    Assignment, Audience, CatalogueEntry, Deployment, GroupName, Halt, Instant, Machine, Rollout, SiteId,
};
use serde::{Deserialize, Serialize};

/// A workstation that was not heard of for so long before its ring opened is away: it joins when it comes back.
const AWAY: SignedDuration = SignedDuration::from_hours(7 * 24);

/// What is known of a workstation, and of one release on it.
#[derive(Clone, Debug)]
pub struct Workstation {
    /// The workstation.
    pub machine: Machine,
    /// When it was heard of last.
    pub heard: Instant,
    /// When the release came, if it is there.
    pub installed: Option<Instant>,
    /// True when it started since then.
    pub started: bool,
    /// When the release failed there, if it did, and why.
    pub failed: Option<(Instant, String)>,
}

/// How a workstation stands with a release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stand {
    /// It does not have it yet.
    Waiting,
    /// It has it, and did not start since.
    Installed,
    /// It has it, and started with it.
    Well,
    /// It failed there.
    Failed,
    /// Nothing was heard of it for too long, while its college's node was heard of.
    Silent,
}

/// What happened in a rollout, in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "kebab-case")]
pub enum Step {
    /// Its first ring opened.
    Began,
    /// Whoever comes after this ring waits.
    Held {
        /// The ring.
        after: GroupName,
        /// For what.
        until: Hold,
    },
    /// Nobody waits for this ring any more.
    Passed {
        /// The ring.
        after: GroupName,
        /// True when an operator let it go on, false when it went well by itself.
        by_operator: bool,
    },
    /// It stopped.
    Halted {
        /// For whom.
        to: Audience,
        /// Why, in words.
        why: String,
    },
    /// An operator let it go on.
    Resumed {
        /// For whom it had stopped.
        to: Audience,
    },
    /// Every ring was passed.
    Finished,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Began => f.write_str("began"),
            Self::Held { after, until: Hold::Success } => {
                write!(f, "whoever comes after ring `{after}` waits until it went well")
            }
            Self::Held { after, until: Hold::Operator } => {
                write!(f, "ring `{after}` went well; whoever comes after it waits for an operator")
            }
            Self::Passed { after, by_operator: false } => write!(f, "ring `{after}` went well"),
            Self::Passed { after, by_operator: true } => {
                write!(f, "an operator let it go on after ring `{after}`")
            }
            Self::Halted { to, why } => write!(f, "halted for {to}: {why}"),
            Self::Resumed { to } => write!(f, "an operator resumed it for {to}"),
            Self::Finished => f.write_str("finished"),
        }
    }
}

/// What those after a ring wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Hold {
    /// That it soaked, and runs well.
    Success,
    /// That an operator looked.
    Operator,
}

/// The story of a rollout, as far as it matters for what comes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Course {
    /// When it began.
    pub began: Option<Instant>,
    /// The rings that nobody waits for any more.
    pub passed: BTreeSet<GroupName>,
    /// The ring that others wait for, and what for.
    pub held: Option<(GroupName, Hold)>,
    /// For whom it stands still.
    pub halted: Vec<(Audience, String)>,
    /// When an operator resumed it last: what failed before that was seen.
    pub resumed: Option<Instant>,
    /// True when every ring was passed.
    pub is_finished: bool,
}

impl Course {
    /// The story so far.
    pub fn of<'a>(steps: impl IntoIterator<Item = &'a (Instant, Step)>) -> Self {
        let mut course = Self::default();
        for (at, step) in steps {
            course.follow(*at, step);
        }
        course
    }

    /// Goes one step further.
    pub fn follow(&mut self, at: Instant, step: &Step) {
        match step {
            Step::Began => self.began = Some(at),
            Step::Held { after, until } => self.held = Some((after.clone(), *until)),
            Step::Passed { after, .. } => {
                self.passed.insert(after.clone());
                self.held = None;
            }
            Step::Halted { to, why } => self.halted.push((to.clone(), why.clone())),
            Step::Resumed { to } => {
                self.halted.retain(|(halted, _)| halted != to);
                self.resumed = Some(at);
            }
            Step::Finished => self.is_finished = true,
        }
    }

    /// What an operator did since: halts that the brake no longer has were resumed; a ring that it no longer holds was passed, unless
    /// the same hand took everything away to resume a halt.
    pub fn operators(
        &self,
        is_halted: impl Fn(&Audience) -> bool,
        is_held: impl Fn(&GroupName) -> bool,
    ) -> Vec<Step> {
        let resumed = self.halted.iter().filter(|(to, _)| !is_halted(to));
        let mut steps: Vec<Step> = resumed.map(|(to, _)| Step::Resumed { to: to.clone() }).collect();
        if let Some((after, _)) = &self.held
            && self.halted.is_empty()
            && !is_held(after)
        {
            steps.push(Step::Passed { after: after.clone(), by_operator: true });
        }
        steps
    }
}

/// A rollout of a release, and everything that is known of it.
#[derive(Clone, Copy, Debug)]
pub struct Watched<'a> {
    /// What goes where.
    pub deployment: &'a Deployment,
    /// The line that follows the rollout.
    pub assignment: &'a Assignment,
    /// Its rings.
    pub rollout: &'a Rollout,
    /// The release.
    pub entry: &'a CatalogueEntry,
    /// All workstations of the fleet.
    pub workstations: &'a [Workstation],
    /// When the node of each college was heard of last.
    pub nodes: &'a BTreeMap<SiteId, Instant>,
    /// The time.
    pub now: Instant,
}

/// How far a rollout is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Progress {
    /// Ring by ring; the last is everybody else.
    pub rings: Vec<RingProgress>,
    /// Why it failed, and on how many workstations.
    pub causes: BTreeMap<String, usize>,
}

/// How far a ring is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RingProgress {
    /// Its name; nothing for everybody else.
    pub name: Option<GroupName>,
    /// When it opens by the clock.
    pub opens: Instant,
    /// True when it is open.
    pub is_open: bool,
    /// Its workstations, by how they stand; those that are away are in none.
    pub stands: BTreeMap<Stand, usize>,
    /// Its workstations that were not heard of for long.
    pub away: usize,
}

/// A workstation in its place.
struct Placed<'a> {
    workstation: &'a Workstation,
    ring: usize,
    stand: Stand,
    is_away: bool,
}

#[derive(Clone, Copy, Default)]
struct Count {
    all: usize,
    well: usize,
    failed: usize,
    silent: usize,
}

impl Count {
    fn add(&mut self, stand: Stand, is_news: bool) {
        self.all += 1;
        match stand {
            Stand::Well => self.well += 1,
            Stand::Failed if is_news => self.failed += 1,
            Stand::Silent if is_news => self.silent += 1,
            _ => {}
        }
    }

    /// Those that failed, and those that fell silent beyond what is usual now: `usual` of a thousand.
    fn bad(self, usual: usize) -> usize {
        self.failed + self.silent.saturating_sub((self.all * usual).div_ceil(1000))
    }

    /// True when that is too many.
    fn is_over(self, halt: Halt, usual: usize) -> bool {
        let (bad, machines) = (self.bad(usual), usize::try_from(halt.machines).unwrap_or(usize::MAX));
        self.all > 0 && bad >= machines.min(self.all) && bad * 100 >= self.all * usize::from(halt.percent)
    }
}

impl Watched<'_> {
    /// When the rollout began, by the clock of whoever follows it.
    pub fn start(&self) -> Instant {
        Deployment::start_of(self.assignment, self.entry)
    }

    /// When each ring opens by the clock, everybody else last.
    fn opens(&self) -> Vec<Instant> {
        let mut opens = vec![self.start()];
        for ring in &self.rollout.rings {
            let last = opens.last().copied().unwrap_or(Instant::MAX);
            let soak = SignedDuration::from_hours(ring.soak_hours.into());
            opens.push(last.checked_add(soak).unwrap_or(Instant::MAX));
        }
        opens
    }

    /// How many rings are open: those up to the first that was not passed.
    fn open(&self, course: &Course, opens: &[Instant]) -> usize {
        let passed = self.rollout.rings.iter().take_while(|ring| course.passed.contains(&ring.name)).count();
        opens.iter().take(passed + 1).filter(|opens| **opens <= self.now).count()
    }

    fn silent_time(&self) -> SignedDuration {
        SignedDuration::from_hours(self.rollout.halt.silent_hours.into())
    }

    /// True when something is wrong with it alone: its college's node is heard of, and it is not.
    fn is_silent(&self, workstation: &Workstation) -> bool {
        let is_quiet = |heard: &Instant| self.now.duration_since(*heard) >= self.silent_time();
        let node = self.nodes.get(&workstation.machine.college);
        is_quiet(&workstation.heard) && node.is_some_and(|node| !is_quiet(node))
    }

    /// The workstations of the line, each in its ring.
    fn placed(&self, opens: &[Instant]) -> Vec<Placed<'_>> {
        let (package, groups) = (&self.entry.listing.name, &self.deployment.groups);
        let is_meant = |machine: &Machine| {
            let own = self.deployment.assignments_of(machine).get(package).map(|(_, line)| *line);
            own.is_some_and(|line| std::ptr::eq(line, self.assignment))
                && self.entry.listing.platform.runs_on(&machine.platform)
        };
        let place = |workstation: &'_ Workstation| {
            let place = self.rollout.place(&workstation.machine, groups, package, self.start());
            let rings = &self.rollout.rings;
            let number = place.ring.and_then(|name| rings.iter().position(|ring| ring.name == *name));
            number.unwrap_or(rings.len())
        };
        let workstations = self.workstations.iter().filter(|workstation| is_meant(&workstation.machine));
        workstations
            .map(|workstation| {
                let ring = place(workstation);
                let before = opens.get(ring).and_then(|opens| opens.checked_sub(AWAY).ok());
                let stand = match workstation {
                    Workstation { failed: Some(_), .. } => Stand::Failed,
                    Workstation { installed: Some(_), started: true, .. } => Stand::Well,
                    _ if self.is_silent(workstation) => Stand::Silent,
                    Workstation { installed: Some(_), .. } => Stand::Installed,
                    _ => Stand::Waiting,
                };
                let is_away = before.is_none_or(|before| workstation.heard < before);
                Placed { workstation, ring, stand, is_away }
            })
            .collect()
    }

    /// How far it is.
    pub fn progress(&self, course: &Course) -> Progress {
        let opens = self.opens();
        let open = self.open(course, &opens);
        let names = self.rollout.rings.iter().map(|ring| Some(ring.name.clone())).chain([None]);
        let mut rings: Vec<RingProgress> = names
            .zip(&opens)
            .enumerate()
            .map(|(number, (name, opens))| RingProgress {
                name,
                opens: *opens,
                is_open: number < open,
                stands: BTreeMap::new(),
                away: 0,
            })
            .collect();
        let mut causes = BTreeMap::new();
        for placed in self.placed(&opens) {
            let Some(ring) = rings.get_mut(placed.ring) else { continue };
            if placed.is_away {
                ring.away += 1;
                continue;
            }
            *ring.stands.entry(placed.stand).or_default() += 1;
            if let Some((_, why)) = &placed.workstation.failed {
                *causes.entry(why.clone()).or_default() += 1;
            }
        }
        Progress { rings, causes }
    }

    /// What is to be done now.
    pub fn next(&self, course: &Course) -> Vec<Step> {
        let mut steps = Vec::new();
        let opens = self.opens();
        if self.now < self.start() || course.is_finished {
            return steps;
        }
        let mut course = course.clone();
        let mut go = |step: Step, course: &mut Course| {
            course.follow(self.now, &step);
            steps.push(step);
        };
        if course.began.is_none() {
            go(Step::Began, &mut course);
        }
        let placed: Vec<Placed<'_>> =
            self.placed(&opens).into_iter().filter(|placed| !placed.is_away).collect();
        let usual = self.usual_silence(&placed, self.open(&course, &opens));
        for (to, why) in self.halts(&course, &placed, self.open(&course, &opens), usual) {
            go(Step::Halted { to, why }, &mut course);
        }
        for (number, ring) in self.rollout.rings.iter().enumerate() {
            if course.passed.contains(&ring.name) {
                continue;
            }
            let soaked = opens.get(number + 1).is_some_and(|next| *next <= self.now);
            let went_well = soaked && self.went_well(&course, &placed, number);
            let until = if went_well && ring.confirm { Hold::Operator } else { Hold::Success };
            if went_well && !ring.confirm {
                go(Step::Passed { after: ring.name.clone(), by_operator: false }, &mut course);
                continue;
            }
            if course.held != Some((ring.name.clone(), until)) {
                go(Step::Held { after: ring.name.clone(), until }, &mut course);
            }
            break;
        }
        let soaked = opens.last().is_some_and(|last| *last <= self.now);
        if soaked && course.halted.is_empty() && course.passed.len() == self.rollout.rings.len() {
            // Those that come last soak as long as they may be silent.
            let last = opens.last().and_then(|last| last.checked_add(self.silent_time()).ok());
            if last.is_some_and(|last| last <= self.now) {
                go(Step::Finished, &mut course);
            }
        }
        steps
    }

    /// Of a thousand workstations that the release has not reached, so many are silent anyway.
    fn usual_silence(&self, placed: &[Placed<'_>], open: usize) -> usize {
        let reached: BTreeSet<(&SiteId, _)> = placed
            .iter()
            .filter(|placed| placed.ring < open)
            .map(|placed| (&placed.workstation.machine.college, &placed.workstation.machine.id))
            .collect();
        let before = self.start().checked_sub(AWAY).unwrap_or(Instant::MIN);
        let others = self.workstations.iter().filter(|workstation| {
            workstation.heard >= before
                && !reached.contains(&(&workstation.machine.college, &workstation.machine.id))
        });
        let (all, silent) = others.fold((0_usize, 0_usize), |(all, silent), workstation| {
            (all + 1, silent + usize::from(self.is_silent(workstation)))
        });
        (silent * 1000).checked_div(all).unwrap_or(0)
    }

    /// True when the release runs well on enough of those that the rings up to this one reached and that are on. It goes on without a model or
    /// a college that it stopped for, and not at all while it stopped for everybody.
    fn went_well(&self, course: &Course, placed: &[Placed<'_>], ring: usize) -> bool {
        if course.halted.iter().any(|(to, _)| *to == Audience::everyone()) {
            return false;
        }
        let reached = placed.iter().filter(|placed| {
            placed.ring <= ring
                && placed.stand != Stand::Silent
                && !self.is_halted(course, &placed.workstation.machine)
        });
        let (all, well) = reached.fold((0_usize, 0_usize), |(all, well), placed| {
            (all + 1, well + usize::from(placed.stand == Stand::Well))
        });
        well * 100 >= all * usize::from(self.rollout.halt.success_percent)
    }

    fn is_halted(&self, course: &Course, machine: &Machine) -> bool {
        course.halted.iter().any(|(to, _)| to.includes(machine, &self.deployment.groups))
    }

    /// For whom it is to stop now, and why: for the models or the colleges that it is about, if the others do well; else for everybody.
    fn halts(
        &self,
        course: &Course,
        placed: &[Placed<'_>],
        open: usize,
        usual: usize,
    ) -> Vec<(Audience, String)> {
        let halt = self.rollout.halt;
        let is_news = |placed: &Placed<'_>| {
            let since = match &placed.workstation.failed {
                Some((at, _)) => *at,
                None => placed.workstation.heard.checked_add(self.silent_time()).unwrap_or(Instant::MAX),
            };
            course.resumed.is_none_or(|resumed| since > resumed)
        };
        let (mut whole, mut models, mut colleges) = (Count::default(), BTreeMap::new(), BTreeMap::new());
        for placed in placed.iter().filter(|placed| placed.ring < open) {
            let machine = &placed.workstation.machine;
            if self.is_halted(course, machine) {
                continue;
            }
            let is_news = is_news(placed);
            whole.add(placed.stand, is_news);
            if let Some(model) = &machine.model {
                models.entry(model).or_insert_with(Count::default).add(placed.stand, is_news);
            }
            colleges.entry(&machine.college).or_insert_with(Count::default).add(placed.stand, is_news);
        }
        let why = |count: Count| {
            let Count { all, failed, .. } = count;
            let silent = count.bad(usual) - failed;
            format!("of {all} workstations {failed} failed and {silent} fell silent")
        };
        if let Some(found) = narrow(&models, whole, halt, usual) {
            let to = Audience {
                models: found.iter().map(|(model, _)| (*model).clone()).collect(),
                ..Audience::everyone()
            };
            return vec![(to, why(sum(&found)))];
        }
        if let Some(found) = narrow(&colleges, whole, halt, usual) {
            let to = Audience::colleges(found.iter().map(|(college, _)| (*college).clone()));
            return vec![(to, why(sum(&found)))];
        }
        if whole.is_over(halt, usual) { vec![(Audience::everyone(), why(whole))] } else { Vec::new() }
    }
}

fn sum<K>(counts: &[(K, Count)]) -> Count {
    counts.iter().fold(Count::default(), |sum, (_, count)| Count {
        all: sum.all + count.all,
        well: sum.well + count.well,
        failed: sum.failed + count.failed,
        silent: sum.silent + count.silent,
    })
}

/// The parts of the whole where it goes wrong, if it demonstrably goes well in the others.
fn narrow<'k, K: ?Sized>(
    parts: &BTreeMap<&'k K, Count>,
    whole: Count,
    halt: Halt,
    usual: usize,
) -> Option<Vec<(&'k K, Count)>>
where
    &'k K: Ord,
{
    let machines = usize::try_from(halt.machines).unwrap_or(usize::MAX);
    let is_bad = |count: &Count| count.is_over(halt, usual) && count.bad(usual) >= machines;
    let found: Vec<(&K, Count)> =
        parts.iter().filter(|(_, count)| is_bad(count)).map(|(key, count)| (*key, *count)).collect();
    let bad = sum(&found);
    let rest = Count {
        all: whole.all - bad.all,
        well: whole.well - bad.well,
        failed: whole.failed - bad.failed,
        silent: whole.silent - bad.silent,
    };
    (!found.is_empty() && rest.well >= machines.max(bad.bad(usual)) && !rest.is_over(halt, usual))
        .then_some(found)
}

#[cfg(test)]
mod tests;
