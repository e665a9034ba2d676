//! Where a key is: in a file, or on a token.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::token::{TokenUri, TokenUriError};

/// Where a key is, as it is written on the command line: a path, or `pkcs11:…` (RFC 7512).
///
/// A file whose name begins with `pkcs11:` is written `./pkcs11:…`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyLocation {
    /// A file: a sealed key, or a public one.
    File(PathBuf),
    /// A key on a PKCS#11 token.
    Token(Box<TokenUri>),
}

impl FromStr for KeyLocation {
    type Err = TokenUriError;

    fn from_str(text: &str) -> Result<Self, TokenUriError> {
        match text.get(..TokenUri::SCHEME.len()) {
            Some(scheme) if scheme.eq_ignore_ascii_case(TokenUri::SCHEME) => {
                text.parse().map(|uri| Self::Token(Box::new(uri)))
            }
            _ => Ok(Self::File(PathBuf::from(text))),
        }
    }
}

impl fmt::Display for KeyLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Token(uri) => write!(f, "{uri}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_a_token_from_a_file() {
        let location = |text: &str| text.parse::<KeyLocation>();
        assert_eq!(location("keys/online.key"), Ok(KeyLocation::File("keys/online.key".into())));
        assert_eq!(location("./pkcs11:x"), Ok(KeyLocation::File("./pkcs11:x".into())));
        assert!(matches!(location("pkcs11:token=a;object=b"), Ok(KeyLocation::Token(_))));
        assert!(matches!(location("PKCS11:token=a;object=b"), Ok(KeyLocation::Token(_))));
        assert_eq!(location("pkcs11:x.key"), Err(TokenUriError::NotAnAttribute("x.key".into())));
        let text = "pkcs11:token=a;object=b?module-path=/m.so";
        assert_eq!(location(text).unwrap().to_string(), text);
    }
}
