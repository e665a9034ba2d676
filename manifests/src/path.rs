//! Names that become paths: of targets, of entries in a release, and the patterns that delegate them.
//!
//! Threats and the defence for each:
//! - *A name that leaves its directory* (CVE-2021-41149, CVE-2026-6968: `..`, absolute, drive letter, back-slash):
//!   [`EntryPath`] cannot hold one; [`TargetPath`] holds any string, as TUF allows, but gives out path segments only
//!   after the same check.
//! - *A pattern that matches more on one system than on another* (GHSA-qp9x-wp8f-qgjj): [`PathPattern`] is our own
//!   matcher, case-sensitive, over `/` only; `*` and `?` never cross a `/`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::Digest;

/// The longest path that Linux opens in one call (`PATH_MAX`), and more than a school's software needs.
const MAX_PATH_BYTES: usize = 1024;
/// The longest name of one file on the file systems in use.
const MAX_SEGMENT_BYTES: usize = 255;

/// Why a text is not a safe relative path.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{path}` is not a safe relative path: {why}")]
pub struct PathError {
    path: String,
    why: &'static str,
}

fn check_relative(path: &str) -> Result<(), PathError> {
    let refuse = |why| Err(PathError { path: path.chars().take(200).collect(), why });
    if path.is_empty() {
        return refuse("it is empty");
    }
    if path.len() > MAX_PATH_BYTES {
        return refuse("it is longer than 1024 bytes");
    }
    if path.chars().any(char::is_control) {
        return refuse("it holds a control character");
    }
    if path.contains('\\') || path.contains(':') {
        return refuse("it holds `\\` or `:`, which lead elsewhere on Windows");
    }
    for segment in path.split('/') {
        match segment {
            "" => return refuse("it is absolute, or a segment is empty"),
            "." | ".." => return refuse("it holds `.` or `..`"),
            _ if segment.len() > MAX_SEGMENT_BYTES => return refuse("a segment is longer than 255 bytes"),
            _ => {}
        }
    }
    Ok(())
}

macro_rules! string_serde {
    ($type:ty) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}
pub(crate) use string_serde;

/// The path of an entry within a release: relative, normalised, `/`-separated, without `.`, `..`, control characters,
/// back-slashes or colons.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryPath(String);

string_serde!(EntryPath);

impl FromStr for EntryPath {
    type Err = PathError;

    fn from_str(path: &str) -> Result<Self, PathError> {
        check_relative(path)?;
        Ok(Self(path.to_owned()))
    }
}

impl EntryPath {
    /// The path as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The path's directories, nearest to the root first: `a`, `a/b` for `a/b/c`.
    pub fn ancestors(&self) -> impl Iterator<Item = &str> {
        self.0.match_indices('/').map(|(at, _)| &self.0[..at])
    }

    /// The last segment.
    pub fn file_name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }

    /// Checks that a symbolic link at this path to `target` stays inside the release, whatever other links there are.
    ///
    /// `..` may only lead: the directories above a link are real ones, so climbing them is what it looks like. After a
    /// name it is not, for the name may be a link itself, and what lies above *its* target is anywhere.
    pub fn check_link(&self, target: &str) -> Result<(), PathError> {
        let refuse = |why| Err(PathError { path: format!("{self} -> {target}"), why });
        if target.is_empty() || target.len() > MAX_PATH_BYTES {
            return refuse("the link's target is empty or longer than 1024 bytes");
        }
        if target.starts_with('/') || target.contains('\\') || target.contains(':') {
            return refuse("the link's target is absolute");
        }
        if target.chars().any(char::is_control) {
            return refuse("the link's target holds a control character");
        }
        let climbs = target.split('/').take_while(|segment| *segment == "..").count();
        if climbs > self.ancestors().count() {
            return refuse("the link leads out of the release");
        }
        if target.split('/').skip(climbs).any(|segment| segment == "..") {
            return refuse("the link's target holds `..` after a name");
        }
        Ok(())
    }
}

/// The name of a TUF target (TUF 1.0.34, 4.5): any string.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TargetPath(String);

impl TargetPath {
    /// A target path from any text.
    pub fn new(path: impl Into<String>) -> Self {
        Self(path.into())
    }

    /// The path as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// `dir/DIGEST.name`: where a repository with consistent snapshots keeps the target (TUF 1.0.34, 6.2).
    /// Refuses a path that would leave the directory it is joined to.
    pub fn hashed(&self, digest: &str) -> Result<String, PathError> {
        check_relative(&self.0)?;
        Ok(match self.0.rsplit_once('/') {
            Some((directory, name)) => format!("{directory}/{digest}.{name}"),
            None => format!("{digest}.{}", self.0),
        })
    }

    /// The path itself: where a repository without consistent snapshots keeps the target. Refuses as `hashed` does.
    pub fn plain(&self) -> Result<String, PathError> {
        check_relative(&self.0)?;
        Ok(self.0.clone())
    }

    /// The digest that `path_hash_prefixes` are compared with (TUF 1.0.34, 4.5).
    pub fn path_hash(&self) -> Digest {
        Digest::of(self.0.as_bytes())
    }
}

impl fmt::Display for TargetPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A shell-style pattern over paths: `*` any run, `?` any one character, neither crossing a `/`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PathPattern(String);

impl PathPattern {
    /// A pattern from its text.
    pub fn new(pattern: impl Into<String>) -> Self {
        Self(pattern.into())
    }

    /// The pattern as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// True when the pattern covers `path`, segment by segment.
    pub fn matches(&self, path: &str) -> bool {
        let mut pattern = self.0.split('/');
        let mut path = path.split('/');
        loop {
            match (pattern.next(), path.next()) {
                (None, None) => return true,
                (Some(pattern), Some(segment)) if segment_matches(pattern, segment) => {}
                _ => return false,
            }
        }
    }
}

/// Greedy matching with one point to return to: linear in practice, quadratic at worst, never exponential.
fn segment_matches(pattern: &str, text: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let text: Vec<char> = text.chars().collect();
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(&c) if c == '?' || c == text[t] => {
                p += 1;
                t += 1;
            }
            _ => {
                let Some((star_p, star_t)) = star else { return false };
                star = Some((star_p, star_t + 1));
                p = star_p + 1;
                t = star_t + 1;
            }
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_paths_that_lead_elsewhere() {
        let long = "a/".repeat(600) + "a";
        let wide = "a".repeat(256);
        for path in [
            "",
            "/etc/passwd",
            "a//b",
            "a/",
            "./a",
            "a/../b",
            "..",
            "C:/x",
            "a\\b",
            "a\nb",
            "a\0",
            &long,
            &wide,
        ] {
            assert!(path.parse::<EntryPath>().is_err(), "{path:?}");
            assert!(TargetPath::new(path).hashed("00").is_err(), "{path:?}");
        }
        for path in ["a", "a/b.c", "..a/b..", "é/œuf", "a b"] {
            assert!(path.parse::<EntryPath>().is_ok(), "{path:?}");
        }
    }

    #[test]
    fn a_link_stays_inside() {
        let at = |path: &str, target: &str| path.parse::<EntryPath>().unwrap().check_link(target);
        for (path, target) in [("a/b", "../c"), ("a", "b"), ("a/b/c", "../../d"), ("a/b", "./x")] {
            assert!(at(path, target).is_ok(), "{path} -> {target}");
        }
        for (path, target) in [
            ("a", ".."),
            ("a", "../b"),
            ("a/b", "../../c"),
            ("a", "/etc"),
            ("a", ""),
            ("a/b", "../../a/b"),
            // Harmless by itself; with a link at x to somewhere shallow it leaves.
            ("a/b", "x/../../c"),
            ("l", "a/b/x/../../../etc/passwd"),
            ("a/b", "./../../c"),
            ("a", "C:x"),
        ] {
            assert!(at(path, target).is_err(), "{path} -> {target}");
        }
    }

    /// sigstore-rust#174, spec#173, GHSA-qp9x-wp8f-qgjj.
    #[test]
    fn patterns_never_cross_a_slash() {
        let cases = [
            ("packages/*/*/*/release.json", "packages/ruff/1/any/release.json", true),
            ("packages/*/*/*/release.json", "packages/ruff/1/any/x/release.json", false),
            ("packages/*", "packages/a/b", false),
            ("*", "a/b", false),
            ("*.json", "a.json", true),
            ("?.json", "ab.json", false),
            ("a*b*c", "aXbYc", true),
            ("a*b*c", "aXbY", false),
            ("A", "a", false),
            ("**", "a/b", false),
        ];
        for (pattern, path, expected) in cases {
            assert_eq!(PathPattern::new(pattern).matches(path), expected, "{pattern} on {path}");
        }
    }

    #[test]
    fn the_hash_goes_before_the_last_segment() {
        assert_eq!(TargetPath::new("dir/sub/name").hashed("00").unwrap(), "dir/sub/00.name");
        assert_eq!(TargetPath::new("name").hashed("00").unwrap(), "00.name");
    }
}
