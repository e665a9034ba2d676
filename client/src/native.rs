//! Native packages (kind `installer`): the machine's own package manager, or a vendor's setup, brought to what a generation
//! says and back.
//!
//! What is on the machine is known by detection alone, before and after: an exit code proves nothing. So a step can be
//! repeated after a cut, software that is there already is taken over (`adopt`) without a command, and the inverse of a step is
//! the step to what was there before.
//!
//! Threat: commands run as the agent, on most machines root. Both bodies signed for their very words (promise 1); they are
//! programs with arguments, not a shell's lines, and nothing that a person or a server says goes into them.

use std::path::PathBuf;
use std::time::Duration;

use mirabelle_manifests::{Digest, ExitCode, ExitMeaning, Installer, PackageName};
use mirabelle_terminal::{Failure, OrFail};

use crate::bounded::{self, Ended};
use crate::generation::Generation;
use crate::journal::NativeStep;
use crate::layout::Layout;
use crate::platform;

/// Detecting asks a database of the machine; one that takes longer has hung.
const DETECTION: Duration = Duration::from_mins(2);

/// No command of a release may take longer (`manifests/src/release/behaviour.rs`).
const LONGEST: Duration = Duration::from_hours(2);

/// Why a step was not made.
#[derive(Debug)]
pub(crate) enum StepFailure {
    /// The release's commands do not do what they say.
    Release(String),
    /// Something else is at it; another attempt later may succeed.
    Later(String),
    /// This machine.
    Machine(Failure),
}

impl From<Failure> for StepFailure {
    fn from(failure: Failure) -> Self {
        Self::Machine(failure)
    }
}

impl From<StepFailure> for Failure {
    fn from(failure: StepFailure) -> Self {
        match failure {
            StepFailure::Release(why) | StepFailure::Later(why) => Self::no(why),
            StepFailure::Machine(failure) => failure,
        }
    }
}

/// A native package in one version.
struct Native<'a> {
    layout: &'a Layout,
    package: &'a PackageName,
    version: String,
    installer: Installer,
    tree: PathBuf,
}

/// What a step came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Done {
    /// The machine must be restarted before it counts.
    pub(crate) restart: bool,
    /// No command was run: it was there already.
    pub(crate) already: bool,
}

/// Makes a step, or finds that it is made. With `unseen`, what is to go is not seen although it is there: it waits for a
/// restart.
pub(crate) fn make(layout: &Layout, step: &NativeStep, unseen: bool) -> Result<Done, StepFailure> {
    // What a killed client had started goes on without it: only then does detection say something.
    bounded::wait_for_survivor(&layout.installer(), LONGEST)
        .or_fail(|| format!("cannot wait for what is being done to `{}`", step.package))?;
    let before = step.from.map(|release| Native::of(layout, &step.package, release)).transpose()?;
    match step.to {
        Some(release) => Native::of(layout, &step.package, release)?.bring(before.is_some()),
        None => before.map_or(Ok(Done::default()), |before| before.take_away(unseen)),
    }
}

/// True when exactly this release is on the machine.
pub(crate) fn is_present(layout: &Layout, package: &PackageName, release: Digest) -> Result<bool, Failure> {
    Native::of(layout, package, release)?.is_present()
}

/// The native packages of a generation that are not on the machine, as steps that bring them; those that wait for a restart
/// are not looked for.
pub(crate) fn missing(layout: &Layout, generation: &Generation) -> Result<Vec<NativeStep>, Failure> {
    let waiting = layout.read_state()?.waiting_for_restart(&platform::boot());
    let mut missing = Vec::new();
    for (package, installed) in generation.packages.iter().filter(|(_, installed)| installed.native) {
        let release = installed.release;
        if !waiting.contains(package) && !is_present(layout, package, release)? {
            missing.push(NativeStep { package: package.clone(), from: None, to: Some(release) });
        }
    }
    Ok(missing)
}

impl<'a> Native<'a> {
    fn of(layout: &'a Layout, package: &'a PackageName, release: Digest) -> Result<Self, Failure> {
        let manifest = layout.release_manifest(package, release)?;
        let version = manifest.version.to_string();
        let tree = layout.release(package, &Layout::release_id(manifest.sequence, release));
        let installer = manifest
            .behaviour
            .installer
            .ok_or_else(|| Failure::no(format!("`{package}` {version} does not say how it is installed")))?;
        Ok(Self { layout, package, version, installer, tree })
    }

    fn is_present(&self) -> Result<bool, Failure> {
        let what = || format!("cannot look for `{}` {} on this machine", self.package, self.version);
        let detection = &self.installer.detect;
        let command = bounded::command(&detection.command, &self.tree).or_fail(what)?;
        // Where what would detect it is not there, neither is what it detects.
        let (ended, said) = bounded::ask(command, DETECTION).or_fail(what)?;
        let says = detection.prints.as_ref().is_none_or(|prints| said.trim() == prints.trim());
        Ok(ended == Ended::With(0) && says)
    }

    fn bring(&self, in_another_version: bool) -> Result<Done, StepFailure> {
        if self.is_present()? {
            tracing::info!(package = %self.package, version = self.version, "native package is there already");
            return Ok(Done { already: true, restart: false });
        }
        let Installer { install, upgrade, .. } = &self.installer;
        let restart = match upgrade {
            Some(upgrade) if in_another_version => self.run("upgrade", upgrade)?,
            _ => self.run("install", install)?,
        };
        // With a restart still to come, the machine may not know it yet.
        if !restart && !self.is_present()? {
            return Err(StepFailure::Release(format!(
                "`{}` {} said that it was installed, and is not found on the machine",
                self.package, self.version
            )));
        }
        Ok(Done { restart, already: false })
    }

    fn take_away(&self, unseen: bool) -> Result<Done, StepFailure> {
        if !unseen && !self.is_present()? {
            return Ok(Done { already: true, restart: false });
        }
        let restart = self.run("uninstall", &self.installer.uninstall)?;
        if !restart && self.is_present()? {
            return Err(StepFailure::Release(format!(
                "`{}` {} said that it was taken away, and is still on the machine",
                self.package, self.version
            )));
        }
        Ok(Done { restart, already: false })
    }

    /// Runs one of its commands; true when the machine must be restarted.
    fn run(&self, verb: &'static str, words: &[String]) -> Result<bool, StepFailure> {
        let what = || format!("cannot {verb} `{}` {}", self.package, self.version);
        let command = bounded::command(words, &self.tree).or_fail(what)?;
        let log = self.layout.log(self.package, verb);
        let limit = Duration::from_secs(self.installer.seconds.into());
        let ended = bounded::run_noted(command, limit, &log, &self.layout.installer()).or_fail(what)?;
        let meaning = match ended {
            Ended::With(0) => Some(ExitMeaning::Done),
            Ended::With(code) => self.installer.exit_codes.get(&ExitCode(code)).copied(),
            Ended::Killed | Ended::TooLate | Ended::NotStarted => None,
        };
        tracing::info!(package = %self.package, version = self.version, verb, %ended, "native command was run");
        let complaint = || {
            let said = bounded::last_words(&log);
            let said = if said.is_empty() { String::new() } else { format!(": {said}") };
            format!("{verb} of `{}` {}: {ended}{said}", self.package, self.version)
        };
        match meaning {
            Some(ExitMeaning::Done) => Ok(false),
            Some(ExitMeaning::Restart) => Ok(true),
            Some(ExitMeaning::Later) => Err(StepFailure::Later(complaint())),
            None => Err(StepFailure::Release(complaint())),
        }
    }
}
