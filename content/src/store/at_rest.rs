//! How an object lies in the store: plain, or as one zstd frame where that pays.
//!
//! The frame states the size of the plain bytes and ends in a checksum, so that a form can be told by its first
//! [`HEADER_BYTES`], and damage is noticed by whoever decodes. It pays when it saves an eighth: below that, decoding for
//! whoever cannot read it costs more than its bytes. An object of at most [`IN_MEMORY_BYTES`] is compressed whole and the
//! shorter is kept; of a larger one, the first [`PROBE_BYTES`] decide whether to try, so that media are not compressed for
//! nothing, and the end whether it was right.
//!
//! Measured on 14 packages (an office suite, Java, a browser engine, Scratch …; 10,367 files, 1,131 MB), one core:
//!
//! | level | at rest | on the disk's blocks | files below 16 kB | in, MB/s | out, MB/s |
//! |---|---|---|---|---|---|
//! | 1 | 0.477 | 0.490 | 0.542 | 306 | 1155 |
//! | **3** | 0.445 | 0.459 | 0.537 | 222 | 981 |
//! | 6 | 0.426 | 0.440 | 0.528 | 94 | 1105 |
//! | 9 | 0.418 | 0.432 | 0.527 | 43 | 759 |
//! | 3 with a dictionary | 0.445 | 0.458 | 0.512 | 256 | 1047 |
//!
//! Level 3: what it takes is spent once, and what it saves is sent to every workstation; level 6 would halve the speed
//! of mirroring for two points. No dictionary: files below 16 kB are 2 % of the bytes, and one trained on half of them
//! saves 0.6 MB of 1,131, for which its own file would have to be kept, named in every object and sent to every asker. The
//! probe was wrong once, about 0.1 % of the bytes.
//!
//! A node that mirrors 409 MB of such objects from a bundle of 136 MB, and a workstation that installs them, CPU seconds of
//! their processes: mirror 1.1 without, 3.2 with compression (the bundle takes 54 s over 20 Mbit/s); install 2.2 and 2.6; the
//! node, for two installs, 1.5 and 1.2. On the node's disk and on the LAN: 409 MB, 142 MB.

use std::io::{self, BufReader, Cursor, Read, Seek, SeekFrom, Write};
use std::path::Path;

use fs_err as fs;
use mirabelle_manifests::Digest;
use tempfile::TempPath;

use super::{BUFFER_BYTES, ObjectError, copy_verified};
use crate::durable;

/// What an object is compressed with.
const LEVEL: i32 = 3;
/// A file takes a block of the disk however short it is; on the wire its request costs as much as it could save.
const SHORTEST_BYTES: u64 = 512;
/// Objects up to this size are compressed whole in memory.
const IN_MEMORY_BYTES: u64 = 1 << 20;
/// What a larger one is judged by: a block of zstd.
const PROBE_BYTES: u64 = 128 << 10;
/// A frame's header has at most 18 bytes (RFC 8878, 3.1.1).
const HEADER_BYTES: u64 = 18;
/// The largest window a frame may ask for, as a power of two: zstd's own default limit. Ours ask for 2 MiB.
const WINDOW_LOG: u32 = 27;

/// How a file in the store holds its object's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Form {
    /// As they are.
    Plain,
    /// As a zstd frame.
    Zstd,
    /// As they are, with permission to execute; beside the plain form only.
    Executable,
}

/// True when `compressed` bytes instead of `plain` are worth it.
fn pays(plain: u64, compressed: u64) -> bool {
    compressed <= plain - plain / 8
}

/// An object's plain bytes, in whatever form it is stored. It ends in an error where a frame goes on past the size that
/// it states, or is damaged.
pub struct PlainReader {
    inner: Inner,
    size: u64,
}

enum Inner {
    Plain(fs::File),
    Zstd(Box<zstd::Decoder<'static, BufReader<fs::File>>>),
}

impl std::fmt::Debug for PlainReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PlainReader").field("size", &self.size).finish_non_exhaustive()
    }
}

impl PlainReader {
    pub(crate) fn open(path: &Path, form: Form) -> io::Result<Self> {
        let mut file = fs::File::open(path)?;
        if form != Form::Zstd {
            let size = file.metadata()?.len();
            return Ok(Self { inner: Inner::Plain(file), size });
        }
        let size = size_in_header(&mut file)?;
        file.seek(SeekFrom::Start(0))?;
        let mut decoder = zstd::Decoder::new(file)?;
        decoder.window_log_max(WINDOW_LOG)?;
        Ok(Self { inner: Inner::Zstd(Box::new(decoder)), size })
    }

    /// How many bytes there are, by the file's length or the frame's word.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The file itself, when its bytes are the plain ones.
    pub(crate) fn into_plain_file(self) -> Result<fs::File, Self> {
        match self.inner {
            Inner::Plain(file) => Ok(file),
            inner @ Inner::Zstd(_) => Err(Self { inner, size: self.size }),
        }
    }
}

impl Read for PlainReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.inner {
            Inner::Plain(file) => file.read(buffer),
            Inner::Zstd(decoder) => decoder.read(buffer),
        }
    }
}

/// The size of the plain bytes that the frame in `path` states.
pub(super) fn stated_size(path: &Path) -> io::Result<u64> {
    size_in_header(&mut fs::File::open(path)?)
}

fn size_in_header(file: &mut fs::File) -> io::Result<u64> {
    let mut header = Vec::new();
    (&mut *file).take(HEADER_BYTES).read_to_end(&mut header)?;
    zstd::zstd_safe::get_frame_content_size(&header)
        .ok()
        .flatten()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "it is no zstd frame that states its size"))
}

/// Compresses objects, one after the other, where that pays.
pub(super) struct Compressor {
    whole: zstd::bulk::Compressor<'static>,
}

impl Compressor {
    pub(super) fn new() -> io::Result<Self> {
        let mut whole = zstd::bulk::Compressor::new(LEVEL)?;
        whole.set_parameter(zstd::zstd_safe::CParameter::ChecksumFlag(true))?;
        Ok(Self { whole })
    }

    /// Copies an object of `size` bytes from `source` to a file in `incoming`, in the form that pays.
    pub(super) fn copy(
        &mut self,
        source: &mut dyn Read,
        incoming: &Path,
        object: Digest,
        size: u64,
    ) -> Result<(Form, TempPath), ObjectError> {
        let (mut file, path) = temporary(incoming)?;
        if size < SHORTEST_BYTES {
            copy_verified(source, &mut file, object, size)?;
            return Ok((Form::Plain, path));
        }
        if size <= IN_MEMORY_BYTES {
            let mut plain = Vec::new();
            copy_verified(source, &mut plain, object, size)?;
            let compressed = self.whole.compress(&plain)?;
            let pays = pays(size, compressed.len() as u64);
            file.write_all(if pays { &compressed } else { &plain })?;
            return Ok((if pays { Form::Zstd } else { Form::Plain }, path));
        }
        let mut start = Vec::new();
        source
            .take(PROBE_BYTES)
            .read_to_end(&mut start)
            .map_err(|source| ObjectError::Source { object, source })?;
        let try_it = self.is_worth_trying(&start)?;
        let mut whole = Cursor::new(start).chain(source);
        if !try_it {
            copy_verified(&mut whole, &mut file, object, size)?;
            return Ok((Form::Plain, path));
        }
        compress(&mut whole, &mut file, object, size)?;
        if pays(size, file.stream_position()?) {
            return Ok((Form::Zstd, path));
        }
        // It began better than it went on: back to its plain bytes.
        let (mut plain, plain_path) = temporary(incoming)?;
        copy_verified(&mut PlainReader::open(&path, Form::Zstd)?, &mut plain, object, size)?;
        Ok((Form::Plain, plain_path))
    }

    /// By its first bytes.
    pub(super) fn is_worth_trying(&mut self, start: &[u8]) -> io::Result<bool> {
        let compressed = self.whole.compress(start)?;
        Ok(pays(start.len() as u64, compressed.len() as u64))
    }
}

/// An empty file in `incoming`.
pub(super) fn temporary(incoming: &Path) -> io::Result<(fs::File, TempPath)> {
    durable::will_write(incoming)?;
    let (file, path) = tempfile::Builder::new().tempfile_in(incoming)?.into_parts();
    Ok((fs::File::from_parts(file, &path), path))
}

fn compress(
    source: &mut dyn Read,
    file: &mut fs::File,
    object: Digest,
    size: u64,
) -> Result<(), ObjectError> {
    let mut encoder = zstd::Encoder::new(io::BufWriter::with_capacity(BUFFER_BYTES, &mut *file), LEVEL)?;
    encoder.include_checksum(true)?;
    // Stated in the frame's header, which readers go by.
    encoder.set_pledged_src_size(Some(size))?;
    copy_verified(source, &mut encoder, object, size)?;
    encoder.finish()?.flush()?;
    Ok(())
}

/// The first bytes of a file, as many as [`Compressor::is_worth_trying`] wants.
pub(super) fn start_of(file: &mut fs::File) -> io::Result<Vec<u8>> {
    let mut start = Vec::new();
    (&mut *file).take(PROBE_BYTES).read_to_end(&mut start)?;
    file.seek(SeekFrom::Start(0))?;
    Ok(start)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::held::ReadObjects;
    use crate::store::{ObjectStore, set_mode};
    use mirabelle_manifests::Mode;

    fn store() -> (tempfile::TempDir, ObjectStore) {
        let directory = tempfile::tempdir().unwrap();
        let store = ObjectStore::open_compressing(directory.path()).unwrap();
        (directory, store)
    }

    fn add(store: &ObjectStore, bytes: &[u8]) -> Digest {
        let object = Digest::of(bytes);
        let mut batch = store.batch();
        batch.add(&mut { bytes }, object, bytes.len() as u64).unwrap();
        batch.commit().unwrap();
        object
    }

    fn noise(bytes: usize) -> Vec<u8> {
        let mut state = 0x9E37_79B9_7F4A_7C15_u64;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        };
        std::iter::repeat_with(&mut next).take(bytes / 8).flatten().collect()
    }

    fn text(bytes: usize) -> Vec<u8> {
        (0_u64..).flat_map(|line| format!("line {line} of a text\n").into_bytes()).take(bytes).collect()
    }

    #[test]
    fn compresses_what_pays_and_nothing_else() {
        let (_directory, store) = store();
        let media_after_a_text = [text(1 << 18), noise(4 << 20)].concat();
        let cases = [
            ("short", text(100), Form::Plain),
            ("text", text(5000), Form::Zstd),
            ("long text", text(3 << 20), Form::Zstd),
            ("noise", noise(5000), Form::Plain),
            ("long noise", noise(2 << 20), Form::Plain),
            ("media that begin as a text", media_after_a_text, Form::Plain),
            ("nothing", vec![], Form::Plain),
        ];
        for (name, bytes, form) in cases {
            let (object, size) = (add(&store, &bytes), bytes.len() as u64);
            assert_eq!(store.locate(object).unwrap().0, form, "{name}");
            assert!(store.holds(object, size) && !store.holds(object, size + 1), "{name}");
            store.verify(object, size).unwrap();
            let mut read = Vec::new();
            let mut opened = store.open(object, size).unwrap();
            opened.read_to_end(&mut read).unwrap();
            assert_eq!(read, bytes, "{name}");
            // Anywhere in them, as whoever applies a difference needs it.
            opened.seek(SeekFrom::Start(size / 2)).unwrap();
            read.clear();
            opened.read_to_end(&mut read).unwrap();
            assert_eq!(read, bytes[bytes.len() / 2..], "{name}");
            assert!(store.open(object, size + 1).is_err(), "{name}");
        }
        assert_eq!(store.objects().unwrap().count(), 7);
        assert_eq!(fs::read_dir(store.incoming()).unwrap().count(), 0, "nothing is left over");
    }

    #[test]
    fn both_kinds_of_store_read_both_forms_and_the_compressed_one_takes_the_plain_ones_place() {
        let (directory, compressing) = store();
        let plain = ObjectStore { compresses: false, ..compressing.clone() };
        let bytes = text(20_000);
        let object = add(&plain, &bytes);
        assert_eq!(compressing.locate(object).unwrap().0, Form::Plain);
        compressing.verify(object, 20_000).unwrap();
        add(&compressing, &bytes);
        assert_eq!(plain.locate(object).unwrap().0, Form::Zstd);
        assert_eq!(plain.objects().unwrap().count(), 1);
        plain.verify(object, 20_000).unwrap();
        for (name, mode, bits) in [("file", Mode::Regular, 0o444), ("program", Mode::Executable, 0o555)] {
            let path = directory.path().join(name);
            plain.place(object, mode, &path).unwrap();
            assert_eq!(fs::read(&path).unwrap(), bytes);
            let found = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&path).unwrap().permissions());
            assert_eq!(found & 0o777, bits);
        }
        plain.remove(object).unwrap();
        assert_eq!(compressing.objects().unwrap().count(), 0);
    }

    #[test]
    fn takes_over_a_file_in_the_form_that_pays() {
        let (directory, store) = store();
        for (bytes, form) in [(text(2 << 20), Form::Zstd), (noise(2 << 20), Form::Plain)] {
            let path = directory.path().join("part");
            fs::write(&path, &bytes).unwrap();
            let object = Digest::of(&bytes);
            let mut batch = store.batch();
            assert!(batch.adopt(&path, Digest::of(b"another"), 2 << 20).is_err());
            assert!(path.exists(), "it is whoever fetched it who throws it away");
            batch.adopt(&path, object, 2 << 20).unwrap();
            assert!(!path.exists());
            batch.commit().unwrap();
            assert_eq!(store.locate(object).unwrap().0, form);
            store.verify(object, 2 << 20).unwrap();
        }
    }

    #[test]
    fn finds_a_bent_byte_anywhere_in_the_compressed_form() {
        let (_directory, store) = store();
        let bytes = text(3000);
        let object = add(&store, &bytes);
        let path = store.locate(object).unwrap().1;
        set_mode(&path, 0o644).unwrap();
        let good = fs::read(&path).unwrap();
        let mut harmless = 0;
        for at in 0..good.len() {
            let mut bent = good.clone();
            bent[at] ^= 0x40;
            fs::write(&path, bent).unwrap();
            // A few bits mean nothing to the decoder; the plain bytes are right then.
            if store.verify(object, 3000).is_ok() {
                harmless += 1;
                let mut read = Vec::new();
                store.read(object).unwrap().read_to_end(&mut read).unwrap();
                assert_eq!(read, bytes, "byte {at}");
            }
        }
        assert!(harmless < good.len() / 20, "{harmless} of {}", good.len());
        for damage in [&good[..good.len() - 1], &good[..3], b"", &[&good[..], b"more"].concat()] {
            fs::write(&path, damage).unwrap();
            assert!(store.verify(object, 3000).is_err());
            assert!(store.open(object, 3000).is_err() || damage.len() > good.len());
        }
    }

    #[test]
    fn a_bomb_ends_at_the_size_that_was_signed() {
        let (_directory, store) = store();
        let object = add(&store, &text(3000));
        let path = store.locate(object).unwrap().1;
        set_mode(&path, 0o644).unwrap();
        // It says 3,000 bytes in a first frame, and a gigabyte comes after them.
        let mut bomb = fs::read(&path).unwrap();
        let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
        io::copy(&mut io::repeat(0).take(1 << 30), &mut encoder).unwrap();
        bomb.extend(encoder.finish().unwrap());
        assert!(bomb.len() < 200_000);
        fs::write(&path, &bomb).unwrap();
        assert!(store.holds(object, 3000), "it looks right");
        assert!(matches!(store.verify(object, 3000), Err(ObjectError::SizeMismatch { got: 3001, .. })));
        assert_eq!(store.open(object, 3000).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
