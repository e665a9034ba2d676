//! Why releases do not go together, in sentences.
//!
//! `pubgrub` proves it with a tree, whose leaves are the relations that cannot all hold. Those are what a person needs: its
//! inner nodes, and the packages that do not exist, are left out.

use std::collections::{BTreeSet, HashSet};
use std::ops::Bound;
use std::ptr;

use pubgrub::{DerivationTree, External, Ranges};

use super::resolve::{Node, Unresolvable, World};

/// So many sentences are given; whoever reads more than that reads none.
const MAX_SENTENCES: usize = 6;

type Tree = DerivationTree<Node, Ranges<u64>, String>;

/// Why the `wanted` packages of `world` do not go together, as `tree` proves it.
pub(super) fn unresolvable(world: &World, tree: &Tree) -> Unresolvable {
    let facts = Facts::of(world, tree);
    Unresolvable { why: join(&facts.sentences()), packages: facts.packages() }
}

/// Releases of a package that require releases of another.
struct Requirement {
    by: usize,
    releases: BTreeSet<u64>,
    of: usize,
    range: Ranges<u64>,
}

/// The leaves of a proof.
struct Facts<'w> {
    world: &'w World,
    requirements: Vec<Requirement>,
    exclusions: BTreeSet<usize>,
    /// Packages of which it matters which releases there are.
    limited: BTreeSet<usize>,
}

impl<'w> Facts<'w> {
    fn of(world: &'w World, tree: &Tree) -> Self {
        let mut facts =
            Self { world, requirements: Vec::new(), exclusions: BTreeSet::new(), limited: BTreeSet::new() };
        // Proofs share their parts: each is looked at once.
        let mut seen = HashSet::new();
        let mut waiting = vec![tree];
        while let Some(tree) = waiting.pop() {
            if !seen.insert(ptr::from_ref(tree)) {
                continue;
            }
            match tree {
                DerivationTree::Derived(derived) => waiting.extend([&*derived.cause1, &*derived.cause2]),
                DerivationTree::External(leaf) => facts.add(leaf),
            }
        }
        facts.requirements.sort_by_key(|requirement| (requirement.by, requirement.of));
        facts
    }

    fn add(&mut self, leaf: &External<Node, Ranges<u64>, String>) {
        match leaf {
            External::FromDependencyOf(Node::Package(by), releases, Node::Package(of), range) => {
                let own = self.world.packages[*by].candidates.iter().map(|candidate| candidate.sequence);
                let releases = own.filter(|sequence| releases.contains(sequence));
                let known = self
                    .requirements
                    .iter_mut()
                    .find(|known| (known.by, known.of) == (*by, *of) && known.range == *range);
                match known {
                    Some(known) => known.releases.extend(releases),
                    None => self.requirements.push(Requirement {
                        by: *by,
                        releases: releases.collect(),
                        of: *of,
                        range: range.clone(),
                    }),
                }
            }
            External::FromDependencyOf(_, _, Node::Apart(number), _) => {
                self.exclusions.insert(*number);
            }
            External::FromDependencyOf(Node::Root, _, Node::Package(number), _)
            | External::NoVersions(Node::Package(number), _) => {
                self.limited.insert(*number);
            }
            _ => {}
        }
    }

    fn packages(&self) -> BTreeSet<crate::PackageName> {
        let required = self.requirements.iter().flat_map(|requirement| [requirement.by, requirement.of]);
        let excluded = self.exclusions.iter().map(|number| &self.world.exclusions[*number]);
        required
            .chain(excluded.flat_map(|exclusion| [exclusion.of, exclusion.with]))
            .chain(self.limited.iter().copied())
            .map(|number| self.world.packages[number].name.clone())
            .collect()
    }

    /// What requires what, in the order in which one thing leads to the other; then what excludes what; then what there is.
    fn sentences(&self) -> Vec<String> {
        let packages = &self.world.packages;
        let required = self.requirements.iter().map(|Requirement { by, releases, of, range }| {
            let verb = if releases.len() == 1 { "requires" } else { "require" };
            format!("{} {verb} {}", self.releases(*by, releases), meant(&packages[*of].name, range))
        });
        let excluded = self.exclusions.iter().map(|number| {
            let exclusion = &self.world.exclusions[*number];
            let candidates = |number: usize| packages[number].candidates.iter();
            let of = candidates(exclusion.of)
                .filter(|candidate| candidate.conflicts.contains(&exclusion.relation))
                .map(|candidate| candidate.sequence);
            let with = candidates(exclusion.with)
                .map(|candidate| candidate.sequence)
                .filter(|sequence| exclusion.relation.covers(*sequence));
            let of = self.releases(exclusion.of, &of.collect());
            let with = self.releases(exclusion.with, &with.collect());
            format!("{of} and {with} exclude each other")
        });
        let there = self.limited.iter().filter_map(|number| self.what_there_is(*number));
        required.chain(excluded).chain(there).collect()
    }

    /// Which releases of a package there are, if that is why no release fits: otherwise the relations say enough.
    fn what_there_is(&self, number: usize) -> Option<String> {
        let package = &self.world.packages[number];
        let own = self.requirements.iter().filter(|requirement| requirement.of == number);
        let range = own.fold(Ranges::full(), |range, requirement| range.intersection(&requirement.range));
        let sequences: BTreeSet<u64> =
            package.candidates.iter().map(|candidate| candidate.sequence).collect();
        if range.is_empty() || sequences.iter().any(|sequence| range.contains(sequence)) {
            return None;
        }
        let name = &package.name;
        Some(match package.wanted {
            _ if !sequences.is_empty() => {
                format!("only {} may be installed here", self.releases(number, &sequences))
            }
            Some(wanted) => format!("`{name}` release {wanted} may not be installed here"),
            None => format!("no release of `{name}` may be installed here"),
        })
    }

    /// `a` release 1; `a` releases 1, 4; `a` releases 1 to 3, where there are none between that are not meant.
    fn releases(&self, number: usize, sequences: &BTreeSet<u64>) -> String {
        let package = &self.world.packages[number];
        let name = &package.name;
        let (Some(first), Some(last)) = (sequences.first(), sequences.last()) else {
            return format!("`{name}`");
        };
        let between = package.candidates.iter().filter(|other| (first..=last).contains(&&other.sequence));
        if sequences.len() == 1 {
            format!("`{name}` release {first}")
        } else if sequences.len() > 2 && between.count() == sequences.len() {
            format!("`{name}` releases {first} to {last}")
        } else {
            let sequences: Vec<String> = sequences.iter().map(ToString::to_string).collect();
            format!("`{name}` releases {}", sequences.join(", "))
        }
    }
}

fn meant(name: &crate::PackageName, range: &Ranges<u64>) -> String {
    match range.bounding_range() {
        Some((Bound::Included(least), Bound::Included(most))) if least == most => {
            format!("`{name}` release {least}")
        }
        Some((Bound::Included(least), Bound::Included(most))) => {
            format!("`{name}` from release {least} to release {most}")
        }
        Some((Bound::Included(least), _)) => format!("`{name}` from release {least}"),
        Some((_, Bound::Included(most))) => format!("`{name}` up to release {most}"),
        Some(_) => format!("`{name}`"),
        None => format!("a release of `{name}` that cannot be"),
    }
}

/// One sentence as it is, two with a "but" between them, more with numbers.
fn join(sentences: &[String]) -> String {
    match sentences {
        [one] => one.clone(),
        [one, other] => format!("{one}, but {other}"),
        _ => {
            let shown = if sentences.len() > MAX_SENTENCES { MAX_SENTENCES - 1 } else { sentences.len() };
            let mut numbered: Vec<String> = (1..)
                .zip(&sentences[..shown])
                .map(|(number, sentence)| format!("{number}. {}.", capitalised(sentence)))
                .collect();
            if shown < sentences.len() {
                numbered.push(format!("{MAX_SENTENCES}. And {} more.", sentences.len() - shown));
            }
            numbered.join(" ")
        }
    }
}

fn capitalised(sentence: &str) -> String {
    let mut letters = sentence.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}
