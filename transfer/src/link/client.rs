//! An HTTP client of one server for whoever speaks HTTP by other rules than a fetcher's, over the link all the same: every byte of
//! its connections counts, waits and closes as any.

use std::sync::Arc;

use super::near_end::{NearEnd, NearEndError, base_of};
use super::{Class, Link, LinkClosed};

/// A client for whoever waits, which reaches one server only.
#[derive(Clone, Debug)]
pub struct LinkClient {
    near_end: Arc<NearEnd>,
    client: reqwest::Client,
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum LinkClientError {
    /// The address has no host.
    #[error("`{0}` is not the address of a server")]
    Address(reqwest::Url),
    /// The near end of the link, or the client, could not be made.
    #[error("a client over the link could not be made")]
    NearEnd(#[source] std::io::Error),
}

impl LinkClient {
    /// A client for the server of `base`, made by `builder`. Must be called within a runtime.
    ///
    /// # Errors
    /// When the address has no host, or the system gives no socket.
    pub fn new(
        link: &Arc<Link>,
        base: &reqwest::Url,
        builder: reqwest::ClientBuilder,
    ) -> Result<Self, LinkClientError> {
        let server = base_of(base).ok_or_else(|| LinkClientError::Address(base.clone()))?;
        let near_end = NearEnd::new(link.clone(), server);
        let client = near_end.client(Class::Waiting, |socket| builder.unix_socket(socket).build());
        let client = client.map_err(|error| {
            LinkClientError::NearEnd(match error {
                NearEndError::Socket(error) => error,
                NearEndError::Client(error) => std::io::Error::other(error),
            })
        })?;
        Ok(Self { near_end, client })
    }

    /// Begins a request of an address on that server.
    pub fn get(&self, url: reqwest::Url) -> reqwest::RequestBuilder {
        self.client.get(url)
    }

    /// Why nothing may be asked now, or why the link has just cut off an answer.
    pub fn closed(&self) -> Option<LinkClosed> {
        self.near_end.closed(Class::Waiting)
    }
}
