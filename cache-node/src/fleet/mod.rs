//! What the machines of this college say of themselves: taken, kept, and sent on until the origin has stored it.
//!
//! ```text
//! POST /fleet/57001/machines    an enrolment, signed with the college's code
//! POST /fleet/57001/reports     reports, a line each, in a request that their machine signed   ─▶ spool ─▶ the same at the origin
//! <root>/fleet/code             the college's code, 0600; `mirabelle-node college-code` shows it
//! ```
//!
//! A report is on this node's disk before its machine hears so, and on the origin's before it goes from here. Sent twice, it counts once:
//! reports are numbered by machine. The node itself is one of the machines; its key is that of its statements (`proof.rs`).
//!
//! Threats and the defence for each:
//! - *A workstation reports for another*: a key speaks for one machine, and a request for its key's reports only.
//! - *A workstation that floods*: requests, reports in an hour and machines are limited; the link sees batches at its lowest priority.
//! - *A request that was overheard*: it counts once, for five minutes.
//! - *Whoever takes the node's disk*: has this college's code and the node's key, and can report what she likes of this college; an operator
//!   takes the key back at the origin (`mirabelle-publisher node remove`).

mod machines;
mod own;
mod spool;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode};
use mirabelle_content::durable;
use mirabelle_fleet::{CollegeCode, Enrolment, EnrolmentError, SignedReport};
use mirabelle_keys::{KeyId, SigningKey};
use mirabelle_manifests::{Instant, SiteId};
use mirabelle_terminal::{Failure, OrFail};
use mirabelle_transfer::reports::{MAX_PACKED_BYTES, PACKED, pack};
use mirabelle_transfer::serve::{Body, Refused, SignedRequests, answer, collect, json};
use mirabelle_transfer::{Priority, Reply, Sent, SignedBody};
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::{block_in_place, spawn_blocking};
use tokio_util::sync::CancellationToken;

use self::machines::{Machines, NotTaken};
use self::own::Own;
pub(crate) use self::own::Sources;
use self::spool::Spool;
use crate::mirror::Upstreams;
use crate::proof;
use crate::site::Site;

/// The most of a machine's request.
const MAX_REQUEST_BYTES: usize = 1 << 20;
const MAX_CODE_BYTES: u64 = 256;
const MAX_ANSWER_BYTES: u64 = 1 << 20;
/// How often what waits is sent again.
const SEND_EVERY: Duration = Duration::from_secs(30);
/// Reports of a morning are sent together.
const GATHER: Duration = Duration::from_millis(500);
/// How often an origin is asked that takes no reports at all.
const REST: Duration = Duration::from_mins(10);
/// How long an upstream may take.
const PATIENCE: Duration = Duration::from_mins(1);

const NOT_KEPT: Refused = (StatusCode::INSUFFICIENT_STORAGE, "it could not be kept here");
const UNREADABLE: Refused = (StatusCode::BAD_REQUEST, "the request cannot be read");

/// The reports of a college on their way.
pub(crate) struct Fleet {
    college: SiteId,
    code: CollegeCode,
    key: Arc<SigningKey>,
    kept: Mutex<Kept>,
    requests: SignedRequests,
    upstreams: Arc<Upstreams>,
    own: Own,
    /// Where upstream is asked: the link's near end lives there.
    runtime: Handle,
    waiting: Notify,
}

struct Kept {
    machines: Machines,
    spool: Spool,
}

/// Why nothing was sent on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NotSent {
    /// It may be taken soon.
    Now,
    /// No upstream takes reports.
    Ever,
}

/// What the origin answers to a batch.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Stored {
    /// Keys that it does not know: their first reports are missing.
    unknown: Vec<KeyId>,
}

/// The college's code; made when it is first needed.
pub(crate) fn college_code(site: &Site) -> Result<CollegeCode, Failure> {
    let path = site.path("fleet/code");
    let what = || format!("cannot use the college's code in `{}`", path.display());
    if let Some(text) = durable::read_if_present(&path, MAX_CODE_BYTES).or_fail(what)? {
        return String::from_utf8_lossy(&text).parse().or_fail(what);
    }
    let code = CollegeCode::generate();
    durable::write_atomically_as(&path, format!("{}\n", code.shown().as_str()).as_bytes(), 0o600, None)
        .or_fail(what)?;
    Ok(code)
}

impl Fleet {
    pub(crate) fn open(
        sources: Sources,
        college: SiteId,
        upstreams: Arc<Upstreams>,
    ) -> Result<Arc<Self>, Failure> {
        let site = sources.site.clone();
        let what = || "cannot take up the reports of machines".to_owned();
        fs_err::create_dir_all(site.path("fleet")).or_fail(what)?;
        let spool = Spool::open(&site.path("fleet/spool")).or_fail(what)?;
        let mut machines = Machines::open(&site.path("fleet/machines.json"));
        for line in spool.all().lines {
            if let Ok(signed) = SignedReport::parse(line.as_bytes()) {
                machines.was_taken(&signed);
            }
        }
        let key = Arc::new(proof::identity(&site.path("identity.key"))?);
        Ok(Arc::new(Self {
            code: college_code(&site)?,
            own: Own::new(sources),
            kept: Mutex::new(Kept { machines, spool }),
            requests: SignedRequests::default(),
            runtime: Handle::current(),
            waiting: Notify::new(),
            college,
            key,
            upstreams,
        }))
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        // What was changed and not kept is learnt again from the spool.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reports that the origin does not have yet, in files.
    pub(crate) fn reports_waiting(&self) -> usize {
        self.kept().spool.len()
    }

    /// Answers machines of this college; everything else is given back.
    pub(crate) async fn answer(
        self: &Arc<Self>,
        request: Request<Incoming>,
    ) -> Result<Response<Body>, Request<Incoming>> {
        let own = request.uri().path().strip_prefix("/fleet/").and_then(|rest| rest.split_once('/'));
        let asked =
            own.filter(|(college, _)| *college == self.college.as_str()).map(|(_, asked)| asked.to_owned());
        if request.method() != Method::POST {
            return Err(request);
        }
        let answered = match asked.as_deref() {
            Some("machines") => self.enrol(request).await,
            Some("reports") => self.take(request).await,
            _ => return Err(request),
        };
        Ok(answer(answered))
    }

    async fn enrol(self: &Arc<Self>, request: Request<Incoming>) -> Result<Response<Body>, Refused> {
        let bytes = collect(request.into_body(), MAX_REQUEST_BYTES).await?;
        let enrolment = Enrolment::parse(&bytes).map_err(|_| UNREADABLE)?;
        let (report, key, first) = enrolment.verify(&self.code.public()).map_err(|error| {
            tracing::warn!(%error, "a machine is not enrolled");
            match error {
                EnrolmentError::Code => (StatusCode::FORBIDDEN, "this is not the college's code"),
                EnrolmentError::Malformed(_) => UNREADABLE,
            }
        })?;
        let Some(machine) = report.machine.clone().filter(|_| report.college == self.college) else {
            return Err((StatusCode::FORBIDDEN, "the machine is of another college"));
        };
        let this = self.clone();
        let kept = spawn_blocking(move || {
            let (id, line) = (key.id(), first.to_line().map_err(std::io::Error::other)?);
            let mut kept = this.kept();
            if kept.machines.enrol(&report, key, first) == Some(true) {
                kept.spool.put(&[line])?;
                kept.machines.keep()?;
            }
            Ok::<_, std::io::Error>(kept.machines.last(&id))
        });
        let last = kept.await.map_err(|_| NOT_KEPT)?.map_err(|error| {
            tracing::error!(%error, "a machine could not be enrolled");
            NOT_KEPT
        })?;
        let last = last.ok_or((StatusCode::TOO_MANY_REQUESTS, "too many machines are enrolled here"))?;
        tracing::info!(%machine, "a machine is enrolled");
        self.waiting.notify_one();
        Ok(json(&last))
    }

    async fn take(self: &Arc<Self>, request: Request<Incoming>) -> Result<Response<Body>, Refused> {
        let (parts, body) = request.into_parts();
        let signed = self.requests.read(&parts)?;
        let bytes = collect(body, MAX_REQUEST_BYTES).await?;
        let key = self.kept().machines.key(&signed.key).cloned();
        let key = key.ok_or((StatusCode::UNAUTHORIZED, "this machine is not enrolled here"))?;
        self.requests.verify(&signed, &key, (&parts, &bytes), Instant::now())?;
        let this = self.clone();
        let taken = spawn_blocking(move || this.keep_lines(&signed.key, &bytes));
        let (last, stopped) = taken.await.map_err(|_| NOT_KEPT)?.map_err(|error| {
            tracing::error!(%error, "reports could not be kept");
            NOT_KEPT
        })?;
        self.waiting.notify_one();
        match stopped {
            None => Ok(json(&last)),
            Some(NotTaken::Unknown | NotTaken::Forged) => {
                tracing::warn!(key = key.id().short(), "a machine reports what is not its own");
                Err((StatusCode::FORBIDDEN, "a report is not signed by the machine that it speaks for"))
            }
            Some(NotTaken::Forked) => {
                tracing::warn!(key = key.id().short(), "two machines have the same key: was a disk cloned?");
                Err((StatusCode::GONE, "another machine has the same key"))
            }
            Some(NotTaken::Flood) => {
                tracing::warn!(key = key.id().short(), "a machine reports too much");
                Err((StatusCode::TOO_MANY_REQUESTS, "too many reports"))
            }
        }
    }

    /// Keeps the reports that come next; what came last, and why the rest is not taken.
    fn keep_lines(
        &self,
        id: &KeyId,
        bytes: &[u8],
    ) -> std::io::Result<(Option<mirabelle_fleet::Last>, Option<NotTaken>)> {
        let (mut lines, mut stopped) = (Vec::new(), None);
        let mut kept = self.kept();
        let before = kept.machines.last(id);
        for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let taken = SignedReport::parse(line)
                .map_err(|_| NotTaken::Forged)
                .and_then(|signed| Ok((kept.machines.take(id, &signed)?, signed)));
            match taken {
                Ok((true, signed)) => lines.push(signed.to_line().map_err(std::io::Error::other)?),
                Ok((false, _)) => {}
                Err(not_taken) => {
                    stopped = Some(not_taken);
                    break;
                }
            }
        }
        if !lines.is_empty() {
            if let Err(error) = kept.spool.put(&lines) {
                kept.machines.back_to(id, before);
                return Err(error);
            }
            kept.machines.keep()?;
        }
        Ok((kept.machines.last(id), stopped))
    }

    /// Reports of itself, and sends on what waits, until the node stops.
    pub(crate) async fn keep(self: Arc<Self>, stop: &CancellationToken) {
        let mut taken = Ok(());
        loop {
            let this = self.clone();
            let said = spawn_blocking(move || this.report_itself(Instant::now())).await;
            if let Ok(Err(error)) = said {
                tracing::warn!(%error, "the node's own report could not be kept");
            }
            let this = self.clone();
            let sending = self.runtime.spawn(async move { this.send(taken).await });
            let Some(sent) = stop.run_until_cancelled(sending).await else { return };
            taken = sent.unwrap_or(Err(NotSent::Now));
            let wait = if taken == Err(NotSent::Ever) { REST } else { SEND_EVERY };
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.waiting.notified(), if taken.is_ok() => tokio::time::sleep(GATHER).await,
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Sends what waits, the oldest first, as long as upstream stores it. Where it did not the last time, it is asked in few bytes first: a link
    /// carries no batch in vain twice.
    async fn send(&self, before: Result<(), NotSent>) -> Result<(), NotSent> {
        if before.is_err() {
            self.knock().await?;
        }
        loop {
            let batch = block_in_place(|| self.kept().spool.oldest());
            if batch.lines.is_empty() {
                return Ok(());
            }
            let stored = self.send_lines(&batch.lines).await?;
            // An origin whose state was lost learns the keys again, and then all of this.
            if !stored.unknown.is_empty() {
                let firsts: Vec<String> = {
                    let kept = self.kept();
                    let known = stored.unknown.iter().filter_map(|id| kept.machines.first(id));
                    known.filter_map(|first| first.to_line().ok()).collect()
                };
                let again: Vec<String> = firsts.into_iter().chain(batch.lines.iter().cloned()).collect();
                self.send_lines(&again).await?;
            }
            if let Err(error) = block_in_place(|| self.kept().spool.sent(&batch)) {
                tracing::error!(%error, "reports that were sent could not be removed");
                return Err(NotSent::Now);
            }
        }
    }

    async fn send_lines(&self, lines: &[String]) -> Result<Stored, NotSent> {
        let packed =
            pack(lines.iter().map(String::as_str)).ok().filter(|packed| packed.len() <= MAX_PACKED_BYTES);
        let reply = self.exchange("reports", packed.ok_or(NotSent::Now)?).await?;
        if reply.status == 200 {
            return serde_json::from_slice(&reply.body).map_err(|_| NotSent::Now);
        }
        let said = String::from_utf8_lossy(&reply.body);
        tracing::info!(status = reply.status, %said, "the origin does not take reports now");
        if reply.status == 403 {
            self.knock().await?;
        }
        Err(NotSent::Now)
    }

    /// Tells the origin which key is this college's node's; an operator accepts it there.
    async fn knock(&self) -> Result<(), NotSent> {
        let first =
            self.kept().machines.first(&self.key.public().id()).and_then(|first| first.to_line().ok());
        let packed = first.and_then(|first| pack([first.as_str()]).ok()).ok_or(NotSent::Now)?;
        let reply = self.exchange("node", packed).await?;
        if reply.status == 200 {
            return Ok(());
        }
        if reply.status == 403 {
            let key = self.key.public().id();
            tracing::info!(%key, "the origin does not know this node yet: `mirabelle-publisher node accept`");
        }
        Err(NotSent::Now)
    }

    /// Asks the first upstream that has such a thing: the origin, through nodes or not.
    async fn exchange(&self, what: &str, bytes: Vec<u8>) -> Result<Reply, NotSent> {
        let path = format!("fleet/{}/{what}", self.college);
        let upstreams = self.upstreams.in_order(Instant::now());
        let mut outcome = if upstreams.is_empty() { NotSent::Now } else { NotSent::Ever };
        for upstream in upstreams {
            let body = SignedBody {
                bytes: bytes.clone(),
                content_type: PACKED,
                key: self.key.clone(),
                now: Instant::now(),
            };
            let fetcher = upstream.at(Priority::Speculative);
            let asking = fetcher.exchange(&path, &[], Some(Sent::Signed(body)), MAX_ANSWER_BYTES);
            match tokio::time::timeout(PATIENCE, asking).await {
                Ok(Ok(reply)) if reply.status != 404 && reply.status != 405 => return Ok(reply),
                Ok(Ok(_)) => continue,
                Ok(Err(error)) => tracing::debug!(%error, "an upstream takes no reports"),
                Err(_) => tracing::debug!("an upstream takes no reports in time"),
            }
            outcome = NotSent::Now;
        }
        Err(outcome)
    }
}
