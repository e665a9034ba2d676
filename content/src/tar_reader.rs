//! A bounded, streaming reader of tar.
//!
//! The `tar` crate parses header blocks; this walks them, because what stands between them comes from others:
//! - *A long name of a gigabyte* (GNU `L`/`K`, PAX `path`): extension records are at most [`MAX_EXTENSION_BYTES`].
//! - *A PAX size that disagrees with the header* (RUSTSEC-2026-0068, where two readers then see different archives):
//!   the PAX size rules, as POSIX says, and is what both our skipping and our reading go by.
//! - *An entry that goes on for ever*: whoever reads an entry is given its declared size and not a byte more, and the
//!   stream beneath is cut by its owner.

use std::io::{self, Read};

/// The longest GNU or PAX extension record: both names at their longest, and some attributes nobody reads.
const MAX_EXTENSION_BYTES: u64 = 64 << 10;
const BLOCK: u64 = 512;

/// The header of one entry.
#[derive(Debug)]
pub(crate) struct TarEntry {
    pub(crate) path: String,
    pub(crate) kind: TarKind,
    pub(crate) size: u64,
    pub(crate) mode: u32,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum TarKind {
    File,
    Directory,
    Symlink(String),
    HardLink(String),
    /// A device, a pipe, or a type nobody knows: the type byte.
    Other(u8),
}

pub(crate) struct TarReader<R> {
    inner: R,
    /// Bytes of the current entry, padding included, that have not been read.
    left: u64,
    /// The same without the padding.
    left_of_content: u64,
}

#[derive(Default)]
struct Extensions {
    path: Option<String>,
    link: Option<String>,
    size: Option<u64>,
}

fn invalid(message: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message.into())
}

impl<R: Read> TarReader<R> {
    pub(crate) fn new(inner: R) -> Self {
        Self { inner, left: 0, left_of_content: 0 }
    }

    /// The stream, at whatever comes next.
    pub(crate) fn into_inner(self) -> R {
        self.inner
    }

    /// The next entry, after skipping what was not read of the last one; `None` at the end of the archive or stream.
    pub(crate) fn next(&mut self) -> io::Result<Option<TarEntry>> {
        let mut extensions = Extensions::default();
        loop {
            let skipped = io::copy(&mut self.inner.by_ref().take(self.left), &mut io::sink())?;
            if skipped < self.left {
                return Err(invalid("the archive ends in the middle of an entry"));
            }
            let Some(header) = self.read_header()? else { return Ok(None) };
            let kind = header.entry_type();
            let stated = header.entry_size().map_err(|_| invalid("an entry's size is not a number"))?;

            if kind.is_gnu_longname() || kind.is_gnu_longlink() || kind.is_pax_local_extensions() {
                let record = self.read_extension(stated)?;
                if kind.is_gnu_longname() {
                    extensions.path = Some(text(record.split(|b| *b == 0).next().unwrap_or_default())?);
                } else if kind.is_gnu_longlink() {
                    extensions.link = Some(text(record.split(|b| *b == 0).next().unwrap_or_default())?);
                } else {
                    read_pax(&record, &mut extensions)?;
                }
                continue;
            }
            if kind.is_pax_global_extensions() {
                self.read_extension(stated)?;
                continue;
            }

            let size = extensions.size.unwrap_or(stated);
            let has_content = kind.is_file() || kind.is_contiguous() || kind.is_gnu_sparse();
            let size = if has_content { size } else { 0 };
            self.left_of_content = size;
            self.left =
                size.checked_next_multiple_of(BLOCK).ok_or_else(|| invalid("an entry's size overflows"))?;
            let path = match extensions.path {
                Some(path) => path,
                None => text(&header.path_bytes())?,
            };
            let link = match extensions.link {
                Some(link) => link,
                None => text(&header.link_name_bytes().unwrap_or_default())?,
            };
            let kind = if kind.is_dir() || (kind.is_file() && path.ends_with('/')) {
                TarKind::Directory
            } else if kind.is_file() || kind.is_contiguous() {
                TarKind::File
            } else if kind.is_symlink() {
                TarKind::Symlink(link)
            } else if kind.is_hard_link() {
                TarKind::HardLink(link)
            } else {
                TarKind::Other(kind.as_byte())
            };
            let mode = header.mode().unwrap_or(0o644);
            return Ok(Some(TarEntry { path, kind, size, mode }));
        }
    }

    fn read_header(&mut self) -> io::Result<Option<tar::Header>> {
        let mut header = tar::Header::new_old();
        let block = header.as_mut_bytes();
        let mut filled = 0;
        while filled < block.len() {
            match self.inner.read(&mut block[filled..])? {
                0 if filled == 0 => return Ok(None),
                0 => return Err(invalid("the archive ends in the middle of a header")),
                read => filled += read,
            }
        }
        if block.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let sum = header.as_bytes()[..148]
            .iter()
            .chain(&header.as_bytes()[156..])
            .map(|b| u32::from(*b))
            .sum::<u32>();
        if header.cksum().ok() != Some(sum + 8 * u32::from(b' ')) {
            return Err(invalid("a header's checksum is wrong"));
        }
        Ok(Some(header))
    }

    fn read_extension(&mut self, size: u64) -> io::Result<Vec<u8>> {
        if size > MAX_EXTENSION_BYTES {
            return Err(invalid(format!(
                "an extension record of {size} bytes, more than {MAX_EXTENSION_BYTES}"
            )));
        }
        let mut record = Vec::new();
        self.inner.by_ref().take(size).read_to_end(&mut record)?;
        if (record.len() as u64) < size {
            return Err(invalid("the archive ends in the middle of an extension record"));
        }
        self.left = size.next_multiple_of(BLOCK) - size;
        self.left_of_content = 0;
        Ok(record)
    }
}

impl<R: Read> Read for TarReader<R> {
    /// Reads the current entry's content.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left_of_content).unwrap_or(usize::MAX).min(buffer.len());
        if most == 0 {
            return Ok(0);
        }
        let read = self.inner.read(&mut buffer[..most])?;
        if read == 0 {
            return Err(invalid("the archive ends in the middle of an entry"));
        }
        self.left_of_content -= read as u64;
        self.left -= read as u64;
        Ok(read)
    }
}

fn text(bytes: &[u8]) -> io::Result<String> {
    String::from_utf8(bytes.to_vec()).map_err(|_| invalid("a path is not UTF-8"))
}

/// PAX records: `LENGTH KEY=VALUE\n`, the length counting the whole record (POSIX.1-2017, pax, "pax Header Block").
fn read_pax(mut record: &[u8], extensions: &mut Extensions) -> io::Result<()> {
    let malformed = || invalid("a PAX record is malformed");
    while !record.is_empty() {
        let space = record.iter().position(|b| *b == b' ').ok_or_else(malformed)?;
        let length: usize =
            std::str::from_utf8(&record[..space]).ok().and_then(|n| n.parse().ok()).ok_or_else(malformed)?;
        if length <= space + 1 || length > record.len() || record[length - 1] != b'\n' {
            return Err(malformed());
        }
        let field = &record[space + 1..length - 1];
        let equals = field.iter().position(|b| *b == b'=').ok_or_else(malformed)?;
        let (key, value) = (&field[..equals], &field[equals + 1..]);
        match key {
            b"path" => extensions.path = Some(text(value)?),
            b"linkpath" => extensions.link = Some(text(value)?),
            b"size" => extensions.size = Some(text(value)?.parse().map_err(|_| malformed())?),
            _ => {}
        }
        record = &record[length..];
    }
    Ok(())
}
