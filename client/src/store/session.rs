//! Sessions: who has the store open, and what she may do.
//!
//! ```text
//!   companion (her desktop) ── agent.sock: who she is, by the kernel ──▶ ticket, once, for two minutes
//!   browser ── GET /open/<ticket> ──▶ cookie: the session
//! ```
//!
//! A session is as long as the connection of its companion: it ends with the desktop session, whatever the browser keeps. Within it
//! somebody may sign in; that ends sooner: when she signs out, when nobody was there for `idle-minutes`, and after `session-minutes`.
//!
//! Invariant: a session belongs to one user of the machine, and so does every connection that uses it; both are what the kernel says.
//!
//! Threats and the defence for each:
//! - *Another user of the machine guesses or is sent the address*: a ticket is 256 random bits, counts once and for two minutes; the port
//!   gives nothing without a session.
//! - *She takes the cookie* (a server of hers on another port of the loopback is sent it, since cookies know no ports): it counts only
//!   on connections of the user it was given to.
//! - *Somebody opens it without end*: sessions and tickets are few, and the oldest go.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use mirabelle_manifests::{Asker, Digest};
use zeroize::Zeroizing;

use super::companion::Companion;
use super::person::{Pending, SignedPerson};
use super::view::{Language, Notice};

/// Sessions at once: nobody has more desktops.
const MAX_SESSIONS: usize = 32;
/// How long a browser may take to start.
const TICKET_TIME: Duration = Duration::from_mins(2);
/// Requests that a page may cause at once, and how many a second from then on.
const BURST: f64 = 200.0;
const PER_SECOND: f64 = 40.0;
/// Attempts with an offline code.
const MAX_ATTEMPTS: u32 = 5;
const ATTEMPTS_FORGOTTEN: Duration = Duration::from_mins(10);

/// A random name that nobody can guess: 256 bits in hex.
pub(super) type Secret = Zeroizing<String>;

/// Makes one.
pub(super) fn secret() -> Result<Secret, getrandom::Error> {
    let mut bits = Zeroizing::new([0_u8; 32]);
    getrandom::fill(bits.as_mut_slice())?;
    Ok(Zeroizing::new(bits.iter().fold(String::with_capacity(64), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })))
}

/// One desktop that has the store open.
pub(super) struct Session {
    /// The user of this machine.
    pub(super) user: u32,
    /// What her account makes of her.
    pub(super) account: Asker,
    /// Goes with every form of hers.
    pub(super) csrf: Secret,
    /// Does on her desktop what the agent cannot.
    pub(super) companion: Companion,
    inner: Mutex<Inner>,
}

struct Inner {
    language: Language,
    notice: Option<Notice>,
    person: Option<Arc<SignedPerson>>,
    pending: Option<Pending>,
    /// An offline code that was made just now, to be shown once.
    code: Option<Secret>,
    attempts: (u32, Instant),
    tokens: (f64, Instant),
}

impl Session {
    pub(super) fn new(
        user: u32,
        account: Asker,
        language: Language,
        companion: Companion,
    ) -> Result<Self, getrandom::Error> {
        let now = Instant::now();
        let inner = Inner {
            language,
            notice: None,
            person: None,
            pending: None,
            code: None,
            attempts: (0, now),
            tokens: (BURST, now),
        };
        Ok(Self { user, account, csrf: secret()?, companion, inner: Mutex::new(inner) })
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Every change is whole before anything can panic.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who signed in, if that still counts; being asked is a sign of her.
    pub(super) fn person(&self) -> Option<Arc<SignedPerson>> {
        let mut inner = self.inner();
        if inner.person.as_ref().is_some_and(|person| !person.counts()) {
            tracing::info!("a sign-in to the store has ended: nobody was there, or its time was over");
            inner.person = None;
        }
        let person = inner.person.clone();
        if let Some(person) = &person {
            person.is_there();
        }
        person
    }

    /// On whose behalf she asks.
    pub(super) fn asker(&self) -> Asker {
        self.person().map_or(self.account, |person| self.account.max(person.asker()))
    }

    pub(super) fn sign_in(&self, person: SignedPerson) -> Arc<SignedPerson> {
        let person = Arc::new(person);
        self.inner().person = Some(person.clone());
        person
    }

    pub(super) fn sign_out(&self) -> Option<Arc<SignedPerson>> {
        let mut inner = self.inner();
        (inner.pending, inner.code) = (None, None);
        inner.person.take()
    }

    pub(super) fn language(&self) -> Language {
        self.inner().language
    }

    pub(super) fn speak(&self, language: Language) {
        self.inner().language = language;
    }

    /// Says something on the next page.
    pub(super) fn note(&self, notice: Notice) {
        self.inner().notice = Some(notice);
    }

    pub(super) fn take_notice(&self) -> Option<Notice> {
        self.inner().notice.take()
    }

    /// Begins a sign-in with the provider; one that was begun before is forgotten.
    pub(super) fn begin(&self, pending: Pending) {
        self.inner().pending = Some(pending);
    }

    /// The sign-in that was begun: it is finished, or not, once.
    pub(super) fn take_pending(&self) -> Option<Pending> {
        self.inner().pending.take()
    }

    pub(super) fn show_code(&self, code: Secret) {
        self.inner().code = Some(code);
    }

    pub(super) fn take_code(&self) -> Option<Secret> {
        self.inner().code.take()
    }

    /// True when another code may be tried.
    pub(super) fn may_try(&self) -> bool {
        let mut inner = self.inner();
        if inner.attempts.1.elapsed() > ATTEMPTS_FORGOTTEN {
            inner.attempts = (0, Instant::now());
        }
        inner.attempts.0 += 1;
        inner.attempts.0 <= MAX_ATTEMPTS
    }

    /// True when this request is one too many.
    pub(super) fn is_too_fast(&self) -> bool {
        let mut inner = self.inner();
        let (tokens, since) = inner.tokens;
        let tokens = (tokens + since.elapsed().as_secs_f64() * PER_SECOND).min(BURST);
        let enough = tokens >= 1.0;
        inner.tokens = (if enough { tokens - 1.0 } else { tokens }, Instant::now());
        !enough
    }
}

/// All sessions.
#[derive(Default)]
pub(super) struct Sessions {
    inner: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    /// By the digest of the cookie: looking one up says nothing about another.
    sessions: HashMap<Digest, (Arc<Session>, Instant)>,
    /// By the digest of the ticket.
    tickets: HashMap<Digest, (Arc<Session>, Instant)>,
}

impl Sessions {
    fn inner(&self) -> MutexGuard<'_, Open> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A ticket that makes a browser's session of `session`, once.
    pub(super) fn ticket(&self, session: &Arc<Session>) -> Result<Secret, getrandom::Error> {
        let ticket = secret()?;
        let mut open = self.inner();
        open.tickets.retain(|_, (_, made)| made.elapsed() < TICKET_TIME);
        drop_oldest(&mut open.tickets);
        open.tickets.insert(Digest::of(ticket.as_bytes()), (session.clone(), Instant::now()));
        Ok(ticket)
    }

    /// The cookie for whoever brings a ticket, on a connection of the user it was made for.
    pub(super) fn enter(&self, ticket: &str, user: u32) -> Option<Secret> {
        let mut open = self.inner();
        let digest = Digest::of(ticket.as_bytes());
        if open.tickets.get(&digest).is_none_or(|(session, _)| session.user != user) {
            return None;
        }
        let (session, made) = open.tickets.remove(&digest)?;
        if made.elapsed() >= TICKET_TIME {
            return None;
        }
        let cookie = secret().ok()?;
        drop_oldest(&mut open.sessions);
        open.sessions.insert(Digest::of(cookie.as_bytes()), (session, Instant::now()));
        Some(cookie)
    }

    /// The session of a cookie, on a connection of its user.
    pub(super) fn of(&self, cookie: &str, user: u32) -> Option<Arc<Session>> {
        let mut open = self.inner();
        let (session, used) = open.sessions.get_mut(&Digest::of(cookie.as_bytes()))?;
        *used = Instant::now();
        (session.user == user).then(|| session.clone())
    }

    /// Ends a session: its companion is gone.
    pub(super) fn end(&self, session: &Arc<Session>) {
        session.sign_out();
        let mut open = self.inner();
        open.sessions.retain(|_, (other, _)| !Arc::ptr_eq(other, session));
        open.tickets.retain(|_, (other, _)| !Arc::ptr_eq(other, session));
    }
}

fn drop_oldest(all: &mut HashMap<Digest, (Arc<Session>, Instant)>) {
    while all.len() >= MAX_SESSIONS {
        let oldest = all.iter().min_by_key(|(_, (_, used))| *used).map(|(digest, _)| *digest);
        let Some(oldest) = oldest else { return };
        all.remove(&oldest);
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;

    fn session(user: u32) -> Arc<Session> {
        let (sender, _receiver) = mpsc::channel(1);
        Arc::new(Session::new(user, Asker::Anyone, Language::French, Companion::new(sender)).unwrap())
    }

    #[test]
    fn a_ticket_counts_once_and_for_its_user() {
        let sessions = Sessions::default();
        let own = session(1000);
        let ticket = sessions.ticket(&own).unwrap();
        assert!(sessions.enter(&ticket, 1001).is_none(), "another user's browser");
        let cookie = sessions.enter(&ticket, 1000).unwrap();
        assert!(sessions.enter(&ticket, 1000).is_none(), "once");
        assert!(sessions.of(&cookie, 1000).is_some_and(|found| Arc::ptr_eq(&found, &own)));
        assert!(sessions.of(&cookie, 1001).is_none(), "a cookie that another user took");
        assert!(sessions.of(&secret().unwrap(), 1000).is_none());
        sessions.end(&own);
        assert!(sessions.of(&cookie, 1000).is_none(), "her desktop is gone");
    }

    #[test]
    fn sessions_are_few_and_the_oldest_go() {
        let sessions = Sessions::default();
        let enter = || {
            let one = session(1000);
            let ticket = sessions.ticket(&one).unwrap();
            sessions.enter(&ticket, 1000).unwrap()
        };
        let first = enter();
        let later: Vec<Secret> = (0..MAX_SESSIONS).map(|_| enter()).collect();
        assert!(sessions.of(&first, 1000).is_none());
        assert!(later.iter().all(|cookie| sessions.of(cookie, 1000).is_some()));
    }

    #[test]
    fn codes_are_tried_a_few_times_and_requests_come_at_a_pace() {
        let one = session(1000);
        let tried = (0..10).filter(|_| one.may_try()).count();
        assert_eq!(tried, MAX_ATTEMPTS as usize);
        let taken = (0..2000).filter(|_| !one.is_too_fast()).count();
        assert!((200..400).contains(&taken), "{taken}");
    }
}
