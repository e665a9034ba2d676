//! Archives within a release, opened: what their deflate streams hold stands in the clear, to be compared.
//!
//! A zip (a jar, a wheel) or gzip file becomes two runs of bytes: the *contents*, which is the file with every deflate
//! stream in it unpacked, and the *recipe*, which says where those are and holds what `preflate` needs to make the very
//! same streams of them again. An encoder opens only what it has seen close to the same bytes.
//!
//! Threats: a recipe and contents from a hostile delta. Lengths are bounded by what there is; a stream that comes out
//! otherwise than it went in gives an object with another digest, which is refused.

use std::io::{self, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};

use preflate_rs::{PreflateConfig, preflate_whole_deflate_stream, recreate_whole_deflate_stream};

use super::DeltaError;
use super::varint;

/// The largest file that is opened: it is held in memory.
pub(super) const MAX_FILE_BYTES: u64 = 64 << 20;
/// The most that one stream in it may unpack to.
const MAX_STREAM_BYTES: usize = 48 << 20;
/// The most that all of it may unpack to.
const MAX_CONTENTS_BYTES: usize = 160 << 20;
/// The most times its own size that a file may unpack to: text comes to eight.
const MAX_RATIO: u64 = 32;
/// Streams shorter than this stay closed.
const MIN_STREAM_BYTES: usize = 64;

/// A file taken apart.
#[derive(Debug, Default)]
pub(super) struct Opened {
    /// Where the streams are and how they are made.
    pub(super) recipe: Vec<u8>,
    /// The file with its streams unpacked.
    pub(super) contents: Vec<u8>,
}

/// True when the first bytes of a file are those of an archive that can be opened.
pub(super) fn is_archive(head: &[u8]) -> bool {
    head.starts_with(b"PK\x03\x04") || head.starts_with(b"\x1f\x8b\x08")
}

/// True when a file of `size` bytes may have been opened to these lengths. What unpacks to more stays closed: no delta
/// makes its decoder go through much more than was signed.
pub(super) fn is_bounded(size: u64, recipe: u64, contents: u64) -> bool {
    size <= MAX_FILE_BYTES
        && recipe <= size
        && contents <= size.saturating_mul(MAX_RATIO).min(MAX_CONTENTS_BYTES as u64)
}

/// A deflate stream of a file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stream {
    start: usize,
    /// Its length, where the archive states it.
    length: Option<usize>,
}

impl Stream {
    /// Its bytes, as far as they are known.
    pub(super) fn bytes(self, file: &[u8]) -> Option<&[u8]> {
        file.get(self.start..self.start.checked_add(self.length?)?)
    }
}

/// Opens those of `streams` of `file` that `wanted` chooses; none if nothing is opened. With `checked`, streams that would
/// not be made again to the same bytes stay closed: what an encoder needs of the new side. Both sides open the old file
/// without.
pub(super) fn open(
    file: &[u8],
    streams: &[Stream],
    checked: bool,
    wanted: &mut dyn FnMut(Stream) -> bool,
) -> Option<Opened> {
    let config = PreflateConfig {
        plain_text_limit: MAX_STREAM_BYTES,
        verify_compression: checked,
        ..PreflateConfig::default()
    };
    let mut opened = Opened::default();
    let mut done = 0;
    for stream in streams {
        let start = stream.start;
        if !wanted(*stream) || start < done || opened.contents.len() > MAX_CONTENTS_BYTES {
            continue;
        }
        // The library is sound, but asserts what it did not expect.
        let unpacked = catch_unwind(|| preflate_whole_deflate_stream(&file[start..], &config));
        let Ok(Ok((result, plain))) = unpacked else { continue };
        if result.compressed_size < MIN_STREAM_BYTES {
            continue;
        }
        varint::write(&mut opened.recipe, (start - done) as u64);
        varint::write(&mut opened.recipe, plain.text().len() as u64);
        varint::write(&mut opened.recipe, result.corrections.len() as u64);
        opened.recipe.extend_from_slice(&result.corrections);
        opened.contents.extend_from_slice(&file[done..start]);
        opened.contents.extend_from_slice(plain.text());
        done = start + result.compressed_size;
    }
    opened.contents.extend_from_slice(&file[done..]);
    (!opened.recipe.is_empty() && opened.contents.len() <= MAX_CONTENTS_BYTES).then_some(opened)
}

/// Makes the file again, of at most `limit` bytes.
pub(super) fn close(recipe: &[u8], contents: &[u8], limit: u64) -> Result<Vec<u8>, DeltaError> {
    let bad = || DeltaError::Malformed("an archive cannot be put together again");
    let mut recipe = recipe;
    let mut contents = contents;
    let mut file = Vec::new();
    let take = |contents: &mut &[u8], length: u64| -> Result<Vec<u8>, DeltaError> {
        let length =
            usize::try_from(length).ok().filter(|length| *length <= contents.len()).ok_or_else(bad)?;
        let mut taken = vec![0; length];
        contents.read_exact(&mut taken)?;
        Ok(taken)
    };
    while !recipe.is_empty() {
        let before = varint::read(&mut recipe)?;
        let plain = varint::read(&mut recipe)?;
        let corrections = varint::read(&mut recipe)?;
        file.append(&mut take(&mut contents, before)?);
        let plain = take(&mut contents, plain)?;
        let corrections = take(&mut recipe, corrections)?;
        let stream = catch_unwind(AssertUnwindSafe(|| recreate_whole_deflate_stream(&plain, &corrections)));
        let mut stream = stream.map_err(|_| bad())?.map_err(|_| bad())?;
        // An encoder opens none that is shorter; hostile ones are no more numerous than the file has room for.
        if stream.len() < MIN_STREAM_BYTES {
            return Err(bad());
        }
        file.append(&mut stream);
        if file.len() as u64 > limit {
            return Err(DeltaError::TooLong(limit));
        }
    }
    file.extend_from_slice(contents);
    Ok(file)
}

/// The deflate streams of a file, in order.
pub(super) fn streams_of(file: &[u8]) -> Vec<Stream> {
    if file.starts_with(b"\x1f\x8b\x08") {
        gzip(file).map(|start| Stream { start, length: None }).into_iter().collect()
    } else {
        zip(file).unwrap_or_default()
    }
}

/// RFC 1952: a fixed header, then what its flags say.
fn gzip(file: &[u8]) -> Option<usize> {
    let flags = *file.get(3)?;
    let mut at = 10;
    if flags & 4 != 0 {
        at += 2 + usize::from(u16::from_le_bytes(file.get(at..at + 2)?.try_into().ok()?));
    }
    for flag in [8, 16] {
        if flags & flag != 0 {
            at += file.get(at..)?.iter().position(|byte| *byte == 0)? + 1;
        }
    }
    if flags & 2 != 0 {
        at += 2;
    }
    (at < file.len()).then_some(at)
}

/// The deflated members of a zip, as its central directory lists them.
fn zip(file: &[u8]) -> io::Result<Vec<Stream>> {
    let mut archive = zip::ZipArchive::new(io::Cursor::new(file)).map_err(io::Error::other)?;
    let mut streams = Vec::new();
    for index in 0..archive.len() {
        let Ok(member) = archive.by_index_raw(index) else { continue };
        if member.compression() != zip::CompressionMethod::Deflated || member.encrypted() {
            continue;
        }
        let start = member.data_start().and_then(|start| usize::try_from(start).ok());
        let length = usize::try_from(member.compressed_size()).ok();
        streams.extend(start.filter(|start| *start < file.len()).map(|start| Stream { start, length }));
    }
    streams.sort_by_key(|stream| stream.start);
    Ok(streams)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn open_all(file: &[u8]) -> Option<Opened> {
        open(file, &streams_of(file), true, &mut |_| true)
    }

    fn archive() -> Vec<u8> {
        let mut writer = zip::ZipWriter::new(io::Cursor::new(Vec::new()));
        for number in 0..20 {
            let options = zip::write::SimpleFileOptions::default().compression_method(if number % 5 == 0 {
                zip::CompressionMethod::Stored
            } else {
                zip::CompressionMethod::Deflated
            });
            writer.start_file(format!("member {number}"), options).unwrap();
            let text: Vec<String> = (0..300)
                .map(|fruit| format!("{number} mirabelles of tree {}; ", fruit * 7919 % 1000))
                .collect();
            writer.write_all(text.concat().as_bytes()).unwrap();
        }
        writer.finish().unwrap().into_inner()
    }

    #[test]
    fn opens_and_closes_to_the_same_bytes() {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        gzip.write_all(&archive()).unwrap();
        for file in [archive(), gzip.finish().unwrap()] {
            let opened = open_all(&file).expect("it has streams");
            assert!(opened.contents.len() > file.len());
            assert_eq!(close(&opened.recipe, &opened.contents, file.len() as u64).unwrap(), file);
            assert!(matches!(close(&opened.recipe, &opened.contents, 10), Err(DeltaError::TooLong(10))));
        }
    }

    #[test]
    fn what_is_no_archive_stays_closed() {
        for file in
            [&b""[..], b"PK\x03\x04", b"\x1f\x8b\x08", b"\x1f\x8b\x08\xff\0\0\0\0\0\0\xff\xff", &[0; 100]]
        {
            assert!(open_all(file).is_none());
        }
        let cut = archive();
        assert!(open_all(&cut[..cut.len() / 2]).is_none());
    }

    #[test]
    fn a_recipe_that_lies_is_refused() {
        let opened = open_all(&archive()).unwrap();
        for at in 0..opened.recipe.len() {
            let mut recipe = opened.recipe.clone();
            recipe[at] ^= 0x55;
            // Whatever comes out, it ends, and within bounds.
            if let Ok(file) = close(&recipe, &opened.contents, 1 << 20) {
                assert!(file.len() <= 2 << 20);
            }
        }
    }
}
