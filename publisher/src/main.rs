//! `mirabelle-publisher`: the signed-package repository.

use std::process::ExitCode;

use clap::Parser;
use mirabelle_publisher::cli::{Cli, Command};
use mirabelle_publisher::commands;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let server = matches!(cli.command, Command::Serve(_));
    mirabelle_terminal::start(server, || commands::run(cli))
}
