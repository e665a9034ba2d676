//! Legacy repositories by plain HTTP path, pulled through and kept: what the old infrastructure's clients ask for, an APT
//! repository's files for one, from the same node while a school migrates.
//!
//! ```text
//! GET /legacy/debian/pool/main/h/hello/hello_2.10-3_amd64.deb
//!       │ path.rs     what is asked for, and where it would be asked
//!       ▼
//!     store.rs ── here, and never changes or still fresh ──▶ answer
//!       │ not here, or to be asked again
//!       ▼
//!     upstream.rs ── one transfer, whoever waits for it ──▶ answers while it arrives, store.rs
//!       └─ down: what is here is answered, with a warning
//! ```
//!
//! Invariant: what is answered as a whole was received as a whole. Nothing here is signed: the clients check what they get, as they do
//! with any mirror, and a file named by its digest (`by-hash/SHA256/…`) is kept only if it has it.
//!
//! Threats and the defence for each:
//! - *A path that leads elsewhere*, on the disk or on the upstream: `path.rs`; on the disk, names are digests.
//! - *An upstream that redirects elsewhere*: followed within its own host only, a few times.
//! - *A lesson that needs the link*: its clients are the link's (`LinkClient`): what it may not carry is not asked for.
//! - *Whoever asks for everything there is*: a quota of bytes and files, evicted by last use; so many transfers at once; paths and
//!   heads of so many bytes.
//! - *A captive portal whose page is kept as a package*: a client that says `no-cache` makes it be asked for again.
//! - *Credentials and cookies*: neither is sent on, in either direction.

mod answer;
mod declared;
mod path;
mod store;
mod upstream;

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::header::{ALLOW, CACHE_CONTROL, HeaderMap, HeaderValue, RANGE};
use hyper::{Method, Response, StatusCode};
use mirabelle_manifests::Instant;
use mirabelle_transfer::Link;
use mirabelle_transfer::flight::Flights;
use mirabelle_transfer::serve::{Body, problem, streaming};
use tokio::sync::Semaphore;

pub(crate) use self::declared::{Declared, DeclaredFile};
use self::path::LegacyPath;
pub(crate) use self::store::evict;
use self::store::{Entry, Head, Store};
use self::upstream::Client;
use crate::disk::Disk;
use crate::site::Site;

/// Transfers from upstreams at once; the next ones wait.
const MAX_TRANSFERS: usize = 16;
/// After an upstream failed, it is left alone for so long: what is here is answered at once.
const REST: Duration = Duration::from_secs(20);
/// How long it is believed that something does not exist.
const ABSENT_FOR: Duration = Duration::from_mins(1);

/// The legacy repositories of a node.
#[derive(Debug)]
pub(crate) struct Legacy {
    repositories: BTreeMap<String, Arc<Repository>>,
    store: Arc<Store>,
    flights: Flights<LegacyPath, Head>,
    transfers: Arc<Semaphore>,
}

/// One of them.
#[derive(Debug)]
struct Repository {
    declared: Declared,
    client: Client,
    /// When its upstream failed last, if it has not answered since.
    failed: Mutex<Option<Instant>>,
    /// Bytes that were received from it.
    received: AtomicU64,
}

impl Legacy {
    /// Takes up what is kept below the node's directory.
    ///
    /// # Errors
    /// Any error of the file system, or when no HTTP client can be made.
    pub(crate) fn open(
        site: &Site,
        declared: &[Declared],
        quota: u64,
        disk: &Disk,
        link: &Arc<Link>,
    ) -> io::Result<Self> {
        let mut repositories = BTreeMap::new();
        for declared in declared {
            let client = Client::new(declared.upstream.clone(), link)?;
            let repository = Repository {
                declared: declared.clone(),
                client,
                failed: Mutex::default(),
                received: AtomicU64::new(0),
            };
            repositories.insert(declared.name.clone(), Arc::new(repository));
        }
        Ok(Self {
            store: Arc::new(Store::open(&site.path("legacy"), repositories.keys(), quota, disk.clone())?),
            repositories,
            flights: Flights::here(),
            transfers: Arc::new(Semaphore::new(MAX_TRANSFERS)),
        })
    }

    /// Answers a request for what follows `/legacy/`.
    pub(crate) async fn answer(
        &self,
        method: &Method,
        headers: &HeaderMap,
        asked: &str,
        query: Option<&str>,
    ) -> Response<Body> {
        let not_here = || problem(StatusCode::NOT_FOUND, "there is no such file here");
        if !matches!(*method, Method::GET | Method::HEAD) {
            let mut response = problem(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are answered here");
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        let Some((name, below)) = asked.split_once('/') else { return not_here() };
        let Some(repository) = self.repositories.get(name) else { return not_here() };
        if query.is_some() {
            return problem(
                StatusCode::BAD_REQUEST,
                "files of a legacy repository are named without a query",
            );
        }
        let Some(path) = LegacyPath::parse(name, below) else {
            return problem(StatusCode::BAD_REQUEST, "this is no path of a file");
        };

        let kept = self.find(&path).await;
        let wants_new = headers.get(CACHE_CONTROL).is_some_and(|value| value == "no-cache");
        if let Some(entry) = kept.as_ref().filter(|entry| !wants_new && repository.is_current(&path, entry)) {
            return self.kept(method, headers, &path, entry, false).await;
        }
        if repository.rests() {
            return match &kept {
                Some(entry) => self.kept(method, headers, &path, entry, true).await,
                None => problem(StatusCode::BAD_GATEWAY, "the repository behind this node does not answer"),
            };
        }

        let mut flight = self.flights.join(path.clone(), |source| {
            let transfer = upstream::Transfer {
                repository: repository.clone(),
                store: self.store.clone(),
                transfers: self.transfers.clone(),
                path: path.clone(),
            };
            async move { Ok(transfer.run(source).await?) }
        });
        let arriving = match flight.head().await {
            Ok(Some(head)) if !headers.contains_key(RANGE) => Some(head),
            // A part of what arrives is cut out of it once it is here.
            Ok(_) => match flight.landed().await {
                Ok(()) => None,
                Err(error) => {
                    return self.without_upstream(method, headers, &path, kept.as_ref(), &error).await;
                }
            },
            Err(error) => return self.without_upstream(method, headers, &path, kept.as_ref(), &error).await,
        };
        if let Some(head) = arriving {
            let mut response = answer::head_of(&head, repository.declared.never_changes(&path));
            if *method == Method::GET {
                *response.body_mut() = streaming(flight.read(0, head.length));
            }
            return response;
        }
        match self.find(&path).await {
            Some(entry) => self.kept(method, headers, &path, &entry, false).await,
            None => problem(StatusCode::BAD_GATEWAY, "the file was not kept"),
        }
    }

    async fn without_upstream(
        &self,
        method: &Method,
        headers: &HeaderMap,
        path: &LegacyPath,
        kept: Option<&Entry>,
        error: &(dyn std::error::Error + Sync),
    ) -> Response<Body> {
        let cause = error.source().map(ToString::to_string).unwrap_or_default();
        if let Some(entry) = kept {
            tracing::warn!(%path, cause, "a legacy repository does not answer, and what is kept is given out");
            self.kept(method, headers, path, entry, true).await
        } else {
            tracing::warn!(%path, cause, "a legacy file could not be had");
            problem(StatusCode::BAD_GATEWAY, "the repository behind this node does not answer")
        }
    }

    /// Answers with what is kept; `stale` when the upstream could not be asked whether it still is so.
    async fn kept(
        &self,
        method: &Method,
        headers: &HeaderMap,
        path: &LegacyPath,
        entry: &Entry,
        stale: bool,
    ) -> Response<Body> {
        let never_changes =
            self.repositories.get(path.repository()).is_some_and(|own| own.declared.never_changes(path));
        let response = answer::kept(method, headers, entry, never_changes, stale).await;
        if response.status() == StatusCode::NOT_FOUND && entry.head.is_present() {
            // Another version took its place between looking and opening.
            if let Some(newer) = self.find(path).await {
                return answer::kept(method, headers, &newer, never_changes, stale).await;
            }
        }
        response
    }

    async fn find(&self, path: &LegacyPath) -> Option<Entry> {
        let (store, path) = (self.store.clone(), path.clone());
        let finding = tokio::task::spawn_blocking(move || store.find(&path, Instant::now()));
        match finding.await {
            Ok(Ok(found)) => found,
            Ok(Err(error)) => {
                tracing::warn!(%error, "a kept legacy file could not be read");
                None
            }
            Err(_) => None,
        }
    }
}

impl Repository {
    /// True when what is kept may be answered without asking.
    fn is_current(&self, path: &LegacyPath, entry: &Entry) -> bool {
        let for_how_long = match (entry.head.is_present(), self.declared.never_changes(path)) {
            (true, true) => return true,
            (true, false) => self.declared.fresh_for,
            (false, _) => self.declared.fresh_for.min(ABSENT_FOR),
        };
        is_within(entry.head.validated, for_how_long)
    }

    fn rests(&self) -> bool {
        self.failed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_some_and(|failed| is_within(failed, REST))
    }

    fn note(&self, failed: bool) {
        *self.failed.lock().unwrap_or_else(PoisonError::into_inner) = failed.then(Instant::now);
    }

    /// Counts what was received.
    fn account(&self, bytes: u64) -> u64 {
        self.received.fetch_add(bytes, Ordering::Relaxed) + bytes
    }
}

/// A clock that was set back makes nothing fresh.
fn is_within(since: Instant, period: Duration) -> bool {
    let now = Instant::now();
    since <= now && since.checked_add(period).is_ok_and(|until| now < until)
}
