//! The agent's work is done by its own commands, each in a process of its own: a person can do the same by hand, what is done
//! can be ended at any instant, and the agent itself stays small.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use mirabelle_terminal::{PROGRESS_VARIABLE, Progress};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};
use tokio::process::Command;
use tokio::sync::watch;

/// The most of a command's output that is read.
const MAX_OUTPUT_BYTES: u64 = 16 << 20;
/// No command takes longer, but for the largest installers.
const LONGEST: Duration = Duration::from_hours(3);

/// Starts the client's own commands.
#[derive(Clone, Debug)]
pub(super) struct Worker {
    program: PathBuf,
    root: PathBuf,
}

/// What a command came to.
#[derive(Clone, Debug)]
pub(super) struct Done {
    /// Its exit code; none if it was ended.
    pub(super) code: Option<i32>,
    /// What it printed: one JSON value.
    pub(super) stdout: Vec<u8>,
    /// What it said.
    pub(super) stderr: String,
    pub(super) took: Duration,
}

impl Done {
    pub(super) fn succeeded(&self) -> bool {
        self.code == Some(0)
    }

    /// Its error in a line.
    pub(super) fn complaint(&self) -> String {
        let error = self.stderr.lines().find_map(|line| line.strip_prefix("error: "));
        let causes = self.stderr.lines().filter_map(|line| line.trim_start().strip_prefix("caused by: "));
        let said: Vec<&str> = error.into_iter().chain(causes).take(3).collect();
        if said.is_empty() { "it was ended".to_owned() } else { said.join(": ") }
    }
}

impl Worker {
    /// A worker for this directory, that runs this very program.
    pub(super) fn new(root: &Path) -> std::io::Result<Self> {
        Ok(Self { program: std::env::current_exe()?, root: root.to_owned() })
    }

    /// Runs a command for at most `limit`; dropped before it ends, the command is killed. Whoever follows it hears how far it is.
    pub(super) async fn run(
        &self,
        arguments: &[&str],
        limit: Option<Duration>,
        follower: Option<&watch::Sender<Option<Progress>>>,
    ) -> std::io::Result<Done> {
        let mut command = Command::new(&self.program);
        command.arg("--root").arg(&self.root).args(["--json", "--wait"]).args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command.env(PROGRESS_VARIABLE, "lines");
        let begun = tokio::time::Instant::now();
        let mut child = command.spawn()?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let work = async { tokio::join!(read(stdout), listen(stderr, follower), child.wait()) };
        let limit = limit.unwrap_or(LONGEST).min(LONGEST);
        let Ok((stdout, stderr, status)) = tokio::time::timeout(limit, work).await else {
            let _ = child.kill().await;
            let took = begun.elapsed();
            return Ok(Done { code: None, stdout: Vec::new(), stderr: String::new(), took });
        };
        Ok(Done { code: status?.code(), stdout, stderr, took: begun.elapsed() })
    }
}

async fn read(pipe: Option<impl AsyncRead + Unpin>) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(mut pipe) = pipe {
        // What cannot be read is missed by whoever parses it.
        let _ = (&mut pipe).take(MAX_OUTPUT_BYTES).read_to_end(&mut bytes).await;
        let _ = tokio::io::copy(&mut pipe, &mut tokio::io::sink()).await;
    }
    bytes
}

/// What a command says, without its lines of progress, which go to whoever follows it.
async fn listen(
    pipe: Option<impl AsyncRead + Unpin>,
    follower: Option<&watch::Sender<Option<Progress>>>,
) -> String {
    let mut said = String::new();
    let Some(pipe) = pipe else { return said };
    let mut pipe = BufReader::new(pipe).take(MAX_OUTPUT_BYTES);
    let mut line = Vec::new();
    while matches!(pipe.read_until(b'\n', &mut line).await, Ok(bytes) if bytes > 0) {
        let text = String::from_utf8_lossy(&line);
        match Progress::of(text.trim_end()) {
            Some(progress) => {
                if let Some(follower) = follower {
                    follower.send_replace(Some(progress));
                }
            }
            None => said.push_str(&text),
        }
        line.clear();
    }
    let _ = tokio::io::copy(&mut pipe.into_inner(), &mut tokio::io::sink()).await;
    said
}
