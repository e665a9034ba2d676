//! Executables: where in a file addresses stand, and what they point to.
//!
//! When a program is built again, most of its code is as it was, but moved: every call, jump and reference over a
//! distance changes although nothing else did. [`Image::parse`] finds the places that hold such addresses, the
//! *fields*, in an x86-64 ELF or PE file: relative operands of instructions (`sweep.rs`), pointers, unwind tables, jump
//! tables (`elf.rs`, `pe.rs`). What each should hold in the new file follows from where its target went.
//!
//! It is a pure function of the old file, run by encoder and decoder alike; the version of the delta format covers it and
//! the disassembler's (pinned) version. A field that is found where none is, or missed, costs bytes, never truth.
//!
//! Threats: old files are what a node holds, new ones come out of a hostile delta. Every number read from either is
//! checked against the file's length; tables are bounded.

mod elf;
mod pe;
mod sweep;

use std::cell::Cell;
use std::io;

/// Where a file's bytes can be read, anywhere in it.
pub(super) trait ReadAt {
    /// Reads exactly `buffer.len()` bytes from `offset` on.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;
}

impl ReadAt for [u8] {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        let bytes = from.checked_add(buffer.len()).and_then(|to| self.get(from..to));
        buffer.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

/// Bytes at the start of a file that hold no fields: those that say where its segments are.
pub(super) const HEAD_BYTES: usize = 4096;
/// The most segments of an image that are looked at.
const MAX_SEGMENTS: usize = 96;
/// How often the bytes of a file are looked at in all; sections that do not overlap need half of it.
const LOOKS: u64 = 4;
/// The longest table that is read into memory whole.
const MAX_TABLE_BYTES: u64 = 64 << 20;

/// A part of the file that is loaded at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    /// Where it stands in the file.
    pub(super) offset: u64,
    /// How many bytes of the file.
    pub(super) length: u64,
    /// The address of its first byte.
    pub(super) address: u64,
    /// Bytes it takes when loaded, at least `length`.
    pub(super) span: u64,
}

/// The segments of an image, sorted by offset.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Segments {
    list: Vec<Segment>,
    /// What absolute pointers count from: zero for ELF, the image base for PE.
    pub(super) base: u64,
}

impl Segments {
    /// Reads the segments from the first bytes of a file; none if it is no image that is understood.
    pub(super) fn of_head(head: &[u8]) -> Option<Self> {
        let mut segments = elf::segments(head).or_else(|| pe::segments(head))?;
        segments.list.retain(|segment| {
            let ends = |from: u64, by: u64| from.checked_add(by).is_some_and(|end| end < 1 << 48);
            segment.length > 0 && ends(segment.offset, segment.length) && ends(segment.address, segment.span)
        });
        segments.list.truncate(MAX_SEGMENTS);
        segments.list.sort_by_key(|segment| segment.offset);
        (!segments.list.is_empty()).then_some(segments)
    }

    /// The address of the byte at `offset`.
    pub(super) fn address(&self, offset: u64) -> Option<u64> {
        let found = self.list.iter().find(|s| offset >= s.offset && offset - s.offset < s.length)?;
        Some(found.address + (offset - found.offset))
    }

    /// Where the byte of an address stands; an address that is loaded from no byte of the file gives its segment's last
    /// byte and the distance from it.
    pub(super) fn offset(&self, address: u64) -> Option<(u64, u64)> {
        let found = self.list.iter().find(|s| address >= s.address && address - s.address < s.span)?;
        let within = address - found.address;
        let last = found.length - 1;
        Some((found.offset + within.min(last), within.saturating_sub(last)))
    }

    fn holds(&self, address: u64) -> bool {
        self.list.iter().any(|s| address >= s.address && address - s.address < s.span)
    }
}

/// What a field holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Four bytes: the distance from the end of an instruction, this many bytes after the field.
    Relative(u8),
    /// Eight bytes: an address, counted from the image's base.
    Pointer,
    /// Four bytes: an address less the image's base.
    Offset,
    /// Four bytes: the distance from the field itself.
    FromHere,
    /// Four bytes: the distance from the start of a table, at this offset in the file.
    FromTable(u32),
}

impl Kind {
    /// Bytes of the field.
    pub(super) fn width(self) -> usize {
        if self == Self::Pointer { 8 } else { 4 }
    }

    /// A small number for contexts.
    pub(super) fn class(self) -> usize {
        match self {
            Self::Relative(_) => 0,
            Self::Pointer => 1,
            Self::Offset => 2,
            Self::FromHere => 3,
            Self::FromTable(_) => 4,
        }
    }
}

/// How many values [`Kind::class`] has.
pub(super) const KIND_CLASSES: usize = 5;

/// Fields stand below this offset: it leaves four bits of a word for their kind.
const MAX_OFFSET: u64 = 1 << 28;
/// How kinds are packed: `FromTable` finds its table by its place.
const PACKED: [Kind; 8] = [
    Kind::Relative(0),
    Kind::Relative(1),
    Kind::Relative(2),
    Kind::Relative(4),
    Kind::Pointer,
    Kind::Offset,
    Kind::FromHere,
    Kind::FromTable(0),
];

/// An executable's segments and fields.
#[derive(Debug)]
pub(super) struct Image {
    /// Its segments.
    pub(super) segments: Segments,
    /// Its fields in order, none overlapping the next: offset << 4 | kind. A browser has twenty million.
    fields: Vec<u32>,
    /// Where the tables begin that `FromTable` counts from.
    tables: Vec<u32>,
}

/// Collects fields while an image is parsed, packed.
#[derive(Debug, Default)]
struct Fields {
    packed: Vec<u32>,
    tables: Vec<u32>,
}

impl Fields {
    fn add(&mut self, offset: u64, kind: Kind) {
        let number = PACKED.iter().position(|packed| *packed == kind);
        if let (Some(number), true) = (number, offset < MAX_OFFSET) {
            self.packed.push(u32::try_from(offset << 4).unwrap_or(0) | u32::try_from(number).unwrap_or(0));
        }
    }

    /// A table whose entries count from its start at `offset`.
    fn add_table(&mut self, offset: u64, entries: impl Iterator<Item = u64>) {
        if let Ok(start) = u32::try_from(offset) {
            self.tables.push(start);
            entries.for_each(|entry| self.add(entry, Kind::FromTable(0)));
        }
    }
}

impl Image {
    /// Parses the image that `file`, of `length` bytes, is; none if it is none that is understood.
    ///
    /// # Errors
    /// Those of reading the file.
    pub(super) fn parse<F: ReadAt + ?Sized>(file: &F, length: u64) -> io::Result<Option<Self>> {
        let mut head = vec![0; HEAD_BYTES.min(usize::try_from(length).unwrap_or(HEAD_BYTES))];
        file.read_at(0, &mut head)?;
        let Some(segments) = Segments::of_head(&head) else { return Ok(None) };
        let mut fields = Fields::default();
        let source = Source {
            file: &|offset, buffer: &mut [u8]| file.read_at(offset, buffer),
            length,
            segments: &segments,
            left: Cell::new(length.saturating_mul(LOOKS)),
        };
        if head.starts_with(elf::MAGIC) {
            elf::find(&source, &head, &mut fields)?;
        } else {
            pe::find(&source, &head, &mut fields)?;
        }
        let Fields { mut packed, mut tables } = fields;
        packed.sort_unstable();
        tables.sort_unstable();
        let mut end = HEAD_BYTES as u64;
        packed.retain(|field| {
            let (offset, kind) = unpack(*field, &[]);
            let keep = offset >= end && offset + kind.width() as u64 <= length;
            if keep {
                end = offset + kind.width() as u64;
            }
            keep
        });
        Ok(Some(Self { fields: packed, tables, segments }))
    }

    /// The fields that begin in `from..to`, in order.
    pub(super) fn fields(&self, from: u64, to: u64) -> impl Iterator<Item = (u64, Kind)> {
        let first = self.fields.partition_point(|field| u64::from(*field >> 4) < from);
        let rest = self.fields[first..].iter().take_while(move |field| u64::from(**field >> 4) < to);
        rest.map(|field| unpack(*field, &self.tables))
    }
}

fn unpack(field: u32, tables: &[u32]) -> (u64, Kind) {
    let offset = field >> 4;
    let kind = match PACKED[(field & 7) as usize] {
        Kind::FromTable(_) => {
            let after = tables.partition_point(|table| *table <= offset);
            Kind::FromTable(after.checked_sub(1).map_or(0, |index| tables[index]))
        }
        kind => kind,
    };
    (u64::from(offset), kind)
}

/// What the parts of the parser look at.
struct Source<'a> {
    file: &'a dyn Fn(u64, &mut [u8]) -> io::Result<()>,
    length: u64,
    segments: &'a Segments,
    /// Bytes that may still be looked at: a file whose thousand sections are all the same bytes is looked at no longer
    /// than others.
    left: Cell<u64>,
}

impl Source<'_> {
    /// True when this many bytes may still be looked at; they are then taken to be.
    fn spend(&self, bytes: u64) -> bool {
        let left = self.left.get().checked_sub(bytes);
        left.inspect(|left| self.left.set(*left)).is_some()
    }

    /// A table of the file; nothing if it is not all there, or too long.
    fn table(&self, offset: u64, length: u64) -> io::Result<Vec<u8>> {
        let inside = offset.checked_add(length).is_some_and(|end| end <= self.length);
        if !inside || length > MAX_TABLE_BYTES || !self.spend(length) {
            return Ok(Vec::new());
        }
        let mut table = vec![0; usize::try_from(length).unwrap_or(0)];
        (self.file)(offset, &mut table)?;
        Ok(table)
    }
}

/// A number of `table` at `offset`, little-endian; zero past its end.
fn number(table: &[u8], offset: usize, bytes: usize) -> u64 {
    let Some(field) = offset.checked_add(bytes).and_then(|end| table.get(offset..end)) else { return 0 };
    field.iter().rev().fold(0, |number, byte| (number << 8) | u64::from(*byte))
}

fn u16_at(table: &[u8], offset: usize) -> u64 {
    number(table, offset, 2)
}

fn u32_at(table: &[u8], offset: usize) -> u64 {
    number(table, offset, 4)
}

fn u64_at(table: &[u8], offset: usize) -> u64 {
    number(table, offset, 8)
}

/// A four-byte number with its sign.
fn i32_at(table: &[u8], offset: usize) -> i64 {
    i64::from(u32::try_from(u32_at(table, offset)).unwrap_or(0).cast_signed())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(file: &mut [u8], at: usize, numbers: &[(u64, usize)]) {
        let bytes = numbers.iter().flat_map(|(number, width)| number.to_le_bytes().into_iter().take(*width));
        file[at..].iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
    }

    /// An ELF file whose sections, of every kind that is looked into, are the same thousand bytes.
    fn elf() -> Vec<u8> {
        let mut file = vec![0; HEAD_BYTES + 1024 + 8 * 64 + 64];
        file[..6].copy_from_slice(b"\x7fELF\x02\x01");
        let (start, sections) = (HEAD_BYTES as u64, HEAD_BYTES as u64 + 1024);
        put(&mut file, 18, &[(62, 2)]);
        put(&mut file, 32, &[(64, 8), (sections, 8)]);
        put(&mut file, 54, &[(56, 2), (1, 2), (64, 2), (8, 2), (0, 2)]);
        put(&mut file, 64, &[(1, 4), (7, 4), (0, 8), (0x10_0000, 8), (0, 8), (sections, 8), (sections, 8)]);
        for (index, (kind, flags)) in
            [(1, 6), (2, 0), (4, 2), (6, 3), (11, 2), (14, 3), (1, 3), (1, 2)].into_iter().enumerate()
        {
            let at = HEAD_BYTES + 1024 + index * 64;
            put(
                &mut file,
                at,
                &[(0, 4), (kind, 4), (flags, 8), (0x10_0000 + start, 8), (start, 8), (1024, 8)],
            );
        }
        for at in (0..1024).step_by(8) {
            put(&mut file, HEAD_BYTES + at, &[(0xe8, 1), (at as u64 / 3, 4), (0x90_9090, 3)]);
        }
        file
    }

    fn pe() -> Vec<u8> {
        let mut file = elf();
        file[..1024].fill(0);
        file[..2].copy_from_slice(b"MZ");
        put(&mut file, 0x3c, &[(128, 4)]);
        put(&mut file, 128, &[(0x4550, 4), (0x8664, 2), (3, 2)]);
        put(&mut file, 128 + 20, &[(240, 2), (0, 2), (0x20b, 2)]);
        put(&mut file, 152 + 112 + 3 * 8, &[(4096, 4), (1024, 4), (0, 8), (4096, 4), (1024, 4)]);
        for (index, flags) in [0x6000_0020_u64, 0x4000_0040, 0xc000_0040].into_iter().enumerate() {
            let header = 152 + 240 + index * 40;
            put(&mut file, header + 8, &[(1024, 4), (4096, 4), (1024, 4), (4096, 4)]);
            put(&mut file, header + 36, &[(flags, 4)]);
        }
        file
    }

    /// Every field lies within the file, past its head, and none overlaps the next.
    fn check(file: &[u8]) -> usize {
        let Some(image) = Image::parse(file, file.len() as u64).unwrap() else { return 0 };
        let mut end = HEAD_BYTES as u64;
        for (offset, kind) in image.fields(0, u64::MAX) {
            assert!(offset >= end);
            end = offset + kind.width() as u64;
            assert!(end <= file.len() as u64);
        }
        image.fields.len()
    }

    #[test]
    fn whatever_a_header_says_is_survived() {
        for file in [elf(), pe()] {
            assert!(check(&file) > 50);
            // All that says where something is, and what else it might say.
            let numbers = (0..1024).step_by(2).chain(HEAD_BYTES + 1024..file.len() - 8);
            for at in numbers {
                for (number, width) in [
                    (0, 1),
                    (0xff, 1),
                    (0, 4),
                    (0x7fff_ffff, 4),
                    (0xffff_ffff, 4),
                    (u64::MAX, 8),
                    (u64::MAX - 7, 8),
                    ((1 << 48) - 1, 8),
                    (i64::MAX as u64, 8),
                    (file.len() as u64 - 1, 8),
                ] {
                    let mut changed = file.clone();
                    put(&mut changed, at, &[(number, width)]);
                    check(&changed);
                }
            }
            for length in (0..file.len()).step_by(7) {
                check(&file[..length]);
            }
        }
    }

    /// A file that counts what is read of it.
    struct Counting<'a>(&'a [u8], &'a Cell<u64>);
    impl ReadAt for Counting<'_> {
        fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
            self.1.set(self.1.get() + buffer.len() as u64);
            self.0.read_at(offset, buffer)
        }
    }

    #[test]
    fn a_file_of_many_sections_is_looked_at_for_no_longer() {
        // 4096 sections of code, all of them the same megabyte.
        let mut file = elf();
        let sections = file.len();
        file.resize(sections + 4096 * 64, 0);
        let code = file.len() as u64;
        file.resize(file.len() + (1 << 20), 0x90);
        put(&mut file, 40, &[(sections as u64, 8)]);
        put(&mut file, 60, &[(4096, 2)]);
        for index in 0..4096 {
            put(
                &mut file,
                sections + index * 64,
                &[(0, 4), (1, 4), (6, 8), (0x20_0000, 8), (code, 8), (1 << 20, 8)],
            );
        }
        let read = Cell::new(0);
        Image::parse(&Counting(&file, &read), file.len() as u64).unwrap();
        assert!(read.get() <= (LOOKS + 1) * file.len() as u64);
    }
}
