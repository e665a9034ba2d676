//! Executing a plan: fetch → stage → activate → check → keep or return (promise 4).
//!
//! ```text
//! preparing ──▶ installing ──▶ switching ──▶ checking ──▶ kept
//!  fetch, stage,  native         `current`,    health         │ something failed
//!  generation,    packages       settings      checks         ▼
//!  one sync                                                undoing ──▶ the base, and the release in quarantine
//! ```
//!
//! Up to the end of `preparing` nothing that a person sees has changed, and everything that the switch leads to is on the
//! disk. From then on the journal says how far it is; `transaction/steps.rs` goes on from any step, whether the step before
//! was made a moment ago or before a power cut. Each step finds out what is done already.

mod steps;

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use fs_err as fs;
use mirabelle_content::{ObjectStore, durable};
use mirabelle_manifests::{
    ApprovedRelease, CatalogueEntry, Digest, Instant, MAX_MANIFEST_BYTES, PackageName,
};
use mirabelle_terminal::{Failure, OrFail, stage as say_stage, watch};
use mirabelle_transfer::{Fetcher, HeldManifest, Network, ReleaseRequest, Stock};
use tokio::task::spawn_blocking;

use crate::agent::self_update;
use crate::config::Config;
use crate::faults::point;
use crate::generation::{Generation, Installed};
use crate::journal::{NativeStep, Step, Transaction};
use crate::layout::Layout;
use crate::plan::{Activation, InstallPlan, advice};
use crate::room::Room;
use crate::settings::MachineSettings;
use crate::{integration, native, platform, release_tree};

/// Room for what a switch writes beside settings: the journal a dozen times, one after the other, `current`, the state, what
/// commands say.
const SWITCH_BYTES: u64 = 256 << 10;

/// What a transaction works with. The lock on the directory is held by whoever makes one.
pub(crate) struct Executor<'a> {
    pub(crate) layout: &'a Layout,
    pub(crate) config: &'a Config,
    pub(crate) store: ObjectStore,
    pub(crate) now: Instant,
}

/// Where releases come from, for plans that activate any.
#[derive(Clone, Copy)]
pub(crate) struct Source<'a> {
    pub(crate) fetcher: &'a Fetcher,
    pub(crate) network: &'a Network,
}

impl Executor<'_> {
    /// Executes `plan`; returns the generation that is current then.
    pub(crate) async fn execute(
        &self,
        plan: &InstallPlan,
        source: Option<Source<'_>>,
        reason: &str,
    ) -> Result<Generation, Failure> {
        let base = self.layout.current_generation()?;
        if plan.is_empty() {
            return Ok(base);
        }
        self.refuse_too_large(plan)?;
        let mut next = self.successor(&base, reason)?;
        let mut transaction = self.begin(&base, &next)?;
        for package in plan.remove.keys() {
            next.packages.remove(package);
            next.held.remove(package);
        }
        for (package, installed) in self.bring(plan, source).await? {
            next.held.remove(&package);
            next.packages.insert(package, installed);
        }
        self.prepare_switch(&mut transaction, &base, &next)?;
        self.finish(transaction)
    }

    /// Fetches and stages what `plan` activates, and changes nothing else: what may be done ahead of the hour.
    pub(crate) async fn prepare(&self, plan: &InstallPlan, source: Source<'_>) -> Result<(), Failure> {
        let ahead = plan.activate.values().map(|activation| activation.entry.digest).collect();
        self.layout.change_state(|state| state.ahead = ahead)?;
        let mut first_failure = None;
        for (package, activation) in &plan.activate {
            let one = InstallPlan {
                activate: BTreeMap::from([(package.clone(), activation.clone())]),
                ..InstallPlan::default()
            };
            // One that cannot be had holds up no other.
            if let Err(failure) = self.bring(&one, Some(source)).await {
                first_failure.get_or_insert(failure);
            }
        }
        let synced = durable::sync_file_system(self.layout.root());
        synced.or_fail(|| "cannot prepare what is to come".to_owned())?;
        first_failure.map_or(Ok(()), Err)
    }

    /// Refuses unless every native package of `plan` is on the machine already: `adopt` takes over and runs nothing.
    pub(crate) async fn refuse_unless_present(
        &self,
        plan: &InstallPlan,
        source: Source<'_>,
    ) -> Result<(), Failure> {
        for (package, installed) in self.bring(plan, Some(source)).await? {
            if !installed.native || !native::is_present(self.layout, &package, installed.release)? {
                return Err(Failure::no(format!(
                    "cannot take over `{package}` {}: it is not on this machine",
                    installed.version
                ))
                .hint(format!("`mirabelle install {package}` installs it")));
            }
        }
        Ok(())
    }

    /// Makes a generation with other packages current: what `rollback` does.
    pub(crate) fn return_to(&self, mut next: Generation) -> Result<Generation, Failure> {
        let base = self.layout.current_generation()?;
        let numbered = self.successor(&base, &next.reason)?;
        (next.number, next.created) = (numbered.number, numbered.created);
        let mut transaction = self.begin(&base, &next)?;
        self.prepare_switch(&mut transaction, &base, &next)?;
        self.finish(transaction)
    }

    fn begin(&self, base: &Generation, next: &Generation) -> Result<Transaction, Failure> {
        let transaction = Transaction {
            base: base.number,
            next: next.number,
            reason: next.reason.clone(),
            native: Vec::new(),
            step: Step::Preparing,
        };
        self.layout.write_journal(&transaction)?;
        at("begun")?;
        Ok(transaction)
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

    /// Fetch and stage: every release that `plan` activates is here, its tree in its place. Whether there is room for all of
    /// them is known before any of their content is fetched.
    async fn bring(
        &self,
        plan: &InstallPlan,
        source: Option<Source<'_>>,
    ) -> Result<BTreeMap<PackageName, Installed>, Failure> {
        let mut brought = BTreeMap::new();
        if plan.activate.is_empty() {
            return Ok(brought);
        }
        let source = source.ok_or_else(|| Failure::usage("no node to install from"))?;
        self.refuse_too_large(plan)?;
        for (package, activation) in &plan.activate {
            let release = self.fetch(source, &activation.entry).await?;
            at("fetched")?;
            say_stage("installing");
            brought.insert(package.clone(), self.stage(release, activation.is_automatic()).await?);
            at("staged")?;
        }
        Ok(brought)
    }

    /// Refuses what would leave less free than the reserve.
    fn refuse_too_large(&self, plan: &InstallPlan) -> Result<(), Failure> {
        let room = Room::of(self.layout, self.config)?;
        let mut needed = 0_u64;
        for (package, Activation { entry, .. }) in &plan.activate {
            needed = needed.saturating_add(room.missing_bytes(entry)?);
            if let Some(reason) = room.refuses(needed) {
                return Err(
                    Failure::no(format!("cannot install `{package}`: {reason}")).hint(advice(&reason))
                );
            }
        }
        Ok(())
    }

    /// Fetch: the manifest, both bodies' word for it, and every object that is missing; by a delta from a release that is
    /// installed, if that is cheapest.
    async fn fetch(
        &self,
        source: Source<'_>,
        entry: &CatalogueEntry,
    ) -> Result<Arc<ApprovedRelease>, Failure> {
        let label = format!("{} {}", entry.listing.name, entry.listing.version);
        let what = || format!("cannot install `{label}`");
        let mut request = request(self.layout, &self.store, &source, entry).await?;
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
    async fn stage(&self, release: Arc<ApprovedRelease>, automatic: bool) -> Result<Installed, Failure> {
        let installed = Installed::of(&release, automatic);
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

    /// The end of preparing: the generation's directory, one sync, a look whether all of it is there and can be set. What is
    /// not whole never becomes current, whatever comes between.
    fn prepare_switch(
        &self,
        transaction: &mut Transaction,
        base: &Generation,
        next: &Generation,
    ) -> Result<(), Failure> {
        let what = || format!("cannot activate generation {}", next.number);
        let settings = refuse_colliding_launchers(next)
            .and_then(|()| self.refuse_impossible_settings(base, next))
            .and_then(|()| self.settings().room(next));
        let settings = settings.or_else(|refused| self.give_up(next).and(Err(refused)))?;
        let staging = self.layout.staging().join(format!("generation-{}", next.number));
        build_generation(self.layout, next, &self_update::machines_own()?, &staging).or_fail(what)?;
        at("built")?;
        fs::create_dir_all(self.layout.generations()).or_fail(what)?;
        fs::rename(&staging, self.layout.generation(next.number)).or_fail(what)?;
        at("placed")?;
        durable::sync_file_system(self.layout.root()).or_fail(what)?;
        at("synced")?;
        self.check_whole(next)
            .and_then(|()| self.refuse_no_room(next, settings))
            .or_else(|failure| self.give_up(next).and(Err(failure)))?;
        transaction.native = native_steps(base, next);
        transaction.step = Step::Installing { done: 0, attempts: 0 };
        self.layout.write_journal(transaction)?;
        at("prepared")
    }

    /// Refuses settings that cannot be made, before native packages come that would have to go again for them.
    fn refuse_impossible_settings(&self, base: &Generation, next: &Generation) -> Result<(), Failure> {
        let wanted = self.settings().wanted(next)?;
        // What is about to be installed may bring the users to whom files belong.
        let owners = native_steps(base, next).iter().all(|step| step.to.is_none());
        match self.settings().impossible(&wanted, owners)? {
            Some((_, why)) => Err(why),
            None => Ok(()),
        }
    }

    /// Refuses to begin what a full disk would stop half-way: what follows writes little, but it does write.
    fn refuse_no_room(&self, next: &Generation, settings: u64) -> Result<(), Failure> {
        let what = || format!("cannot activate generation {}", next.number);
        let system = self.config.system_root.ancestors().find(|place| place.exists());
        for place in std::iter::once(self.layout.root()).chain(system.filter(|_| settings > 0)) {
            let disk = platform::disk_space(place).or_fail(what)?;
            if disk.free < SWITCH_BYTES.saturating_add(settings) {
                return Err(io::Error::from(io::ErrorKind::StorageFull)).or_fail(what);
            }
        }
        Ok(())
    }

    /// Ends a transaction of which nobody has seen anything yet.
    fn give_up(&self, next: &Generation) -> Result<(), Failure> {
        self.layout.discard(&self.layout.generation(next.number))?;
        self.layout.end_journal()
    }

    /// Check: every file of the new generation is there, with its length.
    fn check_whole(&self, generation: &Generation) -> Result<(), Failure> {
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

    /// The settings of this machine.
    pub(crate) fn settings(&self) -> MachineSettings<'_> {
        MachineSettings {
            layout: self.layout,
            machine: &self.config.machine,
            system_root: &self.config.system_root,
        }
    }
}

fn at(name: &'static str) -> Result<(), Failure> {
    point(name).or_fail(|| format!("cannot go on from `{name}`"))
}

/// The native packages that differ between two generations: what is taken away first, since what comes may not go together
/// with it.
fn native_steps(base: &Generation, next: &Generation) -> Vec<NativeStep> {
    let native = |generation: &Generation, package: &PackageName| {
        generation
            .packages
            .get(package)
            .filter(|installed| installed.native)
            .map(|installed| installed.release)
    };
    let packages: std::collections::BTreeSet<&PackageName> =
        base.packages.keys().chain(next.packages.keys()).collect();
    let steps = packages.into_iter().filter_map(|package| {
        let (from, to) = (native(base, package), native(next, package));
        (from != to).then(|| NativeStep { package: package.clone(), from, to })
    });
    let (gone, come): (Vec<NativeStep>, Vec<NativeStep>) = steps.partition(|step| step.to.is_none());
    gone.into_iter().chain(come).collect()
}

fn build_generation(
    layout: &Layout,
    generation: &Generation,
    program: &Path,
    directory: &Path,
) -> io::Result<()> {
    integration::build(layout, generation, program, directory)?;
    let bytes = serde_json::to_vec_pretty(generation)?;
    fs::write(directory.join("generation.json"), bytes)
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
    let mut owners: BTreeMap<&PackageName, &PackageName> = BTreeMap::new();
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
