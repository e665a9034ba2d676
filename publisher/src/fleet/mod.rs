//! The fleet, as its machines report it: the origin's end of what nodes send.
//!
//! ```text
//! POST /fleet/57001/node       a key says that it is the college's node; an operator accepts it (`node accept`)
//! POST /fleet/57001/reports    reports of the college's machines, packed, in a request that its node signed ─▶ state.rs
//! ```
//!
//! Threats and the defence for each:
//! - *Whoever stole a node's key*: can report for that college until an operator removes it, and read nothing: nothing is read here.
//! - *A node that reports for another college, or for machines that are none of its own*: its key counts for one path, each report is signed by its
//!   machine, and a key that enrolled at one college stays there.
//! - *A request that was overheard*: it counts once, for five minutes; reports are numbered besides.
//! - *Somebody who knocks without end*: a college has few keys that wait.

mod rollouts;
mod state;

use std::path::Path;

use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode};
use mirabelle_fleet::SignedReport;
use mirabelle_manifests::{Instant, SiteId};
use mirabelle_terminal::Failure;
use mirabelle_transfer::reports::{MAX_PACKED_BYTES, unpack};
use mirabelle_transfer::serve::{Body, Refused, SignedRequests, answer, collect, json};

pub(crate) use self::rollouts::{Followed, followed, held_by};
use self::state::Error;
pub(crate) use self::state::{Daily, State};

const UNREADABLE: Refused = (StatusCode::BAD_REQUEST, "the request cannot be read");
const NOT_ACCEPTED: Refused = (StatusCode::FORBIDDEN, "this key is not accepted as the college's node");

/// What the origin does for the fleet.
pub(crate) struct Fleet {
    state: State,
    requests: SignedRequests,
}

impl Fleet {
    pub(crate) async fn open(engine: &str, directory: &Path) -> Result<Self, Failure> {
        Ok(Self { state: State::open(engine, directory).await?, requests: SignedRequests::default() })
    }

    /// Answers nodes; everything else is given back.
    pub(crate) async fn answer(
        &self,
        request: Request<Incoming>,
    ) -> Result<Response<Body>, Request<Incoming>> {
        let asked = request.uri().path().strip_prefix("/fleet/").and_then(|rest| rest.split_once('/'));
        let asked = asked.map(|(college, what)| (college.parse::<SiteId>(), what.to_owned()));
        let Some((Ok(college), what)) = asked else { return Err(request) };
        if request.method() != Method::POST {
            return Err(request);
        }
        let answered = match what.as_str() {
            "node" => self.knock(&college, request).await,
            "reports" => self.take(&college, request).await,
            _ => return Err(request),
        };
        Ok(answer(answered))
    }

    async fn knock(&self, college: &SiteId, request: Request<Incoming>) -> Result<Response<Body>, Refused> {
        let (parts, body) = request.into_parts();
        let packed = collect(body, MAX_PACKED_BYTES).await?;
        let lines = unpack(&packed).map_err(|_| UNREADABLE)?;
        let first = lines.lines().next().ok_or(UNREADABLE)?;
        let first = SignedReport::parse(first.as_bytes()).map_err(|_| UNREADABLE)?;
        let (report, key) = first.verify_first().map_err(|_| UNREADABLE)?;
        if report.college != *college || report.machine.is_some() {
            return Err(UNREADABLE);
        }
        let signed = self.requests.read(&parts)?;
        self.requests.verify(&signed, &key, (&parts, &packed), Instant::now())?;
        if self.state.node_key(college).await.map_err(silent)?.is_some_and(|known| known == key) {
            return Ok(json(&serde_json::json!({ "accepted": true })));
        }
        self.state.knock(college, &key, Instant::now()).await.map_err(silent)?;
        tracing::warn!(%college, key = %key.id(), "a key says that it is this college's node: `mirabelle-publisher node accept`");
        Err(NOT_ACCEPTED)
    }

    async fn take(&self, college: &SiteId, request: Request<Incoming>) -> Result<Response<Body>, Refused> {
        let (parts, body) = request.into_parts();
        let key = self.state.node_key(college).await.map_err(silent)?.ok_or(NOT_ACCEPTED)?;
        // Before its body is read: whoever is not the node sends nothing large.
        let signed = self.requests.read(&parts)?;
        if signed.key != key.id() {
            return Err(NOT_ACCEPTED);
        }
        let packed = collect(body, MAX_PACKED_BYTES).await?;
        self.requests.verify(&signed, &key, (&parts, &packed), Instant::now())?;
        let lines = unpack(&packed).map_err(|_| UNREADABLE)?;
        let taken = self.state.take(college, &lines, Instant::now()).await.map_err(silent)?;
        if taken.refused > 0 {
            tracing::warn!(%college, refused = taken.refused, "reports that are not signed by their machines are refused");
        }
        tracing::debug!(%college, ?taken, "reports were taken");
        Ok(json(&taken))
    }
}

/// The node keeps what it has, and comes again.
#[expect(clippy::needless_pass_by_value, reason = "as `map_err` hands it on")]
fn silent(error: Error) -> Refused {
    tracing::error!(%error, cause = ?std::error::Error::source(&error), "the fleet's state does not answer");
    (StatusCode::SERVICE_UNAVAILABLE, "the fleet's state does not answer now")
}
