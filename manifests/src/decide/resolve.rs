//! Which releases go together: requirements and conflicts, solved by `pubgrub`.
//!
//! The root depends on every wanted package at exactly its sequence. A conflict must keep two releases apart without bringing
//! either in, which `pubgrub` has no word for: both depend on a package that does not exist, each on another version of it.
//!
//! ```text
//! a 2 conflicts with b up to release 1:   a 2 ─▶ Apart = 1        b 1 ─▶ Apart = 2
//! ```
//!
//! What may matter is gathered first, by number, so that the solver clones numbers and never names.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::fmt;

use pubgrub::{
    Dependencies, DependencyConstraints, DependencyProvider, PackageResolutionStatistics, PubGrubError,
    Ranges,
};

use super::explain;
use crate::names::PackageName;
use crate::release::Relation;

/// A release that may be chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    /// Its sequence.
    pub(super) sequence: u64,
    /// What it requires.
    pub(super) requires: Vec<Relation>,
    /// What it conflicts with.
    pub(super) conflicts: Vec<Relation>,
}

/// Why no releases go together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct Unresolvable {
    /// In a sentence, or in a few that are numbered.
    pub why: String,
    /// The packages that it is about: with one of them different, it might be otherwise.
    pub packages: BTreeSet<PackageName>,
}

/// Finds releases that go together: those that are `wanted`, and what they require, each release the first of its
/// package's candidates that fits. A relation of a package with itself says nothing.
pub(super) fn resolve(
    wanted: &BTreeMap<PackageName, u64>,
    candidates: &dyn Fn(&PackageName) -> Vec<Candidate>,
) -> Result<BTreeMap<PackageName, u64>, Unresolvable> {
    let world = World::gather(wanted, candidates);
    match pubgrub::resolve(&world, Node::Root, 0_u64) {
        Ok(selected) => {
            let solved = selected.iter().filter_map(|(node, sequence)| match node {
                Node::Package(number) => Some((world.packages[*number].name.clone(), *sequence)),
                Node::Root | Node::Apart(_) => None,
            });
            Ok(solved.chain(world.alone()).collect())
        }
        Err(PubGrubError::NoSolution(tree)) => Err(explain::unresolvable(&world, &tree)),
        Err(
            PubGrubError::ErrorRetrievingDependencies { source, .. }
            | PubGrubError::ErrorChoosingVersion { source, .. }
            | PubGrubError::ErrorInShouldCancel(source),
        ) => match source {},
    }
}

/// What the solver calls a package.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Node {
    /// What depends on everything that is wanted.
    Root,
    /// A package, by its number in the world.
    Package(usize),
    /// What the two sides of an exclusion cannot agree about, by its number.
    Apart(usize),
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// All that may matter: what is wanted, and whatever its candidates require, on and on.
pub(super) struct World {
    pub(super) packages: Vec<Package>,
    pub(super) exclusions: Vec<Exclusion>,
    numbers: BTreeMap<PackageName, usize>,
}

/// A package that may matter. Those that are wanted come first, then each as it was found.
pub(super) struct Package {
    pub(super) name: PackageName,
    /// The sequence that is wanted. Every other candidate is left out then.
    pub(super) wanted: Option<u64>,
    pub(super) candidates: Vec<Candidate>,
    /// The exclusions that some of its releases have a part in.
    exclusions: BTreeSet<usize>,
    /// True when it requires something, or is required.
    bound: bool,
}

impl Package {
    /// True when nothing is to be solved about it: most packages, and the solver need not hear of them.
    fn is_alone(&self) -> bool {
        !self.candidates.is_empty() && !self.bound && self.exclusions.is_empty()
    }
}

/// Releases of one package that conflict with releases of another.
pub(super) struct Exclusion {
    pub(super) of: usize,
    pub(super) with: usize,
    pub(super) relation: Relation,
}

impl World {
    fn gather(
        wanted: &BTreeMap<PackageName, u64>,
        candidates: &dyn Fn(&PackageName) -> Vec<Candidate>,
    ) -> Self {
        let mut world = Self { packages: Vec::new(), exclusions: Vec::new(), numbers: BTreeMap::new() };
        for (name, sequence) in wanted {
            let mut own = candidates(name);
            own.retain(|candidate| candidate.sequence == *sequence);
            world.add(name.clone(), Some(*sequence), own);
        }
        let mut seen = 0;
        while let Some(package) = world.packages.get(seen) {
            let required = package.candidates.iter().flat_map(|candidate| &candidate.requires);
            let required: BTreeSet<PackageName> = required.map(|relation| relation.package.clone()).collect();
            world.packages[seen].bound |= !required.is_empty();
            for name in required {
                let number = world.numbers.get(&name).copied().unwrap_or_else(|| {
                    let own = candidates(&name);
                    world.add(name, None, own)
                });
                world.packages[number].bound = true;
            }
            seen += 1;
        }
        world.exclude();
        world
    }

    fn add(&mut self, name: PackageName, wanted: Option<u64>, candidates: Vec<Candidate>) -> usize {
        let number = self.packages.len();
        self.numbers.insert(name.clone(), number);
        self.packages.push(Package { name, wanted, candidates, exclusions: BTreeSet::new(), bound: false });
        number
    }

    /// What is wanted and has nothing to do with the rest.
    fn alone(&self) -> impl Iterator<Item = (PackageName, u64)> {
        let alone = self.packages.iter().filter(|package| package.is_alone());
        alone.filter_map(|package| Some((package.name.clone(), package.wanted?)))
    }

    /// Numbers the conflicts between releases that may both come. Releases of one package that say the same share a number.
    fn exclude(&mut self) {
        let mut known = BTreeMap::new();
        for of in 0..self.packages.len() {
            for candidate in 0..self.packages[of].candidates.len() {
                for relation in self.packages[of].candidates[candidate].conflicts.clone() {
                    let Some(with) = self.numbers.get(&relation.package).copied() else { continue };
                    let mut others = self.packages[with].candidates.iter();
                    if with == of || !others.any(|other| relation.covers(other.sequence)) {
                        continue;
                    }
                    let number = *known
                        .entry((of, with, relation.at_least, relation.at_most))
                        .or_insert(self.exclusions.len());
                    if number == self.exclusions.len() {
                        self.exclusions.push(Exclusion { of, with, relation });
                    }
                    self.packages[of].exclusions.insert(number);
                    self.packages[with].exclusions.insert(number);
                }
            }
        }
    }

    /// What a release depends on, as the solver has it.
    fn dependencies(&self, number: usize, sequence: u64) -> Vec<(Node, Ranges<u64>)> {
        let package = &self.packages[number];
        let Some(candidate) = package.candidates.iter().find(|candidate| candidate.sequence == sequence)
        else {
            return Vec::new();
        };
        let requires = candidate.requires.iter().filter_map(|relation| {
            let other = *self.numbers.get(&relation.package)?;
            (other != number).then(|| (Node::Package(other), range(relation)))
        });
        let exclusions = package.exclusions.iter().filter_map(|apart| {
            let exclusion = &self.exclusions[*apart];
            let side = if exclusion.of == number && candidate.conflicts.contains(&exclusion.relation) {
                1_u64
            } else if exclusion.with == number && exclusion.relation.covers(sequence) {
                2
            } else {
                return None;
            };
            Some((Node::Apart(*apart), Ranges::singleton(side)))
        });
        requires.chain(exclusions).collect()
    }
}

impl DependencyProvider for World {
    type P = Node;
    type V = u64;
    type VS = Ranges<u64>;
    type M = String;
    type Err = Infallible;
    type Priority = Reverse<usize>;

    /// In the order in which they were found: always the same, and what is wanted before what it requires.
    fn prioritize(&self, node: &Node, _: &Ranges<u64>, _: &PackageResolutionStatistics) -> Self::Priority {
        match node {
            Node::Root | Node::Apart(_) => Reverse(0),
            Node::Package(number) => Reverse(number + 1),
        }
    }

    fn choose_version(&self, node: &Node, range: &Ranges<u64>) -> Result<Option<u64>, Infallible> {
        Ok(match node {
            Node::Root => Some(0),
            Node::Apart(_) => [1, 2].into_iter().find(|side| range.contains(side)),
            Node::Package(number) => {
                let mut sequences =
                    self.packages[*number].candidates.iter().map(|candidate| candidate.sequence);
                sequences.find(|sequence| range.contains(sequence))
            }
        })
    }

    fn get_dependencies(
        &self,
        node: &Node,
        version: &u64,
    ) -> Result<Dependencies<Node, Ranges<u64>, String>, Infallible> {
        let dependencies: DependencyConstraints<Node, Ranges<u64>> = match node {
            Node::Root => {
                let wanted = self.packages.iter().map_while(|package| package.wanted).enumerate();
                wanted
                    .map(|(number, sequence)| (Node::Package(number), Ranges::singleton(sequence)))
                    .collect()
            }
            Node::Package(number) => self.dependencies(*number, *version).into_iter().collect(),
            Node::Apart(_) => DependencyConstraints::default(),
        };
        Ok(Dependencies::Available(dependencies))
    }
}

fn range(relation: &Relation) -> Ranges<u64> {
    let least = relation.at_least.map_or_else(Ranges::full, Ranges::higher_than);
    let most = relation.at_most.map_or_else(Ranges::full, Ranges::lower_than);
    least.intersection(&most)
}

#[cfg(test)]
mod tests;
