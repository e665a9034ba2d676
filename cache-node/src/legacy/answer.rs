//! Answers with files of legacy repositories: from what is kept, or while it arrives.
//!
//! The entity tag is ours, since what the upstream says of a file may be weak or missing; its date is the upstream's, which is what old
//! clients ask by (`If-Modified-Since`, and `If-Range` with a date). What cannot be asked for again is given out as it was, with a
//! warning that it is stale (RFC 7234, 5.5: gone from the newer RFCs, understood by the older clients that this is for).

use bytes::Bytes;
use hyper::header::{
    CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, ETAG, HeaderMap, HeaderName, HeaderValue,
    IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, LAST_MODIFIED, WARNING,
};
use hyper::{Method, Response, StatusCode};
use mirabelle_transfer::serve::{Body, Naming, body, problem, serve_file};

use super::store::{Entry, Head};

const STALE: &str = "111 - \"Revalidation Failed\"";

/// Answers with what is kept.
pub(super) async fn kept(
    method: &Method,
    headers: &HeaderMap,
    entry: &Entry,
    never_changes: bool,
    stale: bool,
) -> Response<Body> {
    let head = &entry.head;
    if !head.is_present() {
        let status = StatusCode::from_u16(head.status).unwrap_or(StatusCode::NOT_FOUND);
        return problem(status, "the repository behind this node does not give out this file");
    }
    let same_date = |name: HeaderName| {
        let date = head.last_modified.as_deref();
        date.is_some() && headers.get(name).and_then(|value| value.to_str().ok()) == date
    };
    // Where the asker names a tag, the date does not count (RFC 9110, 13.1.3).
    let mut response = if same_date(IF_MODIFIED_SINCE) && !headers.contains_key(IF_NONE_MATCH) {
        let mut response = Response::new(body(Bytes::new()));
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else {
        let mut asked = headers.clone();
        if same_date(IF_RANGE) {
            asked.remove(IF_RANGE);
        }
        // The tag is the end of the body's name, which names the version.
        serve_file(method, &asked, &entry.body, Naming::Immutable).await
    };
    if response.status().is_success() || response.status() == StatusCode::NOT_MODIFIED {
        describe(response.headers_mut(), head, never_changes);
        if stale {
            response.headers_mut().insert(WARNING, HeaderValue::from_static(STALE));
        }
    }
    response
}

/// The head of an answer whose body arrives.
pub(super) fn head_of(head: &Head, never_changes: bool) -> Response<Body> {
    let mut response = Response::new(body(Bytes::new()));
    describe(response.headers_mut(), head, never_changes);
    if let Some(length) = head.length {
        response.headers_mut().insert(CONTENT_LENGTH, length.into());
    }
    response
}

fn describe(fields: &mut HeaderMap, head: &Head, never_changes: bool) {
    let said = [
        (CONTENT_TYPE, head.content_type.as_deref()),
        (CONTENT_ENCODING, head.content_encoding.as_deref()),
        (LAST_MODIFIED, head.last_modified.as_deref()),
    ];
    for (name, value) in said {
        if let Some(value) = value.and_then(|value| HeaderValue::from_str(value).ok()) {
            fields.insert(name, value);
        }
    }
    if head.content_type.is_none() {
        fields.remove(CONTENT_TYPE);
    }
    if let Some(etag) = head.own_etag().and_then(|etag| HeaderValue::from_str(&etag).ok()) {
        fields.insert(ETAG, etag);
    }
    let cache = if never_changes { "public, max-age=86400" } else { "no-cache" };
    fields.insert(CACHE_CONTROL, HeaderValue::from_static(cache));
}
