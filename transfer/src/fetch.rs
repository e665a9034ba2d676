//! Asking one server for bytes: bounded, retried, resumed at the byte.
//!
//! Threats and the defence for each:
//! - *A body without end*: every fetch states how many bytes it takes, and stops there.
//! - *A server that sends nothing for ever* (slow retrieval): a time limit on each read, none on the whole, which would
//!   forbid large files on slow links.
//! - *A server that answers a range with something else*: `Content-Range` must begin where we asked; `If-Range` makes a
//!   changed file begin again rather than be glued to the old one's start.
//! - *An encoding that hides more than it may hold*: decoding stops at the same number of bytes (`encoding.rs`).
//! - *A redirect to elsewhere*: not followed; a repository's files are where its base address says.
//!
//! A fetcher over a link ([`Fetcher::over`]) sends and receives nothing but through it (`link/near_end.rs`): every attempt
//! waits for its turn before it asks, and one that finds the link closed ends at once, and is not repeated.

mod error;
mod exchange;
mod object;

use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use reqwest::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_RANGE, ETAG, IF_RANGE, RANGE, RETRY_AFTER};
use reqwest::{Response, StatusCode};

use self::error::is_retryable_status;
pub use self::error::{Broken, FetchError};
pub use self::exchange::{Reply, Sent, SignedBody, plain_client};
pub(crate) use self::object::ObjectPartials;
use crate::encoding::{self, Encoding};
use crate::link::{Class, Link, LinkClosed, NearEnd, NearEndError, Priority, base_of, watch};
use crate::partial::{Partial, Writer};
use crate::retry::{LONGEST_STALL, RetryPolicy};

/// A server that is not reached within this is down.
const CONNECT_TIME: Duration = Duration::from_secs(10);

/// The address below which a repository's files lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream(reqwest::Url);

/// Why a text is not the address of a server.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is not the address of a server: it should look like `http://node.example:8080/`")]
pub struct UpstreamError(String);

impl std::str::FromStr for Upstream {
    type Err = UpstreamError;

    fn from_str(text: &str) -> Result<Self, UpstreamError> {
        let slash = if text.ends_with('/') { "" } else { "/" };
        let url = reqwest::Url::parse(&format!("{text}{slash}")).ok();
        url.filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host() && url.query().is_none())
            .map(Self)
            .ok_or_else(|| UpstreamError(text.to_owned()))
    }
}

impl std::fmt::Display for Upstream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0.as_str())
    }
}

impl Upstream {
    /// The part of the server below a directory, which ends in a slash.
    fn below(&self, directory: &str) -> Self {
        Self(self.0.join(directory).unwrap_or_else(|_| self.0.clone()))
    }

    /// The address of a file. Percent signs stay as they are: role names come encoded already.
    fn url(&self, path: &str) -> Result<reqwest::Url, FetchError> {
        use std::fmt::Write;
        let not_a_path = || FetchError::NotAPath { path: path.chars().take(200).collect() };
        if path.split('/').any(|segment| matches!(segment, "" | "." | "..")) {
            return Err(not_a_path());
        }
        let mut address = self.0.to_string();
        for byte in path.bytes() {
            if byte.is_ascii_alphanumeric() || b"-._~/%+@=,".contains(&byte) {
                address.push(byte.into());
            } else {
                let _ = write!(address, "%{byte:02X}");
            }
        }
        reqwest::Url::parse(&address).map_err(|_| not_a_path())
    }
}

/// What one fetcher has received, for progress bars and budgets.
#[derive(Debug, Default)]
pub struct Meter {
    received: AtomicU64,
}

impl Meter {
    /// Bytes of bodies received so far, those of failed attempts included.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }
}

/// Asks one server.
#[derive(Clone, Debug)]
pub struct Fetcher {
    client: reqwest::Client,
    upstream: Upstream,
    retry: RetryPolicy,
    meter: Arc<Meter>,
    priority: Priority,
    /// The link, if there is one to share.
    near_end: Option<Arc<NearEnd>>,
}

/// One attempt's end.
enum Attempt {
    Failed { error: FetchError, retry_after: Option<Duration> },
    Final(FetchError),
}

impl From<io::Error> for Attempt {
    fn from(error: io::Error) -> Self {
        Self::Final(FetchError::Disk(error))
    }
}

impl Fetcher {
    /// Asks `upstream`.
    pub fn new(upstream: Upstream, retry: RetryPolicy) -> Result<Self, FetchError> {
        let client = client_over(None).map_err(FetchError::Client)?;
        let priority = Priority::Required;
        Ok(Self { client, upstream, retry, meter: Arc::default(), priority, near_end: None })
    }

    /// Asks over a link, whose limits hold for every byte; proxies of the environment are not used then. Content is
    /// [`Priority::Required`] unless [`Fetcher::at`] says otherwise.
    #[must_use]
    pub fn over(self, link: Arc<Link>) -> Self {
        let near_end = base_of(&self.upstream.0).map(|base| NearEnd::new(link, base));
        Self { near_end, ..self }
    }

    /// Asks for content with another priority; with the same meter and link.
    #[must_use]
    pub fn at(&self, priority: Priority) -> Self {
        Self { priority, ..self.clone() }
    }

    /// Asks below a directory of the same server, which ends in a slash; with the same connections and meter.
    pub(crate) fn below(&self, directory: &str) -> Self {
        Self { upstream: self.upstream.below(directory), ..self.clone() }
    }

    /// The same, as patient as this.
    #[must_use]
    pub fn with_policy(&self, retry: RetryPolicy) -> Self {
        Self { retry, ..self.clone() }
    }

    /// The server that is asked.
    pub fn upstream(&self) -> &Upstream {
        &self.upstream
    }

    /// What was received so far.
    pub fn meter(&self) -> &Arc<Meter> {
        &self.meter
    }

    /// Fetches a small file whole into memory: at most `limit` bytes.
    pub async fn bytes(&self, path: &str, limit: u64) -> Result<Vec<u8>, FetchError> {
        let url = self.upstream.url(path)?;
        self.whole(Class::Metadata, &url, limit, &[]).await.map(|(bytes, _)| bytes)
    }

    /// As [`Fetcher::bytes`], in the fewest bytes on the wire that the server offers: as a difference from what is
    /// `held`, compressed, or plain. The limit is that of the plain bytes. What does not decode to something `genuine` is
    /// asked for once more, plain: a server's encoded copy may be damaged where the file is not.
    pub(crate) async fn document(
        &self,
        path: &str,
        limit: u64,
        held: Option<&[u8]>,
        genuine: &(dyn Fn(&[u8]) -> bool + Sync),
    ) -> Result<Vec<u8>, FetchError> {
        let url = self.upstream.url(path)?;
        let dictionary = held.map(encoding::available_dictionary);
        let accepted = if held.is_some() { "dcz, zstd" } else { "zstd" };
        let mut headers = vec![(ACCEPT_ENCODING.as_str(), accepted)];
        headers.extend(dictionary.as_deref().map(|field| ("available-dictionary", field)));
        let (body, encoding) = self.whole(Class::Metadata, &url, limit, &headers).await?;
        let Some(encoding) = encoding else { return Ok(body) };
        let held = held.map(<[u8]>::to_vec);
        let decoding = move || encoding::decode(encoding, &body, held.as_deref(), limit);
        let decoded =
            tokio::task::spawn_blocking(decoding).await.unwrap_or_else(|panic| Err(io::Error::other(panic)));
        let fault = match decoded {
            Ok(plain) if genuine(&plain) => return Ok(plain),
            Ok(_) => io::Error::new(io::ErrorKind::InvalidData, "it decodes to another file"),
            Err(fault) => fault,
        };
        tracing::warn!(%url, %fault, "an encoded file is not what it should be, and is asked for plain");
        match self.whole(Class::Metadata, &url, limit, &[]).await? {
            (plain, None) => Ok(plain),
            (_, Some(_)) => Err(FetchError::Undecodable { url: url.to_string(), source: fault }),
        }
    }

    async fn whole(
        &self,
        class: Class,
        url: &reqwest::Url,
        limit: u64,
        headers: &[(&'static str, &str)],
    ) -> Result<(Vec<u8>, Option<Encoding>), FetchError> {
        let mut attempts = Attempts::new(self.retry);
        loop {
            match self.try_whole(class, url, limit, headers).await {
                Ok(whole) => return Ok(whole),
                Err(attempt) => attempts.failed(attempt, false).await?,
            }
        }
    }

    async fn try_whole(
        &self,
        class: Class,
        url: &reqwest::Url,
        limit: u64,
        headers: &[(&'static str, &str)],
    ) -> Result<(Vec<u8>, Option<Encoding>), Attempt> {
        let client = self.turn(url, class).await?;
        let request = headers
            .iter()
            .fold(client.get(url.clone()), |request, (name, value)| request.header(*name, *value));
        let response = self.answer(url, class, request).await?;
        let encoding = response.headers().get(CONTENT_ENCODING).and_then(|value| value.to_str().ok());
        let encoding = encoding.and_then(Encoding::from_token);
        let stated = response.content_length();
        let mut stream = response.bytes_stream();
        let mut bytes: Vec<u8> = Vec::new();
        while let Some(chunk) = self.receive(url, class, &mut stream).await? {
            if bytes.len() as u64 + chunk.len() as u64 > limit {
                return Err(Attempt::Final(FetchError::TooLong { url: url.to_string(), limit }));
            }
            bytes.extend_from_slice(&chunk);
        }
        // What a link that closes has cut off looks like the end of an answer that does not say how long it is.
        if stated.is_none()
            && let Some(closed) = self.near_end.as_ref().and_then(|near_end| near_end.closed(class))
        {
            return Err(link_closed(url, closed));
        }
        match stated {
            Some(expected) if expected != bytes.len() as u64 => {
                let error = FetchError::TooShort { url: url.to_string(), expected, got: bytes.len() as u64 };
                Err(Attempt::Failed { error, retry_after: None })
            }
            _ => Ok((bytes, encoding)),
        }
    }

    /// Fetches `range` of a file of `length` bytes into `partial`, going on after what is there already.
    pub(crate) async fn range(
        &self,
        path: &str,
        range: Range<u64>,
        length: u64,
        partial: &Partial,
    ) -> Result<(), FetchError> {
        let url = self.upstream.url(path)?;
        let mut attempts = Attempts::new(self.retry);
        let mut furthest = partial.length();
        loop {
            match self.try_range(&url, range.clone(), length, partial).await {
                Ok(()) => return Ok(()),
                Err(attempt) => {
                    // Bytes that were here before are no progress: a server without ranges sends them again and again.
                    let reached = partial.length();
                    attempts.failed(attempt, reached > furthest).await?;
                    furthest = furthest.max(reached);
                }
            }
        }
    }

    async fn try_range(
        &self,
        url: &reqwest::Url,
        range: Range<u64>,
        length: u64,
        partial: &Partial,
    ) -> Result<(), Attempt> {
        let expected = range.end - range.start;
        let mut have = partial.length();
        if have > expected {
            partial.discard()?;
            have = 0;
        }
        if have == expected {
            if expected == 0 {
                // No byte is asked for, and yet there is a file.
                partial.start(None).await?.finish().await?;
            }
            return Ok(());
        }
        let start = range.start + have;
        let whole = start == 0 && range.end == length;
        let asked = (!whole).then(|| (start..range.end, partial.etag().filter(|_| have > 0)));
        let response = self.send(url, asked).await?;
        let (writer, have) = place(url, &response, &range, length, have, partial).await?;
        self.finish(url, response, have, (Some(expected), expected), partial, writer).await
    }

    /// Receives the rest of a partial download that is `have` bytes long already and will be as long as `expected` says, if
    /// that is known, and no longer than `limit`.
    async fn finish(
        &self,
        url: &reqwest::Url,
        response: Response,
        have: u64,
        (expected, limit): (Option<u64>, u64),
        partial: &Partial,
        mut writer: Writer,
    ) -> Result<(), Attempt> {
        let received = self.receive_into(url, response, have, limit, &mut writer).await;
        // Also after a failure: what arrived is where the next attempt goes on.
        let received = match writer.finish().await {
            Ok(()) => received,
            Err(error) => Err(error.into()),
        };
        match (received, expected) {
            (Ok(got), Some(expected)) if got != expected => {
                let error = FetchError::TooShort { url: url.to_string(), expected, got };
                Err(Attempt::Failed { error, retry_after: None })
            }
            (Ok(_), _) => Ok(()),
            (Err(attempt), _) => {
                match &attempt {
                    Attempt::Final(FetchError::TooLong { .. }) => partial.discard()?,
                    // A half-fetched file is worth less than the room it takes from everybody else.
                    Attempt::Final(FetchError::Disk(error)) if error.kind() == io::ErrorKind::StorageFull => {
                        partial.discard()?;
                    }
                    _ => {}
                }
                Err(attempt)
            }
        }
    }

    /// Appends a response's body to what is `have` bytes long already; returns how long it is then.
    async fn receive_into(
        &self,
        url: &reqwest::Url,
        response: Response,
        mut have: u64,
        limit: u64,
        writer: &mut Writer,
    ) -> Result<u64, Attempt> {
        let mut stream = response.bytes_stream();
        while let Some(chunk) = self.receive(url, self.class(), &mut stream).await? {
            have += chunk.len() as u64;
            if have > limit {
                return Err(Attempt::Final(FetchError::TooLong { url: url.to_string(), limit }));
            }
            writer.append(&chunk).await?;
        }
        Ok(have)
    }

    async fn send(
        &self,
        url: &reqwest::Url,
        range: Option<(Range<u64>, Option<String>)>,
    ) -> Result<Response, Attempt> {
        let mut request = self.turn(url, self.class()).await?.get(url.clone());
        if let Some((range, etag)) = range {
            request = request.header(RANGE, format!("bytes={}-{}", range.start, range.end - 1));
            if let Some(etag) = etag {
                request = request.header(IF_RANGE, etag);
            }
        }
        self.answer(url, self.class(), request).await
    }

    /// What the bytes of content are for.
    fn class(&self) -> Class {
        self.priority.into()
    }

    /// Waits until it is this class's turn on the link; returns what to ask with.
    async fn turn(&self, url: &reqwest::Url, class: Class) -> Result<reqwest::Client, Attempt> {
        let Some(near_end) = &self.near_end else { return Ok(self.client.clone()) };
        near_end.link().take_for(class, 0).await.map_err(|closed| link_closed(url, closed))?;
        watch(near_end);
        near_end.client(class, |socket| client_over(Some(socket))).map_err(|error| {
            Attempt::Final(match error {
                NearEndError::Socket(error) => FetchError::Disk(error),
                NearEndError::Client(error) => FetchError::Client(error),
            })
        })
    }

    async fn answer(
        &self,
        url: &reqwest::Url,
        class: Class,
        request: reqwest::RequestBuilder,
    ) -> Result<Response, Attempt> {
        let answering = tokio::time::timeout(self.retry.stall, request.send()).await;
        let response =
            answering.map_err(|_| self.stalled(url))?.map_err(|source| self.broken(url, class, source))?;
        let status = response.status();
        match status {
            StatusCode::OK | StatusCode::PARTIAL_CONTENT => Ok(response),
            StatusCode::NOT_FOUND => Err(Attempt::Final(FetchError::NotFound { url: url.to_string() })),
            _ => {
                let error = FetchError::Status { url: url.to_string(), status: status.as_u16() };
                if !is_retryable_status(status.as_u16()) {
                    return Err(Attempt::Final(error));
                }
                let seconds =
                    response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
                Err(Attempt::Failed { error, retry_after: seconds.map(Duration::from_secs) })
            }
        }
    }

    /// The next bytes; `None` at the end.
    async fn receive(
        &self,
        url: &reqwest::Url,
        class: Class,
        stream: &mut (impl Stream<Item = reqwest::Result<Bytes>> + Unpin),
    ) -> Result<Option<Bytes>, Attempt> {
        let next = tokio::time::timeout(self.retry.stall, stream.next()).await;
        let next = next.map_err(|_| self.stalled(url))?;
        let Some(chunk) = next else { return Ok(None) };
        let chunk = chunk.map_err(|source| self.broken(url, class, source))?;
        self.meter.received.fetch_add(chunk.len() as u64, Ordering::Relaxed);
        Ok(Some(chunk))
    }

    fn stalled(&self, url: &reqwest::Url) -> Attempt {
        let source = Broken::Stalled(self.retry.stall);
        let error = FetchError::Unreachable { url: url.to_string(), attempts: self.retry.attempts, source };
        Attempt::Failed { error, retry_after: None }
    }

    fn broken(&self, url: &reqwest::Url, class: Class, source: reqwest::Error) -> Attempt {
        // A link that closes breaks connections; that is no fault of the server's.
        if let Some(closed) = self.near_end.as_ref().and_then(|near_end| near_end.closed(class)) {
            return link_closed(url, closed);
        }
        let source = match self.near_end.as_ref().and_then(|near_end| near_end.take_fault()) {
            Some(fault) => Broken::Connect(fault),
            // The address is in our own words already.
            None => Broken::Exchange(source.without_url()),
        };
        let error = FetchError::Unreachable { url: url.to_string(), attempts: self.retry.attempts, source };
        Attempt::Failed { error, retry_after: None }
    }
}

fn link_closed(url: &reqwest::Url, source: LinkClosed) -> Attempt {
    Attempt::Final(FetchError::LinkClosed { url: url.to_string(), source })
}

/// A client: over the near end of a link, at this socket, or by the system's own ways.
pub(crate) fn client_over(socket: Option<&Path>) -> reqwest::Result<reqwest::Client> {
    // Only the first call in a process has an effect, and every caller wants the same provider.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder()
        .user_agent(concat!("mirabelle/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT_TIME)
        .read_timeout(LONGEST_STALL)
        .redirect(reqwest::redirect::Policy::none());
    match socket {
        Some(socket) => client.unix_socket(socket).build(),
        None => client.build(),
    }
}

/// Where a response's bytes go: after those that are here, or from the start. Returns also how many stay.
async fn place(
    url: &reqwest::Url,
    response: &Response,
    range: &Range<u64>,
    length: u64,
    have: u64,
    partial: &Partial,
) -> Result<(Writer, u64), Attempt> {
    let etag = response.headers().get(ETAG).and_then(|etag| etag.to_str().ok()).filter(|etag| {
        // A weak tag says "much the same", which is not enough to glue two halves together (RFC 9110, 13.1.5).
        !etag.starts_with("W/")
    });
    let no_ranges = || Attempt::Final(FetchError::NoRanges { url: url.to_string() });
    if response.status() == StatusCode::PARTIAL_CONTENT {
        let answered = response.headers().get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
        let begins = answered.and_then(|value| value.strip_prefix("bytes ")?.split('-').next()?.parse().ok());
        if begins != Some(range.start + have) {
            return Err(no_ranges());
        }
        return Ok(if have == 0 { (partial.start(etag).await?, 0) } else { (partial.resume().await?, have) });
    }
    // The whole file: the server has no ranges, or the file is no longer the one we hold the start of.
    if *range != (0..length) {
        partial.discard()?;
        return Err(no_ranges());
    }
    Ok((partial.start(etag).await?, 0))
}

/// Counts failures in a row and waits between them.
struct Attempts {
    policy: RetryPolicy,
    failed: u32,
}

impl Attempts {
    fn new(policy: RetryPolicy) -> Self {
        Self { policy, failed: 0 }
    }

    /// Takes note of a failure: waits until it is time to try again, or gives up with its error.
    async fn failed(&mut self, attempt: Attempt, progressed: bool) -> Result<(), FetchError> {
        let (error, retry_after) = match attempt {
            Attempt::Final(error) => return Err(error),
            Attempt::Failed { error, retry_after } => (error, retry_after),
        };
        self.failed = if progressed { 1 } else { self.failed + 1 };
        if self.failed >= self.policy.attempts {
            return Err(error);
        }
        let wait = self.policy.wait(self.failed, jitter(), retry_after);
        tracing::debug!(%error, failed = self.failed, wait_ms = wait.as_millis(), "attempt failed");
        tokio::time::sleep(wait).await;
        Ok(())
    }
}

/// A number in `0.0..1.0` that differs between machines and calls; nothing secret hangs on it.
fn jitter() -> f64 {
    use std::hash::{BuildHasher, Hasher};
    let bits = std::collections::hash_map::RandomState::new().build_hasher().finish();
    f64::from(u32::try_from(bits >> 32).unwrap_or(0)) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests;
