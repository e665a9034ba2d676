//! An adaptive binary arithmetic coder, and the models that numbers and bytes are coded under.
//!
//! Model code is written once for both directions: [`Coder::bit`] takes the bit to write and returns it, or ignores it
//! and returns the bit that was read. Whoever decodes passes any value in.
//!
//! The coder is the carryless one of 32-bit bounds that Mahoney describes (*Data Compression Explained*, 4.1): bounds
//! that share their top byte give it out. Probabilities are 16 bits, the mean of a quick and a slow estimate.
//!
//! Threats: a stream that ends too early. Reading past its end gives zero bytes for ever; every number that comes out is
//! checked by whoever asked for it, and nothing here allocates by what it reads.

use std::io::{self, Read};

/// Writes or reads bits.
pub(super) trait Coder {
    /// Codes one bit that is one with `probability` in 65,536.
    fn bit_with(&mut self, probability: u32, bit: bool) -> bool;

    /// Codes one bit under a model, which learns from it.
    fn bit(&mut self, model: &mut Bit, bit: bool) -> bool {
        let bit = self.bit_with(model.probability(), bit);
        model.learn(bit);
        bit
    }
}

/// Writes bits into memory.
#[derive(Debug)]
pub(super) struct Encoder {
    low: u32,
    high: u32,
    bytes: Vec<u8>,
}

impl Encoder {
    pub(super) fn new() -> Self {
        Self { low: 0, high: u32::MAX, bytes: Vec::new() }
    }

    /// The bytes that decode to what was coded. Zero bytes at the end are left out: a reader makes them up.
    pub(super) fn finish(mut self) -> Vec<u8> {
        // Any value within the bounds will do: the one with the most zero bytes at its end.
        for kept in 1..=4 {
            let mask = u32::MAX.checked_shr(8 * kept).unwrap_or(0);
            let value = self.low.checked_add(mask).map_or(self.high, |value| value & !mask);
            if value >= self.low && value <= self.high {
                self.bytes.extend_from_slice(&value.to_be_bytes());
                break;
            }
        }
        while self.bytes.last() == Some(&0) {
            self.bytes.pop();
        }
        self.bytes
    }
}

/// The bound that divides the range by a probability.
fn middle(low: u32, high: u32, probability: u32) -> u32 {
    let range = u64::from(high - low);
    low + u32::try_from((range * u64::from(probability)) >> 16).unwrap_or(0)
}

impl Coder for Encoder {
    fn bit_with(&mut self, probability: u32, bit: bool) -> bool {
        let middle = middle(self.low, self.high, probability);
        if bit {
            self.high = middle;
        } else {
            self.low = middle + 1;
        }
        while (self.low ^ self.high) >> 24 == 0 {
            self.bytes.push((self.high >> 24) as u8);
            self.low <<= 8;
            self.high = (self.high << 8) | 0xff;
        }
        bit
    }
}

/// Reads bits from a stream.
#[derive(Debug)]
pub(super) struct Decoder<R> {
    low: u32,
    high: u32,
    value: u32,
    source: R,
    /// The first error of the source, which [`Decoder::finish`] reports.
    failed: Option<io::Error>,
}

impl<R: Read> Decoder<R> {
    pub(super) fn new(source: R) -> Self {
        let mut decoder = Self { low: 0, high: u32::MAX, value: 0, source, failed: None };
        for _ in 0..4 {
            decoder.value = (decoder.value << 8) | decoder.next_byte();
        }
        decoder
    }

    fn next_byte(&mut self) -> u32 {
        let mut byte = [0];
        match self.source.read_exact(&mut byte) {
            Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => {
                self.failed.get_or_insert(error);
                0
            }
            Err(_) => 0,
            Ok(()) => u32::from(byte[0]),
        }
    }

    /// Ends in the error that the source met, if it met one.
    pub(super) fn finish(self) -> io::Result<()> {
        self.failed.map_or(Ok(()), Err)
    }
}

impl<R: Read> Coder for Decoder<R> {
    fn bit_with(&mut self, probability: u32, _: bool) -> bool {
        let middle = middle(self.low, self.high, probability);
        let bit = self.value <= middle;
        if bit {
            self.high = middle;
        } else {
            self.low = middle + 1;
        }
        while (self.low ^ self.high) >> 24 == 0 {
            self.low <<= 8;
            self.high = (self.high << 8) | 0xff;
            self.value = (self.value << 8) | self.next_byte();
        }
        bit
    }
}

/// The probability of one bit, learnt from those before it: the first ones count most.
///
/// 22 bits of probability above 10 bits of how many were seen.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bit(u32);

impl Default for Bit {
    fn default() -> Self {
        Self(1 << 31)
    }
}

/// What is seen after this many others counts as much as they did: statistics drift.
const MEMORY: usize = 160;

/// 1/(n + 1.5) in 16 bits, for every number of bits seen.
const SHARES: [i32; MEMORY + 1] = {
    let mut shares = [0; MEMORY + 1];
    let mut seen = 0;
    while seen <= MEMORY {
        #[expect(clippy::cast_possible_truncation, clippy::cast_possible_wrap, reason = "below 2^17")]
        let share = ((1 << 17) / (2 * seen + 3)) as i32;
        shares[seen] = share;
        seen += 1;
    }
    shares
};

impl Bit {
    fn probability(self) -> u32 {
        (self.0 >> 16).clamp(32, 65_535 - 32)
    }

    fn learn(&mut self, bit: bool) {
        let seen = ((self.0 & 1023) as usize).min(MEMORY);
        let probability = (self.0 >> 10).cast_signed();
        let target = if bit { (1 << 22) - 1 } else { 0 };
        let step = (i64::from(target - probability) * i64::from(SHARES[seen])) >> 16;
        #[expect(clippy::cast_possible_truncation, reason = "no larger than the distance to the target")]
        let probability = (probability + step as i32).cast_unsigned();
        self.0 = (probability << 10) | ((self.0 & 1023) + u32::from(seen < MEMORY));
    }
}

/// A number below `1 << BITS`, bit by bit from the top, each under all bits above it.
#[derive(Clone, Debug)]
pub(super) struct Tree<const BITS: u32> {
    nodes: Vec<Bit>,
}

impl<const BITS: u32> Default for Tree<BITS> {
    fn default() -> Self {
        Self { nodes: vec![Bit::default(); 1 << BITS] }
    }
}

impl<const BITS: u32> Tree<BITS> {
    pub(super) fn code<C: Coder>(&mut self, coder: &mut C, value: u32) -> u32 {
        let mut node = 1;
        for shift in (0..BITS).rev() {
            let bit = coder.bit(&mut self.nodes[node], (value >> shift) & 1 == 1);
            node = (node << 1) | usize::from(bit);
        }
        u32::try_from(node - (1 << BITS)).unwrap_or(0)
    }
}

/// Any number: its length in bits as a tree, its top bits under what is above them, the rest each under its place.
#[derive(Clone, Debug, Default)]
pub(super) struct Number {
    length: Tree<6>,
    top: Vec<Bit>,
    rest: Vec<Bit>,
}

/// Bits below the highest that are coded under those above them.
const TOP_BITS: u32 = 3;

impl Number {
    pub(super) fn new() -> Self {
        Self {
            length: Tree::default(),
            top: vec![Bit::default(); 64 << TOP_BITS],
            rest: vec![Bit::default(); 64 * 64],
        }
    }

    /// Codes any number but the greatest.
    pub(super) fn code<C: Coder>(&mut self, coder: &mut C, value: u64) -> u64 {
        let value = value.saturating_add(1);
        let length = self.length.code(coder, value.ilog2());
        let mut result: u64 = 1;
        for place in (0..length).rev() {
            // The bits so far, a leading one before them.
            let model = match usize::try_from(result) {
                Ok(above) if above < 1 << TOP_BITS => &mut self.top[((length as usize) << TOP_BITS) + above],
                _ => &mut self.rest[(length * 64 + place) as usize],
            };
            let bit = coder.bit(model, (value >> place) & 1 == 1);
            result = (result << 1) | u64::from(bit);
        }
        result - 1
    }

    /// Codes a number of either sign, any but the least.
    pub(super) fn signed<C: Coder>(&mut self, coder: &mut C, value: i64) -> i64 {
        let folded = (value << 1) ^ (value >> 63);
        let folded = self.code(coder, folded.cast_unsigned());
        (folded >> 1).cast_signed() ^ -(folded & 1).cast_signed()
    }
}

/// Stretch and squash of logistic mixing (Mahoney, 4.3.2), as tables.
#[derive(Debug)]
struct Logistic {
    stretch: Box<[i16; 4096]>,
    squash: Box<[u16; 4096]>,
}

impl Logistic {
    fn new() -> Self {
        // squash(x) = 65536 / (1 + e^(-x/256)), by integers alone so that every machine has the same table.
        let mut squash = Box::new([0; 4096]);
        let mut stretch = Box::new([2047; 4096]);
        let mut next = 0_usize;
        for (value, x) in squash.iter_mut().zip(-2048_i16..) {
            *value = squash_exact(i32::from(x));
            // The least x whose probability is no less.
            let bound = usize::from(*value / 16);
            while next <= bound {
                stretch[next] = x;
                next += 1;
            }
        }
        Self { stretch, squash }
    }
}

/// 65536 / (1 + e^(-x/256)) by a series in 32.32 fixed point.
fn squash_exact(x: i32) -> u16 {
    // e^(|x|/256) = (e^(1/256))^|x|
    const STEP: u64 = 4_311_777_076; // e^(1/256) in 32.32
    let mut power: u128 = 1 << 32;
    for _ in 0..x.unsigned_abs() {
        power = (power * u128::from(STEP)) >> 32;
    }
    // For x ≥ 0: p = e^x / (1 + e^x).
    let share = (power << 16) / (power + (1 << 32));
    let share = u16::try_from(share).unwrap_or(u16::MAX);
    if x >= 0 { share } else { u16::MAX - share + 1 }
}

/// A bit under several contexts at once, whose predictions are mixed.
///
/// Contexts are hashed; two that collide share what they learn.
#[derive(Debug)]
pub(super) struct Mixed<const N: usize> {
    tables: [Vec<Bit>; N],
    weights: Vec<[i32; N]>,
    logistic: Logistic,
}

/// How fast weights follow: a shift.
const LEARNING_SHIFT: u32 = 16;
/// Models that lie together, for the bits of half a byte.
const GROUP: usize = 16;

impl<const N: usize> Mixed<N> {
    /// `selectors` is the number of weight sets among which the caller chooses; tables hold `1 << log` models.
    pub(super) fn new(selectors: usize, log: u32) -> Self {
        // Sums of predictions that agree are worth more than their mean.
        let weight = (1 << 16) * 13 / 10 / i32::try_from(N).unwrap_or(1);
        Self {
            tables: std::array::from_fn(|_| vec![Bit::default(); 1 << log]),
            weights: vec![[weight; N]; selectors],
            logistic: Logistic::new(),
        }
    }

    /// Codes a bit; `places` are those of its models in the tables, taken modulo their length.
    pub(super) fn bit<C: Coder>(
        &mut self,
        coder: &mut C,
        places: [usize; N],
        selector: usize,
        bit: bool,
    ) -> bool {
        let mut inputs = [0_i32; N];
        let mut sum = 0_i64;
        let weights = &mut self.weights[selector];
        for index in 0..N {
            let table = &self.tables[index][..];
            let model = table[places[index] & (table.len() - 1)];
            inputs[index] = i32::from(self.logistic.stretch[(model.probability() >> 4) as usize]);
            sum += i64::from(inputs[index]) * i64::from(weights[index]);
        }
        let mixed = usize::try_from((sum >> 16).clamp(-2048, 2047) + 2048).unwrap_or(0);
        let probability = i32::from(self.logistic.squash[mixed & 4095]).clamp(32, 65_535 - 32);
        let bit = coder.bit_with(probability.unsigned_abs(), bit);
        let error = (if bit { 65_535 } else { 0 }) - probability;
        for index in 0..N {
            let table = &mut self.tables[index];
            let mask = table.len() - 1;
            table[places[index] & mask].learn(bit);
            let step = (inputs[index] * error + (1 << (LEARNING_SHIFT - 1))) >> LEARNING_SHIFT;
            weights[index] = weights[index].saturating_add(step);
        }
        bit
    }
}

/// A hash of a context, every bit of which depends on every bit of it.
pub(super) fn hash(context: u64) -> usize {
    let once = context.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let folded = (once ^ once >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93);
    usize::try_from((folded ^ folded >> 32) & 0xffff_ffff).unwrap_or(0)
}

/// A byte under several contexts at once.
#[derive(Debug)]
pub(super) struct MixedByte<const N: usize>(Mixed<N>);

impl<const N: usize> MixedByte<N> {
    /// As [`Mixed::new`].
    pub(super) fn new(selectors: usize, log: u32) -> Self {
        Self(Mixed::new(selectors * 256, log))
    }

    pub(super) fn code<C: Coder>(
        &mut self,
        coder: &mut C,
        contexts: [u64; N],
        selector: usize,
        value: u8,
    ) -> u8 {
        let mut node = 1_usize;
        let mut bases = contexts.map(|context| hash(context) * GROUP);
        for shift in (0..8).rev() {
            if shift == 3 {
                bases = contexts.map(|context| hash(context ^ (node as u64) << 56) * GROUP);
            }
            let within = if shift > 3 { node } else { 1 << (3 - shift) | node & ((1 << (3 - shift)) - 1) };
            let places = bases.map(|base| base + within);
            let bit = self.0.bit(coder, places, selector * 256 + node, (value >> shift) & 1 == 1);
            node = (node << 1) | usize::from(bit);
        }
        u8::try_from(node & 0xff).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Codes what each closure codes, and reads it back.
    fn round_trip<T: Copy + PartialEq + std::fmt::Debug, M>(
        values: &[T],
        model: impl Fn() -> M,
        write: impl Fn(&mut M, &mut Encoder, T) -> T,
        read: impl Fn(&mut M, &mut Decoder<&[u8]>) -> T,
    ) -> usize {
        let (mut writing, mut encoder) = (model(), Encoder::new());
        for value in values {
            assert_eq!(write(&mut writing, &mut encoder, *value), *value);
        }
        let bytes = encoder.finish();
        let (mut reading, mut decoder) = (model(), Decoder::new(&bytes[..]));
        for value in values {
            assert_eq!(read(&mut reading, &mut decoder), *value);
        }
        bytes.len()
    }

    #[test]
    fn numbers_of_every_length_come_back() {
        let mut values: Vec<u64> = (0..300).collect();
        values.extend(
            (0..62).flat_map(|bits| [(1_u64 << bits) - 1, 1 << bits]).filter(|value| *value < 1 << 61),
        );
        round_trip(&values, Number::new, Number::code, |m, c| m.code(c, 0));
        let signed: Vec<i64> =
            values.iter().flat_map(|v| [(v >> 1).cast_signed(), -(v >> 1).cast_signed()]).collect();
        round_trip(&signed, Number::new, Number::signed, |m, c| m.signed(c, 0));
    }

    #[test]
    fn what_repeats_costs_little() {
        let size = round_trip(&vec![7_u64; 10_000], Number::new, Number::code, |m, c| m.code(c, 0));
        assert!(size < 100, "{size} bytes");
        let bytes: Vec<u8> = (0..10_000_u32).map(|i| if i % 3 == 0 { b'a' } else { b'b' }).collect();
        let mut last = 0;
        let mut encoder = Encoder::new();
        let mut model = MixedByte::<2>::new(1, 16);
        for byte in &bytes {
            model.code(&mut encoder, [u64::from(last), 0], 0, *byte);
            last = *byte;
        }
        let coded = encoder.finish();
        assert!(coded.len() < 1200, "{} bytes", coded.len());
        let (mut decoder, mut model, mut last) = (Decoder::new(&coded[..]), MixedByte::<2>::new(1, 16), 0);
        for byte in &bytes {
            last = model.code(&mut decoder, [u64::from(last), 0], 0, 0);
            assert_eq!(last, *byte);
        }
    }

    #[test]
    fn a_stream_that_ends_early_gives_something_and_ends() {
        let mut decoder = Decoder::new(&b"\x01"[..]);
        let mut number = Number::new();
        for _ in 0..1000 {
            number.code(&mut decoder, 0);
        }
        decoder.finish().unwrap();
    }
}
