//! A download that is not complete yet, and survives the process that began it.
//!
//! ```text
//! <name>.part          the first bytes, as received
//! <name>.part.etag     the entity they belong to
//! ```
//!
//! Its bytes are not synced: after a power cut they may be wrong, which whoever checks the digest notices, and it
//! begins again. After a killed process they are right.

use std::io;
use std::path::{Path, PathBuf};

use fs_err as fs;
use mirabelle_content::durable;
use tokio::io::{AsyncWriteExt, BufWriter};

/// An entity tag longer than this is not kept.
const MAX_ETAG_BYTES: u64 = 256;
/// Bytes handed to the disk at a time.
const WRITE_BYTES: usize = 256 << 10;

#[derive(Clone, Debug)]
pub(crate) struct Partial {
    path: PathBuf,
}

impl Partial {
    pub(crate) fn new(directory: &Path, name: &str) -> Self {
        Self { path: directory.join(format!("{name}.part")) }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// How many bytes are here.
    pub(crate) fn length(&self) -> u64 {
        fs::metadata(&self.path).map_or(0, |metadata| metadata.len())
    }

    /// The entity the bytes belong to, if the server named it.
    pub(crate) fn etag(&self) -> Option<String> {
        let bytes = durable::read_if_present(&self.etag_path(), MAX_ETAG_BYTES).ok()??;
        String::from_utf8(bytes).ok()
    }

    /// Begins anew with an entity.
    pub(crate) async fn start(&self, etag: Option<&str>) -> io::Result<Writer> {
        if let Some(directory) = self.path.parent() {
            fs::create_dir_all(directory)?;
        }
        match etag.filter(|etag| etag.len() as u64 <= MAX_ETAG_BYTES) {
            Some(etag) => fs::write(self.etag_path(), etag)?,
            None => durable::remove_file(&self.etag_path())?,
        }
        Ok(Writer::new(fs::tokio::File::create(&self.path).await?))
    }

    /// Goes on where it stopped.
    pub(crate) async fn resume(&self) -> io::Result<Writer> {
        Ok(Writer::new(fs::tokio::OpenOptions::new().append(true).open(&self.path).await?))
    }

    /// Forgets what comes after the first `length` bytes.
    pub(crate) fn cut(&self, length: u64) -> io::Result<()> {
        fs::OpenOptions::new().write(true).open(&self.path)?.set_len(length)
    }

    pub(crate) fn discard(&self) -> io::Result<()> {
        durable::remove_file(&self.path)?;
        durable::remove_file(&self.etag_path())
    }

    fn etag_path(&self) -> PathBuf {
        self.path.with_extension("part.etag")
    }
}

/// Where the next bytes go. What was appended is in the file only after [`Writer::finish`].
pub(crate) struct Writer(BufWriter<fs::tokio::File>);

impl Writer {
    fn new(file: fs::tokio::File) -> Self {
        Self(BufWriter::with_capacity(WRITE_BYTES, file))
    }

    pub(crate) async fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes).await
    }

    pub(crate) async fn finish(mut self) -> io::Result<()> {
        self.0.flush().await
    }
}
