//! What a person chose, so that it follows her to the next computer and college.

use std::collections::BTreeMap;

use mirabelle_manifests::{Instant, PackageName};
use serde::{Deserialize, Serialize};

/// More than a person can want.
const MAX_CHOICES: usize = 200;

/// What she wants of what she chose elsewhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Follow {
    /// It is offered.
    #[default]
    Offer,
    /// It is installed.
    Install,
    /// Nothing: what she chooses is not kept.
    Never,
}

/// One choice: taken, or given up again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Choice {
    /// When.
    pub at: Instant,
    /// True when she wants it.
    pub wanted: bool,
}

/// What is kept of a person: nothing but this.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Choices {
    /// What is done with them.
    pub follow: Follow,
    /// When she said so.
    pub follow_since: Option<Instant>,
    /// By package.
    pub packages: BTreeMap<PackageName, Choice>,
    /// Until when everything of before is forgotten.
    pub forgotten: Option<Instant>,
}

impl Choices {
    /// Takes a choice up; a later one counts.
    pub fn choose(&mut self, package: PackageName, choice: Choice) {
        if self.follow == Follow::Never || self.forgotten.is_some_and(|forgotten| choice.at <= forgotten) {
            return;
        }
        let known = self.packages.entry(package).or_insert(choice);
        if known.at < choice.at {
            *known = choice;
        }
        while self.packages.len() > MAX_CHOICES {
            let oldest = self.packages.iter().min_by_key(|(_, choice)| choice.at);
            let Some(oldest) = oldest.map(|(package, _)| package.clone()) else { break };
            self.packages.remove(&oldest);
        }
    }

    /// Says what becomes of them from now on.
    pub fn follow(&mut self, follow: Follow, at: Instant) {
        if self.follow_since.is_none_or(|since| since < at) {
            (self.follow, self.follow_since) = (follow, Some(at));
            if follow == Follow::Never {
                self.packages.clear();
            }
        }
    }

    /// Forgets everything up to `at`. What is on its way from elsewhere and older is forgotten when it arrives.
    pub fn forget(&mut self, at: Instant) {
        self.forgotten = self.forgotten.max(Some(at));
        self.packages.retain(|_, choice| choice.at > at);
        if self.follow_since.is_some_and(|since| since <= at) {
            (self.follow, self.follow_since) = (Follow::default(), None);
        }
    }

    /// Both together, whichever comes first.
    pub fn merge(&mut self, other: &Self) {
        if let Some(forgotten) = other.forgotten {
            self.forget(forgotten);
        }
        if let Some(since) = other.follow_since.filter(|since| self.forgotten.is_none_or(|at| *since > at)) {
            self.follow(other.follow, since);
        }
        for (package, choice) in &other.packages {
            self.choose(package.clone(), *choice);
        }
    }

    /// What she wants.
    pub fn wanted(&self) -> impl Iterator<Item = &PackageName> {
        self.packages.iter().filter(|(_, choice)| choice.wanted).map(|(package, _)| package)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Instant {
        Instant::from_second(second).unwrap()
    }

    fn name(name: &str) -> PackageName {
        name.parse().unwrap()
    }

    fn wanted(choices: &Choices) -> Vec<&str> {
        choices.wanted().map(PackageName::as_str).collect()
    }

    #[test]
    fn the_last_choice_counts_however_it_arrives() {
        let (mut one, mut other) = (Choices::default(), Choices::default());
        one.choose(name("a"), Choice { at: at(1), wanted: true });
        one.choose(name("b"), Choice { at: at(5), wanted: true });
        other.choose(name("a"), Choice { at: at(3), wanted: false });
        other.choose(name("b"), Choice { at: at(2), wanted: false });
        let (mut left, mut right) = (one.clone(), other.clone());
        left.merge(&other);
        right.merge(&one);
        assert_eq!(left, right);
        assert_eq!(wanted(&left), ["b"]);
    }

    #[test]
    fn what_is_forgotten_does_not_come_back_from_elsewhere() {
        let mut kept = Choices::default();
        kept.choose(name("a"), Choice { at: at(1), wanted: true });
        kept.follow(Follow::Install, at(2));
        let elsewhere = kept.clone();
        kept.forget(at(10));
        kept.merge(&elsewhere);
        assert_eq!((wanted(&kept), kept.follow), (vec![], Follow::Offer));
        kept.choose(name("b"), Choice { at: at(11), wanted: true });
        assert_eq!(wanted(&kept), ["b"]);
    }

    #[test]
    fn whoever_wants_nothing_kept_has_nothing_kept() {
        let mut kept = Choices::default();
        kept.choose(name("a"), Choice { at: at(1), wanted: true });
        kept.follow(Follow::Never, at(2));
        kept.choose(name("b"), Choice { at: at(3), wanted: true });
        assert!(kept.packages.is_empty());
    }

    #[test]
    fn nobody_fills_a_disk_with_choices() {
        let mut kept = Choices::default();
        for number in 0..=MAX_CHOICES {
            let second = i64::try_from(number).unwrap();
            kept.choose(name(&format!("p{number}")), Choice { at: at(second), wanted: true });
        }
        assert_eq!(kept.packages.len(), MAX_CHOICES);
        assert!(!kept.packages.contains_key(&name("p0")), "the oldest goes");
    }
}
