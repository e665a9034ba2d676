//! The origin's part for people: what follows a teacher from college to college, who may sign in with an offline code, and orders for
//! rooms that were given elsewhere.
//!
//! ```text
//! <repository>/people/choices/ab/<pseudonym>.json   what a person chose
//! <repository>/people/rights.json                   who may sign in with which code's key, and until when
//! <repository>/people/orders.json                   orders from other colleges, and those that were taken back
//!
//! POST /person                 a signed request                    GET /rights.json              the list, signed
//! GET  /orders/<college>.json  orders for a college, signed        POST /orders/<college>/status how far they are
//! ```
//!
//! Its key is an online key that the deployment names: what it signs lets people in and asks for software, and can neither approve nor
//! deploy any. Each file is replaced as a whole; a crash loses at most the request that was being answered.
//!
//! Threats and the defence for each:
//! - *A node, or anybody in between, asks in a person's name*: requests are signed by her sign-in's key, which the provider's token vouches for.
//! - *A request that is sent again*: it has a number and a time, and does the same thing twice.
//! - *Whoever fills the disk*: a person has one row, one small file and few orders; of whom nobody is signed in, nothing is kept.
//! - *A node that reports another college's orders*: nodes have no identity yet; what it can change is what a page shows of progress.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant as Tick};

use hyper::body::Incoming;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use jiff::SignedDuration;
use mirabelle_content::durable;
use mirabelle_identity::{
    Action, Identity, MAX_REQUEST_BYTES, Order, OrderStatus, Orders, Person, Provider, RequestError,
    RequestId, Right, Rights, SignedList, SignedRequest,
};
use mirabelle_keys::SigningKey;
use mirabelle_manifests::network::{DEPLOYMENT_TARGET, deployment_role};
use mirabelle_manifests::{Deployment, Instant, SignIn, SiteId};
use mirabelle_terminal::{Failure, OrFail};
use mirabelle_transfer::people::{ChoicesStore, discover};
use mirabelle_transfer::plain_client;
use mirabelle_transfer::serve::{Body, Refused, answer, body, collect, json, problem};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::repository::Repository;

/// How long a signed list counts: longer than a link is cut without anybody coming by.
const LIST_COUNTS: SignedDuration = SignedDuration::from_hours(14 * 24);
/// How old a list may be that is given out again.
const SIGNED_ANEW: SignedDuration = SignedDuration::from_hours(24);
/// For so long after its hour, an order is kept.
const ORDER_KEPT: SignedDuration = SignedDuration::from_hours(14 * 24);
/// Orders of one person that are open.
const MAX_ORDERS: usize = 20;
const MAX_STATE_BYTES: u64 = 16 << 20;
const MAX_STATUS_BYTES: usize = 1 << 20;
/// How old the provider's keys may be; a token of an unknown key asks again, no more often than that.
const PROVIDER_KEPT: Duration = Duration::from_hours(1);
const PROVIDER_RESTS: Duration = Duration::from_mins(1);

/// What the origin does for people.
pub(crate) struct People {
    repository: Repository,
    choices: ChoicesStore,
    key: SigningKey,
    http: reqwest::Client,
    kept: Mutex<Kept>,
    provider: tokio::sync::Mutex<Option<(Tick, Provider)>>,
}

/// What is on the disk, and what was made of it.
#[derive(Default)]
struct Kept {
    rights: Vec<Right>,
    orders: OrderBook,
    status: BTreeMap<SiteId, Vec<OrderStatus>>,
    signed: Option<(Instant, Vec<u8>)>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct OrderBook {
    orders: Vec<Order>,
    cancelled: Vec<(SiteId, RequestId, Instant)>,
}

impl People {
    pub(crate) fn open(repository: Repository, key: SigningKey) -> Result<Self, Failure> {
        let what = || "cannot take up what is kept of people".to_owned();
        let directory = repository.path("people");
        let kept = Kept {
            rights: read(&directory.join("rights.json"))?,
            orders: read(&directory.join("orders.json"))?,
            ..Kept::default()
        };
        Ok(Self {
            choices: ChoicesStore::new(&directory.join("choices")),
            repository,
            key,
            http: plain_client().or_fail(what)?,
            kept: Mutex::new(kept),
            provider: tokio::sync::Mutex::default(),
        })
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        // Each change is whole before anything can panic.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.repository.path("people").join(name)
    }

    /// Answers what is about people; `None` for everything else.
    pub(crate) async fn answer(
        &self,
        request: Request<Incoming>,
    ) -> Result<Response<Body>, Request<Incoming>> {
        let path = request.uri().path().to_owned();
        let now = Instant::now();
        if path == "/rights.json" {
            return Ok(signed(self.rights(now)));
        }
        if path == "/person" {
            if request.method() != Method::POST {
                return Ok(problem(StatusCode::METHOD_NOT_ALLOWED, "send a signed request"));
            }
            let answered = match collect(request.into_body(), MAX_REQUEST_BYTES).await {
                Ok(bytes) => self.person(&bytes, now).await,
                Err(refused) => Err(refused),
            };
            return Ok(answer(answered));
        }
        let Some(rest) = path.strip_prefix("/orders/") else { return Err(request) };
        let not_here = || problem(StatusCode::NOT_FOUND, "there is no such file here");
        if let Some(college) = rest.strip_suffix(".json") {
            let Ok(college) = college.parse::<SiteId>() else { return Ok(not_here()) };
            return Ok(signed(self.orders(&college, now)));
        }
        match rest.strip_suffix("/status").map(str::parse::<SiteId>) {
            Some(Ok(college)) if request.method() == Method::POST => {
                let reported = collect(request.into_body(), MAX_STATUS_BYTES).await;
                let reported =
                    reported.ok().and_then(|bytes| serde_json::from_slice::<Vec<OrderStatus>>(&bytes).ok());
                let Some(mut reported) = reported else {
                    return Ok(problem(StatusCode::BAD_REQUEST, "the report cannot be read"));
                };
                reported.retain(|status| status.order.college == college);
                self.kept().status.insert(college, reported);
                Ok(Response::new(body("ok\n")))
            }
            _ => Ok(not_here()),
        }
    }

    fn sign_in(&self) -> Result<SignIn, Refused> {
        let policy = self.repository.only_target(&deployment_role(), DEPLOYMENT_TARGET);
        let deployment = policy.ok().and_then(|bytes| Deployment::parse(&bytes).ok());
        deployment
            .and_then(|deployment| deployment.sign_in)
            .ok_or((StatusCode::NOT_FOUND, "nobody signs in here: the deployment does not say how"))
    }

    /// The provider's keys, asked for anew when they are old, or when a token was not verified with them.
    async fn provider(&self, sign_in: &SignIn, anew: bool) -> Option<Provider> {
        let mut known = self.provider.lock().await;
        let age = known.as_ref().map(|(asked, _)| asked.elapsed());
        let kept = if anew { PROVIDER_RESTS } else { PROVIDER_KEPT };
        if age.is_none_or(|age| age > kept) {
            match discover(sign_in, |url| self.http.get(url)).await {
                Ok(provider) => *known = Some((Tick::now(), provider)),
                Err(error) => {
                    tracing::warn!(%error, cause = ?std::error::Error::source(&error), "the provider's keys are not to be had");
                }
            }
        }
        known
            .as_ref()
            .map(|(_, provider)| provider.clone())
            .filter(|provider| provider.issuer == sign_in.issuer)
    }

    async fn verify(
        &self,
        request: &SignedRequest,
        sign_in: &SignIn,
        now: Instant,
    ) -> Result<Identity, Refused> {
        let rights = self.signed_rights(now);
        let provider = self.provider(sign_in, false).await;
        let first = request.verify_belated(sign_in, provider.as_ref(), rights.as_ref(), now);
        let verified = match first {
            Err(RequestError::Token(_) | RequestError::NoProvider) => {
                let newest = self.provider(sign_in, true).await;
                request.verify_belated(sign_in, newest.as_ref(), rights.as_ref(), now)
            }
            other => other,
        };
        verified.map_err(|error| {
            tracing::warn!(%error, cause = ?std::error::Error::source(&error), tampering = error.is_tampering(), "a request is refused");
            match error {
                RequestError::NoProvider => (StatusCode::SERVICE_UNAVAILABLE, "the provider does not answer"),
                RequestError::Time(_) | RequestError::Token(_) | RequestError::UnknownCode => {
                    (StatusCode::UNAUTHORIZED, "the sign-in is not, or no longer, accepted")
                }
                _ => (StatusCode::FORBIDDEN, "the request is not signed by whoever it speaks for"),
            }
        })
    }

    async fn person(&self, bytes: &[u8], now: Instant) -> Result<Response<Body>, Refused> {
        let sign_in = self.sign_in()?;
        let request = SignedRequest::parse(bytes)
            .map_err(|_| (StatusCode::BAD_REQUEST, "the request cannot be read"))?;
        let identity = self.verify(&request, &sign_in, now).await?;
        let asked = &request.request;
        let disk = |error: std::io::Error| {
            tracing::error!(%error, "what a person asked could not be kept");
            (StatusCode::INTERNAL_SERVER_ERROR, "it could not be kept")
        };
        if let Some(choices) = self.choices.apply(identity.person, &asked.action, asked.at).map_err(disk)? {
            if asked.action == Action::Forget {
                self.change_rights(|rights| rights.retain(|right| right.person != identity.person))
                    .map_err(disk)?;
            }
            return Ok(json(&choices));
        }
        match &asked.action {
            Action::EnableOffline { key } => {
                let days = SignedDuration::from_hours(i64::from(sign_in.offline_days) * 24);
                let right = Right {
                    colleges: identity.colleges.clone(),
                    key: key.clone(),
                    person: identity.person,
                    since: identity.since,
                    teacher: identity.is_teacher,
                    until: identity.since.checked_add(days).unwrap_or(identity.since),
                };
                // A code cannot be renewed with itself: only the provider vouches for more time.
                if !request.is_by_token() || key.ed25519().is_none() {
                    return Err((StatusCode::FORBIDDEN, "sign in with the provider for a new code"));
                }
                self.change_rights(|rights| {
                    rights.retain(|known| known.person != identity.person && known.until > now);
                    rights.push(right);
                })
                .map_err(disk)?;
                Ok(json(&serde_json::json!({})))
            }
            _ if !identity.teaches_at(&asked.college) => {
                Err((StatusCode::FORBIDDEN, "she does not teach at that college"))
            }
            Action::Assess { .. } => Err((StatusCode::CONFLICT, "the college's own node answers that")),
            Action::Order { order } => {
                let order = Order {
                    college: asked.college.clone(),
                    id: asked.id.clone(),
                    ordered: asked.at,
                    person: identity.person,
                    wanted: order.clone(),
                };
                self.take_order(order, now)?;
                Ok(json(&serde_json::json!({})))
            }
            Action::Cancel { order } => {
                self.cancel(&asked.college, order, identity.person, now)?;
                Ok(json(&serde_json::json!({})))
            }
            _ => Ok(json(&self.orders_of(&asked.college))),
        }
    }

    fn change_rights(&self, change: impl FnOnce(&mut Vec<Right>)) -> std::io::Result<()> {
        let mut kept = self.kept();
        change(&mut kept.rights);
        kept.signed = None;
        durable::write_atomically(&self.path("rights.json"), &serde_json::to_vec_pretty(&kept.rights)?)
    }

    fn signed_rights(&self, now: Instant) -> Option<Rights> {
        let list = self.rights(now).ok()?;
        SignedList::rights(&list, &self.key.public(), now).ok()
    }

    /// The signed list; the same, until it changes or is a day old.
    fn rights(&self, now: Instant) -> Result<Vec<u8>, String> {
        let mut kept = self.kept();
        if let Some((issued, list)) = &kept.signed
            && now.duration_since(*issued) < SIGNED_ANEW
        {
            return Ok(list.clone());
        }
        let counting = kept.rights.iter().filter(|right| right.until > now).cloned().collect();
        let list = Rights::new(counting, now, now.checked_add(LIST_COUNTS).unwrap_or(now));
        let bytes = SignedList::sign(&list, &self.key).map_err(|error| error.to_string())?;
        kept.signed = Some((now, bytes.clone()));
        Ok(bytes)
    }

    fn take_order(&self, order: Order, now: Instant) -> Result<(), Refused> {
        let mut kept = self.kept();
        let book = &mut kept.orders;
        let is_open = |order: &Order| order.wanted.by.checked_add(ORDER_KEPT).is_ok_and(|until| until > now);
        book.orders.retain(is_open);
        book.cancelled.retain(|(_, _, at)| now.duration_since(*at) < ORDER_KEPT);
        if book.orders.iter().any(|known| known.id == order.id)
            || book.cancelled.iter().any(|(_, id, _)| *id == order.id)
        {
            return Ok(());
        }
        if !is_open(&order) {
            return Err((StatusCode::BAD_REQUEST, "the hour of the order is long past"));
        }
        if book.orders.iter().filter(|known| known.person == order.person).count() >= MAX_ORDERS {
            return Err((StatusCode::TOO_MANY_REQUESTS, "too many orders are open"));
        }
        book.orders.push(order);
        self.keep_orders(book)
    }

    fn cancel(&self, college: &SiteId, id: &RequestId, person: Person, now: Instant) -> Result<(), Refused> {
        let mut kept = self.kept();
        let book = &mut kept.orders;
        if book.orders.iter().any(|order| order.id == *id && order.person != person) {
            return Err((StatusCode::FORBIDDEN, "it is another's order"));
        }
        book.orders.retain(|order| order.id != *id);
        if !book.cancelled.iter().any(|(_, known, _)| known == id) {
            book.cancelled.push((college.clone(), id.clone(), now));
        }
        self.keep_orders(book)
    }

    fn keep_orders(&self, book: &OrderBook) -> Result<(), Refused> {
        let kept = serde_json::to_vec_pretty(book)
            .map_err(std::io::Error::other)
            .and_then(|bytes| durable::write_atomically(&self.path("orders.json"), &bytes));
        kept.map_err(|error| {
            tracing::error!(%error, "orders could not be kept");
            (StatusCode::INTERNAL_SERVER_ERROR, "it could not be kept")
        })
    }

    /// Orders for a college, signed.
    fn orders(&self, college: &SiteId, now: Instant) -> Result<Vec<u8>, String> {
        let kept = self.kept();
        let list = Orders {
            cancelled: kept
                .orders
                .cancelled
                .iter()
                .filter(|(of, ..)| of == college)
                .map(|(_, id, _)| id.clone())
                .collect(),
            college: college.clone(),
            issued: now,
            orders: kept.orders.orders.iter().filter(|order| order.college == *college).cloned().collect(),
        };
        SignedList::sign(&list, &self.key).map_err(|error| error.to_string())
    }

    /// How far orders for a college are, as its node last said; those that it has not heard of wait.
    fn orders_of(&self, college: &SiteId) -> Vec<OrderStatus> {
        let kept = self.kept();
        let reported = kept.status.get(college).map_or(&[][..], Vec::as_slice);
        let own = kept.orders.orders.iter().filter(|order| order.college == *college);
        own.map(|order| {
            let known = reported.iter().find(|status| status.order.id == order.id).cloned();
            known.unwrap_or_else(|| OrderStatus {
                order: order.clone(),
                assessment: None,
                machines: BTreeMap::new(),
            })
        })
        .collect()
    }
}

fn read<T: DeserializeOwned + Default>(path: &std::path::Path) -> Result<T, Failure> {
    let what = || format!("cannot read `{}`", path.display());
    let bytes = durable::read_if_present(path, MAX_STATE_BYTES).or_fail(what)?;
    bytes.map_or_else(|| Ok(T::default()), |bytes| serde_json::from_slice(&bytes).or_fail(what))
}

/// Takes a person's right to sign in with a code out of what is kept; says whether she had one.
pub(crate) fn forget_rights(repository: &Repository, person: Person) -> Result<bool, Failure> {
    let path = repository.path("people").join("rights.json");
    let mut rights: Vec<Right> = read(&path)?;
    let before = rights.len();
    rights.retain(|right| right.person != person);
    if rights.len() != before {
        let what = || format!("cannot write `{}`", path.display());
        let bytes = serde_json::to_vec_pretty(&rights).or_fail(what)?;
        durable::write_atomically(&path, &bytes).or_fail(what)?;
    }
    Ok(rights.len() != before)
}

fn signed(list: Result<Vec<u8>, String>) -> Response<Body> {
    match list {
        Ok(bytes) => {
            let mut response = Response::new(body(bytes));
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
            response
        }
        Err(error) => {
            tracing::error!(error, "a list could not be signed");
            problem(StatusCode::INTERNAL_SERVER_ERROR, "the list could not be signed")
        }
    }
}
