//! `deployment/policy.json`: which approved release goes to which colleges.
//!
//! For now an assignment says "this release, for every workstation of these colleges"; groups, rings and windows grow
//! from here.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::Json;
use crate::names::{PackageName, Platform, SiteId, Version};

/// The document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Deployment {
    #[serde(rename = "_type")]
    type_: DeploymentType,
    /// What goes where.
    pub assignments: Vec<Assignment>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum DeploymentType {
    #[serde(rename = "deployment")]
    Deployment,
}

/// One release for some colleges.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Assignment {
    /// Where.
    pub colleges: Colleges,
    /// Whether workstations take it by themselves.
    pub mode: AssignmentMode,
    /// The package.
    pub package: PackageName,
    /// The release's platform.
    pub platform: Platform,
    /// The release.
    pub sequence: u64,
    /// Its version, for people who read the policy.
    pub version: Version,
}

/// Whether workstations take a release by themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AssignmentMode {
    /// Part of the base: every workstation has it.
    Required,
    /// Installed where somebody asks for it, and then kept up to date.
    Available,
}

/// Some colleges, or all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Colleges {
    /// Every college, unless it is named in an assignment of its own.
    All,
    /// These.
    Only(Vec<SiteId>),
}

/// Why a deployment cannot be followed.
#[derive(Debug, thiserror::Error)]
pub enum DeploymentError {
    /// Not JSON of this shape.
    #[error("the deployment policy is malformed")]
    Malformed(#[source] serde_json::Error),
    /// Two assignments of one package that nothing decides between.
    #[error("`{package}` for {platform} is assigned twice to {college}")]
    Ambiguous {
        /// The package.
        package: PackageName,
        /// The platform.
        platform: Platform,
        /// The college, or `all colleges`.
        college: String,
    },
}

impl Deployment {
    /// A policy of these assignments.
    pub fn new(assignments: Vec<Assignment>) -> Result<Self, DeploymentError> {
        let deployment = Self { type_: DeploymentType::Deployment, assignments };
        deployment.check()?;
        Ok(deployment)
    }

    /// Reads the target.
    pub fn parse(bytes: &[u8]) -> Result<Self, DeploymentError> {
        Json::parse(bytes).map_err(DeploymentError::Malformed)?;
        let deployment: Self = serde_json::from_slice(bytes).map_err(DeploymentError::Malformed)?;
        deployment.check()?;
        Ok(deployment)
    }

    /// The target's bytes.
    ///
    /// # Errors
    /// Never in practice: the document holds nothing that JSON cannot.
    pub fn to_bytes(&self) -> Result<Vec<u8>, serde_json::Error> {
        Ok(Json::of(self)?.to_file())
    }

    /// The assignments in force at a college: its own come before those for all.
    pub fn for_college(&self, college: &SiteId) -> BTreeMap<(&PackageName, &Platform), &Assignment> {
        let mut assigned = BTreeMap::new();
        for assignment in &self.assignments {
            let key = (&assignment.package, &assignment.platform);
            match &assignment.colleges {
                Colleges::All => {
                    assigned.entry(key).or_insert(assignment);
                }
                Colleges::Only(colleges) if colleges.contains(college) => {
                    assigned.insert(key, assignment);
                }
                Colleges::Only(_) => {}
            }
        }
        assigned
    }

    /// Puts `assignment` in place of what its colleges had for the package before; other colleges keep theirs.
    pub fn assign(&mut self, assignment: Assignment) {
        let same =
            |other: &Assignment| other.package == assignment.package && other.platform == assignment.platform;
        match &assignment.colleges {
            Colleges::All => {
                self.assignments.retain(|other| !(same(other) && other.colleges == Colleges::All));
            }
            Colleges::Only(colleges) => {
                for other in self.assignments.iter_mut().filter(|other| same(other)) {
                    if let Colleges::Only(theirs) = &mut other.colleges {
                        theirs.retain(|college| !colleges.contains(college));
                    }
                }
                self.assignments.retain(|other| other.colleges != Colleges::Only(Vec::new()));
            }
        }
        self.assignments.push(assignment);
    }

    fn check(&self) -> Result<(), DeploymentError> {
        let mut seen = BTreeSet::new();
        for assignment in &self.assignments {
            let colleges: Vec<Option<&SiteId>> = match &assignment.colleges {
                Colleges::All => vec![None],
                Colleges::Only(colleges) => colleges.iter().map(Some).collect(),
            };
            for college in colleges {
                if !seen.insert((&assignment.package, &assignment.platform, college)) {
                    return Err(DeploymentError::Ambiguous {
                        package: assignment.package.clone(),
                        platform: assignment.platform.clone(),
                        college: college
                            .map_or("all colleges".to_owned(), |college| format!("college {college}")),
                    });
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assignment(sequence: u64, colleges: &[&str]) -> Assignment {
        let colleges = match colleges {
            ["*"] => Colleges::All,
            _ => Colleges::Only(colleges.iter().map(|college| college.parse().unwrap()).collect()),
        };
        Assignment {
            colleges,
            mode: AssignmentMode::Required,
            package: "ruff".parse().unwrap(),
            platform: Platform::any(),
            sequence,
            version: "1".parse().unwrap(),
        }
    }

    fn sequence_at(deployment: &Deployment, college: &str) -> Option<u64> {
        let college = college.parse().unwrap();
        deployment.for_college(&college).values().next().map(|assignment| assignment.sequence)
    }

    #[test]
    fn a_college_of_its_own_comes_before_all() {
        for assignments in [
            [assignment(1, &["*"]), assignment(2, &["57001"])],
            [assignment(2, &["57001"]), assignment(1, &["*"])],
        ] {
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
        assert!(Deployment::parse(&deployment.to_bytes().unwrap()).is_ok());
    }

    #[test]
    fn refuses_two_answers_for_one_college() {
        let twice = Deployment::new(vec![assignment(1, &["57001"]), assignment(2, &["57001", "57002"])]);
        assert!(matches!(twice, Err(DeploymentError::Ambiguous { .. })));
    }
}
