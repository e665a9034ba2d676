//! Fields of an ELF file for x86-64 (System V ABI, AMD64 supplement; gABI chapters 4 and 5).

use std::collections::BTreeSet;
use std::io;

use super::{Fields, Kind, Segment, Segments, Source, i32_at, sweep, u16_at, u32_at, u64_at};

pub(super) const MAGIC: &[u8] = b"\x7fELF";
const X86_64: u64 = 62;
const LOAD: u64 = 1;
const MAX_SECTIONS: u64 = 4096;

const SHT_PROGBITS: u64 = 1;
const SHT_SYMTAB: u64 = 2;
const SHT_RELA: u64 = 4;
const SHT_DYNAMIC: u64 = 6;
const SHT_DYNSYM: u64 = 11;
const SHT_INIT_ARRAY: u64 = 14;
const SHT_FINI_ARRAY: u64 = 15;
const SHF_WRITE: u64 = 1;
const SHF_EXEC: u64 = 4;
const R_X86_64_RELATIVE: u64 = 8;

/// The program headers that load something.
pub(super) fn segments(head: &[u8]) -> Option<Segments> {
    // 64-bit, little-endian.
    if !head.starts_with(MAGIC) || head.get(4..6)? != [2, 1] || u16_at(head, 18) != X86_64 {
        return None;
    }
    let (table, size, count) = (u64_at(head, 32), u16_at(head, 54), u16_at(head, 56));
    let mut list = Vec::new();
    for index in 0..count {
        let at = usize::try_from(index.checked_mul(size)?.checked_add(table)?).ok()?;
        let header = head.get(at..at.checked_add(56)?)?;
        if u32_at(header, 0) == LOAD {
            let length = u64_at(header, 32);
            list.push(Segment {
                offset: u64_at(header, 8),
                length,
                address: u64_at(header, 16),
                span: u64_at(header, 40).max(length),
            });
        }
    }
    Some(Segments { list, base: 0 })
}

#[derive(Clone, Debug)]
struct Section {
    name: String,
    kind: u64,
    flags: u64,
    address: u64,
    offset: u64,
    length: u64,
}

fn sections(source: &Source<'_>, head: &[u8]) -> io::Result<Vec<Section>> {
    let (table, size, count, names) =
        (u64_at(head, 40), u16_at(head, 58), u16_at(head, 60).min(MAX_SECTIONS), u16_at(head, 62));
    if size != 64 {
        return Ok(Vec::new());
    }
    let headers = source.table(table, size * count)?;
    let names = headers.chunks_exact(64).nth(usize::try_from(names).unwrap_or(usize::MAX));
    let names = match names {
        Some(header) => source.table(u64_at(header, 24), u64_at(header, 32))?,
        None => Vec::new(),
    };
    let name = |at: u64| {
        let rest = names.get(usize::try_from(at).unwrap_or(usize::MAX)..).unwrap_or_default();
        let name = rest[..rest.len().min(64)].split(|byte| *byte == 0).next().unwrap_or_default();
        String::from_utf8_lossy(name).into_owned()
    };
    Ok(headers
        .chunks_exact(64)
        .map(|header| Section {
            name: name(u32_at(header, 0)),
            kind: u32_at(header, 4),
            flags: u64_at(header, 8),
            address: u64_at(header, 16),
            offset: u64_at(header, 24),
            length: u64_at(header, 32),
        })
        .collect())
}

pub(super) fn find(source: &Source<'_>, head: &[u8], fields: &mut Fields) -> io::Result<()> {
    let sections = sections(source, head)?;
    let mut loaded = BTreeSet::new();
    let mut code = (u64::MAX, 0);
    for section in sections.iter().filter(|section| section.flags & SHF_EXEC != 0) {
        code = (code.0.min(section.address), code.1.max(section.address.saturating_add(section.length)));
        loaded.append(&mut sweep::sweep(source, section.offset, section.length, section.address, fields)?);
    }
    for section in &sections {
        let Section { offset, length, .. } = *section;
        match (section.kind, section.name.as_str()) {
            (SHT_RELA, _) => relocations(&source.table(offset, length)?, offset, fields),
            (SHT_SYMTAB | SHT_DYNSYM, _) => symbols(source, &source.table(offset, length)?, offset, fields),
            (SHT_DYNAMIC | SHT_INIT_ARRAY | SHT_FINI_ARRAY, _) => {
                pointers(source, &source.table(offset, length)?, offset, fields);
            }
            (_, ".eh_frame") => frames(source, &source.table(offset, length)?, offset, fields),
            (_, ".eh_frame_hdr") => frame_index(&source.table(offset, length)?, offset, fields),
            (SHT_PROGBITS, _) if section.flags & SHF_WRITE != 0 => {
                pointers(source, &source.table(offset, length)?, offset, fields);
            }
            (SHT_PROGBITS, _) if section.flags & SHF_EXEC == 0 && section.address != 0 => {
                sweep::jump_tables(source, (offset, length), code, &loaded, fields)?;
            }
            _ => {}
        }
    }
    Ok(())
}

/// The entries of a table of the file, each with its offset in it.
fn rows(table: &[u8], offset: u64, bytes: usize) -> impl Iterator<Item = (u64, &[u8])> {
    table.chunks_exact(bytes).enumerate().map(move |(row, entry)| (offset + (row * bytes) as u64, entry))
}

/// `Elf64_Rela`: where, what, and with which addend; relative ones add to the base.
fn relocations(table: &[u8], offset: u64, fields: &mut Fields) {
    for (at, entry) in rows(table, offset, 24) {
        fields.add(at, Kind::Pointer);
        if u32_at(entry, 8) == R_X86_64_RELATIVE {
            fields.add(at + 16, Kind::Pointer);
        }
    }
}

/// `Elf64_Sym`: the values of those that have one.
fn symbols(source: &Source<'_>, table: &[u8], offset: u64, fields: &mut Fields) {
    for (at, entry) in rows(table, offset, 24) {
        if source.segments.holds(u64_at(entry, 8)) && u64_at(entry, 8) != 0 {
            fields.add(at + 8, Kind::Pointer);
        }
    }
}

/// Words that are addresses of the image.
fn pointers(source: &Source<'_>, table: &[u8], offset: u64, fields: &mut Fields) {
    for (at, entry) in rows(table, offset, 8) {
        let address = u64_at(entry, 0);
        if address >= super::HEAD_BYTES as u64 && source.segments.holds(address) {
            fields.add(at, Kind::Pointer);
        }
    }
}

/// Call frame information: the first field of every frame description, relative to itself
/// (`DW_EH_PE_pcrel | DW_EH_PE_sdata4`, as every compiler for x86-64 writes it).
fn frames(source: &Source<'_>, table: &[u8], offset: u64, fields: &mut Fields) {
    let mut at = 0_usize;
    while at + 12 <= table.len() {
        let length = usize::try_from(u32_at(table, at)).unwrap_or(0);
        if length == 0 || length == 0xffff_ffff {
            at += 4;
            continue;
        }
        if u32_at(table, at + 4) != 0 {
            let place = offset + at as u64 + 8;
            let here = source.segments.address(place).unwrap_or(0);
            if source.segments.holds(here.wrapping_add_signed(i32_at(table, at + 8))) {
                fields.add(place, Kind::FromHere);
            }
        }
        at = at.saturating_add(4).saturating_add(length);
    }
}

/// The sorted index of frames: pairs relative to its own start, after twelve bytes.
fn frame_index(table: &[u8], offset: u64, fields: &mut Fields) {
    // DW_EH_PE_pcrel | DW_EH_PE_sdata4, udata4, datarel | sdata4
    if table.get(..4) != Some(&[1, 0x1b, 0x03, 0x3b]) {
        return;
    }
    fields.add(offset + 4, Kind::FromHere);
    let entries = (12..table.len().saturating_sub(3)).step_by(4);
    fields.add_table(offset, entries.map(|at| offset + at as u64));
}
