//! The head of an answer: which representation it is, whether the asker has it already, and which part is wanted
//! (RFC 9110, 8.8, 13 and 14).

use std::ops::Range;

use bytes::Bytes;
use hyper::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderMap, HeaderName,
    HeaderValue, IF_NONE_MATCH, IF_RANGE, RANGE,
};
use hyper::{Response, StatusCode};

use super::body::{Body, body};
use super::problem;

/// Fields of an answer, so that their table is made once.
const FIELDS: usize = 8;

/// What is answered with.
#[derive(Clone, Debug)]
pub(super) struct Entity {
    /// Of the whole of it, in bytes.
    pub(super) length: u64,
    pub(super) etag: HeaderValue,
    pub(super) cache: &'static str,
}

/// The head of an answer and the bytes that its body is; or the whole answer where it needs none.
pub(super) fn head(
    headers: &HeaderMap,
    entity: &Entity,
) -> Result<(Response<Body>, Range<u64>), Response<Body>> {
    let Entity { length, etag, cache } = entity;
    let mut response = Response::new(body(Bytes::new()));
    let fields = response.headers_mut();
    // What follows here and in the callers.
    fields.reserve(FIELDS);
    fields.insert(ETAG, etag.clone());
    fields.insert(CACHE_CONTROL, HeaderValue::from_static(cache));
    fields.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    if is_held(headers, etag) {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        return Err(response);
    }

    // A range of another entity than the one asked about is the whole of this one (RFC 9110, 13.1.5).
    let same = |name: HeaderName| headers.get(name).is_none_or(|value| value == etag);
    let mut wanted = 0..*length;
    if let Some(range) = headers.get(RANGE)
        && same(IF_RANGE)
    {
        match parse_range(range.to_str().unwrap_or_default(), *length) {
            Ok(Some(range)) => {
                *response.status_mut() = StatusCode::PARTIAL_CONTENT;
                let described = format!("bytes {}-{}/{length}", range.start, range.end - 1);
                if let Ok(value) = HeaderValue::try_from(described) {
                    response.headers_mut().insert(CONTENT_RANGE, value);
                }
                wanted = range;
            }
            Ok(None) => {}
            Err(Unsatisfiable) => {
                let mut refusal = problem(StatusCode::RANGE_NOT_SATISFIABLE, "the file is shorter than that");
                if let Ok(value) = HeaderValue::try_from(format!("bytes */{length}")) {
                    refusal.headers_mut().insert(CONTENT_RANGE, value);
                }
                return Err(refusal);
            }
        }
    }
    response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(wanted.end - wanted.start));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    Ok((response, wanted))
}

/// True when `If-None-Match` lists the entity's tag, or any (RFC 9110, 13.1.2: weak and strong are compared alike).
fn is_held(headers: &HeaderMap, etag: &HeaderValue) -> bool {
    headers.get_all(IF_NONE_MATCH).iter().any(|value| {
        value == etag
            || value.to_str().is_ok_and(|list| {
                list.split(',').map(str::trim).any(|tag| {
                    tag == "*" || tag.strip_prefix("W/").unwrap_or(tag).as_bytes() == etag.as_bytes()
                })
            })
    })
}

struct Unsatisfiable;

/// Reads a `Range` header of one range; anything else stands for the whole file, as RFC 9110 (14.2) allows.
fn parse_range(header: &str, length: u64) -> Result<Option<Range<u64>>, Unsatisfiable> {
    let Some((first, last)) = header.strip_prefix("bytes=").and_then(|ranges| ranges.split_once('-')) else {
        return Ok(None);
    };
    let range = match (first.parse::<u64>().ok(), last.parse::<u64>().ok()) {
        (Some(first), None) if last.is_empty() => first..length,
        (Some(first), Some(last)) if first <= last => first..last.saturating_add(1).min(length),
        (None, Some(suffix)) if first.is_empty() => length.saturating_sub(suffix)..length,
        _ => return Ok(None),
    };
    if range.start >= range.end { Err(Unsatisfiable) } else { Ok(Some(range)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_one_range_and_takes_the_rest_for_the_whole() {
        let parse = |header| parse_range(header, 100).map_err(|_| ());
        assert_eq!(parse("bytes=0-9"), Ok(Some(0..10)));
        assert_eq!(parse("bytes=90-"), Ok(Some(90..100)));
        assert_eq!(parse("bytes=-5"), Ok(Some(95..100)));
        assert_eq!(parse("bytes=5-1000"), Ok(Some(5..100)));
        assert_eq!(parse("bytes=-1000"), Ok(Some(0..100)));
        assert_eq!(parse("bytes=100-"), Err(()));
        assert_eq!(parse("bytes=-0"), Err(()));
        for whole in ["bytes=1-0", "bytes=a-b", "items=1-2", "bytes=1-2,4-5", "", "bytes=-"] {
            assert_eq!(parse(whole), Ok(None), "{whole}");
        }
    }

    #[test]
    fn answers_what_was_asked_under_conditions() {
        let entity = Entity { length: 100, etag: HeaderValue::from_static("\"a\""), cache: "no-cache" };
        let cases = [
            (&[][..], 200),
            (&[("range", "bytes=0-9")], 206),
            (&[("range", "bytes=0-9"), ("if-range", "\"a\"")], 206),
            (&[("range", "bytes=0-9"), ("if-range", "\"b\"")], 200),
            (&[("range", "bytes=0-9"), ("if-range", "W/\"a\"")], 200),
            (&[("range", "bytes=100-")], 416),
            (&[("if-none-match", "\"a\"")], 304),
            (&[("if-none-match", "\"b\", W/\"a\"")], 304),
            (&[("if-none-match", "*")], 304),
            (&[("if-none-match", "\"b\"")], 200),
            (&[("if-none-match", "\"a\""), ("range", "bytes=100-")], 304),
        ];
        for (fields, status) in cases {
            let mut headers = HeaderMap::new();
            for (name, value) in fields {
                headers.append(*name, HeaderValue::from_static(value));
            }
            let answered = match head(&headers, &entity) {
                Ok((response, range)) => {
                    let length = response.headers()[CONTENT_LENGTH].to_str().unwrap().parse::<u64>().unwrap();
                    assert_eq!(length, range.end - range.start);
                    response.status()
                }
                Err(answered) => answered.status(),
            };
            assert_eq!(answered.as_u16(), status, "{fields:?}");
        }
    }
}
