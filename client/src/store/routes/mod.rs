//! What each address of the store does: looks at who asks, finds what is to be shown, and hands it to a page.
//!
//! A page needs a session; a form also its secret. What a form asks for is done after its answer was given: it leads to a page that can
//! be loaded again without doing it again (RFC 9110, 15.4.4).

pub(super) mod doors;
pub(super) mod me;
pub(super) mod packages;
pub(super) mod rooms;
pub(super) mod shelves;
pub(super) mod tasks;

use std::collections::HashMap;
use std::sync::Arc;

use axum::Form;
use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::header::{CONTENT_TYPE, HeaderValue, LOCATION};
use axum::http::request::Parts;
use axum::http::{Response, StatusCode};
use axum::response::IntoResponse;
use maud::Markup;
use mirabelle_manifests::{Asker, Instant};

use super::Store;
use super::activity::Who;
use super::pages;
use super::session::Session;
use super::stock::Stock;
use super::view::{Frame, Item, Language, Person, Phase, SignedIn, Standing, Task, Trouble};
use crate::agent::kept::OUTLOOK;
use crate::outlook::Outlook;

/// Whoever asks, with a session.
pub(super) struct Visitor {
    pub(super) session: Arc<Session>,
    /// The page she asks for, with its query.
    pub(super) path: String,
}

/// An answer to somebody without a session.
pub(super) struct NoSession;

impl IntoResponse for NoSession {
    fn into_response(self) -> Response<Body> {
        let text = Language::French.trouble(Trouble::NoSession);
        let english = Language::English.trouble(Trouble::NoSession);
        let mut response = Response::new(Body::from(format!("{text}\n{english}\n")));
        *response.status_mut() = StatusCode::FORBIDDEN;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        response
    }
}

impl<S: Sync> FromRequestParts<S> for Visitor {
    type Rejection = NoSession;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, NoSession> {
        let session = parts.extensions.get::<Arc<Session>>().cloned().ok_or(NoSession)?;
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        Ok(Self { session, path })
    }
}

impl Visitor {
    pub(super) fn who(&self) -> Who {
        Who { user: self.session.user, asker: self.session.asker() }
    }
}

/// A form that one of the store's pages sent, and whoever sent it.
pub(super) struct Sent {
    pub(super) visitor: Visitor,
    fields: HashMap<String, String>,
}

impl Sent {
    /// A field; nothing is as good as an empty one.
    pub(super) fn field(&self, name: &str) -> &str {
        self.fields.get(name).map_or("", |value| value.trim())
    }
}

impl FromRequest<Arc<Store>> for Sent {
    type Rejection = Response<Body>;

    async fn from_request(request: Request, store: &Arc<Store>) -> Result<Self, Response<Body>> {
        let (mut parts, body) = request.into_parts();
        let visitor =
            Visitor::from_request_parts(&mut parts, store).await.map_err(IntoResponse::into_response)?;
        let request = Request::from_parts(parts, body);
        let form: Result<Form<HashMap<String, String>>, _> = Form::from_request(request, store).await;
        let fields = form.map(|Form(fields)| fields).unwrap_or_default();
        // Hashed first: the comparison says nothing about how much of it was right.
        let digest = |text: &str| mirabelle_manifests::Digest::of(text.as_bytes());
        if fields.get("csrf").is_none_or(|sent| digest(sent) != digest(&visitor.session.csrf)) {
            tracing::warn!("a form without its secret is refused");
            return Err(store.say(&visitor, Trouble::Forged).await);
        }
        Ok(Self { visitor, fields })
    }
}

/// The answer to a request: a page, or where to see one; or a page that says what is wrong.
pub(super) type Page = Result<Response<Body>, Response<Body>>;

/// A page as an answer.
#[expect(clippy::unnecessary_wraps, reason = "a handler ends with it, and what can fail before has its type")]
pub(super) fn html(markup: &Markup) -> Page {
    Ok(page(markup))
}

fn page(markup: &Markup) -> Response<Body> {
    let mut response = Response::new(Body::from(markup.0.clone()));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    response
}

/// To another page, whatever was asked with.
#[expect(clippy::unnecessary_wraps, reason = "a handler ends with it, and what can fail before has its type")]
pub(super) fn see(path: &str) -> Page {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SEE_OTHER;
    if let Ok(location) = HeaderValue::from_str(path) {
        response.headers_mut().insert(LOCATION, location);
    }
    Ok(response)
}

/// What a page is made of: found first, shown then.
pub(super) struct Found {
    pub(super) stock: Arc<Stock>,
    /// The items, as they stand with what is queued and under way.
    pub(super) items: Vec<Item>,
    pub(super) tasks: Vec<Task>,
    person: Person,
    notice: Option<super::view::Notice>,
    silent_since: Option<Instant>,
}

impl Store {
    /// Finds what pages show to this visitor.
    pub(super) async fn find(&self, visitor: &Visitor) -> Result<Found, Response<Body>> {
        let who = visitor.who();
        let stock = self.stock(who.asker).await.map_err(|failure| {
            tracing::warn!("the store has nothing to show\n{}", failure.render().trim_end());
            self.trouble_without_stock(visitor, Trouble::NodeSilent)
        })?;
        let mut tasks = self.activity.shown(who);
        // Why it failed is what was decided, not what was said.
        for task in &mut tasks {
            if let Phase::Failed { reason, .. } = &mut task.phase
                && let Some(Standing::Blocked(blocked)) =
                    stock.items.iter().find(|item| item.package == task.package).map(|item| &item.standing)
            {
                *reason = Some(blocked.clone());
            }
        }
        let person = visitor.session.person();
        let wanted: Vec<_> =
            person.iter().flat_map(|person| person.choices().wanted().cloned().collect::<Vec<_>>()).collect();
        let mut items = stock.items.clone();
        for item in &mut items {
            if let Some(task) = tasks.iter().find(|task| task.package == item.package && task.ended.is_none())
            {
                item.standing = Standing::Busy(task.clone());
            }
            item.followed = item.installed.is_none() && wanted.contains(&item.package);
        }
        let how = match &person {
            Some(person) => person.shown(),
            None if who.asker == Asker::Anyone => SignedIn::No,
            None => SignedIn::Account,
        };
        let outlook: Option<Outlook> = self.layout.kept(OUTLOOK);
        Ok(Found {
            stock,
            items,
            tasks,
            person: Person { asker: who.asker, how },
            notice: visitor.session.take_notice(),
            silent_since: outlook.and_then(|outlook| outlook.stale_since),
        })
    }

    pub(super) fn frame<'a>(&'a self, visitor: &'a Visitor, found: &'a Found) -> Frame<'a> {
        let active = |task: &&Task| {
            matches!(task.phase, Phase::Queued { .. } | Phase::Fetching { .. } | Phase::Installing)
        };
        Frame {
            language: visitor.session.language(),
            path: &visitor.path,
            csrf: &visitor.session.csrf,
            now: Instant::now(),
            zone: found.stock.zone.clone(),
            college: self.college(),
            machine: &self.config.machine.id,
            person: found.person.clone(),
            can_sign_in: found.stock.sign_in.is_some(),
            active: found.tasks.iter().filter(active).count(),
            updates: found
                .items
                .iter()
                .filter(|item| matches!(item.standing, Standing::Newer { .. }))
                .count(),
            silent_since: found.silent_since,
            notice: found.notice.clone(),
        }
    }

    /// A page that says what is wrong.
    pub(super) async fn trouble(&self, visitor: &Visitor, trouble: Trouble) -> Page {
        Err(self.say(visitor, trouble).await)
    }

    async fn say(&self, visitor: &Visitor, trouble: Trouble) -> Response<Body> {
        let mut response = match self.find(visitor).await {
            Ok(found) => page(&pages::message(&self.frame(visitor, &found), trouble)),
            Err(response) => response,
        };
        *response.status_mut() = status(trouble);
        response
    }

    /// The same where not even the catalogue is known.
    fn trouble_without_stock(&self, visitor: &Visitor, trouble: Trouble) -> Response<Body> {
        let frame = Frame {
            language: visitor.session.language(),
            path: &visitor.path,
            csrf: &visitor.session.csrf,
            now: Instant::now(),
            zone: jiff::tz::TimeZone::UTC,
            college: self.college(),
            machine: &self.config.machine.id,
            person: Person { asker: visitor.session.account, how: SignedIn::No },
            can_sign_in: false,
            active: 0,
            updates: 0,
            silent_since: None,
            notice: None,
        };
        let mut response = page(&pages::message(&frame, trouble));
        *response.status_mut() = status(trouble);
        response
    }
}

fn status(trouble: Trouble) -> StatusCode {
    match trouble {
        Trouble::NotFound => StatusCode::NOT_FOUND,
        Trouble::Forged | Trouble::NoSession | Trouble::NeedsSignIn | Trouble::NotHerCollege => {
            StatusCode::FORBIDDEN
        }
        Trouble::SignInRefused | Trouble::SignInOver | Trouble::CodeUnknown => StatusCode::UNAUTHORIZED,
        Trouble::TooManyAttempts => StatusCode::TOO_MANY_REQUESTS,
        Trouble::NodeSilent | Trouble::ProviderSilent | Trouble::LinkCut => StatusCode::SERVICE_UNAVAILABLE,
        Trouble::Inside => StatusCode::INTERNAL_SERVER_ERROR,
    }
}
