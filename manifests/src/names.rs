//! The names that people give: packages, versions, platforms, colleges.
//!
//! Each is checked once, when it is parsed, and is then safe as a segment of a path and of a URL.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::EntryPath;
use crate::path::string_serde;

/// Why a text is not a name of its kind.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{text}` is not a {kind}: {rule}")]
pub struct NameError {
    text: String,
    kind: &'static str,
    rule: &'static str,
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $kind:literal, $max:literal, $rule:literal, $allowed:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type(String);

        string_serde!($type);

        impl $type {
            /// The name as written.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $type {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                let allowed: fn(char) -> bool = $allowed;
                let starts_well = text.starts_with(|c: char| c.is_ascii_alphanumeric());
                if !starts_well || text.len() > $max || !text.chars().all(allowed) {
                    return Err(NameError { text: text.chars().take(80).collect(), kind: $kind, rule: $rule });
                }
                Ok(Self(text.to_owned()))
            }
        }
    };
}

name!(
    /// The name of a piece of software: `geogebra`.
    PackageName,
    "package name",
    64,
    "lower-case letters, digits, `+`, `-`, `.`, beginning with a letter or digit, at most 64",
    |c| c.is_ascii_lowercase() || c.is_ascii_digit() || "+-.".contains(c)
);
name!(
    /// A version as its author writes it. For people: what is newer is said by a release's sequence.
    Version,
    "version",
    64,
    "letters, digits, `+`, `-`, `.`, `~`, `_`, beginning with a letter or digit, at most 64",
    |c| c.is_ascii_alphanumeric() || "+-.~_".contains(c)
);
name!(
    /// What a release runs on: `linux-x86_64`, `windows-x86_64`, or [`Platform::any`].
    Platform,
    "platform",
    32,
    "lower-case letters, digits, `-`, `_`, at most 32",
    |c| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_".contains(c)
);
name!(
    /// A college, by its code: `57001`.
    SiteId,
    "college code",
    32,
    "letters, digits, `-`, at most 32",
    |c| c.is_ascii_alphanumeric() || c == '-'
);

name!(
    /// A room of a college: `B12`.
    RoomName,
    "room name",
    32,
    "letters, digits, `-`, `.`, `_`, beginning with a letter or digit, at most 32",
    |c| c.is_ascii_alphanumeric() || "-._".contains(c)
);
name!(
    /// A word that some workstations have in common: `exam`, `touchscreen`.
    Tag,
    "tag",
    32,
    "lower-case letters, digits, `-`, beginning with a letter or digit, at most 32",
    |c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'
);
name!(
    /// A workstation, by the name it was given at enrolment.
    MachineId,
    "machine name",
    64,
    "letters, digits, `-`, `.`, `_`, beginning with a letter or digit, at most 64",
    |c| c.is_ascii_alphanumeric() || "-._".contains(c)
);
name!(
    /// A group of workstations that the deployment names: `technology-rooms`.
    GroupName,
    "group name",
    64,
    "lower-case letters, digits, `-`, beginning with a letter or digit, at most 64",
    |c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'
);
name!(
    /// A value that the deployment gives to the settings of releases: `proxy`.
    ValueName,
    "value name",
    64,
    "lower-case letters, digits, `-`, `_`, beginning with a letter or digit, at most 64",
    |c| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_".contains(c)
);
name!(
    /// A user or group of the machine's system.
    MachineUser,
    "user of a machine",
    32,
    "lower-case letters, digits, `-`, `_`, beginning with a letter or digit, at most 32",
    |c| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_".contains(c)
);

impl MachineUser {
    /// The administrator.
    pub fn root() -> Self {
        Self("root".to_owned())
    }
}

/// A file of the machine: absolute, normalised, without `.`, `..` or control characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SystemPath(String);

string_serde!(SystemPath);

impl SystemPath {
    /// The path as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for SystemPath {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let inside = text.strip_prefix('/').filter(|inside| inside.parse::<EntryPath>().is_ok());
        match inside {
            Some(_) => Ok(Self(text.to_owned())),
            None => Err(NameError {
                text: text.chars().take(80).collect(),
                kind: "file of a machine",
                rule: "an absolute path without `.`, `..`, `\\`, `:` or empty parts",
            }),
        }
    }
}

/// A MIME type (RFC 6838): `application/vnd.geogebra.file`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MimeType(String);

string_serde!(MimeType);

impl MimeType {
    /// The type as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for MimeType {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let word = |word: &str| {
            word.starts_with(|c: char| c.is_ascii_alphanumeric())
                && word.len() <= 127
                && word.chars().all(|c| c.is_ascii_alphanumeric() || "!#$&-^_.+".contains(c))
        };
        match text.split_once('/') {
            Some((kind, subtype)) if word(kind) && word(subtype) => Ok(Self(text.to_owned())),
            _ => Err(NameError {
                text: text.chars().take(80).collect(),
                kind: "MIME type",
                rule: "a type and a subtype, as in `text/plain`",
            }),
        }
    }
}

impl Platform {
    /// Runs everywhere.
    pub fn any() -> Self {
        Self("any".to_owned())
    }

    /// Before every other in order.
    pub(crate) fn first() -> Self {
        Self(String::new())
    }

    /// What this program runs on.
    pub fn current() -> Self {
        Self(format!("{}-{}", std::env::consts::OS, std::env::consts::ARCH))
    }

    /// True when a release for this platform runs on `machine`.
    pub fn runs_on(&self, machine: &Self) -> bool {
        self == machine || *self == Self::any()
    }
}

/// A text in the two languages of every page: French first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Text {
    /// French.
    pub fr: String,
    /// English.
    pub en: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_safe_in_paths() {
        for bad in ["", "..", ".x", "-x", "A/b", "a b", "é", "a\n", &"a".repeat(65)] {
            assert!(bad.parse::<PackageName>().is_err(), "{bad:?}");
            assert!(bad.parse::<Version>().is_err(), "{bad:?}");
        }
        for good in ["geogebra", "7zip", "lib-x+y.z"] {
            assert!(good.parse::<PackageName>().is_ok(), "{good:?}");
        }
        assert!("1:2.0".parse::<Version>().is_err());
        assert!("2.0~rc1-3+deb12u1".parse::<Version>().is_ok());
    }

    #[test]
    fn any_runs_everywhere() {
        let linux: Platform = "linux-x86_64".parse().unwrap();
        assert!(Platform::any().runs_on(&linux));
        assert!(linux.runs_on(&linux));
        assert!(!"windows-x86_64".parse::<Platform>().unwrap().runs_on(&linux));
    }
}
