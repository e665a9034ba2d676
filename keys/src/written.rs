//! A key that a person writes down: `K7QF-2M9X-PWTD-8RSA`.
//!
//! Sixteen letters and digits of Crockford's alphabet are 80 random bits: whoever has the public half cannot find them by trying.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::SigningKey;

const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
const LETTERS: usize = 16;

/// The letters. They never print themselves.
#[derive(Clone, PartialEq, Eq)]
pub struct WrittenKey(Zeroizing<String>);

/// Why a text is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a code has sixteen letters and digits, as in `K7QF-2M9X-PWTD-8RSA`")]
pub struct WrittenKeyError;

impl WrittenKey {
    /// A new one.
    ///
    /// # Panics
    /// When the system has no randomness to give; there is nothing safe to go on with.
    pub fn generate() -> Self {
        let mut random = Zeroizing::new([0_u8; LETTERS]);
        getrandom::fill(random.as_mut_slice()).expect("the system's random number generator works");
        let letters = random.iter().map(|byte| char::from(ALPHABET[usize::from(byte % 32)]));
        Self(Zeroizing::new(letters.collect()))
    }

    /// The key that it stands for; another one for each purpose.
    pub fn key(&self, purpose: &str) -> SigningKey {
        let text = Zeroizing::new(format!("{purpose}\n{}", self.0.as_str()));
        SigningKey::from_seed(&Sha256::digest(text.as_bytes()).into())
    }

    /// In groups of four, for a person.
    pub fn shown(&self) -> Zeroizing<String> {
        let groups: Vec<&str> =
            (0..LETTERS).step_by(4).filter_map(|begin| self.0.get(begin..begin + 4)).collect();
        Zeroizing::new(groups.join("-"))
    }
}

impl FromStr for WrittenKey {
    type Err = WrittenKeyError;

    /// Takes it as people type it: in small letters, with blanks, `O` for `0`, `I` and `L` for `1`.
    fn from_str(text: &str) -> Result<Self, WrittenKeyError> {
        let mut letters = Zeroizing::new(String::with_capacity(LETTERS));
        for letter in text.chars().filter(|letter| !letter.is_whitespace() && *letter != '-') {
            let letter = match letter.to_ascii_uppercase() {
                'O' => '0',
                'I' | 'L' => '1',
                letter => letter,
            };
            if letters.len() == LETTERS || !letter.is_ascii() || !ALPHABET.contains(&(letter as u8)) {
                return Err(WrittenKeyError);
            }
            letters.push(letter);
        }
        if letters.len() == LETTERS { Ok(Self(letters)) } else { Err(WrittenKeyError) }
    }
}

impl fmt::Debug for WrittenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WrittenKey(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_read_as_people_type_it() {
        for (text, good) in [
            ("K7QF-2M9X-PWTD-8RSA", true),
            ("k7qf 2m9x pwtd 8rsa", true),
            ("K7QF2M9XPWTDORIL", true),
            ("K7QF-2M9X-PWTD-8RS", false),
            ("K7QF-2M9X-PWTD-8RSAA", false),
            ("K7QF-2M9X-PWTD-8RSU", false),
            ("K7QF-2M9X-PWTD-8RSÉ", false),
            ("", false),
        ] {
            assert_eq!(text.parse::<WrittenKey>().is_ok(), good, "{text}");
        }
    }

    #[test]
    fn each_purpose_has_its_own_key_and_what_is_shown_is_read_again() {
        let written = WrittenKey::generate();
        let again: WrittenKey = written.shown().parse().unwrap();
        assert_eq!(again, written);
        assert_eq!(again.key("one").public(), written.key("one").public());
        assert_ne!(written.key("one").public(), written.key("another").public());
        assert_ne!(WrittenKey::generate(), written);
        assert!(!format!("{written:?}").contains(written.shown().as_str()));
    }
}
