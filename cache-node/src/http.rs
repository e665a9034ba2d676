//! What the node answers: the same tree as an origin, so that an asker cannot tell them apart.
//!
//! | path | from |
//! |---|---|
//! | `/metadata/…`, `/targets/…`, `/routes/…` | `served/` |
//! | `/deltas/…` | `served/`: deltas that releases came here by |
//! | `/objects/ab/cdef…` | the object store; compressed for whoever accepts zstd |
//! | `/status` | `state.json`, for people and monitoring |
//! | `/wake-ups` | POST: a workstation asks to be woken (`lan/wake_ups.rs`) |
//! | `/legacy/<name>/…` | a legacy repository, pulled through (`legacy/`) |
//! | `/healthz` | 200 while the process answers |

use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use mirabelle_manifests::{Digest, Instant};
use mirabelle_transfer::serve::{
    Body, Naming, body, file_of, problem, serve_document, serve_file, serve_object,
};

use crate::index::leave_doubt;
use crate::lan::{MAX_REQUEST_BYTES, WakeUpError, Waking};
use crate::legacy::Legacy;
use crate::site::Site;

/// How long a request's body may take.
const BODY_TIME: Duration = Duration::from_secs(10);

/// What answering needs.
#[derive(Clone)]
pub(crate) struct Services {
    pub(crate) site: Site,
    pub(crate) waking: Arc<Waking>,
    pub(crate) legacy: Arc<Legacy>,
}

/// Answers one request.
pub(crate) async fn answer(services: Services, request: Request<Incoming>) -> Response<Body> {
    let Services { site, waking, legacy } = services;
    if request.uri().path() == "/wake-ups" {
        return ask_to_be_woken(&waking, request).await;
    }
    let (method, headers) = (request.method(), request.headers());
    if let Some(asked) = request.uri().path().strip_prefix("/legacy/") {
        return legacy.answer(method, headers, asked, request.uri().query()).await;
    }
    match request.uri().path() {
        "/healthz" => return Response::new(body("ok\n")),
        "/status" => return status(&site),
        _ => {}
    }
    let not_here = || problem(StatusCode::NOT_FOUND, "there is no such file here");
    let Some(path) = file_of(request.uri().path()) else { return not_here() };
    match path.as_str().split_once('/') {
        Some(("objects", name)) => {
            let Some(object) = object_of(name) else { return not_here() };
            let response = serve_object(method, headers, &site.objects_read_only(), object).await;
            if response.status() == StatusCode::NOT_FOUND {
                // Somebody was told that it is here: look again at the next sync.
                tracing::warn!(%object, "an object that was asked for is missing");
                leave_doubt(&site.path(""));
            }
            response
        }
        Some(("deltas", _)) => {
            serve_file(method, headers, &site.served().path(path.as_str()), Naming::Immutable).await
        }
        Some(("metadata" | "targets" | "routes", _)) => {
            let mutable = path.as_str() == "metadata/timestamp.json" || path.as_str().starts_with("routes/");
            let naming = if mutable { Naming::Mutable } else { Naming::Immutable };
            serve_document(method, headers, &site.served().path(""), &path, naming).await
        }
        _ => not_here(),
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

fn status(site: &Site) -> Response<Body> {
    let state = site.state();
    let mut shown = serde_json::to_value(&state).unwrap_or_default();
    shown["stale"] = state.is_stale(Instant::now()).into();
    match serde_json::to_vec_pretty(&shown) {
        Ok(bytes) => {
            let mut response = Response::new(body(bytes));
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            response
        }
        Err(error) => {
            tracing::error!(%error, "the state could not be written as JSON");
            problem(StatusCode::INTERNAL_SERVER_ERROR, "the state could not be read")
        }
    }
}
