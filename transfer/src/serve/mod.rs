//! Giving out files: what the origin and the node have in common.
//!
//! ```text
//! server.rs     accepts, limits, drains ── listener.rs (bound, or passed by systemd) ── tls.rs
//!    │ watch.rs      whoever is idle, slow to ask or slow to take is closed
//!    ▼
//! file.rs       a file ─┐                                   cache.rs   small files in memory, the places of others
//! document.rs   … in its best encoding ─┼─▶ range.rs  head ─▶ body.rs
//! object.rs     … of a store ─┘                                │  gate.rs    what is cold is read ahead first
//!                                                              ▼
//!                                          window.rs ─▶ socket.rs   sendfile(2) beneath hyper
//! ```
//!
//! `exchange.rs`, `signed.rs`: conversations, which are no files.
//!
//! GET and HEAD, one range, `ETag`, `If-None-Match`, `If-Range`, `Content-Encoding` as stored (RFC 9110), HTTP/1.1 and 2.
//! A small file is answered from memory; of a larger one hyper gets stand-ins, and the socket sends the file's pages. No
//! task that serves ever waits for a disk: a file is opened there only where the kernel knows its name, and sent only
//! where its pages are in memory; the rest happens on threads of their own, few at a time.
//!
//! Threats and the defence for each:
//! - *A path that leaves the directory*: it must parse as an [`EntryPath`], and nothing is percent-decoded.
//! - *A client that sends its request for ever, or takes its answer for ever*: `watch.rs`.
//! - *Too many clients, or one with too many connections*: [`Limits`].
//! - *A cold disk, asked by many*: `gate.rs`.
//! - *A file that becomes shorter while it is sent*: the connection breaks off rather than end as if it were whole.

mod body;
mod cache;
mod document;
mod exchange;
mod file;
mod gate;
mod growing;
mod limits;
mod listener;
mod object;
mod range;
mod server;
mod signed;
mod socket;
mod stats;
mod tls;
mod watch;
mod window;
mod workers;

use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use mirabelle_manifests::EntryPath;

pub use self::body::{Body, body, streaming};
pub use self::cache::{forget, forget_everything, forget_object, keep_in_memory};
pub use self::document::serve_document;
pub use self::exchange::{Refused, answer, collect, json, json_bytes};
pub use self::file::serve_file;
pub use self::growing::serve_growing;
pub use self::limits::Limits;
pub use self::listener::listen;
pub use self::object::serve_object;
pub use self::server::{Server, run};
pub use self::signed::SignedRequests;
pub use self::stats::{ServeStats, Served};
pub use self::tls::{Tls, TlsError};

/// Whether a file's name says what is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Naming {
    /// The name holds a digest or version: it never changes, and the name is its entity tag.
    Immutable,
    /// It is replaced from time to time: the digest of its content is its entity tag.
    Mutable,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_names_a_file_or_nothing() {
        for path in ["/", "", "a", "//etc/passwd", "/../x", "/a/../b", "/a\\b", "/a/./b"] {
            assert!(file_of(path).is_none(), "{path}");
        }
        assert_eq!(file_of("/metadata/1.root.json").unwrap().as_str(), "metadata/1.root.json");
    }
}
