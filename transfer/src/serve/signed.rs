//! Requests that a machine signs (RFC 9421): what node and origin answer to those that do not count.

use std::sync::{Mutex, PoisonError};

use hyper::StatusCode;
use hyper::http::request::Parts;
use mirabelle_fleet::{Seen, SignatureError, Signed};
use mirabelle_keys::PublicKey;
use mirabelle_manifests::Instant;

use super::Refused;

/// Signed requests of one server, each of which counts once.
#[derive(Debug, Default)]
pub struct SignedRequests {
    seen: Mutex<Seen>,
}

impl SignedRequests {
    /// What a request says of its signature; nothing of it is verified.
    ///
    /// # Errors
    /// 400 when it has none, or one that cannot be read.
    pub fn read(&self, parts: &Parts) -> Result<Signed, Refused> {
        Signed::of(&parts.headers).map_err(refused)
    }

    /// True to its word: `key` signed just this request, a moment before `now`, and it is the first time.
    ///
    /// # Errors
    /// 403 when it is not; 409 when it was seen before.
    pub fn verify(
        &self,
        signed: &Signed,
        key: &PublicKey,
        (parts, body): (&Parts, &[u8]),
        now: Instant,
    ) -> Result<(), Refused> {
        signed.verify(key, &parts.method, parts.uri.path(), &parts.headers, body, now).map_err(refused)?;
        if self.seen.lock().unwrap_or_else(PoisonError::into_inner).is_first(signed, now) {
            Ok(())
        } else {
            Err((StatusCode::CONFLICT, "the request was seen before"))
        }
    }
}

fn refused(error: SignatureError) -> Refused {
    tracing::warn!(%error, "a signed request is refused");
    match error {
        SignatureError::Missing | SignatureError::Malformed(_) => {
            (StatusCode::BAD_REQUEST, "the request is not signed, or its signature cannot be read")
        }
        SignatureError::Time => {
            (StatusCode::FORBIDDEN, "the request is too old, or of the future: is the clock right?")
        }
        _ => (StatusCode::FORBIDDEN, "the request is not signed by the machine that it speaks for"),
    }
}
