//! Decoding a delta.
//!
//! The header and the manifest's lists say which objects are new and how large; the old side is written to a file as the
//! encoder had it; then every window's pieces are read and its spans come out in order, each object in one go. Memory
//! holds the pieces and fields of one window, and the dictionaries of two streams, whatever the release's size.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::Path;

use fs_err as fs;
use mirabelle_manifests::{Digest, Entry, Hasher, ManifestParts, Node, SignedRelease};

use super::coder::{Coder, Decoder};
use super::container::{self, Header};
use super::image::HEAD_BYTES;
use super::manifest::{Limits, code_lists};
use super::opened;
use super::pieces::Pieces;
use super::relocate::NewImage;
use super::sides::{Item, Member, Part, Side, Span, items, members, open_object, read_archive};
use super::window::{Spans, WindowLayout, code_spans, is_covered, old_images};
use super::{DeltaError, Expected, Held, MAX_PIECES, Nothing, Openings, WINDOW_BYTES, corrections};
use crate::store::ObjectError;

/// Objects up to this size pass through memory.
const SMALL_OBJECT_BYTES: u64 = 1 << 20;

/// Takes what comes out.
pub(super) trait TakeObjects {
    /// An object in memory.
    fn small(&mut self, bytes: &[u8], object: Digest) -> Result<(), DeltaError>;
    /// An object in a file of its own, which may be taken away.
    fn large(&mut self, path: &Path, object: Digest, size: u64) -> Result<(), DeltaError>;
}

/// Decodes a delta; see [`super::decode`].
pub(super) fn decode(
    delta: &Path,
    base: Option<Held<'_>>,
    expected: Expected,
    scratch: &Path,
    take: &mut dyn TakeObjects,
    progress: &mut dyn FnMut(u64),
) -> Result<Vec<u8>, DeltaError> {
    let mut source = Source { delta, base, used: Vec::new() };
    let rebuilt = rebuild(&mut source, expected, scratch, take, progress);
    rebuilt.map_err(|error| source.damaged().unwrap_or(error))
}

/// What a release is rebuilt from.
struct Source<'a> {
    delta: &'a Path,
    base: Option<Held<'a>>,
    /// The objects of the base that were read.
    used: Vec<Member>,
}

impl Source<'_> {
    /// The first object of the base whose bytes are not its own: then nothing that came out could be right, and the
    /// delta is not to blame.
    fn damaged(&self) -> Option<DeltaError> {
        let objects = self.base?.objects;
        self.used.iter().find_map(|member| {
            let object = member.object;
            let read = open_object(objects, member).map(|mut file| crate::hash::digest(&mut file));
            match read {
                Ok(Ok((digest, _))) if digest == object => None,
                Ok(Ok((got, _))) => {
                    let wrong = ObjectError::DigestMismatch { expected: object, got };
                    Some(DeltaError::Base { object, source: io::Error::other(wrong) })
                }
                Ok(Err(source)) => Some(DeltaError::Base { object, source }),
                Err(error) => Some(error),
            }
        })
    }
}

#[expect(clippy::too_many_lines, reason = "a story of four steps")]
fn rebuild(
    source: &mut Source<'_>,
    expected: Expected,
    scratch: &Path,
    take: &mut dyn TakeObjects,
    progress: &mut dyn FnMut(u64),
) -> Result<Vec<u8>, DeltaError> {
    let Source { delta, base, .. } = *source;
    let mut file = fs::File::open(delta)?;
    let (header, offset) = container::read(&mut file)?;
    if header.base != base.map(|base| container::short(Digest::of(base.manifest))) {
        return Err(DeltaError::OtherBase);
    }
    let base_release = base.map(|base| SignedRelease::parse(base.manifest).map(|signed| signed.release));
    let base_release = base_release.transpose().map_err(|_| DeltaError::OtherBase)?;
    let base_entries = base_release.as_ref().map_or(&[][..], |release| &release.entries[..]);

    // The manifest, with stand-ins for what is not known yet.
    file.seek(SeekFrom::Start(offset))?;
    let known = Manifest::read(&mut file, &header, base, expected)?;
    let lists_at = offset + header.rest;
    let mut lists = io::BufReader::new((&mut file).take(header.lists));
    let mut coder = Decoder::new(&mut lists);
    let (parts, entries) = known.lists(&mut coder, base_release.as_ref(), expected)?;

    // The two sides.
    let base_objects: BTreeSet<Digest> = objects(base_entries).collect();
    let kept: BTreeSet<Digest> = objects(&entries).collect();
    let mut new_members = members(&entries, |object| !base_objects.contains(&object));
    let mut old_members = members(base_entries, |object| !kept.contains(&object));
    source.used.clone_from(&old_members);
    let mut openings = Openings::new();
    for member in &mut new_members {
        member.opened = openings.code(&mut coder, None);
        if member.opened.is_some_and(|(recipe, contents)| !opened::is_bounded(member.size, recipe, contents))
        {
            return Err(DeltaError::Malformed("an archive unpacks to too much"));
        }
    }
    let any_opened = Openings::any(&mut coder, false);
    let nothing = Nothing;
    let old_objects = base.map_or(&nothing as _, |base| base.objects);
    let old = Side::write(&mut old_members, old_objects, scratch, &mut |member| {
        if !any_opened {
            return Ok(None);
        }
        let Some(file) = read_archive(old_objects, member)? else { return Ok(None) };
        let streams = opened::streams_of(&file);
        Ok(opened::open(&file, &streams, false, &mut |_| openings.choice(&mut coder, false)))
    })?;
    coder.finish()?;

    // The contents.
    let new_items = items(&new_members);
    let mut at = lists_at + header.lists;
    let mut open = |index: usize| {
        let stream = &header.literals[index];
        let opened = stream.open(&file, at).map_err(DeltaError::Stream);
        at += stream.size;
        opened
    };
    let literals = [open(0)?, open(1)?];
    let mut reading = Reading {
        items: &new_items,
        members: &new_members,
        literals,
        scratch,
        current: None,
        recipe: Vec::new(),
        digests: vec![None; new_members.len()],
        take,
        progress,
    };
    reading.empty_objects()?;
    let mut images: Vec<Option<NewImage>> = vec![None; new_items.len()];
    let total = new_items.last().map_or(0, Item::end);
    // Each is paid for by what it gives: of two that follow each other, the encoder would have made one.
    if header.windows.len() as u64 > 2 * (total / WINDOW_BYTES) + 1 {
        return Err(DeltaError::Malformed("it has too many windows"));
    }
    let mut start = 0_u64;
    // As many as an encoder makes: two that follow one another are more than one holds.
    if header.windows.len() as u64 > 2 * (total / WINDOW_BYTES) + 1 {
        return Err(DeltaError::Malformed("it has too many windows"));
    }
    for window in &header.windows {
        let range = start..start.saturating_add(window.new);
        let old_range = window.old_start..window.old_start.saturating_add(window.old);
        if range.end > total || old_range.end > old.length || window.old > WINDOW_BYTES {
            return Err(DeltaError::Malformed("a window looks past the end"));
        }
        let pieces = pieces(&file, at, window.pieces, &range, &old_range)?;
        at += window.pieces;
        let images_of_old = old_images(&old, &old_range)?;
        let layout = WindowLayout {
            old: &old,
            new_items: &new_items,
            new: range.clone(),
            old_images: images_of_old,
            pieces,
        };
        if !is_covered(&new_items, &range) {
            return Err(DeltaError::Malformed("a window looks past the end"));
        }
        let mut coder = Decoder::new(part(&file, at, window.corrections)?);
        code_spans(&mut coder, &layout, &mut images, &mut std::iter::empty(), &mut reading)?;
        coder.finish()?;
        at += window.corrections;
        start = range.end;
    }
    if start != total {
        return Err(DeltaError::Malformed("its windows do not cover what is new"));
    }
    let digests = reading.digests;
    for (member, digest) in new_members.iter().zip(&digests) {
        let got = digest.ok_or(DeltaError::Malformed("an object does not come out"))?;
        // Otherwise it stands in the manifest, whose digest decides.
        if header.whole_manifest && got != member.object {
            let wrong = ObjectError::DigestMismatch { expected: member.object, got };
            return Err(DeltaError::Object(wrong));
        }
    }

    // The manifest, now that all is known.
    let manifest = parts.finish(&new_members, &digests)?;
    let got = Digest::of(&manifest);
    if got != expected.manifest {
        return Err(DeltaError::OtherRelease { expected: expected.manifest, got });
    }
    Ok(manifest)
}

fn objects(entries: &[Entry]) -> impl Iterator<Item = Digest> {
    entries.iter().filter_map(|entry| match entry.node {
        Node::File { sha256, .. } => Some(sha256),
        _ => None,
    })
}

/// A part of the delta, from a file handle of its own.
fn part(delta: &fs::File, offset: u64, length: u64) -> io::Result<impl Read> {
    let mut file = fs::File::open(delta.path())?;
    file.seek(SeekFrom::Start(offset))?;
    Ok(io::BufReader::with_capacity(64 << 10, file.take(length)))
}

fn pieces(
    delta: &fs::File,
    offset: u64,
    length: u64,
    range: &Range<u64>,
    old_range: &Range<u64>,
) -> Result<Vec<super::align::Piece>, DeltaError> {
    let mut coder = Decoder::new(part(delta, offset, length)?);
    let mut model = Pieces::new();
    let mut pieces = Vec::new();
    while let Some(mut piece) = model.code(&mut coder, None, range.end - range.start) {
        piece.new += range.start;
        piece.old = piece.old.saturating_add(old_range.start);
        if piece.old.saturating_add(piece.length) > old_range.end {
            return Err(DeltaError::Malformed("a piece is copied from past the end"));
        }
        if pieces.len() == MAX_PIECES {
            return Err(DeltaError::Malformed("a window has too many pieces"));
        }
        pieces.push(piece);
    }
    coder.finish()?;
    Ok(pieces)
}

/// The part of the manifest that is known before any object is.
struct Manifest {
    whole: bool,
    rest: Vec<u8>,
}

/// A manifest that waits for its digests.
enum Waiting {
    Whole(Vec<u8>),
    Parts(ManifestParts),
}

impl Manifest {
    fn read(
        file: &mut fs::File,
        header: &Header,
        base: Option<Held<'_>>,
        expected: Expected,
    ) -> Result<Self, DeltaError> {
        if header.rest > expected.manifest_length.saturating_add(1024) {
            return Err(DeltaError::Malformed("its manifest is longer than signed"));
        }
        let mut compressed = Vec::new();
        file.take(header.rest).read_to_end(&mut compressed)?;
        let parts = base.and_then(|base| ManifestParts::of(base.manifest));
        let dictionary = match (&parts, base) {
            (Some(parts), _) if !header.whole_manifest => &parts.rest[..],
            (_, Some(base)) => base.manifest,
            _ => &[],
        };
        let limit = usize::try_from(expected.manifest_length).unwrap_or(0);
        let mut decompressor = zstd::bulk::Decompressor::with_dictionary(dictionary)?;
        let rest = decompressor.decompress(&compressed, limit).map_err(DeltaError::Stream)?;
        Ok(Self { whole: header.whole_manifest, rest })
    }

    /// The manifest as far as it is known, and its entries.
    fn lists<C: Coder>(
        self,
        coder: &mut C,
        base: Option<&mirabelle_manifests::Release>,
        expected: Expected,
    ) -> Result<(Waiting, Vec<Entry>), DeltaError> {
        let limits = Limits { manifest: expected.manifest_length, installed: expected.installed_size };
        if self.whole {
            let got = Digest::of(&self.rest);
            if got != expected.manifest {
                return Err(DeltaError::OtherRelease { expected: expected.manifest, got });
            }
            let signed = SignedRelease::parse(&self.rest);
            let signed = signed.map_err(|_| DeltaError::Malformed("its manifest does not read"))?;
            return Ok((Waiting::Whole(self.rest), signed.release.entries));
        }
        let of_base = base.map_or((&[][..], &[][..]), |base| (&base.entries[..], &base.bundle.frames[..]));
        let lists = code_lists(coder, of_base, None, limits)?;
        let entries = lists.entries.clone();
        Ok((
            Waiting::Parts(ManifestParts { rest: self.rest, entries: lists.entries, frames: lists.frames }),
            entries,
        ))
    }
}

impl Waiting {
    fn finish(self, members: &[Member], digests: &[Option<Digest>]) -> Result<Vec<u8>, DeltaError> {
        let known: BTreeMap<Digest, Digest> = (members.iter().zip(digests))
            .filter_map(|(member, digest)| Some((member.object, (*digest)?)))
            .collect();
        match self {
            Self::Whole(manifest) => Ok(manifest),
            Self::Parts(mut parts) => {
                for entry in &mut parts.entries {
                    if let Node::File { sha256, .. } = &mut entry.node
                        && let Some(digest) = known.get(sha256)
                    {
                        *sha256 = *digest;
                    }
                }
                parts.assemble().map_err(|_| DeltaError::Malformed("its manifest does not read"))
            }
        }
    }
}

/// What is being written.
enum Output {
    Memory(Vec<u8>),
    File(tempfile::NamedTempFile, Hasher),
}

/// Takes spans as they come out and makes objects of them.
struct Reading<'a> {
    items: &'a [Item],
    members: &'a [Member],
    literals: [Box<dyn Read + Send>; 2],
    scratch: &'a Path,
    /// The item that is being written, and its first bytes.
    current: Option<(usize, Output, Vec<u8>)>,
    /// The recipe of the archive whose contents come next.
    recipe: Vec<u8>,
    digests: Vec<Option<Digest>>,
    take: &'a mut dyn TakeObjects,
    progress: &'a mut dyn FnMut(u64),
}

impl Reading<'_> {
    /// Objects of no bytes have no item.
    fn empty_objects(&mut self) -> Result<(), DeltaError> {
        for (index, member) in self.members.iter().enumerate() {
            if member.size == 0 && member.opened.is_none() {
                self.object(index, &[])?;
            }
        }
        Ok(())
    }

    fn object(&mut self, member: usize, bytes: &[u8]) -> Result<(), DeltaError> {
        let object = Digest::of(bytes);
        self.digests[member] = Some(object);
        self.take.small(bytes, object)?;
        (self.progress)(bytes.len() as u64);
        Ok(())
    }

    /// An item is complete.
    fn finish(&mut self, item: Item, output: Output) -> Result<(), DeltaError> {
        let member = &self.members[item.member];
        match (item.part, output) {
            (Part::Recipe, Output::Memory(recipe)) => self.recipe = recipe,
            (Part::Contents, Output::Memory(contents)) => {
                let file = opened::close(&std::mem::take(&mut self.recipe), &contents, member.size)?;
                if file.len() as u64 != member.size {
                    return Err(DeltaError::Malformed("an archive has another length than it should"));
                }
                self.object(item.member, &file)?;
            }
            (_, Output::Memory(bytes)) => self.object(item.member, &bytes)?,
            (_, Output::File(file, hasher)) => {
                let object = hasher.finish();
                self.digests[item.member] = Some(object);
                self.take.large(file.path(), object, item.length)?;
                (self.progress)(item.length);
                // Taken away or not, it has served.
                let _ = file.into_temp_path().close();
            }
        }
        Ok(())
    }
}

impl Spans for Reading<'_> {
    type Error = DeltaError;

    fn literal(&mut self, _: Span, words: bool, buffer: &mut [u8]) -> Result<(), DeltaError> {
        self.literals[usize::from(words)].read_exact(buffer).map_err(DeltaError::Stream)
    }

    fn before_copy(&mut self, _: Span, _: &mut [u8]) -> Result<(), DeltaError> {
        Ok(())
    }

    fn done(&mut self, span: Span, buffer: &[u8], images: &mut [Option<NewImage>]) -> Result<(), DeltaError> {
        let item = self.items[span.item];
        let (index, mut output, mut head) = if let Some(current) = self.current.take() {
            current
        } else {
            let in_memory = item.part != Part::Whole || item.length <= SMALL_OBJECT_BYTES;
            let output = if in_memory {
                Output::Memory(Vec::new())
            } else {
                Output::File(tempfile::NamedTempFile::new_in(self.scratch)?, Hasher::default())
            };
            (span.item, output, Vec::new())
        };
        if index != span.item {
            return Err(DeltaError::Malformed("its runs are out of order"));
        }
        match &mut output {
            Output::Memory(bytes) => bytes.extend_from_slice(buffer),
            Output::File(file, hasher) => {
                file.write_all(buffer)?;
                hasher.update(buffer);
            }
        }
        if head.len() < HEAD_BYTES && item.part == Part::Whole {
            let missing = HEAD_BYTES - head.len();
            head.extend_from_slice(&buffer[..missing.min(buffer.len())]);
            if head.len() == HEAD_BYTES {
                images[index] = corrections::new_image(item.start, item.length, &head);
            }
        }
        if span.new + span.length == item.end() {
            self.finish(item, output)
        } else {
            self.current = Some((index, output, head));
            Ok(())
        }
    }
}
