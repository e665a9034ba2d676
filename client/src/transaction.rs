//! Executing a plan: fetch → stage → check → activate (promise 4).
//!
//! Each step leaves the workstation as it was, up to the one rename of `current`; each can be killed. Before that
//! rename everything it leads to is synced, all at once.

use std::io;
use std::path::Path;
use std::sync::Arc;

use fs_err as fs;
use mirabelle_content::{ObjectStore, durable};
use mirabelle_manifests::{
    ApprovedRelease, CatalogueEntry, Digest, Instant, Launcher, MAX_MANIFEST_BYTES, PackageName,
};
use mirabelle_terminal::{Failure, OrFail, watch};
use mirabelle_transfer::{Fetcher, HeldManifest, Network, ReleaseRequest, Stock};
use tokio::task::spawn_blocking;

use crate::generation::{Generation, Installed};
use crate::journal::Transaction;
use crate::layout::Layout;
use crate::plan::Plan;
use crate::{collect, platform, release_tree};

/// What a transaction works with. The lock on the directory is held by whoever makes one.
pub(crate) struct Executor<'a> {
    pub(crate) layout: &'a Layout,
    pub(crate) store: ObjectStore,
    pub(crate) now: Instant,
}

/// Where releases come from, for plans that activate any.
pub(crate) struct Source<'a> {
    pub(crate) fetcher: &'a Fetcher,
    pub(crate) network: &'a Network,
}

impl Executor<'_> {
    /// Executes `plan`; returns the generation that is current then.
    pub(crate) async fn execute(
        &self,
        plan: &Plan,
        source: Option<&Source<'_>>,
        reason: &str,
    ) -> Result<Generation, Failure> {
        let base = self.layout.current_generation()?;
        if plan.is_empty() {
            self.layout.end()?;
            return Ok(base);
        }
        let mut next = self.successor(&base, reason)?;
        self.layout.begin(&Transaction {
            base: base.number,
            next: next.number,
            reason: reason.to_owned(),
            asked_for: plan.asked_for.iter().cloned().collect(),
        })?;

        for package in &plan.remove {
            next.packages.remove(package);
            next.held.remove(package);
        }
        for (package, entry) in &plan.activate {
            let source = source.ok_or_else(|| Failure::usage("no node to install from"))?;
            let release = self.fetch(source, entry).await?;
            next.held.remove(package);
            next.packages.insert(package.clone(), self.stage(release).await?);
        }
        self.activate(next)
    }

    /// Makes a generation with other packages current: what `rollback` does.
    pub(crate) fn return_to(&self, mut next: Generation) -> Result<Generation, Failure> {
        let base = self.layout.current_generation()?;
        let numbered = self.successor(&base, &next.reason)?;
        (next.number, next.created) = (numbered.number, numbered.created);
        self.layout.begin(&Transaction {
            base: base.number,
            next: next.number,
            reason: next.reason.clone(),
            asked_for: Vec::new(),
        })?;
        self.activate(next)
    }

    /// A copy of `base` under a number that no generation has had.
    fn successor(&self, base: &Generation, reason: &str) -> Result<Generation, Failure> {
        let newest = self.layout.generation_numbers()?.last().copied().unwrap_or(0);
        let mut next = base.clone();
        next.number = newest.max(base.number) + 1;
        next.parent = base.number;
        next.created = Instant::from_second(self.now.as_second()).ok();
        next.reason = reason.to_owned();
        Ok(next)
    }

    /// Fetch: the manifest, both bodies' word for it, and every object that is missing; by a delta from a release that is
    /// installed, if that is cheapest.
    async fn fetch(
        &self,
        source: &Source<'_>,
        entry: &CatalogueEntry,
    ) -> Result<Arc<ApprovedRelease>, Failure> {
        let label = format!("{} {}", entry.listing.name, entry.listing.version);
        let what = || format!("cannot install `{label}`");
        let mut request = request(self.layout, &self.store, source, entry).await?;
        let cost = request.plan().await.or_fail(what)?.cost();
        let (meter, partials) = (source.fetcher.meter().clone(), self.layout.partials());
        let fetching = request.obtain(&self.store, &partials);
        let obtained =
            watch(&format!("fetching {label}"), cost, || meter.received(), fetching).await.or_fail(what)?;
        tracing::info!(package = %entry.listing.name, version = %entry.listing.version, by = %obtained.kind,
            way = obtained.way, received_bytes = obtained.received, "release was received");
        let release = obtained.release;
        durable::write_atomically(&self.layout.manifest(release.digest()), &obtained.manifest)
            .or_fail(what)?;
        for delta in obtained.deltas {
            delta.discard().or_fail(what)?;
        }
        Ok(release)
    }

    /// Stage: the release's tree, built aside and then put in its place.
    async fn stage(&self, release: Arc<ApprovedRelease>) -> Result<Installed, Failure> {
        let installed = Installed::of(&release);
        let label = format!("{} {}", release.name, release.version);
        let what = || format!("cannot install `{label}`");
        let destination = self.layout.release(&release.name, &installed.id);
        let lock = self.layout.run_lock(&release.name, &installed.id);
        if !lock.exists() {
            durable::write_atomically(&lock, b"").or_fail(what)?;
        }
        if destination.exists() {
            if release_tree::first_missing(&release, &destination).is_none() {
                return Ok(installed);
            }
            tracing::warn!(package = label, "a release's tree was not whole and is built anew");
            self.layout.discard(&destination)?;
        }
        let staging = self.layout.staging().join(format!("{}-{}", release.name, installed.id));
        let store = self.store.clone();
        let building = spawn_blocking(move || -> io::Result<()> {
            release_tree::build(&release, &store, &staging)?;
            if let Some(directory) = destination.parent() {
                fs::create_dir_all(directory)?;
            }
            fs::rename(&staging, &destination)
        });
        building.await.or_fail(what)?.or_fail(what)?;
        Ok(installed)
    }

    /// Check and activate: the generation's directory, one sync, a look whether all of it is there, the switch.
    fn activate(&self, next: Generation) -> Result<Generation, Failure> {
        let what = || format!("cannot activate generation {}", next.number);
        refuse_colliding_launchers(&next)?;
        let staging = self.layout.staging().join(format!("generation-{}", next.number));
        self.build_generation(&next, &staging).or_fail(what)?;
        fs::create_dir_all(self.layout.generations()).or_fail(what)?;
        fs::rename(&staging, self.layout.generation(next.number)).or_fail(what)?;
        durable::sync_file_system(self.layout.root()).or_fail(what)?;

        // Before the switch: what is not whole never becomes current, whatever comes between.
        if let Err(failure) = self.check(&next) {
            self.layout.discard(&self.layout.generation(next.number))?;
            self.layout.end()?;
            return Err(failure);
        }
        self.switch(next.number)?;
        self.layout.show_current(next.number)?;
        self.layout.end()?;
        // The transaction is over; what it left behind can also be swept next time.
        if let Err(failure) = collect::collect(self.layout, &self.store) {
            tracing::warn!("old releases could not be swept\n{}", failure.render().trim_end());
        }
        Ok(next)
    }

    /// The one rename that a person sees.
    fn switch(&self, number: u64) -> Result<(), Failure> {
        let path = self.layout.current();
        durable::write_atomically(&path, format!("{number}\n").as_bytes())
            .or_fail(|| format!("cannot replace `{}`", path.display()))
    }

    fn build_generation(&self, generation: &Generation, directory: &Path) -> io::Result<()> {
        let program = std::env::current_exe()?;
        let root = self.layout.root();
        for below in ["bin", "apps", "share/applications"] {
            fs::create_dir_all(directory.join(below))?;
        }
        for (package, installed) in &generation.packages {
            let tree = Path::new("../../../releases").join(package.as_str()).join(&installed.id);
            fs::os::unix::fs::symlink(tree, directory.join("apps").join(package.as_str()))?;
            for launcher in &installed.launchers {
                let name = launcher.name.as_str();
                platform::write_launcher(&directory.join("bin").join(name), &program, root, name)?;
                let entry = desktop_entry(root, package, launcher);
                fs::write(directory.join(format!("share/applications/mirabelle-{name}.desktop")), entry)?;
            }
        }
        let bytes = serde_json::to_vec_pretty(generation)?;
        fs::write(directory.join("generation.json"), bytes)
    }

    /// Check: every file of the new generation is there, with its length.
    fn check(&self, generation: &Generation) -> Result<(), Failure> {
        for (package, installed) in &generation.packages {
            let release = self.layout.read_manifest(installed)?;
            let tree = self.layout.release(package, &installed.id);
            if let Some(entry) = release_tree::first_missing(&release, &tree) {
                return Err(Failure::no(format!(
                    "`{package}` {} is not whole: `{}` is missing or cut short",
                    installed.version, entry.path
                ))
                .hint("what was current stays so; `mirabelle repair` puts files right"));
            }
        }
        Ok(())
    }
}

/// Asks for a release, with what is installed to start from.
pub(crate) async fn request<'a>(
    layout: &Layout,
    store: &ObjectStore,
    source: &Source<'a>,
    entry: &'a CatalogueEntry,
) -> Result<ReleaseRequest<'a>, Failure> {
    let what = || format!("cannot plan `{} {}`", entry.listing.name, entry.listing.version);
    let generations = layout.all_generations()?;
    let installed = generations.iter().filter_map(|generation| generation.packages.get(&entry.listing.name));
    let mut releases: Vec<Digest> = installed.map(|installed| installed.release).collect();
    releases.sort_unstable();
    releases.dedup();
    let read =
        |release| durable::read_if_present(&layout.manifest(release), MAX_MANIFEST_BYTES).or_fail(what);
    let mut held = Vec::new();
    for release in releases {
        held.extend(read(release)?.map(|bytes| HeldManifest { release, bytes }));
    }
    let manifest = read(entry.digest)?.filter(|bytes| Digest::of(bytes) == entry.digest);
    let stock = Stock::Store(store.clone());
    ReleaseRequest::new(source.fetcher, source.network, entry, stock, held, manifest).await.or_fail(what)
}

impl Layout {
    /// Shows the current generation to programs that read directories, where the system has links.
    pub(crate) fn show_current(&self, number: u64) -> Result<(), Failure> {
        let generation = Path::new("generations").join(number.to_string());
        platform::show_active(&self.active(), &generation)
            .or_fail(|| "cannot show what is current".to_owned())
    }
}

fn refuse_colliding_launchers(generation: &Generation) -> Result<(), Failure> {
    let mut owners: std::collections::BTreeMap<&PackageName, &PackageName> =
        std::collections::BTreeMap::new();
    for (package, installed) in &generation.packages {
        for launcher in &installed.launchers {
            if let Some(other) = owners.insert(&launcher.name, package) {
                return Err(Failure::no(format!(
                    "`{package}` and `{other}` both offer a command `{}`, and cannot be installed together",
                    launcher.name
                )));
            }
        }
    }
    Ok(())
}

/// A desktop entry (freedesktop.org, Desktop Entry Specification 1.5). Texts hold no control characters, so no value
/// can end its line.
fn desktop_entry(root: &Path, package: &PackageName, launcher: &Launcher) -> String {
    let active = root.join("active");
    let icon = launcher.icon.as_ref().map_or(String::new(), |icon| {
        format!("Icon={}\n", active.join("apps").join(package.as_str()).join(icon.as_str()).display())
    });
    format!(
        "[Desktop Entry]\nType=Application\nName={}\nName[fr]={}\nExec=\"{}\"\nTerminal={}\n{icon}X-Mirabelle-Package={package}\n",
        launcher.title.en.replace('\\', "\\\\"),
        launcher.title.fr.replace('\\', "\\\\"),
        active.join("bin").join(launcher.name.as_str()).display(),
        launcher.terminal,
    )
}
