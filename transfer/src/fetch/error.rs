//! Why bytes could not be had, and what follows from it.

use std::io;

use crate::link::LinkClosed;

/// Why bytes could not be had.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The server does not have it.
    #[error("{url} does not exist")]
    NotFound {
        /// What was asked for.
        url: String,
    },
    /// The server answered with something else than the file.
    #[error("{url} was answered with status {status}")]
    Status {
        /// What was asked for.
        url: String,
        /// The answer.
        status: u16,
    },
    /// The server could not be reached, or broke off, time after time.
    #[error("{url} could not be fetched in {attempts} attempts")]
    Unreachable {
        /// What was asked for.
        url: String,
        /// Attempts without progress.
        attempts: u32,
        /// What went wrong the last time.
        #[source]
        source: Broken,
    },
    /// The machine could not sign for it.
    #[error("the request to {url} could not be signed")]
    NotSigned {
        /// What was to be asked for.
        url: String,
        /// Why.
        #[source]
        source: mirabelle_fleet::SignatureError,
    },
    /// The college's link may not be used now.
    #[error("{url} has to wait")]
    LinkClosed {
        /// What was to be asked for.
        url: String,
        /// Why, and until when.
        #[source]
        source: LinkClosed,
    },
    /// More bytes than there should be.
    #[error("{url} is longer than the {limit} bytes it may have")]
    TooLong {
        /// What was asked for.
        url: String,
        /// How many were allowed.
        limit: u64,
    },
    /// What the server said is encoded cannot be decoded, and it does not send it plain either.
    #[error("{url} is not encoded as the server says")]
    Undecodable {
        /// What was asked for.
        url: String,
        /// What is wrong.
        #[source]
        source: io::Error,
    },
    /// The server ended a file early, time after time.
    #[error("{url} ended after {got} of {expected} bytes")]
    TooShort {
        /// What was asked for.
        url: String,
        /// How many it should have.
        expected: u64,
        /// How many came.
        got: u64,
    },
    /// The server does not answer ranges, or not the one that was asked for.
    #[error("{url} does not answer range requests")]
    NoRanges {
        /// What was asked for.
        url: String,
    },
    /// The client could not be made.
    #[error("the HTTP client could not be started")]
    Client(#[source] reqwest::Error),
    /// Not a path below a base address.
    #[error("`{path}` is not a path on a server")]
    NotAPath {
        /// The path.
        path: String,
    },
    /// The bytes came, and could not be written.
    #[error(transparent)]
    Disk(#[from] io::Error),
}

/// What went wrong on the way to a server.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// In the exchange.
    #[error(transparent)]
    Exchange(reqwest::Error),
    /// Before it began.
    #[error("the server cannot be reached")]
    Connect(#[source] io::Error),
    /// In silence.
    #[error("the server said nothing for {0:?}")]
    Stalled(std::time::Duration),
}

impl FetchError {
    /// True when the college's link may not be used now: neither another server nor another way helps, and an hour may.
    pub fn is_link_closed(&self) -> bool {
        matches!(self, Self::LinkClosed { .. })
    }

    /// True when somebody sent more than was signed for.
    pub fn is_tampering(&self) -> bool {
        matches!(self, Self::TooLong { .. })
    }

    /// True when asking another server, or the same one later, may help.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::TooShort { .. } => true,
            Self::Status { status, .. } => is_retryable_status(*status),
            Self::NotFound { .. }
            | Self::NotSigned { .. }
            | Self::LinkClosed { .. }
            | Self::TooLong { .. }
            | Self::Undecodable { .. }
            | Self::NoRanges { .. }
            | Self::Client(_)
            | Self::NotAPath { .. }
            | Self::Disk(_) => false,
        }
    }
}

/// True for answers that may be others later.
pub(super) fn is_retryable_status(status: u16) -> bool {
    matches!(status, 408 | 425 | 429 | 500 | 502 | 503 | 504)
}
