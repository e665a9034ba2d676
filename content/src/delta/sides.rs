//! The two sides of a delta: the objects that differ, end to end in one order that both directions work out.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};

use fs_err as fs;
use mirabelle_manifests::{Digest, Entry, Node};

use super::DeltaError;
use super::image::{HEAD_BYTES, ReadAt};
use super::opened::{self, Opened};
use crate::bundle::similarity;
use crate::held::ReadObjects;

/// An object that only one of the releases has.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) object: Digest,
    pub(super) size: u64,
    /// Where it first stands.
    pub(super) path: String,
    /// Lengths of recipe and contents, if it is an archive that was opened.
    pub(super) opened: Option<(u64, u64)>,
}

/// The objects of `entries` that `wanted` chooses, those that resemble each other side by side.
pub(super) fn members(entries: &[Entry], wanted: impl Fn(Digest) -> bool) -> Vec<Member> {
    let mut found: BTreeMap<Digest, Member> = BTreeMap::new();
    for entry in entries {
        let Node::File { sha256, size, .. } = entry.node else { continue };
        if wanted(sha256) {
            let path = entry.path.as_str().to_owned();
            found.entry(sha256).or_insert(Member { object: sha256, size, path, opened: None });
        }
    }
    let mut members: Vec<Member> = found.into_values().collect();
    members.sort_by_cached_key(|member| similarity(&member.path));
    members
}

/// What a run of bytes of a side is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// An object as it is.
    Whole,
    /// The recipe of an archive.
    Recipe,
    /// The contents of an archive.
    Contents,
}

/// A run of bytes of a side.
#[derive(Clone, Copy, Debug)]
pub(super) struct Item {
    pub(super) start: u64,
    pub(super) length: u64,
    /// Which member it belongs to.
    pub(super) member: usize,
    pub(super) part: Part,
}

impl Item {
    pub(super) fn end(&self) -> u64 {
        self.start + self.length
    }
}

/// The runs of a side, without empty ones.
pub(super) fn items(members: &[Member]) -> Vec<Item> {
    let mut items = Vec::new();
    let mut start = 0;
    for (member, what) in members.iter().enumerate() {
        let parts = match what.opened {
            None => [(Part::Whole, what.size), (Part::Whole, 0)],
            Some((recipe, contents)) => [(Part::Recipe, recipe), (Part::Contents, contents)],
        };
        for (part, length) in parts.into_iter().filter(|(_, length)| *length > 0) {
            items.push(Item { start, length, member, part });
            start += length;
        }
    }
    items
}

/// The item that holds a place.
pub(super) fn item_at(items: &[Item], place: u64) -> Option<(usize, &Item)> {
    let index = items.partition_point(|item| item.end() <= place);
    items.get(index).filter(|item| item.start <= place).map(|item| (index, item))
}

/// A side, written to a file.
#[derive(Debug)]
pub(super) struct Side {
    pub(super) items: Vec<Item>,
    pub(super) length: u64,
    file: fs::File,
}

/// Opens an object that must be there.
pub(super) fn open_object(
    objects: &dyn ReadObjects,
    member: &Member,
) -> Result<io::Take<fs::File>, DeltaError> {
    let object = member.object;
    let file = objects.open(object, member.size).map_err(|source| DeltaError::Base { object, source })?;
    Ok(file.take(member.size))
}

/// Reads an object of at most [`opened::MAX_FILE_BYTES`] that looks like an archive.
pub(super) fn read_archive(
    objects: &dyn ReadObjects,
    member: &Member,
) -> Result<Option<Vec<u8>>, DeltaError> {
    if member.size > opened::MAX_FILE_BYTES {
        return Ok(None);
    }
    let mut source = open_object(objects, member)?;
    let unreadable = |source| DeltaError::Base { object: member.object, source };
    let mut file = vec![0; 4.min(usize::try_from(member.size).unwrap_or(0))];
    source.read_exact(&mut file).map_err(unreadable)?;
    if !opened::is_archive(&file) {
        return Ok(None);
    }
    source.read_to_end(&mut file).map_err(unreadable)?;
    Ok(Some(file))
}

impl Side {
    /// Writes `members` to a file in `scratch`, opening those that `open` names an opened form for; their lengths are
    /// noted in `members`.
    pub(super) fn write(
        members: &mut [Member],
        objects: &dyn ReadObjects,
        scratch: &std::path::Path,
        open: &mut dyn FnMut(&Member) -> Result<Option<Opened>, DeltaError>,
    ) -> Result<Self, DeltaError> {
        let file = tempfile::tempfile_in(scratch)?;
        let mut out = io::BufWriter::with_capacity(1 << 20, file);
        for member in members.iter_mut() {
            if let Some(Opened { recipe, contents }) = open(member)? {
                out.write_all(&recipe)?;
                out.write_all(&contents)?;
                member.opened = Some((recipe.len() as u64, contents.len() as u64));
                continue;
            }
            let copied = io::copy(&mut open_object(objects, member)?, &mut out)?;
            if copied != member.size {
                let source = io::ErrorKind::UnexpectedEof.into();
                return Err(DeltaError::Base { object: member.object, source });
            }
        }
        let file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
        let items = items(members);
        let length = items.last().map_or(0, Item::end);
        Ok(Self { items, length, file: fs::File::from_parts(file, scratch) })
    }

    /// Reads `from..to` into memory.
    pub(super) fn window(&self, from: u64, to: u64) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(to - from).map_err(io::Error::other)?];
        self.read_at(from, &mut bytes)?;
        Ok(bytes)
    }
}

impl ReadAt for Side {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        std::os::unix::fs::FileExt::read_exact_at(self.file.file(), buffer, offset)
    }
}

/// One item of a side, as a file.
pub(super) struct ItemBytes<'a>(pub(super) &'a Side, pub(super) Item);

impl ReadAt for ItemBytes<'_> {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let end = offset.checked_add(buffer.len() as u64).filter(|end| *end <= self.1.length);
        end.ok_or(io::ErrorKind::UnexpectedEof)?;
        self.0.read_at(self.1.start + offset, buffer)
    }
}

/// A run of new bytes that is copied from one old item, or new; it lies in one new item, on one side of its head's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    /// Where it begins among the new bytes.
    pub(super) new: u64,
    /// How long it is.
    pub(super) length: u64,
    /// Where among the old bytes it is copied from.
    pub(super) old: Option<u64>,
    /// The new item it lies in.
    pub(super) item: usize,
    /// True past the head of its item.
    pub(super) body: bool,
}

/// The longest span.
pub(super) const SPAN_BYTES: u64 = 64 << 10;

/// Cuts the new bytes from `at` on, up to `end`, into spans. `old` is where they are copied from, if they are.
pub(super) fn next_span(
    new: &[Item],
    old_items: &[Item],
    at: u64,
    end: u64,
    old: Option<u64>,
) -> Option<Span> {
    let (index, item) = item_at(new, at).filter(|_| at < end)?;
    let head_end = item.start + HEAD_BYTES as u64;
    let body = at >= head_end;
    let mut limit = end.min(item.end()).min(at + SPAN_BYTES);
    if !body {
        limit = limit.min(head_end);
    }
    let mut length = limit - at;
    if let Some(old) = old {
        let (_, item) = item_at(old_items, old)?;
        length = length.min(item.end() - old);
    }
    Some(Span { new: at, length, old, item: index, body })
}
