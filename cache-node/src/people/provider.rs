//! The provider, mirrored: its addresses and keys, so that a college knows them while its link is cut.
//!
//! ```text
//! <root>/people/provider.json     as it was last understood; one that is not leaves the one before
//! ```
//!
//! It is asked over the college's link, within its hours and budget, each hour, and when a token is signed with a key that is not known.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant as Tick};

use mirabelle_content::durable;
use mirabelle_identity::Provider;
use mirabelle_manifests::SignIn;
use mirabelle_transfer::people::discover;
use mirabelle_transfer::{Link, LinkClient};

const MAX_BYTES: u64 = 256 << 10;
/// How old it may become.
const OLD: Duration = Duration::from_hours(1);
/// It is asked again no sooner.
const RESTS: Duration = Duration::from_mins(1);
/// A server that is not reached within this is down; one that says nothing for so long has stalled.
const CONNECT_TIME: Duration = Duration::from_secs(10);
const STALL_TIME: Duration = Duration::from_secs(20);

/// The provider as it is known.
#[derive(Clone)]
pub(super) struct Mirrored {
    path: PathBuf,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    kept: Option<Vec<u8>>,
    asked: Option<Tick>,
}

impl Mirrored {
    pub(super) fn open(path: &Path) -> Self {
        let kept = durable::read_if_present(path, MAX_BYTES).ok().flatten();
        Self { path: path.to_owned(), state: Arc::new(Mutex::new(State { kept, asked: None })) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The provider of the deployment, if it is known.
    pub(super) fn known(&self, sign_in: &SignIn) -> Option<Provider> {
        Provider::parse(self.state().kept.as_ref()?, sign_in).ok()
    }

    pub(super) fn is_old(&self, sign_in: &SignIn) -> bool {
        let asked = self.state().asked;
        let limit = if self.known(sign_in).is_some() { OLD } else { RESTS };
        asked.is_none_or(|asked| asked.elapsed() >= limit)
    }

    pub(super) fn may_ask_again(&self) -> bool {
        self.state().asked.is_none_or(|asked| asked.elapsed() >= RESTS)
    }

    /// Asks the provider.
    pub(super) async fn ask(&self, sign_in: &SignIn, link: &Arc<Link>) {
        self.state().asked = Some(Tick::now());
        let Ok(base) = reqwest::Url::parse(&sign_in.issuer) else { return };
        // Only the first call in a process has an effect, and every caller wants the same.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let builder = reqwest::Client::builder()
            .user_agent(concat!("mirabelle/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIME)
            .read_timeout(STALL_TIME)
            .redirect(reqwest::redirect::Policy::none());
        let client = match LinkClient::new(link, &base, builder) {
            Ok(client) => client,
            Err(error) => {
                tracing::error!(%error, "the provider cannot be asked over the link");
                return;
            }
        };
        match discover(sign_in, |url| client.get(url)).await {
            Ok(provider) => {
                let bytes = serde_json::to_vec(&provider).unwrap_or_default();
                if self.state().kept.as_ref() != Some(&bytes) {
                    tracing::info!(
                        issuer = provider.issuer,
                        "the provider's addresses and keys are mirrored"
                    );
                    if let Err(error) = durable::write_atomically(&self.path, &bytes) {
                        tracing::warn!(%error, "the provider could not be kept");
                    }
                    self.state().kept = Some(bytes);
                }
            }
            Err(error) => {
                tracing::warn!(%error, cause = ?std::error::Error::source(&error), "the provider is not understood");
            }
        }
    }
}
