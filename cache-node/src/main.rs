//! `mirabelle-node`: the caching node of a college.

use std::process::ExitCode;

use clap::Parser;
use mirabelle_node::cli::{Cli, Command};
use mirabelle_node::commands;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let server = matches!(cli.command, Command::Run);
    mirabelle_terminal::start(server, || commands::run(cli))
}
