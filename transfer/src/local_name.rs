//! Names from metadata as names of files here: of roles in the store, of targets that were downloaded.
//!
//! Invariant: a name has one file name, and no two names have the same, on any file system. What is not plain lower-case
//! text is named by its digest, after a prefix that no plain name has.
//!
//! Threats and the defence for each:
//! - *A name that is a path* (CVE-2021-41131, CVE-2021-41149): `/` and `\` are percent-encoded, a leading dot is not plain.
//! - *Two names that a file system takes for one* (`ROOT` for `root`): capitals are not plain, nor is a dot at the end,
//!   which Windows drops.
//! - *A name that Windows opens as a device* (`NUL`, `com1.txt`): not plain.
//! - *A name longer than a file's may be*: not plain.

use mirabelle_manifests::Digest;
use mirabelle_manifests::tuf::RoleName;

/// The longest name that is kept as it is: shorter than file systems take, with room for what is put around it.
const MAX_NAME_BYTES: usize = 160;
/// No plain name has it: `=` is percent-encoded there.
const DIGEST_PREFIX: &str = "sha256=";

/// The file name that stands for `name`, and for no other.
pub(crate) fn local_name(name: &str) -> String {
    let stem = RoleName::new(name).file_stem();
    if is_plain(name) && stem.len() <= MAX_NAME_BYTES {
        return stem;
    }
    format!("{DIGEST_PREFIX}{}", Digest::of(name.as_bytes()))
}

fn is_plain(name: &str) -> bool {
    let capital = name.bytes().any(|byte| byte.is_ascii_uppercase());
    !(name.is_empty() || name.starts_with('.') || name.ends_with('.') || capital || is_device(name))
}

/// Microsoft, "Naming Files, Paths, and Namespaces": with any extension, in any directory.
fn is_device(name: &str) -> bool {
    let stem = name.split('.').next().unwrap_or_default();
    match stem.as_bytes() {
        b"con" | b"prn" | b"aux" | b"nul" => true,
        [b'c', b'o', b'm', digit] | [b'l', b'p', b't', digit] => digit.is_ascii_digit(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_names_stay_readable_and_others_get_their_digest() {
        for (name, expected) in [
            ("catalogue", Some("catalogue")),
            ("packages/ruff/1/any/release.json", Some("packages%2Fruff%2F1%2Fany%2Frelease.json")),
            ("é", Some("%C3%A9")),
            ("console", Some("console")),
            ("com", Some("com")),
            ("ROOT", None),
            ("nul.json", None),
            ("com1", None),
            ("../x", None),
            ("a.", None),
            ("", None),
        ] {
            let digest = format!("sha256={}", Digest::of(name.as_bytes()));
            assert_eq!(local_name(name), expected.map_or(digest, ToOwned::to_owned));
        }
        assert_eq!(local_name(&"x".repeat(1000)).len(), 71);
        // Nor does a name that spells another's digest take its place.
        assert_ne!(local_name(&local_name("ROOT")), local_name("ROOT"));
    }
}
