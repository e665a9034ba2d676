//! `drain`: asks the node that runs on this machine to stop in order, and waits until it has.
//!
//! It accepts nobody any more, finishes what it is sending, and ends. Where systemd holds the socket, whoever connects after that
//! waits for the next process, which systemd starts for her: so an upgrade is `drain` between two programs, and nobody is refused.
//! Which process is asked: `running.rs`; never one that is not the node.

use std::io;
use std::time::{Duration, Instant as Moment};

use mirabelle_terminal::{Failure, OrFail};
use serde::Serialize;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::Context;
use crate::running;

#[derive(Serialize)]
struct Drained {
    /// False: no node ran here.
    ran: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<u32>,
    /// From the question to its end.
    milliseconds: u64,
    /// Whoever connects now waits for the next process.
    socket_stays: bool,
}

pub(super) async fn run(context: &Context, timeout: Duration) -> Result<(), Failure> {
    let Some(found) = running::find(&context.site)? else {
        let none = Drained { ran: false, pid: None, milliseconds: 0, socket_stays: false };
        context.output.print(&none, |_| format!("no node runs on `{}`", context.site.path("").display()));
        return Ok(());
    };
    let (pid, socket_stays) = (found.running.pid, found.running.socket_stays);
    let what = || format!("cannot stop the node (process {pid})");
    let asked = Moment::now();
    found.ask_to_stop().map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => Failure::no(format!("{}: another user started it", what()))
            .hint("ask it as that user, or as root"),
        _ => Failure::no(format!("{}: {error}", what())),
    })?;

    #[expect(
        deprecated,
        reason = "what is asked of the caller is that the descriptor stays open: this one is owned"
    )]
    let process = AsyncFd::with_interest(found.into_process(), Interest::READABLE).or_fail(what)?;
    match tokio::time::timeout(timeout, process.readable()).await {
        Ok(ended) => drop(ended.or_fail(what)?),
        Err(_) => {
            return Err(Failure::no(format!("the node (process {pid}) has not ended within {timeout:?}"))
                .hint("it goes on finishing what it sends, and ends then; `drain` again waits for it"));
        }
    }
    let milliseconds = u64::try_from(asked.elapsed().as_millis()).unwrap_or(u64::MAX);
    let drained = Drained { ran: true, pid: Some(pid), milliseconds, socket_stays };
    context.output.print(&drained, |drained| {
        let then = if drained.socket_stays { "; who connects now waits for the next process" } else { "" };
        format!("the node (process {pid}) has ended, {} ms after it was asked{then}", drained.milliseconds)
    });
    Ok(())
}
