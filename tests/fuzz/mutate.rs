//! Mutations: of JSON by its structure, of anything by its bytes.

use serde_json::{Map, Value};

/// Words that parsers have opinions about.
const WORDS: [&str; 20] = [
    "",
    "null",
    "-1",
    "0",
    "1e3",
    "9223372036854775808",
    "18446744073709551616",
    "\u{0}",
    "\\ud800",
    "..",
    "../",
    "\\",
    "é",
    "*",
    "?",
    "{release}/",
    "$serde_json::private::RawValue",
    "9999-12-31T23:59:59Z",
    "-009999-01-01T00:00:00Z",
    "-----BEGIN PUBLIC KEY-----",
];

/// Random numbers of a seed (splitmix64): enough for choosing, and for nothing else.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`, which may be 0: then 0.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % (end.max(1) as u64)).unwrap_or(0)
    }

    fn one_in(&mut self, chances: usize) -> bool {
        self.below(chances) == 0
    }

    fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[0]
    }

    fn word(&mut self) -> &'static str {
        WORDS[self.below(WORDS.len())]
    }
}

/// An input made from one of the corpus, and sometimes from two, or from nothing.
pub(crate) fn mutated(corpus: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let seed = &corpus[random.below(corpus.len())];
    let other = &corpus[random.below(corpus.len())];
    if random.one_in(50) {
        let length = random.below(300);
        return (0..length).map(|_| random.byte()).collect();
    }
    let mut input = seed.clone();
    if !random.one_in(4)
        && let (Ok(mut value), Ok(donor)) = (serde_json::from_slice(seed), serde_json::from_slice(other))
    {
        for _ in 0..=random.below(3) {
            change(&mut value, &donor, random);
        }
        input = serde_json::to_vec(&value).unwrap_or_default();
        if !random.one_in(8) {
            return input;
        }
    }
    for _ in 0..=random.below(4) {
        change_bytes(&mut input, other, random);
    }
    input
}

fn change_bytes(input: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    let at = random.below(input.len());
    let end = at + random.below((input.len() - at).min(64));
    match random.below(8) {
        0 if at < input.len() => input[at] ^= 1 << random.below(8),
        1 if at < input.len() => input[at] = random.byte(),
        2 => drop(input.splice(at..at, random.word().bytes())),
        3 => drop(input.drain(at..end)),
        4 => {
            let again = input[at..end].to_vec();
            for _ in 0..=random.below(20) {
                input.splice(at..at, again.iter().copied());
            }
        }
        5 => input.truncate(at),
        6 => {
            let from = random.below(other.len());
            input.truncate(at);
            input.extend_from_slice(&other[from..]);
        }
        _ => drop(input.splice(at..end, [random.byte()])),
    }
}

/// Changes one place of a document, chosen evenly among all.
fn change(value: &mut Value, donor: &Value, random: &mut Random) {
    let mut place = random.below(count(value));
    let chosen = nth(value, &mut place);
    if let Some(chosen) = chosen {
        change_here(chosen, donor, random);
    }
}

fn change_here(value: &mut Value, donor: &Value, random: &mut Random) {
    if random.one_in(3) {
        *value = stranger(donor, random);
        return;
    }
    match value {
        Value::Object(members) => change_members(members, donor, random),
        Value::Array(items) => match (random.below(4), items.len()) {
            (0, 1..) => drop(items.remove(random.below(items.len()))),
            (1, 1..) => {
                let again = items[random.below(items.len())].clone();
                items.resize(items.len() + random.below(200), again);
            }
            (2, 2..) => items.rotate_left(1),
            _ => items.push(stranger(donor, random)),
        },
        Value::String(text) => {
            let mut bytes = std::mem::take(text).into_bytes();
            change_bytes(&mut bytes, b"0123456789abcdef", random);
            *text = String::from_utf8_lossy(&bytes).into_owned();
        }
        Value::Number(number) => {
            let near = number.as_u64().unwrap_or(0);
            let candidates =
                [near.wrapping_add(1), near.wrapping_sub(1), near << 1, u64::MAX, i64::MAX as u64, 0];
            *value = candidates[random.below(candidates.len())].into();
        }
        Value::Bool(claim) => *claim = !*claim,
        Value::Null => *value = stranger(donor, random),
    }
}

fn change_members(members: &mut Map<String, Value>, donor: &Value, random: &mut Random) {
    let name = members.keys().nth(random.below(members.len())).cloned().unwrap_or_default();
    match random.below(4) {
        0 => drop(members.remove(&name)),
        1 => {
            let value = members.remove(&name).unwrap_or_default();
            members.insert(format!("{name}{}", random.word()), value);
        }
        2 => {
            let value = members.get(&name).cloned().unwrap_or_default();
            for number in 0..random.below(200) {
                members.insert(format!("{name}{number}"), value.clone());
            }
        }
        _ => drop(members.insert(random.word().to_owned(), stranger(donor, random))),
    }
}

/// Something else: a word, a number, a part of another document, a deep nest, an object that wants to be noticed.
fn stranger(donor: &Value, random: &mut Random) -> Value {
    match random.below(7) {
        0 => random.word().into(),
        1 => i64::from_le_bytes(random.next().to_le_bytes()).into(),
        2 => Value::Null,
        3 => {
            let depth = random.below(140);
            (0..depth).fold(Value::Null, |inner, _| Value::Array(vec![inner]))
        }
        4 => Map::from_iter([(random.word().to_owned(), Value::from(random.word()))]).into(),
        _ => {
            let mut place = random.below(count(donor));
            nth(&mut donor.clone(), &mut place).map(Value::take).unwrap_or_default()
        }
    }
}

fn count(value: &Value) -> usize {
    1 + match value {
        Value::Object(members) => members.values().map(count).sum(),
        Value::Array(items) => items.iter().map(count).sum(),
        _ => 0,
    }
}

/// The value that is `place` values into the document.
fn nth<'a>(value: &'a mut Value, place: &mut usize) -> Option<&'a mut Value> {
    if *place == 0 {
        return Some(value);
    }
    *place -= 1;
    match value {
        Value::Object(members) => members.values_mut().find_map(|member| nth(member, place)),
        Value::Array(items) => items.iter_mut().find_map(|item| nth(item, place)),
        _ => None,
    }
}
