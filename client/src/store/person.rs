//! Somebody who signed in: what the store knows of her, in memory only, and how it signs what she asks of the node.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant as Tick};

use mirabelle_identity::{
    Action, Choices, Identity, OfflineCode, Person, Request, RequestError, RequestId, SessionKey,
    SignedRequest,
};
use mirabelle_manifests::{Asker, Instant, SignIn, SiteId};

use super::session::Secret;
use super::view::SignedIn;

/// How long a sign-in may take at the provider.
const SIGNING_IN: Duration = Duration::from_mins(10);

/// A sign-in that was begun with the provider.
pub(super) struct Pending {
    pub(super) state: Secret,
    /// Proves that whoever brings the code is who asked for it (RFC 7636).
    pub(super) verifier: Secret,
    pub(super) key: SessionKey,
    pub(super) begun: Tick,
}

impl Pending {
    /// True when it took too long.
    pub(super) fn is_over(&self) -> bool {
        self.begun.elapsed() > SIGNING_IN
    }
}

/// What she signs with.
pub(super) enum Means {
    Token { key: Box<SessionKey>, id_token: Secret, name: Option<String> },
    Code(OfflineCode),
}

/// Somebody who signed in.
pub(super) struct SignedPerson {
    identity: Identity,
    means: Means,
    idle: Duration,
    signed_in: Tick,
    longest: Duration,
    seen: Mutex<Tick>,
    /// What she chose elsewhere, as far as it is known.
    choices: Mutex<Choices>,
}

impl SignedPerson {
    pub(super) fn new(identity: Identity, means: Means, sign_in: &SignIn) -> Self {
        let minutes = |minutes: u16| Duration::from_secs(u64::from(minutes) * 60);
        Self {
            identity,
            means,
            idle: minutes(sign_in.idle_minutes),
            signed_in: Tick::now(),
            longest: minutes(sign_in.session_minutes),
            seen: Mutex::new(Tick::now()),
            choices: Mutex::default(),
        }
    }

    /// True until nobody was there for too long, or her time is over.
    pub(super) fn counts(&self) -> bool {
        self.counts_at(Tick::now(), Instant::now())
    }

    fn counts_at(&self, tick: Tick, now: Instant) -> bool {
        let seen = *self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        tick.saturating_duration_since(seen) < self.idle
            && tick.saturating_duration_since(self.signed_in) < self.longest
            && now < self.identity.until
    }

    /// She is there.
    pub(super) fn is_there(&self) {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Tick::now();
    }

    pub(super) fn asker(&self) -> Asker {
        self.identity.asker()
    }

    pub(super) fn pseudonym(&self) -> Person {
        self.identity.person
    }

    /// Where she may order for rooms.
    pub(super) fn colleges(&self) -> Vec<SiteId> {
        if self.identity.is_teacher { self.identity.colleges.iter().cloned().collect() } else { Vec::new() }
    }

    pub(super) fn teaches_at(&self, college: &SiteId) -> bool {
        self.identity.teaches_at(college)
    }

    pub(super) fn shown(&self) -> SignedIn {
        let (until, colleges) = (self.identity.until, self.colleges());
        match &self.means {
            Means::Token { name, .. } => SignedIn::Provider { until, name: name.clone(), colleges },
            Means::Code(_) => SignedIn::Code { until, colleges },
        }
    }

    /// What the provider gave, to sign out there as well.
    pub(super) fn id_token(&self) -> Option<&str> {
        match &self.means {
            Means::Token { id_token, .. } => Some(id_token),
            Means::Code(_) => None,
        }
    }

    /// Signs what she asks about `college`, under a number of its own.
    pub(super) fn sign(&self, action: Action, college: &SiteId) -> Result<SignedRequest, RequestError> {
        let mut number = [0_u8; 16];
        getrandom::fill(&mut number).map_err(RequestError::Random)?;
        let at = Instant::from_second(Instant::now().as_second()).unwrap_or_else(|_| Instant::now());
        let request = Request { action, at, college: college.clone(), id: RequestId::of(&number) };
        match &self.means {
            Means::Token { key, id_token, .. } => key.sign(request, id_token),
            Means::Code(code) => code.sign(request),
        }
    }

    pub(super) fn choices(&self) -> Choices {
        self.choices.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What the node knows of her.
    pub(super) fn learn(&self, choices: Choices) {
        *self.choices.lock().unwrap_or_else(PoisonError::into_inner) = choices;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn she_is_signed_out_when_nobody_was_there_and_when_her_time_is_over() {
        let sign_in: SignIn = serde_json::from_value(serde_json::json!({
            "issuer": "https://connexion.example", "client-id": "mirabelle", "role-claim": "role",
            "teachers": ["ENS"], "salt": "11".repeat(32), "idle-minutes": 20, "session-minutes": 60,
        }))
        .unwrap();
        let now = Instant::now();
        let identity = Identity {
            person: Person::of(&sign_in, "claire"),
            is_teacher: true,
            colleges: ["57001".parse().unwrap()].into(),
            since: now,
            until: now + jiff::SignedDuration::from_mins(50),
        };
        let person = SignedPerson::new(identity, Means::Code(OfflineCode::generate()), &sign_in);
        let begun = person.signed_in;
        let counts = |minutes: u64, since_seen: u64, wall: i64| {
            let tick = begun + Duration::from_mins(minutes);
            *person.seen.lock().unwrap() = tick.checked_sub(Duration::from_mins(since_seen)).unwrap();
            person.counts_at(tick, now + jiff::SignedDuration::from_mins(wall))
        };
        assert!(counts(19, 19, 19));
        assert!(!counts(20, 20, 20), "nobody was there");
        assert!(counts(49, 1, 49));
        assert!(!counts(60, 1, 40), "her time is over, whatever a clock that was set back says");
        assert!(!counts(49, 1, 50), "nobody vouches for her any more");
    }
}
