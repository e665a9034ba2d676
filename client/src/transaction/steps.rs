//! From a generation that is whole to the end of its transaction: install, switch, set, check, keep; or take all of it back.
//!
//! Every step begins by finding out what is done, so that each can be repeated. What is taken back depends on nothing that
//! taking it back removes: the new generation goes before the journal does, and is not read any more by then.
//!
//! Two sorts of trouble are told apart. What a release does wrong is taken back and not tried again. What this machine
//! cannot do now (a full disk) leaves the journal where it is, and the next start goes on. What cannot be taken back, now or
//! ever, is said in the log and does not hold up the rest: `verify` shows it.

use mirabelle_content::durable;
use mirabelle_manifests::{PackageName, Quarantine};
use mirabelle_terminal::{Failure, OrFail};

use super::{Executor, at};
use crate::generation::Generation;
use crate::journal::{Culprit, NativeStep, Step, Transaction};
use crate::native::{self, StepFailure};
use crate::state::Restart;
use crate::{collect, health, platform};

/// A native step whose end nobody saw is begun so often, and then taken back: a person who switches off twice in a row is no
/// reason to give up a good release.
const ATTEMPTS: u32 = 3;

impl Executor<'_> {
    /// Brings the directory in order after whatever happened before, as the journal says: goes on, or sweeps what was being
    /// prepared.
    pub(crate) fn recover(&self) -> Result<(), Failure> {
        let what = || format!("cannot bring `{}` in order", self.layout.root().display());
        let journaled = self.layout.journaled()?;
        durable::remove_tree(&self.layout.staging()).or_fail(what)?;
        let Some(transaction) = journaled else { return Ok(()) };
        tracing::warn!(reason = transaction.reason, step = ?transaction.step, "a transaction was interrupted");
        if transaction.step == Step::Preparing {
            self.layout.discard(&self.layout.generation(transaction.next))?;
            return self.layout.end_journal();
        }
        match self.finish(transaction) {
            Ok(_) => tracing::info!("the interrupted transaction is finished"),
            // What cannot be finished now holds up what would come on top of it.
            Err(failure) if self.layout.journaled()?.is_some() => return Err(failure),
            Err(failure) => {
                tracing::error!(
                    "the interrupted transaction was taken back\n{}",
                    failure.render().trim_end()
                );
            }
        }
        Ok(())
    }

    /// Goes on from whatever step a transaction is at, to its end: kept, or taken back.
    pub(super) fn finish(&self, mut transaction: Transaction) -> Result<Generation, Failure> {
        loop {
            let (step, name) = match transaction.step.clone() {
                Step::Preparing => {
                    return Err(Failure::no("a transaction that is being prepared cannot end"));
                }
                Step::Installing { done, attempts } => {
                    (self.install(&mut transaction, done, attempts)?, "installed")
                }
                Step::Switching => (self.switch_and_set(&transaction)?, "settled"),
                Step::Checking => match self.check_health(&transaction)? {
                    None => break,
                    Some((culprit, why)) => {
                        let left = transaction.native.len();
                        (Step::Undoing { left, culprit: Some(culprit), why }, "checked")
                    }
                },
                Step::Undoing { left, culprit, why } => {
                    let tried_again = culprit.is_none();
                    self.undo(&mut transaction, left, culprit, &why)?;
                    let failure = Failure::no(format!("{why}; what was there before is there again"));
                    return Err(failure.hint(if tried_again {
                        "the next `update` tries it again"
                    } else {
                        "it is not tried again by itself; `mirabelle why` says so"
                    }));
                }
            };
            transaction.step = step;
            self.layout.write_journal(&transaction)?;
            at(name)?;
        }
        at("healthy")?;
        let next = self.layout.read_generation(transaction.next)?;
        self.layout.end_journal()?;
        at("ended")?;
        self.layout.change_state(|state| {
            for installed in next.packages.values() {
                state.ahead.remove(&installed.release);
            }
        })?;
        // The transaction is over; what it left behind can also be swept next time.
        if let Err(failure) = collect::collect(self.layout, &self.store) {
            tracing::warn!("old releases could not be swept\n{}", failure.render().trim_end());
        }
        at("swept")?;
        Ok(next)
    }

    /// The next native package.
    fn install(&self, transaction: &mut Transaction, done: usize, attempts: u32) -> Result<Step, Failure> {
        let Some(step) = transaction.native.get(done).cloned() else { return Ok(Step::Switching) };
        if self.waits_for_restart(&step)? {
            return Ok(Step::Installing { done: done + 1, attempts: 0 });
        }
        let failed = |why: String, to_blame: bool| {
            let culprit = step.to.filter(|_| to_blame);
            let culprit = culprit.map(|release| Culprit { package: step.package.clone(), release });
            Step::Undoing { left: done + 1, culprit, why }
        };
        if attempts >= ATTEMPTS {
            let why =
                format!("`{}` was interrupted {ATTEMPTS} times while it was being installed", step.package);
            return Ok(failed(why, true));
        }
        transaction.step = Step::Installing { done, attempts: attempts + 1 };
        self.layout.write_journal(transaction)?;
        at("installer-begun")?;
        let made = native::make(self.layout, &step, false);
        at("installer-ran")?;
        match made {
            Ok(made) => {
                if made.restart {
                    self.note_restart(&step)?;
                }
                Ok(Step::Installing { done: done + 1, attempts: 0 })
            }
            Err(StepFailure::Release(why)) => Ok(failed(why, true)),
            Err(StepFailure::Later(why)) => Ok(failed(why, false)),
            Err(StepFailure::Machine(failure)) => Ok(failed(failure.render().trim_end().to_owned(), false)),
        }
    }

    /// True when this step was made, and shows only once the machine was restarted.
    fn waits_for_restart(&self, step: &NativeStep) -> Result<bool, Failure> {
        let boot = platform::boot();
        let state = self.layout.read_state()?;
        let noted = state.restart.get(&step.package);
        Ok(noted.is_some_and(|noted| noted.release == step.to && noted.boot == boot))
    }

    fn note_restart(&self, step: &NativeStep) -> Result<(), Failure> {
        let noted = Restart { release: step.to, boot: platform::boot() };
        self.layout.change_state(|state| {
            state.restart.insert(step.package.clone(), noted);
        })?;
        Ok(())
    }

    /// The one rename that a person sees, and the files of the machine that go with it.
    fn switch_and_set(&self, transaction: &Transaction) -> Result<Step, Failure> {
        let next = self.layout.read_generation(transaction.next)?;
        self.switch(next.number)?;
        at("switched")?;
        Ok(match self.settings().apply(&next) {
            Ok(_) => Step::Checking,
            Err(failure) => {
                let left = transaction.native.len();
                let culprit = self.culprit_of_settings(transaction, &next);
                Step::Undoing { left, culprit, why: failure.render().trim_end().to_owned() }
            }
        })
    }

    /// The release that comes and sets what can never be set, if one does: the user that its own installer was to make is not
    /// there, say. Installed again it would only be taken back again.
    fn culprit_of_settings(&self, transaction: &Transaction, next: &Generation) -> Option<Culprit> {
        let settings = self.settings();
        let (package, _) = settings.impossible(&settings.wanted(next).ok()?, true).ok()??;
        let release = next.packages.get(&package)?.release;
        let before = self.base(transaction).ok()?;
        let new = before.packages.get(&package).is_none_or(|before| before.release != release);
        new.then_some(Culprit { package, release })
    }

    fn switch(&self, number: u64) -> Result<(), Failure> {
        if self.layout.current_number()? != number {
            let path = self.layout.current();
            durable::write_atomically(&path, format!("{number}\n").as_bytes())
                .or_fail(|| format!("cannot replace `{}`", path.display()))?;
        }
        at("current-written")?;
        self.layout.show_current(number)
    }

    /// Makes the checks of the releases that are new in the next generation; the first that fails, and why. A native package
    /// that waits for a restart cannot work yet, and is not looked at: its detection tells after it (`verify`).
    fn check_health(&self, transaction: &Transaction) -> Result<Option<(Culprit, String)>, Failure> {
        let (base, next) = (self.base(transaction)?, self.layout.read_generation(transaction.next)?);
        let new = next.packages.iter().filter(|(package, installed)| {
            base.packages.get(*package).is_none_or(|before| before.release != installed.release)
        });
        for (package, installed) in new {
            let native = NativeStep { package: package.clone(), from: None, to: Some(installed.release) };
            if self.waits_for_restart(&native)? {
                tracing::info!(%package, "its checks are not made: the machine has to be restarted first");
                continue;
            }
            let release = self.layout.read_manifest(installed)?;
            let tree = self.layout.release(package, &installed.id);
            if let Some(why) = health::check(self.layout, package, &release, &tree, &self.config.system_root)?
            {
                let culprit = Culprit { package: package.clone(), release: installed.release };
                return Ok(Some((
                    culprit,
                    format!("`{package}` {} does not work: {why}", installed.version),
                )));
            }
        }
        Ok(None)
    }

    /// Takes everything back, native packages last first, and remembers what failed.
    fn undo(
        &self,
        transaction: &mut Transaction,
        left: usize,
        culprit: Option<Culprit>,
        why: &str,
    ) -> Result<(), Failure> {
        let base = self.base(transaction)?;
        for left in (0..left).rev() {
            if let Some(step) = transaction.native.get(left) {
                self.undo_native(step)?;
                at("installer-undone")?;
            }
            transaction.step = Step::Undoing { left, culprit: culprit.clone(), why: why.to_owned() };
            self.layout.write_journal(transaction)?;
            at("undoing")?;
        }
        self.switch(base.number)?;
        at("returned")?;
        match self.settings().apply(&base) {
            Ok(_) => {}
            // The disk is full, say: another start may do it.
            Err(failure) if failure.may_pass() => return Err(failure),
            // A value that is gone from the deployment meanwhile, say: `verify` shows it, and going round in circles helps
            // nobody.
            Err(failure) => {
                tracing::error!("settings could not be put back\n{}", failure.render().trim_end());
            }
        }
        at("unsettled")?;
        if let Some(culprit) = culprit {
            let failed = Quarantine { since: self.now, why: why.to_owned() };
            self.layout.change_state(|state| state.quarantine(culprit.release, failed))?;
        }
        at("quarantined")?;
        self.layout.discard(&self.layout.generation(transaction.next))?;
        at("discarded")?;
        self.layout.end_journal()
    }

    fn undo_native(&self, step: &NativeStep) -> Result<(), Failure> {
        // What only shows after a restart cannot be detected, and is taken back unseen.
        let unseen = self.waits_for_restart(step)?;
        let back = NativeStep { package: step.package.clone(), from: step.to, to: step.from };
        match native::make(self.layout, &back, unseen) {
            Ok(made) if made.restart => return self.note_restart(&back),
            Ok(_) => {}
            // The disk is full, say: another start may do it.
            Err(StepFailure::Machine(failure)) if failure.may_pass() => return Err(failure),
            // `verify` shows it; going round in circles helps nobody.
            Err(failure) => {
                tracing::error!(package = %step.package, ?failure, "a native package could not be taken back");
            }
        }
        let package: &PackageName = &step.package;
        self.layout.change_state(|state| {
            state.restart.remove(package);
        })?;
        Ok(())
    }

    fn base(&self, transaction: &Transaction) -> Result<Generation, Failure> {
        match transaction.base {
            0 => Ok(Generation::none()),
            number => self.layout.read_generation(number),
        }
    }
}
