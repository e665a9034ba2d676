//! Hashing what is read.

use std::io::{self, Read};

use mirabelle_manifests::{Digest, Hasher};

/// Bytes read at a time.
const BUFFER_BYTES: usize = 256 << 10;

/// Digest and length of everything that `source` still gives.
///
/// # Errors
/// Any error of `source`.
pub fn digest(source: &mut dyn Read) -> io::Result<(Digest, u64)> {
    let mut hashing = Hashing::new(source);
    let mut buffer = vec![0_u8; BUFFER_BYTES];
    loop {
        match hashing.read(&mut buffer) {
            Ok(0) => return Ok(hashing.finish()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// A reader that hashes and counts what passes through it.
pub(crate) struct Hashing<R> {
    inner: R,
    hasher: Hasher,
    size: u64,
}

impl<R: Read> Hashing<R> {
    pub(crate) fn new(inner: R) -> Self {
        Self { inner, hasher: Hasher::default(), size: 0 }
    }

    /// Digest and length of what has passed.
    pub(crate) fn finish(self) -> (Digest, u64) {
        (self.hasher.finish(), self.size)
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..read]);
        self.size += read as u64;
        Ok(read)
    }
}
