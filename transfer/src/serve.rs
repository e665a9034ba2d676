//! Giving out files: what the origin and the node have in common.
//!
//! GET and HEAD, one range, `ETag`, `If-None-Match`, `If-Range` (RFC 9110), HTTP/1.1. A file is read in pieces on the
//! blocking pool, so that a cold disk holds up nobody else.
//!
//! Threats and the defence for each:
//! - *A path that leaves the directory*: it must parse as an [`EntryPath`], and nothing is percent-decoded.
//! - *A client that sends its request for ever*: a time limit on the header; bodies are not read.
//! - *Too many clients*: connections are capped; the next ones wait to be accepted.

mod growing;
mod object;

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::TryStreamExt;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{
    ACCEPT_ENCODING, ACCEPT_RANGES, ALLOW, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE,
    CONTENT_TYPE, ETAG, HeaderMap, HeaderValue, IF_NONE_MATCH, IF_RANGE, RANGE, VARY,
};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use mirabelle_manifests::{Digest, EntryPath};
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use self::growing::serve_growing;
pub use self::object::serve_object;
use crate::encoding::EncodedForms;

/// Connections served at once: a large college's workstations, each with a few.
const MAX_CONNECTIONS: usize = 1024;
/// Of these, how many one address may have: a machine that opens connections and never reads must not be alone.
const MAX_CONNECTIONS_OF_ONE: usize = 256;
/// A request whose header takes longer than this is not one.
const HEADER_TIME: Duration = Duration::from_secs(15);
/// How long connections may take to finish when the server stops.
const DRAIN_TIME: Duration = Duration::from_secs(10);
/// Bytes read from a file at a time.
const CHUNK_BYTES: usize = 256 << 10;
/// Files up to this size that may change are named by the digest of their content.
const MAX_MUTABLE_BYTES: u64 = 1 << 20;

/// What is named by its content may be kept for a year.
const NEVER_CHANGES: &str = "public, max-age=31536000, immutable";

/// The body of every response.
pub type Body = BoxBody<Bytes, io::Error>;

/// Whether a file's name says what is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Naming {
    /// The name holds a digest or version: it never changes, and the name is its entity tag.
    Immutable,
    /// It is replaced from time to time: the digest of its content is its entity tag.
    Mutable,
}

/// A body of these bytes.
pub fn body(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never: Infallible| match never {}).boxed()
}

/// A body that grows while it is sent.
pub fn streaming(stream: impl futures_util::Stream<Item = io::Result<Bytes>> + Send + 'static) -> Body {
    BodyExt::boxed(StreamBody::new(SyncStream::new(stream.map_ok(Frame::data))))
}

/// An error answer (RFC 9457).
pub fn problem(status: StatusCode, detail: &str) -> Response<Body> {
    let title = status.canonical_reason().unwrap_or("Error");
    let json = serde_json::json!({"title": title, "status": status.as_u16(), "detail": detail});
    let mut response = Response::new(body(json.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    response
}

/// The file that a request's path names below a directory; `None` for a path that is not one.
pub fn file_of(path: &str) -> Option<EntryPath> {
    path.strip_prefix('/')?.parse().ok()
}

/// Answers a request with a file of a published tree: as a difference or compressed, if the asker can read that and it was
/// made (RFC 9842), else plain.
pub async fn serve_document(
    method: &Method,
    headers: &HeaderMap,
    tree: &Path,
    path: &EntryPath,
    naming: Naming,
) -> Response<Body> {
    let field = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let best = match naming {
        Naming::Immutable => EncodedForms::of(tree).best(
            path.as_str(),
            field(ACCEPT_ENCODING.as_str()).unwrap_or_default(),
            field("available-dictionary"),
        ),
        Naming::Mutable => None,
    };
    let plain = tree.join(path.as_str());
    let (file, mut encoding) = match best {
        Some((form, encoding)) => (form, Some(encoding)),
        None => (plain.clone(), None),
    };
    let mut response = serve_file(method, headers, &file, naming).await;
    if encoding.is_some() && response.status() == StatusCode::NOT_FOUND {
        // A newer version was published between looking and opening.
        encoding = None;
        response = serve_file(method, headers, &plain, naming).await;
    }
    let status = response.status();
    if naming == Naming::Immutable && status == StatusCode::NOT_MODIFIED {
        response.headers_mut().insert(VARY, HeaderValue::from_static(VARIES));
    }
    if naming == Naming::Immutable && matches!(status, StatusCode::OK | StatusCode::PARTIAL_CONTENT) {
        let fields = response.headers_mut();
        fields.insert(VARY, HeaderValue::from_static(VARIES));
        if let Some(encoding) = encoding {
            fields.insert(CONTENT_ENCODING, HeaderValue::from_static(encoding.token()));
        }
        if let Ok(pattern) = HeaderValue::from_str(&format!("match=\"/{}\"", later_versions(path))) {
            fields.insert("use-as-dictionary", pattern);
        }
    }
    response
}

/// What the answer to a request for a document depends on.
const VARIES: &str = "accept-encoding, available-dictionary";

/// The paths that later versions of this file will have, as a pattern: `metadata/8.catalogue.json` is a dictionary for
/// `metadata/*.catalogue.json`, and so is the digest before a target's name.
fn later_versions(path: &EntryPath) -> String {
    let (directory, name) = path.as_str().rsplit_once('/').unwrap_or(("", path.as_str()));
    let name = name.split_once('.').map_or(name, |(_, name)| name);
    format!("{directory}/*.{name}")
}

/// Answers a request with a file.
pub async fn serve_file(method: &Method, headers: &HeaderMap, path: &Path, naming: Naming) -> Response<Body> {
    if *method != Method::GET && *method != Method::HEAD {
        let mut response = problem(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are answered here");
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match open(path, naming).await {
        Ok(Some(file)) => answer(method, headers, file).await,
        Ok(None) => problem(StatusCode::NOT_FOUND, "there is no such file here"),
        Err(error) => {
            tracing::error!(%error, path = %path.display(), "file could not be served");
            problem(StatusCode::INTERNAL_SERVER_ERROR, "the file could not be read")
        }
    }
}

struct Found {
    file: fs_err::tokio::File,
    length: u64,
    etag: HeaderValue,
    cache: &'static str,
}

async fn open(path: &Path, naming: Naming) -> io::Result<Option<Found>> {
    let mut file = match fs_err::tokio::File::open(path).await {
        Ok(file) => file,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let metadata = file.metadata().await?;
    if !metadata.is_file() {
        return Ok(None);
    }
    let length = metadata.len();
    let (tag, cache) = match naming {
        Naming::Immutable => {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            (name.into_owned(), NEVER_CHANGES)
        }
        Naming::Mutable => {
            if length > MAX_MUTABLE_BYTES {
                return Err(io::Error::other("a file that changes is too large to be named by its content"));
            }
            let mut content = Vec::new();
            file.read_to_end(&mut content).await?;
            file.rewind().await?;
            (Digest::of(&content).to_string(), "no-cache")
        }
    };
    let etag = HeaderValue::from_str(&format!("\"{tag}\"")).map_err(io::Error::other)?;
    Ok(Some(Found { file, length, etag, cache }))
}

async fn answer(method: &Method, headers: &HeaderMap, found: Found) -> Response<Body> {
    let Found { mut file, length, etag, cache } = found;
    let (mut response, range) = match head(headers, length, &etag, cache) {
        Ok(head) => head,
        Err(answered) => return answered,
    };
    if *method == Method::GET {
        if let Err(error) = file.seek(io::SeekFrom::Start(range.start)).await {
            tracing::error!(%error, "file could not be served");
            return problem(StatusCode::INTERNAL_SERVER_ERROR, "the file could not be read");
        }
        *response.body_mut() = stream(file, range.end - range.start);
    }
    response
}

/// The head of an answer and the bytes that its body is, of `length`; or the whole answer where it needs none.
fn head(
    headers: &HeaderMap,
    length: u64,
    etag: &HeaderValue,
    cache: &'static str,
) -> Result<(Response<Body>, Range<u64>), Response<Body>> {
    let same = |name| headers.get(name).is_some_and(|value| value == etag);
    let mut response = Response::new(body(Bytes::new()));
    let fields = response.headers_mut();
    fields.insert(ETAG, etag.clone());
    fields.insert(CACHE_CONTROL, HeaderValue::from_static(cache));
    fields.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    if same(IF_NONE_MATCH) {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        return Err(response);
    }

    let whole = 0..length;
    let range = match headers.get(RANGE) {
        // A range of another entity than the one asked about is the whole of this one (RFC 9110, 13.1.5).
        Some(range) if !headers.contains_key(IF_RANGE) || same(IF_RANGE) => {
            match parse_range(range.to_str().unwrap_or_default(), length) {
                Ok(Some(range)) => {
                    *response.status_mut() = StatusCode::PARTIAL_CONTENT;
                    let described = format!("bytes {}-{}/{length}", range.start, range.end - 1);
                    if let Ok(value) = HeaderValue::from_str(&described) {
                        response.headers_mut().insert(CONTENT_RANGE, value);
                    }
                    range
                }
                Ok(None) => whole,
                Err(Unsatisfiable) => {
                    let mut refusal =
                        problem(StatusCode::RANGE_NOT_SATISFIABLE, "the file is shorter than that");
                    if let Ok(value) = HeaderValue::from_str(&format!("bytes */{length}")) {
                        refusal.headers_mut().insert(CONTENT_RANGE, value);
                    }
                    return Err(refusal);
                }
            }
        }
        _ => whole,
    };
    response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(range.end - range.start));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    Ok((response, range))
}

fn stream(file: fs_err::tokio::File, left: u64) -> Body {
    let pieces = futures_util::stream::try_unfold((file, left), |(mut file, left)| async move {
        let want = usize::try_from(left).unwrap_or(usize::MAX).min(CHUNK_BYTES);
        if want == 0 {
            return Ok(None);
        }
        let mut piece = Vec::with_capacity(want);
        let read = (&mut file).take(want as u64).read_buf(&mut piece).await?;
        if read == 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the file became shorter while it was served",
            ));
        }
        Ok(Some((Bytes::from(piece), (file, left - read as u64))))
    });
    BodyExt::boxed(StreamBody::new(SyncStream::new(pieces.map_ok(Frame::data))))
}

use sync_stream::SyncStream;

/// A body must be `Sync`, and a file being read is not: but only one task ever polls it.
mod sync_stream {
    use std::pin::Pin;
    use std::sync::Mutex;
    use std::task::{Context, Poll};

    use futures_util::Stream;

    pub(super) struct SyncStream<S>(Mutex<Pin<Box<S>>>);

    impl<S: Stream> SyncStream<S> {
        pub(super) fn new(stream: S) -> Self {
            Self(Mutex::new(Box::pin(stream)))
        }
    }

    impl<S: Stream> Stream for SyncStream<S> {
        type Item = S::Item;

        fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<S::Item>> {
            match self.0.get_mut() {
                Ok(stream) => stream.as_mut().poll_next(context),
                Err(_) => Poll::Ready(None),
            }
        }
    }
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

/// Serves `listener` with `handler` until `stop`, then lets running responses finish for a while.
pub async fn run<H, F>(listener: TcpListener, handler: H, stop: CancellationToken)
where
    H: Fn(Request<Incoming>, SocketAddr) -> F + Clone + Send + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let connections = Arc::new(tokio::sync::Semaphore::new(MAX_CONNECTIONS));
    let peers = Peers::default();
    let graceful = GracefulShutdown::new();
    loop {
        let Ok(permit) = connections.clone().acquire_owned().await else { break };
        let (stream, peer) = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of file descriptors, most likely: wait for some to come free rather than spin.
                    tracing::warn!(%error, "connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
        };
        let Some(place) = peers.place(peer.ip()) else {
            tracing::warn!(peer = %peer.ip(), "a machine has too many connections, and the next is closed");
            continue;
        };
        let _ = stream.set_nodelay(true);
        let handler = handler.clone();
        let service = hyper::service::service_fn(move |request| {
            let answer = handler(request, peer);
            async move { Ok::<_, Infallible>(answer.await) }
        });
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIME)
            .serve_connection(TokioIo::new(stream), service);
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, %peer, "connection broke");
            }
            drop((permit, place));
        });
    }
    drop(listener);
    let _ = tokio::time::timeout(DRAIN_TIME, graceful.shutdown()).await;
}

/// How many connections each address has.
#[derive(Clone, Default)]
struct Peers(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// One connection's place, given back when it is dropped.
struct Place {
    peers: Peers,
    peer: IpAddr,
}

impl Peers {
    fn place(&self, peer: IpAddr) -> Option<Place> {
        let mut counts = self.0.lock().ok()?;
        let count = counts.entry(peer).or_default();
        if *count >= MAX_CONNECTIONS_OF_ONE {
            return None;
        }
        *count += 1;
        Some(Place { peers: self.clone(), peer })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Ok(mut counts) = self.peers.0.lock()
            && let Some(count) = counts.get_mut(&self.peer)
        {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.peer);
            }
        }
    }
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
    fn one_machine_does_not_take_every_place() {
        let peers = Peers::default();
        let (greedy, other) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let mut places: Vec<Place> = (0..MAX_CONNECTIONS_OF_ONE).map_while(|_| peers.place(greedy)).collect();
        assert_eq!(places.len(), MAX_CONNECTIONS_OF_ONE);
        assert!(peers.place(greedy).is_none() && peers.place(other).is_some());
        places.pop();
        assert!(peers.place(greedy).is_some());
    }

    #[test]
    fn a_path_names_a_file_or_nothing() {
        for path in ["/", "", "a", "//etc/passwd", "/../x", "/a/../b", "/a\\b", "/a/./b"] {
            assert!(file_of(path).is_none(), "{path}");
        }
        assert_eq!(file_of("/metadata/1.root.json").unwrap().as_str(), "metadata/1.root.json");
    }
}
