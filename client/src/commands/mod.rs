//! One file per command, or per few that belong together.

mod agent;
mod change;
mod config;
mod enroll;
mod look;
mod routes;
mod run;
mod status;
mod store;
mod support;
mod tend;
mod why;

use std::collections::{BTreeMap, BTreeSet};

use clap::CommandFactory;
use mirabelle_manifests::tuf::RoleName;
use mirabelle_manifests::{
    Asker, Decision, Digest, Instant, Keep, Machine, MachineState, PackageName, Situation,
};
use mirabelle_terminal::{Failure, Kind, OrFail, Output, print_document, runtime};
use mirabelle_transfer::{Fetcher, Network, RetryPolicy, Upstream, kept_network, refresh_or_keep};

use crate::agent::socket;
use crate::cli::{Cli, Command, Settings};
use crate::config::Config;
use crate::discover::{self, NodeSetting, Place};
use crate::generation::Generation;
use crate::layout::Layout;
use crate::outlook::Outlook;
use crate::room::Room;
use crate::settings::MachineSettings;
use crate::state::State;
use crate::transaction::Executor;

/// What every command is given.
struct Context {
    layout: Layout,
    output: Output,
    settings: Settings,
    now: Instant,
    /// Whether to wait for whoever is changing something.
    waits: bool,
}

impl Context {
    fn config(&self) -> Result<Config, Failure> {
        Config::load(&self.layout, &self.settings)
    }

    /// Asks the node for what is new; where it does not answer, or not with the truth, one that is found on this network.
    async fn refresh(&self, config: &Config) -> Result<(Fetcher, Network), Failure> {
        let known = discover::known(&self.layout, config);
        let mut first_failure = None;
        if let Some(node) = &known {
            match self.refresh_from(config, node).await {
                Err(failure) if is_another_nodes_turn(&failure) => {
                    if failure.kind() == Kind::Trust {
                        tracing::warn!(%node, "the node does not say what was signed\n{}", failure.render().trim_end());
                    }
                    first_failure = Some(failure);
                }
                done => return done,
            }
        }
        let places: &[Place] = if discover::may_search(&config.node) { &Place::ALL } else { &[] };
        for place in places {
            let mut found = place.search().await;
            if let NodeSetting::At(node) = &config.node
                && *place == Place::Dns
            {
                // The one that is set comes before all that are found; it may be back.
                found.insert(0, node.clone());
            }
            for node in found.iter().filter(|node| Some(*node) != known.as_ref()) {
                match self.refresh_from(config, node).await {
                    Ok(done) => {
                        discover::note(&self.layout, config, node);
                        return Ok(done);
                    }
                    Err(failure) if is_another_nodes_turn(&failure) => {
                        tracing::info!(%node, "a node that was found is passed over\n{}", failure.render().trim_end());
                        first_failure.get_or_insert(failure);
                    }
                    failed => return failed,
                }
            }
        }
        Err(first_failure.unwrap_or_else(no_node))
    }

    async fn refresh_from(&self, config: &Config, node: &Upstream) -> Result<(Fetcher, Network), Failure> {
        let fetcher = ask(node)?;
        let network = refresh_or_keep(&fetcher, &self.layout.trust(), self.now)
            .await
            .or_fail(|| format!("cannot refresh from the node {node}"))
            .map_err(|failure| match &config.node {
                NodeSetting::At(_) => failure,
                NodeSetting::Discover => failure.hint("it was found on this network: is it the right one?"),
            })?;
        say_how_fresh(&network);
        Ok((fetcher, network))
    }

    /// What was learnt at the last refresh, without asking anybody.
    async fn kept(&self) -> Result<Network, Failure> {
        let refreshed = self.layout.trust().read(&RoleName::timestamp());
        if refreshed.or_fail(|| "cannot read the trusted metadata".to_owned())?.is_none() {
            return Err(
                Failure::no("this workstation has not asked its node yet").hint("run `mirabelle refresh`")
            );
        }
        let network = kept_network(&self.layout.trust(), self.now)
            .await
            .or_fail(|| "cannot read what was learnt at the last refresh".to_owned())
            .map_err(|failure| failure.hint("run `mirabelle refresh`"))?;
        say_how_fresh(&network);
        Ok(network)
    }

    /// Takes the lock and brings the directory in order: what a cut interrupted is finished or taken back.
    fn begin<'a>(&'a self, config: &'a Config) -> Result<Begun<'a>, Failure> {
        let lock = if self.waits { self.layout.wait_for_lock()? } else { self.layout.lock()? };
        let store = self.layout.objects()?;
        let executor = Executor { layout: &self.layout, config, store, now: self.now };
        executor.recover()?;
        let (current, state) = (self.layout.current_generation()?, self.layout.read_state()?);
        Ok(Begun { executor, current, state, _lock: lock })
    }

    /// What there is to decide with: what the network says, and what this machine has.
    fn known(&self, network: Network, config: &Config) -> Result<Known, Failure> {
        let current = self.layout.current_generation()?;
        let state = self.layout.read_state()?.on_machine(&current);
        Ok(Known { network, machine: config.machine.clone(), state, current, now: self.now })
    }
}

/// What there is to decide with.
struct Known {
    network: Network,
    machine: Machine,
    state: MachineState,
    current: Generation,
    now: Instant,
}

impl Known {
    fn situation(&self) -> Situation<'_> {
        Situation {
            catalogue: &self.network.catalogue,
            deployment: &self.network.deployment,
            brake: &self.network.brake,
            machine: &self.machine,
            state: &self.state,
            now: self.now,
        }
    }

    /// As if `asker` had asked for these packages; an administrator as if nobody had ever gone back from one or seen it fail.
    fn asking(&mut self, packages: &BTreeSet<PackageName>, asker: Asker) {
        for package in packages {
            self.state
                .asked
                .entry(package.clone())
                .and_modify(|known| *known = asker.max(*known))
                .or_insert(asker);
        }
        // What an administrator went back from, others do not bring back.
        if asker == Asker::Administrator {
            self.state.held.retain(|package, _| !packages.contains(package));
            let of_package = |release: &Digest| {
                self.network
                    .catalogue
                    .by_digest(*release)
                    .is_some_and(|entry| packages.contains(&entry.listing.name))
            };
            self.state.quarantine.retain(|release, _| !of_package(release));
        }
    }

    /// What to do about every package, within the room that the disk has.
    fn decide(&self, layout: &Layout, config: &Config) -> Result<BTreeMap<PackageName, Decision>, Failure> {
        let mut decisions = self.situation().decide();
        if decisions.values().any(|decision| decision.release().is_some()) {
            Room::of(layout, config)?.leave_out(&mut decisions)?;
        }
        Ok(decisions)
    }

    fn outlook(&self, layout: &Layout, config: &Config) -> Result<Outlook, Failure> {
        let decisions = self.decide(layout, config)?;
        let mut outlook = Outlook::of(&self.situation(), &self.network, layout, &self.current, decisions);
        let settings = MachineSettings { layout, machine: &self.machine, system_root: &config.system_root };
        if settings.may_be_seen() {
            if settings.are_stale(&self.network.deployment.values_of(&self.machine))? {
                outlook.drift.push("the deployment's values".to_owned());
            }
            let drifted = settings.audit(&self.current)?;
            outlook.drift.extend(drifted.into_iter().map(|(_, path, what)| format!("`{path}` is {what}")));
        }
        Ok(outlook)
    }
}

/// Says what a person must know about what follows: the college is cut off, or the clock is wrong.
fn say_how_fresh(network: &Network) {
    if let Some(since) = network.stale_since() {
        eprintln!(
            "warning: the catalogue has not been renewed since {since:.0}; what was known before can still be \
             installed, and nothing newer is accepted"
        );
    }
    if let Some(clock) = network.clock_behind() {
        eprintln!(
            "warning: this machine's clock says {:.0}, but the catalogue was signed at {:.0}: set the clock",
            clock.says, clock.at_least
        );
    }
}

fn ask(node: &Upstream) -> Result<Fetcher, Failure> {
    Fetcher::new(node.clone(), RetryPolicy::default()).or_fail(|| "cannot ask the node".to_owned())
}

/// Whoever would be asked, without looking for anybody.
fn ask_known(context: &Context, config: &Config) -> Result<Fetcher, Failure> {
    ask(&discover::known(&context.layout, config).ok_or_else(no_node)?)
}

/// True for a node that is not there, or does not say what was signed.
fn is_another_nodes_turn(failure: &Failure) -> bool {
    matches!(failure.kind(), Kind::Network | Kind::Trust)
}

fn no_node() -> Failure {
    Failure::no("no node was found on this network")
        .hint("`mirabelle refresh` looks for one; or set `node` in `client.toml`")
}

/// A command that may change something.
struct Begun<'a> {
    executor: Executor<'a>,
    current: Generation,
    state: State,
    _lock: fs_err::File,
}

impl Begun<'_> {
    /// Keeps what settings are filled with, for when the network is away.
    fn learn(&self, network: &Network) -> Result<(), Failure> {
        let machine = &self.executor.config.machine;
        self.executor.settings().remember(&network.deployment.values_of(machine))
    }
}

/// Runs a command.
pub fn run(cli: Cli) -> Result<(), Failure> {
    let context = Context {
        layout: Layout::new(&cli.root),
        output: Output::new(cli.json),
        settings: cli.settings,
        now: Instant::now(),
        waits: cli.wait,
    };
    match cli.command {
        Command::Enroll(arguments) => enroll::run(&context, arguments),
        Command::Refresh => runtime()?.block_on(look::refresh(&context)),
        Command::Search { words } => runtime()?.block_on(look::search(&context, &words)),
        Command::Info { package } => runtime()?.block_on(look::info(&context, &package)),
        Command::Routes { package } => runtime()?.block_on(routes::run(&context, &package)),
        Command::List => look::list(&context),
        Command::History => look::history(&context),
        Command::Install { packages, on_behalf_of, adopt, dry_run } => {
            let packages: BTreeSet<PackageName> = packages.into_iter().collect();
            if let Some(answer) = agent::instead(&context, &socket::Request::install(&packages)) {
                return answer;
            }
            let wish = change::Wish { packages, asker: on_behalf_of.into(), adopt };
            runtime()?.block_on(change::install(&context, &wish, dry_run))
        }
        Command::Update { packages, offline, dry_run } => {
            let packages: BTreeSet<PackageName> = packages.into_iter().collect();
            runtime()?.block_on(change::update(&context, &packages, offline, dry_run))
        }
        Command::Prepare => runtime()?.block_on(change::prepare(&context)),
        Command::Resume { before_login } => runtime()?.block_on(agent::resume(&context, before_login)),
        Command::Plan { refresh } => runtime()?.block_on(why::plan(&context, refresh)),
        Command::Why { package, machine, room, tags } => {
            let other = machine.map(|id| why::Other { id, room, tags: tags.into_iter().collect() });
            runtime()?.block_on(why::why(&context, &package, other))
        }
        Command::Agent => agent::run(&context),
        Command::Status => status::run(&context),
        Command::SupportBundle { output } => support::run(&context, &output),
        Command::Remove { packages, on_behalf_of, dry_run } => {
            let packages: BTreeSet<PackageName> = packages.into_iter().collect();
            if let Some(answer) = agent::instead(&context, &socket::Request::remove(&packages)) {
                return answer;
            }
            runtime()?.block_on(change::remove(&context, &packages, on_behalf_of.into(), dry_run))
        }
        Command::Keep { package, on_behalf_of, sequence, until } => {
            let keep = sequence.zip(until).map(|(sequence, until)| Keep { sequence, until });
            let request = match &keep {
                Some(Keep { sequence, until }) => {
                    socket::Request::Keep { package: package.clone(), sequence: *sequence, until: *until }
                }
                None => socket::Request::Release { package: package.clone() },
            };
            if let Some(answer) = agent::instead(&context, &request) {
                return answer;
            }
            runtime()?.block_on(change::keep(&context, &package, keep, on_behalf_of.into()))
        }
        Command::Store { print } => store::run(&context, print),
        Command::Rollback { dry_run } => change::rollback(&context, dry_run),
        Command::Verify => tend::verify(&context),
        Command::Repair => runtime()?.block_on(tend::repair(&context)),
        Command::Run { name, arguments } => run::run(&context, &name, &arguments),
        Command::Config { check } => config::run(&context, check),
        Command::Print { kind } => print_document(kind, Cli::command()),
    }
}
