//! One file per command, or per few that belong together.

mod change;
mod config;
mod enroll;
mod look;
mod routes;
mod run;
mod tend;

use std::collections::BTreeSet;

use clap::CommandFactory;
use mirabelle_manifests::tuf::RoleName;
use mirabelle_manifests::{Instant, PackageName, Platform};
use mirabelle_terminal::{Failure, OrFail, Output, print_document, runtime};
use mirabelle_transfer::{Fetcher, Network, RetryPolicy, kept_network, refresh_or_keep};

use crate::cli::{Cli, Command, Settings};
use crate::config::Config;
use crate::decide::Situation;
use crate::generation::Generation;
use crate::layout::Layout;
use crate::transaction::Executor;

/// What every command is given.
struct Context {
    layout: Layout,
    output: Output,
    settings: Settings,
    now: Instant,
}

impl Context {
    fn config(&self) -> Result<Config, Failure> {
        Config::load(&self.layout, &self.settings)
    }

    /// Asks the node for what is new.
    async fn refresh(&self, config: &Config) -> Result<(Fetcher, Network), Failure> {
        let fetcher = ask(config)?;
        let network = refresh_or_keep(&fetcher, &self.layout.trust(), self.now)
            .await
            .or_fail(|| format!("cannot refresh from the node {}", config.node))?;
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

    /// Takes the lock and brings the directory in order.
    fn begin(&self) -> Result<Begun<'_>, Failure> {
        let lock = self.layout.lock()?;
        let interrupted = self.layout.recover()?;
        let store = self.layout.objects()?;
        let executor = Executor { layout: &self.layout, store, now: self.now };
        Ok(Begun { executor, interrupted, current: self.layout.current_generation()?, _lock: lock })
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

fn ask(config: &Config) -> Result<Fetcher, Failure> {
    Fetcher::new(config.node.clone(), RetryPolicy::default()).or_fail(|| "cannot ask the node".to_owned())
}

/// A command that may change something.
struct Begun<'a> {
    executor: Executor<'a>,
    /// What somebody asked for, and a crash or failure came between.
    interrupted: Vec<PackageName>,
    current: Generation,
    _lock: fs_err::File,
}

fn situation<'a>(
    network: &'a Network,
    config: &'a Config,
    platform: &'a Platform,
    current: &'a Generation,
) -> Situation<'a> {
    Situation {
        catalogue: &network.catalogue,
        deployment: &network.deployment,
        brake: &network.brake,
        college: &config.college,
        platform,
        current,
    }
}

/// Runs a command.
pub fn run(cli: Cli) -> Result<(), Failure> {
    let context = Context {
        layout: Layout::new(&cli.root),
        output: Output::new(cli.json),
        settings: cli.settings,
        now: Instant::now(),
    };
    match cli.command {
        Command::Enroll { trusted_root } => enroll::run(&context, &trusted_root),
        Command::Refresh => runtime()?.block_on(look::refresh(&context)),
        Command::Search { words } => runtime()?.block_on(look::search(&context, &words)),
        Command::Info { package } => runtime()?.block_on(look::info(&context, &package)),
        Command::Routes { package } => runtime()?.block_on(routes::run(&context, &package)),
        Command::List => look::list(&context),
        Command::History => look::history(&context),
        Command::Install { packages, dry_run } => {
            let packages: BTreeSet<PackageName> = packages.into_iter().collect();
            runtime()?.block_on(change::install(&context, &packages, dry_run))
        }
        Command::Update { dry_run } => runtime()?.block_on(change::update(&context, dry_run)),
        Command::Remove { packages, dry_run } => {
            runtime()?.block_on(change::remove(&context, &packages, dry_run))
        }
        Command::Rollback { dry_run } => change::rollback(&context, dry_run),
        Command::Verify => tend::verify(&context),
        Command::Repair => runtime()?.block_on(tend::repair(&context)),
        Command::Run { name, arguments } => run::run(&context, &name, &arguments),
        Command::Config { check } => config::run(&context, check),
        Command::Print { kind } => print_document(kind, Cli::command()),
    }
}
