//! `pause` and `resume`: the brake, which an online key may pull because it can only withhold.

use mirabelle_manifests::network::{BRAKE_TARGET, brake_role};
use mirabelle_manifests::tuf::{TargetFile, Targets};
use mirabelle_manifests::{Audience, Brake, Instant, TargetPath};
use mirabelle_terminal::{Failure, OrFail};
use serde::Serialize;

use super::Context;
use crate::cli::Pause;
use crate::keyfile::{self, Key};
use crate::repository::Repository;

#[derive(Serialize)]
struct Braked {
    release: String,
    paused: bool,
}

fn what() -> String {
    "cannot change the brake".to_owned()
}

/// The brake as it is signed.
pub(super) fn read(repository: &Repository) -> Result<Brake, Failure> {
    Brake::parse(&repository.only_target(&brake_role(), BRAKE_TARGET)?).or_fail(what)
}

/// Puts another brake in its place, for whoever has the lock.
pub(super) fn put(repository: &Repository, brake: &Brake, keys: &[Key], now: Instant) -> Result<(), Failure> {
    let role = brake_role();
    let bytes = brake.to_bytes().or_fail(what)?;
    let path = TargetPath::new(BRAKE_TARGET);
    repository.put_target(&path, &bytes)?;
    let mut document = repository.role::<Targets>(&role)?.signed;
    document.targets.insert(path, TargetFile::of(&bytes, None));
    repository.check_holders(std::slice::from_ref(&role), keys)?;
    repository.propose(&role, &document, keys, now)?;
    Ok(())
}

pub(super) fn run(context: &mut Context, arguments: &Pause, pause: bool) -> Result<(), Failure> {
    let repository = context.repository()?;
    let _lock = repository.lock()?;
    let entry = repository.approved(&arguments.release.release, arguments.release.platform.as_ref())?.listing;
    let release = format!("{} {}", entry.name, entry.version);

    let mut brake = read(&repository)?;
    let pauses = || brake.pauses(&entry.name, &entry.platform, entry.sequence);
    // A pause for some is no pause for all; whoever resumes, resumes for all.
    let held = if pause {
        pauses().any(|pause| pause.after.is_none() && pause.to == Audience::everyone())
    } else {
        pauses().next().is_some()
    };
    if held == pause {
        let state = if pause { "paused already" } else { "not paused" };
        return Err(Failure::no(format!("`{release}` is {state}")));
    }
    if pause {
        let since = Instant::from_second(context.now.as_second()).unwrap_or(context.now);
        brake.paused.push(mirabelle_manifests::Pause {
            after: None,
            package: entry.name,
            platform: entry.platform,
            reason: arguments.reason.clone(),
            sequence: entry.sequence,
            since,
            to: Audience::everyone(),
        });
    } else {
        // What stopped goes on; a ring that waits is let go by whoever resumes where nothing stopped.
        let is_halted = pauses().any(|pause| pause.after.is_none());
        brake.paused.retain(|other| {
            !other.is_about(&entry.name, &entry.platform, entry.sequence)
                || is_halted && other.after.is_some()
        });
    }

    let keys = [keyfile::open(&arguments.key, &mut context.passphrase)?];
    put(&repository, &brake, &keys, context.now)?;
    context.output.print(&Braked { release, paused: pause }, |braked| {
        let verb = if braked.paused { "paused" } else { "resumed" };
        format!("{verb} `{}`; `publish` makes it known", braked.release)
    });
    Ok(())
}
