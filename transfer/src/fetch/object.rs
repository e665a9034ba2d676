//! Asking for an object, in fewer bytes where the server has it compressed (`serve/object.rs`).
//!
//! What arrives encoded is kept encoded until somebody decodes it off the async threads: in memory, or in a partial
//! download of its own, `<name>.zst.part`, which goes on only in the entity it began in. One that arrives plain, or that an
//! older version began, is `<name>.part`, and goes on plain.

use super::{
    ACCEPT_ENCODING, Attempt, Attempts, CONTENT_ENCODING, CONTENT_RANGE, ETAG, Encoding, FetchError, Fetcher,
    IF_RANGE, Partial, RANGE, Response, StatusCode,
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
        let (bytes, encoding) = self.whole(self.class(), &url, encoded_limit(size), &accept).await?;
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
        let client = self.turn(url, self.class()).await?;
        let mut request = client.get(url.clone()).header(ACCEPT_ENCODING, Encoding::Zstd.token());
        if have > 0
            && let Some(etag) = encoded.etag()
        {
            request = request.header(RANGE, format!("bytes={have}-")).header(IF_RANGE, etag);
        }
        let response = self.answer(url, self.class(), request).await?;
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

#[cfg(test)]
mod tests {
    //! Against the real server (`serve/object.rs`).

    use std::io::Read;

    use hyper::Request;
    use hyper::body::Incoming;
    use mirabelle_content::ObjectStore;
    use mirabelle_manifests::Digest;
    use mirabelle_manifests::network::object_path;
    use tokio::net::TcpListener;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::encoding::unzstd;
    use crate::retry::RetryPolicy;
    use crate::serve;

    struct Node {
        directory: tempfile::TempDir,
        store: ObjectStore,
        fetcher: Fetcher,
        address: String,
    }

    async fn node() -> Node {
        let directory = tempfile::tempdir().unwrap();
        let store = ObjectStore::open_compressing(directory.path()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}/", listener.local_addr().unwrap());
        let serving = store.clone();
        let handler = move |request: Request<Incoming>, _| {
            let store = serving.clone();
            async move {
                let name = request.uri().path().trim_start_matches("/objects/").replace('/', "");
                serve::serve_object(request.method(), request.headers(), &store, name.parse().unwrap()).await
            }
        };
        tokio::spawn(serve::run(listener, handler, CancellationToken::new()));
        let fetcher = Fetcher::new(address.parse().unwrap(), RetryPolicy::default()).unwrap();
        Node { directory, store, fetcher, address }
    }

    impl Node {
        fn add(&self, bytes: &[u8]) -> (Digest, u64) {
            let (object, size) = (Digest::of(bytes), bytes.len() as u64);
            let mut batch = self.store.batch();
            batch.add(&mut { bytes }, object, size).unwrap();
            batch.commit().unwrap();
            (object, size)
        }

        fn partials(&self) -> ObjectPartials {
            ObjectPartials::new(&self.directory.path().join("partials"), "object")
        }

        async fn ask(&self, object: Digest, headers: &[(&'static str, &str)]) -> Response {
            let request = self.fetcher.client.get(format!("{}{}", self.address, object_path(object)));
            headers
                .iter()
                .fold(request, |request, (name, value)| request.header(*name, *value))
                .send()
                .await
                .unwrap()
        }
    }

    fn text(lines: u32) -> Vec<u8> {
        (0..lines)
            .flat_map(|line| format!("line {line} of {}\n", line.wrapping_mul(2_654_435_761)).into_bytes())
            .collect()
    }

    fn header<'a>(response: &'a Response, name: &str) -> &'a str {
        response.headers().get(name).map_or("", |value| value.to_str().unwrap())
    }

    fn decoded(partial: &Partial) -> Vec<u8> {
        let mut plain = Vec::new();
        unzstd(&fs_err::read(partial.path()).unwrap()[..]).unwrap().read_to_end(&mut plain).unwrap();
        plain
    }

    #[tokio::test]
    async fn two_representations_each_with_its_tag_its_length_and_its_ranges() {
        let node = node().await;
        let bytes = text(100_000);
        let (object, size) = node.add(&bytes);
        let stored = fs_err::read(node.store.locate(object).unwrap().1).unwrap();
        let zstd = ("accept-encoding", "gzip, zstd");

        let encoded = node.ask(object, &[zstd]).await;
        let plain = node.ask(object, &[]).await;
        let (encoded_tag, plain_tag) =
            (header(&encoded, "etag").to_owned(), header(&plain, "etag").to_owned());
        assert_ne!(encoded_tag, plain_tag);
        for (response, encoding, length) in [(&encoded, "zstd", stored.len() as u64), (&plain, "", size)] {
            assert_eq!(header(response, "content-encoding"), encoding);
            assert_eq!(header(response, "content-length"), length.to_string());
            assert_eq!(header(response, "vary"), "accept-encoding");
            assert_eq!(header(response, "accept-ranges"), "bytes");
        }
        assert_eq!(encoded.bytes().await.unwrap(), stored);
        assert_eq!(plain.bytes().await.unwrap(), bytes);

        // A range is one of the representation that the tag names, and of no other.
        let range = ("range", "bytes=300000-300099");
        for (headers, status, body) in [
            (vec![zstd, range], 206, &stored[300_000..300_100]),
            (vec![range], 206, &bytes[300_000..300_100]),
            (vec![zstd, range, ("if-range", &encoded_tag)], 206, &stored[300_000..300_100]),
            (vec![range, ("if-range", &plain_tag)], 206, &bytes[300_000..300_100]),
            (vec![zstd, range, ("if-range", &plain_tag)], 200, &stored[..]),
            (vec![range, ("if-range", &encoded_tag)], 200, &bytes[..]),
            (vec![zstd, ("if-none-match", &encoded_tag)], 304, &[]),
            (vec![("if-none-match", &encoded_tag)], 200, &bytes[..]),
        ] {
            let response = node.ask(object, &headers).await;
            assert_eq!(response.status().as_u16(), status, "{headers:?}");
            assert_eq!(header(&response, "vary"), "accept-encoding", "{headers:?}");
            assert_eq!(response.bytes().await.unwrap(), body, "{headers:?}");
        }
        assert_eq!(node.ask(object, &[("range", "bytes=99999999-")]).await.status().as_u16(), 416);
        assert_eq!(node.ask(Digest::of(b"another"), &[zstd]).await.status().as_u16(), 404);
    }

    #[tokio::test]
    async fn goes_on_in_the_representation_it_began_in() {
        let node = node().await;
        let bytes = text(100_000);
        let (object, size) = node.add(&bytes);
        let path = object_path(object);
        let partials = node.partials();
        let received = || node.fetcher.meter().received();

        assert_eq!(node.fetcher.object(&path, size, &partials).await.unwrap(), Some(Encoding::Zstd));
        assert_eq!(decoded(&partials.encoded), bytes);
        let length = partials.encoded.length();
        assert!(length < size / 2 && received() == length);

        // Cut in the middle, and just before it would have been used.
        for have in [length / 2, length] {
            partials.encoded.cut(have).unwrap();
            let before = received();
            assert_eq!(node.fetcher.object(&path, size, &partials).await.unwrap(), Some(Encoding::Zstd));
            assert_eq!(received() - before, length - have + 1);
            assert_eq!(decoded(&partials.encoded), bytes);
        }

        // The store has made another frame of it since: the old half is not glued to it.
        partials.encoded.cut(length / 2).unwrap();
        let stored = node.store.locate(object).unwrap().1;
        let other = zstd::bulk::Compressor::new(7).unwrap().compress(&bytes).unwrap();
        fs_err::remove_file(&stored).unwrap();
        fs_err::write(&stored, &other).unwrap();
        assert_eq!(node.fetcher.object(&path, size, &partials).await.unwrap(), Some(Encoding::Zstd));
        assert_eq!(fs_err::read(partials.encoded.path()).unwrap(), other);

        // What an older version began goes on plain.
        partials.discard().unwrap();
        let tag = format!("\"{}\"", path.rsplit('/').next().unwrap());
        drop(partials.plain.start(Some(&tag)).await.unwrap());
        fs_err::write(partials.plain.path(), &bytes[..1_000_000]).unwrap();
        let before = received();
        assert_eq!(node.fetcher.object(&path, size, &partials).await.unwrap(), None);
        assert_eq!(received() - before, size - 1_000_000);
        assert_eq!(fs_err::read(partials.plain.path()).unwrap(), bytes);
    }

    #[tokio::test]
    async fn a_damaged_frame_breaks_off_and_is_never_taken_for_the_whole() {
        let node = node().await;
        let bytes = text(50_000);
        let (object, _) = node.add(&bytes);
        let stored = node.store.locate(object).unwrap().1;
        let mut bent = fs_err::read(&stored).unwrap();
        // The checksum, which comes last.
        let last = bent.len() - 1;
        bent[last] ^= 1;
        fs_err::remove_file(&stored).unwrap();
        fs_err::write(&stored, bent).unwrap();
        assert!(node.ask(object, &[]).await.bytes().await.is_err());
    }

    #[tokio::test]
    async fn small_ones_come_as_they_are_stored() {
        let node = node().await;
        let (object, size) = node.add(&text(100));
        let (bytes, encoding) = node.fetcher.object_bytes(&object_path(object), size).await.unwrap();
        assert!(encoding == Some(Encoding::Zstd) && (bytes.len() as u64) < size);
        let (object, size) = node.add(b"short");
        let fetched = node.fetcher.object_bytes(&object_path(object), size).await.unwrap();
        assert_eq!(fetched, (b"short".to_vec(), None));
        let refused = node.fetcher.object_bytes(&object_path(object), 3).await;
        assert!(matches!(refused, Err(FetchError::TooLong { limit: 3, .. })));
    }
}
