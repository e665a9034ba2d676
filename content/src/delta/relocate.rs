//! What the addresses in a copied piece become, now that everything has moved.
//!
//! The pieces of an alignment say where every part of the old bytes went. A field of an old image that is copied
//! points somewhere; where that went is what it should point to now. Where the prediction was wrong, what is right is
//! remembered: the next field with the same target is predicted by it.
//!
//! Encoder and decoder run the same code over the same pieces in the same order.

use super::align::Piece;
use super::image::{HEAD_BYTES, Image, Kind, Segments};

/// An image among the old bytes.
#[derive(Debug)]
pub(super) struct OldImage {
    /// Where its first byte stands among the old bytes.
    pub(super) start: u64,
    /// Its length.
    pub(super) length: u64,
    /// What it is.
    pub(super) image: Image,
}

/// An image among the new bytes: known once its head is.
#[derive(Clone, Debug)]
pub(super) struct NewImage {
    /// Where its first byte stands among the new bytes.
    pub(super) start: u64,
    /// Its length.
    pub(super) length: u64,
    /// Where its parts are loaded.
    pub(super) segments: Segments,
}

impl NewImage {
    fn address(&self, place: u64) -> Option<u64> {
        self.segments.address(place.checked_sub(self.start)?)
    }

    fn holds(&self, place: u64) -> bool {
        place >= self.start && place - self.start < self.length
    }
}

/// How a prediction was come by: the better ways first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// An earlier field had the same target.
    Learnt,
    /// The target lies in a piece.
    Moved,
    /// The target lies between pieces: it should have moved as its neighbour did.
    Near,
}

/// A field that can be predicted: what it is, and where it pointed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Site {
    kind: Kind,
    /// Address of the field in the new image.
    here: u64,
    /// Address of its target in the old image.
    target: u64,
    /// Address of the table it counts from, in the old image.
    table: u64,
}

impl Site {
    pub(super) fn class(self) -> usize {
        self.kind.class()
    }
}

/// Remembers targets: one slot each, the newest has it.
const SLOTS_LOG: u32 = 20;

/// Where everything went.
#[derive(Debug)]
pub(super) struct Relocator {
    /// Pieces by where they stand in the old bytes.
    by_old: Vec<Piece>,
    /// (target << 16 | image, what it became).
    learnt: Vec<(u64, u64)>,
}

impl Relocator {
    pub(super) fn new(pieces: &[Piece]) -> Self {
        let mut by_old = pieces.to_vec();
        by_old.sort_by_key(|piece| (piece.old, piece.new));
        Self { by_old, learnt: vec![(u64::MAX, 0); 1 << SLOTS_LOG] }
    }

    /// The field of `old` at `offset` in it, as it is copied to `place` among the new bytes, into `new`; none if nothing
    /// can be said of it.
    pub(super) fn site(
        old: &OldImage,
        new: &NewImage,
        (offset, kind): (u64, Kind),
        place: u64,
        value: u64,
    ) -> Option<Site> {
        if place < new.start + HEAD_BYTES as u64 {
            return None;
        }
        let segments = &old.image.segments;
        let signed = i64::from(u32::try_from(value & 0xffff_ffff).unwrap_or(0).cast_signed());
        let from = segments.address(offset);
        let mut table = 0;
        let target = match kind {
            Kind::Relative(after) => from?.wrapping_add(4 + u64::from(after)).wrapping_add_signed(signed),
            Kind::Pointer => value.wrapping_sub(segments.base),
            Kind::Offset => value,
            Kind::FromHere => from?.wrapping_add_signed(signed),
            Kind::FromTable(base) => {
                table = segments.address(u64::from(base))?;
                table.wrapping_add_signed(signed)
            }
        };
        segments.offset(target)?;
        let here = match new.address(place) {
            Some(here) => here,
            // Relocations and symbols need not be loaded anywhere.
            None if kind == Kind::Pointer => 0,
            None => return None,
        };
        Some(Site { kind, here, target, table })
    }

    /// What the field should hold in the new image.
    pub(super) fn predict(&self, old: &OldImage, new: &NewImage, site: Site) -> Option<(u64, Source)> {
        let (slot, key) = slot(new, site.target);
        let (target, source) = if self.learnt[slot].0 == key {
            (self.learnt[slot].1, Source::Learnt)
        } else {
            self.moved(old, new, site.target)?
        };
        let table = match site.kind {
            Kind::FromTable(_) => self.moved(old, new, site.table)?.0,
            _ => 0,
        };
        Some((site.value(new, target, table), source))
    }

    /// Remembers what the field came to hold.
    pub(super) fn learn(&mut self, old: &OldImage, new: &NewImage, site: Site, value: u64) {
        let table = match site.kind {
            Kind::FromTable(_) => self.moved(old, new, site.table).map_or(0, |(table, _)| table),
            _ => 0,
        };
        let (slot, key) = slot(new, site.target);
        self.learnt[slot] = (key, site.target_of(new, value, table));
    }

    /// Where an address of the old image went.
    fn moved(&self, old: &OldImage, new: &NewImage, address: u64) -> Option<(u64, Source)> {
        let (offset, past) = old.image.segments.offset(address)?;
        let place = old.start + offset;
        let after = self.by_old.partition_point(|piece| piece.old <= place);
        // Pieces may overlap in the old bytes: a few before are looked at, for one that holds the place.
        let mut near = None;
        for piece in self.by_old[..after].iter().rev().take(4) {
            let went = piece.new + (place - piece.old);
            if !new.holds(piece.new) {
                continue;
            }
            let inside = place - piece.old < piece.length;
            if let Some(address) = new.address(went).filter(|_| inside && new.holds(went)) {
                return Some((address + past, Source::Moved));
            }
            near.get_or_insert(*piece);
        }
        let piece = near.or_else(|| self.by_old.get(after).copied().filter(|p| new.holds(p.new)))?;
        // As its neighbour: by the neighbour's address, for the place itself may be past a segment's end.
        let neighbour = piece.old;
        let before = old.image.segments.address(neighbour.checked_sub(old.start)?)?;
        let now = new.address(piece.new)?;
        Some((address.wrapping_add(now.wrapping_sub(before)), Source::Near))
    }
}

fn slot(new: &NewImage, target: u64) -> (usize, u64) {
    let key = target << 16 | (new.start >> 12 & 0xffff);
    let hash = (key ^ new.start << 32).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - SLOTS_LOG);
    (usize::try_from(hash).unwrap_or(0), key)
}

impl Site {
    /// What the field holds when it points to `target` in the new image.
    fn value(self, new: &NewImage, target: u64, table: u64) -> u64 {
        match self.kind {
            Kind::Relative(after) => {
                target.wrapping_sub(self.here.wrapping_add(4 + u64::from(after))) & 0xffff_ffff
            }
            Kind::Pointer => target.wrapping_add(new.segments.base),
            Kind::Offset => target & 0xffff_ffff,
            Kind::FromHere => target.wrapping_sub(self.here) & 0xffff_ffff,
            Kind::FromTable(_) => target.wrapping_sub(table) & 0xffff_ffff,
        }
    }

    /// Where a field with this value points in the new image.
    fn target_of(self, new: &NewImage, value: u64, table: u64) -> u64 {
        let signed = i64::from(u32::try_from(value & 0xffff_ffff).unwrap_or(0).cast_signed());
        match self.kind {
            Kind::Relative(after) => self.here.wrapping_add(4 + u64::from(after)).wrapping_add_signed(signed),
            Kind::Pointer => value.wrapping_sub(new.segments.base),
            Kind::Offset => value,
            Kind::FromHere => self.here.wrapping_add_signed(signed),
            Kind::FromTable(_) => table.wrapping_add_signed(signed),
        }
    }
}
