//! The names that people give: packages, versions, platforms, colleges.
//!
//! Each is checked once, when it is parsed, and is then safe as a segment of a path and of a URL.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

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

impl Platform {
    /// Runs everywhere.
    pub fn any() -> Self {
        Self("any".to_owned())
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
