//! What is asked for of a legacy repository: a path of plain segments.
//!
//! A request's path is decoded once (`%2b` is `+`), looked at, and written anew in one way, so that two spellings are one file, here and
//! on the upstream. A percent sign that is part of a name stays one (`1%253a2.deb`).
//!
//! Threats: `..`, empty or hidden separators, NUL: refused, whichever way they are written. Names are bounded.

use std::fmt::{self, Write as _};

use mirabelle_manifests::Digest;

const MAX_PATH_BYTES: usize = 1024;
const MAX_SEGMENTS: usize = 32;

/// A file of a legacy repository.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct LegacyPath {
    repository: String,
    /// As it is asked of the upstream: encoded where it must be.
    below: String,
}

impl LegacyPath {
    /// Reads what follows the repository's name.
    pub(super) fn parse(repository: &str, asked: &str) -> Option<Self> {
        if asked.is_empty() || asked.len() > MAX_PATH_BYTES || asked.split('/').count() > MAX_SEGMENTS {
            return None;
        }
        let mut below = String::with_capacity(asked.len());
        for segment in asked.split('/') {
            let decoded = decode(segment)?;
            let is_hidden = |byte: &u8| *byte == b'/' || *byte == b'\\' || byte.is_ascii_control();
            if matches!(&decoded[..], b"" | b"." | b"..") || decoded.iter().any(is_hidden) {
                return None;
            }
            if !below.is_empty() {
                below.push('/');
            }
            for byte in decoded {
                if byte.is_ascii_alphanumeric() || b"-._~+:@,=".contains(&byte) {
                    below.push(byte.into());
                } else {
                    let _ = write!(below, "%{byte:02X}");
                }
            }
        }
        (below.len() <= 3 * MAX_PATH_BYTES).then(|| Self { repository: repository.to_owned(), below })
    }

    /// The repository's name.
    pub(super) fn repository(&self) -> &str {
        &self.repository
    }

    /// The path below the upstream's address.
    pub(super) fn below(&self) -> &str {
        &self.below
    }

    /// What it is called on the disk.
    pub(super) fn key(&self) -> Digest {
        Digest::of(self.below.as_bytes())
    }

    /// The SHA-256 that its name promises, as APT's `by-hash/SHA256/…` does.
    pub(super) fn promised(&self) -> Option<Digest> {
        let (_, hex) = self.below.rsplit_once("by-hash/SHA256/")?;
        hex.parse().ok()
    }
}

impl fmt::Display for LegacyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.repository, self.below)
    }
}

fn decode(segment: &str) -> Option<Vec<u8>> {
    let mut bytes = segment.bytes();
    let mut decoded = Vec::with_capacity(segment.len());
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let digits = [bytes.next()?, bytes.next()?];
            if !digits.iter().all(u8::is_ascii_hexdigit) {
                return None;
            }
            decoded.push(u8::from_str_radix(str::from_utf8(&digits).ok()?, 16).ok()?);
        } else {
            decoded.push(byte);
        }
    }
    Some(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn below(asked: &str) -> Option<String> {
        LegacyPath::parse("debian", asked).map(|path| path.below)
    }

    #[test]
    fn two_spellings_are_one_file() {
        let plain = below("pool/libstdc++6_12~1_amd64.deb").unwrap();
        assert_eq!(below("pool/libstdc%2b%2b6_12%7e1_amd64.deb").unwrap(), plain);
        assert_eq!(below("pool/libstdc%2B%2B6_12~1_amd64.deb").unwrap(), plain);
        assert_eq!(below("a%20b/%C3%A9").unwrap(), "a%20b/%C3%A9");
        assert_eq!(below("1%253a2.deb").unwrap(), "1%253a2.deb", "a percent sign in a name stays one");
    }

    #[test]
    fn no_path_leaves_its_directory() {
        let long = "a".repeat(2000);
        let deep = "a/".repeat(40) + "a";
        for asked in [
            "",
            "/",
            "a//b",
            "a/",
            "/etc/passwd",
            "..",
            "../x",
            "a/../../x",
            "a/./b",
            "%2e%2e/x",
            "a/%2E./x",
            "a%2fb",
            "a%5cb",
            "a\\b",
            "a%00",
            "a%0ab",
            "a%",
            "a%2",
            "a%zz",
            "a%+1",
            &long,
            &deep,
        ] {
            assert_eq!(below(asked), None, "{asked}");
        }
    }

    #[test]
    fn a_file_named_by_its_digest_promises_it() {
        let digest = Digest::of(b"list");
        let path = |asked: &str| LegacyPath::parse("debian", asked).unwrap();
        assert_eq!(path(&format!("dists/x/by-hash/SHA256/{digest}")).promised(), Some(digest));
        assert_eq!(path("dists/x/by-hash/MD5Sum/00").promised(), None);
    }
}
