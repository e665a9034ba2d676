//! Archives that others made: tar (plain, gzip, xz, zstd), zip, Python wheel, Debian package.
//!
//! Each is read once, front to back where its format allows, and handed to a [`Staging`], which is where an entry that
//! lies, escapes or explodes is refused. Decoders are bounded besides: xz by its dictionary, zstd by its window.

use std::io::{self, BufReader, Read};
use std::path::Path;

use fs_err as fs;
use mirabelle_manifests::{EntryPath, PathError, PathPattern};

use crate::staging::{Staging, StagingError};
use crate::tar_reader::{TarKind, TarReader};

pub use crate::staging::Limits;

/// The largest dictionary an xz archive may ask for: that of `xz -9`, doubled.
const XZ_MEMORY_KIB: u32 = 192 << 10;
/// The largest window a zstd archive may ask for, as a power of two: that of `zstd --long`.
const ZSTD_WINDOW_LOG: u32 = 27;
/// What may follow the end of a tar: padding to the block size of any tape.
const MAX_TRAILING_BYTES: u64 = 1 << 20;
/// The longest control file of a Debian package; the longest in Debian has some 20 kB.
const MAX_CONTROL_BYTES: u64 = 1 << 20;
/// The largest `control.tar`, unpacked: the digests of 300,000 files and the scripts.
const MAX_CONTROL_TAR_BYTES: u64 = 64 << 20;
/// The longest target of a link in a zip.
const MAX_LINK_BYTES: u64 = 4096;

/// How an archive is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A tar, however compressed.
    Tar,
    /// A zip.
    Zip,
    /// A Python wheel: a zip whose `*.data` directories go to their places.
    Wheel,
    /// A Debian package: its files, not its scripts.
    Deb,
}

/// What to take out of an archive, and where to put it.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Leading path segments to drop; an entry with no more than these is passed over.
    pub strip: usize,
    /// A directory to put everything into.
    pub prefix: Option<EntryPath>,
    /// Patterns of paths, after stripping, to pass over. A pattern for a directory covers what is in it.
    pub exclude: Vec<PathPattern>,
}

/// Why an archive was refused.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// It is not what it should be, or is damaged.
    #[error("`{archive}` cannot be read as {format:?}")]
    Unreadable {
        /// The archive.
        archive: String,
        /// What it was read as.
        format: Format,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// One of its entries was refused.
    #[error("`{archive}` was refused")]
    Refused {
        /// The archive.
        archive: String,
        /// The entry, and why.
        #[source]
        source: StagingError,
    },
}

/// Unpacks `archive` into `staging`.
pub fn unpack(
    archive: &Path,
    format: Format,
    selection: &Selection,
    staging: &mut Staging,
) -> Result<(), ArchiveError> {
    let name = archive.display().to_string();
    let result = fs::File::open(archive).map_err(Failure::Read).and_then(|file| match format {
        Format::Tar => unpack_tar(decompress(BufReader::new(file))?, selection, staging),
        Format::Zip => unpack_zip(file, selection, staging, |path| Some(path.to_owned())),
        Format::Wheel => unpack_zip(file, selection, staging, wheel_path),
        Format::Deb => unpack_deb(BufReader::new(file), selection, staging),
    });
    result.map_err(|failure| match failure {
        Failure::Read(source) => ArchiveError::Unreadable { archive: name, format, source },
        Failure::Entry(source) => ArchiveError::Refused { archive: name, source },
    })
}

/// What a Debian package says about itself: its control file (deb-control(5)).
pub fn deb_control(archive: &Path) -> Result<Vec<u8>, ArchiveError> {
    let read = || -> io::Result<Vec<u8>> {
        let member = deb_member(BufReader::new(fs::File::open(archive)?), "control.tar")?;
        let mut tar = TarReader::new(decompress(BufReader::new(member))?.take(MAX_CONTROL_TAR_BYTES));
        while let Some(entry) = tar.next()? {
            if matches!(entry.path.as_str(), "control" | "./control") && entry.size <= MAX_CONTROL_BYTES {
                let mut control = Vec::new();
                tar.take(entry.size).read_to_end(&mut control)?;
                return Ok(control);
            }
        }
        Err(invalid("it holds no control file"))
    };
    read().map_err(|source| ArchiveError::Unreadable {
        archive: archive.display().to_string(),
        format: Format::Deb,
        source,
    })
}

enum Failure {
    Read(io::Error),
    Entry(StagingError),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Read(error)
    }
}

impl From<StagingError> for Failure {
    fn from(error: StagingError) -> Self {
        Self::Entry(error)
    }
}

impl From<PathError> for Failure {
    fn from(error: PathError) -> Self {
        Self::Entry(error.into())
    }
}

impl Selection {
    /// Where an entry of an archive goes; `None` when it is passed over.
    fn place(&self, path: &str) -> Result<Option<EntryPath>, Failure> {
        let path = path.strip_prefix("./").unwrap_or(path).trim_end_matches('/');
        if path.is_empty() || path == "." {
            return Ok(None);
        }
        // Checked before anything is cut off it: an archive that tries to escape is refused, not trimmed.
        Ok(self.place_entry(&path.parse()?)?)
    }

    /// Where an entry goes; `None` when it is passed over.
    pub fn place_entry(&self, path: &EntryPath) -> Result<Option<EntryPath>, PathError> {
        let Some(kept) = path.as_str().splitn(self.strip + 1, '/').nth(self.strip) else { return Ok(None) };
        let covered = |part: &str| self.exclude.iter().any(|pattern| pattern.matches(part));
        let kept: EntryPath = kept.parse()?;
        if covered(kept.as_str()) || kept.ancestors().any(covered) {
            return Ok(None);
        }
        Ok(Some(match &self.prefix {
            Some(prefix) => format!("{prefix}/{kept}").parse()?,
            None => kept,
        }))
    }
}

fn decompress<'a>(mut reader: impl io::BufRead + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let start = reader.fill_buf()?;
    Ok(if start.starts_with(&[0x1f, 0x8b]) {
        Box::new(flate2::bufread::MultiGzDecoder::new(reader))
    } else if start.starts_with(&[0xfd, b'7', b'z', b'X', b'Z', 0]) {
        Box::new(lzma_rust2::XzReader::new_mem_limit(reader, true, XZ_MEMORY_KIB))
    } else if start.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        let mut decoder = zstd::Decoder::with_buffer(reader)?;
        decoder.window_log_max(ZSTD_WINDOW_LOG)?;
        Box::new(decoder)
    } else {
        Box::new(reader)
    })
}

fn unpack_tar(reader: impl Read, selection: &Selection, staging: &mut Staging) -> Result<(), Failure> {
    let mut tar = TarReader::new(reader);
    let mut entries = 0;
    while let Some(entry) = tar.next()? {
        entries += 1;
        let Some(path) = selection.place(&entry.path)? else { continue };
        match entry.kind {
            TarKind::File => staging.file(&path, entry.mode & 0o100 != 0, entry.size, &mut tar)?,
            TarKind::Directory => staging.directory(&path)?,
            TarKind::Symlink(target) => staging.link(&path, &target)?,
            TarKind::HardLink(target) => match selection.place(&target)? {
                Some(target) => staging.hard_link(&path, &target)?,
                None => return Err(StagingError::HardLink { entry: path, target }.into()),
            },
            TarKind::Other(_) => return Err(StagingError::Special(entry.path).into()),
        }
    }
    // What follows the archive's end still has to decompress: a cut or damaged file is noticed there at the latest.
    let trailing = io::copy(&mut tar.into_inner().take(MAX_TRAILING_BYTES + 1), &mut io::sink())?;
    if trailing > MAX_TRAILING_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the archive goes on after its end").into());
    }
    if entries == 0 {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the archive is empty").into());
    }
    Ok(())
}

fn unpack_zip(
    file: fs::File,
    selection: &Selection,
    staging: &mut Staging,
    rename: impl Fn(&str) -> Option<String>,
) -> Result<(), Failure> {
    let zip_error = |error: zip::result::ZipError| io::Error::new(io::ErrorKind::InvalidData, error);
    let mut zip = zip::ZipArchive::new(BufReader::new(file)).map_err(zip_error)?;
    for index in 0..zip.len() {
        let mut entry = zip.by_index(index).map_err(zip_error)?;
        let name = std::str::from_utf8(entry.name_raw())
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "a path is not UTF-8"))?
            .to_owned();
        // Refuse before renaming: a wheel's `x.data/data/../../..` must not become harmless by accident.
        if selection.place(&name)?.is_none() {
            continue;
        }
        let Some(renamed) = rename(&name) else { continue };
        let Some(path) = selection.place(&renamed)? else { continue };
        let mode = entry.unix_mode().unwrap_or(0o644);
        if entry.is_dir() {
            staging.directory(&path)?;
        } else if mode & 0o170_000 == 0o120_000 {
            let mut target = String::new();
            (&mut entry).take(MAX_LINK_BYTES).read_to_string(&mut target)?;
            staging.link(&path, &target)?;
        } else if matches!(mode & 0o170_000, 0 | 0o100_000) {
            let executable = mode & 0o100 != 0 || renamed != name && renamed.starts_with("bin/");
            let size = entry.size();
            staging.file(&path, executable, size, &mut entry)?;
        } else {
            return Err(StagingError::Special(name).into());
        }
    }
    Ok(())
}

/// Where a wheel's file is installed (PEP 427, "the .data directory"), relative to a directory of its own.
fn wheel_path(path: &str) -> Option<String> {
    let Some((data, rest)) = path.split_once(".data/").filter(|(data, _)| !data.contains('/')) else {
        return Some(path.to_owned());
    };
    let (scheme, rest) = rest.split_once('/').filter(|(_, rest)| !rest.is_empty())?;
    Some(match scheme {
        "scripts" => format!("bin/{rest}"),
        "purelib" | "platlib" | "data" => rest.to_owned(),
        other => format!("{data}.data/{other}/{rest}"),
    })
}

fn unpack_deb(reader: impl io::BufRead, selection: &Selection, staging: &mut Staging) -> Result<(), Failure> {
    let member = deb_member(reader, "data.tar")?;
    unpack_tar(decompress(BufReader::new(member))?, selection, staging)
}

/// A .deb is an `ar` of `debian-binary`, `control.tar.*` and `data.tar.*` (deb(5)); this is the one whose name begins
/// with `wanted`.
fn deb_member<R: io::BufRead>(mut reader: R, wanted: &str) -> io::Result<io::Take<R>> {
    let mut magic = [0_u8; 8];
    reader.read_exact(&mut magic)?;
    if &magic != b"!<arch>\n" {
        return Err(invalid("it is no ar archive"));
    }
    loop {
        // name 16, mtime 12, uid 6, gid 6, mode 8, size 10, end 2
        let mut header = [0_u8; 60];
        reader.read_exact(&mut header).map_err(|_| invalid(&format!("it holds no {wanted}")))?;
        let field = |range: std::ops::Range<usize>| std::str::from_utf8(&header[range]).map_or("", str::trim);
        let size: u64 = field(48..58).parse().map_err(|_| invalid("a member's size is not a number"))?;
        if field(0..16).starts_with(wanted) {
            return Ok(reader.take(size));
        }
        io::copy(&mut reader.by_ref().take(size), &mut io::sink())?;
        if size % 2 == 1 {
            reader.read_exact(&mut [0_u8])?;
        }
    }
}

fn invalid(message: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message.to_owned())
}
