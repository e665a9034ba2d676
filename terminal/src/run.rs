//! From `main` to an exit code.

use std::io::IsTerminal;
use std::process::ExitCode;

use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use crate::{Failure, OrFail};

/// Sets up the log, runs `command`, and says how it ended.
///
/// The log goes to standard error; `MIRABELLE_LOG` chooses what is in it (`info` for a server, by default only
/// warnings for a command).
pub fn start(server: bool, command: impl FnOnce() -> Result<(), Failure>) -> ExitCode {
    let default = if server { "info" } else { "warn" };
    let filter = EnvFilter::try_from_env("MIRABELLE_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    let color =
        std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(color);
    let _ = log.with_target(false).try_init();
    match command() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprint!("{}", failure.render());
            ExitCode::from(failure.kind().code())
        }
    }
}

/// The asynchronous runtime of a program.
pub fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        // Idle blocking threads would each hold on to a stack and an allocator arena.
        .max_blocking_threads(64)
        .build()
        .or_fail(|| "cannot start".to_owned())
}

/// A token that is cancelled when the program is asked to stop (SIGINT, SIGTERM).
pub fn stop_signal() -> Result<CancellationToken, Failure> {
    use tokio::signal::unix::{SignalKind, signal};
    let listen = |kind| signal(kind).or_fail(|| "cannot listen for signals".to_owned());
    let (mut interrupt, mut terminate) = (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
    let token = CancellationToken::new();
    let cancelled = token.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        tracing::info!("asked to stop");
        cancelled.cancel();
    });
    Ok(token)
}
