//! The agent's own update: the package `mirabelle` is installed like any other; the program that the machine came with starts
//! it, and takes over again when it does not come up.
//!
//! ```text
//! the unit starts the machine's own program ──▶ current generation has `mirabelle`? ──▶ becomes it, on trial
//!        ▲                                              │ started twice and never came up
//!        └── restarted when it ends ◀── goes back to the release before, quarantines this one ◀─┘
//! ```
//!
//! A release has come up when it asked the node and was answered, or ran for [`TRIAL`]. The trial is counted before the new program
//! starts, so that one which cannot even begin is counted too.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use mirabelle_manifests::Digest;
use mirabelle_terminal::{Failure, OrFail};
use serde::{Deserialize, Serialize};

use super::kept::OWN;
use crate::layout::Layout;

/// The package that holds this program.
pub(crate) const OWN_PACKAGE: &str = "mirabelle";
/// What it is told, so that it becomes nobody else: where the machine's own program is.
const HANDED_OVER: &str = "MIRABELLE_HANDED_OVER";
/// Starts that a release gets to come up.
const STARTS: u32 = 2;
/// How long a release runs without an answer from the node before it counts as come up: a machine without a network must
/// not be taken for a broken program.
pub(super) const TRIAL: Duration = Duration::from_mins(2);

/// `self.json`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Trial {
    release: Digest,
    starts: u32,
    came_up: bool,
}

/// What the program that was started should do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Start {
    /// Be the agent.
    Stay,
    /// The installed release never came up: be the agent, after going back.
    GoBack,
}

/// Becomes the installed release, if there is one and it deserves it; returns what to do otherwise.
pub(crate) fn hand_over(layout: &Layout) -> Result<Start, Failure> {
    if std::env::var_os(HANDED_OVER).is_some() {
        return Ok(Start::Stay);
    }
    let Some((release, program)) = installed(layout)? else { return Ok(Start::Stay) };
    let known: Option<Trial> = layout.kept(OWN);
    let mut trial = known.filter(|trial| trial.release == release).unwrap_or(Trial {
        release,
        starts: 0,
        came_up: false,
    });
    if !trial.came_up && trial.starts >= STARTS {
        return Ok(Start::GoBack);
    }
    trial.starts += 1;
    layout.keep(OWN, &trial)?;
    let error =
        Command::new(&program).args(std::env::args_os().skip(1)).env(HANDED_OVER, machines_own()?).exec();
    // It is not even a program: the next start counts it.
    tracing::error!(program = %program.display(), %error, "the installed agent cannot be started");
    Ok(Start::Stay)
}

/// The program that the machine came with, which is there whatever is installed: what launchers call.
pub(crate) fn machines_own() -> Result<PathBuf, Failure> {
    let own = std::env::var_os(HANDED_OVER).map(PathBuf::from).filter(|own| own.is_file());
    own.map_or_else(std::env::current_exe, Ok).or_fail(|| "cannot tell where this program is".to_owned())
}

/// The installed release and its program.
fn installed(layout: &Layout) -> Result<Option<(Digest, PathBuf)>, Failure> {
    let current = layout.current_generation()?;
    let own = current.packages.iter().find(|(package, _)| package.as_str() == OWN_PACKAGE);
    let Some((package, installed)) = own else { return Ok(None) };
    let program = layout.release(package, &installed.id).join("bin/mirabelle");
    Ok(program.is_file().then_some((installed.release, program)))
}

/// The running release came up.
pub(super) fn came_up(layout: &Layout) -> Result<(), Failure> {
    let Some(mut trial) = layout.kept::<Trial>(OWN).filter(|trial| !trial.came_up) else { return Ok(()) };
    if std::env::var_os(HANDED_OVER).is_none() {
        return Ok(());
    }
    (trial.came_up, trial.starts) = (true, 0);
    tracing::info!(release = %trial.release.short(), "the new agent came up");
    layout.keep(OWN, &trial)
}

/// Forgets the trial, once it was gone back from.
pub(crate) fn forget(layout: &Layout) -> Result<(), Failure> {
    layout.forget(OWN)
}

impl Layout {
    /// Holds the installed release of this program, as `run` holds an application's.
    pub(super) fn own_lock(&self) -> Result<Option<fs_err::File>, Failure> {
        let current = self.current_generation()?;
        let own = current.packages.iter().find(|(package, _)| package.as_str() == OWN_PACKAGE);
        let Some((package, installed)) = own else { return Ok(None) };
        let lock = mirabelle_content::durable::lock_shared(&self.run_lock(package, &installed.id));
        lock.map(Some).or_fail(|| "cannot hold the agent's own release".to_owned())
    }

    /// The release of this program that is installed.
    pub(crate) fn own_release(&self) -> Result<Option<Digest>, Failure> {
        Ok(installed(self)?.map(|(release, _)| release))
    }
}
