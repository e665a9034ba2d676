//! Asking for an object, in fewer bytes where the server has it compressed (`serve/object.rs`).
//!
//! What arrives encoded is kept encoded until somebody decodes it off the async threads: in memory, or in a partial
//! download of its own, `<name>.zst.part`, which goes on only in the entity it began in. One that arrives plain, or that an
//! older version began, is `<name>.part`, and goes on plain.

use super::{
    ACCEPT_ENCODING, Attempt, Attempts, CONTENT_ENCODING, CONTENT_RANGE, ETAG, Encoding, FetchError,
    Fetcher, IF_RANGE, Partial, RANGE, Response, StatusCode,
};

/// The partial downloads of one object.
#[derive(Clone, Debug)]
pub(crate) struct ObjectPartials {
    pub(crate) plain: Partial,
    pub(crate) encoded: Partial,
}

impl ObjectPartials {
    /// Below `directory`.
    pub(crate) fn new(directory: &std::path::Path, name: &str) -> Self {
        Self {
            plain: Partial::new(directory, name),
            encoded: Partial::new(directory, &format!("{name}.zst")),
        }
    }

    /// How many bytes are here, in whichever form.
    pub(crate) fn length(&self) -> u64 {
        self.encoded.length().max(self.plain.length())
    }

    pub(crate) fn discard(&self) -> std::io::Result<()> {
        self.plain.discard()?;
        self.encoded.discard()
    }
}

/// The most that an object of `size` bytes may come to when encoded: zstd adds 3 bytes to a block of 128 kB that it
/// cannot compress, and a header.
fn encoded_limit(size: u64) -> u64 {
    size + size / 256 + 1024
}

impl Fetcher {
    /// Fetches a small object into memory, as it is encoded.
    pub(crate) async fn object_bytes(
        &self,
        path: &str,
        size: u64,
    ) -> Result<(Vec<u8>, Option<Encoding>), FetchError> {
        let url = self.upstream.url(path)?;
        let accept = [(ACCEPT_ENCODING.as_str(), Encoding::Zstd.token())];
        let (bytes, encoding) = self.whole(&url, encoded_limit(size), &accept).await?;
        if encoding.is_none() && bytes.len() as u64 > size {
            return Err(FetchError::TooLong { url: url.to_string(), limit: size });
        }
        Ok((bytes, encoding))
    }

    /// Fetches an object of `size` bytes into one of `partials`, going on after what is there already; says which.
    pub(crate) async fn object(
        &self,
        path: &str,
        size: u64,
        partials: &ObjectPartials,
    ) -> Result<Option<Encoding>, FetchError> {
        let url = self.upstream.url(path)?;
        let mut attempts = Attempts::new(self.retry);
        let mut furthest = partials.length();
        loop {
            match self.try_object(&url, size, partials).await {
                Ok(encoding) => return Ok(encoding),
                Err(attempt) => {
                    let reached = partials.length();
                    attempts.failed(attempt, reached > furthest).await?;
                    furthest = furthest.max(reached);
                }
            }
        }
    }

    async fn try_object(
        &self,
        url: &reqwest::Url,
        size: u64,
        partials: &ObjectPartials,
    ) -> Result<Option<Encoding>, Attempt> {
        let ObjectPartials { plain, encoded } = partials;
        if encoded.length() == 0 && plain.length() > 0 {
            return self.try_range(url, 0..size, size, plain).await.map(|()| None);
        }
        // The last byte is asked for again: a range that begins at the end cannot be satisfied, and where the end is,
        // only the answer tells.
        let have = encoded.length().saturating_sub(1);
        let mut request = self.client.get(url.clone()).header(ACCEPT_ENCODING, Encoding::Zstd.token());
        if have > 0
            && let Some(etag) = encoded.etag()
        {
            request = request.header(RANGE, format!("bytes={have}-")).header(IF_RANGE, etag);
        }
        let response = self.answer(url, request).await?;
        if response.status() == StatusCode::PARTIAL_CONTENT {
            return self.go_on(url, response, have, size, encoded).await;
        }
        // From its first byte: in the form that this answer has.
        partials.discard()?;
        let token = response.headers().get(CONTENT_ENCODING).and_then(|value| value.to_str().ok());
        let encoding = token.and_then(Encoding::from_token);
        let etag = response.headers().get(ETAG).and_then(|etag| etag.to_str().ok());
        let etag = etag.filter(|etag| !etag.starts_with("W/"));
        if encoding.is_none() {
            let writer = plain.start(etag).await?;
            self.finish(url, response, 0, (Some(size), size), plain, writer).await?;
        } else {
            let (writer, length) = (encoded.start(etag).await?, response.content_length());
            self.finish(url, response, 0, (length, encoded_limit(size)), encoded, writer).await?;
        }
        Ok(encoding)
    }

    async fn go_on(
        &self,
        url: &reqwest::Url,
        response: Response,
        have: u64,
        size: u64,
        encoded: &Partial,
    ) -> Result<Option<Encoding>, Attempt> {
        let described = response.headers().get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
        let described = described.and_then(|value| value.strip_prefix("bytes ")?.split_once('/'));
        let begins = described.and_then(|(range, _)| range.split('-').next()?.parse::<u64>().ok());
        let length = described.and_then(|(_, length)| length.parse::<u64>().ok());
        let (Some(true), Some(length)) = (begins.map(|begins| begins == have), length) else {
            encoded.discard()?;
            return Err(Attempt::Final(FetchError::NoRanges { url: url.to_string() }));
        };
        encoded.cut(have)?;
        let writer = encoded.resume().await?;
        self.finish(url, response, have, (Some(length), encoded_limit(size)), encoded, writer).await?;
        Ok(Some(Encoding::Zstd))
    }
}
