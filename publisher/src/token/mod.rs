//! Keys on PKCS#11 tokens: smartcards, USB tokens, hardware security modules.
//!
//! The private key never leaves the token; it is asked for signatures. Threats and the defence for each:
//! - *A token that locks itself after a few wrong PINs*: a PIN is tried once per command, and when the token says that
//!   one try is left, only a person may spend it.
//! - *A faulty token, or a public key that is not the private one's*: each signature is verified before it is returned.
//! - *Another key or token of the same name*: what is ambiguous is refused.
//! - *A token left logged in*: the session ends with the key that uses it, and a token logs a program out with its last
//!   session (PKCS#11, `C_CloseSession`).

mod algorithm;
mod error;
mod module;
mod uri;

use std::path::{Path, PathBuf};

use cryptoki::context::Pkcs11;
use cryptoki::error::{Error as Pkcs11Error, RvError};
use cryptoki::object::{Attribute, AttributeType, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, UserType};
use cryptoki::slot::{Slot, TokenInfo};
use cryptoki::types::AuthPin;
use mirabelle_keys::{PublicKey, Signature, Signer, SigningError};
use mirabelle_terminal::{Failure, OrFail};

pub use algorithm::Algorithm;
pub use error::TokenError;
pub use uri::{TokenUri, TokenUriError};

use crate::passphrase::Passphrase;

/// Says which module speaks to tokens, where an address does not.
const MODULE_VARIABLE: &str = "MIRABELLE_PKCS11_MODULE";

/// What is signed to see whether a new key can sign.
const TRIAL: &[u8] = b"mirabelle: a key that was just made";

/// A key on a token that is logged in.
pub(crate) struct TokenKey {
    session: Session,
    private: ObjectHandle,
    public: PublicKey,
    algorithm: Algorithm,
    token: String,
}

/// Opens the key at `uri`: logs in, and finds both its halves.
pub(crate) fn open(uri: &TokenUri, passphrase: &mut Passphrase) -> Result<TokenKey, Failure> {
    let what = || format!("cannot use the key `{uri}`");
    let token = Token::find(uri).or_fail(what)?;
    let session = token.module.open_ro_session(token.slot).map_err(|e| token.error(e)).or_fail(what)?;
    // An address that means several keys is no reason to type a PIN.
    let seen = token.find_public(&session);
    if let Err(error @ TokenError::SeveralKeys { .. }) = seen {
        return Err(error).or_fail(what);
    }
    token.log_in(&session, passphrase, what)?;
    let private = token.find_private(&session).or_fail(what)?;
    let (algorithm, public) = seen.or_else(|_| token.find_public(&session)).or_fail(what)?;
    Ok(TokenKey { session, private, public, algorithm, token: token.uri.token().to_owned() })
}

/// Reads the public half of the key at `uri`. Needs no PIN.
pub(crate) fn public(uri: &TokenUri) -> Result<PublicKey, Failure> {
    let what = || format!("cannot read the public key of `{uri}`");
    let token = Token::find(uri).or_fail(what)?;
    let session = token.module.open_ro_session(token.slot).map_err(|e| token.error(e)).or_fail(what)?;
    Ok(token.find_public(&session).or_fail(what)?.1)
}

/// Has the token make a key at `uri` that will never leave it, and tries it once.
pub(crate) fn create(
    uri: &TokenUri,
    algorithm: Algorithm,
    passphrase: &mut Passphrase,
) -> Result<TokenKey, Failure> {
    let what = || format!("cannot make the key `{uri}`");
    let Some(label) = uri.object() else {
        return Err(Failure::usage("a new key needs a label").hint("add `;object=LABEL`"));
    };
    let token = Token::find(uri).or_fail(what)?;
    let session = token.module.open_rw_session(token.slot).map_err(|e| token.error(e)).or_fail(what)?;
    token.log_in(&session, passphrase, what)?;
    token.find_nothing(&session).or_fail(what)?;
    let (_, private) = session
        .generate_key_pair(
            &algorithm.generation(),
            &public_template(label, uri.id(), algorithm),
            &private_template(label, uri.id()),
        )
        .map_err(|error| match error {
            Pkcs11Error::Pkcs11(RvError::MechanismInvalid | RvError::CurveNotSupported, _) => {
                TokenError::UnsupportedAlgorithm { token: uri.token().to_owned(), algorithm }
            }
            error => token.error(error),
        })
        .or_fail(what)?;
    let (algorithm, public) = token.find_public(&session).or_fail(what)?;
    let key = TokenKey { session, private, public, algorithm, token: uri.token().to_owned() };
    key.try_sign(TRIAL).or_fail(|| format!("the new key `{uri}` does not sign"))?;
    Ok(key)
}

fn public_template(label: &str, id: Option<&[u8]>, algorithm: Algorithm) -> Vec<Attribute> {
    let mut template = vec![
        Attribute::Token(true),
        Attribute::Private(false),
        Attribute::Verify(true),
        Attribute::Label(label.as_bytes().to_vec()),
        Attribute::EcParams(algorithm.params().to_vec()),
    ];
    template.extend(id.map(|id| Attribute::Id(id.to_vec())));
    template
}

fn private_template(label: &str, id: Option<&[u8]>) -> Vec<Attribute> {
    let mut template = vec![
        Attribute::Token(true),
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        Attribute::Sign(true),
        Attribute::Label(label.as_bytes().to_vec()),
    ];
    template.extend(id.map(|id| Attribute::Id(id.to_vec())));
    template
}

/// A token that was found.
struct Token<'a> {
    uri: &'a TokenUri,
    module: Pkcs11,
    slot: Slot,
    info: TokenInfo,
}

impl<'a> Token<'a> {
    fn find(uri: &'a TokenUri) -> Result<Self, TokenError> {
        let path = module_path(uri, std::env::var_os(MODULE_VARIABLE).map(PathBuf::from))?;
        let module = module::load(&path)?;
        let (slot, info) = module::find(&module, uri)?;
        Ok(Self { uri, module, slot, info })
    }

    /// Gives the PIN, once.
    fn log_in(
        &self,
        session: &Session,
        passphrase: &mut Passphrase,
        what: impl Fn() -> String,
    ) -> Result<(), Failure> {
        if !self.info.login_required() {
            return Ok(());
        }
        let token = self.uri.token();
        if self.info.user_pin_locked() {
            return Err(TokenError::Locked { token: token.to_owned() }).or_fail(what);
        }
        let pin = if self.info.protected_authentication_path() {
            // It is typed on the token itself.
            None
        } else {
            let (serial, last_try) = (self.info.serial_number(), self.info.user_pin_final_try());
            let pin = passphrase.pin(token, serial, self.uri.pin_source(), last_try)?;
            Some(AuthPin::from(pin.as_str()))
        };
        match session.login(UserType::User, pin.as_ref()) {
            // Another key of this command is on the same token.
            Ok(()) | Err(Pkcs11Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => Ok(()),
            Err(error) => Err(match self.error(error) {
                TokenError::WrongPin { token, .. } => {
                    let now = self.module.get_token_info(self.slot).ok();
                    TokenError::WrongPin {
                        token,
                        last_try: now.is_some_and(|info| info.user_pin_final_try()),
                    }
                }
                error => error,
            })
            .or_fail(what),
        }
    }

    fn find_public(&self, session: &Session) -> Result<(Algorithm, PublicKey), TokenError> {
        let object = self.find_one(session, ObjectClass::PUBLIC_KEY, "public")?;
        let attributes = session
            .get_attributes(object, &[AttributeType::EcParams, AttributeType::EcPoint])
            .map_err(|error| self.error(error))?;
        let (mut params, mut point) = (Vec::new(), Vec::new());
        for attribute in attributes {
            match attribute {
                Attribute::EcParams(bytes) => params = bytes,
                Attribute::EcPoint(bytes) => point = bytes,
                _ => {}
            }
        }
        Algorithm::of_params(&params)
            .and_then(|algorithm| Some((algorithm, algorithm.public_key(&point).ok()?)))
            .ok_or_else(|| TokenError::UnsupportedKey {
                token: self.uri.token().to_owned(),
                key: described(self.uri),
            })
    }

    fn find_private(&self, session: &Session) -> Result<ObjectHandle, TokenError> {
        let object = self.find_one(session, ObjectClass::PRIVATE_KEY, "private")?;
        let always = session.get_attributes(object, &[AttributeType::AlwaysAuthenticate]).unwrap_or_default();
        if always.iter().any(|attribute| matches!(attribute, Attribute::AlwaysAuthenticate(true))) {
            return Err(TokenError::AlwaysAuthenticate {
                token: self.uri.token().to_owned(),
                key: described(self.uri),
            });
        }
        Ok(object)
    }

    fn find_one(
        &self,
        session: &Session,
        class: ObjectClass,
        half: &'static str,
    ) -> Result<ObjectHandle, TokenError> {
        let (token, key) = (self.uri.token().to_owned(), described(self.uri));
        match self.matching(session, class)?.as_slice() {
            [one] => Ok(*one),
            [] => Err(TokenError::NoKey { token, half, key }),
            several => Err(TokenError::SeveralKeys { token, half, key, count: several.len() }),
        }
    }

    fn find_nothing(&self, session: &Session) -> Result<(), TokenError> {
        for class in [ObjectClass::PRIVATE_KEY, ObjectClass::PUBLIC_KEY] {
            if !self.matching(session, class)?.is_empty() {
                let (token, key) = (self.uri.token().to_owned(), described(self.uri));
                return Err(TokenError::KeyExists { token, key });
            }
        }
        Ok(())
    }

    fn matching(&self, session: &Session, class: ObjectClass) -> Result<Vec<ObjectHandle>, TokenError> {
        let mut template = vec![Attribute::Class(class), Attribute::Token(true)];
        template.extend(self.uri.object().map(|label| Attribute::Label(label.as_bytes().to_vec())));
        template.extend(self.uri.id().map(|id| Attribute::Id(id.to_vec())));
        session.find_objects(&template).map_err(|error| self.error(error))
    }

    fn error(&self, error: Pkcs11Error) -> TokenError {
        TokenError::of(self.uri.token(), error)
    }
}

/// The module that speaks to the token: the address's own, else `fallback`.
fn module_path(uri: &TokenUri, fallback: Option<PathBuf>) -> Result<PathBuf, TokenError> {
    uri.module()
        .map(Path::to_owned)
        .or(fallback)
        .ok_or_else(|| TokenError::NoModule { token: uri.token().to_owned() })
}

/// The key in words: `` `approver-1` (id 01) ``.
fn described(uri: &TokenUri) -> String {
    match (uri.object(), uri.id()) {
        (Some(label), Some(id)) => format!("`{label}` (id {})", hex::encode(id)),
        (Some(label), None) => format!("`{label}`"),
        (None, id) => format!("with id {}", hex::encode(id.unwrap_or_default())),
    }
}

impl TokenKey {
    fn try_sign(&self, message: &[u8]) -> Result<Signature, TokenError> {
        let (mechanism, input) = self.algorithm.signing(message);
        let answer = self.session.sign(&mechanism, self.private, &input).map_err(|error| match error {
            Pkcs11Error::Pkcs11(RvError::DataLenRange, _) => {
                TokenError::TooLong { token: self.token.clone(), bytes: input.len() }
            }
            Pkcs11Error::Pkcs11(RvError::MechanismInvalid, _) => {
                TokenError::UnsupportedAlgorithm { token: self.token.clone(), algorithm: self.algorithm }
            }
            error => TokenError::of(&self.token, error),
        })?;
        self.algorithm
            .signature(answer)
            .map(|bytes| Signature { keyid: self.public.id(), bytes })
            .filter(|signature| self.public.verifies(message, signature))
            .ok_or_else(|| TokenError::SignedWrongly { token: self.token.clone(), keyid: self.public.id() })
    }
}

impl Signer for TokenKey {
    fn public(&self) -> PublicKey {
        self.public.clone()
    }

    fn sign(&self, message: &[u8]) -> Result<Signature, SigningError> {
        self.try_sign(message)
            .map_err(|error| SigningError { keyid: self.public.id(), source: Box::new(error) })
    }
}
