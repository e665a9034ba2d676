//! Giving out an object of a store, in the form it has there where the asker can read that.
//!
//! ```text
//! GET /objects/ab/cdef…   Accept-Encoding: zstd        the frame as it is stored    Content-Encoding: zstd
//!                                                                                  ETag: "cdef….zst-<length>-<time>"
//! GET /objects/ab/cdef…                                decoded while it is sent     ETag: "cdef…"
//! ```
//!
//! They are two representations of one resource (RFC 9110, 8.8.3.3): each has an entity tag of its own, and a range is
//! one of the representation that is sent (14.2). The frame's tag says which frame it is, since another version of zstd
//! makes another of the same bytes; so two halves of different frames are never glued together. `Vary` keeps caches from
//! mixing them.
//!
//! Decoding happens on the blocking pool, a piece at a time and only when the asker has taken the one before.
//!
//! Threats and the defence for each:
//! - *Askers who cannot read zstd, in numbers*: at most [`MAX_DECODERS`] are served at once, each with a window of 2 MiB;
//!   the next ones wait for [`WAIT_FOR_DECODER`], then are asked to come again.
//! - *A damaged frame, or a bomb on the disk*: no more is sent than the frame states, and where it does not decode, the
//!   connection breaks off rather than end as if it were whole.

use std::io::{self, Read};
use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use hyper::header::{ACCEPT_ENCODING, CONTENT_ENCODING, HeaderMap, HeaderValue, RETRY_AFTER, VARY};
use hyper::{Method, Response, StatusCode};
use mirabelle_content::{Form, ObjectStore, PlainReader};
use mirabelle_manifests::Digest;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task::spawn_blocking;

use super::body::{Body, streaming};
use super::file::{NEVER_CHANGES, answer, find_object, not_here, refused};
use super::range::{Entity, head};
use super::{gate, problem};
use crate::encoding::Encoding;

/// Objects decoded at once for those who do not read zstd: 64 windows are 128 MiB.
const MAX_DECODERS: usize = 64;
/// Less than our own clients wait for a byte.
const WAIT_FOR_DECODER: Duration = Duration::from_secs(20);

/// Bytes decoded at a time.
const PIECE_BYTES: usize = 256 << 10;

static DECODERS: Semaphore = Semaphore::const_new(MAX_DECODERS);

/// Answers a request with an object; 404 if the store does not have it.
pub async fn serve_object(
    method: &Method,
    headers: &HeaderMap,
    store: &ObjectStore,
    object: Digest,
) -> Response<Body> {
    let found = match find_object(store, object).await {
        Ok(Some(found)) => found,
        Ok(None) => return not_here(),
        Err(error) => return unreadable(&error),
    };
    if let Some(refusal) = refused(method) {
        return refusal;
    }
    let accepted = headers.get(ACCEPT_ENCODING).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut response = match found.form {
        Form::Zstd if !Encoding::Zstd.is_accepted(accepted) => {
            Box::pin(decoded(method, headers, store, object)).await
        }
        Form::Zstd => {
            let mut response = answer(method, headers, found);
            if response.status().is_success() {
                let encoding = HeaderValue::from_static(Encoding::Zstd.token());
                response.headers_mut().insert(CONTENT_ENCODING, encoding);
            }
            response
        }
        Form::Plain | Form::Executable => answer(method, headers, found),
    };
    response.headers_mut().insert(VARY, HeaderValue::from_static("accept-encoding"));
    response
}

/// The plain bytes of a frame.
async fn decoded(
    method: &Method,
    headers: &HeaderMap,
    store: &ObjectStore,
    object: Digest,
) -> Response<Body> {
    let Ok(Ok(permit)) = tokio::time::timeout(WAIT_FOR_DECODER, DECODERS.acquire()).await else {
        let mut busy = problem(StatusCode::SERVICE_UNAVAILABLE, "too many objects are being decoded");
        busy.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("2"));
        return busy;
    };
    let opened = {
        let store = store.clone();
        gate::apart(move || store.read(object)).await
    };
    let reader = match opened {
        Ok(reader) => reader,
        Err(error) => return unreadable(&error),
    };
    // As for the plain file, which has the same bytes.
    let name = object.fanned_out();
    let name = name.rsplit('/').next().unwrap_or_default();
    let Ok(etag) = HeaderValue::from_str(&format!("\"{name}\"")) else {
        return unreadable(&io::Error::other("its name is no entity tag"));
    };
    let entity = Entity { length: reader.size(), etag, cache: NEVER_CHANGES };
    match head(headers, &entity) {
        Ok((mut response, range)) => {
            if *method == Method::GET {
                *response.body_mut() = decoding(reader, range, permit);
            }
            response
        }
        Err(answered) => answered,
    }
}

fn unreadable(error: &io::Error) -> Response<Body> {
    tracing::error!(%error, "object could not be served");
    problem(StatusCode::INTERNAL_SERVER_ERROR, "the file could not be read")
}

/// What is being decoded: who holds it may.
struct Decoding {
    reader: PlainReader,
    skip: u64,
    left: u64,
    _permit: SemaphorePermit<'static>,
}

impl Decoding {
    /// The next piece; `None` after the last.
    fn next(mut self) -> io::Result<Option<(Bytes, Self)>> {
        if self.left == 0 {
            return Ok(None);
        }
        let skipped = io::copy(&mut self.reader.by_ref().take(self.skip), &mut io::sink())?;
        let want = self.left.min(PIECE_BYTES as u64);
        let mut piece = Vec::with_capacity(usize::try_from(want).unwrap_or(PIECE_BYTES));
        self.reader.by_ref().take(want).read_to_end(&mut piece)?;
        if skipped != self.skip || piece.len() as u64 != want {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the object is shorter than it states"));
        }
        self.skip = 0;
        self.left -= want;
        if self.left == 0 {
            // The frame's checksum comes after its last byte; a range that ends earlier never sees it.
            self.reader.by_ref().take(1).read_to_end(&mut Vec::new())?;
        }
        Ok(Some((Bytes::from(piece), self)))
    }
}

fn decoding(reader: PlainReader, range: Range<u64>, permit: SemaphorePermit<'static>) -> Body {
    let decoding = Decoding { reader, skip: range.start, left: range.end - range.start, _permit: permit };
    let pieces = futures_util::stream::try_unfold(decoding, |decoding| async move {
        let next = spawn_blocking(move || decoding.next()).await.map_err(io::Error::other)?;
        next.inspect_err(|error| tracing::error!(%error, "an object broke off while it was decoded"))
    });
    streaming(pieces)
}
