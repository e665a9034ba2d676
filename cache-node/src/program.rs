//! The node's own update: the package `mirabelle-node`, deployed like any other, to the machine `node` of a college with the tag
//! `node`; the program that the machine came with starts it, and takes over again when it does not come up.
//!
//! ```text
//! <root>/programs/<release>/mirabelle-node     from the release's `bin/mirabelle-node`
//! <root>/program.json                          which one runs, which ran before it, which failed
//!
//! the unit starts the machine's own program ──▶ there is another, on trial or proven? ──▶ becomes it
//!        ▲                                              │ started twice and never came up
//!        └── restarted when it ends ◀── goes back to the one before, quarantines this one ◀─┘
//! ```
//!
//! A program has come up when a sync succeeded, or after [`TRIAL`]. The trial is counted before the new program starts, so that
//! one which cannot even begin is counted too. The listening socket, where systemd holds it, goes from one to the other.
//!
//! A crash: the file is written whole before `program.json` names it, and both survive.
//!
//! Threats: what is run was signed by an authorised packager and approved by the rectorat, as anything (promise 1), and is compared
//! with its digest when it is taken out of the store, and again before it is started.

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use fs_err as fs;
use mirabelle_content::{ObjectStore, digest, durable};
use mirabelle_manifests::{
    CatalogueEntry, Digest, InstalledRelease, Instant, Machine, MachineState, Node, Quarantine,
    SignedRelease, SiteId, Situation,
};
use mirabelle_terminal::{Failure, OrFail};
use mirabelle_transfer::Network;
use serde::{Deserialize, Serialize};

use crate::site::Site;

/// The package that holds this program, where in it, and what the machine is called for the deployment.
const PACKAGE: &str = "mirabelle-node";
const PROGRAM: &str = "bin/mirabelle-node";
const MACHINE: &str = "node";
const PLATFORM: &str = "linux-x86_64";
/// What it is told, so that it becomes nobody else.
const HANDED_OVER: &str = "MIRABELLE_NODE_HANDED_OVER";
/// Starts that a release gets to come up.
const STARTS: u32 = 2;
/// How long a release runs before it counts as come up, even if no upstream answers.
pub(crate) const TRIAL: Duration = Duration::from_mins(5);
/// What the node ends with to be started anew as another program: `EX_TEMPFAIL` (sysexits.h). The unit says what that means.
pub(crate) const STARTS_ANEW: u8 = 75;
const MAX_FILE_BYTES: u64 = 1 << 20;

/// `program.json`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Kept {
    current: Option<Program>,
    /// The one before, proven.
    previous: Option<Program>,
    quarantine: BTreeMap<Digest, Quarantine>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Program {
    release: Digest,
    sequence: u64,
    /// SHA-256 of the file.
    sha256: Digest,
    starts: u32,
    came_up: bool,
}

/// Becomes the deployed program, if there is one and it deserves it; returns where it does not.
pub(crate) fn hand_over(site: &Site) {
    if std::env::var_os(HANDED_OVER).is_some() {
        return;
    }
    let mut kept = read(site);
    while let Some(mut program) = kept.current.take() {
        if !program.came_up && program.starts >= STARTS {
            let why = format!("it was started {STARTS} times and never came up");
            tracing::error!(release = %program.release.short(), "the new program is taken back: {why}");
            kept.quarantine.insert(program.release, Quarantine { since: Instant::now(), why });
            kept.current = kept.previous.take();
            keep_if_possible(site, &kept);
            continue;
        }
        let path = path_of(site, program.release);
        if !is_genuine(site, &program) {
            // No start of it: it is taken out of the store again after the next sync.
            tracing::error!(program = %path.display(), "the deployed program is not what was approved, and is not started");
            return;
        }
        if !program.came_up {
            program.starts += 1;
            kept.current = Some(program);
            if let Err(failure) = write(site, &kept) {
                // Without counting, one that never comes up would be started for ever.
                tracing::error!("the deployed program is not started\n{}", failure.render().trim_end());
                return;
            }
        }
        let error = Command::new(&path).args(std::env::args_os().skip(1)).env(HANDED_OVER, "1").exec();
        // It is not even a program: the next start counts it.
        tracing::error!(program = %path.display(), %error, "the deployed program cannot be started");
        return;
    }
}

/// A disk that cannot be written keeps no node from serving.
fn keep_if_possible(site: &Site, kept: &Kept) {
    if let Err(failure) = write(site, kept) {
        tracing::error!("which program runs could not be kept\n{}", failure.render().trim_end());
    }
}

/// The running program came up.
pub(crate) fn came_up(site: &Site) {
    let mut kept = read(site);
    let Some(program) = kept.current.as_mut().filter(|program| !program.came_up) else { return };
    if std::env::var_os(HANDED_OVER).is_none() {
        return;
    }
    (program.came_up, program.starts) = (true, 0);
    tracing::info!(release = %program.release.short(), "the new program came up");
    if let Err(failure) = write(site, &kept) {
        tracing::warn!("that it came up could not be kept\n{}", failure.render().trim_end());
    }
}

/// Puts the program in place that is deployed to this node, if it is another; true: it is time to be started anew.
pub(crate) fn update(
    site: &Site,
    store: &ObjectStore,
    network: &Network,
    college: &SiteId,
    now: Instant,
) -> Result<bool, Failure> {
    let mut kept = read(site);
    if let Some(current) = kept.current.as_ref().filter(|current| !is_genuine(site, current)) {
        // The disk changed it.
        let release = current.release;
        let entry = network.catalogue.iter().find(|entry| entry.digest == release);
        return Ok(entry.map(|entry| take_out(site, store, entry)).transpose()?.flatten().is_some());
    }
    let Some(entry) = deployed(network, college, &kept, now)? else { return Ok(false) };
    let Some(sha256) = take_out(site, store, &entry)? else { return Ok(false) };
    let program = Program {
        release: entry.digest,
        sequence: entry.listing.sequence,
        sha256,
        starts: 0,
        came_up: false,
    };
    let before = kept.current.replace(program).filter(|before| before.came_up);
    kept.previous = before.or(kept.previous.take());
    write(site, &kept)?;
    sweep(site, &kept);
    tracing::info!(version = %entry.listing.version, "a new program is in place, and the node is started anew");
    Ok(true)
}

/// Puts the program of a release that is held in its place, and returns its digest; `None` if its manifest is not here.
fn take_out(site: &Site, store: &ObjectStore, entry: &CatalogueEntry) -> Result<Option<Digest>, Failure> {
    let what = || format!("cannot become `{PACKAGE} {}`", entry.listing.version);
    let Some(manifest) = site.served().manifest(entry)? else { return Ok(None) };
    let release = SignedRelease::parse(&manifest).or_fail(what)?.release;
    let own = release.entries.iter().find(|own| own.path.as_str() == PROGRAM);
    let Some(Node::File { sha256, .. }) = own.map(|own| &own.node) else {
        return Err(Failure::no(format!("`{PACKAGE} {}` has no `{PROGRAM}`", entry.listing.version)));
    };
    let mut content = Vec::new();
    std::io::Read::read_to_end(&mut store.read(*sha256).or_fail(what)?, &mut content).or_fail(what)?;
    if Digest::of(&content) != *sha256 {
        return Err(Failure::trust(format!("`{PROGRAM}` of release {} is damaged", entry.digest.short())));
    }
    durable::write_atomically_as(&path_of(site, entry.digest), &content, 0o755, None).or_fail(what)?;
    Ok(Some(*sha256))
}

fn is_genuine(site: &Site, program: &Program) -> bool {
    let file = fs::File::open(path_of(site, program.release));
    file.and_then(|mut file| digest(&mut file)).is_ok_and(|(found, _)| found == program.sha256)
}

/// The release that this node should be, if it is not yet: decided as for any workstation, rings and brake among it.
fn deployed(
    network: &Network,
    college: &SiteId,
    kept: &Kept,
    now: Instant,
) -> Result<Option<CatalogueEntry>, Failure> {
    let wrong = |_| Failure::no("the node has no name for the deployment");
    let package = PACKAGE.parse().map_err(|_| Failure::no("the node has no name for the deployment"))?;
    let machine = Machine {
        college: college.clone(),
        id: MACHINE.parse().map_err(wrong)?,
        model: None,
        platform: PLATFORM.parse().map_err(|_| Failure::no("the node has no platform"))?,
        room: None,
        tags: MACHINE.parse().into_iter().collect(),
    };
    let installed = kept.current.as_ref().map(|program| {
        let release = InstalledRelease {
            release: program.release,
            sequence: program.sequence,
            requires: Vec::new(),
            conflicts: Vec::new(),
            automatic: false,
        };
        (package, release)
    });
    let state = MachineState {
        installed: installed.into_iter().collect(),
        quarantine: kept.quarantine.clone(),
        ..MachineState::default()
    };
    let Network { catalogue, deployment, brake, .. } = network;
    let situation = Situation { catalogue, deployment, brake, machine: &machine, state: &state, now };
    let decisions = situation.decide();
    let own = decisions.iter().find(|(package, _)| package.as_str() == PACKAGE);
    Ok(own.and_then(|(_, decision)| decision.release().cloned()))
}

/// Removes programs that are neither the current one nor the one before.
fn sweep(site: &Site, kept: &Kept) {
    let needed: Vec<PathBuf> = [&kept.current, &kept.previous]
        .into_iter()
        .flatten()
        .map(|program| site.path("programs").join(program.release.to_string()))
        .collect();
    let Ok(found) = fs::read_dir(site.path("programs")) else { return };
    for entry in found.filter_map(Result::ok).filter(|entry| !needed.contains(&entry.path())) {
        if let Err(error) = durable::remove_tree(&entry.path()) {
            tracing::warn!(%error, "an old program could not be removed");
        }
    }
}

fn path_of(site: &Site, release: Digest) -> PathBuf {
    site.path("programs").join(release.to_string()).join(PACKAGE)
}

/// What cannot be read is nothing: the machine's own program runs.
fn read(site: &Site) -> Kept {
    let bytes = durable::read_if_present(&site.path("program.json"), MAX_FILE_BYTES).ok().flatten();
    bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
}

fn write(site: &Site, kept: &Kept) -> Result<(), Failure> {
    let what = || "cannot keep which program runs".to_owned();
    let bytes = serde_json::to_vec_pretty(kept).or_fail(what)?;
    durable::write_atomically(&site.path("program.json"), &bytes).or_fail(what)
}
