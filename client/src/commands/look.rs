//! `refresh`, `search`, `info`, `list`, `history`: commands that change nothing.

use std::collections::BTreeMap;

use mirabelle_manifests::{
    Action, CatalogueEntry, Decision, Instant, Machine, PackageName, Platform, Reason, Text,
};
use mirabelle_terminal::{Failure, Table, bytes};
use mirabelle_transfer::Network;
use serde::Serialize;

use super::Context;
use crate::outlook::{Due, Verb};

#[derive(Serialize)]
struct Refreshed {
    snapshot: u64,
    releases: usize,
    fresh_until: Option<Instant>,
    /// Since when the catalogue has not been renewed; null while it is fresh.
    stale_since: Option<Instant>,
    pending: Vec<String>,
}

pub(super) async fn refresh(context: &Context) -> Result<(), Failure> {
    let config = context.config()?;
    let (_, network) = context.refresh(&config).await?;
    let releases = network.catalogue.iter().count();
    let fresh_until = network.trusted.timestamp().map(|timestamp| timestamp.expires);
    let outlook = context.known(network, &config)?.outlook(&context.layout, &config)?;
    let refreshed = Refreshed {
        snapshot: outlook.snapshot,
        releases,
        fresh_until,
        stale_since: outlook.stale_since,
        pending: outlook.due.iter().map(pending).collect(),
    };
    context.output.print(&refreshed, |refreshed| {
        let pending = match refreshed.pending.as_slice() {
            [] => "everything is up to date".to_owned(),
            pending => format!("`update` would: {}", pending.join("; ")),
        };
        format!("snapshot {}, {} approved releases; {pending}", refreshed.snapshot, refreshed.releases)
    });
    Ok(())
}

fn pending(due: &Due) -> String {
    let Due { package, verb, version, .. } = due;
    match (verb, version) {
        (Verb::Install, Some(version)) => format!("install {package} {version}"),
        (Verb::Update, Some(version)) => format!("update {package} to {version}"),
        _ => format!("remove {package}"),
    }
}

/// A package in a list.
#[derive(Serialize)]
struct Package {
    package: PackageName,
    version: String,
    title: Text,
    summary: Text,
    installed: Option<String>,
    state: String,
}

pub(super) async fn search(context: &Context, words: &[String]) -> Result<(), Failure> {
    let config = context.config()?;
    let network = context.kept().await?;
    let known = context.known(network, &config)?;
    let (network, current) = (&known.network, &known.current);
    let decisions = known.decide(&context.layout, &config)?;
    let words: Vec<String> = words.iter().map(|word| fold(word)).collect();
    let mut found = Vec::new();
    for (package, entry) in newest_of_each(network, &known.machine.platform) {
        let listing = &entry.listing;
        let texts = [
            package.as_str(),
            &listing.title.fr,
            &listing.title.en,
            &listing.summary.fr,
            &listing.summary.en,
        ];
        let text = fold(&format!("{} {}", texts.join(" "), listing.categories.join(" ")));
        if words.iter().all(|word| text.contains(word)) {
            found.push(Package {
                state: state(decisions.get(package), &known.machine),
                installed: current.packages.get(package).map(|installed| installed.version.to_string()),
                package: package.clone(),
                version: listing.version.to_string(),
                title: listing.title.clone(),
                summary: listing.summary.clone(),
            });
        }
    }
    if found.is_empty() {
        return Err(Failure::no("nothing in the catalogue matches"));
    }
    context.output.print(&found, |found| {
        let mut table = Table::new(["package", "version", "installed", "what it is"]);
        for package in found {
            let installed = package.installed.clone().unwrap_or_default();
            let what = format!("{}: {}", package.title.fr, package.summary.fr);
            table.row([package.package.to_string(), package.version.clone(), installed, what]);
        }
        table.render()
    });
    Ok(())
}

fn newest_of_each<'a>(
    network: &'a Network,
    platform: &Platform,
) -> BTreeMap<&'a PackageName, &'a CatalogueEntry> {
    let mut newest: BTreeMap<&PackageName, &CatalogueEntry> = BTreeMap::new();
    for entry in network.catalogue.iter().filter(|entry| entry.listing.platform.runs_on(platform)) {
        let known = newest.entry(&entry.listing.name).or_insert(entry);
        if known.listing.sequence < entry.listing.sequence {
            *known = entry;
        }
    }
    newest
}

/// Lower case, without the accents of French.
fn fold(text: &str) -> String {
    let mut folded = String::with_capacity(text.len());
    for c in text.chars().flat_map(char::to_lowercase) {
        match c {
            'à' | 'â' | 'ä' => folded.push('a'),
            'ç' => folded.push('c'),
            'é' | 'è' | 'ê' | 'ë' => folded.push('e'),
            'î' | 'ï' => folded.push('i'),
            'ô' | 'ö' => folded.push('o'),
            'ù' | 'û' | 'ü' => folded.push('u'),
            'ÿ' => folded.push('y'),
            'œ' => folded.push_str("oe"),
            'æ' => folded.push_str("ae"),
            c => folded.push(c),
        }
    }
    folded
}

fn state(decision: Option<&Decision>, machine: &Machine) -> String {
    let Some(decision) = decision else {
        return Reason::NotDeployed { college: machine.college.clone() }.to_string();
    };
    match &decision.action {
        Action::Install(entry) => format!("`update` installs {}", entry.listing.version),
        Action::Update(entry) => format!("`update` brings {}", entry.listing.version),
        Action::Remove => "`update` takes it away".to_owned(),
        Action::Keep => decision.reason().map_or(String::new(), ToString::to_string),
    }
}

#[derive(Serialize)]
struct Info {
    package: PackageName,
    title: Text,
    summary: Text,
    licence: String,
    categories: Vec<String>,
    installed: Option<String>,
    state: String,
    versions: Vec<KnownVersion>,
}

#[derive(Serialize)]
struct KnownVersion {
    version: String,
    platform: String,
    sequence: u64,
    download_bytes: u64,
    installed_bytes: u64,
}

pub(super) async fn info(context: &Context, package: &PackageName) -> Result<(), Failure> {
    let config = context.config()?;
    let network = context.kept().await?;
    let known = context.known(network, &config)?;
    let (network, current) = (&known.network, &known.current);
    let decisions = known.decide(&context.layout, &config)?;
    let entries: Vec<_> =
        network.catalogue.iter().rev().filter(|entry| entry.listing.name == *package).collect();
    let newest =
        entries.first().ok_or_else(|| Failure::no(format!("`{package}` is not in the catalogue")))?;
    let info = Info {
        package: package.clone(),
        title: newest.listing.title.clone(),
        summary: newest.listing.summary.clone(),
        licence: newest.listing.licence.clone(),
        categories: newest.listing.categories.clone(),
        installed: current.packages.get(package).map(|installed| installed.version.to_string()),
        state: state(decisions.get(package), &known.machine),
        versions: entries
            .iter()
            .map(|entry| KnownVersion {
                version: entry.listing.version.to_string(),
                platform: entry.listing.platform.to_string(),
                sequence: entry.listing.sequence,
                download_bytes: entry.listing.download_size,
                installed_bytes: entry.listing.installed_size,
            })
            .collect(),
    };
    context.output.print(&info, |info| {
        let mut table =
            Table::new(["version", "platform", "sequence", "download", "installed"]).right([2, 3, 4]);
        for known in &info.versions {
            let (download, size) = (bytes(known.download_bytes), bytes(known.installed_bytes));
            table.row([
                known.version.clone(),
                known.platform.clone(),
                known.sequence.to_string(),
                download,
                size,
            ]);
        }
        format!(
            "{} ({})\n{}\n\nlicence    {}\ncategories {}\ninstalled  {}\nstate      {}\n\n{}",
            info.title.fr,
            info.package,
            info.summary.fr,
            info.licence,
            info.categories.join(", "),
            info.installed.as_deref().unwrap_or("no"),
            info.state,
            table.render()
        )
    });
    Ok(())
}

pub(super) fn list(context: &Context) -> Result<(), Failure> {
    let current = context.layout.current_generation()?;
    context.output.print(&current.packages, |packages| {
        let mut table = Table::new(["package", "version", "size", "commands"]).right([2]);
        for (package, installed) in packages {
            let commands: Vec<&str> =
                installed.launchers.iter().map(|launcher| launcher.name.as_str()).collect();
            let (version, size) = (installed.version.to_string(), bytes(installed.bytes));
            table.row([package.to_string(), version, size, commands.join(" ")]);
        }
        if table.is_empty() { "nothing is installed".to_owned() } else { table.render() }
    });
    Ok(())
}

#[derive(Serialize)]
struct Past {
    generation: u64,
    current: bool,
    created: Option<Instant>,
    reason: String,
    packages: BTreeMap<PackageName, String>,
}

pub(super) fn history(context: &Context) -> Result<(), Failure> {
    let current = context.layout.current_number()?;
    let past: Vec<Past> = context
        .layout
        .all_generations()?
        .into_iter()
        // One above the current was being made when something came between.
        .filter(|generation| generation.number <= current)
        .map(|generation| Past {
            generation: generation.number,
            current: generation.number == current,
            created: generation.created,
            reason: generation.reason,
            packages: generation
                .packages
                .into_iter()
                .map(|(package, installed)| (package, installed.version.to_string()))
                .collect(),
        })
        .collect();
    context.output.print(&past, |past| {
        let mut table = Table::new(["", "generation", "made", "by", "packages"]).right([1]);
        for generation in past {
            let packages: Vec<String> =
                generation.packages.iter().map(|(package, version)| format!("{package} {version}")).collect();
            table.row([
                if generation.current { "*".to_owned() } else { String::new() },
                generation.generation.to_string(),
                generation.created.map_or(String::new(), |created| created.to_string()),
                generation.reason.clone(),
                packages.join(", "),
            ]);
        }
        if table.is_empty() { "nothing was installed yet".to_owned() } else { table.render() }
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folding_forgets_case_and_accents() {
        assert_eq!(fold("Géométrie ŒUVRE Ça Noël"), "geometrie oeuvre ca noel");
    }
}
