//! Making a delta.
//!
//! Both releases' objects that the other lacks are written end to end, archives opened. New bytes are aligned with old
//! ones window by window; images twice: first with their addresses blanked, to see what moved where, then with the old
//! ones' addresses set to what that makes them. What was made is decoded and compared before it is believed.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::ops::Range;
use std::path::Path;

use fs_err as fs;
use mirabelle_manifests::{Digest, Entry, ManifestParts, Node, Release, SignedRelease};

use super::align::{Index, Piece, Taste, align};
use super::coder::Encoder;
use super::container::{self, Header, Window};
use super::corrections::Gaps;
use super::image::{HEAD_BYTES, Image, ReadAt};
use super::manifest::{Limits, Lists, code_lists, stand_in};
use super::opened::{self, Opened, Stream};
use super::pieces::Pieces;
use super::relocate::{NewImage, OldImage, Relocator};
use super::sides::{Item, ItemBytes, Member, Part, Side, Span, item_at, members, read_archive};
use super::stream::{Likeness, compress, scratch_file};
use super::window::{Spans, WindowLayout, code_spans, old_images};
use crate::bundle::similarity;
use crate::held::ReadObjects;

use super::{DeltaError, EncodeError, EncodeOptions, Held, MAX_PIECES, Openings, WINDOW_BYTES, corrections};

/// A release on either side.
struct Parsed<'a> {
    held: Held<'a>,
    release: Release,
    digest: Digest,
}

impl<'a> Parsed<'a> {
    fn new(held: Held<'a>) -> Result<Self, EncodeError> {
        let signed = SignedRelease::parse(held.manifest).map_err(EncodeError::Manifest)?;
        Ok(Self { held, digest: signed.digest, release: signed.release })
    }

    fn objects(&self) -> BTreeSet<Digest> {
        self.release.objects().into_keys().collect()
    }
}

/// Makes the delta; see [`super::encode`].
pub(super) fn encode(
    base: Option<Held<'_>>,
    target: Held<'_>,
    options: EncodeOptions,
    scratch: &Path,
    out: &mut fs::File,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<u64, EncodeError> {
    let target = Parsed::new(target)?;
    let base = base.map(Parsed::new).transpose()?;
    let base_objects = base.as_ref().map(Parsed::objects).unwrap_or_default();
    let target_objects = target.objects();
    let mut new_members = members(&target.release.entries, |object| !base_objects.contains(&object));
    let mut old_members = base.as_ref().map_or_else(Vec::new, |base| {
        members(&base.release.entries, |object| !target_objects.contains(&object))
    });

    // The two sides.
    let nothing = super::Nothing;
    let old_objects = base.as_ref().map_or(&nothing as _, |base| base.held.objects);
    let shared = shared_streams((&old_members, old_objects), (&new_members, target.held.objects))?;
    let differs = |stream: Stream, file: &[u8]| {
        stream.bytes(file).is_none_or(|bytes| !shared.contains(&Digest::of(bytes)))
    };
    let mut any_opened = false;
    let new = Side::write(&mut new_members, target.held.objects, scratch, &mut |member| {
        let Some(file) = read_archive(target.held.objects, member)? else { return Ok(None) };
        let streams = opened::streams_of(&file);
        let opened = opened::open(&file, &streams, true, &mut |stream| differs(stream, &file));
        let opened = opened.filter(|Opened { recipe, contents }| {
            opened::is_bounded(member.size, recipe.len() as u64, contents.len() as u64)
        });
        any_opened |= opened.is_some();
        Ok(opened)
    })?;
    let mut old_choices = Vec::new();
    let old = Side::write(&mut old_members, old_objects, scratch, &mut |member| {
        if !any_opened {
            return Ok(None);
        }
        let Some(file) = read_archive(old_objects, member)? else { return Ok(None) };
        let streams = opened::streams_of(&file);
        Ok(opened::open(&file, &streams, false, &mut |stream| {
            let choice = differs(stream, &file);
            old_choices.push(choice);
            choice
        }))
    })?;

    // The manifest.
    let openings = (&new_members[..], any_opened, &old_choices[..]);
    let coded_manifest = manifest(&target, base.as_ref(), &base_objects, openings)?;

    // The contents, window by window.
    let mut literals = [scratch_file(scratch)?, scratch_file(scratch)?];
    let mut windows = Vec::new();
    let mut coded = Vec::new();
    for (range, old_range) in plan_windows((&new, &new_members), (&old, &old_members)) {
        let (pieces, corrections) =
            encode_window(&new, &old, (&range, &old_range), options, &mut literals, progress)?;
        windows.push(Window {
            new: range.end - range.start,
            old_start: old_range.start,
            old: old_range.end - old_range.start,
            pieces: pieces.len() as u64,
            corrections: corrections.len() as u64,
        });
        coded.extend([pieces, corrections]);
    }
    drop((new, old));
    let [mut text, mut words] = literals;
    let compress = |file: &mut fs::File, likeness| compress(file, likeness, options.effort, scratch);
    let (text, words) = if options.jobs.get() > 1 {
        std::thread::scope(|scope| {
            let text = scope.spawn(|| compress(&mut text, Likeness::Text));
            let words = compress(&mut words, Likeness::Words);
            (text.join().unwrap_or_else(|_| Err(io::Error::other("a compressing thread panicked"))), words)
        })
    } else {
        (compress(&mut text, Likeness::Text), compress(&mut words, Likeness::Words))
    };
    let ((text, text_file), (words, words_file)) = (text?, words?);

    let header = Header {
        base: base.as_ref().map(|base| container::short(base.digest)),
        whole_manifest: coded_manifest.whole,
        rest: coded_manifest.rest.len() as u64,
        lists: coded_manifest.lists.len() as u64,
        literals: [text, words],
        windows,
    };
    let mut parts: Vec<Box<dyn io::Read>> =
        vec![Box::new(&coded_manifest.rest[..]), Box::new(&coded_manifest.lists[..])];
    parts.push(Box::new(text_file));
    parts.push(Box::new(words_file));
    parts.extend(coded.iter().map(|bytes| Box::new(&bytes[..]) as Box<dyn io::Read>));
    let length = container::write(out, &header, parts)?;
    out.flush()?;
    Ok(length)
}

/// The deflate streams that archives of both sides have.
fn shared_streams(
    old: (&[Member], &dyn ReadObjects),
    new: (&[Member], &dyn ReadObjects),
) -> Result<BTreeSet<Digest>, DeltaError> {
    let streams = |(members, objects): (&[Member], &dyn ReadObjects)| {
        let mut found = BTreeSet::new();
        for member in members {
            let Some(file) = read_archive(objects, member)? else { continue };
            let streams = opened::streams_of(&file);
            found.extend(streams.iter().filter_map(|stream| stream.bytes(&file)).map(Digest::of));
        }
        Ok::<_, DeltaError>(found)
    };
    let old = streams(old)?;
    if old.is_empty() {
        return Ok(old);
    }
    Ok(streams(new)?.intersection(&old).copied().collect())
}

/// A manifest in the delta.
struct CodedManifest {
    /// True: `rest` is the whole, and there are no lists.
    whole: bool,
    rest: Vec<u8>,
    /// Coded: the lists, and which archives are open.
    lists: Vec<u8>,
}

/// Codes the manifest.
fn manifest(
    target: &Parsed<'_>,
    base: Option<&Parsed<'_>>,
    base_objects: &BTreeSet<Digest>,
    (new_members, any_opened, old_choices): (&[Member], bool, &[bool]),
) -> Result<CodedManifest, EncodeError> {
    let base_parts = base.and_then(|base| ManifestParts::of(base.held.manifest));
    let parts = ManifestParts::of(target.held.manifest).filter(|_| base.is_none() || base_parts.is_some());
    let mut coder = Encoder::new();
    let rest = match &parts {
        Some(parts) => {
            let lists = with_stand_ins(parts, base_objects);
            let limits = Limits {
                manifest: target.held.manifest.len() as u64,
                installed: target.release.installed_size(),
            };
            let of_base = base.map_or((&[][..], &[][..]), |base| {
                (&base.release.entries[..], &base.release.bundle.frames[..])
            });
            code_lists(&mut coder, of_base, Some(&lists), limits).map_err(EncodeError::Wrong)?;
            (false, &parts.rest[..])
        }
        None => (true, target.held.manifest),
    };
    let dictionary = match (&base_parts, base) {
        (Some(parts), _) if !rest.0 => &parts.rest[..],
        (_, Some(base)) => base.held.manifest,
        _ => &[],
    };
    let mut openings = Openings::new();
    for member in new_members {
        openings.code(&mut coder, member.opened);
    }
    Openings::any(&mut coder, any_opened);
    for choice in old_choices {
        openings.choice(&mut coder, *choice);
    }
    let compressed = zstd::bulk::Compressor::with_dictionary(19, dictionary)?.compress(rest.1)?;
    Ok(CodedManifest { whole: rest.0, rest: compressed, lists: coder.finish() })
}

/// A manifest's lists with a stand-in for each object that the base lacks, numbered as they come.
fn with_stand_ins(parts: &ManifestParts, base_objects: &BTreeSet<Digest>) -> Lists {
    let mut numbers: BTreeMap<Digest, usize> = BTreeMap::new();
    let mut new_objects = Vec::new();
    let mut entries: Vec<Entry> = parts.entries.clone();
    for entry in &mut entries {
        let Node::File { sha256, size, .. } = &mut entry.node else { continue };
        if base_objects.contains(sha256) {
            continue;
        }
        let number = *numbers.entry(*sha256).or_insert_with(|| {
            new_objects.push(*size);
            new_objects.len() - 1
        });
        *sha256 = stand_in(number);
    }
    Lists { entries, frames: parts.frames.clone(), new_objects }
}

/// Which new bytes are coded together, and which old ones they are looked for in.
fn plan_windows(
    (new, new_members): (&Side, &[Member]),
    (old, old_members): (&Side, &[Member]),
) -> Vec<(Range<u64>, Range<u64>)> {
    let mut windows = Vec::new();
    let mut start = 0;
    while start < new.length {
        // Whole items, unless one alone is too large.
        let limit = (start + WINDOW_BYTES).min(new.length);
        let whole = new.items.iter().map(Item::end).take_while(|end| *end <= limit).last();
        let end = whole.filter(|end| *end > start).unwrap_or(limit);
        let old_range = if old.length <= WINDOW_BYTES {
            0..old.length
        } else {
            // Both sides are in the same order: old bytes are taken around those that sort alike.
            let key = |place: u64| {
                item_at(&new.items, place).map(|(_, item)| similarity(&new_members[item.member].path))
            };
            let sorts_below = |key: &Option<_>| {
                let after =
                    old.items.partition_point(|item| Some(similarity(&old_members[item.member].path)) < *key);
                old.items.get(after).map_or(old.length, |item| item.start)
            };
            let first = item_at(&new.items, start).map_or(start, |(_, item)| item.start);
            let from = sorts_below(&key(start)) + (start - first);
            let to = sorts_below(&key(end - 1))
                + (end - 1 - item_at(&new.items, end - 1).map_or(0, |(_, i)| i.start));
            let middle = u64::midpoint(from, to.max(from));
            let from = middle.saturating_sub(WINDOW_BYTES / 2).min(old.length - WINDOW_BYTES);
            from..from + WINDOW_BYTES
        };
        windows.push((start..end, old_range));
        start = end;
    }
    windows
}

/// Codes a window: its pieces and its corrections. New bytes go to `literals`.
fn encode_window(
    new: &Side,
    old: &Side,
    (range, old_range): (&Range<u64>, &Range<u64>),
    options: EncodeOptions,
    literals: &mut [fs::File; 2],
    progress: &(dyn Fn(u64) + Sync),
) -> Result<(Vec<u8>, Vec<u8>), EncodeError> {
    let mut images = Vec::new();
    for item in &new.items {
        images.push(new_image(new, *item)?);
    }
    let old_images = old_images(old, old_range)?;
    let follow = options.effort > 1;
    let pieces = find_pieces(new, old, (range, old_range), (&images, &old_images), follow)?;

    let mut coder = Encoder::new();
    let mut model = Pieces::new();
    let shift =
        |piece: &Piece| Piece { old: piece.old - old_range.start, new: piece.new - range.start, ..*piece };
    for piece in pieces.iter().map(|piece| Some(shift(piece))).chain([None]) {
        model.code(&mut coder, piece, range.end - range.start);
    }
    let coded_pieces = coder.finish();

    let layout = WindowLayout { old, new_items: &new.items, new: range.clone(), old_images, pieces };
    let mut gaps = Gaps::default();
    let (mut old_bytes, mut new_bytes) = (Vec::new(), Vec::new());
    for span in layout.spans() {
        let Some(at) = span.old else { continue };
        let length = usize::try_from(span.length).unwrap_or(0);
        old_bytes.resize(length, 0);
        new_bytes.resize(length, 0);
        old.read_at(at, &mut old_bytes)?;
        new.read_at(span.new, &mut new_bytes)?;
        gaps.look(layout.run(span, at, &old_bytes, &images), &new_bytes);
    }
    let mut coder = Encoder::new();
    let [text, words] = literals;
    let mut writing =
        Writing { new, text: io::BufWriter::new(text), words: io::BufWriter::new(words), progress };
    code_spans(&mut coder, &layout, &mut images, &mut gaps.finish(), &mut writing)?;
    writing.text.flush()?;
    writing.words.flush()?;
    Ok((coded_pieces, coder.finish()))
}

fn new_image(new: &Side, item: Item) -> io::Result<Option<NewImage>> {
    if item.part != Part::Whole || item.length < HEAD_BYTES as u64 {
        return Ok(None);
    }
    let head = new.window(item.start, item.start + HEAD_BYTES as u64)?;
    Ok(corrections::new_image(item.start, item.length, &head))
}

/// Hands out the new bytes as they are coded.
struct Writing<'a> {
    new: &'a Side,
    text: io::BufWriter<&'a mut fs::File>,
    words: io::BufWriter<&'a mut fs::File>,
    progress: &'a (dyn Fn(u64) + Sync),
}

impl Spans for Writing<'_> {
    type Error = io::Error;

    fn literal(&mut self, span: Span, words: bool, buffer: &mut [u8]) -> io::Result<()> {
        self.new.read_at(span.new, buffer)?;
        if words { self.words.write_all(buffer) } else { self.text.write_all(buffer) }
    }

    fn before_copy(&mut self, span: Span, buffer: &mut [u8]) -> io::Result<()> {
        self.new.read_at(span.new, buffer)
    }

    fn done(&mut self, span: Span, _: &[u8], _: &mut [Option<NewImage>]) -> io::Result<()> {
        (self.progress)(span.length);
        Ok(())
    }
}

/// Aligns a window. Pieces are counted from the start of both sides. To `follow` addresses doubles the work on
/// executables.
fn find_pieces(
    new: &Side,
    old: &Side,
    (range, old_range): (&Range<u64>, &Range<u64>),
    (new_images, old_images): (&[Option<NewImage>], &[OldImage]),
    follow: bool,
) -> Result<Vec<Piece>, EncodeError> {
    if old_range.is_empty() {
        return Ok(Vec::new());
    }
    let mut reference = old.window(old_range.start, old_range.end)?;
    let in_window = |image: &&NewImage| image.start >= range.start && image.start + image.length <= range.end;
    let new_images: Vec<&NewImage> = new_images.iter().flatten().filter(in_window).collect();
    if follow && !new_images.is_empty() && !old_images.is_empty() {
        let moved = align_images(new, old, &new_images, old_images)?;
        readdress(&mut reference, old_range, old_images, &new_images, &moved);
    }
    let index = Index::new(&reference);
    let sections = sections(new, range, &new_images)?;
    let mut pieces = align(&index, &new.window(range.start, range.end)?, sections);
    for piece in &mut pieces {
        piece.old += old_range.start;
        piece.new += range.start;
    }
    pieces.truncate(MAX_PIECES);
    Ok(pieces)
}

/// The items of a window, each with the taste of its kind.
fn sections(new: &Side, range: &Range<u64>, images: &[&NewImage]) -> io::Result<Vec<(Range<usize>, Taste)>> {
    let mut sections: Vec<(Range<usize>, Taste)> = Vec::new();
    let within = |place: u64| usize::try_from(place.clamp(range.start, range.end) - range.start).unwrap_or(0);
    for item in new.items.iter().filter(|item| item.start < range.end && item.end() > range.start) {
        let is_image = images.binary_search_by_key(&item.start, |image| image.start).is_ok();
        let taste = if is_image {
            Taste::CODE
        } else if looks_like_text(new, item)? {
            Taste::TEXT
        } else {
            Taste::DATA
        };
        let section = within(item.start)..within(item.end());
        match sections.last_mut() {
            Some((last, same)) if *same == taste => last.end = section.end,
            _ => sections.push((section, taste)),
        }
    }
    Ok(sections)
}

/// True when the middle of an item has no zero bytes, as text has none.
fn looks_like_text(new: &Side, item: &Item) -> io::Result<bool> {
    let middle = u64::midpoint(item.start, item.end());
    let sample = new.window(middle, item.end().min(middle + 4096))?;
    Ok(!sample.contains(&0))
}

/// Aligns images with each other, their addresses blanked: what moved where.
fn align_images(
    new: &Side,
    old: &Side,
    new_images: &[&NewImage],
    old_images: &[OldImage],
) -> Result<Vec<Piece>, EncodeError> {
    let mut old_bytes = Vec::new();
    for image in old_images {
        append_blanked(&mut old_bytes, old, image.start, image.length, &image.image)?;
    }
    let mut new_bytes = Vec::new();
    for image in new_images {
        let item = Item { start: image.start, length: image.length, member: 0, part: Part::Whole };
        if let Some(parsed) = Image::parse(&ItemBytes(new, item), image.length)? {
            append_blanked(&mut new_bytes, new, image.start, image.length, &parsed)?;
        }
    }
    let old_sides: Vec<_> = old_images.iter().map(|image| (image.start, image.length)).collect();
    let new_sides: Vec<_> = new_images.iter().map(|image| (image.start, image.length)).collect();
    let index = Index::new(&old_bytes);
    let mut pieces = Vec::new();
    for piece in align(&index, &new_bytes, [(0..new_bytes.len(), Taste::CODE)]) {
        split(piece, &old_sides, &new_sides, &mut pieces);
    }
    Ok(pieces)
}

/// Appends an image without the relative operands of its code.
fn append_blanked(
    bytes: &mut Vec<u8>,
    side: &Side,
    start: u64,
    length: u64,
    image: &Image,
) -> io::Result<()> {
    let from = bytes.len();
    bytes.append(&mut side.window(start, start + length)?);
    for (offset, kind) in image.fields(0, length) {
        if kind.class() == 0 {
            let at = from + usize::try_from(offset).unwrap_or(0);
            bytes[at..at + kind.width()].fill(0);
        }
    }
    Ok(())
}

/// A piece of bytes that stand end to end, cut where they do not on their sides. Sides are (start, length) of images.
fn split(piece: Piece, old: &[(u64, u64)], new: &[(u64, u64)], pieces: &mut Vec<Piece>) {
    // Where a place within the joined bytes is on its side, and how far its image goes on.
    fn find(mut place: u64, images: &[(u64, u64)]) -> Option<(u64, u64)> {
        for (start, length) in images {
            if place < *length {
                return Some((start + place, length - place));
            }
            place -= length;
        }
        None
    }
    let mut done = 0;
    while done < piece.length {
        let Some((old, old_left)) = find(piece.old + done, old) else { return };
        let Some((new, new_left)) = find(piece.new + done, new) else { return };
        let length = (piece.length - done).min(old_left).min(new_left);
        pieces.push(Piece { old, new, length });
        done += length;
    }
}

/// Gives the fields of old images the values that they would have in their new places.
fn readdress(
    reference: &mut [u8],
    window: &Range<u64>,
    old_images: &[OldImage],
    new_images: &[&NewImage],
    moved: &[Piece],
) {
    let relocator = Relocator::new(moved);
    let mut by_old: Vec<Piece> = moved.to_vec();
    by_old.sort_by_key(|piece| (piece.old, piece.new));
    for old in old_images {
        let mut next = by_old.partition_point(|piece| piece.old + piece.length <= old.start);
        for (offset, kind) in old.image.fields(0, old.length) {
            let place = old.start + offset;
            while by_old.get(next).is_some_and(|piece| piece.old + piece.length <= place) {
                next += 1;
            }
            let Some(piece) = by_old.get(next).filter(|piece| piece.old <= place) else { continue };
            let went = piece.new + (place - piece.old);
            let after = new_images.partition_point(|image| image.start <= went);
            let Some(new) = after.checked_sub(1).map(|index| new_images[index]) else { continue };
            let Ok(at) = usize::try_from(place.wrapping_sub(window.start)) else { continue };
            let Some(bytes) = reference.get_mut(at..at + kind.width()) else { continue };
            let value = bytes.iter().rev().fold(0, |value, byte| (value << 8) | u64::from(*byte));
            let site = Relocator::site(old, new, (offset, kind), went, value);
            if let Some((value, _)) = site.and_then(|site| relocator.predict(old, new, site)) {
                bytes.copy_from_slice(&value.to_le_bytes()[..kind.width()]);
            }
        }
    }
}

impl From<DeltaError> for EncodeError {
    fn from(error: DeltaError) -> Self {
        match error {
            DeltaError::Io(error) | DeltaError::Base { source: error, .. } => Self::Io(error),
            error => Self::Wrong(error),
        }
    }
}
