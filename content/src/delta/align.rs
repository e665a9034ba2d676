//! Alignment: which pieces of the new bytes stand, nearly the same, where in the old ones.
//!
//! Colin Percival's idea (*Naïve differences of executable code*, 2003): exact matches found with a suffix array are
//! stretched in both directions for as long as more bytes agree than not. What differs within a piece is corrected
//! byte by byte; what lies between pieces is new.
//!
//! Deterministic: the result depends on the bytes alone.

use libsais::SuffixArrayConstruction;

/// A piece of the new bytes and where in the old ones it nearly stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    /// Where in the old bytes.
    pub(super) old: u64,
    /// Where in the new bytes.
    pub(super) new: u64,
    /// How many bytes, at least one.
    pub(super) length: u64,
}

impl Piece {
    /// What added to a place in the new bytes gives the place in the old ones.
    fn diagonal(self) -> i64 {
        self.old.cast_signed() - self.new.cast_signed()
    }
}

/// How pieces are weighed: what it costs to begin one, and to correct a byte in one, beside what it costs to send a byte
/// anew. Measured on the releases of `bench wan-bytes`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Taste {
    /// A match must beat what the piece before it would give over the same bytes by this many.
    gain: usize,
    /// Bytes that agree which one that does not outweighs, when a match is stretched.
    penalty: i64,
}

impl Taste {
    /// For text.
    pub(super) const TEXT: Self = Self { gain: 24, penalty: 2 };
    /// For data that is no text.
    pub(super) const DATA: Self = Self { gain: 14, penalty: 1 };
    /// For executables: new bytes of code are dear, and differences cheap.
    pub(super) const CODE: Self = Self { gain: 12, penalty: 1 };
}

/// Where the piece before agrees for this long, nothing better is looked for.
const LONG_ENOUGH: usize = 32;
/// Matches are compared up to this length; longer ones are as good.
const LONGEST_COMPARED: usize = 1 << 16;
/// Neighbours in the suffix array that are looked at for one nearer to the piece before.
const NEIGHBOURS: usize = 24;
/// Bytes by which the array is entered.
const KEY_BYTES: usize = 3;

/// The old bytes, sorted for finding matches.
pub(super) struct Index<'a> {
    old: &'a [u8],
    suffixes: Vec<i32>,
    /// For each key of three bytes, where in `suffixes` those that begin with it begin; one more at the end.
    buckets: Vec<u32>,
    /// Which runs of eight bytes there are: a Bloom filter with one hash.
    eights: Vec<u64>,
}

fn eight(bytes: &[u8]) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(..8)?.try_into().ok()?).wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

impl<'a> Index<'a> {
    /// Sorts `old`, of less than 2 GiB.
    pub(super) fn new(old: &'a [u8]) -> Self {
        let suffixes = SuffixArrayConstruction::for_text(old).in_owned_buffer32().single_threaded().run();
        let suffixes = suffixes.map(libsais::suffix_array::SuffixArrayWithText::into_vec).unwrap_or_default();
        let mut buckets = vec![0_u32; (1 << (8 * KEY_BYTES)) + 1];
        // Suffixes shorter than the key stand at the front of its bucket, as if zero bytes followed.
        let key = |at: usize| {
            let byte = |i: usize| old.get(at + i).map_or(0, |byte| usize::from(*byte));
            byte(0) << 16 | byte(1) << 8 | byte(2)
        };
        for at in 0..old.len() {
            buckets[key(at) + 1] += 1;
        }
        for bucket in 1..buckets.len() {
            buckets[bucket] += buckets[bucket - 1];
        }
        let bits = (old.len().max(1 << 10) * 2).next_power_of_two();
        let mut eights = vec![0_u64; bits / 64];
        let shift = 64 - bits.trailing_zeros();
        for at in 0..old.len() {
            if let Some(hash) = eight(&old[at..]) {
                let bit = usize::try_from(hash >> shift).unwrap_or(0);
                eights[bit / 64] |= 1 << (bit % 64);
            }
        }
        Self { old, suffixes, buckets, eights }
    }

    /// False when no run of eight bytes of the old ones is the one that `new` begins with.
    fn may_match(&self, new: &[u8]) -> bool {
        let shift = 64 - (self.eights.len() * 64).trailing_zeros();
        eight(new).is_some_and(|hash| {
            let bit = usize::try_from(hash >> shift).unwrap_or(0);
            self.eights[bit / 64] >> (bit % 64) & 1 == 1
        })
    }

    fn suffix(&self, rank: usize) -> &'a [u8] {
        &self.old[usize::try_from(self.suffixes[rank]).unwrap_or(0)..]
    }

    /// The longest match for the start of `new`: its place in the old bytes and its length; of several, the one nearest
    /// to `expected`.
    fn longest(&self, new: &[u8], expected: i64) -> (usize, usize) {
        if new.len() < KEY_BYTES {
            return (0, 0);
        }
        let new = &new[..new.len().min(LONGEST_COMPARED)];
        let key = usize::from(new[0]) << 16 | usize::from(new[1]) << 8 | usize::from(new[2]);
        let (first, end) = (self.buckets[key] as usize, self.buckets[key + 1] as usize);
        if first == end {
            return (0, 0);
        }
        // The first suffix that is not less than `new`; what it and those around the search share is skipped.
        let (mut low, mut high, mut low_shares, mut high_shares) = (first, end, 0, 0);
        while low < high {
            let middle = usize::midpoint(low, high);
            let suffix = self.suffix(middle);
            let skip: usize = usize::min(low_shares, high_shares);
            let shares = skip + common(&suffix[skip.min(suffix.len())..], &new[skip..]);
            if shares == new.len() || suffix.get(shares) > new.get(shares) {
                high = middle;
                high_shares = shares;
            } else {
                low = middle + 1;
                low_shares = shares;
            }
        }
        let shared = |rank: usize| common(self.suffix(rank), new);
        let below = if low > first { shared(low - 1) } else { 0 };
        let above = if low < end { shared(low) } else { 0 };
        let length = below.max(above);
        let mut best: Option<(u64, usize)> = None;
        let mut consider = |rank: usize| {
            let place = usize::try_from(self.suffixes[rank]).unwrap_or(0);
            let distance = expected.abs_diff(i64::try_from(place).unwrap_or(0));
            if best.is_none_or(|(nearest, _)| distance < nearest) {
                best = Some((distance, place));
            }
        };
        let mut rank = low;
        while rank > first
            && low - rank < NEIGHBOURS
            && (rank == low && below == length || rank < low && shared(rank - 1) >= length)
        {
            rank -= 1;
            consider(rank);
        }
        let mut rank = low;
        while rank < end
            && rank - low < NEIGHBOURS
            && (rank == low && above == length || rank > low && shared(rank) >= length)
        {
            consider(rank);
            rank += 1;
        }
        best.map_or((0, 0), |(_, place)| (place, length))
    }
}

/// How many bytes two runs share from their start.
fn common(a: &[u8], b: &[u8]) -> usize {
    let most = a.len().min(b.len());
    let (a, b) = (&a[..most], &b[..most]);
    let words = a.chunks_exact(8).zip(b.chunks_exact(8)).take_while(|(a, b)| a == b).count() * 8;
    words + a[words..].iter().zip(&b[words..]).take_while(|(a, b)| a == b).count()
}

/// Aligns `new` with the old bytes of `index`. Sections of `new` have each its taste; they follow one another and cover
/// it. Pieces come in the order of the new bytes and do not overlap there.
pub(super) fn align(
    index: &Index<'_>,
    new: &[u8],
    sections: impl IntoIterator<Item = (std::ops::Range<usize>, Taste)>,
) -> Vec<Piece> {
    let mut aligner = Aligner { index, new, pieces: Vec::new(), from: 0, diagonal: 0 };
    for (section, taste) in sections {
        if !index.old.is_empty() && section.end <= new.len() {
            aligner.section(section, taste);
        }
    }
    aligner.pieces
}

struct Aligner<'a> {
    index: &'a Index<'a>,
    new: &'a [u8],
    pieces: Vec<Piece>,
    /// The match that the next piece grows from: its first new byte, its diagonal.
    from: usize,
    diagonal: i64,
}

impl Aligner<'_> {
    /// True when the byte at `at` is the same on a diagonal.
    fn agrees(&self, diagonal: i64, at: usize) -> bool {
        let place = usize::try_from(at.cast_signed() as i64 + diagonal);
        place.ok().and_then(|place| self.index.old.get(place)).is_some_and(|byte| *byte == self.new[at])
    }

    /// How long the bytes from `at` to `end` are the same on a diagonal.
    fn runs(&self, diagonal: i64, at: usize, end: usize) -> usize {
        let place = usize::try_from(at.cast_signed() as i64 + diagonal);
        let old = place.ok().and_then(|place| self.index.old.get(place..));
        old.map_or(0, |old| common(old, &self.new[at..end]))
    }

    fn section(&mut self, section: std::ops::Range<usize>, taste: Taste) {
        let end = section.end;
        let mut at = section.start;
        self.from = at;
        loop {
            let found = self.look(&mut at, end, taste);
            // Stretch the last match forwards and the new one backwards, for as long as most bytes agree.
            let (from, diagonal) = (self.from, self.diagonal);
            let mut forwards = stretch(at - from, taste, |step| self.agrees(diagonal, from + step));
            let Some((place, length)) = found else {
                self.push(forwards);
                return;
            };
            let next = place.cast_signed() as i64 - at.cast_signed() as i64;
            let mut backwards =
                stretch((at - from).min(place), taste, |step| self.agrees(next, at - 1 - step));
            // Where the two overlap, cut at the best place.
            let start = at - backwards;
            if let Some(overlap) = (from + forwards).checked_sub(start) {
                let (mut score, mut best, mut cut) = (0_i64, 0_i64, 0);
                for step in start..start + overlap {
                    score += i64::from(self.agrees(diagonal, step)) - i64::from(self.agrees(next, step));
                    if score > best {
                        (best, cut) = (score, step + 1 - start);
                    }
                }
                forwards = forwards - overlap + cut;
                backwards -= cut;
            }
            self.push(forwards);
            (self.from, self.diagonal) = (at - backwards, next);
            at += length;
        }
    }

    /// Looks from `at` on for a match that is clearly better than going on on the diagonal: its place and length.
    fn look(&self, at: &mut usize, end: usize, taste: Taste) -> Option<(usize, usize)> {
        // How many bytes in `at..counted` agree on the diagonal.
        let (mut agreeing, mut counted) = (0_usize, *at);
        while *at < end {
            let straight = self.runs(self.diagonal, *at, end);
            if straight >= LONG_ENOUGH {
                *at += straight;
                (agreeing, counted) = (0, *at);
                continue;
            }
            let expected = at.cast_signed() as i64 + self.diagonal;
            let rest = &self.new[*at..end];
            let (place, length) =
                if self.index.may_match(rest) { self.index.longest(rest, expected) } else { (0, 0) };
            while counted < *at + length {
                agreeing += usize::from(self.agrees(self.diagonal, counted));
                counted += 1;
            }
            if length > 0 && length == agreeing {
                // The same bytes, or as good: the diagonal stays.
                *at += length;
                (agreeing, counted) = (0, *at);
                continue;
            }
            if length > agreeing + taste.gain {
                return Some((place, length));
            }
            if counted > *at {
                agreeing -= usize::from(self.agrees(self.diagonal, *at));
            }
            *at += 1;
            counted = counted.max(*at);
        }
        None
    }

    /// Adds the piece that begins where the last match did.
    fn push(&mut self, length: usize) {
        let old = self.from.cast_signed() as i64 + self.diagonal;
        let (Ok(old), new, length) = (u64::try_from(old), self.from as u64, length as u64) else { return };
        if length == 0 {
            return;
        }
        let piece = Piece { old, new, length };
        match self.pieces.last_mut() {
            // One that goes on where the last one ends is the same.
            Some(last) if last.new + last.length == new && last.diagonal() == piece.diagonal() => {
                last.length += length;
            }
            _ => self.pieces.push(piece),
        }
    }
}

/// How far to go, at most `most` steps, so that the bytes that agree outweigh the others by as much as possible.
fn stretch(most: usize, taste: Taste, agrees: impl Fn(usize) -> bool) -> usize {
    let (mut score, mut best, mut length) = (0_i64, 0_i64, 0);
    for step in 0..most {
        score += if agrees(step) { 1 } else { -taste.penalty };
        if score > best {
            (best, length) = (score, step + 1);
        }
    }
    length
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every piece is inside both sides, and they stand in order.
    fn check(old: &[u8], new: &[u8]) -> Vec<Piece> {
        let pieces = align(&Index::new(old), new, [(0..new.len(), Taste::CODE)]);
        let mut end = 0;
        for piece in &pieces {
            assert!(piece.new >= end && piece.length > 0, "{pieces:?}");
            end = piece.new + piece.length;
            assert!(end <= new.len() as u64 && piece.old + piece.length <= old.len() as u64, "{pieces:?}");
        }
        pieces
    }

    fn noise(length: usize, seed: u64) -> Vec<u8> {
        let mut state = seed.wrapping_mul(2).wrapping_add(1);
        (0..length)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 56) as u8
            })
            .collect()
    }

    #[test]
    fn finds_what_moved() {
        let old = noise(10_000, 1);
        let new = [&old[5_000..], &noise(100, 2), &old[..5_000]].concat();
        let pieces = check(&old, &new);
        assert_eq!(pieces.iter().map(|piece| piece.length).sum::<u64>(), 10_000);
        assert_eq!(pieces.len(), 2, "{pieces:?}");
    }

    #[test]
    fn a_changed_byte_does_not_end_a_piece() {
        let old = noise(10_000, 3);
        let mut new = old.clone();
        for at in (100..10_000).step_by(500) {
            new[at] ^= 1;
        }
        assert_eq!(check(&old, &new), [Piece { old: 0, new: 0, length: 10_000 }]);
    }

    #[test]
    fn strange_sides_are_aligned() {
        for (old, new) in [(&b""[..], &b"abc"[..]), (b"abc", b""), (b"a", b"a"), (&[0; 10_000], &[0; 7_000])]
        {
            check(old, new);
        }
        check(&[0; 1000], &[&noise(50, 4), &[0; 5000][..]].concat());
    }
}
