//! A download that is not complete yet, and survives the process that began it.
//!
//! ```text
//! <name>.part          the first bytes, as received
//! <name>.part.etag     the entity they belong to
//! ```
//!
//! Its bytes are not synced: after a power cut they may be wrong, which whoever checks the digest notices, and it
//! begins again. After a killed process they are right.
//!
//! Somebody may follow it while it grows ([`Partial::followed`], `flight.rs`).

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fs_err as fs;
use mirabelle_content::durable;
use tokio::io::{AsyncWriteExt, BufWriter};
use tokio::sync::watch;

use crate::flight::Growth;

/// An entity tag longer than this is not kept.
const MAX_ETAG_BYTES: u64 = 256;
/// Bytes handed to the disk at a time.
const WRITE_BYTES: usize = 256 << 10;
/// The same, where somebody follows.
const FOLLOWED_WRITE_BYTES: usize = 32 << 10;

#[derive(Clone, Debug)]
pub(crate) struct Partial {
    path: PathBuf,
    growth: Option<Arc<watch::Sender<Growth>>>,
}

impl Partial {
    pub(crate) fn new(directory: &Path, name: &str) -> Self {
        Self { path: directory.join(format!("{name}.part")), growth: None }
    }

    /// As it grows, `growth` says so.
    pub(crate) fn followed(self, growth: &Arc<watch::Sender<Growth>>) -> Self {
        Self { growth: Some(growth.clone()), ..self }
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
        durable::will_write(&self.path)?;
        if let Some(directory) = self.path.parent() {
            fs::create_dir_all(directory)?;
        }
        match etag.filter(|etag| etag.len() as u64 <= MAX_ETAG_BYTES) {
            Some(etag) => fs::write(self.etag_path(), etag)?,
            None => durable::remove_file(&self.etag_path())?,
        }
        if let Some(growth) = &self.growth {
            // Before it gets shorter: whoever follows must not take that for its end.
            growth.send_modify(|growth| *growth = Growth { begun: growth.begun + 1, ..Growth::default() });
        }
        let file = fs::tokio::File::create(&self.path).await?;
        Ok(self.writer(file, 0))
    }

    /// Goes on where it stopped.
    pub(crate) async fn resume(&self) -> io::Result<Writer> {
        let file = fs::tokio::OpenOptions::new().append(true).open(&self.path).await?;
        Ok(self.writer(file, self.length()))
    }

    fn writer(&self, file: fs::tokio::File, written: u64) -> Writer {
        let file = BufWriter::with_capacity(WRITE_BYTES, file);
        Writer { path: self.path.clone(), file, written, growth: self.growth.clone() }
    }

    /// Lets it be gone on with from any server: for a file whose name says what is in it, down to the byte.
    pub(crate) fn forget_entity(&self) -> io::Result<()> {
        durable::remove_file(&self.etag_path())
    }

    /// Forgets what comes after the first `length` bytes.
    pub(crate) fn cut(&self, length: u64) -> io::Result<()> {
        if let Some(growth) = &self.growth {
            // Before it gets shorter, as in [`Partial::start`].
            growth.send_modify(|growth| growth.reached = growth.reached.min(length));
        }
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

/// Where the next bytes go. What was appended is in the file only after [`Writer::finish`], or when somebody who follows is
/// told of it.
pub(crate) struct Writer {
    path: PathBuf,
    file: BufWriter<fs::tokio::File>,
    written: u64,
    growth: Option<Arc<watch::Sender<Growth>>>,
}

impl Writer {
    pub(crate) async fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes).await?;
        self.written += bytes.len() as u64;
        if self.growth.is_some() && self.file.buffer().len() >= FOLLOWED_WRITE_BYTES {
            self.tell().await?;
        }
        Ok(())
    }

    pub(crate) async fn finish(mut self) -> io::Result<()> {
        self.tell().await
    }

    async fn tell(&mut self) -> io::Result<()> {
        durable::will_write(&self.path)?;
        self.file.flush().await?;
        if let Some(growth) = &self.growth {
            growth.send_modify(|growth| growth.reached = self.written);
        }
        Ok(())
    }
}
