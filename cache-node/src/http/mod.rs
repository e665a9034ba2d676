//! What the node answers: the same tree as an origin, so that an asker cannot tell them apart.
//!
//! | path | from |
//! |---|---|
//! | `/metadata/…`, `/targets/…`, `/routes/…` | `served/` |
//! | `/deltas/…` | `served/`: deltas that releases came here by |
//! | `/objects/ab/cdef…` | the object store; compressed for whoever accepts zstd |
//! | of an approved release, and not here | fetched while whoever asks waits (`on_demand.rs`) |
//! | `/media/<sha256>` | what the store shows of approved releases (`media.rs`) |
//! | `/complete.json` | what the node states that it holds (`proof.rs`) |
//! | `/` | a page for whoever stands in front of the node (`page.rs`) |
//! | `/status` | the same as JSON: `state.json`, what is on, what is to come |
//! | `/metrics` | the same for Prometheus (`metrics.rs`) |
//! | `/person`, `/rights.json`, `/identity/…`, `/orders…`, `/estimate/…` | people and their rooms (`people/`) |
//! | `/fleet/<college>/…` | POST: what machines say of themselves (`fleet/`) |
//! | `/wake-ups` | POST: a workstation asks to be woken (`lan/wake_ups.rs`) |
//! | `/legacy/<name>/…` | a legacy repository, pulled through (`legacy/`) |
//! | `/healthz` | 200 while the process answers |

mod metrics;
mod page;
mod picture;
mod seen;
mod words;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use hyper::{Method, Request, Response, StatusCode};
use jiff::tz::TimeZone;
use mirabelle_manifests::{Digest, Instant, Routes};
use mirabelle_transfer::Link;
use mirabelle_transfer::flight::FlightError;
use mirabelle_transfer::serve::{
    Body, Naming, ServeStats, body, file_of, problem, serve_document, serve_file, serve_growing, serve_object,
};
use tokio::sync::watch;

pub(crate) use self::seen::Seen;
use crate::care::Alarms;
use crate::config::Config;
use crate::disk::Disk;
use crate::fleet::Fleet;
use crate::lan::{MAX_REQUEST_BYTES, WakeUpError, Waking};
use crate::legacy::Legacy;
use crate::link::timetable;
use crate::media::Media;
use crate::mirror::{Current, read_health, read_plan};
use crate::on_demand::{Object, OnDemand};
use crate::people::People;
use crate::site::Site;

/// How long a request's body may take.
const BODY_TIME: Duration = Duration::from_secs(10);

/// What answers are made of.
pub(crate) struct Node {
    pub(crate) site: Site,
    pub(crate) config: Config,
    pub(crate) waking: Arc<Waking>,
    pub(crate) legacy: Legacy,
    pub(crate) on_demand: Arc<OnDemand>,
    pub(crate) media: Arc<Media>,
    pub(crate) people: Arc<People>,
    pub(crate) fleet: Arc<Fleet>,
    pub(crate) link: Arc<Link>,
    pub(crate) served: watch::Receiver<Current>,
    pub(crate) disk: Disk,
    pub(crate) stats: Arc<ServeStats>,
    pub(crate) alarms: Arc<Alarms>,
    /// Whoever asked lately.
    pub(crate) seen: Seen,
}

impl Node {
    fn status(&self, now: Instant) -> serde_json::Value {
        let (site, state) = (&self.site, self.site.state());
        let mut shown = serde_json::to_value(&state).unwrap_or_default();
        shown["college"] = self.config.college.to_string().into();
        shown["stale"] = state.is_stale(now).into();
        shown["reports_waiting"] = self.fleet.reports_waiting().into();
        shown["alarms"] = serde_json::to_value(self.alarms.raised()).unwrap_or_default();
        shown["plan"] = serde_json::to_value(read_plan(&site.path("plan.json"))).unwrap_or_default();
        shown["upstreams"] =
            serde_json::to_value(read_health(&site.path("upstreams.json"))).unwrap_or_default();
        shown
    }

    /// The college's time zone: that of the link's hours, if they have one, or the deployment's.
    fn zone(&self) -> TimeZone {
        let own = self.config.link.as_ref().and_then(|table| table.time_zone.as_ref());
        if let Some(zone) = own {
            return zone.0.clone();
        }
        let network = self.served.borrow().network();
        let hours = network.and_then(|network| timetable(&network, &self.config.college));
        hours.map_or(TimeZone::UTC, |hours| hours.zone().clone())
    }
}

/// Answers one request.
pub(crate) async fn answer(node: Arc<Node>, peer: SocketAddr, request: Request<Incoming>) -> Response<Body> {
    let site = &node.site;
    node.seen.note(peer.ip(), Instant::now());
    if request.uri().path() == "/wake-ups" {
        return ask_to_be_woken(&node.waking, request).await;
    }
    let request = match node.people.answer(request).await {
        Ok(response) => return response,
        Err(request) => request,
    };
    let request = match node.fleet.answer(request).await {
        Ok(response) => return response,
        Err(request) => request,
    };
    let (method, headers) = (request.method(), request.headers());
    if let Some(asked) = request.uri().path().strip_prefix("/legacy/") {
        return node.legacy.answer(method, headers, asked, request.uri().query()).await;
    }
    match request.uri().path() {
        "/" => return page::answer(&node, &request).await,
        "/metrics" => return metrics::answer(&node).await,
        "/healthz" => return Response::new(body("ok\n")),
        "/status" => return status(&node).await,
        "/complete.json" => {
            return serve_file(method, headers, &site.served().path("complete.json"), Naming::Mutable).await;
        }
        _ => {}
    }
    let not_here = || problem(StatusCode::NOT_FOUND, "there is no such file here");
    let Some(path) = file_of(request.uri().path()) else { return not_here() };
    match path.as_str().split_once('/') {
        Some(("objects", name)) => {
            let Some(object) = object_of(name) else { return not_here() };
            let response = serve_object(method, headers, &site.objects_read_only(), object).await;
            if response.status() == StatusCode::NOT_FOUND {
                return object_on_demand(&node, method, headers, object).await;
            }
            response
        }
        Some(("media", name)) => {
            let Ok(digest) = name.parse() else { return not_here() };
            node.media.answer(digest).await.unwrap_or_else(|error| did_not_come(&error))
        }
        Some(("deltas", _)) => {
            serve_file(method, headers, &site.served().path(path.as_str()), Naming::Immutable).await
        }
        Some((kind @ ("metadata" | "targets" | "routes"), _)) => {
            let mutable = path.as_str() == "metadata/timestamp.json" || path.as_str().starts_with("routes/");
            let naming = if mutable { Naming::Mutable } else { Naming::Immutable };
            let tree = site.served().path("");
            let response = serve_document(method, headers, &tree, &path, naming).await;
            if response.status() != StatusCode::NOT_FOUND {
                return response;
            }
            if kind == "routes" && node.on_demand.offers(path.as_str()).await {
                let routes = Routes { objects: true, ..Routes::default() };
                return json(StatusCode::OK, &routes);
            }
            if kind == "targets" {
                return match node.on_demand.manifest(path.as_str()).await {
                    Ok(true) => serve_document(method, headers, &tree, &path, naming).await,
                    Ok(false) => response,
                    Err(error) => did_not_come(&error),
                };
            }
            response
        }
        _ => not_here(),
    }
}

/// An object that is not here: it comes, if it is of an approved release.
async fn object_on_demand(
    node: &Arc<Node>,
    method: &Method,
    headers: &HeaderMap,
    object: Digest,
) -> Response<Body> {
    let site = &node.site;
    match node.on_demand.object(object).await {
        Ok(Object::Here) => serve_object(method, headers, &site.objects_read_only(), object).await,
        Ok(Object::Coming(flight, size)) => serve_growing(method, headers, object, size, flight),
        // Of no manifest that is here: whoever asks for what does not exist makes nobody work for it.
        Ok(Object::Unknown) => problem(StatusCode::NOT_FOUND, "there is no such file here"),
        Err(error) => did_not_come(&error),
    }
}

/// Whoever asked should ask again: the next transfer may come through.
fn did_not_come(error: &FlightError) -> Response<Body> {
    let mut cause = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        cause = format!("{cause}: {error}");
        source = error.source();
    }
    tracing::warn!(error = cause, "what somebody waits for did not come");
    let mut response =
        problem(StatusCode::SERVICE_UNAVAILABLE, "it is not here, and could not be fetched now");
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("5"));
    response
}

fn json(status: StatusCode, value: &impl serde::Serialize) -> Response<Body> {
    match serde_json::to_vec_pretty(value) {
        Ok(bytes) => {
            let mut response = Response::new(body(bytes));
            *response.status_mut() = status;
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            response
        }
        Err(error) => {
            tracing::error!(%error, "an answer could not be written as JSON");
            problem(StatusCode::INTERNAL_SERVER_ERROR, "the answer could not be written")
        }
    }
}

async fn ask_to_be_woken(waking: &Arc<Waking>, request: Request<Incoming>) -> Response<Body> {
    if request.method() != Method::POST {
        return problem(StatusCode::METHOD_NOT_ALLOWED, "one asks to be woken by POST");
    }
    let body_read = Limited::new(request.into_body(), MAX_REQUEST_BYTES).collect();
    let read = tokio::time::timeout(BODY_TIME, body_read).await;
    let Ok(Ok(read)) = read else {
        return problem(StatusCode::BAD_REQUEST, "the request is too long, or did not arrive");
    };
    let (waking, bytes) = (waking.clone(), read.to_bytes());
    match tokio::task::spawn_blocking(move || waking.ask(&bytes, Instant::now())).await {
        Ok(Ok(())) => Response::new(body("ok\n")),
        Ok(Err(error @ WakeUpError::Disk(_))) => {
            tracing::error!(%error, "a wake-up could not be kept");
            problem(StatusCode::INSUFFICIENT_STORAGE, "the wake-up could not be kept")
        }
        Ok(Err(error)) => {
            tracing::info!(%error, "a wake-up was refused");
            problem(StatusCode::BAD_REQUEST, "this wake-up cannot be promised")
        }
        Err(_) => problem(StatusCode::INTERNAL_SERVER_ERROR, "the wake-up could not be kept"),
    }
}

fn object_of(name: &str) -> Option<Digest> {
    let (directory, rest) = name.split_once('/')?;
    let object: Digest = format!("{directory}{rest}").parse().ok()?;
    (object.fanned_out() == name).then_some(object)
}

async fn status(node: &Arc<Node>) -> Response<Body> {
    let reading = {
        let node = node.clone();
        tokio::task::spawn_blocking(move || node.status(Instant::now()))
    };
    match reading.await {
        Ok(shown) => json(StatusCode::OK, &shown),
        Err(_) => problem(StatusCode::INTERNAL_SERVER_ERROR, "the state could not be read"),
    }
}
