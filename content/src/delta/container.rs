//! The file of a delta: what stands where.
//!
//! ```text
//! "MDLT" 1             magic, format
//! 8 bytes              the first of the SHA-256 of all that follows
//! 1 byte               1: it leads from a release · 2: the manifest is whole, not in lists
//! 8 bytes              the first of the digest of the release it leads from, if it does
//! varints              lengths of: the manifest's rest; its lists
//! streams              new bytes of text, new bytes of words (see stream.rs)
//! varint               windows; for each: how many new bytes; where in the old bytes it looks, how many;
//!                      bytes of its pieces, bytes of its corrections
//! …                    the parts themselves, in this order
//! ```

use std::io::{self, Read, Seek, SeekFrom, Write};

use fs_err as fs;
use mirabelle_manifests::Digest;

use super::stream::Described;
use super::{DeltaError, varint};
use crate::hash::Hashing;

const MAGIC: &[u8; 5] = b"MDLT\x01";
/// Bytes of digests that are kept where a damaged file is all that must be noticed.
const CHECK_BYTES: usize = 8;
/// The most windows: those of the largest release there may be.
const MAX_WINDOWS: u64 = 4096;

const FROM_BASE: u8 = 1;
const WHOLE_MANIFEST: u8 = 2;

/// A part of the new bytes, coded against a part of the old ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Window {
    /// How many new bytes.
    pub(super) new: u64,
    /// Where the old bytes begin that it looks at.
    pub(super) old_start: u64,
    /// How many old bytes.
    pub(super) old: u64,
    /// Bytes of coded pieces.
    pub(super) pieces: u64,
    /// Bytes of coded corrections.
    pub(super) corrections: u64,
}

/// What stands before the parts.
#[derive(Clone, Debug)]
pub(super) struct Header {
    /// The first bytes of the digest of the release it leads from.
    pub(super) base: Option<[u8; CHECK_BYTES]>,
    /// True: the manifest is not in lists.
    pub(super) whole_manifest: bool,
    /// Bytes of the manifest's rest.
    pub(super) rest: u64,
    /// Bytes of its coded lists.
    pub(super) lists: u64,
    /// The new bytes, by likeness.
    pub(super) literals: [Described; 2],
    /// The windows.
    pub(super) windows: Vec<Window>,
}

/// The first bytes of a release's digest.
pub(super) fn short(release: Digest) -> [u8; CHECK_BYTES] {
    std::array::from_fn(|at| release.as_bytes()[at])
}

/// Writes a delta; returns its length.
pub(super) fn write(out: &mut fs::File, header: &Header, parts: Vec<Box<dyn Read + '_>>) -> io::Result<u64> {
    let mut head = Vec::new();
    let flag = |set: bool, flag: u8| if set { flag } else { 0 };
    head.push(flag(header.base.is_some(), FROM_BASE) | flag(header.whole_manifest, WHOLE_MANIFEST));
    head.extend_from_slice(header.base.as_ref().map_or(&[][..], |base| base));
    varint::write(&mut head, header.rest);
    varint::write(&mut head, header.lists);
    header.literals.iter().for_each(|stream| stream.write(&mut head));
    varint::write(&mut head, header.windows.len() as u64);
    for window in &header.windows {
        for number in [window.new, window.old_start, window.old, window.pieces, window.corrections] {
            varint::write(&mut head, number);
        }
    }
    out.write_all(MAGIC)?;
    out.write_all(&[0; CHECK_BYTES])?;
    let mut rest: Box<dyn Read> = Box::new(&head[..]);
    for part in parts {
        rest = Box::new(rest.chain(part));
    }
    let mut rest = Hashing::new(rest);
    let length = io::copy(&mut rest, out)?;
    out.seek(SeekFrom::Start(MAGIC.len() as u64))?;
    out.write_all(&short(rest.finish().0))?;
    out.seek(SeekFrom::End(0))?;
    Ok((MAGIC.len() + CHECK_BYTES) as u64 + length)
}

/// Reads a delta through, compares its check, and gives its header and where the parts begin.
pub(super) fn read(delta: &mut fs::File) -> Result<(Header, u64), DeltaError> {
    let mut start = [0; MAGIC.len() + CHECK_BYTES];
    delta.read_exact(&mut start).map_err(|_| DeltaError::Malformed("it ends too early"))?;
    if !start.starts_with(MAGIC) {
        return Err(DeltaError::Malformed("it is no delta of this format"));
    }
    let (digest, length) = crate::hash::digest(delta)?;
    if start[MAGIC.len()..] != short(digest) {
        return Err(DeltaError::Malformed("its bytes were damaged on the way"));
    }
    delta.seek(SeekFrom::Start(start.len() as u64))?;
    let mut source = io::BufReader::new(&mut *delta);
    let header = parse(&mut source)?;
    let offset = source.stream_position()?;
    let parts = (header.windows.iter()).fold(header.rest.saturating_add(header.lists), |sum, window| {
        sum.saturating_add(window.pieces).saturating_add(window.corrections)
    });
    let parts = header.literals.iter().fold(parts, |sum, stream| sum.saturating_add(stream.size));
    if offset.saturating_add(parts) != start.len() as u64 + length {
        return Err(DeltaError::Malformed("its parts do not add up"));
    }
    Ok((header, offset))
}

fn parse(source: &mut dyn Read) -> Result<Header, DeltaError> {
    let flags = varint::byte(source)?;
    if flags & !(FROM_BASE | WHOLE_MANIFEST) != 0 {
        return Err(DeltaError::Malformed("it is of a kind that is not known"));
    }
    let mut base = None;
    if flags & FROM_BASE != 0 {
        let mut bytes = [0; CHECK_BYTES];
        for byte in &mut bytes {
            *byte = varint::byte(source)?;
        }
        base = Some(bytes);
    }
    let (rest, lists) = (varint::read(source)?, varint::read(source)?);
    let literals = [Described::read(source)?, Described::read(source)?];
    let count = varint::read(source)?;
    if count > MAX_WINDOWS {
        return Err(DeltaError::Malformed("it has too many windows"));
    }
    let mut windows = Vec::new();
    for _ in 0..count {
        windows.push(Window {
            new: varint::read(source)?,
            old_start: varint::read(source)?,
            old: varint::read(source)?,
            pieces: varint::read(source)?,
            corrections: varint::read(source)?,
        });
    }
    Ok(Header { base, whole_manifest: flags & WHOLE_MANIFEST != 0, rest, lists, literals, windows })
}
