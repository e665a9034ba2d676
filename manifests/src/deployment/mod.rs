//! `deployment/policy.json`: which approved release goes where, how and when.
//!
//! A document of lines, each for an audience. Of the lines that a workstation falls under, the one whose audience is drawn
//! closest counts (a room before its college, a college before all); of two equally close, the later. What a workstation
//! makes of them is decided in `decide/`, which also says why.

mod audience;
mod hours;
mod owed;
mod rollout;
mod sign_in;
mod timetable;

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Instant;
use crate::Json;
use crate::catalogue::CatalogueEntry;
use crate::names::{GroupName, PackageName, SiteId, ValueName, Version};

pub use self::audience::{Audience, Closeness, Groups, Machine};
pub use self::hours::{Clock, ClockError, Day, Holiday, Hours, Moment, Span};
pub use self::rollout::{Halt, Place, Ring, Rollout};
pub use self::sign_in::SignIn;
pub use self::timetable::{Between, Timetable};

/// The document.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Deployment {
    #[serde(rename = "_type")]
    type_: DeploymentType,
    /// What goes where.
    pub assignments: Vec<Assignment>,
    /// What the store shows first, in this order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub featured: Vec<PackageName>,
    /// Audiences that have a name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub groups: Groups,
    /// When.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hours: Vec<Hours>,
    /// Rings, by the name of their rollout.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub rollouts: BTreeMap<GroupName, Rollout>,
    /// How people sign in; nobody does, if it is not said.
    #[serde(default, rename = "sign-in", skip_serializing_if = "Option::is_none")]
    pub sign_in: Option<SignIn>,
    /// What the settings of releases are filled with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<Values>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
enum DeploymentType {
    #[default]
    #[serde(rename = "deployment")]
    Deployment,
}

/// What is to become of a package, for an audience.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Assignment {
    /// Until when it must be there: from then on it waits for no window and no application to be closed, only for the end
    /// of the lesson.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Instant>,
    /// What is to become of it.
    pub mode: AssignmentMode,
    /// The package.
    pub package: PackageName,
    /// The rollout that it follows; everyone at once, if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<GroupName>,
    /// When it was decided: rings count from here, or from the release's approval if that came later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Instant>,
    /// For whom.
    #[serde(default)]
    pub to: Audience,
    /// Which release.
    #[serde(default)]
    pub track: Track,
}

/// What is to become of a package.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AssignmentMode {
    /// Part of the base: every workstation has it.
    Required,
    /// Installed where somebody asks for it, whoever she is, and then kept up to date.
    Available,
    /// The same, where a teacher asks.
    AvailableToTeachers,
    /// Nobody installs it here; where it is, it stays as it is.
    Blocked,
    /// Taken away.
    Removed,
}

/// Which release.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Track {
    /// The newest that is approved.
    #[default]
    Newest,
    /// This one, older than what is installed or not.
    Pinned {
        /// The release.
        sequence: u64,
        /// Until when; from then on the newest.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        until: Option<Instant>,
        /// Its version, for people who read the policy.
        version: Version,
    },
}

impl AssignmentMode {
    /// True when it lets workstations have the package.
    pub fn gives(self) -> bool {
        match self {
            Self::Required | Self::Available | Self::AvailableToTeachers => true,
            Self::Blocked | Self::Removed => false,
        }
    }
}

impl Track {
    /// The sequence that is pinned at `now`.
    pub fn pinned(&self, now: Instant) -> Option<u64> {
        match self {
            Self::Pinned { sequence, until, .. } if until.is_none_or(|until| now < until) => Some(*sequence),
            _ => None,
        }
    }
}

/// Values for the settings of releases.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Values {
    /// For whom.
    #[serde(default)]
    pub to: Audience,
    /// The values.
    pub values: BTreeMap<ValueName, String>,
}

/// Why a deployment cannot be followed.
#[derive(Debug, thiserror::Error)]
pub enum DeploymentError {
    /// Not JSON of this shape.
    #[error("the deployment policy is malformed")]
    Malformed(#[source] serde_json::Error),
    /// Two assignments of one package that nothing decides between.
    #[error("`{package}` is assigned twice to {to}")]
    Ambiguous {
        /// The package.
        package: PackageName,
        /// The audience.
        to: Audience,
    },
    /// A group or rollout that is not defined.
    #[error("{what} names `{name}`, which the deployment does not define")]
    Undefined {
        /// What names it.
        what: String,
        /// The name.
        name: GroupName,
    },
    /// A group that is made of groups.
    #[error("the group `{0}` is made of other groups: name what it is made of")]
    NestedGroup(GroupName),
    /// A group without members.
    #[error("the group `{0}` says nothing about its members")]
    EmptyGroup(GroupName),
    /// Rings that cannot be followed.
    #[error(
        "the rollout `{0}` has no rings, two of one name, a percentage outside 1 to 100, or a time of more than four weeks"
    )]
    UnsoundRollout(GroupName),
    /// Hours that cannot be followed.
    #[error("the hours of {to} cannot be followed: {fault}")]
    UnsoundHours {
        /// The audience.
        to: Audience,
        /// What is wrong.
        fault: String,
    },
    /// Nobody can sign in like this.
    #[error("nobody can sign in as the deployment says: {0}")]
    UnsoundSignIn(&'static str),
    /// A value with a control character, which could begin a line of its own in a file that is made with it.
    #[error("the value `{0}` holds a control character")]
    ControlCharacter(ValueName),
}

impl Deployment {
    /// A policy of these assignments.
    pub fn new(assignments: Vec<Assignment>) -> Result<Self, DeploymentError> {
        Self { assignments, ..Self::default() }.checked()
    }

    /// Reads the target.
    pub fn parse(bytes: &[u8]) -> Result<Self, DeploymentError> {
        Json::parse(bytes).map_err(DeploymentError::Malformed)?;
        serde_json::from_slice::<Self>(bytes).map_err(DeploymentError::Malformed)?.checked()
    }

    /// The target's bytes.
    ///
    /// # Errors
    /// Never in practice: the document holds nothing that JSON cannot.
    pub fn to_bytes(&self) -> Result<Vec<u8>, serde_json::Error> {
        Ok(Json::of(self)?.to_file())
    }

    /// The assignment of `package` that counts for `machine`, and its number in the list.
    pub fn assignment(&self, package: &PackageName, machine: &Machine) -> Option<(usize, &Assignment)> {
        let own = self.assignments.iter().enumerate().filter(|(_, assignment)| {
            assignment.package == *package && assignment.to.includes(machine, &self.groups)
        });
        own.max_by_key(|(number, assignment)| (assignment.to.closeness(&self.groups), *number))
    }

    /// Every assignment that counts for `machine`, by package.
    pub fn assignments_of(&self, machine: &Machine) -> BTreeMap<&PackageName, (usize, &Assignment)> {
        let mut own: BTreeMap<&PackageName, (Closeness, usize, &Assignment)> = BTreeMap::new();
        for (number, assignment) in self.assignments.iter().enumerate() {
            if !assignment.to.includes(machine, &self.groups) {
                continue;
            }
            let closeness = assignment.to.closeness(&self.groups);
            let known = own.entry(&assignment.package).or_insert((closeness, number, assignment));
            if known.0 <= closeness {
                *known = (closeness, number, assignment);
            }
        }
        own.into_iter().map(|(package, (_, number, assignment))| (package, (number, assignment))).collect()
    }

    /// The hours of `machine`.
    pub fn timetable(&self, machine: &Machine) -> Timetable {
        Timetable::of(&self.hours, machine, &self.groups)
    }

    /// The hours that are said about `machine`, the widest audience first, each as for everyone: what it needs to know of the
    /// deployment between two refreshes.
    pub fn hours_of(&self, machine: &Machine) -> Vec<Hours> {
        let mut own: Vec<&Hours> =
            self.hours.iter().filter(|hours| hours.to.includes(machine, &self.groups)).collect();
        own.sort_by_key(|hours| hours.to.closeness(&self.groups));
        own.into_iter().map(|hours| Hours { to: Audience::everyone(), ..hours.clone() }).collect()
    }

    /// The values for the settings on `machine`: each from the closest audience that gives it.
    pub fn values_of(&self, machine: &Machine) -> BTreeMap<&ValueName, &str> {
        let mut own: Vec<&Values> =
            self.values.iter().filter(|values| values.to.includes(machine, &self.groups)).collect();
        own.sort_by_key(|values| values.to.closeness(&self.groups));
        own.into_iter()
            .flat_map(|values| &values.values)
            .map(|(name, value)| (name, value.as_str()))
            .collect()
    }

    /// When the rings of `assignment` began to be opened for the release.
    pub fn start_of(assignment: &Assignment, entry: &CatalogueEntry) -> Instant {
        let start = assignment.since.max(entry.approved);
        start.unwrap_or(Instant::MIN)
    }

    /// The rollout that an assignment follows.
    pub fn rollout(&self, assignment: &Assignment) -> Option<&Rollout> {
        assignment.rollout.as_ref().and_then(|name| self.rollouts.get(name))
    }

    /// Puts `assignment` in place of what its audience had for the package before. Where the two differ only in their
    /// colleges, those that get the new one leave the old one.
    pub fn assign(&mut self, assignment: Assignment) {
        let colleges = &assignment.to.colleges;
        let rest = |audience: &Audience| Audience { colleges: [].into(), ..audience.clone() };
        let own = rest(&assignment.to);
        self.assignments.retain_mut(|other| {
            if other.package != assignment.package || rest(&other.to) != own {
                return true;
            }
            if other.to.colleges.is_empty() || colleges.is_empty() {
                return other.to.colleges != *colleges;
            }
            other.to.colleges.retain(|college| !colleges.contains(college));
            !other.to.colleges.is_empty()
        });
        self.assignments.push(assignment);
    }

    /// Itself, if it can be followed.
    pub fn checked(self) -> Result<Self, DeploymentError> {
        for (name, group) in &self.groups {
            if !group.groups.is_empty() {
                return Err(DeploymentError::NestedGroup(name.clone()));
            }
            if *group == Audience::everyone() {
                return Err(DeploymentError::EmptyGroup(name.clone()));
            }
        }
        for (name, rollout) in &self.rollouts {
            if !rollout.is_sound() {
                return Err(DeploymentError::UnsoundRollout(name.clone()));
            }
            for ring in &rollout.rings {
                self.check_audience(&ring.to, || format!("ring `{}`", ring.name))?;
            }
        }
        let mut seen = std::collections::BTreeSet::new();
        for assignment in &self.assignments {
            let Assignment { package, to, .. } = assignment;
            self.check_audience(to, || format!("the assignment of `{package}`"))?;
            if let Some(name) = &assignment.rollout
                && !self.rollouts.contains_key(name)
            {
                let what = format!("the assignment of `{package}`");
                return Err(DeploymentError::Undefined { what, name: name.clone() });
            }
            // Colleges one by one: two lists that share one would not decide for it.
            let wider = Audience { colleges: [].into(), ..to.clone() };
            let colleges: Vec<Option<&SiteId>> =
                if to.colleges.is_empty() { vec![None] } else { to.colleges.iter().map(Some).collect() };
            for college in colleges {
                if !seen.insert((package, college, wider.clone())) {
                    return Err(DeploymentError::Ambiguous { package: package.clone(), to: to.clone() });
                }
            }
        }
        for hours in &self.hours {
            self.check_audience(&hours.to, || "an entry of the hours".to_owned())?;
            if let Some(fault) = hours.fault() {
                return Err(DeploymentError::UnsoundHours { to: hours.to.clone(), fault });
            }
        }
        if let Some(fault) = self.sign_in.as_ref().and_then(SignIn::fault) {
            return Err(DeploymentError::UnsoundSignIn(fault));
        }
        for values in &self.values {
            self.check_audience(&values.to, || "an entry of the values".to_owned())?;
            if let Some((name, _)) =
                values.values.iter().find(|(_, value)| value.chars().any(char::is_control))
            {
                return Err(DeploymentError::ControlCharacter(name.clone()));
            }
        }
        Ok(self)
    }

    fn check_audience(&self, to: &Audience, what: impl Fn() -> String) -> Result<(), DeploymentError> {
        match to.groups.iter().find(|name| !self.groups.contains_key(*name)) {
            Some(name) => Err(DeploymentError::Undefined { what: what(), name: name.clone() }),
            None => Ok(()),
        }
    }
}

impl fmt::Display for AssignmentMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Required => "required",
            Self::Available => "available to everyone",
            Self::AvailableToTeachers => "available to teachers",
            Self::Blocked => "blocked",
            Self::Removed => "removed",
        })
    }
}

impl fmt::Display for Track {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Newest => f.write_str("the newest release"),
            Self::Pinned { sequence, until: None, version } => write!(f, "release {sequence} ({version})"),
            Self::Pinned { sequence, until: Some(until), version } => {
                write!(f, "release {sequence} ({version}) until {until:.0}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assignment(sequence: u64, colleges: &[&str]) -> Assignment {
        Assignment {
            deadline: None,
            mode: AssignmentMode::Required,
            package: "ruff".parse().unwrap(),
            rollout: None,
            since: None,
            to: Audience::colleges(colleges.iter().map(|college| college.parse().unwrap())),
            track: Track::Pinned { sequence, until: None, version: "1".parse().unwrap() },
        }
    }

    fn machine(college: &str) -> Machine {
        Machine {
            college: college.parse().unwrap(),
            id: "pc-1".parse().unwrap(),
            model: None,
            platform: "linux-x86_64".parse().unwrap(),
            room: None,
            tags: [].into(),
        }
    }

    fn sequence_at(deployment: &Deployment, college: &str) -> Option<u64> {
        let machine = machine(college);
        let (_, found) = deployment.assignment(&"ruff".parse().unwrap(), &machine)?;
        let all = deployment.assignments_of(&machine);
        assert_eq!(all.values().next().map(|(_, assignment)| *assignment), Some(found));
        found.track.pinned(Instant::UNIX_EPOCH)
    }

    #[test]
    fn a_college_of_its_own_comes_before_all() {
        for assignments in
            [[assignment(1, &[]), assignment(2, &["57001"])], [assignment(2, &["57001"]), assignment(1, &[])]]
        {
            let deployment = Deployment::new(assignments.to_vec()).unwrap();
            assert_eq!(sequence_at(&deployment, "57001"), Some(2));
            assert_eq!(sequence_at(&deployment, "57002"), Some(1));
        }
    }

    #[test]
    fn assigning_replaces_only_what_the_same_colleges_had() {
        let mut deployment = Deployment::new(vec![assignment(1, &["57001", "57002"])]).unwrap();
        deployment.assign(assignment(2, &["57001"]));
        assert_eq!(sequence_at(&deployment, "57001"), Some(2));
        assert_eq!(sequence_at(&deployment, "57002"), Some(1));
        deployment.assign(assignment(3, &["57001", "57002"]));
        assert_eq!(deployment.assignments.len(), 1);
        deployment.assign(assignment(4, &[]));
        assert_eq!(
            (sequence_at(&deployment, "57001"), sequence_at(&deployment, "57009")),
            (Some(3), Some(4))
        );
        assert!(Deployment::parse(&deployment.to_bytes().unwrap()).is_ok());
    }

    #[test]
    fn refuses_two_answers_for_one_college() {
        let twice = Deployment::new(vec![assignment(1, &["57001"]), assignment(2, &["57001", "57002"])]);
        assert!(matches!(twice, Err(DeploymentError::Ambiguous { .. })));
    }
}
