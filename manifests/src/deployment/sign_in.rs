//! How people sign in, once for every college: the département's OpenID Connect provider, and what its claims mean here.
//!
//! ```toml
//! [sign-in]
//! issuer = "https://connexion.moselle.example"    # exactly as its tokens say it
//! client-id = "mirabelle"                          # a public client: PKCE, no secret
//! scopes = ["profile"]                             # beside `openid`
//! role-claim = "ENTPersonProfils"                  # a dot leads into an object: "realm_access.roles"
//! teachers = ["ENS", "DIR"]                        # one of these makes a teacher
//! college-claim = "ENTPersonStructRattach"         # where she teaches
//! colleges = { "0570001A" = "57001" }              # what it calls our colleges; others are taken as they are
//! salt = "<64 hex digits>"                         # makes our pseudonyms other than anybody else's
//! rights-key = { … }                               # the origin's key for the lists of rights and orders
//! ```
//!
//! It is part of the signed deployment: neither a node nor a workstation can name another provider, or make teachers of pupils.

use std::collections::{BTreeMap, BTreeSet};

use mirabelle_keys::PublicKey;
use serde::{Deserialize, Serialize};

use crate::Digest;
use crate::names::SiteId;

/// The most of an address, a name or a claim.
const MAX_TEXT_BYTES: usize = 512;
const MAX_SCOPES: usize = 16;
/// Nobody signs in without the provider for longer: whoever left has lost her rights by then.
const MAX_OFFLINE_DAYS: u16 = 60;
const MAX_MINUTES: u16 = 12 * 60;

/// How people sign in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct SignIn {
    /// The claim that says where she teaches; without it, a teacher is one everywhere and orders for no room.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub college_claim: Option<String>,
    /// What the provider calls our colleges.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub colleges: BTreeMap<String, SiteId>,
    /// What the provider calls us.
    pub client_id: String,
    /// Minutes without a sign of her, after which she is signed out.
    #[serde(default = "idle_minutes")]
    pub idle_minutes: u16,
    /// The provider, exactly as its tokens say it.
    pub issuer: String,
    /// Days for which she may sign in while the provider is out of reach.
    #[serde(default = "offline_days")]
    pub offline_days: u16,
    /// The origin's key that signs who has which rights, and what was ordered for another college.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rights_key: Option<PublicKey>,
    /// The claim that says what she is.
    pub role_claim: String,
    /// Makes pseudonyms of this deployment other than those of another.
    pub salt: Digest,
    /// What is asked for beside `openid`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scopes: Vec<String>,
    /// Minutes after which she signs in anew, whatever she does.
    #[serde(default = "session_minutes")]
    pub session_minutes: u16,
    /// Values of the claim, of which one makes a teacher.
    pub teachers: BTreeSet<String>,
}

fn idle_minutes() -> u16 {
    30
}

fn offline_days() -> u16 {
    14
}

fn session_minutes() -> u16 {
    10 * 60
}

impl SignIn {
    /// What keeps people from signing in like this.
    pub(super) fn fault(&self) -> Option<&'static str> {
        let texts = [&self.client_id, &self.role_claim]
            .into_iter()
            .chain(&self.college_claim)
            .chain(&self.scopes)
            .chain(&self.teachers)
            .chain(self.colleges.keys());
        let is_plain = |text: &String| {
            !text.is_empty() && text.len() <= MAX_TEXT_BYTES && !text.chars().any(char::is_control)
        };
        if !is_provider(&self.issuer) {
            return Some("the issuer is no `https://` address (or `http://` on this machine's own loopback)");
        }
        if !texts.into_iter().all(is_plain) || self.scopes.len() > MAX_SCOPES {
            return Some("a name is empty, too long, or holds a control character");
        }
        if self.teachers.is_empty() {
            return Some("`teachers` names no value that makes a teacher");
        }
        if self.offline_days > MAX_OFFLINE_DAYS {
            return Some("`offline-days` are more than 60");
        }
        let minutes = [self.idle_minutes, self.session_minutes];
        if minutes.iter().any(|minutes| !(1..=MAX_MINUTES).contains(minutes)) {
            return Some("`idle-minutes` and `session-minutes` are between 1 and 720");
        }
        None
    }
}

/// An address that what comes from it can be believed of: HTTPS, or HTTP that does not leave the machine, as tests have it.
fn is_provider(address: &str) -> bool {
    let plain = address.len() <= MAX_TEXT_BYTES
        && address.chars().all(|c| c.is_ascii_graphic() && !"@?#\"\\<>`{}|^".contains(c));
    let host = |scheme: &str| address.strip_prefix(scheme).filter(|rest| !rest.starts_with(['/', ':']));
    let own = |rest: &str| {
        let host = rest.split('/').next().unwrap_or_default();
        host.rsplit_once(':').map_or(host, |(host, _)| host) == "127.0.0.1"
    };
    plain && (host("https://").is_some_and(|rest| !rest.is_empty()) || host("http://").is_some_and(own))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sign_in() -> SignIn {
        serde_json::from_value(serde_json::json!({
            "issuer": "https://connexion.example", "client-id": "mirabelle", "role-claim": "role",
            "teachers": ["ENS"], "salt": "11".repeat(32),
        }))
        .unwrap()
    }

    #[test]
    fn a_provider_is_spoken_to_by_https_or_on_the_loopback() {
        for (issuer, sound) in [
            ("https://connexion.example", true),
            ("https://connexion.example/realms/moselle", true),
            ("http://127.0.0.1:4000", true),
            ("http://connexion.example", false),
            ("http://127.0.0.1.example:4000", false),
            ("https://", false),
            ("https://a@b", false),
            ("connexion.example", false),
        ] {
            let fault = SignIn { issuer: issuer.to_owned(), ..sign_in() }.fault();
            assert_eq!(fault.is_none(), sound, "{issuer}: {fault:?}");
        }
    }

    #[test]
    fn nobody_is_a_teacher_by_an_empty_list_or_for_ever() {
        assert_eq!(sign_in().fault(), None);
        assert!(SignIn { teachers: [].into(), ..sign_in() }.fault().is_some());
        assert!(SignIn { offline_days: 61, ..sign_in() }.fault().is_some());
        assert!(SignIn { session_minutes: 0, ..sign_in() }.fault().is_some());
        assert!(SignIn { client_id: "a\nb".to_owned(), ..sign_in() }.fault().is_some());
    }
}
