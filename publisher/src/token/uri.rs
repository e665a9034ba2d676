//! The address of a key on a token (RFC 7512).
//!
//! ```text
//! pkcs11:token=Rectorat;object=approver-1;id=%01?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=file:/run/pin
//!        ^ which token  ^ which key on it         ^ the library that speaks to it           ^ a file with its PIN
//! ```
//!
//! `serial`, `model`, `manufacturer` and `type` are understood too, since tools print them. An attribute that is not
//! understood is refused, not ignored: it may be what tells the wanted key from another. So is `pin-value`: whoever can
//! list processes reads command lines.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The address of a key on a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenUri {
    text: String,
    token: String,
    serial: Option<String>,
    model: Option<String>,
    manufacturer: Option<String>,
    object: Option<String>,
    id: Option<Vec<u8>>,
    module: Option<PathBuf>,
    pin_source: Option<PathBuf>,
}

/// Why a text does not say which key is meant.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TokenUriError {
    /// No token.
    #[error("it does not say on which token: write `pkcs11:token=NAME;object=LABEL`")]
    NoToken,
    /// No key.
    #[error("it does not say which key of the token: write `;object=LABEL` or `;id=%01`")]
    NoKey,
    /// Something without `=`.
    #[error("`{0}` is no attribute of the form name=value")]
    NotAnAttribute(String),
    /// A name that is not known.
    #[error("the attribute `{0}` is not known here")]
    UnknownAttribute(String),
    /// A name that is there twice.
    #[error("the attribute `{0}` is given twice")]
    GivenTwice(String),
    /// `%` without two hexadecimal digits, or bytes that are no text.
    #[error("the value of `{0}` is not percent-encoded UTF-8")]
    Malformed(String),
    /// A PIN for everybody to read.
    #[error(
        "`pin-value` shows the PIN to everybody on this machine: give `pin-source=file:/path`, or type it"
    )]
    PinInTheOpen,
    /// A path that depends on where the command runs.
    #[error("`{0}` must be an absolute path")]
    NotAbsolute(String),
    /// An object that is no key.
    #[error("an object of type `{0}` does not sign")]
    NotAKey(String),
}

/// What the attributes say about a token, to be compared with what a token says about itself.
#[derive(Debug)]
pub(super) struct TokenIdentity<'a> {
    pub(super) label: &'a str,
    pub(super) serial: &'a str,
    pub(super) model: &'a str,
    pub(super) manufacturer: &'a str,
}

impl TokenUri {
    /// What such an address begins with.
    pub const SCHEME: &'static str = "pkcs11:";

    /// The token's label.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// The key's label.
    pub fn object(&self) -> Option<&str> {
        self.object.as_deref()
    }

    /// The key's id on the token, which has nothing to do with its TUF id.
    pub fn id(&self) -> Option<&[u8]> {
        self.id.as_deref()
    }

    /// The library that speaks to the token.
    pub fn module(&self) -> Option<&Path> {
        self.module.as_deref()
    }

    /// The file that holds the PIN.
    pub fn pin_source(&self) -> Option<&Path> {
        self.pin_source.as_deref()
    }

    /// True for a token that is all that the address says about it.
    pub(super) fn describes(&self, token: &TokenIdentity<'_>) -> bool {
        let fits = |wanted: &Option<String>, is: &str| wanted.as_deref().is_none_or(|wanted| wanted == is);
        self.token == token.label
            && fits(&self.serial, token.serial)
            && fits(&self.model, token.model)
            && fits(&self.manufacturer, token.manufacturer)
    }
}

impl fmt::Display for TokenUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for TokenUri {
    type Err = TokenUriError;

    fn from_str(text: &str) -> Result<Self, TokenUriError> {
        let rest = text.get(Self::SCHEME.len()..).unwrap_or_default();
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));

        let mut path = Attributes::parse(path, ';')?;
        let token = path.take_text("token")?.ok_or(TokenUriError::NoToken)?;
        let serial = path.take_text("serial")?;
        let model = path.take_text("model")?;
        let manufacturer = path.take_text("manufacturer")?;
        let object = path.take_text("object")?;
        let id = path.take("id");
        if object.is_none() && id.is_none() {
            return Err(TokenUriError::NoKey);
        }
        // One address stands for both halves of a key: which of them is used depends on the command.
        let kind = path.take_text("type")?.filter(|kind| !["private", "public"].contains(&kind.as_str()));
        if let Some(kind) = kind {
            return Err(TokenUriError::NotAKey(kind));
        }
        path.end()?;

        let mut query = Attributes::parse(query, '&')?;
        if query.take("pin-value").is_some() {
            return Err(TokenUriError::PinInTheOpen);
        }
        let module = query.take_path("module-path", "")?;
        let pin_source = query.take_path("pin-source", "file:")?;
        query.end()?;

        let text = text.to_owned();
        Ok(Self { text, token, serial, model, manufacturer, object, id, module, pin_source })
    }
}

/// Attributes that were not taken yet, their values decoded.
struct Attributes(Vec<(String, Vec<u8>)>);

impl Attributes {
    fn parse(text: &str, separator: char) -> Result<Self, TokenUriError> {
        let mut attributes: Vec<(String, Vec<u8>)> = Vec::new();
        for attribute in text.split(separator).filter(|attribute| !attribute.is_empty()) {
            let (name, value) = attribute
                .split_once('=')
                .ok_or_else(|| TokenUriError::NotAnAttribute(attribute.to_owned()))?;
            if attributes.iter().any(|(known, _)| known == name) {
                return Err(TokenUriError::GivenTwice(name.to_owned()));
            }
            let value = percent_decode(value).ok_or_else(|| TokenUriError::Malformed(name.to_owned()))?;
            attributes.push((name.to_owned(), value));
        }
        Ok(Self(attributes))
    }

    fn take(&mut self, name: &str) -> Option<Vec<u8>> {
        let position = self.0.iter().position(|(known, _)| known == name)?;
        Some(self.0.swap_remove(position).1)
    }

    fn take_text(&mut self, name: &str) -> Result<Option<String>, TokenUriError> {
        let text = self.take(name).map(String::from_utf8).transpose();
        text.map_err(|_| TokenUriError::Malformed(name.to_owned()))
    }

    /// An absolute path, which may follow `scheme`.
    fn take_path(&mut self, name: &str, scheme: &str) -> Result<Option<PathBuf>, TokenUriError> {
        let Some(text) = self.take_text(name)? else { return Ok(None) };
        let path = text.strip_prefix(scheme).unwrap_or(&text);
        // `file:///path` names no host, and means `/path`.
        let path = if scheme.is_empty() { path } else { path.strip_prefix("//").unwrap_or(path) };
        if !Path::new(path).is_absolute() {
            return Err(TokenUriError::NotAbsolute(name.to_owned()));
        }
        Ok(Some(PathBuf::from(path)))
    }

    fn end(self) -> Result<(), TokenUriError> {
        match self.0.into_iter().next() {
            Some((name, _)) => Err(TokenUriError::UnknownAttribute(name)),
            None => Ok(()),
        }
    }
}

/// RFC 3986, 2.1; `None` for a `%` that two hexadecimal digits do not follow.
fn percent_decode(text: &str) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte == b'%' {
            let (digits, after) = rest.split_at_checked(2)?;
            decoded.extend(hex::decode(digits).ok()?);
            rest = after;
        } else {
            decoded.push(byte);
        }
    }
    Some(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uri(text: &str) -> TokenUri {
        text.parse().unwrap()
    }

    #[test]
    fn says_which_token_which_key_and_how_to_reach_it() {
        let uri = uri("pkcs11:token=Rectorat%20de%20Nancy;object=cl%C3%A9%3b1;id=%01%FFa\
                       ?module-path=/usr/lib/m%26m.so&pin-source=file:/run/pin");
        assert_eq!(uri.token(), "Rectorat de Nancy");
        assert_eq!(uri.object(), Some("clé;1"));
        assert_eq!(uri.id(), Some(&[1, 0xff, b'a'][..]));
        assert_eq!(uri.module(), Some(Path::new("/usr/lib/m&m.so")));
        assert_eq!(uri.pin_source(), Some(Path::new("/run/pin")));
    }

    #[test]
    fn a_pin_source_is_a_path_in_any_of_three_forms() {
        for source in ["/run/pin", "file:/run/pin", "file:///run/pin"] {
            let uri = uri(&format!("pkcs11:token=t;id=%01?pin-source={source}"));
            assert_eq!(uri.pin_source(), Some(Path::new("/run/pin")), "{source}");
        }
    }

    #[test]
    fn understands_what_tools_print() {
        let uri = uri("pkcs11:model=SoftHSM%20v2;manufacturer=SoftHSM%20project;serial=0a1b;token=t;id=%01;\
                       object=k;type=private");
        let token = TokenIdentity {
            label: "t",
            serial: "0a1b",
            model: "SoftHSM v2",
            manufacturer: "SoftHSM project",
        };
        assert!(uri.describes(&token));
        assert!(!uri.describes(&TokenIdentity { serial: "0a1c", ..token }));
    }

    #[test]
    fn says_what_is_wrong() {
        use TokenUriError as E;
        let cases = [
            ("pkcs11:", E::NoToken),
            ("pkcs11:object=k", E::NoToken),
            ("pkcs11:token=t", E::NoKey),
            ("pkcs11:token=t;object", E::NotAnAttribute("object".into())),
            ("pkcs11:token=t;object=k;slot-id=3", E::UnknownAttribute("slot-id".into())),
            ("pkcs11:token=t;object=k?module-name=x", E::UnknownAttribute("module-name".into())),
            ("pkcs11:token=t;token=u;object=k", E::GivenTwice("token".into())),
            ("pkcs11:token=t;object=%4", E::Malformed("object".into())),
            ("pkcs11:token=t;object=%zz", E::Malformed("object".into())),
            ("pkcs11:token=t;object=%ff", E::Malformed("object".into())),
            ("pkcs11:token=t;object=k;type=cert", E::NotAKey("cert".into())),
            ("pkcs11:token=t;object=k?pin-value=1234", E::PinInTheOpen),
            ("pkcs11:token=t;object=k?module-path=m.so", E::NotAbsolute("module-path".into())),
            ("pkcs11:token=t;object=k?pin-source=%7Ccommand", E::NotAbsolute("pin-source".into())),
        ];
        for (text, error) in cases {
            assert_eq!(text.parse::<TokenUri>(), Err(error), "{text}");
        }
    }
}
