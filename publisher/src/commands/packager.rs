//! `packager list|add`: who may package what.

use jiff::SignedDuration;
use mirabelle_manifests::network::PACKAGERS_TARGET;
use mirabelle_manifests::tuf::{RoleName, TargetFile, Targets};
use mirabelle_manifests::{Packager, PathPattern, TargetPath};
use mirabelle_terminal::{Failure, OrFail, Table};

use super::Context;
use crate::cli::PackagerCommand;
use crate::keyfile;

pub(super) fn run(context: &mut Context, command: PackagerCommand) -> Result<(), Failure> {
    let repository = context.repository()?;
    let (public, packages, from, until, key) = match command {
        PackagerCommand::List => {
            let packagers = repository.packagers()?;
            context.output.print(&packagers, |packagers| render(&packagers.packagers));
            return Ok(());
        }
        PackagerCommand::Add { public, packages, from, until, key } => (public, packages, from, until, key),
    };
    let _lock = repository.lock()?;
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
    let mut packagers = repository.packagers()?;
    packagers.packagers.push(packager);
    let bytes = packagers.to_bytes().or_fail(|| "cannot write the list of packagers".to_owned())?;
    let path = TargetPath::new(PACKAGERS_TARGET);
    repository.put_target(&path, &bytes)?;
    let role = RoleName::targets();
    let mut document = repository.role::<Targets>(&role)?.signed;
    document.targets.insert(path, TargetFile::of(&bytes, None));
    let key = keyfile::open(&key, &mut context.passphrase)?;
    repository.sign_targets(&role, document, &[key], context.now)?;
    context
        .output
        .print(&packagers, |packagers| format!("{}\n`publish` makes it known", render(&packagers.packagers)));
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
