//! Signing in: OpenID Connect, authorization code with PKCE, as a native application (RFC 8252), or an offline code.
//!
//! ```text
//! POST /sign-in/provider ─▶ 303 <provider>/auth?…&state&nonce&code_challenge     the nonce commits to a key of this sign-in
//! GET  /sign-in/return?code&state ─▶ agent: POST <provider>/token (code, verifier) ─▶ ID token, verified with the keys the node mirrors
//! POST /sign-in/code ─▶ agent: the list of rights that the node mirrors, signed by the origin
//! ```
//!
//! Threats and the defence for each:
//! - *A code that was used, or another's* (the browser's history, another session): it belongs to one pending sign-in of one session,
//!   which is taken when it returns, whatever comes of it; and it is worth nothing without the verifier, which never leaves here.
//! - *Somebody is signed in as another without noticing* (login CSRF): `state` is compared, and belongs to the session.
//! - *Another provider answers* (mix-up, RFC 9207): there is one, and where it names itself in the answer, it must be that one.
//! - *A provider that never answers, or too much*: time and size are limited.

use std::time::{Duration, Instant as Tick};

use mirabelle_identity::{OfflineCode, Provider, Rights, SignedList, name_in};
use mirabelle_manifests::{Instant, SignIn};
use openidconnect::{PkceCodeChallenge, PkceCodeVerifier};
use serde::Deserialize;
use zeroize::Zeroizing;

use super::Store;
use super::person::{Means, Pending, SignedPerson};
use super::session::{Session, secret};
use super::view::Trouble;

/// How long the provider may take.
const PROVIDER_TIME: Duration = Duration::from_secs(15);
/// The most of its answer.
const MAX_ANSWER_BYTES: usize = 64 << 10;
/// The most of what the node mirrors.
const MAX_PROVIDER_BYTES: u64 = 256 << 10;
const MAX_RIGHTS_BYTES: u64 = 8 << 20;

/// What the provider sends the browser back with.
#[derive(Debug, Deserialize)]
pub(super) struct Returned {
    code: Option<String>,
    state: Option<String>,
    iss: Option<String>,
    error: Option<String>,
}

#[derive(Deserialize)]
struct TokenAnswer {
    id_token: String,
}

impl Store {
    /// Begins a sign-in: where the browser goes.
    pub(super) async fn begin_sign_in(&self, session: &Session, sign_in: &SignIn) -> Result<String, Trouble> {
        let provider = self.provider(sign_in).await.ok_or(Trouble::NodeSilent)?;
        let key = mirabelle_identity::SessionKey::generate();
        let state = secret().map_err(|_| Trouble::Inside)?;
        let verifier = secret().map_err(|_| Trouble::Inside)?;
        let challenge =
            PkceCodeChallenge::from_code_verifier_sha256(&PkceCodeVerifier::new(verifier.to_string()));
        let scopes: Vec<&str> =
            std::iter::once("openid").chain(sign_in.scopes.iter().map(String::as_str)).collect();
        let address = reqwest::Url::parse_with_params(
            &provider.authorization_endpoint,
            [
                ("response_type", "code"),
                ("client_id", &sign_in.client_id),
                ("redirect_uri", &self.returns_to()),
                ("scope", &scopes.join(" ")),
                ("state", &state),
                ("nonce", &key.nonce()),
                ("code_challenge", challenge.as_str()),
                ("code_challenge_method", "S256"),
            ],
        );
        let address = address.map_err(|_| Trouble::SignInRefused)?;
        session.begin(Pending { state, verifier, key, begun: Tick::now() });
        Ok(address.into())
    }

    /// Ends a sign-in with what the provider sent back.
    pub(super) async fn finish_sign_in(
        &self,
        session: &Session,
        sign_in: &SignIn,
        returned: Returned,
    ) -> Result<(), Trouble> {
        // Taken first: whatever comes of it, it is not used again.
        let pending =
            session.take_pending().filter(|pending| !pending.is_over()).ok_or(Trouble::SignInOver)?;
        let belongs = returned.state.as_deref() == Some(pending.state.as_str());
        if !belongs || returned.iss.is_some_and(|issuer| issuer != sign_in.issuer) {
            tracing::warn!("a sign-in came back that was not begun here");
            return Err(Trouble::SignInRefused);
        }
        let Some(code) = returned.code else {
            tracing::info!(error = returned.error, "the provider did not sign somebody in");
            return Err(Trouble::SignInRefused);
        };
        let provider = self.provider(sign_in).await.ok_or(Trouble::NodeSilent)?;
        let id_token = self.redeem(&provider, sign_in, &code, &pending.verifier).await?;
        let verify =
            |provider: &Provider| provider.verify(&id_token, &pending.key.nonce(), sign_in, Instant::now());
        let mut verified = verify(&provider);
        // The provider may have new keys, which the node has by now.
        if verified.is_err() {
            let newest = self.fetch_provider(sign_in).await.ok_or(Trouble::SignInRefused)?;
            verified = verify(&newest);
        }
        let identity = verified.map_err(|error| {
            tracing::warn!(%error, cause = ?std::error::Error::source(&error), "an ID token was refused");
            Trouble::SignInRefused
        })?;
        let name = name_in(&id_token);
        let means = Means::Token { key: Box::new(pending.key), id_token, name };
        session.sign_in(SignedPerson::new(identity, means, sign_in));
        Ok(())
    }

    /// A code becomes a token.
    async fn redeem(
        &self,
        provider: &Provider,
        sign_in: &SignIn,
        code: &str,
        verifier: &str,
    ) -> Result<Zeroizing<String>, Trouble> {
        let returns_to = self.returns_to();
        let form = [
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", &returns_to),
            ("client_id", &sign_in.client_id),
            ("code_verifier", verifier),
        ];
        let mut body = reqwest::Url::parse("form:").map_err(|_| Trouble::Inside)?;
        body.query_pairs_mut().extend_pairs(form);
        let body = body.query().unwrap_or_default().to_owned();
        let asking = async {
            let request = self.http.post(&provider.token_endpoint);
            let request = request.header("content-type", "application/x-www-form-urlencoded").body(body);
            let mut response = request.send().await?;
            let is_success = response.status().is_success();
            let mut answer = Zeroizing::new(Vec::new());
            while let Some(chunk) = response.chunk().await? {
                if answer.len() + chunk.len() > MAX_ANSWER_BYTES {
                    break;
                }
                answer.extend_from_slice(&chunk);
            }
            Ok::<_, reqwest::Error>((is_success, answer))
        };
        match tokio::time::timeout(PROVIDER_TIME, asking).await {
            Ok(Ok((true, answer))) => {
                let answer: TokenAnswer = serde_json::from_slice(&answer).map_err(|error| {
                    tracing::warn!(%error, "the provider's answer has no ID token");
                    Trouble::SignInRefused
                })?;
                Ok(Zeroizing::new(answer.id_token))
            }
            Ok(Ok((false, _))) => {
                tracing::warn!("the provider refused a code");
                Err(Trouble::SignInRefused)
            }
            Ok(Err(error)) => {
                tracing::warn!(error = %error.without_url(), "the provider does not answer");
                Err(Trouble::ProviderSilent)
            }
            Err(_) => Err(Trouble::ProviderSilent),
        }
    }

    /// Signs in with an offline code.
    pub(super) async fn sign_in_with_code(
        &self,
        session: &Session,
        sign_in: &SignIn,
        code: &str,
    ) -> Result<(), Trouble> {
        if !session.may_try() {
            return Err(Trouble::TooManyAttempts);
        }
        let code: OfflineCode = code.parse().map_err(|_| Trouble::CodeUnknown)?;
        let rights = self.rights(sign_in).await.ok_or(Trouble::NodeSilent)?;
        let right = rights.of(&code.key().public()).ok_or(Trouble::CodeUnknown)?;
        let identity = right.identity(Instant::now()).ok_or(Trouble::CodeUnknown)?;
        session.sign_in(SignedPerson::new(identity, Means::Code(code), sign_in));
        Ok(())
    }

    /// The provider as it is known; asked for, if it is not.
    pub(super) async fn provider(&self, sign_in: &SignIn) -> Option<Provider> {
        let known = self.known_provider();
        match known.filter(|provider| provider.issuer == sign_in.issuer) {
            Some(known) => Some(known),
            None => self.fetch_provider(sign_in).await,
        }
    }

    /// The provider as the node mirrors it now.
    pub(super) async fn fetch_provider(&self, sign_in: &SignIn) -> Option<Provider> {
        let document = self.node()?.bytes("identity/provider.json", MAX_PROVIDER_BYTES).await;
        match document.map(|bytes| Provider::parse(&bytes, sign_in)) {
            Ok(Ok(provider)) => {
                self.keep_provider(provider.clone());
                Some(provider)
            }
            Ok(Err(error)) => {
                tracing::warn!(%error, "the node does not mirror the provider of the deployment");
                None
            }
            Err(error) => {
                tracing::info!(%error, "the node does not say how to sign in");
                None
            }
        }
    }

    /// Who may sign in with a code, as the origin signed it.
    async fn rights(&self, sign_in: &SignIn) -> Option<Rights> {
        let key = sign_in.rights_key.as_ref()?;
        let list = match self.node()?.bytes("rights.json", MAX_RIGHTS_BYTES).await {
            Ok(list) => list,
            Err(error) => {
                tracing::info!(%error, "the node has no list of rights");
                return None;
            }
        };
        SignedList::rights(&list, key, Instant::now())
            .inspect_err(|error| tracing::warn!(%error, "the node's list of rights is refused"))
            .ok()
    }
}
