//! The agent's socket: how whoever sits at the machine asks for what she may have, without being its administrator.
//!
//! ```text
//! <root>/agent.sock     one line of JSON each way: {"ask":"install","packages":["geogebra"]} ─▶ {"code":0,"said":"…"}
//!                       {"ask":"open-store","language":"fr"} stays open: `store/companion.rs`
//! ```
//!
//! Threats and the defence for each:
//! - *A pupil asks for what teachers may have, or for what nobody may*: who asks is what the kernel says of the process at the
//!   other end (`SO_PEERCRED`), never what it says; what she may have is decided by the signed deployment.
//! - *Somebody asks without end*: connections, the length of a line and the time for it are limited, and one wish is
//!   fulfilled at a time.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use fs_err as fs;
use mirabelle_content::durable;
use mirabelle_manifests::{Asker, Instant, PackageName};
use mirabelle_terminal::Progress;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Notify, Semaphore, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::store::Store;

/// Connections at once.
const MAX_CONNECTIONS: usize = 32;
/// The most of a request or of an answer.
const MAX_LINE_BYTES: u64 = 1 << 20;
/// How long a request may take to arrive.
const REQUEST_TIME: Duration = Duration::from_secs(10);
/// Packages that may be asked for at once.
const MAX_PACKAGES: usize = 50;

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Request {
    Install {
        packages: Vec<PackageName>,
    },
    Remove {
        packages: Vec<PackageName>,
    },
    /// Keeps a release on purpose, or goes back to it, until a day.
    Keep {
        package: PackageName,
        sequence: u64,
        until: Instant,
    },
    /// Keeps it no longer.
    Release {
        package: PackageName,
    },
    Refresh,
    /// A page of the store, for as long as whoever asks stays connected.
    OpenStore {
        language: Option<String>,
    },
}

impl Request {
    pub(crate) fn install(packages: &BTreeSet<PackageName>) -> Self {
        Self::Install { packages: packages.iter().cloned().collect() }
    }

    pub(crate) fn remove(packages: &BTreeSet<PackageName>) -> Self {
        Self::Remove { packages: packages.iter().cloned().collect() }
    }
}

/// The answer: the exit code, what was printed and what was said.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Answer {
    pub(crate) code: i32,
    pub(crate) printed: String,
    pub(crate) said: String,
}

impl Answer {
    pub(super) fn refused(said: &str) -> Self {
        Self { code: 1, printed: String::new(), said: format!("error: {said}\n") }
    }
}

/// A wish that waits for the agent.
pub(crate) struct Wish {
    pub(crate) request: Request,
    pub(crate) asker: Asker,
    pub(crate) answer: oneshot::Sender<Answer>,
    /// Hears how far it is.
    pub(crate) progress: watch::Sender<Option<Progress>>,
    /// Gives it up, also while it is fulfilled.
    pub(crate) cancel: CancellationToken,
}

/// Where wishes are handed in.
#[derive(Clone)]
pub(crate) struct Wishes {
    sender: mpsc::Sender<Wish>,
    /// Told of each: what the agent does of itself gives way.
    waiting: Arc<Notify>,
}

impl Wishes {
    pub(super) fn new(sender: mpsc::Sender<Wish>, waiting: Arc<Notify>) -> Self {
        Self { sender, waiting }
    }

    /// Hands one in, and waits until it is fulfilled.
    pub(crate) async fn ask(&self, request: Request, asker: Asker) -> Answer {
        self.follow(request, asker, watch::Sender::default(), CancellationToken::new()).await
    }

    /// Hands one in whose progress is followed, and that can be given up.
    pub(crate) async fn follow(
        &self,
        request: Request,
        asker: Asker,
        progress: watch::Sender<Option<Progress>>,
        cancel: CancellationToken,
    ) -> Answer {
        let stopping = || Answer::refused("the agent is stopping: ask again");
        let (answer, answered) = oneshot::channel();
        let wish = Wish { request, asker, answer, progress, cancel };
        if self.sender.send(wish).await.is_err() {
            return stopping();
        }
        self.waiting.notify_one();
        answered.await.unwrap_or_else(|_| stopping())
    }
}

/// Listens at `path`, in place of what a killed agent left there.
pub(super) fn listen(path: &Path) -> io::Result<UnixListener> {
    durable::remove_file(path)?;
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o666))?;
    Ok(listener)
}

/// Takes requests and hands them on as wishes, or to the store.
pub(super) async fn serve(
    listener: UnixListener,
    teachers: Vec<String>,
    wishes: Wishes,
    store: Option<Arc<Store>>,
) {
    let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let teachers = Arc::new(teachers);
    loop {
        let Ok(permit) = connections.clone().acquire_owned().await else { return };
        let (stream, _) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection was not accepted");
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            }
        };
        let (wishes, teachers, store) = (wishes.clone(), teachers.clone(), store.clone());
        tokio::spawn(async move {
            if let Err(error) = answer(stream, &teachers, &wishes, store.as_ref()).await {
                tracing::debug!(%error, "a request was not answered");
            }
            drop(permit);
        });
    }
}

async fn answer(
    mut stream: UnixStream,
    teachers: &[String],
    wishes: &Wishes,
    store: Option<&Arc<Store>>,
) -> io::Result<()> {
    let user = stream.peer_cred()?.uid();
    let asker = who(user, teachers).await;
    let mut line = String::new();
    let (reading, _) = stream.split();
    let read = async { BufReader::new(reading.take(MAX_LINE_BYTES)).read_line(&mut line).await };
    tokio::time::timeout(REQUEST_TIME, read).await.map_err(|_| io::ErrorKind::TimedOut)??;
    let answer = match serde_json::from_str::<Request>(&line) {
        Err(error) => Answer::refused(&format!("the request cannot be read: {error}")),
        Ok(Request::Install { packages } | Request::Remove { packages }) if packages.len() > MAX_PACKAGES => {
            Answer::refused("too many packages at once")
        }
        Ok(Request::OpenStore { language }) => match store {
            Some(store) => return store.accompany(stream, user, asker, language.as_deref()).await,
            None => Answer::refused("the store cannot be opened on this machine: its port is taken"),
        },
        Ok(request) => wishes.ask(request, asker).await,
    };
    let mut bytes = serde_json::to_vec(&answer)?;
    bytes.push(b'\n');
    stream.write_all(&bytes).await
}

/// On whose behalf a user of this machine asks: whoever may do what the agent does is its administrator; whoever is in a
/// group of teachers is a teacher.
async fn who(user: u32, teachers: &[String]) -> Asker {
    if user == 0 || user == rustix::process::geteuid().as_raw() {
        return Asker::Administrator;
    }
    if teachers.is_empty() {
        return Asker::Anyone;
    }
    // The system's own answer: groups may come from a directory service.
    let mut id = tokio::process::Command::new("id");
    // Names may hold spaces: `-z` ends each with a zero byte.
    id.args(["-Gnz"]).arg(user.to_string()).kill_on_drop(true);
    let asked = tokio::time::timeout(REQUEST_TIME, id.output()).await;
    let groups = asked.ok().and_then(Result::ok).map(|output| output.stdout).unwrap_or_default();
    if groups.split(|byte| *byte == 0).any(|group| teachers.iter().any(|teacher| teacher.as_bytes() == group))
    {
        Asker::Teacher
    } else {
        Asker::Anyone
    }
}

/// Asks the agent at `path`, and waits for its answer.
pub(crate) fn ask(path: &Path, request: &Request) -> io::Result<Answer> {
    use std::io::{BufRead, Read, Write};
    let mut stream = std::os::unix::net::UnixStream::connect(path)?;
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    let mut answer = String::new();
    std::io::BufReader::new(stream.take(MAX_LINE_BYTES)).read_line(&mut answer)?;
    Ok(serde_json::from_str(&answer)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Says `line` to an agent that fulfils every wish, and returns its answer.
    async fn said(path: &Path, line: Vec<u8>) -> io::Result<String> {
        let mut stream = UnixStream::connect(path).await?;
        // An agent that has read enough closes its end.
        let _ = stream.write_all(&line).await;
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer).await?;
        Ok(answer)
    }

    #[tokio::test]
    async fn what_is_too_long_too_much_or_no_request_is_no_wish() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("agent.sock");
        let listener = listen(&path).unwrap();
        let (sender, mut wishes) = mpsc::channel(1);
        let wishes_of = Wishes::new(sender, Arc::default());
        let serving = tokio::spawn(serve(listener, Vec::new(), wishes_of, None));
        let fulfilling = tokio::spawn(async move {
            let mut fulfilled = 0;
            while let Some(wish) = wishes.recv().await {
                fulfilled += 1;
                let _ = wish.answer.send(Answer { code: 0, printed: "done".to_owned(), said: String::new() });
            }
            fulfilled
        });

        let many: Vec<String> = (0..=MAX_PACKAGES).map(|number| format!("\"p{number}\"")).collect();
        let many = format!("{{\"ask\":\"install\",\"packages\":[{}]}}\n", many.join(","));
        for (line, words) in [
            (b"install ruff\n".to_vec(), "cannot be read"),
            (br#"{"ask":"install","packages":["../x"]}"#.to_vec(), "cannot be read"),
            (br#"{"ask":"install","packages":[],"asker":"administrator"}"#.to_vec(), "cannot be read"),
            (many.into_bytes(), "too many packages"),
        ] {
            let mut line = line;
            line.push(b'\n');
            let answer = said(&path, line).await.unwrap();
            assert!(answer.contains(words), "{answer}");
        }
        let endless = vec![b'x'; usize::try_from(MAX_LINE_BYTES).unwrap() + 100];
        // Closed, or told so: nothing else.
        let answer = said(&path, endless).await.unwrap_or_default();
        assert!(answer.is_empty() || answer.contains("cannot be read"), "{answer}");
        let good = br#"{"ask":"install","packages":["ruff"]}"#;
        let answer = said(&path, [good.as_slice(), b"\n"].concat()).await.unwrap();
        assert!(answer.contains("done"), "{answer}");
        serving.abort();
        let _ = serving.await;
        assert_eq!(fulfilling.await.unwrap(), 1);
    }
}
