//! The companion: `mirabelle store`, which opened the page from somebody's desktop and stays as long as that desktop does.
//!
//! ```text
//! agent.sock   ─▶ {"ask":"open-store","language":"fr"}
//!              ◀─ {"url":"http://127.0.0.1:8702/open/<ticket>"}
//!              ◀─ {"open":"geogebra"}          an application is to be opened there, as that user
//!              ─▶ {"opened":true}
//! ```
//!
//! The agent is root and belongs to no desktop: it starts nobody's applications. When the connection ends, so does the session.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use mirabelle_manifests::{Asker, PackageName};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};

use super::Store;
use super::session::Session;
use super::view::Language;

/// How long an application may take to be started.
const OPENING: Duration = Duration::from_secs(5);
/// Applications that wait to be opened.
const MAX_WAITING: usize = 4;
/// The most of a line.
const MAX_LINE_BYTES: u64 = 4096;
/// Lines of one companion: a desktop that opens more applications than this is none.
const MAX_LINES_BYTES: u64 = 1 << 20;

/// What the agent says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Said {
    /// Where the store is.
    Url(String),
    /// What to open.
    Open(PackageName),
}

/// What the companion answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Opened {
    /// Whether it was started.
    pub(crate) opened: bool,
}

/// Somebody's desktop, as the store sees it.
#[derive(Clone, Debug)]
pub(super) struct Companion(mpsc::Sender<(PackageName, oneshot::Sender<bool>)>);

impl Companion {
    pub(super) fn new(sender: mpsc::Sender<(PackageName, oneshot::Sender<bool>)>) -> Self {
        Self(sender)
    }

    /// Opens an application there; says whether it was started.
    pub(super) async fn open(&self, package: PackageName) -> bool {
        let (answer, answered) = oneshot::channel();
        if self.0.try_send((package, answer)).is_err() {
            return false;
        }
        matches!(tokio::time::timeout(OPENING, answered).await, Ok(Ok(true)))
    }
}

impl Store {
    /// Opens a session for whoever is at the other end of `stream`, until she is gone.
    pub(crate) async fn accompany(
        self: &Arc<Self>,
        mut stream: UnixStream,
        user: u32,
        account: Asker,
        language: Option<&str>,
    ) -> io::Result<()> {
        let language = match language {
            Some(language) if language.starts_with("en") => Language::English,
            _ => Language::French,
        };
        let (sender, mut asked) = mpsc::channel(MAX_WAITING);
        let session =
            Session::new(user, account, language, Companion::new(sender)).map_err(io::Error::other)?;
        let session = Arc::new(session);
        let ticket = self.sessions.ticket(&session).map_err(io::Error::other)?;
        let url = format!("http://{}/open/{}", self.address(), ticket.as_str());
        tracing::info!(user, "the store is opened");
        // What the first page shows is worked out while her browser starts.
        let store = self.clone();
        tokio::spawn(async move { store.stock(account).await.map(drop) });
        let accompanied = async {
            let (reading, mut writing) = stream.split();
            say(&mut writing, &Said::Url(url)).await?;
            let mut lines = BufReader::new(reading.take(MAX_LINES_BYTES));
            let mut waiting: Option<oneshot::Sender<bool>> = None;
            loop {
                let mut line = Vec::new();
                let mut limited = (&mut lines).take(MAX_LINE_BYTES);
                tokio::select! {
                    read = limited.read_until(b'\n', &mut line) => {
                        if read? == 0 {
                            return Ok(());
                        }
                        let Opened { opened } = serde_json::from_slice(&line)?;
                        if let Some(waiting) = waiting.take() {
                            let _ = waiting.send(opened);
                        }
                    }
                    Some((package, answer)) = asked.recv(), if waiting.is_none() => {
                        waiting = Some(answer);
                        say(&mut writing, &Said::Open(package)).await?;
                    }
                }
            }
        };
        let ended: io::Result<()> = accompanied.await;
        self.sessions.end(&session);
        tracing::info!(user, "the store is closed: its desktop is gone");
        ended
    }
}

async fn say(writing: &mut (impl AsyncWriteExt + Unpin), said: &Said) -> io::Result<()> {
    let mut line = serde_json::to_vec(said)?;
    line.push(b'\n');
    writing.write_all(&line).await
}
