//! Why a token does not do what is asked of it, and what to do now.

use std::path::PathBuf;

use cryptoki::error::{Error as Pkcs11Error, RvError};
use mirabelle_terminal::Kind;
use mirabelle_terminal::failure::Sounds;

/// Why a token does not do what is asked of it.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// Nobody said which library speaks to it.
    #[error("nothing says which PKCS#11 module speaks to token `{token}`")]
    NoModule {
        /// The token.
        token: String,
    },
    /// The library cannot be used.
    #[error("the PKCS#11 module `{}` cannot be used", module.display())]
    Module {
        /// The library.
        module: PathBuf,
        /// Why not.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// No such token.
    #[error("token `{token}` is not there")]
    NoToken {
        /// The token.
        token: String,
        /// The tokens that are there.
        there: Vec<String>,
    },
    /// More than one.
    #[error("{count} tokens are called `{token}`")]
    SeveralTokens {
        /// The token.
        token: String,
        /// How many.
        count: usize,
    },
    /// No such key.
    #[error("token `{token}` has no {half} key {key}")]
    NoKey {
        /// The token.
        token: String,
        /// Private or public.
        half: &'static str,
        /// The key, in words.
        key: String,
    },
    /// More than one.
    #[error("token `{token}` has {count} {half} keys {key}")]
    SeveralKeys {
        /// The token.
        token: String,
        /// Private or public.
        half: &'static str,
        /// The key, in words.
        key: String,
        /// How many.
        count: usize,
    },
    /// A key of that name is there, where a new one should go.
    #[error("token `{token}` has a key {key} already")]
    KeyExists {
        /// The token.
        token: String,
        /// The key, in words.
        key: String,
    },
    /// A key that is neither Ed25519 nor P-256, or no point of its curve.
    #[error("key {key} on token `{token}` is neither an Ed25519 nor a P-256 key")]
    UnsupportedKey {
        /// The token.
        token: String,
        /// The key, in words.
        key: String,
    },
    /// It would have to be asked for its PIN again and again.
    #[error("key {key} on token `{token}` wants the PIN again for every signature")]
    AlwaysAuthenticate {
        /// The token.
        token: String,
        /// The key, in words.
        key: String,
    },
    /// Wrong PIN. It was tried once.
    #[error("wrong PIN for token `{token}`")]
    WrongPin {
        /// The token.
        token: String,
        /// One more, and it locks.
        last_try: bool,
    },
    /// Too many wrong PINs.
    #[error("token `{token}` is locked: a wrong PIN was given too often")]
    Locked {
        /// The token.
        token: String,
    },
    /// It was never given one.
    #[error("token `{token}` has no PIN yet")]
    NoPin {
        /// The token.
        token: String,
    },
    /// It was pulled out.
    #[error("token `{token}` was taken out")]
    Removed {
        /// The token.
        token: String,
    },
    /// It takes small documents only.
    #[error("token `{token}` does not take {bytes} bytes at once")]
    TooLong {
        /// The token.
        token: String,
        /// The document's length.
        bytes: usize,
    },
    /// It cannot do this.
    #[error("token `{token}` does not do {algorithm}")]
    UnsupportedAlgorithm {
        /// The token.
        token: String,
        /// What.
        algorithm: super::Algorithm,
    },
    /// Its signature does not verify.
    #[error("token `{token}` signed wrongly: its signature does not verify with its public key {keyid}")]
    SignedWrongly {
        /// The token.
        token: String,
        /// The public key beside it.
        keyid: mirabelle_keys::KeyId,
    },
    /// Anything else.
    #[error("token `{token}` refused")]
    Refused {
        /// The token.
        token: String,
        /// What it answered.
        #[source]
        source: Pkcs11Error,
    },
}

impl TokenError {
    /// What an answer of `token` means.
    pub(super) fn of(token: &str, source: Pkcs11Error) -> Self {
        let Pkcs11Error::Pkcs11(answer, _) = &source else {
            return Self::Refused { token: token.to_owned(), source };
        };
        let answer = *answer;
        let token = token.to_owned();
        match answer {
            RvError::PinIncorrect | RvError::PinInvalid | RvError::PinLenRange => {
                Self::WrongPin { token, last_try: false }
            }
            RvError::PinLocked => Self::Locked { token },
            RvError::UserPinNotInitialized => Self::NoPin { token },
            RvError::DeviceRemoved
            | RvError::TokenNotPresent
            | RvError::TokenNotRecognized
            | RvError::SessionClosed
            | RvError::SessionHandleInvalid => Self::Removed { token },
            _ => Self::Refused { token, source },
        }
    }
}

impl Sounds for TokenError {
    fn kind(&self) -> Kind {
        match self {
            Self::KeyExists { .. } => Kind::No,
            Self::SignedWrongly { .. } | Self::Refused { .. } => Kind::Machine,
            Self::NoModule { .. }
            | Self::Module { .. }
            | Self::NoToken { .. }
            | Self::SeveralTokens { .. }
            | Self::NoKey { .. }
            | Self::SeveralKeys { .. }
            | Self::UnsupportedKey { .. }
            | Self::AlwaysAuthenticate { .. }
            | Self::WrongPin { .. }
            | Self::Locked { .. }
            | Self::NoPin { .. }
            | Self::Removed { .. }
            | Self::TooLong { .. }
            | Self::UnsupportedAlgorithm { .. } => Kind::Usage,
        }
    }

    fn advice(&self) -> Option<String> {
        let advice = match self {
            Self::NoModule { .. } => {
                format!("add `?module-path=/path/to/module.so`, or set {}", super::MODULE_VARIABLE)
            }
            Self::Module { .. } => "is the token's driver installed, and is this its library?".to_owned(),
            Self::NoToken { there, .. } if there.is_empty() => {
                "no token is plugged in that this module can see".to_owned()
            }
            Self::NoToken { there, .. } => format!("there are: `{}`", there.join("`, `")),
            Self::SeveralTokens { .. } => "take all but one out, or add `;serial=…`".to_owned(),
            Self::NoKey { half: "public", .. } => {
                "is the label right? the public half must be on the token too, for anybody to read".to_owned()
            }
            Self::NoKey { .. } => "is the label right? `key new` makes a key".to_owned(),
            Self::SeveralKeys { .. } => "add `;id=%…` to say which".to_owned(),
            Self::KeyExists { .. } => "give the new one another label or id".to_owned(),
            Self::AlwaysAuthenticate { .. } => {
                "this version cannot do that: use another slot, or make the key with another policy"
                    .to_owned()
            }
            Self::WrongPin { last_try: true, .. } => {
                "it was tried once; after one more wrong PIN the token locks itself".to_owned()
            }
            Self::WrongPin { .. } => {
                "it was tried once, and is not tried again: tokens lock themselves after a few".to_owned()
            }
            Self::Locked { .. } => {
                "unlock it with its security officer's PIN (PUK) and its maker's tool".to_owned()
            }
            Self::NoPin { .. } => "set one with its maker's tool".to_owned(),
            Self::Removed { .. } => "put it back and run the command again".to_owned(),
            Self::TooLong { .. } => "a P-256 key signs documents of any size".to_owned(),
            Self::UnsupportedAlgorithm { .. } => "try the other `--type`".to_owned(),
            Self::SignedWrongly { .. } => "the signature was thrown away; do not trust this token".to_owned(),
            Self::UnsupportedKey { .. } | Self::Refused { .. } => return None,
        };
        Some(advice)
    }
}
