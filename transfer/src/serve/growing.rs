//! Giving out an object that is still arriving ([`crate::flight`]).
//!
//! Its size was signed, so that its length and its ranges are known before its bytes are; it is given plain, under the entity tag
//! that the plain object has, so that an asker who breaks off goes on with it wherever it is by then. The connection of one whose
//! transfer fails is broken off.

use hyper::header::{HeaderMap, HeaderValue, VARY};
use hyper::{Method, Response, StatusCode};
use mirabelle_manifests::Digest;

use super::body::{Body, streaming};
use super::file::NEVER_CHANGES;
use super::problem;
use super::range::{Entity, head};
use crate::flight::Flight;

/// Answers a request with an object of `size` bytes that `flight` brings.
pub fn serve_growing<H: Send + Sync + 'static>(
    method: &Method,
    headers: &HeaderMap,
    object: Digest,
    size: u64,
    flight: Flight<H>,
) -> Response<Body> {
    let name = object.fanned_out();
    let name = name.rsplit('/').next().unwrap_or_default();
    let Ok(etag) = HeaderValue::from_str(&format!("\"{name}\"")) else {
        return problem(StatusCode::INTERNAL_SERVER_ERROR, "the file could not be read");
    };
    let (mut response, range) = match head(headers, &Entity { length: size, etag, cache: NEVER_CHANGES }) {
        Ok(head) => head,
        Err(answered) => return answered,
    };
    response.headers_mut().insert(VARY, HeaderValue::from_static("accept-encoding"));
    if *method == Method::GET {
        *response.body_mut() = streaming(flight.read(range.start, Some(range.end)));
    }
    response
}
