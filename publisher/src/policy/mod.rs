//! The deployment in the hands of its operators: as a file that people edit, with doubts about what cannot work, and with
//! what a change touches.

mod calendar;
mod doubts;
mod text;

use std::collections::BTreeSet;

use mirabelle_manifests::{Audience, Deployment, GroupName, PackageName, SiteId};
use serde::Serialize;

pub(crate) use calendar::{Calendar, CalendarError};
pub(crate) use doubts::doubts;
pub(crate) use text::{MAX_POLICY_BYTES, read, write};

/// What a change is about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Touched {
    /// Packages of which workstations may be told something else.
    pub(crate) packages: BTreeSet<PackageName>,
    /// The colleges that notice; `None` for all.
    pub(crate) colleges: Option<BTreeSet<SiteId>>,
}

impl Touched {
    /// What differs between two deployments.
    pub(crate) fn between(before: &Deployment, new: &Deployment) -> Self {
        let mut touched = Self { packages: BTreeSet::new(), colleges: Some(BTreeSet::new()) };
        for (own, other) in [(before, new), (new, before)] {
            // A line says something else, too, when what it names by its name is something else.
            let group = |name: &GroupName| own.groups.get(name) != other.groups.get(name);
            let audience = |to: &Audience| to.groups.iter().any(group);
            let rollout = |name: &GroupName| {
                own.rollouts.get(name) != other.rollouts.get(name)
                    || own
                        .rollouts
                        .get(name)
                        .is_some_and(|rollout| rollout.rings.iter().any(|ring| audience(&ring.to)))
            };
            for line in &own.assignments {
                let changed = !other.assignments.contains(line)
                    || audience(&line.to)
                    || line.rollout.as_ref().is_some_and(rollout);
                if changed {
                    touched.packages.insert(line.package.clone());
                    touched.add(&line.to, own);
                }
            }
            for hours in &own.hours {
                if !other.hours.contains(hours) || audience(&hours.to) {
                    touched.add(&hours.to, own);
                }
            }
            for values in &own.values {
                if !other.values.contains(values) || audience(&values.to) {
                    touched.add(&values.to, own);
                }
            }
        }
        touched
    }

    fn add(&mut self, to: &Audience, deployment: &Deployment) {
        let mut own = to.colleges.clone();
        if own.is_empty() {
            let groups: Vec<&Audience> =
                to.groups.iter().filter_map(|name| deployment.groups.get(name)).collect();
            if groups.iter().all(|group| !group.colleges.is_empty()) {
                own.extend(groups.into_iter().flat_map(|group| group.colleges.iter().cloned()));
            }
        }
        match &mut self.colleges {
            Some(colleges) if !own.is_empty() => colleges.extend(own),
            _ => self.colleges = None,
        }
    }

    /// `touches ruff, geogebra at college 57001`
    pub(crate) fn words(&self) -> String {
        let packages: Vec<&str> = self.packages.iter().map(PackageName::as_str).collect();
        let packages = if packages.is_empty() { "no package".to_owned() } else { packages.join(", ") };
        match &self.colleges {
            None => format!("touches {packages} at all colleges"),
            Some(colleges) if colleges.is_empty() => format!("touches {packages} at no college"),
            Some(colleges) => {
                let colleges: Vec<&str> = colleges.iter().map(SiteId::as_str).collect();
                format!("touches {packages} at college {}", colleges.join(", "))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_touches_who_falls_under_it() {
        let base = r#"
            [groups.exams]
            colleges = ["57001", "57002"]
            [rollouts.careful]
            rings = [{ name = "first", percent = 5, soak-hours = 24 }]
            [[assignments]]
            mode = "required"
            package = "ruff"
            to = { groups = ["exams"] }
            [[assignments]]
            mode = "required"
            package = "geogebra"
            rollout = "careful"
            to = { colleges = ["57003"] }
            [[hours]]
            evening-minutes = 10
        "#;
        let touched = |from: &str, to: &str| {
            let changed = base.replace(from, to);
            Touched::between(&read(base).unwrap(), &read(&changed).unwrap()).words()
        };
        assert_eq!(touched("careful", "careful"), "touches no package at no college");
        assert_eq!(touched("\"57002\"", "\"57004\""), "touches ruff at college 57001, 57002, 57004");
        assert_eq!(touched("percent = 5", "percent = 6"), "touches geogebra at college 57003");
        assert_eq!(touched("\"57003\"", "\"57005\""), "touches geogebra at college 57003, 57005");
        assert_eq!(touched("minutes = 10", "minutes = 11"), "touches no package at all colleges");
    }
}
