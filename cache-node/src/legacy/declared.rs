//! Legacy repositories as `node.toml` declares them.
//!
//! ```toml
//! legacy-quota = "20 GiB"                    # of all of them together
//!
//! [[legacy]]
//! name = "debian"                            # http://<node>/legacy/debian/
//! upstream = "http://deb.example/debian/"
//! fresh-for = "5 min"                        # so long, what may change is not asked for again
//! immutable = ["pool/", "by-hash/", ".deb"]  # directories and endings of what never changes under its name
//! ```

use std::time::Duration;

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};

use super::path::LegacyPath;

/// Long enough for a room to update from one look, short enough that nobody waits for a fix.
const FRESH_FOR: Duration = Duration::from_mins(5);
/// What never changes in the repositories that we know.
const IMMUTABLE: [&str; 4] = ["pool/", "by-hash/", ".deb", ".rpm"];
const MAX_NAME_BYTES: usize = 40;
const MAX_IMMUTABLE: usize = 32;

/// `[[legacy]]` as written.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct DeclaredFile {
    name: String,
    upstream: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    fresh_for: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    immutable: Option<Vec<String>>,
}

/// One that is in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Declared {
    pub(crate) name: String,
    pub(crate) upstream: reqwest::Url,
    pub(super) fresh_for: Duration,
    immutable: Vec<String>,
}

/// What is wrong with one.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DeclaredError {
    #[error("`{0}` is no name of a legacy repository: small letters, digits and hyphens")]
    Name(String),
    #[error("`{0}` is no address of a legacy repository, such as `http://deb.example/debian/`")]
    Upstream(String),
    #[error("`{0}` is not a time that something stays fresh; write `5 min`")]
    FreshFor(String),
    #[error(
        "`immutable` of `{0}` names directories such as `pool/` or endings such as `.deb`, {MAX_IMMUTABLE} at most"
    )]
    Immutable(String),
    #[error("there are two legacy repositories `{0}`")]
    Twice(String),
}

impl Declared {
    /// Reads all of them.
    pub(crate) fn read(files: Vec<DeclaredFile>) -> Result<Vec<Self>, DeclaredError> {
        let mut read: Vec<Self> = Vec::new();
        for file in files {
            let declared = Self::of(file)?;
            if read.iter().any(|other| other.name == declared.name) {
                return Err(DeclaredError::Twice(declared.name));
            }
            read.push(declared);
        }
        Ok(read)
    }

    fn of(file: DeclaredFile) -> Result<Self, DeclaredError> {
        let DeclaredFile { name, upstream, fresh_for, immutable } = file;
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if name.is_empty() || name.len() > MAX_NAME_BYTES || !name.bytes().all(plain) {
            return Err(DeclaredError::Name(name));
        }
        let slash = if upstream.ends_with('/') { "" } else { "/" };
        let url = reqwest::Url::parse(&format!("{upstream}{slash}")).ok().filter(|url| {
            let is_web = matches!(url.scheme(), "http" | "https") && url.has_host();
            is_web && url.query().is_none() && url.fragment().is_none()
        });
        let url = url.ok_or(DeclaredError::Upstream(upstream))?;
        let fresh_for = match fresh_for {
            None => FRESH_FOR,
            Some(text) => {
                let read = text.parse::<SignedDuration>().ok();
                let read = read.and_then(|read| Duration::try_from(read).ok());
                read.ok_or(DeclaredError::FreshFor(text))?
            }
        };
        let immutable = immutable.unwrap_or_else(|| IMMUTABLE.iter().map(ToString::to_string).collect());
        let names_one = |pattern: &String| {
            (pattern.ends_with('/') != pattern.starts_with('.'))
                && pattern.len() > 1
                && !pattern.starts_with('/')
        };
        if immutable.len() > MAX_IMMUTABLE || !immutable.iter().all(names_one) {
            return Err(DeclaredError::Immutable(name));
        }
        Ok(Self { name, upstream: url, fresh_for, immutable })
    }

    /// True for a file that never changes under its name.
    pub(super) fn never_changes(&self, path: &LegacyPath) -> bool {
        let below = format!("/{}", path.below());
        self.immutable.iter().any(|pattern| {
            if pattern.starts_with('.') {
                below.ends_with(pattern.as_str())
            } else {
                below.contains(&format!("/{pattern}"))
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(toml: &str) -> Result<Declared, DeclaredError> {
        Declared::of(toml::from_str(toml).unwrap())
    }

    #[test]
    fn packages_and_files_named_by_digest_never_change_and_lists_do() {
        let declared = read("name = \"debian\"\nupstream = \"http://deb.example/debian\"").unwrap();
        assert_eq!(declared.upstream.as_str(), "http://deb.example/debian/");
        for (below, expected) in [
            ("pool/main/h/hello/hello_2.10-3_amd64.deb", true),
            ("dists/stable/main/binary-amd64/by-hash/SHA256/00ff", true),
            ("other/hello.deb", true),
            ("dists/stable/InRelease", false),
            ("dists/whirlpool/InRelease", false),
        ] {
            let path = LegacyPath::parse("debian", below).unwrap();
            assert_eq!(declared.never_changes(&path), expected, "{below}");
        }
    }

    #[test]
    fn what_is_declared_wrongly_is_refused() {
        for toml in [
            "name = \"Debian\"\nupstream = \"http://deb.example/\"",
            "name = \"../x\"\nupstream = \"http://deb.example/\"",
            "name = \"a\"\nupstream = \"file:///etc\"",
            "name = \"a\"\nupstream = \"http://deb.example/?a=b\"",
            "name = \"a\"\nupstream = \"http://deb.example/\"\nfresh-for = \"soon\"",
            "name = \"a\"\nupstream = \"http://deb.example/\"\nimmutable = [\"pool\"]",
            "name = \"a\"\nupstream = \"http://deb.example/\"\nimmutable = [\"/\"]",
        ] {
            assert!(read(toml).is_err(), "{toml}");
        }
    }
}
