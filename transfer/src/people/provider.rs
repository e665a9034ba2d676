//! The provider's own description and keys (OpenID Connect Discovery 1.0, 4; RFC 7517), as it serves them.
//!
//! Threats and the defence for each:
//! - *A description that leads elsewhere*: its keys come from the issuer's own host, as the signed deployment names it, and no redirect is
//!   followed; what it says is checked by [`Provider::checked`].
//! - *An answer without end, or none*: size and time are limited.

use std::time::Duration;

use mirabelle_identity::{Provider, ProviderError};
use mirabelle_manifests::SignIn;
use serde::Deserialize;

/// The most of each document.
const MAX_BYTES: usize = 256 << 10;
/// How long each may take.
const TIME: Duration = Duration::from_secs(20);

/// Why the provider is not known.
#[derive(Debug, thiserror::Error)]
pub enum DiscoveryError {
    /// Not an address.
    #[error("`{0}` is no address of a provider")]
    Address(String),
    /// It did not answer, or not well.
    #[error("the provider does not answer")]
    Unreachable(#[source] reqwest::Error),
    /// It took too long.
    #[error("the provider did not answer in time")]
    Slow,
    /// More bytes than anybody needs.
    #[error("the provider's answer has more than 256 KiB")]
    TooLarge,
    /// Its keys would come from another server.
    #[error("the provider's keys are said to be at `{0}`, which is another server")]
    Elsewhere(String),
    /// Not JSON of this shape.
    #[error("the provider's answer cannot be read")]
    Malformed(#[source] serde_json::Error),
    /// It is not the provider that is meant, or cannot be used.
    #[error(transparent)]
    Provider(#[from] ProviderError),
}

#[derive(Deserialize)]
struct Description {
    authorization_endpoint: String,
    end_session_endpoint: Option<String>,
    issuer: String,
    jwks_uri: String,
    token_endpoint: String,
}

/// Asks the provider that the deployment names, with requests that `get` begins.
///
/// # Errors
/// When it does not answer, or not as the provider that is meant.
pub async fn discover(
    sign_in: &SignIn,
    get: impl Fn(reqwest::Url) -> reqwest::RequestBuilder,
) -> Result<Provider, DiscoveryError> {
    let address = |text: &str| {
        reqwest::Url::parse(text).map_err(|_| DiscoveryError::Address(text.chars().take(80).collect()))
    };
    let base = sign_in.issuer.trim_end_matches('/');
    let own = address(&format!("{base}/.well-known/openid-configuration"))?;
    let described: Description = read(get(own.clone())).await?;
    let keys = address(&described.jwks_uri)?;
    if keys.origin() != own.origin() {
        return Err(DiscoveryError::Elsewhere(described.jwks_uri));
    }
    let provider = Provider {
        authorization_endpoint: described.authorization_endpoint,
        end_session_endpoint: described.end_session_endpoint,
        issuer: described.issuer,
        jwks: read(get(keys)).await?,
        token_endpoint: described.token_endpoint,
    };
    Ok(provider.checked(sign_in)?)
}

async fn read<T: serde::de::DeserializeOwned>(request: reqwest::RequestBuilder) -> Result<T, DiscoveryError> {
    let reading = async {
        let mut response = request
            .send()
            .await
            .and_then(reqwest::Response::error_for_status)
            .map_err(DiscoveryError::Unreachable)?;
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(DiscoveryError::Unreachable)? {
            if body.len() + chunk.len() > MAX_BYTES {
                return Err(DiscoveryError::TooLarge);
            }
            body.extend_from_slice(&chunk);
        }
        serde_json::from_slice(&body).map_err(DiscoveryError::Malformed)
    };
    tokio::time::timeout(TIME, reading).await.unwrap_or(Err(DiscoveryError::Slow))
}
