//! `store`: opens the store in the browser of this desktop, and does there what the agent, which belongs to no desktop, cannot.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use mirabelle_manifests::PackageName;
use mirabelle_terminal::{Failure, OrFail};
use serde::Serialize;

use super::Context;
use crate::agent::socket::{Answer, Request};
use crate::store::{Opened, Said};

/// The most of a line.
const MAX_LINE_BYTES: u64 = 64 << 10;

#[derive(Serialize)]
struct Store {
    url: String,
}

pub(super) fn run(context: &Context, print: bool) -> Result<(), Failure> {
    let path = context.layout.agent_socket();
    let what = || "cannot open the store".to_owned();
    let stream = UnixStream::connect(&path).or_fail(what).map_err(|failure| {
        failure.hint("the agent of this machine serves it: is `mirabelle agent` running?")
    })?;
    // As gettext reads them: the first that is set counts.
    let language = ["LC_ALL", "LC_MESSAGES", "LANG"].into_iter().filter_map(|name| std::env::var(name).ok());
    let language = language.into_iter().find(|language| !language.is_empty());
    say(&stream, &Request::OpenStore { language }).or_fail(what)?;
    let mut lines = BufReader::new(stream.try_clone().or_fail(what)?);
    while let Some(line) = read_line(&mut lines).or_fail(what)? {
        match serde_json::from_str::<Said>(&line) {
            Ok(Said::Url(url)) => {
                if !print {
                    open_browser(&url)?;
                }
                context.output.print(&Store { url }, |store| store.url.clone());
            }
            Ok(Said::Open(package)) => {
                say(&stream, &Opened { opened: start(context, &package) }).or_fail(what)?;
            }
            Err(error) => {
                let refused = serde_json::from_str::<Answer>(&line).ok().map(|answer| answer.said);
                let said = refused.unwrap_or_else(|| error.to_string());
                return Err(Failure::no(said.trim_start_matches("error: ").trim_end().to_owned()));
            }
        }
    }
    Ok(())
}

fn read_line(lines: &mut impl BufRead) -> std::io::Result<Option<String>> {
    let mut line = String::new();
    let read = lines.by_ref().take(MAX_LINE_BYTES).read_line(&mut line)?;
    Ok((read > 0).then_some(line))
}

fn say(mut stream: &UnixStream, said: &impl Serialize) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(said)?;
    line.push(b'\n');
    stream.write_all(&line)
}

/// In whatever browser the desktop has.
fn open_browser(url: &str) -> Result<(), Failure> {
    let mut command = Command::new("xdg-open");
    let opened = command.arg(url).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    match opened {
        Ok(status) if status.success() => Ok(()),
        _ => Err(Failure::no("no browser could be opened on this desktop")
            .hint("`mirabelle store --print` prints the address for any browser of this user")),
    }
}

/// Starts an application as this user, and does not wait for it.
fn start(context: &Context, package: &PackageName) -> bool {
    let Ok(program) = std::env::current_exe() else { return false };
    let mut command = Command::new(program);
    command.arg("--root").arg(context.layout.root()).args(["run", package.as_str()]);
    match command.stdin(Stdio::null()).stdout(Stdio::null()).spawn() {
        Ok(mut child) => {
            // Nobody else takes note of its end.
            std::thread::spawn(move || child.wait());
            true
        }
        Err(error) => {
            tracing::warn!(%package, %error, "it could not be started");
            false
        }
    }
}
