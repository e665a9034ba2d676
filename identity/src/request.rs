//! What a person asks of a node or of the origin, so that whoever passes it on can neither make it nor change it.
//!
//! ```text
//! {"proof": {"token": {"id_token": "…", "key": {…}, "blind": "<hex>"}}     signed in with the provider
//!         | {"code": {"key": {…}}},                                        signed in with an offline code
//!  "request": {"action": {…}, "at": "…", "college": "57001", "id": "<32 hex digits>"},
//!  "signature": {"keyid": "…", "sig": "…"}}            over "mirabelle request 1\n" and the request's canonical JSON
//! ```
//!
//! At each sign-in a workstation makes a key, and its nonce is a commitment to that key: SHA-256 over the key and a blinding value.
//! The provider signs the nonce into the ID token, and so vouches that whoever holds the key is the person (the construction that
//! OpenPubkey describes, arXiv 2023/296). A token without the key is worth nothing, so it may pass through a college's network.
//!
//! An offline code is a key too: 80 random bits that a person writes down, from which the key is derived. The origin's list of
//! rights says whose it is ([`crate::Rights`]).
//!
//! A request that is sent again does the same again, and is refused when it is old: ten minutes at a node that acts upon it at once, eight
//! days at an origin that hears of it once a link is back.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use mirabelle_keys::{PublicKey, Signature, SigningKey, WrittenKey, WrittenKeyError};
use mirabelle_manifests::{Digest, Instant, Json, PackageName, SignIn, SiteId};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::choices::Follow;
use crate::order::Wanted;
use crate::person::Identity;
use crate::provider::{Provider, TokenError};
use crate::rights::Rights;

/// The most of a signed request: a token, and little else.
pub const MAX_REQUEST_BYTES: usize = 48 << 10;
/// How old a request may be that is acted upon at once, in seconds.
const AT_ONCE: i64 = 10 * 60;
/// How old one may be that was kept while a link was cut, in seconds.
const WHILE_CUT: i64 = 8 * 24 * 3600;
/// How far two clocks may be apart, in seconds.
const CLOCKS_APART: i64 = 120;

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Action {
    /// What she chose, and what is kept of her: the answer is [`crate::Choices`].
    Read,
    /// She chose a package, or gave it up.
    Choose {
        /// The package.
        package: PackageName,
        /// True when she wants it.
        wanted: bool,
    },
    /// What becomes of her choices elsewhere.
    Follow {
        /// That.
        follow: Follow,
    },
    /// Forgets all that is kept of her.
    Forget,
    /// From now on this key signs in too, while the provider is out of reach; one key a person, the last.
    EnableOffline {
        /// The key of her offline code.
        key: PublicKey,
    },
    /// Whether an order would be ready in time: the answer is [`crate::Assessment`].
    Assess {
        /// The order.
        order: Wanted,
    },
    /// An application for every computer of a room.
    Order {
        /// The order.
        order: Wanted,
    },
    /// Takes an order of hers back.
    Cancel {
        /// Which.
        order: RequestId,
    },
    /// The orders for the college: the answer is [`crate::OrderStatus`] of each.
    Orders,
}

/// The number of a request, and of the order it makes: 128 random bits as 32 hex digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RequestId(String);

impl RequestId {
    /// The number of these bits.
    pub fn of(bits: &[u8; 16]) -> Self {
        Self(bits.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}")))
    }

    /// As written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for RequestId {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let is_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if text.len() == 32 && text.bytes().all(is_hex) {
            Ok(Self(text))
        } else {
            Err("it is no number of 32 hex digits")
        }
    }
}

impl From<RequestId> for String {
    fn from(id: RequestId) -> Self {
        id.0
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// What.
    pub action: Action,
    /// When.
    pub at: Instant,
    /// The college that it is about.
    pub college: SiteId,
    /// Its number.
    pub id: RequestId,
}

impl Request {
    fn message(&self) -> Result<Vec<u8>, RequestError> {
        let json = Json::of(self).map_err(RequestError::Malformed)?.canonical();
        Ok([b"mirabelle request 1\n".as_slice(), &json].concat())
    }
}

/// How she shows who she is.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Proof {
    /// The provider says so.
    Token {
        /// Makes the commitment say nothing about the key.
        blind: Digest,
        /// The token.
        id_token: String,
        /// The key of the sign-in.
        key: PublicKey,
    },
    /// The origin's list of rights says so.
    Code {
        /// The key of her offline code.
        key: PublicKey,
    },
}

/// A request with its proof.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedRequest {
    proof: Proof,
    /// What is asked; to be believed once it was verified.
    pub request: Request,
    signature: Signature,
}

/// Why a request is refused.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// Longer than any.
    #[error("the request has more than 48 KiB")]
    TooLarge,
    /// Not JSON of this shape.
    #[error("the request cannot be read")]
    Malformed(#[source] serde_json::Error),
    /// Too old, or from the future.
    #[error("the request is of {0:.0}, and too old or from the future: is the clock right?")]
    Time(Instant),
    /// The token does not say so.
    #[error("the sign-in is refused")]
    Token(#[source] TokenError),
    /// Nobody has such a code, or her time is over.
    #[error("this offline code is not known, or its time is over")]
    UnknownCode,
    /// The signature is not hers.
    #[error("the request is not signed by whoever signed in")]
    Signature,
    /// The system has no random numbers.
    #[error("no number could be drawn for the request")]
    Random(#[source] getrandom::Error),
    /// Nobody can sign in here.
    #[error("the provider's keys are not known here yet")]
    NoProvider,
}

impl RequestError {
    /// True where somebody forged something, rather than something being out of date or unreadable.
    pub fn is_tampering(&self) -> bool {
        matches!(self, Self::Token(TokenError::Refused(_) | TokenError::AnotherParty) | Self::Signature)
    }
}

impl SignedRequest {
    /// Reads a request; nothing of it is verified.
    pub fn parse(bytes: &[u8]) -> Result<Self, RequestError> {
        if bytes.len() > MAX_REQUEST_BYTES {
            return Err(RequestError::TooLarge);
        }
        serde_json::from_slice(bytes).map_err(RequestError::Malformed)
    }

    /// True when the provider vouches for it, rather than a code.
    pub fn is_by_token(&self) -> bool {
        matches!(self.proof, Proof::Token { .. })
    }

    /// As it travels.
    pub fn to_bytes(&self) -> Result<Vec<u8>, RequestError> {
        serde_json::to_vec(self).map_err(RequestError::Malformed)
    }

    /// Who asks, for whoever acts at once.
    pub fn verify(
        &self,
        sign_in: &SignIn,
        provider: Option<&Provider>,
        rights: Option<&Rights>,
        now: Instant,
    ) -> Result<Identity, RequestError> {
        self.verify_within(sign_in, provider, rights, now, AT_ONCE)
    }

    /// Who asked, for an origin that hears of it once the link is back.
    pub fn verify_belated(
        &self,
        sign_in: &SignIn,
        provider: Option<&Provider>,
        rights: Option<&Rights>,
        now: Instant,
    ) -> Result<Identity, RequestError> {
        self.verify_within(sign_in, provider, rights, now, WHILE_CUT)
    }

    fn verify_within(
        &self,
        sign_in: &SignIn,
        provider: Option<&Provider>,
        rights: Option<&Rights>,
        now: Instant,
        age: i64,
    ) -> Result<Identity, RequestError> {
        let (at, second) = (self.request.at, now.as_second());
        if at.as_second() > second + CLOCKS_APART || at.as_second() < second - age {
            return Err(RequestError::Time(at));
        }
        // She signed in before she asked, and it counted then.
        let (identity, key) = match &self.proof {
            Proof::Token { blind, id_token, key } => {
                let provider = provider.ok_or(RequestError::NoProvider)?;
                let nonce = commitment(key, *blind);
                let identity = provider.verify_session(id_token, &nonce, sign_in, at.min(now));
                (identity.map_err(RequestError::Token)?, key)
            }
            Proof::Code { key } => {
                let right = rights.and_then(|rights| rights.of(key)).ok_or(RequestError::UnknownCode)?;
                let identity = right.identity(at.min(now)).ok_or(RequestError::UnknownCode)?;
                (identity, key)
            }
        };
        if !key.verifies(&self.request.message()?, &self.signature) {
            return Err(RequestError::Signature);
        }
        Ok(identity)
    }
}

/// The nonce that commits to a key.
fn commitment(key: &PublicKey, blind: Digest) -> String {
    let bytes = key.ed25519().copied().unwrap_or_default();
    let text = [b"mirabelle sign-in 1\n".as_slice(), &bytes, blind.as_bytes()].concat();
    URL_SAFE_NO_PAD.encode(Digest::of(&text).as_bytes())
}

/// The key of one sign-in: made anew for each, kept in memory only.
pub struct SessionKey {
    key: SigningKey,
    blind: Digest,
}

impl SessionKey {
    /// A new one.
    pub fn generate() -> Self {
        // Another key's public half is 256 bits that nobody can guess.
        let blind = SigningKey::generate();
        let blind = Digest::of(blind.public().ed25519().map_or(&[][..], |bytes| bytes));
        Self { key: SigningKey::generate(), blind }
    }

    /// The nonce to ask a token with.
    pub fn nonce(&self) -> String {
        commitment(&self.key.public(), self.blind)
    }

    /// Signs a request, with the token that was given for its nonce.
    pub fn sign(&self, request: Request, id_token: &str) -> Result<SignedRequest, RequestError> {
        let proof = Proof::Token { blind: self.blind, id_token: id_token.to_owned(), key: self.key.public() };
        sign(&self.key, proof, request)
    }
}

fn sign(key: &SigningKey, proof: Proof, request: Request) -> Result<SignedRequest, RequestError> {
    let signature = key.sign(&request.message()?);
    Ok(SignedRequest { proof, request, signature })
}

/// A code that a person writes down and signs in with while the provider is out of reach: `K7QF-2M9X-PWTD-8RSA`.
#[derive(Debug)]
pub struct OfflineCode(WrittenKey);

impl OfflineCode {
    /// A new one.
    pub fn generate() -> Self {
        Self(WrittenKey::generate())
    }

    /// The key that it stands for.
    pub fn key(&self) -> SigningKey {
        self.0.key("mirabelle offline code 1")
    }

    /// Signs a request with it.
    pub fn sign(&self, request: Request) -> Result<SignedRequest, RequestError> {
        let key = self.key();
        sign(&key, Proof::Code { key: key.public() }, request)
    }

    /// In groups of four, for a person.
    pub fn shown(&self) -> Zeroizing<String> {
        self.0.shown()
    }
}

impl FromStr for OfflineCode {
    type Err = WrittenKeyError;

    fn from_str(text: &str) -> Result<Self, WrittenKeyError> {
        text.parse().map(Self)
    }
}

impl fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionKey(…)")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::provider::tests::{Fake, at};
    use crate::rights::{Right, RightsError, SignedList};

    const NOW: i64 = 1_790_000_000;

    fn request(action: Action, second: i64) -> Request {
        let id = RequestId::of(&[7; 16]);
        Request { action, at: at(second), college: "57001".parse().unwrap(), id }
    }

    fn signed_in(fake: &Fake) -> (SessionKey, String) {
        let key = SessionKey::generate();
        let token = fake.token(&Fake::claims(&json!({"nonce": key.nonce()})));
        (key, token)
    }

    #[test]
    fn whoever_signed_in_may_ask_until_her_session_ends() {
        let fake = Fake::new();
        let (key, token) = signed_in(&fake);
        let verify = |asked: i64, now: i64| {
            let signed = key.sign(request(Action::Read, asked), &token).unwrap();
            let travelled = SignedRequest::parse(&signed.to_bytes().unwrap()).unwrap();
            travelled.verify(&fake.sign_in, Some(&fake.provider()), None, at(now))
        };
        assert!(verify(NOW + 5, NOW + 6).unwrap().is_teacher);
        assert!(verify(NOW + 3000, NOW + 3001).is_ok(), "the token is over, her session is not");
        assert!(matches!(verify(NOW + 5000, NOW + 5001), Err(RequestError::Token(_))), "her session is over");
        assert!(
            matches!(verify(NOW + 5, NOW + 5 + AT_ONCE + 1), Err(RequestError::Time(_))),
            "sent again later"
        );
        assert!(matches!(verify(NOW + 1000, NOW), Err(RequestError::Time(_))));
        let belated = key.sign(request(Action::Forget, NOW + 60), &token).unwrap();
        let week = at(NOW + 7 * 24 * 3600);
        assert!(belated.verify_belated(&fake.sign_in, Some(&fake.provider()), None, week).is_ok());
    }

    #[test]
    fn a_token_without_its_key_is_worth_nothing() {
        let fake = Fake::new();
        let (key, token) = signed_in(&fake);
        let thief = SessionKey::generate();
        let verify = |signed: &SignedRequest| {
            signed.verify(&fake.sign_in, Some(&fake.provider()), None, at(NOW + 5)).map(|_| ())
        };
        let stolen = thief.sign(request(Action::Read, NOW), &token).unwrap();
        assert!(matches!(verify(&stolen), Err(RequestError::Token(_))), "the nonce commits to another key");
        let mut forged = key.sign(request(Action::Read, NOW), &token).unwrap();
        forged.request.action = Action::Forget;
        assert!(matches!(verify(&forged), Err(RequestError::Signature)));
        let mut elsewhere = key.sign(request(Action::Orders, NOW), &token).unwrap();
        elsewhere.request.college = "57002".parse().unwrap();
        assert!(matches!(verify(&elsewhere), Err(RequestError::Signature)));
        let good = key.sign(request(Action::Read, NOW), &token).unwrap();
        assert!(verify(&good).is_ok());
        assert!(matches!(good.verify(&fake.sign_in, None, None, at(NOW)), Err(RequestError::NoProvider)));
    }

    #[test]
    fn an_offline_code_counts_as_long_as_the_signed_list_says() {
        let fake = Fake::new();
        let (code, origin) = (OfflineCode::generate(), SigningKey::generate());
        let person = crate::Person::of(&fake.sign_in, "u-7");
        let right = Right {
            colleges: ["57001".parse().unwrap()].into(),
            key: code.key().public(),
            person,
            since: at(NOW),
            teacher: true,
            until: at(NOW + 1000),
        };
        let rights = Rights::new(vec![right], at(NOW), at(NOW + 5000));
        let bytes = SignedList::sign(&rights, &origin).unwrap();
        let read = |key: &SigningKey, now: i64| SignedList::rights(&bytes, &key.public(), at(now));
        let rights = read(&origin, NOW).unwrap();
        assert!(
            matches!(read(&SigningKey::generate(), NOW), Err(RightsError::Signature)),
            "a node's own list"
        );
        assert!(matches!(read(&origin, NOW + 5000), Err(RightsError::Expired(_))));
        let typed: OfflineCode = code.shown().to_lowercase().replace('-', " ").parse().unwrap();
        let verify = |code: &OfflineCode, second: i64| {
            let signed = code.sign(request(Action::Read, second)).unwrap();
            signed.verify(&fake.sign_in, None, Some(&rights), at(second))
        };
        assert_eq!(verify(&typed, NOW + 5).unwrap().person, person);
        assert!(matches!(verify(&typed, NOW + 1000), Err(RequestError::UnknownCode)), "her time is over");
        let guessed = OfflineCode::generate();
        assert!(matches!(verify(&guessed, NOW + 5), Err(RequestError::UnknownCode)));
    }

    #[test]
    fn what_is_no_request_is_refused_as_such() {
        let endless = vec![b' '; MAX_REQUEST_BYTES + 1];
        for bytes in [b"".as_slice(), b"{}", b"[]", b"\xff", &endless] {
            assert!(SignedRequest::parse(bytes).is_err());
        }
    }
}
