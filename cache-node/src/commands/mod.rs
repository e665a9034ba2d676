//! One file per command.

mod college_code;
mod config;
mod doctor;
mod drain;
mod enrol;
mod export;
mod fsck;
mod gc;
mod import;
mod init;
mod link;
mod routes;
mod run;
mod status;
mod sync;

use clap::CommandFactory;
use mirabelle_terminal::{Failure, Output, print_document, runtime};

use crate::cli::{Cli, Command, Settings};
use crate::config::Config;
use crate::site::Site;

/// What every command is given.
struct Context {
    site: Site,
    output: Output,
    settings: Settings,
}

impl Context {
    fn config(&self) -> Result<Config, Failure> {
        Config::load(&self.site.path(""), &self.settings)
    }
}

/// Runs a command.
pub fn run(cli: Cli) -> Result<(), Failure> {
    let context =
        Context { site: Site::new(&cli.root), output: Output::new(cli.json), settings: cli.settings };
    match cli.command {
        Command::Init(whom) => runtime()?.block_on(init::run(&context, &whom)),
        Command::Drain { timeout } => runtime()?.block_on(drain::run(&context, timeout.unsigned_abs())),
        Command::Doctor => doctor::run(&context),
        Command::Run => runtime()?.block_on(run::run(&context)),
        Command::Sync { dry_run } => runtime()?.block_on(sync::run(&context, dry_run)),
        Command::Routes { package, release, from } => {
            let question =
                routes::Question { package: &package, version: release.as_ref(), from: from.as_deref() };
            runtime()?.block_on(routes::run(&context, &question))
        }
        Command::Link => runtime()?.block_on(link::run(&context)),
        Command::CollegeCode => college_code::run(&context),
        Command::Status => status::run(&context),
        Command::Fsck { repair } => runtime()?.block_on(fsck::run(&context, repair)),
        Command::Gc { dry_run } => runtime()?.block_on(gc::run(&context, dry_run)),
        Command::Export { directory } => runtime()?.block_on(export::run(&context, &directory)),
        Command::Import { directory } => runtime()?.block_on(import::run(&context, &directory)),
        Command::Config { check } => config::run(&context, check),
        Command::Print { kind } => print_document(kind, Cli::command()),
    }
}
