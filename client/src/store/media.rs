//! Icons and screenshots: files whose digests were approved, fetched from the node once and kept here.
//!
//! ```text
//! <root>/store/media/<sha256>     as it is shown; the oldest go when there are too many
//! ```
//!
//! Threats and the defence for each:
//! - *Another file than was approved*: its digest is compared, here and at the node.
//! - *Asking for files of the machine, or of the node*: a name is a digest; the node knows those that something approved names, and no others.
//! - *A picture with a script in it* (SVG): it is answered with a policy that lets nothing run, also when it is opened by itself.

use std::io;
use std::path::PathBuf;

use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue};
use axum::http::{Response, StatusCode};
use fs_err as fs;
use mirabelle_content::durable;
use mirabelle_manifests::network::media_path;
use mirabelle_manifests::{Digest, MAX_SCREENSHOT_BYTES, MediaKind};
use tokio::task::spawn_blocking;

use super::Store;

/// Files that are kept: the icons of a large catalogue.
const MAX_KEPT: usize = 4000;

impl Store {
    fn media_directory(&self) -> PathBuf {
        self.layout.root().join("store/media")
    }

    /// The bytes of an approved file, from here or from the node.
    pub(super) async fn media(&self, digest: Digest) -> Option<Vec<u8>> {
        let directory = self.media_directory();
        let path = directory.join(digest.to_string());
        let kept = {
            let path = path.clone();
            spawn_blocking(move || durable::read_if_present(&path, MAX_SCREENSHOT_BYTES).ok().flatten())
                .await
                .ok()
                .flatten()
        };
        if let Some(kept) = kept.filter(|kept| Digest::of(kept) == digest) {
            return Some(kept);
        }
        let fetched = self.node()?.bytes(&media_path(digest), MAX_SCREENSHOT_BYTES).await;
        let fetched =
            fetched.inspect_err(|error| tracing::debug!(%error, "a picture is not to be had")).ok()?;
        if Digest::of(&fetched) != digest {
            tracing::warn!(%digest, "the node gives another picture than was approved");
            return None;
        }
        let keeping = fetched.clone();
        let kept = spawn_blocking(move || -> io::Result<()> {
            fs::create_dir_all(&directory)?;
            make_room(&directory)?;
            durable::write_atomically(&path, &keeping)
        });
        if let Ok(Err(error)) = kept.await {
            tracing::debug!(%error, "a picture could not be kept");
        }
        Some(fetched)
    }

    /// The answer to a browser that asks for one.
    pub(super) async fn media_response(&self, digest: Digest) -> Response<Body> {
        let Some((bytes, kind)) =
            self.media(digest).await.and_then(|bytes| MediaKind::recognise(&bytes).map(|kind| (bytes, kind)))
        else {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::NOT_FOUND;
            return response;
        };
        let mut response = Response::new(Body::from(bytes));
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind.mime()));
        // Its name is its content's.
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("private, max-age=31536000, immutable"));
        headers.insert(
            CONTENT_SECURITY_POLICY,
            HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'; sandbox"),
        );
        response
    }
}

/// The oldest go.
fn make_room(directory: &std::path::Path) -> io::Result<()> {
    let mut kept = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        kept.push((entry.metadata()?.modified()?, entry.path()));
    }
    if kept.len() >= MAX_KEPT {
        kept.sort();
        for (_, path) in kept.iter().take(MAX_KEPT / 10) {
            durable::remove_file(path)?;
        }
    }
    Ok(())
}
