//! `mirabelle-node`: the caching node of a college.

use std::os::unix::process::CommandExt;
use std::process::{self, ExitCode};

use clap::Parser;
use mirabelle_node::cli::{Cli, Command};
use mirabelle_node::commands;

/// The variable that says how many heaps glibc makes for the threads of a process (mallopt(3), `M_ARENA_MAX`).
const ARENAS: &str = "MALLOC_ARENA_MAX";

/// Starts the program anew with two heaps, unless somebody has said how many. Left alone, glibc makes one for each thread, and each
/// keeps the windows that were once decoded there: mirroring 500 MB takes 212 MB with as many as it likes, 117 MB with one.
fn with_few_heaps() {
    if std::env::var_os(ARENAS).is_none()
        && let Ok(program) = std::env::current_exe()
    {
        let _ = process::Command::new(program).args(std::env::args_os().skip(1)).env(ARENAS, "2").exec();
        // Without it, more memory is needed, and nothing else.
    }
}

fn main() -> ExitCode {
    with_few_heaps();
    let cli = Cli::parse();
    #[cfg(debug_assertions)]
    if let Ok(wanted) = std::env::var("MIRABELLE_DISK_FAULT") {
        mirabelle_content::durable::fail_at(&wanted);
    }
    let server = matches!(cli.command, Command::Run);
    mirabelle_terminal::start(server, || commands::run(cli))
}
