//! Deltas between published releases: which are needed, which are there, making what is missing, dropping the rest.
//!
//! ```text
//! <repository>/
//!   public/deltas/<release>/<from>.delta    from another release; full.delta from nothing
//!   public/routes/<release>.json            lists them
//!   delta-work/                             scratch; all of it can be deleted
//!     lock                                  held by whoever makes deltas
//!     worthless/<release>-<from>            one that was made and was no smaller than the bundle, or failed: why
//!     unpacked/…  new-…                     swept at the next start
//! ```
//!
//! Decide first, act after: a [`DeltaPlan`] prints and dry-runs. Each delta takes its name by rename once it is whole and
//! synced, and the routes name it after that; dropped ones leave the routes first. So a run that is killed has done
//! what it has done, and the next one makes the rest.
//!
//! Nothing here is signed and no key is needed: whoever uses a delta checks what comes out against what was signed.

mod make;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use fs_err as fs;
use mirabelle_content::{digest, durable};
use mirabelle_manifests::network::{
    DEPLOYMENT_TARGET, bundle_path, delta_path, deployment_role, routes_path, target_path,
};
use mirabelle_manifests::{
    Assignment, Catalogue, CatalogueEntry, DeltaOffer, Deployment, Digest, MAX_ROUTES_BYTES, PackageName,
    Platform, Routes, Track,
};
use mirabelle_terminal::{Failure, OrFail};
use mirabelle_transfer::EncodedForms;
use serde::Serialize;

use crate::cli::NameAtVersion;
use crate::repository::Repository;

pub(crate) use make::{Budget, Report};

/// Which deltas are wanted.
#[derive(Clone, Debug)]
pub(crate) struct Policy {
    /// From so many releases before each target.
    pub(crate) last: usize,
    /// From these too, wherever they lead.
    pub(crate) also: Vec<NameAtVersion>,
    /// From nothing, too.
    pub(crate) packs: bool,
}

/// A delta: the release it leads to, and the one it leads from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pair {
    pub(crate) to: CatalogueEntry,
    /// None: from nothing, a pack.
    pub(crate) from: Option<CatalogueEntry>,
}

/// What tells a delta from others.
type Edge = (Digest, Option<Digest>);

/// How a wanted delta stands, or one that is not wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum State {
    /// It is there.
    Made,
    /// It is to be made.
    Missing,
    /// It was tried, and is no use.
    Worthless,
    /// One of the two releases has not been published yet.
    Unpublished,
    /// No machine needs it: it goes.
    Unneeded,
}

/// A line of the plan.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Line {
    pub(crate) package: String,
    pub(crate) platform: String,
    pub(crate) version: String,
    /// None: from nothing.
    pub(crate) from: Option<String>,
    pub(crate) state: State,
    /// Bytes of the delta, if it is there.
    pub(crate) bytes: Option<u64>,
    pub(crate) bundle_bytes: u64,
}

/// What is to be done.
pub(crate) struct DeltaPlan {
    /// In the order they are made.
    pub(crate) make: Vec<Pair>,
    pub(crate) lines: Vec<Line>,
    wanted: Vec<Pair>,
    unneeded: Vec<Edge>,
}

impl Pair {
    fn edge(&self) -> Edge {
        (self.to.digest, self.from.as_ref().map(|from| from.digest))
    }

    /// `hello 2.0 from 1.0`
    pub(crate) fn label(&self) -> String {
        let listing = &self.to.listing;
        match &self.from {
            Some(from) => format!("{} {} from {}", listing.name, listing.version, from.listing.version),
            None => format!("{} {}, packed", listing.name, listing.version),
        }
    }
}

/// The deltas that machines may need, most useful first: to the newest release of each package and every release that is
/// deployed, from the releases before it and every release that is deployed. Pure.
pub(crate) fn wanted(catalogue: &Catalogue, deployment: &Deployment, policy: &Policy) -> Vec<Pair> {
    let mut packages: BTreeMap<(&PackageName, &Platform), Vec<&CatalogueEntry>> = BTreeMap::new();
    // By sequence, oldest first.
    for entry in catalogue.iter() {
        packages.entry((&entry.listing.name, &entry.listing.platform)).or_default().push(entry);
    }
    let pinned: BTreeMap<(&PackageName, u64), Vec<&Assignment>> = deployment
        .assignments
        .iter()
        .filter(|assignment| assignment.mode.gives())
        .fold(BTreeMap::new(), |mut pinned, assignment| {
            // One that ended may be what machines still have.
            if let Track::Pinned { sequence, .. } = assignment.track {
                pinned.entry((&assignment.package, sequence)).or_default().push(assignment);
            }
            pinned
        });
    let is_deployed = |entry: &CatalogueEntry| {
        let listing = &entry.listing;
        pinned
            .get(&(&listing.name, listing.sequence))
            .is_some_and(|pins| pins.iter().any(|pin| pin.is_about(&listing.platform)))
    };
    let is_named = |entry: &CatalogueEntry| {
        policy
            .also
            .iter()
            .any(|also| also.name == entry.listing.name && also.version == entry.listing.version)
    };
    let mut pairs = Vec::new();
    for entries in packages.values() {
        let newest_first = entries.iter().enumerate().rev();
        let targets = newest_first.filter(|(at, entry)| at + 1 == entries.len() || is_deployed(entry));
        for (at, target) in targets {
            let sources = entries[..at].iter().rev().enumerate();
            let needed = sources
                .filter(|(distance, entry)| *distance < policy.last || is_deployed(entry) || is_named(entry));
            pairs.extend(needed.map(|(_, from)| Pair { to: (*target).clone(), from: Some((*from).clone()) }));
            if policy.packs {
                pairs.push(Pair { to: (*target).clone(), from: None });
            }
        }
    }
    pairs
}

/// The deltas of a repository, for whoever holds the lock on them.
pub(crate) struct Deltas<'a> {
    repository: &'a Repository,
    _lock: fs::File,
}

impl<'a> Deltas<'a> {
    /// Keeps others from making deltas.
    pub(crate) fn open(repository: &'a Repository) -> Result<Self, Failure> {
        let path = repository.path("delta-work/lock");
        let lock = durable::try_lock(&path).or_fail(|| format!("cannot lock `{}`", path.display()))?;
        let lock = lock.ok_or_else(|| {
            Failure::no("another process is making deltas")
                .hint("what it has made is used; wait for the rest")
        })?;
        Ok(Self { repository, _lock: lock })
    }

    /// What is to be made and dropped.
    pub(crate) fn plan(&self, policy: &Policy) -> Result<DeltaPlan, Failure> {
        let catalogue =
            Catalogue::read(&self.repository.catalogue()?).or_fail(|| "cannot plan deltas".to_owned())?;
        let deployment = self.repository.only_target(&deployment_role(), DEPLOYMENT_TARGET)?;
        let deployment = Deployment::parse(&deployment).or_fail(|| "cannot plan deltas".to_owned())?;
        for also in &policy.also {
            let known = |entry: &CatalogueEntry| {
                entry.listing.name == also.name && entry.listing.version == also.version
            };
            if !catalogue.iter().any(known) {
                return Err(Failure::usage(format!("`{also}` is not in the catalogue")));
            }
        }
        let wanted = wanted(&catalogue, &deployment, policy);
        let mut plan =
            DeltaPlan { make: Vec::new(), lines: Vec::new(), unneeded: Vec::new(), wanted: Vec::new() };
        for pair in &wanted {
            let state = self.state(pair);
            if state == State::Missing {
                plan.make.push(pair.clone());
            }
            plan.lines.push(self.line(&pair.to, pair.from.as_ref(), state));
        }
        let needed: BTreeSet<Edge> = wanted.iter().map(Pair::edge).collect();
        plan.unneeded = self.present()?.into_iter().filter(|edge| !needed.contains(edge)).collect();
        for (to, from) in &plan.unneeded {
            if let Some(to) = catalogue.by_digest(*to) {
                let from = from.and_then(|from| catalogue.by_digest(from));
                plan.lines.push(self.line(to, from, State::Unneeded));
            }
        }
        plan.wanted = wanted;
        Ok(plan)
    }

    fn state(&self, pair: &Pair) -> State {
        if self.file(pair.edge()).is_file() {
            return State::Made;
        }
        if self.worthless(pair.edge()).is_file() {
            return State::Worthless;
        }
        let published =
            |entry: &CatalogueEntry| self.repository.public().join(routes_path(entry.digest)).is_file();
        let whole = published(&pair.to) && pair.from.as_ref().is_none_or(published);
        if whole { State::Missing } else { State::Unpublished }
    }

    fn line(&self, to: &CatalogueEntry, from: Option<&CatalogueEntry>, state: State) -> Line {
        let file = self.file((to.digest, from.map(|from| from.digest)));
        Line {
            package: to.listing.name.to_string(),
            platform: to.listing.platform.to_string(),
            version: to.listing.version.to_string(),
            from: from.map(|from| from.listing.version.to_string()),
            state,
            bytes: fs::metadata(file).ok().map(|file| file.len()),
            bundle_bytes: to.listing.download_size,
        }
    }

    /// Makes what is missing, drops what no machine needs, and keeps the routes and the encoded manifests in step.
    pub(crate) fn execute(&self, plan: &DeltaPlan, budget: &Budget) -> Result<Report, Failure> {
        self.encode_manifests(&plan.wanted)?;
        // What a killed run has made and not named.
        for to in plan.wanted.iter().map(|pair| pair.to.digest).collect::<BTreeSet<_>>() {
            self.write_routes(to, &BTreeSet::new())?;
        }
        let mut report = self.make(&plan.make, budget)?;
        // Last: until then readers may still count on them.
        self.drop_unneeded(plan)?;
        report.dropped = plan.unneeded.len();
        report.present = plan.lines.iter().filter(|line| line.state == State::Made).count();
        Ok(report)
    }

    fn drop_unneeded(&self, plan: &DeltaPlan) -> Result<(), Failure> {
        let unneeded: BTreeSet<Edge> = plan.unneeded.iter().copied().collect();
        for to in unneeded.iter().map(|(to, _)| *to).collect::<BTreeSet<_>>() {
            self.write_routes(to, &unneeded)?;
        }
        for edge in unneeded {
            let file = self.file(edge);
            let what = || format!("cannot remove `{}`", file.display());
            durable::remove_file(&file).or_fail(what)?;
            // With its last file the directory goes; another file keeps it.
            let _ = file.parent().map(fs::remove_dir);
        }
        let wanted: BTreeSet<PathBuf> = plan.wanted.iter().map(|pair| self.worthless(pair.edge())).collect();
        let directory = self.repository.path("delta-work/worthless");
        let what = || format!("cannot sweep `{}`", directory.display());
        if directory.exists() {
            for entry in fs::read_dir(&directory).or_fail(what)? {
                let path = entry.or_fail(what)?.path();
                if !wanted.contains(&path) {
                    durable::remove_file(&path).or_fail(what)?;
                }
            }
        }
        Ok(())
    }

    /// Makes the manifests of targets cheap for whoever holds one of their sources.
    fn encode_manifests(&self, wanted: &[Pair]) -> Result<(), Failure> {
        let what = || "cannot encode the manifests".to_owned();
        let forms = EncodedForms::of(&self.repository.public());
        let mut targets: BTreeMap<String, (&CatalogueEntry, Vec<&CatalogueEntry>)> = BTreeMap::new();
        for pair in wanted {
            let below = target_path(&pair.to.path, pair.to.digest).or_fail(what)?;
            targets.entry(below).or_insert((&pair.to, Vec::new())).1.extend(&pair.from);
        }
        for (below, (to, from)) in &targets {
            let manifest = self.repository.target(&to.path, to.digest)?;
            let dictionaries = from.iter().map(|from| self.repository.target(&from.path, from.digest));
            forms.add(below, &manifest, &dictionaries.collect::<Result<Vec<_>, _>>()?).or_fail(what)?;
        }
        forms.retain(|path| !path.starts_with(MANIFESTS) || targets.contains_key(path)).or_fail(what)
    }

    /// Every delta that is there.
    fn present(&self) -> Result<Vec<Edge>, Failure> {
        let directory = self.repository.public().join("deltas");
        let what = || format!("cannot list `{}`", directory.display());
        let mut present = Vec::new();
        if !directory.exists() {
            return Ok(present);
        }
        for target in fs::read_dir(&directory).or_fail(what)? {
            let target = target.or_fail(what)?;
            let Some(to) = target.file_name().to_str().and_then(|name| name.parse::<Digest>().ok()) else {
                continue;
            };
            for delta in fs::read_dir(target.path()).or_fail(what)? {
                let name = delta.or_fail(what)?.file_name();
                match name.to_str().and_then(|name| name.strip_suffix(".delta")) {
                    Some("full") => present.push((to, None)),
                    Some(from) => present.extend(from.parse().ok().map(|from| (to, Some(from)))),
                    None => {}
                }
            }
        }
        Ok(present)
    }

    /// Writes what of a release is here, `but` for what is about to go. Digests of files that were listed before with the
    /// same length are not computed again.
    fn write_routes(&self, release: Digest, but: &BTreeSet<Edge>) -> Result<(), Failure> {
        let path = self.repository.public().join(routes_path(release));
        let what = || format!("cannot write `{}`", path.display());
        // A release that is not published has none yet, and gets none.
        let Some(before) = durable::read_if_present(&path, MAX_ROUTES_BYTES).or_fail(what)? else {
            return Ok(());
        };
        let known = Routes::read(&before);
        let mut routes = Routes { deltas: Vec::new(), ..known.clone() };
        for (to, from) in self.present()?.into_iter().filter(|(to, _)| *to == release) {
            if but.contains(&(to, from)) {
                continue;
            }
            let file = self.file((to, from));
            let size = fs::metadata(&file).or_fail(what)?.len();
            let listed = known.deltas.iter().find(|offer| offer.from == from && offer.size == size);
            let sha256 = match listed {
                Some(offer) => offer.sha256,
                None => digest(&mut fs::File::open(&file).or_fail(what)?).or_fail(what)?.0,
            };
            routes.deltas.push(DeltaOffer { from, sha256, size });
        }
        routes.deltas.sort_by_key(|offer| (offer.size, offer.from));
        let bytes = serde_json::to_vec(&routes).or_fail(what)?;
        if bytes == before {
            return Ok(());
        }
        durable::write_atomically(&path, &bytes).or_fail(what)
    }

    fn file(&self, (to, from): Edge) -> PathBuf {
        self.repository.public().join(delta_path(to, from))
    }

    fn worthless(&self, (to, from): Edge) -> PathBuf {
        let from = from.map_or("full".to_owned(), |from| from.to_string());
        self.repository.path(&format!("delta-work/worthless/{to}-{from}"))
    }

    fn bundle(&self, digest: Digest) -> PathBuf {
        self.repository.public().join(bundle_path(digest))
    }
}

/// Where the manifests of releases stand in a served tree.
pub(crate) const MANIFESTS: &str = "targets/packages/";

#[cfg(test)]
mod tests {
    use mirabelle_manifests::tuf::{TargetFile, Targets};
    use mirabelle_manifests::{AssignmentMode, Audience, Listing, Text, release_target};

    use super::*;

    fn catalogue(releases: &[(&str, u64)]) -> Catalogue {
        let mut role = Targets::new(1, "2030-01-01T00:00:00Z".parse().unwrap());
        for (name, sequence) in releases {
            let text = Text { fr: "x".into(), en: "x".into() };
            let listing = Listing {
                categories: vec![],
                download_size: 1,
                installed_size: 1,
                conflicts: vec![],
                requires: vec![],
                licence: "MIT".into(),
                name: name.parse().unwrap(),
                platform: Platform::any(),
                sequence: *sequence,
                showcase: None,
                summary: text.clone(),
                title: text,
                version: format!("{sequence}.0").parse().unwrap(),
            };
            let path = release_target(&listing.name, &listing.version, &listing.platform);
            let bytes = format!("{name} {sequence}");
            let file = TargetFile::of(bytes.as_bytes(), Some(serde_json::to_value(listing).unwrap()));
            role.targets.insert(path, file);
        }
        Catalogue::read(&role).unwrap()
    }

    fn deployment(assigned: &[(&str, u64, &str)]) -> Deployment {
        let assignment = |(name, sequence, college): &(&str, u64, &str)| Assignment {
            deadline: None,
            mode: AssignmentMode::Required,
            package: name.parse().unwrap(),
            rollout: None,
            since: None,
            to: Audience::colleges([college.parse().unwrap()]),
            track: Track::Pinned {
                sequence: *sequence,
                until: None,
                version: format!("{sequence}.0").parse().unwrap(),
            },
        };
        Deployment::new(assigned.iter().map(assignment).collect()).unwrap()
    }

    #[test]
    fn wants_what_machines_may_need_the_most_useful_first() {
        let five = catalogue(&[("a", 1), ("a", 2), ("a", 3), ("a", 4), ("a", 5), ("b", 1)]);
        let policy = |last, also: &[&str], packs| Policy {
            last,
            also: also.iter().map(|also| also.parse().unwrap()).collect(),
            packs,
        };
        let cases: [(&str, Policy, Deployment, &[&str]); 5] = [
            ("the last two", policy(2, &[], false), deployment(&[]), &["a 5.0 from 4.0", "a 5.0 from 3.0"]),
            (
                "what a college still runs, which is a target too",
                policy(1, &[], false),
                deployment(&[("a", 2, "57001")]),
                &["a 5.0 from 4.0", "a 5.0 from 2.0", "a 2.0 from 1.0"],
            ),
            (
                "what is named",
                policy(1, &["a@1.0"], false),
                deployment(&[("a", 5, "57001")]),
                &["a 5.0 from 4.0", "a 5.0 from 1.0"],
            ),
            (
                "packs",
                policy(0, &[], true),
                deployment(&[("a", 4, "57001")]),
                &["a 5.0 from 4.0", "a 5.0, packed", "a 4.0, packed", "b 1.0, packed"],
            ),
            (
                "what is deployed and not approved",
                policy(0, &[], false),
                deployment(&[("c", 1, "57001")]),
                &[],
            ),
        ];
        for (name, policy, deployment, expected) in cases {
            let labels: Vec<String> = wanted(&five, &deployment, &policy).iter().map(Pair::label).collect();
            assert_eq!(labels, expected, "{name}");
        }
    }
}
