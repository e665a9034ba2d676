//! Copying pieces, and correcting what differs in them: fields whose address was predicted wrongly, and other bytes.
//!
//! One code for both directions (see `coder.rs`): the encoder walks over the new bytes as they are, the decoder over a
//! buffer that it fills in.

use super::coder::{Bit, Coder, Mixed, MixedByte, Number, Tree, hash};
use super::image::{KIND_CLASSES, Kind, Segments};
use super::relocate::{NewImage, OldImage, Relocator, Site, Source};

/// A run of a piece that lies in one old item and one new item.
#[derive(Clone, Copy)]
pub(super) struct Run<'a> {
    /// Where it begins among the old bytes.
    pub(super) old: u64,
    /// Where it begins among the new bytes.
    pub(super) new: u64,
    /// Its old bytes.
    pub(super) bytes: &'a [u8],
    /// The images it is copied between, if both are images.
    pub(super) images: Option<(&'a OldImage, &'a NewImage)>,
}

/// A field of a run: where in it, what it is, and what can be said of it.
type Field = (usize, Kind, Site);

impl Run<'_> {
    /// The fields that lie whole in the run and can be predicted.
    fn fields(&self) -> impl Iterator<Item = Field> {
        self.images.into_iter().flat_map(move |(old, new)| {
            let from = self.old - old.start;
            old.image.fields(from, from + self.bytes.len() as u64).filter_map(move |(offset, kind)| {
                let at = usize::try_from(offset - from).ok()?;
                let value = read(self.bytes.get(at..at + kind.width())?);
                let site = Relocator::site(old, new, (offset, kind), self.new + at as u64, value)?;
                Some((at, kind, site))
            })
        })
    }

    /// Shortens a run of at most `limit` bytes so that it does not end within a field.
    pub(super) fn whole_fields(old: Option<&OldImage>, from: u64, limit: u64) -> u64 {
        let Some(old) = old else { return limit };
        let end = from + limit - old.start;
        let cut =
            old.image.fields(end.saturating_sub(8), end).find(|(at, kind)| at + kind.width() as u64 > end);
        cut.map_or(limit, |(at, _)| (old.start + at).saturating_sub(from)).max(1)
    }
}

fn read(field: &[u8]) -> u64 {
    field.iter().rev().fold(0, |value, byte| (value << 8) | u64::from(*byte))
}

/// Wrong predictions that are remembered: they come in groups.
const RECENT: usize = 13;
/// What is coded of a wrong prediction: one of the recent errors, the value byte by byte, the old value, another error.
const BYTES: u32 = 13;
const AS_BEFORE: u32 = 14;
const OTHER: u32 = 15;
/// Errors of more bits than this are coded byte by byte: what stands there is no address any more.
const MAX_ERROR: u64 = 1 << 34;

/// How many bytes after one that differs are asked each whether it differs too: differences come in groups, and at
/// places that look alike. Text gains from far, code only nearby (measured).
const ZONE: [u64; 2] = [64, 16];
/// The longest of them.
const FARTHEST: u64 = 63;

/// Where in a group of differences the coding stands.
#[derive(Clone, Copy, Debug)]
enum State {
    /// A gap comes next.
    Gap,
    /// This many bytes are right, then one differs.
    Right(u64),
    /// This many bytes more are asked.
    Zone(u64),
}

/// The models of corrections.
#[derive(Debug)]
pub(super) struct Corrections {
    hits: Vec<Bit>,
    history: [usize; KIND_CLASSES],
    recent: [i64; RECENT],
    which: [Tree<4>; KIND_CLASSES],
    errors: [Number; KIND_CLASSES],
    bytes: Tree<8>,
    /// In the zone after a byte that differs: does the next one?
    flags: Mixed<6>,
    /// Past it: how many are right.
    gaps: [Number; 2],
    state: State,
    /// How many bytes were right since the last that was not, and before that one.
    since: u64,
    last_gap: u64,
    /// The last flags, the newest lowest.
    flagged: u64,
    values: MixedByte<5>,
    last: [u8; 2],
}

impl Corrections {
    pub(super) fn new() -> Self {
        Self {
            hits: vec![Bit::default(); KIND_CLASSES * 3 * 16],
            history: [0; KIND_CLASSES],
            recent: [0; RECENT],
            which: std::array::from_fn(|_| Tree::default()),
            errors: std::array::from_fn(|_| Number::new()),
            bytes: Tree::default(),
            flags: Mixed::new(64, 18),
            gaps: [Number::new(), Number::new()],
            state: State::Gap,
            since: 0,
            last_gap: 0,
            flagged: 0,
            values: MixedByte::new(4, 18),
            last: [0; 2],
        }
    }

    /// Codes one run: `new` holds its new bytes, or gets them. `gaps` are those that [`Gaps`] found, for an encoder.
    pub(super) fn code<C: Coder>(
        &mut self,
        coder: &mut C,
        run: Run<'_>,
        relocator: &mut Relocator,
        new: &mut [u8],
        gaps: &mut dyn Iterator<Item = u64>,
    ) {
        let mut at = 0;
        let mut fields = run.fields();
        loop {
            let field = fields.next();
            let end = field.map_or(run.bytes.len(), |(start, ..)| start);
            self.plain(coder, run, at..end, new, gaps);
            let Some((start, kind, site)) = field else { return };
            at = start + kind.width();
            self.field(coder, run, (start, kind, site), relocator, &mut new[start..at]);
        }
    }

    /// Bytes of no field: the difference where there is one.
    fn plain<C: Coder>(
        &mut self,
        coder: &mut C,
        run: Run<'_>,
        range: std::ops::Range<usize>,
        new: &mut [u8],
        gaps: &mut dyn Iterator<Item = u64>,
    ) {
        let class = usize::from(run.images.is_some());
        let mut at = range.start;
        while at < range.end {
            let differs = match self.state {
                State::Gap => {
                    let gap = gaps.next().unwrap_or(0).saturating_sub(self.since);
                    self.state = State::Right(self.gaps[class].code(coder, gap));
                    continue;
                }
                State::Right(0) => true,
                State::Right(right) => {
                    let same = usize::try_from(right).unwrap_or(usize::MAX).min(range.end - at);
                    new[at..at + same].copy_from_slice(&run.bytes[at..at + same]);
                    at += same;
                    self.since += same as u64;
                    self.state = State::Right(right - same as u64);
                    continue;
                }
                State::Zone(left) => {
                    self.state = if left == 1 { State::Gap } else { State::Zone(left - 1) };
                    self.flag(coder, run, at, new, gaps)
                }
            };
            if differs {
                self.value(coder, run, at, new);
            } else {
                new[at] = run.bytes[at];
                self.since += 1;
            }
            at += 1;
        }
    }

    /// Whether the byte at `at` differs.
    fn flag<C: Coder>(
        &mut self,
        coder: &mut C,
        run: Run<'_>,
        at: usize,
        new: &[u8],
        gaps: &mut dyn Iterator<Item = u64>,
    ) -> bool {
        let near = Neighbours::of(run, at, new);
        let class = u64::from(run.images.is_some());
        let since = self.since.min(FARTHEST);
        let contexts = [
            near.old | near.old_before << 8 | near.old_after << 16 | 1 << 56,
            near.old | near.old_after << 8 | near.old_next << 16 | near.old_before << 24 | 2 << 56,
            since | (self.last_gap.min(63)) << 8 | class << 16 | ((run.new + at as u64) & 3) << 20 | 3 << 56,
            near.old | near.new_before << 8 | near.new_last << 16 | 4 << 56,
            self.flagged & 0xfff | class << 16 | 5 << 56,
            near.old | since << 8 | u64::from(self.last[0]) << 16 | class << 24 | 6 << 56,
        ];
        let selector = usize::try_from(since.min(15) | class << 4).unwrap_or(0);
        let bit = self.flags.bit(coder, contexts.map(hash), selector, run.bytes[at] != new[at]);
        self.flagged = self.flagged << 1 | u64::from(bit);
        if bit {
            // An encoder's gap has been told by flags.
            gaps.next();
        }
        bit
    }

    /// A byte that differs.
    fn value<C: Coder>(&mut self, coder: &mut C, run: Run<'_>, at: usize, new: &mut [u8]) {
        let near = Neighbours::of(run, at, new);
        let class = u64::from(run.images.is_some());
        let last = u64::from(self.last[0]);
        let contexts = [
            near.old | near.old_before << 8 | near.old_after << 16 | 1 << 48,
            near.old | near.new_before << 8 | class << 16 | 2 << 48,
            last | u64::from(self.last[1]) << 8 | self.since.min(8) << 16 | 3 << 48,
            near.old | class << 8 | 4 << 48,
            near.old | near.old_after << 8 | near.old_next << 16 | last << 24 | 5 << 48,
        ];
        let selector = usize::from(self.since == 0) + 2 * usize::from(run.images.is_some());
        let old = run.bytes[at];
        let difference = self.values.code(coder, contexts, selector, new[at].wrapping_sub(old));
        new[at] = old.wrapping_add(difference);
        self.last = [difference, self.last[0]];
        self.last_gap = self.since;
        self.since = 0;
        self.state = State::Zone(ZONE[usize::from(run.images.is_some())]);
    }

    fn field<C: Coder>(
        &mut self,
        coder: &mut C,
        run: Run<'_>,
        (start, kind, site): Field,
        relocator: &mut Relocator,
        new: &mut [u8],
    ) {
        let Some((old_image, new_image)) = run.images else { return };
        let before = read(&run.bytes[start..start + kind.width()]);
        let (predicted, source) =
            relocator.predict(old_image, new_image, site).unwrap_or((before, Source::Near));
        let width = 8 * u32::try_from(kind.width()).unwrap_or(8);
        let actual = read(new);
        let class = site.class();
        let source = match source {
            Source::Learnt => 0,
            Source::Moved => 1,
            Source::Near => 2,
        };
        let context = (class * 3 + source) * 16 + (self.history[class] & 15);
        let hit = coder.bit(&mut self.hits[context], actual == predicted);
        self.history[class] = self.history[class] << 1 | usize::from(hit);
        let value = if hit { predicted } else { self.miss(coder, class, width, (predicted, before, actual)) };
        new.copy_from_slice(&value.to_le_bytes()[..kind.width()]);
        relocator.learn(old_image, new_image, site, value);
    }

    fn miss<C: Coder>(
        &mut self,
        coder: &mut C,
        class: usize,
        width: u32,
        (predicted, before, actual): (u64, u64, u64),
    ) -> u64 {
        let mask = u64::MAX >> (64 - width);
        // With its sign, within the field's width.
        let error = (actual.wrapping_sub(predicted) << (64 - width)).cast_signed() >> (64 - width);
        let known = self.recent.iter().position(|recent| *recent == error && error != 0);
        let which = match known.and_then(|known| u32::try_from(known).ok()) {
            Some(known) => known,
            None if actual == before => AS_BEFORE,
            None if error.unsigned_abs() > MAX_ERROR => BYTES,
            None => OTHER,
        };
        let which = self.which[class].code(coder, which);
        let error = match which {
            AS_BEFORE => return before,
            BYTES => {
                return (0..width).step_by(8).fold(0, |value, shift| {
                    let byte = u32::try_from((actual >> shift) & 0xff).unwrap_or(0);
                    value | u64::from(self.bytes.code(coder, byte)) << shift
                });
            }
            OTHER => {
                let error = self.errors[class].signed(coder, error);
                self.recent.rotate_right(1);
                error
            }
            which => {
                let error = self.recent[which as usize];
                self.recent[..=which as usize].rotate_right(1);
                error
            }
        };
        self.recent[0] = error;
        predicted.wrapping_add_signed(error) & mask
    }
}

/// The bytes around a place.
struct Neighbours {
    old: u64,
    old_before: u64,
    old_after: u64,
    old_next: u64,
    new_before: u64,
    new_last: u64,
}

impl Neighbours {
    fn of(run: Run<'_>, at: usize, new: &[u8]) -> Self {
        let old = |place: Option<usize>| {
            place.and_then(|place| run.bytes.get(place)).map_or(0, |byte| u64::from(*byte))
        };
        let new = |place: Option<usize>| place.map_or(0, |place| u64::from(new[place]));
        Self {
            old: old(Some(at)),
            old_before: old(at.checked_sub(1)),
            old_after: old(at.checked_add(1)),
            old_next: old(at.checked_add(2)),
            new_before: new(at.checked_sub(1)),
            new_last: new(at.checked_sub(2)),
        }
    }
}

/// Finds the gaps between bytes that differ, for an encoder, which must know a gap before it reaches its end.
#[derive(Debug, Default)]
pub(super) struct Gaps {
    gaps: Vec<u64>,
    current: u64,
}

impl Gaps {
    /// Looks at one run, in the order in which runs are coded.
    pub(super) fn look(&mut self, run: Run<'_>, new: &[u8]) {
        let mut at = 0;
        let mut fields = run.fields();
        loop {
            let field = fields.next();
            let end = field.map_or(run.bytes.len(), |(start, ..)| start);
            for (old, new) in run.bytes[at..end].iter().zip(&new[at..end]) {
                if old == new {
                    self.current += 1;
                } else {
                    self.gaps.push(self.current);
                    self.current = 0;
                }
            }
            let Some((start, kind, _)) = field else { return };
            at = start + kind.width();
        }
    }

    /// The gaps, the one that nothing ends included.
    pub(super) fn finish(mut self) -> impl Iterator<Item = u64> {
        self.gaps.push(self.current);
        self.gaps.into_iter()
    }
}

/// The segments of a new image, from the first bytes that came out of it.
pub(super) fn new_image(start: u64, length: u64, head: &[u8]) -> Option<NewImage> {
    Some(NewImage { start, length, segments: Segments::of_head(head)? })
}
