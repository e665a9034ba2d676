//! The provider, as the node of a college mirrors it, and what its tokens say.
//!
//! ```text
//! GET <node>/identity/provider.json
//! {"issuer":"https://connexion.example","authorization_endpoint":"…","token_endpoint":"…","end_session_endpoint":"…","jwks":{"keys":[…]}}
//! ```
//!
//! The issuer is the one that the signed deployment names; the addresses and keys are the provider's own discovery document and key
//! set (OpenID Connect Discovery 1.0, 3 and 4). Tokens are verified as OpenID Connect Core 1.0, 3.1.3.7 says, by `openidconnect`.
//!
//! Threats and the defence for each:
//! - *A node that mirrors keys of its own*: a workstation takes a token only from the token endpoint, over TLS, which the node cannot
//!   answer for; with other keys that token does not verify, and nobody signs in.
//! - *`alg: none`, or the public key used as a shared secret*: only asymmetric algorithms, of a list.
//! - *A token of another client, of yesterday, or of another sign-in*: audience, authorised party, times and nonce.

use chrono::DateTime;
use mirabelle_manifests::{Instant, SignIn};
use openidconnect::core::{
    CoreGenderClaim, CoreJsonWebKey, CoreJsonWebKeySet, CoreJweContentEncryptionAlgorithm,
    CoreJwsSigningAlgorithm,
};
use openidconnect::{
    AdditionalClaims, ClaimsVerificationError, ClientId, IdToken, IdTokenVerifier, IssuerUrl, Nonce,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::person::{Identity, Person, colleges, is_teacher};

/// The most of the document: a provider has a handful of keys.
const MAX_DOCUMENT_BYTES: usize = 256 << 10;
/// The most of a token: browsers and servers carry no longer ones.
const MAX_TOKEN_BYTES: usize = 16 << 10;
/// How far two clocks may be apart, in seconds.
const CLOCKS_APART: i64 = 120;

/// What is accepted as a signature: asymmetric, and none that is broken.
const ALGORITHMS: [CoreJwsSigningAlgorithm; 8] = [
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha256,
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha384,
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha512,
    CoreJwsSigningAlgorithm::RsaSsaPssSha256,
    CoreJwsSigningAlgorithm::RsaSsaPssSha512,
    CoreJwsSigningAlgorithm::EcdsaP256Sha256,
    CoreJwsSigningAlgorithm::EcdsaP384Sha384,
    CoreJwsSigningAlgorithm::EdDsa,
];

/// The provider's addresses and keys.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Provider {
    /// Where a browser is sent to sign in.
    pub authorization_endpoint: String,
    /// Where it is sent to sign out, if the provider has such a place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_session_endpoint: Option<String>,
    /// Who it is.
    pub issuer: String,
    /// Its keys (RFC 7517).
    pub jwks: Value,
    /// Where a code becomes a token.
    pub token_endpoint: String,
}

/// Why a document does not describe the provider.
#[derive(Debug, thiserror::Error)]
pub enum ProviderError {
    /// Larger than any.
    #[error("the provider's description has {0} bytes, more than 256 KiB")]
    TooLarge(usize),
    /// Not JSON of this shape.
    #[error("the provider's description is malformed")]
    Malformed(#[source] serde_json::Error),
    /// It describes another provider.
    #[error("this is the description of `{found}`, and the deployment names `{expected}`")]
    AnotherIssuer {
        /// Whose it is.
        found: String,
        /// Who is meant.
        expected: String,
    },
    /// An address outside HTTPS, on a provider that is not on this machine's loopback.
    #[error("`{0}` is no address that a sign-in can be trusted to")]
    Address(String),
    /// No key that we can verify with.
    #[error("the provider has no keys that can be read")]
    NoKeys,
}

/// Why a token is refused.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// It is no signed token.
    #[error("this is no signed ID token")]
    Malformed,
    /// Its signature, issuer, audience, nonce or time is wrong.
    #[error("the ID token is refused")]
    Refused(#[source] ClaimsVerificationError),
    /// It was given to another client, though it names us too.
    #[error("the ID token was issued to another application")]
    AnotherParty,
    /// The provider cannot be used.
    #[error(transparent)]
    Provider(#[from] ProviderError),
}

/// Everything a token says beside what OpenID Connect names.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct OtherClaims(serde_json::Map<String, Value>);

impl AdditionalClaims for OtherClaims {}

type Token =
    IdToken<OtherClaims, CoreGenderClaim, CoreJweContentEncryptionAlgorithm, CoreJwsSigningAlgorithm>;

impl Provider {
    /// Reads a description, of the provider that the deployment names.
    pub fn parse(bytes: &[u8], sign_in: &SignIn) -> Result<Self, ProviderError> {
        if bytes.len() > MAX_DOCUMENT_BYTES {
            return Err(ProviderError::TooLarge(bytes.len()));
        }
        let provider: Self = serde_json::from_slice(bytes).map_err(ProviderError::Malformed)?;
        provider.checked(sign_in)
    }

    /// Itself, if it is the provider that the deployment names and can be used.
    pub fn checked(self, sign_in: &SignIn) -> Result<Self, ProviderError> {
        if self.issuer != sign_in.issuer {
            return Err(ProviderError::AnotherIssuer {
                found: self.issuer,
                expected: sign_in.issuer.clone(),
            });
        }
        let scheme = if sign_in.issuer.starts_with("https://") { "https://" } else { "http://127.0.0.1" };
        let addresses = [&self.authorization_endpoint, &self.token_endpoint];
        for address in addresses.into_iter().chain(&self.end_session_endpoint) {
            if !address.starts_with(scheme) || address.chars().any(|c| c.is_control() || c.is_whitespace()) {
                return Err(ProviderError::Address(address.chars().take(80).collect()));
            }
        }
        self.keys()?;
        Ok(self)
    }

    fn keys(&self) -> Result<CoreJsonWebKeySet, ProviderError> {
        let keys: CoreJsonWebKeySet =
            serde_json::from_value(self.jwks.clone()).map_err(ProviderError::Malformed)?;
        if keys.keys().is_empty() { Err(ProviderError::NoKeys) } else { Ok(keys) }
    }

    /// Who the token of a sign-in that has just happened is about.
    pub fn verify(
        &self,
        token: &str,
        nonce: &str,
        sign_in: &SignIn,
        now: Instant,
    ) -> Result<Identity, TokenError> {
        self.verify_within(token, nonce, sign_in, now, CLOCKS_APART)
    }

    /// Who the token of a sign-in is about that happened at most `session-minutes` ago: a request is signed with the key that the
    /// nonce commits to, so the token counts for as long as that session.
    pub(crate) fn verify_session(
        &self,
        token: &str,
        nonce: &str,
        sign_in: &SignIn,
        now: Instant,
    ) -> Result<Identity, TokenError> {
        self.verify_within(token, nonce, sign_in, now, i64::from(sign_in.session_minutes) * 60)
    }

    /// As if it were up to `seconds` earlier.
    fn verify_within(
        &self,
        token: &str,
        nonce: &str,
        sign_in: &SignIn,
        now: Instant,
        seconds: i64,
    ) -> Result<Identity, TokenError> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(TokenError::Malformed);
        }
        let token: Token = token.parse().map_err(|_| TokenError::Malformed)?;
        let issuer = IssuerUrl::new(sign_in.issuer.clone())
            .map_err(|_| ProviderError::Address(sign_in.issuer.clone()))?;
        let client = ClientId::new(sign_in.client_id.clone());
        let second = now.as_second();
        let issued_at = move |issued: i64| {
            if issued > second.saturating_add(CLOCKS_APART) {
                Err("it was issued in the future".to_owned())
            } else if issued < second.saturating_sub(seconds.max(CLOCKS_APART) + CLOCKS_APART) {
                Err("it was issued too long ago".to_owned())
            } else {
                Ok(())
            }
        };
        let verifier: IdTokenVerifier<'_, CoreJsonWebKey> =
            IdTokenVerifier::new_public_client(client, issuer, self.keys()?)
                .set_allowed_algs(ALGORITHMS)
                .set_time_fn(move || {
                    DateTime::from_timestamp(second.saturating_sub(seconds), 0).unwrap_or_default()
                })
                .set_issue_time_verifier_fn(move |issued| issued_at(issued.timestamp()));
        let claims = token.claims(&verifier, &Nonce::new(nonce.to_owned())).map_err(TokenError::Refused)?;
        // Core 3.1.3.7, 5; `openidconnect` leaves it to us.
        if claims.authorized_party().is_some_and(|party| party.as_str() != sign_in.client_id) {
            return Err(TokenError::AnotherParty);
        }
        let other = Value::Object(claims.additional_claims().0.clone());
        let since = Instant::from_second(claims.issue_time().timestamp()).unwrap_or(now).min(now);
        let minutes = i64::from(sign_in.session_minutes);
        Ok(Identity {
            person: Person::of(sign_in, claims.subject().as_str()),
            is_teacher: is_teacher(sign_in, &other),
            colleges: colleges(sign_in, &other),
            since,
            until: Instant::from_second(since.as_second().saturating_add(minutes * 60)).unwrap_or(since),
        })
    }
}

/// What a token calls the person, to be shown on her own screen: of a token that was verified.
pub fn name_in(token: &str) -> Option<String> {
    use base64::Engine as _;
    let payload = token.split('.').nth(1)?;
    let payload = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(payload).ok()?;
    let claims: Value = serde_json::from_slice(&payload).ok()?;
    let name =
        ["name", "given_name", "preferred_username"].iter().find_map(|name| claims.get(name)?.as_str())?;
    Some(name.chars().filter(|c| !c.is_control()).take(80).collect())
}

#[cfg(test)]
pub(crate) mod tests;
