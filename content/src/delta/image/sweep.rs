//! Relative operands: a linear sweep over x86-64 code.
//!
//! From the first byte of a section to its last, one instruction after the other; where bytes decode to none, it goes on
//! at the next byte. Out of step after data amid code, it falls into step again within a few instructions.

use std::collections::BTreeSet;
use std::io;

use iced_x86::{Decoder, DecoderOptions, Instruction};

use super::{Fields, Kind, Source, i32_at};

/// How much code is decoded at a time.
const CHUNK_BYTES: usize = 1 << 20;
/// No instruction is longer.
const LONGEST_INSTRUCTION: usize = 15;
/// The most entries of one jump table.
const MAX_JUMP_TABLE: u64 = 4096;

/// Sweeps a section of code at `offset`, which is loaded at `address`. Adds its relative operands to `fields`; returns
/// the addresses outside the section that instructions load: among them are jump tables.
pub(super) fn sweep(
    source: &Source<'_>,
    offset: u64,
    length: u64,
    address: u64,
    fields: &mut Fields,
) -> io::Result<BTreeSet<u64>> {
    let mut loaded = BTreeSet::new();
    let end = offset.saturating_add(length).min(source.length);
    if !source.spend(end.saturating_sub(offset)) {
        return Ok(loaded);
    }
    let mut at = offset;
    let mut chunk = Vec::new();
    let mut instruction = Instruction::default();
    while at < end {
        let take = usize::try_from(end - at).unwrap_or(CHUNK_BYTES).min(CHUNK_BYTES);
        chunk.resize(take, 0);
        (source.file)(at, &mut chunk)?;
        let last = at + take as u64 == end;
        let start = address.wrapping_add(at - offset);
        let mut decoder = Decoder::with_ip(64, &chunk, start, DecoderOptions::NONE);
        // An instruction that may go on in the next chunk is left to it.
        let stop = if last { take } else { take.saturating_sub(LONGEST_INSTRUCTION) };
        while decoder.position() < stop {
            let position = decoder.position();
            decoder.decode_out(&mut instruction);
            if instruction.is_invalid() {
                if decoder.set_position(position + 1).is_err() {
                    break;
                }
                decoder.set_ip(start.wrapping_add(position as u64 + 1));
                continue;
            }
            let constants = decoder.get_constant_offsets(&instruction);
            let (within, target) =
                if instruction.is_ip_rel_memory_operand() && constants.displacement_size() == 4 {
                    (constants.displacement_offset(), instruction.ip_rel_memory_address())
                } else if instruction.op_count() == 1
                    && constants.immediate_size() == 4
                    && instruction.near_branch_target() != 0
                {
                    (constants.immediate_offset(), instruction.near_branch_target())
                } else {
                    continue;
                };
            if !source.segments.holds(target) {
                continue;
            }
            let after = instruction.len() - within - 4;
            if let Ok(after) = u8::try_from(after) {
                fields.add(at + (position + within) as u64, Kind::Relative(after));
            }
            let elsewhere = target < address || target - address >= length;
            if elsewhere && instruction.is_ip_rel_memory_operand() {
                loaded.insert(target);
            }
        }
        at += decoder.position() as u64;
        if last {
            break;
        }
    }
    Ok(loaded)
}

/// Adds the jump tables that begin at any of the addresses `loaded`, within a table of constants: runs of distances from
/// the table's own start, each of which leads into code.
pub(super) fn jump_tables(
    source: &Source<'_>,
    constants: (u64, u64),
    code: (u64, u64),
    loaded: &BTreeSet<u64>,
    fields: &mut Fields,
) -> io::Result<()> {
    let (offset, length) = constants;
    let Some(address) = source.segments.address(offset) else { return Ok(()) };
    let table = source.table(offset, length)?;
    let mut starts =
        loaded.range(address..address.saturating_add(table.len() as u64)).filter(|a| **a % 4 == 0).peekable();
    while let Some(&start) = starts.next() {
        let limit = starts.peek().map_or(address + table.len() as u64, |next| **next);
        let from = start - address;
        let count = ((limit - start) / 4).min(MAX_JUMP_TABLE);
        let mut entries = 0;
        while entries < count {
            let place = usize::try_from(from + entries * 4).unwrap_or(usize::MAX);
            let target = start.wrapping_add_signed(i32_at(&table, place));
            if target < code.0 || target >= code.1 {
                break;
            }
            entries += 1;
        }
        // One entry alone is more likely a number.
        if entries < 2 {
            continue;
        }
        let start = offset + from;
        fields.add_table(start, (0..entries).map(|entry| start + entry * 4));
    }
    Ok(())
}
