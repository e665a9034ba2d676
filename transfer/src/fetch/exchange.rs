//! Conversations: a question and its answer, small both, asked once.

use hyper::Method;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use mirabelle_fleet::{Nonce, SignatureError, Signed};
use mirabelle_keys::SigningKey;
use mirabelle_manifests::Instant;

use super::{Attempt, Class, FetchError, Fetcher, client_over};

/// What a server answers, as it is.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The status of HTTP.
    pub status: u16,
    /// The body.
    pub body: Vec<u8>,
}

/// What is sent along with a question.
#[derive(Clone, Debug)]
pub enum Sent {
    /// A document for whoever believes what it says of itself.
    Json(Vec<u8>),
    /// Something that a machine vouches for.
    Signed(SignedBody),
}

/// A body, and who signs the request for it (RFC 9421).
#[derive(Clone)]
pub struct SignedBody {
    /// What is sent.
    pub bytes: Vec<u8>,
    /// Its type.
    pub content_type: &'static str,
    /// The machine's key.
    pub key: std::sync::Arc<SigningKey>,
    /// When.
    pub now: Instant,
}

impl std::fmt::Debug for SignedBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SignedBody({} bytes of {})", self.bytes.len(), self.content_type)
    }
}

impl SignedBody {
    /// The headers of the request to this path.
    fn headers(&self, path: &str) -> Result<HeaderMap, SignatureError> {
        let mut headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(self.content_type))]);
        let nonce = Nonce::random();
        Signed::sign(&self.key, &Method::POST, path, &mut headers, &self.bytes, (self.now, &nonce))?;
        Ok(headers)
    }
}

/// A client for servers that are none of ours: no redirect is followed, and silence ends.
///
/// # Errors
/// When the system has no way to verify certificates.
pub fn plain_client() -> std::io::Result<reqwest::Client> {
    client_over(None).map_err(std::io::Error::other)
}

impl Fetcher {
    /// Sends a small JSON document, once: whoever sends it can do without.
    pub async fn post(&self, path: &str, json: Vec<u8>) -> Result<(), FetchError> {
        let url = self.upstream.url(path)?;
        let sending = async {
            let client = self.turn(&url, Class::Metadata).await?;
            let request = client.post(url.clone()).header("content-type", "application/json").body(json);
            self.answer(&url, Class::Metadata, request).await
        };
        match sending.await {
            Ok(_) => Ok(()),
            Err(Attempt::Final(error) | Attempt::Failed { error, .. }) => Err(error),
        }
    }

    /// Asks once, and takes whatever is answered, refusals too: for conversations rather than files. With `sent` it is a POST.
    pub async fn exchange(
        &self,
        path: &str,
        query: &[(&str, &str)],
        sent: Option<Sent>,
        limit: u64,
    ) -> Result<Reply, FetchError> {
        let mut url = self.upstream.url(path)?;
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let asking = async {
            let client = self.turn(&url, Class::Metadata).await?;
            let request = match sent {
                None => client.get(url.clone()),
                Some(Sent::Json(json)) => {
                    client.post(url.clone()).header(CONTENT_TYPE, "application/json").body(json)
                }
                Some(Sent::Signed(signed)) => {
                    let headers = signed.headers(url.path()).map_err(|source| {
                        Attempt::Final(FetchError::NotSigned { url: url.to_string(), source })
                    })?;
                    client.post(url.clone()).headers(headers).body(signed.bytes)
                }
            };
            let answering = tokio::time::timeout(self.retry.stall, request.send()).await;
            let response = answering
                .map_err(|_| self.stalled(&url))?
                .map_err(|source| self.broken(&url, Class::Metadata, source))?;
            let status = response.status().as_u16();
            let mut body = Vec::new();
            let mut stream = response.bytes_stream();
            while let Some(chunk) = self.receive(&url, Class::Metadata, &mut stream).await? {
                if body.len() as u64 + chunk.len() as u64 > limit {
                    return Err(Attempt::Final(FetchError::TooLong { url: url.to_string(), limit }));
                }
                body.extend_from_slice(&chunk);
            }
            Ok(Reply { status, body })
        };
        asking.await.map_err(|attempt| match attempt {
            Attempt::Final(error) | Attempt::Failed { error, .. } => error,
        })
    }
}
