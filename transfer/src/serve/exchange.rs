//! The other end of conversations: small bodies that arrive, small answers that nobody keeps.

use std::time::Duration;

use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use serde::Serialize;

use super::{Body, body, problem};

/// How long a request's body may take.
const BODY_TIME: Duration = Duration::from_secs(10);

/// What is answered to a request that cannot be done: a status, and why, in words.
pub type Refused = (StatusCode, &'static str);

/// A request's body, of `limit` bytes at most.
///
/// # Errors
/// 413 when there are more, 408 when they take too long.
pub async fn collect(incoming: Incoming, limit: usize) -> Result<Vec<u8>, Refused> {
    let reading = Limited::new(incoming, limit).collect();
    match tokio::time::timeout(BODY_TIME, reading).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes().to_vec()),
        Ok(Err(_)) => Err((StatusCode::PAYLOAD_TOO_LARGE, "the request is too large")),
        Err(_) => Err((StatusCode::REQUEST_TIMEOUT, "the request took too long")),
    }
}

/// The answer, or why there is none (RFC 9457).
pub fn answer(answered: Result<Response<Body>, Refused>) -> Response<Body> {
    answered.unwrap_or_else(|(status, said)| problem(status, said))
}

/// A value as JSON that nobody keeps.
pub fn json(value: &impl Serialize) -> Response<Body> {
    match serde_json::to_vec(value) {
        Ok(bytes) => json_bytes(bytes),
        Err(error) => {
            tracing::error!(%error, "an answer could not be written as JSON");
            problem(StatusCode::INTERNAL_SERVER_ERROR, "the answer could not be written")
        }
    }
}

/// JSON that nobody keeps.
pub fn json_bytes(bytes: Vec<u8>) -> Response<Body> {
    let mut response = Response::new(body(bytes));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
