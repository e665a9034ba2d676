//! What this workstation should have of each package, and why. Pure: signed documents and the present in, reasons out.
//!
//! Every "no" is a value made here, where it is decided (promise 9).

use std::collections::BTreeMap;

use mirabelle_manifests::{
    Assignment, AssignmentMode, Brake, Catalogue, CatalogueEntry, Deployment, Instant, PackageName, Platform,
    SiteId,
};

use crate::generation::Generation;

/// What is decided upon.
pub(crate) struct Situation<'a> {
    pub(crate) catalogue: &'a Catalogue,
    pub(crate) deployment: &'a Deployment,
    pub(crate) brake: &'a Brake,
    pub(crate) college: &'a SiteId,
    pub(crate) platform: &'a Platform,
    pub(crate) current: &'a Generation,
}

/// What to do about a package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Install this release; it is not here in any version.
    Install(CatalogueEntry),
    /// Go from the installed release to this one.
    Update(CatalogueEntry),
    /// Leave it as it is.
    Keep(Reason),
}

/// Why a package stays as it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Reason {
    #[error("it is what the deployment says")]
    UpToDate,
    #[error("it is offered to college {college}, and nobody here asked for it")]
    OnlyOffered { college: SiteId },
    #[error("it is not deployed to college {college}")]
    NotDeployed { college: SiteId },
    #[error("it is deployed for another platform than {platform}")]
    OtherPlatform { platform: Platform },
    #[error("release {sequence} is deployed, but the rectorat has not approved it")]
    NotApproved { sequence: u64 },
    #[error("release {sequence} is paused since {since}: {reason}")]
    Paused { sequence: u64, since: Instant, reason: String },
    #[error("somebody went back from release {sequence} on this workstation; `install` takes it again")]
    HeldBack { sequence: u64 },
}

impl Situation<'_> {
    /// What `update` should do about every package that is deployed here or installed.
    pub(crate) fn decide_all(&self) -> BTreeMap<PackageName, Decision> {
        let assigned = self.deployment.assignments.iter().map(|assignment| &assignment.package);
        let packages = assigned.chain(self.current.packages.keys());
        packages.map(|package| (package.clone(), self.decide(package, false))).collect()
    }

    /// What to do about one package; `asked`: a person asked for it.
    pub(crate) fn decide(&self, package: &PackageName, asked: bool) -> Decision {
        let assignment = match self.assignment(package) {
            Ok(assignment) => assignment,
            Err(reason) => return Decision::Keep(reason),
        };
        let installed = self.current.packages.get(package);
        let sequence = assignment.sequence;
        let wanted = asked || installed.is_some() || assignment.mode == AssignmentMode::Required;
        if !wanted {
            return Decision::Keep(Reason::OnlyOffered { college: self.college.clone() });
        }
        let Some(entry) = self.catalogue.get(package, &assignment.platform, sequence) else {
            return Decision::Keep(Reason::NotApproved { sequence });
        };
        if installed.is_some_and(|installed| installed.release == entry.digest) {
            return Decision::Keep(Reason::UpToDate);
        }
        if let Some(pause) = self.brake.holds_back(package, &assignment.platform, sequence) {
            let (since, reason) = (pause.since, pause.reason.clone());
            return Decision::Keep(Reason::Paused { sequence, since, reason });
        }
        if !asked && self.current.held.get(package) == Some(&sequence) {
            return Decision::Keep(Reason::HeldBack { sequence });
        }
        match installed {
            Some(_) => Decision::Update(entry.clone()),
            None => Decision::Install(entry.clone()),
        }
    }

    /// The assignment in force here: one for exactly this platform comes before one for all.
    fn assignment(&self, package: &PackageName) -> Result<&Assignment, Reason> {
        let assigned = self.deployment.for_college(self.college);
        if let Some(assignment) =
            [self.platform, &Platform::any()].iter().find_map(|p| assigned.get(&(package, *p)))
        {
            return Ok(assignment);
        }
        Err(if assigned.keys().any(|(name, _)| *name == package) {
            Reason::OtherPlatform { platform: self.platform.clone() }
        } else {
            Reason::NotDeployed { college: self.college.clone() }
        })
    }
}

#[cfg(test)]
mod tests {
    use mirabelle_manifests::tuf::{TargetFile, Targets};
    use mirabelle_manifests::{Colleges, Listing, Pause, Text, release_target};

    use super::*;
    use crate::generation::Installed;

    fn catalogue(sequences: &[u64]) -> Catalogue {
        let mut role = Targets::new(1, "2030-01-01T00:00:00Z".parse().unwrap());
        for sequence in sequences {
            let text = Text { fr: "x".into(), en: "x".into() };
            let listing = Listing {
                categories: vec![],
                download_size: 1,
                installed_size: 1,
                conflicts: vec![],
                requires: vec![],
                licence: "MIT".into(),
                name: "ruff".parse().unwrap(),
                platform: Platform::any(),
                sequence: *sequence,
                summary: text.clone(),
                title: text,
                version: format!("1.{sequence}").parse().unwrap(),
            };
            let path = release_target(&listing.name, &listing.version, &listing.platform);
            let file = TargetFile::of(&sequence.to_le_bytes(), Some(serde_json::to_value(listing).unwrap()));
            role.targets.insert(path, file);
        }
        Catalogue::read(&role).unwrap()
    }

    fn deployment(sequence: u64, mode: AssignmentMode) -> Deployment {
        Deployment::new(vec![Assignment {
            colleges: Colleges::Only(vec!["57001".parse().unwrap()]),
            mode,
            package: "ruff".parse().unwrap(),
            platform: Platform::any(),
            sequence,
            version: format!("1.{sequence}").parse().unwrap(),
        }])
        .unwrap()
    }

    fn with_installed(sequence: u64, held: Option<u64>) -> Generation {
        let catalogue = catalogue(&[sequence]);
        let entry = catalogue.iter().next().unwrap();
        let mut generation = Generation::none();
        let installed = Installed {
            version: entry.listing.version.clone(),
            platform: entry.listing.platform.clone(),
            sequence,
            release: entry.digest,
            id: String::new(),
            title: entry.listing.title.clone(),
            launchers: vec![],
            bytes: 1,
        };
        generation.packages.insert("ruff".parse().unwrap(), installed);
        generation.held.extend(held.map(|sequence| ("ruff".parse().unwrap(), sequence)));
        generation
    }

    /// What is decided, in a word.
    fn word(decision: &Decision) -> &'static str {
        match decision {
            Decision::Install(_) => "install",
            Decision::Update(_) => "update",
            Decision::Keep(Reason::UpToDate) => "up to date",
            Decision::Keep(Reason::OnlyOffered { .. }) => "only offered",
            Decision::Keep(Reason::NotDeployed { .. }) => "not deployed",
            Decision::Keep(Reason::OtherPlatform { .. }) => "other platform",
            Decision::Keep(Reason::NotApproved { .. }) => "not approved",
            Decision::Keep(Reason::Paused { .. }) => "paused",
            Decision::Keep(Reason::HeldBack { .. }) => "held back",
        }
    }

    #[test]
    fn every_situation_has_its_decision() {
        use AssignmentMode::{Available, Required};
        let mut paused = Brake::default();
        paused.paused.push(Pause {
            package: "ruff".parse().unwrap(),
            platform: Platform::any(),
            reason: "breaks".into(),
            sequence: 2,
            since: "2026-01-01T00:00:00Z".parse().unwrap(),
        });
        let free = Brake::default();
        let none = Generation::none();
        let (one, two) = (with_installed(1, None), with_installed(2, None));
        let went_back = with_installed(1, Some(2));
        let cases = [
            (2, Required, &free, "57001", &none, false, "install"),
            (2, Available, &free, "57001", &none, false, "only offered"),
            (2, Available, &free, "57001", &none, true, "install"),
            (2, Available, &free, "57001", &one, false, "update"),
            (2, Required, &free, "57001", &two, false, "up to date"),
            (1, Required, &free, "57001", &two, false, "update"),
            (2, Required, &free, "57002", &none, true, "not deployed"),
            (3, Required, &free, "57001", &none, true, "not approved"),
            (2, Required, &paused, "57001", &none, true, "paused"),
            (2, Required, &paused, "57001", &one, false, "paused"),
            (2, Required, &paused, "57001", &two, false, "up to date"),
            (2, Required, &free, "57001", &went_back, false, "held back"),
            (2, Required, &free, "57001", &went_back, true, "update"),
        ];
        for (sequence, mode, brake, college, current, asked, expected) in cases {
            let situation = Situation {
                catalogue: &catalogue(&[1, 2]),
                deployment: &deployment(sequence, mode),
                brake,
                college: &college.parse().unwrap(),
                platform: &Platform::current(),
                current,
            };
            let decision = situation.decide(&"ruff".parse().unwrap(), asked);
            assert_eq!(
                word(&decision),
                expected,
                "release {sequence}, {mode:?}, college {college}, asked {asked}"
            );
        }
    }

    /// Promise 2, over whatever somebody who holds the brake's key could write: a decision is what it would be without a
    /// brake, or nothing happens.
    #[test]
    fn no_brake_can_do_anything_but_withhold() {
        use proptest::prelude::*;

        use AssignmentMode::{Available, Required};
        let text = || prop_oneof![Just("ruff".to_owned()), "[a-z][a-z0-9-]{0,8}"];
        let pause = (
            text(),
            prop_oneof![Just("any".to_owned()), Just("linux-x86_64".to_owned())],
            0..4_u64,
            ".{0,40}",
        );
        let brake = proptest::collection::vec(pause, 0..6).prop_map(|pauses| {
            let mut brake = Brake::default();
            for (package, platform, sequence, reason) in pauses {
                let (Ok(package), Ok(platform)) = (package.parse(), platform.parse()) else { continue };
                let since = "2026-01-01T00:00:00Z".parse().unwrap();
                brake.paused.push(Pause { package, platform, reason, sequence, since });
            }
            brake
        });
        let mode = prop_oneof![Just(Required), Just(Available)];
        let situations = (brake, 1..4_u64, mode, 0..3_u64, any::<bool>(), any::<bool>());
        let free = Brake::default();
        proptest!(|((brake, sequence, mode, installed, held, asked) in situations)| {
            let current = match installed {
                0 => Generation::none(),
                installed => with_installed(installed, held.then_some(sequence)),
            };
            let (catalogue, deployment) = (catalogue(&[1, 2]), deployment(sequence, mode));
            let (college, platform) = ("57001".parse().unwrap(), Platform::current());
            let decide = |brake| {
                let situation = Situation {
                    catalogue: &catalogue,
                    deployment: &deployment,
                    brake,
                    college: &college,
                    platform: &platform,
                    current: &current,
                };
                situation.decide(&"ruff".parse().unwrap(), asked)
            };
            let (with, without) = (decide(&brake), decide(&free));
            let withheld = matches!(with, Decision::Keep(Reason::Paused { .. }));
            prop_assert!(with == without || withheld, "{with:?} instead of {without:?}");
        });
    }
}
