//! What failed, with what, what to do now; and the exit code.
//!
//! ```text
//! error: cannot install `geogebra` 6.2.1
//!   caused by: http://node.example:8080/ could not be reached in 5 attempts
//!   caused by: connection refused
//! hint: is the node switched on?
//! ```
//!
//! | exit code | kind |
//! |---|---|
//! | 1 | the answer is no: not found, not allowed, somebody else is at it |
//! | 2 | usage or configuration, a wrong passphrase or a busy port among it |
//! | 3 | network |
//! | 4 | refused for trust reasons |
//! | 5 | this machine: its disk, or a fault of ours |
//!
//! Tampering never sounds like a network fault.

use std::error::Error;
use std::fmt::Write as _;
use std::io;

use mirabelle_content::archive::ArchiveError;
use mirabelle_content::bundle::{BundleError, WriteError};
use mirabelle_content::delta::EncodeError;
use mirabelle_content::{ObjectError, StagingError, TreeError};
use mirabelle_keys::{KeyringError, SealError, SigningError, UnsealedKeyError, WrittenKeyError};
use mirabelle_manifests::tuf::{MetadataError, SignError};
use mirabelle_manifests::{
    CatalogueError, DeploymentError, PackagerRefusal, Refusal, ReleaseError, ShowcaseError,
};
use mirabelle_transfer::{FetchError, ObtainError, RefreshError, StoreError, TufError};

/// What sort of failure, and so the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The answer is no.
    No,
    /// The command or the configuration is wrong.
    Usage,
    /// The network, or a server.
    Network,
    /// Somebody sent or kept what was not signed for.
    Trust,
    /// This machine.
    Machine,
}

impl Kind {
    /// The exit code.
    pub fn code(self) -> u8 {
        match self {
            Self::No => 1,
            Self::Usage => 2,
            Self::Network => 3,
            Self::Trust => 4,
            Self::Machine => 5,
        }
    }
}

/// What a machine says when it lacks something for now.
const MAY_PASS: [io::ErrorKind; 6] = [
    io::ErrorKind::StorageFull,
    io::ErrorKind::QuotaExceeded,
    io::ErrorKind::ReadOnlyFilesystem,
    io::ErrorKind::OutOfMemory,
    io::ErrorKind::WouldBlock,
    io::ErrorKind::ExecutableFileBusy,
];

/// A failed command.
#[derive(Debug)]
pub struct Failure {
    kind: Kind,
    what: String,
    cause: Option<Box<dyn Error + Send + Sync>>,
    hint: Option<String>,
}

impl Failure {
    /// The answer is no.
    pub fn no(what: impl Into<String>) -> Self {
        Self::new(Kind::No, what)
    }

    /// The command or configuration is wrong.
    pub fn usage(what: impl Into<String>) -> Self {
        Self::new(Kind::Usage, what)
    }

    /// Refused for trust reasons.
    pub fn trust(what: impl Into<String>) -> Self {
        Self::new(Kind::Trust, what)
    }

    fn new(kind: Kind, what: impl Into<String>) -> Self {
        Self { kind, what: what.into(), cause: None, hint: None }
    }

    /// With this advice, in place of any other.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// What sort of failure it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// True when the machine lacked what it may have another time: room on its disk, memory, a disk that can be written. So
    /// trying again later is worth it, as it is for nothing else.
    pub fn may_pass(&self) -> bool {
        let mut cause = self.cause.as_deref().map(|cause| cause as &(dyn Error + 'static));
        while let Some(error) = cause {
            let of_system = error.downcast_ref::<io::Error>();
            if of_system.is_some_and(|error| MAY_PASS.contains(&error.kind())) {
                return true;
            }
            // An error that an `io::Error` was made of is not its source, but speaks through it.
            let within = of_system.and_then(io::Error::get_ref).map(|error| error as &(dyn Error + 'static));
            cause = within.or_else(|| error.source());
        }
        false
    }

    /// What failed, then each cause, then the hint, a line each.
    pub fn render(&self) -> String {
        let mut text = format!("error: {}\n", self.what);
        let mut cause = self.cause.as_deref().map(|cause| cause as &dyn Error);
        let mut last = self.what.clone();
        while let Some(error) = cause {
            let sentence = error.to_string();
            // A transparent error speaks with its source's voice; once is enough.
            if sentence != last {
                let _ = writeln!(text, "  caused by: {sentence}");
            }
            last = sentence;
            cause = error.source();
        }
        if let Some(hint) = &self.hint {
            let _ = writeln!(text, "hint: {hint}");
        }
        text
    }
}

/// Names what failed. The kind and a hint come from the error.
pub trait OrFail<T> {
    /// Turns an error into a failure of the command.
    ///
    /// # Errors
    /// The failure.
    fn or_fail(self, what: impl FnOnce() -> String) -> Result<T, Failure>;
}

impl<T, E: Sounds + Error + Send + Sync + 'static> OrFail<T> for Result<T, E> {
    fn or_fail(self, what: impl FnOnce() -> String) -> Result<T, Failure> {
        self.map_err(|error| Failure {
            kind: error.kind(),
            what: what(),
            hint: error.advice(),
            cause: Some(Box::new(error)),
        })
    }
}

/// How an error from below sounds.
pub trait Sounds {
    /// Which exit code it gets.
    fn kind(&self) -> Kind;

    /// What to do now.
    fn advice(&self) -> Option<String> {
        None
    }
}

impl Sounds for io::Error {
    fn kind(&self) -> Kind {
        match self.kind() {
            io::ErrorKind::AddrInUse | io::ErrorKind::AddrNotAvailable => Kind::Usage,
            _ => Kind::Machine,
        }
    }

    fn advice(&self) -> Option<String> {
        match self.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Some("the disk is full: nothing was changed; make room and try again".to_owned())
            }
            io::ErrorKind::AddrInUse => {
                Some("another program listens there: stop it or choose another port".to_owned())
            }
            io::ErrorKind::PermissionDenied => Some("this user may not write there".to_owned()),
            io::ErrorKind::ReadOnlyFilesystem => Some("the file system is mounted read-only".to_owned()),
            _ => None,
        }
    }
}

impl Sounds for FetchError {
    fn kind(&self) -> Kind {
        match self {
            Self::NotFound { .. }
            | Self::Status { .. }
            | Self::Unreachable { .. }
            | Self::TooShort { .. }
            | Self::Undecodable { .. }
            | Self::NoRanges { .. } => Kind::Network,
            Self::TooLong { .. } => Kind::Trust,
            Self::LinkClosed { .. } => Kind::No,
            Self::Client(_) | Self::NotSigned { .. } => Kind::Machine,
            Self::NotAPath { .. } => Kind::Usage,
            Self::Disk(error) => Sounds::kind(error),
        }
    }

    fn advice(&self) -> Option<String> {
        match self {
            Self::Disk(error) => error.advice(),
            Self::LinkClosed { .. } => {
                Some("`mirabelle-node link` says what is allowed when; it goes on by itself".to_owned())
            }
            Self::Unreachable { .. } | Self::TooShort { .. } => {
                Some("the next run goes on where this one stopped".to_owned())
            }
            _ => None,
        }
    }
}

impl Sounds for StoreError {
    fn kind(&self) -> Kind {
        match self {
            Self::Busy(_) => Kind::No,
            Self::NoRoot(_) => Kind::Usage,
            Self::Io(error) => Sounds::kind(error),
        }
    }

    fn advice(&self) -> Option<String> {
        match self {
            Self::Io(error) => error.advice(),
            Self::Busy(_) => Some("wait for it to end, then try again".to_owned()),
            Self::NoRoot(_) => None,
        }
    }
}

impl Sounds for RefreshError {
    fn kind(&self) -> Kind {
        match self {
            Self::Tuf(error) => error.kind(),
            _ => Kind::Trust,
        }
    }

    fn advice(&self) -> Option<String> {
        match self {
            Self::Tuf(error) => error.advice(),
            _ => Some("nothing was changed; what was verified before stays in use".to_owned()),
        }
    }
}

impl Sounds for TufError {
    fn kind(&self) -> Kind {
        match self {
            Self::Fetch(error) => error.kind(),
            Self::Store(error) => error.kind(),
            Self::Incomplete { .. } => Kind::No,
            _ => Kind::Trust,
        }
    }

    fn advice(&self) -> Option<String> {
        match self {
            Self::Fetch(error) => error.advice(),
            Self::Store(error) => error.advice(),
            Self::Incomplete { .. } => Some("refresh again".to_owned()),
            // A machine whose clock runs ahead sees everything expired; saying so saves a search.
            Self::Metadata { source: MetadataError::Expired { now, .. }, .. } => Some(format!(
                "nothing was changed; is it {now:.0} indeed? If this machine's clock is wrong, set it"
            )),
            _ => Some("nothing was changed; what was verified before stays in use".to_owned()),
        }
    }
}

impl Sounds for ObtainError {
    fn kind(&self) -> Kind {
        match self {
            Self::Fetch(error) => error.kind(),
            Self::Manifest(error) => error.kind(),
            Self::NoRoute { .. } => Kind::Network,
            Self::Bundle { .. } | Self::Object { .. } => Kind::Trust,
            Self::Disk(error) => Sounds::kind(error),
            Self::Task(_) => Kind::Machine,
        }
    }

    fn advice(&self) -> Option<String> {
        match self {
            Self::Fetch(error) => error.advice(),
            Self::Manifest(error) => error.advice(),
            Self::Disk(error) => error.advice(),
            Self::Bundle { .. } | Self::Object { .. } => Some("nothing of it was kept".to_owned()),
            Self::NoRoute { .. } | Self::Task(_) => None,
        }
    }
}

impl Sounds for ObjectError {
    fn kind(&self) -> Kind {
        match self {
            Self::DigestMismatch { .. } | Self::SizeMismatch { .. } => Kind::Trust,
            Self::Source { source, .. } | Self::Store(source) => Sounds::kind(source),
        }
    }
}

impl Sounds for BundleError {
    fn kind(&self) -> Kind {
        match self {
            Self::Io(error) => Sounds::kind(error),
            _ => Kind::Trust,
        }
    }
}

impl Sounds for WriteError {
    fn kind(&self) -> Kind {
        match self {
            Self::Changed(_) => Kind::No,
            Self::Io(error) => Sounds::kind(error),
        }
    }

    fn advice(&self) -> Option<String> {
        match self {
            Self::Changed(_) => None,
            Self::Io(error) => error.advice(),
        }
    }
}

impl Sounds for EncodeError {
    fn kind(&self) -> Kind {
        match self {
            Self::Manifest(_) => Kind::Trust,
            Self::Wrong(_) => Kind::Machine,
            Self::Io(error) => Sounds::kind(error),
        }
    }

    fn advice(&self) -> Option<String> {
        match self {
            Self::Io(error) => error.advice(),
            Self::Manifest(_) | Self::Wrong(_) => None,
        }
    }
}

impl Sounds for ArchiveError {
    fn kind(&self) -> Kind {
        match self {
            Self::Unreadable { source, .. } if source.raw_os_error().is_some() => Sounds::kind(source),
            Self::Refused { source, .. } => source.kind(),
            Self::Unreadable { .. } => Kind::Trust,
        }
    }
}

impl Sounds for StagingError {
    fn kind(&self) -> Kind {
        match self {
            Self::Io(error) => Sounds::kind(error),
            _ => Kind::Trust,
        }
    }

    fn advice(&self) -> Option<String> {
        match self {
            Self::Io(error) => error.advice(),
            _ => None,
        }
    }
}

impl Sounds for TreeError {
    fn kind(&self) -> Kind {
        match self {
            Self::Io(error) => Sounds::kind(error),
            _ => Kind::Usage,
        }
    }
}

impl Sounds for SignError {
    fn kind(&self) -> Kind {
        match self {
            Self::NotJson(_) => Kind::Machine,
            Self::Key(error) => error.kind(),
        }
    }
}

impl Sounds for SealError {
    fn kind(&self) -> Kind {
        match self {
            Self::Encoding(_) => Kind::Machine,
            Self::AnotherKey { .. } => Kind::Trust,
            Self::NoPublicKey | Self::NoBlock | Self::WrongPassphrase { .. } | Self::TooCostly { .. } => {
                Kind::Usage
            }
        }
    }
}

/// Errors that always sound alike.
macro_rules! always {
    ($($type:ty => $kind:ident),* $(,)?) => {
        $(impl Sounds for $type {
            fn kind(&self) -> Kind {
                Kind::$kind
            }
        })*
    };
}
always! {
    CatalogueError => Trust,
    DeploymentError => Trust,
    KeyringError => Trust,
    PackagerRefusal => Trust,
    Refusal => Trust,
    ReleaseError => Trust,
    ShowcaseError => Usage,
    mirabelle_manifests::NameError => Usage,
    mirabelle_manifests::PathError => Usage,
    mirabelle_manifests::tuf::DocumentError => Trust,
    mirabelle_manifests::tuf::MetadataError => Trust,
    mirabelle_keys::PublicKeyError => Usage,
    SigningError => Usage,
    UnsealedKeyError => Machine,
    WrittenKeyError => Usage,
    mirabelle_fleet::ReportError => Machine,
    serde_json::Error => Machine,
    tokio::task::JoinError => Machine,
    toml::de::Error => Usage,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_then_why_then_what_now() {
        let full: Result<(), _> = Err(io::Error::from(io::ErrorKind::StorageFull));
        let failure = full.or_fail(|| "cannot install `ruff` 1".to_owned()).unwrap_err();
        assert_eq!(failure.kind().code(), 5);
        assert_eq!(
            failure.render(),
            "error: cannot install `ruff` 1\n  caused by: no storage space\n\
             hint: the disk is full: nothing was changed; make room and try again\n"
        );
    }

    #[test]
    fn what_a_disk_lacks_may_pass_however_deep_it_is_and_nothing_else_does() {
        let of = |error: io::Error| Err::<(), _>(error).or_fail(|| "no".to_owned()).unwrap_err();
        assert!(of(io::ErrorKind::StorageFull.into()).may_pass());
        let wrapped = io::Error::other(io::Error::from(io::ErrorKind::ReadOnlyFilesystem));
        assert!(of(io::Error::other(wrapped)).may_pass());
        assert!(!of(io::ErrorKind::PermissionDenied.into()).may_pass());
        assert!(!Failure::no("no").may_pass());
    }

    #[test]
    fn a_transparent_cause_is_said_once() {
        let error: Result<(), RefreshError> = Err(FetchError::NotFound { url: "http://n/x".into() }.into());
        let text = error.or_fail(|| "cannot refresh".to_owned()).unwrap_err().render();
        assert_eq!(text.matches("does not exist").count(), 1, "{text}");
    }
}
