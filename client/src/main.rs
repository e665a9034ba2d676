//! `mirabelle`: the workstation client.

use std::process::ExitCode;

use clap::Parser;
use mirabelle::cli::Cli;
use mirabelle::commands;

fn main() -> ExitCode {
    let cli = Cli::parse();
    mirabelle_terminal::start(false, || commands::run(cli))
}
