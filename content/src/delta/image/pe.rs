//! Fields of a PE file for x86-64 (Microsoft's PE format specification).

use std::collections::BTreeSet;
use std::io;

use super::{Fields, Kind, Segment, Segments, Source, sweep, u16_at, u32_at, u64_at};

const AMD64: u64 = 0x8664;
const PE32_PLUS: u64 = 0x20b;
const SECTION_BYTES: usize = 40;
const EXECUTABLE: u64 = 0x2000_0000;
const WRITABLE: u64 = 0x8000_0000;
/// Entries of the data directory.
const EXCEPTIONS: usize = 3;
const RELOCATIONS: usize = 5;
/// `IMAGE_REL_BASED_DIR64`
const DIR64: u64 = 10;

/// Where the optional header and the section table begin.
fn headers(head: &[u8]) -> Option<(usize, usize, usize)> {
    if !head.starts_with(b"MZ") {
        return None;
    }
    let at = usize::try_from(u32_at(head, 0x3c)).ok()?;
    if head.get(at..at.checked_add(4)?)? != b"PE\0\0" || u16_at(head, at + 4) != AMD64 {
        return None;
    }
    let optional = at + 24;
    let size = usize::try_from(u16_at(head, at + 20)).ok()?;
    let count = usize::try_from(u16_at(head, at + 6)).ok()?;
    (u16_at(head, optional) == PE32_PLUS).then_some((optional, optional + size, count))
}

pub(super) fn segments(head: &[u8]) -> Option<Segments> {
    let (optional, table, count) = headers(head)?;
    let section = |index: usize| head.get(table + index * SECTION_BYTES..table + (index + 1) * SECTION_BYTES);
    let list = (0..count).map_while(section).map(|section| {
        let (span, length) = (u32_at(section, 8), u32_at(section, 16));
        // Past what is loaded, the file is filled up to its alignment.
        let length = if span == 0 { length } else { length.min(span) };
        Segment { offset: u32_at(section, 20), length, address: u32_at(section, 12), span: span.max(length) }
    });
    Some(Segments { list: list.collect(), base: u64_at(head, optional + 24) })
}

pub(super) fn find(source: &Source<'_>, head: &[u8], fields: &mut Fields) -> io::Result<()> {
    let Some((optional, table, count)) = headers(head) else { return Ok(()) };
    let directory = |entry: usize| {
        let at = optional + 112 + entry * 8;
        let (address, length) = (u32_at(head, at), u32_at(head, at + 4));
        source.segments.offset(address).filter(|(_, past)| *past == 0).map(|(offset, _)| (offset, length))
    };
    if let Some((offset, length)) = directory(RELOCATIONS) {
        relocations(source, &source.table(offset, length)?, fields);
    }
    if let Some((offset, length)) = directory(EXCEPTIONS) {
        // RUNTIME_FUNCTION: begin, end, unwind information.
        for at in 0..length.min(source.length.saturating_sub(offset)) / 4 {
            fields.add(offset + at * 4, Kind::Offset);
        }
    }
    let mut loaded = BTreeSet::new();
    let mut code = (u64::MAX, 0);
    let sections = || {
        (0..count)
            .map_while(|index| head.get(table + index * SECTION_BYTES..table + (index + 1) * SECTION_BYTES))
            .map(|section| {
                (
                    u32_at(section, 36),
                    u32_at(section, 20),
                    u32_at(section, 12),
                    u32_at(section, 16).min(u32_at(section, 8)),
                )
            })
    };
    for (_, offset, address, length) in sections().filter(|(flags, ..)| flags & EXECUTABLE != 0) {
        code = (code.0.min(address), code.1.max(address + length));
        loaded.append(&mut sweep::sweep(source, offset, length, address, fields)?);
    }
    for (_, offset, _, length) in sections().filter(|(flags, ..)| flags & (EXECUTABLE | WRITABLE) == 0) {
        sweep::jump_tables(source, (offset, length), code, &loaded, fields)?;
    }
    Ok(())
}

/// Base relocations, page by page: each names a word that holds an absolute address.
fn relocations(source: &Source<'_>, table: &[u8], fields: &mut Fields) {
    let mut at = 0_usize;
    while at + 8 <= table.len() {
        let (page, length) = (u32_at(table, at), usize::try_from(u32_at(table, at + 4)).unwrap_or(0));
        if length < 8 {
            return;
        }
        for entry in (at + 8..at.saturating_add(length).min(table.len())).step_by(2) {
            let entry = u16_at(table, entry);
            if entry >> 12 == DIR64
                && let Some((offset, 0)) = source.segments.offset(page + (entry & 0xfff))
            {
                fields.add(offset, Kind::Pointer);
            }
        }
        at = at.saturating_add(length);
    }
}
