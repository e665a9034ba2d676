//! `packager list|add|revoke`: who may package what.

use std::collections::BTreeSet;

use jiff::SignedDuration;
use mirabelle_keys::KeyId;
use mirabelle_manifests::network::PACKAGERS_TARGET;
use mirabelle_manifests::tuf::{RoleName, TargetFile, Targets};
use mirabelle_manifests::{Instant, Packager, Packagers, PathPattern, TargetPath};
use mirabelle_terminal::{Failure, OrFail, Table};

use serde::Serialize;

use super::Context;
use super::draft::who;
use crate::cli::PackagerCommand;
use crate::drafts::Outcome;
use crate::key_location::KeyLocation;
use crate::keyfile;
use crate::repository::Repository;

pub(super) fn run(context: &mut Context, command: PackagerCommand) -> Result<(), Failure> {
    let repository = context.repository()?;
    match command {
        PackagerCommand::List => {
            let packagers = repository.packagers()?;
            context.output.print(&packagers, |packagers| render(&packagers.packagers));
            Ok(())
        }
        PackagerCommand::Add { public, packages, from, until, keys } => {
            let from = from.unwrap_or(context.now);
            let until = until.unwrap_or(context.now + SignedDuration::from_hours(24 * 730));
            if from >= until {
                return Err(Failure::usage(format!("{from} is not before {until}")));
            }
            let packager = Packager {
                from,
                key: keyfile::public(&public)?,
                packages: packages.iter().map(PathPattern::new).collect(),
                until,
            };
            let _lock = repository.lock()?;
            let mut packagers = repository.packagers()?;
            packagers.packagers.push(packager);
            change(context, &repository, packagers, &keys)
        }
        PackagerCommand::Revoke { id, from, keys } => {
            let _lock = repository.lock()?;
            let mut packagers = repository.packagers()?;
            revoke(&mut packagers.packagers, &id, from.unwrap_or(context.now))?;
            change(context, &repository, packagers, &keys)
        }
    }
}

/// Ends every authorisation of the key whose id begins with `id`; those that had not begun by then go.
fn revoke(packagers: &mut Vec<Packager>, id: &str, from: Instant) -> Result<(), Failure> {
    let keys: BTreeSet<KeyId> = packagers
        .iter()
        .map(|packager| packager.key.id())
        .filter(|key| id.len() >= 8 && key.as_str().starts_with(id))
        .collect();
    if keys.len() != 1 {
        return Err(Failure::no(format!("`{id}` is not the beginning of one packager's key id"))
            .hint("`mirabelle-publisher packager list` lists them; give at least 8 characters"));
    }
    for packager in packagers.iter_mut().filter(|packager| keys.contains(&packager.key.id())) {
        packager.until = packager.until.min(from);
    }
    packagers.retain(|packager| packager.from < packager.until);
    Ok(())
}

#[derive(Serialize)]
struct Changed {
    #[serde(flatten)]
    packagers: Packagers,
    #[serde(flatten)]
    outcome: Outcome,
}

fn change(
    context: &mut Context,
    repository: &Repository,
    packagers: Packagers,
    keys: &[KeyLocation],
) -> Result<(), Failure> {
    let bytes = packagers.to_bytes().or_fail(|| "cannot write the list of packagers".to_owned())?;
    let path = TargetPath::new(PACKAGERS_TARGET);
    repository.put_target(&path, &bytes)?;
    let role = RoleName::targets();
    let mut document = repository.role::<Targets>(&role)?.signed;
    document.targets.insert(path, TargetFile::of(&bytes, None));
    let keys = keyfile::open_all(keys, &mut context.passphrase)?;
    repository.check_holders(std::slice::from_ref(&role), &keys)?;
    let outcome = repository.propose(&role, &document, &keys, context.now)?;
    context.output.print(&Changed { packagers, outcome }, |changed| {
        let outcome = match &changed.outcome {
            Outcome::Complete { .. } => "`publish` makes it known".to_owned(),
            Outcome::Waiting(progress) => format!("`targets` waits: {}", who(progress)),
        };
        format!("{}\n{outcome}", render(&changed.packagers.packagers))
    });
    Ok(())
}

fn render(packagers: &[Packager]) -> String {
    let mut table = Table::new(["key", "packages", "from", "until"]);
    for packager in packagers {
        let packages: Vec<&str> = packager.packages.iter().map(PathPattern::as_str).collect();
        let (from, until) = (packager.from.to_string(), packager.until.to_string());
        table.row([packager.key.id().short().to_owned(), packages.join(" "), from, until]);
    }
    table.render()
}
