//! Compressed streams: LZMA, or zstd, or neither, whichever is smallest.

use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use fs_err as fs;
use lzma_rust2::{EncodeMode, LzmaOptions, LzmaReader, LzmaWriter, MfType};

use super::DeltaError;
use super::varint;

/// The largest dictionary: a decoder holds that much of each stream in memory.
const MAX_DICTIONARY_LOG: u32 = 25;
/// Streams up to this size are tried under several settings; a larger one gains less than it costs.
const TRIED_BYTES: u64 = 2 << 20;
const ZSTD_LEVEL: i32 = 19;

/// How a stream is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Codec {
    Plain,
    Zstd,
    Lzma { properties: u8, dictionary_log: u8 },
}

/// What a delta's header says of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Described {
    codec: Codec,
    /// Bytes that come out.
    pub(super) length: u64,
    /// Bytes in the delta.
    pub(super) size: u64,
}

/// What the bytes of a stream are like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Likeness {
    /// Text, and whatever has no rhythm.
    Text,
    /// Machine code, tables of words.
    Words,
}

/// (lc, lp, pb) to try, the usual one first.
fn settings(likeness: Likeness, length: u64) -> &'static [(u32, u32, u32)] {
    match (likeness, length <= TRIED_BYTES) {
        (Likeness::Text, true) => &[(3, 0, 0), (4, 0, 0), (1, 0, 0)],
        (Likeness::Text, false) => &[(3, 0, 0)],
        (Likeness::Words, true) => &[(3, 0, 2), (0, 2, 2), (3, 0, 0)],
        (Likeness::Words, false) => &[(3, 0, 2)],
    }
}

/// Compresses all of `source` into a file in `scratch`.
pub(super) fn compress(
    source: &mut fs::File,
    likeness: Likeness,
    effort: u8,
    scratch: &Path,
) -> io::Result<(Described, fs::File)> {
    let length = source.seek(SeekFrom::End(0))?;
    let mut best: Option<(Described, fs::File)> = None;
    let mut keep = |codec: Codec, mut file: fs::File| -> io::Result<()> {
        let size = file.stream_position()?;
        if best.as_ref().is_none_or(|(best, _)| size < best.size) {
            file.rewind()?;
            best = Some((Described { codec, length, size }, file));
        }
        Ok(())
    };
    if length <= TRIED_BYTES {
        source.rewind()?;
        let mut plain = Vec::new();
        source.read_to_end(&mut plain)?;
        for (codec, bytes) in
            [(Codec::Zstd, zstd::bulk::compress(&plain, ZSTD_LEVEL)?), (Codec::Plain, plain)]
        {
            let mut file = scratch_file(scratch)?;
            file.write_all(&bytes)?;
            keep(codec, file)?;
        }
    }
    if length > 0 {
        for setting in settings(likeness, length) {
            source.rewind()?;
            let (codec, file) = lzma(source, length, *setting, effort, scratch)?;
            keep(codec, file)?;
        }
    }
    best.ok_or_else(|| io::Error::other("a stream has no form"))
}

/// A file without a name.
pub(super) fn scratch_file(scratch: &Path) -> io::Result<fs::File> {
    Ok(fs::File::from_parts(tempfile::tempfile_in(scratch)?, scratch))
}

fn lzma(
    source: &mut fs::File,
    length: u64,
    (lc, lp, pb): (u32, u32, u32),
    effort: u8,
    scratch: &Path,
) -> io::Result<(Codec, fs::File)> {
    let log = (64 - length.max(1 << 12).saturating_sub(1).leading_zeros()).min(MAX_DICTIONARY_LOG);
    let (nice, depth) = match effort {
        1 => (48, 24),
        2 => (128, 0),
        _ => (273, 512),
    };
    let options = LzmaOptions::new(1 << log, lc, lp, pb, EncodeMode::Normal, nice, MfType::Bt4, depth);
    let out = io::BufWriter::new(scratch_file(scratch)?);
    let mut writer = LzmaWriter::new_no_header(out, &options, false)?;
    io::copy(source, &mut writer)?;
    let codec =
        Codec::Lzma { properties: options.get_props(), dictionary_log: u8::try_from(log).unwrap_or(u8::MAX) };
    let file = writer.finish()?.into_inner().map_err(io::IntoInnerError::into_error)?;
    Ok((codec, file))
}

impl Described {
    /// Appends the description.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        match self.codec {
            Codec::Plain => out.push(0),
            Codec::Zstd => out.push(1),
            Codec::Lzma { properties, dictionary_log } => {
                out.extend_from_slice(&[2, properties, dictionary_log]);
            }
        }
        varint::write(out, self.length);
        varint::write(out, self.size);
    }

    /// Reads a description.
    pub(super) fn read(source: &mut dyn Read) -> Result<Self, DeltaError> {
        let bad = || DeltaError::Malformed("a stream is of no known kind");
        let codec = match varint::byte(source)? {
            0 => Codec::Plain,
            1 => Codec::Zstd,
            2 => {
                let (properties, dictionary_log) = (varint::byte(source)?, varint::byte(source)?);
                if u32::from(dictionary_log) > MAX_DICTIONARY_LOG || properties >= 225 {
                    return Err(bad());
                }
                Codec::Lzma { properties, dictionary_log }
            }
            _ => return Err(bad()),
        };
        Ok(Self { codec, length: varint::read(source)?, size: varint::read(source)? })
    }

    /// Opens the stream, which stands at `offset` of the delta.
    pub(super) fn open(&self, delta: &fs::File, offset: u64) -> io::Result<Box<dyn Read + Send>> {
        let mut file = fs::File::open(delta.path())?;
        file.seek(SeekFrom::Start(offset))?;
        let stored = io::BufReader::with_capacity(64 << 10, file.take(self.size));
        Ok(match self.codec {
            Codec::Plain => Box::new(stored.take(self.length)),
            Codec::Zstd => {
                let mut decoder = zstd::Decoder::with_buffer(stored)?.single_frame();
                decoder.window_log_max(MAX_DICTIONARY_LOG)?;
                Box::new(decoder.take(self.length))
            }
            Codec::Lzma { properties, dictionary_log } => Box::new(
                LzmaReader::new_with_props(stored, self.length, properties, 1 << dictionary_log, None)?
                    .take(self.length),
            ),
        })
    }
}
