//! `mirabelle-node`: the caching node of a college.

use std::process::ExitCode;

use clap::Parser;
use mirabelle_node::cli::{Cli, Command};
use mirabelle_node::commands;

fn main() -> ExitCode {
    let cli = Cli::parse();
    #[cfg(debug_assertions)]
    if let Ok(wanted) = std::env::var("MIRABELLE_DISK_FAULT") {
        mirabelle_content::durable::fail_at(&wanted);
    }
    let server = matches!(cli.command, Command::Run);
    mirabelle_terminal::start(server, || commands::run(cli))
}
