//! Coding pieces: new bytes before one, where it comes from, how long it is.

use super::align::Piece;
use super::coder::{Coder, Number, Tree};

/// Diagonals that are remembered: code that moved together comes back to the same ones.
const RECENT: usize = 6;
/// Where a piece comes from: one of the recent diagonals, right after the piece before, or elsewhere.
const ADJACENT: u32 = 6;
const ELSEWHERE: u32 = 7;
const MODES: usize = 8;

/// The models of pieces.
#[derive(Debug)]
pub(super) struct Pieces {
    literals: Vec<Number>,
    lengths: Vec<Number>,
    modes: Vec<Tree<3>>,
    seeks: Number,
    recent: [i64; RECENT],
    mode: usize,
    old_end: u64,
    new_end: u64,
}

impl Pieces {
    pub(super) fn new() -> Self {
        Self {
            literals: (0..MODES).map(|_| Number::new()).collect(),
            lengths: (0..MODES).map(|_| Number::new()).collect(),
            modes: (0..MODES * 3).map(|_| Tree::default()).collect(),
            seeks: Number::new(),
            recent: [0; RECENT],
            mode: 0,
            old_end: 0,
            new_end: 0,
        }
    }

    /// Codes the next piece of `total` new bytes; none stands for the end: what is left is new.
    ///
    /// What comes out of a decoder lies within the new bytes, and ends at most at 2^62 in the old ones.
    pub(super) fn code<C: Coder>(
        &mut self,
        coder: &mut C,
        piece: Option<Piece>,
        total: u64,
    ) -> Option<Piece> {
        if self.new_end == total {
            return None;
        }
        let start = piece.map_or(total, |piece| piece.new);
        let literal = self.literals[self.mode].code(coder, start.saturating_sub(self.new_end));
        let new = self.new_end.checked_add(literal).filter(|new| *new < total)?;

        let given = piece.map_or(0, |piece| piece.old.cast_signed());
        let here = new.cast_signed();
        let diagonal = given - here;
        let adjacent = self.old_end.cast_signed() - here;
        let known = self.recent.iter().position(|recent| *recent == diagonal);
        let mode = match known.and_then(|known| u32::try_from(known).ok()) {
            Some(known) => known,
            None if diagonal == adjacent => ADJACENT,
            None => ELSEWHERE,
        };
        let size = match literal {
            0 => 0,
            1..16 => 1,
            _ => 2,
        };
        let mode = self.modes[self.mode * 3 + size].code(coder, mode);
        let diagonal = match mode {
            ADJACENT => adjacent,
            ELSEWHERE => self.recent[0].wrapping_add(self.seeks.signed(coder, diagonal - self.recent[0])),
            known => self.recent[known as usize],
        };
        let place = if mode < ADJACENT { mode as usize } else { RECENT - 1 };
        self.recent[..=place].rotate_right(1);
        self.recent[0] = diagonal;
        self.mode = mode as usize;
        let length = self.lengths[self.mode].code(coder, piece.map_or(0, |piece| piece.length - 1)) + 1;

        let old = u64::try_from(here.checked_add(diagonal)?).ok()?;
        self.new_end = new.checked_add(length).filter(|end| *end <= total)?;
        self.old_end = old.checked_add(length)?;
        Some(Piece { old, new, length })
    }
}
