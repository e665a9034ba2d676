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
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use futures_util::TryStreamExt;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use hyper::header::{ACCEPT_ENCODING, CONTENT_ENCODING, ETAG, HeaderMap, HeaderValue, RETRY_AFTER, VARY};
use hyper::{Method, Response, StatusCode};
use mirabelle_content::{Form, ObjectStore, PlainReader};
use mirabelle_manifests::Digest;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task::spawn_blocking;

use super::sync_stream::SyncStream;
use super::{Body, CHUNK_BYTES, Found, NEVER_CHANGES, Naming, answer, head, open, problem, serve_file};
use crate::encoding::Encoding;

/// Objects decoded at once for those who do not read zstd: 64 windows are 128 MiB.
const MAX_DECODERS: usize = 64;
/// Less than our own clients wait for a byte.
const WAIT_FOR_DECODER: Duration = Duration::from_secs(20);

static DECODERS: Semaphore = Semaphore::const_new(MAX_DECODERS);

/// Answers a request with an object; 404 if the store does not have it.
pub async fn serve_object(
    method: &Method,
    headers: &HeaderMap,
    store: &ObjectStore,
    object: Digest,
) -> Response<Body> {
    let located = {
        let store = store.clone();
        spawn_blocking(move || store.locate(object)).await.ok().flatten()
    };
    let accepted = headers.get(ACCEPT_ENCODING).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut response = match located {
        Some((Form::Zstd, path)) if !matches!(*method, Method::GET | Method::HEAD) => {
            return serve_file(method, headers, &path, Naming::Immutable).await;
        }
        Some((Form::Zstd, path)) if Encoding::Zstd.is_accepted(accepted) => {
            as_stored(method, headers, &path).await
        }
        Some((Form::Zstd, _)) => decoded(method, headers, store, object).await,
        Some((Form::Plain | Form::Executable, path)) => {
            serve_file(method, headers, &path, Naming::Immutable).await
        }
        None => return problem(StatusCode::NOT_FOUND, "there is no such file here"),
    };
    response.headers_mut().insert(VARY, HeaderValue::from_static("accept-encoding"));
    response
}

/// The frame.
async fn as_stored(method: &Method, headers: &HeaderMap, path: &Path) -> Response<Body> {
    let found = match open(path, Naming::Immutable).await {
        Ok(Some(found)) => found,
        Ok(None) => return problem(StatusCode::NOT_FOUND, "there is no such file here"),
        Err(error) => return unreadable(&error),
    };
    let found = match with_its_own_tag(path, found).await {
        Ok(found) => found,
        Err(error) => return unreadable(&error),
    };
    let mut response = answer(method, headers, found).await;
    if response.status().is_success() {
        response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static(Encoding::Zstd.token()));
    }
    response
}

async fn with_its_own_tag(path: &Path, found: Found) -> io::Result<Found> {
    let written = found.file.metadata().await?.modified()?;
    let written = written.duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_nanos();
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let etag = format!("\"{name}-{:x}-{written:x}\"", found.length);
    Ok(Found { etag: HeaderValue::from_str(&etag).map_err(io::Error::other)?, ..found })
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
        spawn_blocking(move || store.read(object)).await.unwrap_or_else(|panic| Err(io::Error::other(panic)))
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
    match head(headers, reader.size(), &etag, NEVER_CHANGES) {
        Ok((mut response, range)) => {
            debug_assert!(response.headers().contains_key(ETAG));
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
        let want = self.left.min(CHUNK_BYTES as u64);
        let mut piece = Vec::with_capacity(usize::try_from(want).unwrap_or(CHUNK_BYTES));
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
    BodyExt::boxed(StreamBody::new(SyncStream::new(pieces.map_ok(Frame::data))))
}
