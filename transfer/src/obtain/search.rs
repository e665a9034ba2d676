//! Which chains of deltas lead to a release: a search from the release backwards, cheapest first.
//!
//! Pure: whoever asks the server hands in what it offers for each release, as [`Search::next`] wants to know it. A
//! chain ends at a release that is held, or at nothing (a pack).
//!
//! Threats and the defence for each (the routes of a server are unsigned):
//! - *Chains without end, or in a circle*: at most [`MAX_HOPS`], and a release is looked at once.
//! - *Routes files without end*: at most [`MAX_ROUTES_ASKED`] are asked for.
//! - *A release that nobody approved in between*: only releases of the verified catalogue are stepped on.
//! - *Sizes that are lies*: no delta counts that is as large as the bundle that was signed.

use std::collections::{BTreeMap, BTreeSet};

use mirabelle_manifests::{DeltaOffer, Digest, Routes};

/// The most deltas in a row: each is decoded in full before the next.
const MAX_HOPS: usize = 3;
/// The most routes files that are asked for to plan one release.
const MAX_ROUTES_ASKED: usize = 6;

/// One delta of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hop {
    /// The release it leads to.
    pub(super) to: Digest,
    /// The release it leads from, or nothing.
    pub(super) from: Option<Digest>,
    /// Bytes.
    pub(super) size: u64,
    /// The file's digest, as the server says.
    pub(super) sha256: Digest,
}

impl Hop {
    /// What tells it from others.
    pub(super) fn edge(&self) -> Edge {
        (self.to, self.from)
    }
}

/// The release a delta leads to, and the one it leads from.
pub(super) type Edge = (Digest, Option<Digest>);

/// Deltas that lead, one after the other, from what is held to the release.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Chain {
    /// In the order they are decoded.
    pub(super) hops: Vec<Hop>,
    /// Bytes of all of them.
    pub(super) cost: u64,
}

/// Why a delta does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Objection {
    #[error("that release is not held here")]
    NotHeld,
    #[error("that release is not in the catalogue")]
    NotApproved,
    #[error("its {size} bytes are no use beside the bundle's {ceiling}")]
    TooLarge { size: u64, ceiling: u64 },
    #[error("it was tried and failed")]
    Failed,
}

/// What a search knows before it begins.
pub(super) struct Ground<'a> {
    /// Approved releases of the package, with what each costs at most: its manifest and its bundle.
    pub(super) ceilings: &'a BTreeMap<Digest, u64>,
    /// Releases that are held whole.
    pub(super) held: &'a BTreeSet<Digest>,
    /// Deltas that were tried and failed.
    pub(super) failed: &'a BTreeSet<Edge>,
}

/// A search under way.
pub(super) struct Search<'a> {
    ground: Ground<'a>,
    target: Digest,
    /// For each release that was reached, the cheapest chain from it to the target; the last to be found stands first.
    reached: BTreeMap<Digest, Chain>,
    asked: BTreeSet<Digest>,
    chains: Vec<Chain>,
    objections: Vec<(Option<Digest>, Objection)>,
}

impl<'a> Search<'a> {
    pub(super) fn new(target: Digest, ground: Ground<'a>) -> Self {
        let start = Chain { hops: Vec::new(), cost: 0 };
        Self {
            ground,
            target,
            reached: BTreeMap::from([(target, start)]),
            asked: BTreeSet::new(),
            chains: Vec::new(),
            objections: Vec::new(),
        }
    }

    /// The release whose routes are needed next; none, when nothing cheaper can be found.
    pub(super) fn next(&self) -> Option<Digest> {
        if self.asked.len() >= MAX_ROUTES_ASKED {
            return None;
        }
        let found = self.chains.iter().map(|chain| chain.cost).min();
        let ceiling = found.unwrap_or_else(|| self.ceiling(self.target));
        let open = self.reached.iter().filter(|(release, chain)| {
            !self.asked.contains(release) && chain.hops.len() < MAX_HOPS && chain.cost < ceiling
        });
        open.min_by_key(|(_, chain)| chain.cost).map(|(release, _)| *release)
    }

    /// Takes in what the server offers for `release`.
    pub(super) fn offers(&mut self, release: Digest, routes: &Routes) {
        self.asked.insert(release);
        let Some(onward) = self.reached.get(&release).cloned() else { return };
        for offer in &routes.deltas {
            match self.objection(release, offer) {
                None => self.reach(release, offer, &onward),
                Some(objection) if release == self.target => self.objections.push((offer.from, objection)),
                Some(_) => {}
            }
        }
    }

    fn objection(&self, release: Digest, offer: &DeltaOffer) -> Option<Objection> {
        let ceiling = self.ceiling(release);
        if offer.size == 0 || offer.size >= ceiling {
            return Some(Objection::TooLarge { size: offer.size, ceiling });
        }
        if self.ground.failed.contains(&(release, offer.from)) {
            return Some(Objection::Failed);
        }
        let known = offer.from.is_none_or(|from| self.ground.ceilings.contains_key(&from));
        (!known || offer.from == Some(release)).then_some(Objection::NotApproved)
    }

    fn reach(&mut self, release: Digest, offer: &DeltaOffer, onward: &Chain) {
        let hop = Hop { to: release, from: offer.from, size: offer.size, sha256: offer.sha256 };
        let hops: Vec<Hop> = std::iter::once(hop).chain(onward.hops.iter().copied()).collect();
        let chain = Chain { hops, cost: onward.cost.saturating_add(offer.size) };
        if chain.cost >= self.ceiling(self.target) {
            return;
        }
        match offer.from {
            Some(from) if !self.ground.held.contains(&from) => {
                let better = self.reached.get(&from).is_none_or(|known| chain.cost < known.cost);
                if better && !self.asked.contains(&from) {
                    self.reached.insert(from, chain);
                }
            }
            _ => self.chains.push(chain),
        }
    }

    fn ceiling(&self, release: Digest) -> u64 {
        self.ground.ceilings.get(&release).copied().unwrap_or(0)
    }

    /// Every chain that was found, cheapest first, and why other deltas to the target do not count.
    pub(super) fn finish(mut self) -> (Vec<Chain>, Vec<(Option<Digest>, Objection)>) {
        self.chains.sort_by_key(|chain| (chain.cost, chain.hops.len()));
        let last_hops: BTreeSet<Edge> =
            self.chains.iter().filter_map(|chain| chain.hops.last()).map(Hop::edge).collect();
        for (release, chain) in &self.reached {
            let unused = matches!(chain.hops[..], [hop] if !last_hops.contains(&hop.edge()));
            if unused {
                self.objections.push((Some(*release), Objection::NotHeld));
            }
        }
        (self.chains, self.objections)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUNDLE: u64 = 1000;

    fn release(number: u8) -> Digest {
        Digest::of(&[number])
    }

    /// Deltas as `(from, to, size)`; from 0 stands for nothing, and releases 1 to 9 are approved.
    type Offers<'a> = &'a [(u8, u8, u64)];

    fn routes(offers: Offers<'_>, to: Digest) -> Routes {
        let to_it = offers.iter().filter(|(_, number, _)| release(*number) == to);
        let deltas = to_it.map(|(from, _, size)| DeltaOffer {
            from: (*from > 0).then(|| release(*from)),
            sha256: Digest::of(b"file"),
            size: *size,
        });
        Routes { deltas: deltas.collect(), ..Routes::default() }
    }

    struct Found {
        /// Where each chain passes, with its cost.
        chains: Vec<(Vec<u8>, u64)>,
        objections: Vec<Objection>,
        asked: usize,
    }

    fn search(target: u8, held: &[u8], failed: &[(u8, u8)], offers: Offers<'_>) -> Found {
        let ceilings: BTreeMap<Digest, u64> = (1..10).map(|number| (release(number), BUNDLE)).collect();
        let held = held.iter().map(|number| release(*number)).collect();
        let failed = failed.iter().map(|(from, to)| (release(*to), (*from > 0).then(|| release(*from))));
        let failed = failed.collect();
        let ground = Ground { ceilings: &ceilings, held: &held, failed: &failed };
        let mut search = Search::new(release(target), ground);
        let mut asked = 0;
        while let Some(next) = search.next() {
            asked += 1;
            search.offers(next, &routes(offers, next));
        }
        let (chains, objections) = search.finish();
        let number = |digest: Option<Digest>| match digest {
            None => 0,
            Some(digest) => (1..20).find(|number| release(*number) == digest).unwrap(),
        };
        let chains = chains.into_iter().map(|chain| {
            let mut way: Vec<u8> = chain.hops.iter().map(|hop| number(hop.from)).collect();
            way.push(number(chain.hops.last().map(|hop| hop.to)));
            (way, chain.cost)
        });
        let objections = objections.into_iter().map(|(_, objection)| objection).collect();
        Found { chains: chains.collect(), objections, asked }
    }

    #[test]
    fn finds_the_cheapest_way() {
        /// What is held, what is offered, the cheapest way and its cost.
        type Case<'a> = (&'a str, &'a [u8], Offers<'a>, Option<(&'a [u8], u64)>);
        let cases: [Case<'_>; 10] = [
            ("direct", &[1, 2], &[(1, 3, 80), (2, 3, 50)], Some((&[2, 3], 50))),
            (
                "the older release leads there cheaper",
                &[1, 2],
                &[(1, 3, 30), (2, 3, 50)],
                Some((&[1, 3], 30)),
            ),
            ("a chain", &[1], &[(1, 2, 40), (2, 3, 50)], Some((&[1, 2, 3], 90))),
            (
                "a chain that is cheaper than the direct way",
                &[1],
                &[(1, 3, 95), (1, 2, 40), (2, 3, 50)],
                Some((&[1, 2, 3], 90)),
            ),
            ("a pack", &[], &[(0, 3, 700), (2, 3, 50)], Some((&[0, 3], 700))),
            (
                "a pack of the one before, and a delta",
                &[],
                &[(0, 2, 500), (2, 3, 50), (0, 3, 700)],
                Some((&[0, 2, 3], 550)),
            ),
            ("three in a row", &[1], &[(1, 2, 9), (2, 3, 9), (3, 4, 9)], None),
            ("as large as the bundle", &[1], &[(1, 3, BUNDLE)], None),
            ("together as large as the bundle", &[1], &[(1, 2, 500), (2, 3, 500)], None),
            ("from a release that is not approved", &[10], &[(10, 3, 5)], None),
        ];
        for (name, held, offers, expected) in cases {
            let target = if name == "three in a row" { 9 } else { 3 };
            let found = search(target, held, &[], offers);
            let cheapest = found.chains.first().map(|(way, cost)| (way.as_slice(), *cost));
            assert_eq!(cheapest, expected, "{name}");
        }
    }

    #[test]
    fn a_chain_is_three_long_at_most() {
        let line: Vec<(u8, u8, u64)> = (1..9).map(|number| (number, number + 1, 10)).collect();
        assert_eq!(search(5, &[2], &[], &line).chains, [(vec![2, 3, 4, 5], 30)]);
        assert!(search(5, &[1], &[], &line).chains.is_empty());
    }

    #[test]
    fn what_failed_is_not_tried_again() {
        let offers: Offers<'_> = &[(1, 3, 20), (1, 2, 30), (2, 3, 40), (0, 3, 500)];
        assert_eq!(search(3, &[1], &[], offers).chains[0], (vec![1, 3], 20));
        assert_eq!(search(3, &[1], &[(1, 3)], offers).chains[0], (vec![1, 2, 3], 70));
        assert_eq!(search(3, &[1], &[(1, 3), (2, 3)], offers).chains[0], (vec![0, 3], 500));
        let found = search(3, &[1], &[(1, 3), (2, 3), (0, 3)], offers);
        assert!(found.chains.is_empty());
        assert_eq!(found.objections, [Objection::Failed; 3]);
    }

    #[test]
    fn asks_no_more_than_it_must() {
        // The direct way is cheaper than the first step of any other.
        assert_eq!(search(3, &[1], &[], &[(1, 3, 20), (2, 3, 40), (1, 2, 1)]).asked, 1);
        // A server whose every release leads from every other.
        let all: Vec<(u8, u8, u64)> = (1..10).flat_map(|to| (1..10).map(move |from| (from, to, 1))).collect();
        let found = search(3, &[], &[], &all);
        assert!(found.chains.is_empty() && found.asked <= MAX_ROUTES_ASKED, "{}", found.asked);
    }

    #[test]
    fn says_why_a_delta_does_not_count() {
        let offers: Offers<'_> = &[(1, 3, 0), (2, 3, 40), (12, 3, 4), (3, 3, 1), (0, 3, 5000)];
        let found = search(3, &[1], &[], offers);
        let too_large = |size| Objection::TooLarge { size, ceiling: BUNDLE };
        let expected = [
            too_large(0),
            Objection::NotApproved,
            Objection::NotApproved,
            too_large(5000),
            Objection::NotHeld,
        ];
        assert_eq!(found.objections, expected);
    }
}
