//! Asking a legacy repository's upstream: once for everybody who waits, conditionally where something is kept.
//!
//! ```text
//! If-None-Match / If-Modified-Since ─▶ 304   kept, asked just now
//!                                      200   received, given out meanwhile, synced, kept
//!                                      404 … kept as such, for a little while
//!                                      5xx   the upstream is down
//! ```
//!
//! A body whose end only the connection's end tells (HTTP/1.0 without a length) is given out and not kept: nobody knows whether it was
//! whole.
//!
//! Only what is named here of an answer's head is kept: nothing that is between one connection's ends (RFC 9110, 7.6.1), no cookie.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use fs_err as fs;
use mirabelle_manifests::{Digest, Hasher, Instant};
use mirabelle_transfer::flight::Source;
use mirabelle_transfer::{Link, LinkClient, LinkClosed};
use reqwest::header::{
    CONTENT_ENCODING, CONTENT_TYPE, ETAG, HeaderName, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED,
    TRANSFER_ENCODING,
};
use reqwest::redirect::Policy;
use reqwest::{Response, StatusCode, Url, Version};
use tokio::io::AsyncWriteExt;
use tokio::sync::Semaphore;

use super::Repository;
use super::path::LegacyPath;
use super::store::{Entry, Head, Store};

/// A server that is not reached within this is down.
const CONNECT_TIME: Duration = Duration::from_secs(10);
/// A server that says nothing for this long has stalled.
const STALL_TIME: Duration = Duration::from_secs(30);
/// Redirects within one host.
const MAX_REDIRECTS: usize = 4;
/// A field of an answer's head that is longer is not kept.
const MAX_FIELD_BYTES: usize = 256;

/// Why a file could not be had.
#[derive(Debug, thiserror::Error)]
pub(super) enum UpstreamError {
    #[error("the upstream does not answer")]
    Unreachable(#[from] reqwest::Error),
    #[error("the upstream answers with status {0}")]
    Status(u16),
    #[error("the upstream sends the asker elsewhere, to another server")]
    Elsewhere,
    #[error("the file is larger than half of the quota, {0} bytes")]
    TooLarge(u64),
    #[error("the file ended after {got} of {expected} bytes")]
    TooShort { expected: u64, got: u64 },
    #[error("the file does not have the digest in its name, but {0}")]
    OtherDigest(Digest),
    #[error("the file could not be kept")]
    Disk(#[from] io::Error),
    #[error(transparent)]
    LinkClosed(#[from] LinkClosed),
    #[error("the node is stopping")]
    Stopping,
}

impl UpstreamError {
    /// True when asking for something else would fail likewise.
    fn is_the_servers(&self) -> bool {
        match self {
            Self::Unreachable(_) => true,
            Self::Status(status) => *status >= 500,
            _ => false,
        }
    }
}

/// Asks one upstream.
#[derive(Clone, Debug)]
pub(super) struct Client {
    client: LinkClient,
    base: Url,
}

impl Client {
    pub(super) fn new(base: Url, link: &Arc<Link>) -> io::Result<Self> {
        // Only the first call in a process has an effect, and every caller wants the same provider.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let same_host = Policy::custom(|attempt| {
            let first = attempt.previous().first();
            let stays = first.is_some_and(|first| {
                first.host_str() == attempt.url().host_str()
                    && first.port_or_known_default() == attempt.url().port_or_known_default()
                    && first.scheme() == attempt.url().scheme()
            });
            if stays && attempt.previous().len() <= MAX_REDIRECTS { attempt.follow() } else { attempt.stop() }
        });
        let builder = reqwest::Client::builder()
            .user_agent(concat!("mirabelle/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIME)
            .read_timeout(STALL_TIME)
            .redirect(same_host);
        let client = LinkClient::new(link, &base, builder).map_err(io::Error::other)?;
        Ok(Self { client, base })
    }

    async fn ask(&self, path: &LegacyPath, kept: Option<&Head>) -> Result<Response, UpstreamError> {
        self.closed()?;
        match self.once(path, kept).await {
            // The server may have closed a kept connection while the request was on its way; one such end
            // does not tell that it is down (RFC 9112, 9.3.1).
            Err(UpstreamError::Unreachable(error)) if !error.is_connect() && !error.is_timeout() => {
                self.closed()?;
                self.once(path, kept).await
            }
            answered => answered,
        }
    }

    async fn once(&self, path: &LegacyPath, kept: Option<&Head>) -> Result<Response, UpstreamError> {
        // Its segments are plain: joined, they stay below.
        let url = Url::parse(&format!("{}{}", self.base, path.below())).map_err(io::Error::other)?;
        let mut request = self.client.get(url);
        if let Some(head) = kept {
            let conditions = [(IF_NONE_MATCH, &head.etag), (IF_MODIFIED_SINCE, &head.last_modified)];
            for (field, value) in conditions {
                if let Some(value) = value {
                    request = request.header(field, value);
                }
            }
        }
        request.send().await.map_err(|error| self.broken(error))
    }

    fn closed(&self) -> Result<(), UpstreamError> {
        self.client.closed().map_or(Ok(()), |closed| Err(closed.into()))
    }

    /// A link that closes breaks connections; that is no fault of the server's.
    fn broken(&self, error: reqwest::Error) -> UpstreamError {
        self.closed().err().unwrap_or_else(|| error.into())
    }
}

/// One transfer, for everybody who waits for it.
pub(super) struct Transfer {
    pub(super) repository: Arc<Repository>,
    pub(super) store: Arc<Store>,
    pub(super) transfers: Arc<Semaphore>,
    pub(super) path: LegacyPath,
}

impl Transfer {
    pub(super) async fn run(self, source: Source<Head>) -> Result<(), UpstreamError> {
        let begun = Instant::now();
        let _place = self.transfers.clone().acquire_owned().await.map_err(|_| UpstreamError::Stopping)?;
        let kept = self.find().await?;
        if kept.as_ref().is_some_and(|kept| kept.head.validated >= begun) {
            // Somebody's transfer landed while this one was begun.
            return Ok(());
        }
        let result = self.fetch(kept, &source).await;
        self.repository.note(result.as_ref().is_err_and(UpstreamError::is_the_servers));
        result
    }

    async fn find(&self) -> io::Result<Option<Entry>> {
        let (store, path) = (self.store.clone(), self.path.clone());
        off_the_runtime(move || store.find(&path, Instant::now())).await
    }

    async fn fetch(&self, kept: Option<Entry>, source: &Source<Head>) -> Result<(), UpstreamError> {
        let kept = kept.map(|kept| kept.head);
        let present = kept.as_ref().filter(|head| head.is_present());
        let response = self.repository.client.ask(&self.path, present).await?;
        let status = response.status();
        match status {
            StatusCode::OK => self.receive(response, source).await,
            StatusCode::NOT_MODIFIED => {
                let Some(head) = present.cloned() else { return Err(UpstreamError::Status(304)) };
                self.note(Head { validated: Instant::now(), ..head }).await
            }
            StatusCode::NOT_FOUND | StatusCode::GONE | StatusCode::FORBIDDEN => {
                self.note(self.head(&response, status.as_u16(), None)).await
            }
            other if other.is_redirection() => Err(UpstreamError::Elsewhere),
            other => Err(UpstreamError::Status(other.as_u16())),
        }
    }

    fn head(&self, response: &Response, status: u16, length: Option<u64>) -> Head {
        let field = |name: HeaderName| {
            let value = response.headers().get(name)?.to_str().ok()?;
            (value.len() <= MAX_FIELD_BYTES).then(|| value.to_owned())
        };
        Head {
            path: self.path.below().to_owned(),
            status,
            content_type: field(CONTENT_TYPE),
            content_encoding: field(CONTENT_ENCODING),
            etag: field(ETAG),
            last_modified: field(LAST_MODIFIED),
            length,
            validated: Instant::now(),
            tag: None,
        }
    }

    async fn note(&self, head: Head) -> Result<(), UpstreamError> {
        let (store, path) = (self.store.clone(), self.path.clone());
        Ok(off_the_runtime(move || store.write_head(&path, &head)).await?)
    }

    /// Receives a body, which is given out while it arrives.
    async fn receive(&self, mut response: Response, source: &Source<Head>) -> Result<(), UpstreamError> {
        let stated = response.content_length();
        let largest = self.store.largest();
        if stated.is_some_and(|stated| stated > largest) {
            return Err(UpstreamError::TooLarge(largest));
        }
        let says_its_end = stated.is_some()
            || response.version() >= Version::HTTP_2
            || response.headers().contains_key(TRANSFER_ENCODING);
        let mut head = self.head(&response, 200, stated);
        let incoming = self.store.incoming();
        let store = self.store.clone();
        let (_coming, temporary, reading) = off_the_runtime(move || {
            let coming = store.expect(stated.unwrap_or(0));
            let temporary = tempfile::NamedTempFile::new_in(incoming)?.into_temp_path();
            let reading = fs::File::open(&temporary)?;
            Ok((coming, temporary, reading))
        })
        .await?;
        let mut file = fs::tokio::OpenOptions::new().write(true).open(&temporary).await?;
        // What is said to whoever waits names this version as the kept one will be named.
        let tag = format!("{} {} {:?}", self.path, head.validated, temporary.file_name());
        head.tag = Some(Digest::of(tag.as_bytes()).short());
        source.begin(head.clone(), reading);

        let (mut got, mut hasher, mut total) = (0_u64, Hasher::default(), 0);
        while let Some(piece) =
            response.chunk().await.map_err(|error| self.repository.client.broken(error))?
        {
            got += piece.len() as u64;
            if got > stated.unwrap_or(largest) {
                return Err(UpstreamError::TooLarge(stated.unwrap_or(largest)));
            }
            total = self.repository.account(piece.len() as u64);
            hasher.update(&piece);
            file.write_all(&piece).await?;
            // Until it is flushed, a piece is on its way to the file.
            file.flush().await?;
            source.reached(got);
        }
        if let Some(expected) = stated.filter(|stated| *stated != got) {
            return Err(UpstreamError::TooShort { expected, got });
        }
        let digest = hasher.finish();
        if self.path.promised().is_some_and(|promised| promised != digest) {
            return Err(UpstreamError::OtherDigest(digest));
        }
        let has_room = self.store.has_room();
        if !says_its_end || !has_room {
            tracing::info!(path = %self.path, bytes = got, has_room, "a legacy file passes, and is not kept");
            return Ok(());
        }
        file.sync_all().await?;
        drop(file);
        head.length = Some(got);
        tracing::info!(path = %self.path, bytes = got, total, "a legacy file was received");
        let (store, path) = (self.store.clone(), self.path.clone());
        Ok(off_the_runtime(move || store.keep(&path, &head, temporary)).await?)
    }
}

async fn off_the_runtime<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}
