//! People at this college: who signs them in, what follows them, what they order for rooms.
//!
//! ```text
//! GET  /identity/provider.json   the provider's addresses and keys, mirrored             provider.rs
//! GET  /rights.json              who may sign in with an offline code: the origin's list, as it signed it
//! POST /person                   a signed request: her choices, here and on their way upstream (outbox.rs)
//!                                orders for a room: here, or on their way to the origin     orders.rs
//! GET  /orders?room=&machine=    what a machine's room was ordered; POST /orders/progress: how far it is
//! GET  /estimate/<release>       what fetching a release costs
//! <root>/people/                 choices/, outbox/, rights.json, orders.json, provider.json
//! ```
//!
//! The node believes nobody: each request is verified with the provider's keys, or the origin's signed list, before anything is done. What
//! it keeps of a person is her pseudonym and what she chose.
//!
//! Threats and the defence for each:
//! - *A workstation, or anybody on the network, asks in a person's name*: only whoever holds her sign-in's key can sign (`mirabelle_identity`).
//! - *A list of rights made up on the way*: it is verified with the key that the deployment names, before it is kept and before it is used.
//! - *An older list in place of a newer one*: of two, the later counts.
//! - *Somebody asks without end*: bodies, times and numbers are limited; verifying costs no request of the link.

mod orders;
mod outbox;
mod provider;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode};
use mirabelle_content::durable;
use mirabelle_identity::{
    Action, Choices, Identity, MAX_REQUEST_BYTES, MachineProgress, Orders as OrderList, RequestError, Rights,
    SignedList, SignedRequest,
};
use mirabelle_manifests::{Digest, Instant, MachineId, RoomName, SignIn, SiteId};
use mirabelle_transfer::people::ChoicesStore;
use mirabelle_transfer::serve::{Body, Refused, answer, body, collect, json, json_bytes};
use mirabelle_transfer::{Link, Network, Priority, Reply, Sent};
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use self::orders::{Orders, Refusal};
use self::outbox::Outbox;
use self::provider::Mirrored;
use crate::lan::Waking;
use crate::mirror::{Current, Upstreams};
use crate::site::Site;

/// How often what upstream has is looked at, and what is on its way is sent again.
const LOOK_EVERY: Duration = Duration::from_mins(2);
/// How often the clock is looked at for rooms.
const CLOCK_EVERY: Duration = Duration::from_secs(20);
/// How long upstream may take while somebody waits.
const PATIENCE: Duration = Duration::from_secs(5);
/// The most of a list.
const MAX_LIST_BYTES: u64 = 8 << 20;
/// The most of an answer to a person.
const MAX_ANSWER_BYTES: u64 = 2 << 20;
const MAX_PROGRESS_BYTES: usize = 8 << 10;

/// What the node does for people.
pub(crate) struct People {
    site: Site,
    college: SiteId,
    upstreams: Arc<Upstreams>,
    served: watch::Receiver<Current>,
    link: Arc<Link>,
    choices: ChoicesStore,
    outbox: Outbox,
    orders: Orders,
    provider: Mirrored,
    rights: Mutex<Option<Rights>>,
    /// Where upstream is asked: beside the mirror, not on the threads that answer.
    runtime: Handle,
    /// Told when something is to be sent.
    waiting: Notify,
}

const NOT_KEPT: Refused = (StatusCode::INTERNAL_SERVER_ERROR, "it could not be kept");
const LINK_CUT: Refused = (StatusCode::SERVICE_UNAVAILABLE, "the département cannot be reached now");

impl People {
    /// Its conversations with upstream run where this is called.
    pub(crate) fn open(
        site: &Site,
        college: SiteId,
        upstreams: Arc<Upstreams>,
        served: watch::Receiver<Current>,
        link: Arc<Link>,
        waking: Arc<Waking>,
    ) -> Arc<Self> {
        let path = |name: &str| site.path("people").join(name);
        Arc::new(Self {
            choices: ChoicesStore::new(&path("choices")),
            outbox: Outbox::new(&path("outbox")),
            orders: Orders::open(&path("orders.json"), waking),
            provider: Mirrored::open(&path("provider.json")),
            site: site.clone(),
            college,
            upstreams,
            served,
            link,
            rights: Mutex::default(),
            runtime: Handle::current(),
            waiting: Notify::new(),
        })
    }

    fn network(&self) -> Option<Arc<Network>> {
        self.served.borrow().network()
    }

    fn is_here(&self, release: Digest) -> bool {
        self.site.served().offers(release).unwrap_or(false)
    }

    fn sign_in(&self) -> Option<SignIn> {
        self.network()?.deployment.sign_in.clone()
    }

    /// Answers what is about people; everything else is given back.
    pub(crate) async fn answer(
        self: &Arc<Self>,
        request: Request<Incoming>,
    ) -> Result<Response<Body>, Request<Incoming>> {
        let (path, is_post) = (request.uri().path().to_owned(), request.method() == Method::POST);
        let answered = match path.as_str() {
            "/identity/provider.json" => self.provider_json(),
            "/rights.json" => self.rights_json().await,
            "/person" if is_post => match collect(request.into_body(), MAX_REQUEST_BYTES).await {
                Ok(bytes) => self.person(bytes).await,
                Err(refused) => Err(refused),
            },
            "/orders" => self.orders_of_room(request.uri().query().unwrap_or_default()),
            "/orders/progress" if is_post => match collect(request.into_body(), MAX_PROGRESS_BYTES).await {
                Ok(bytes) => self.progress(&bytes).await,
                Err(refused) => Err(refused),
            },
            _ => match path.strip_prefix("/estimate/").map(str::parse::<Digest>) {
                Some(Ok(release)) => self.estimate(release).await,
                _ => return Err(request),
            },
        };
        Ok(answer(answered))
    }

    fn provider_json(&self) -> Result<Response<Body>, Refused> {
        let known = self.sign_in().and_then(|sign_in| self.provider.known(&sign_in));
        known
            .map(|provider| json(&provider))
            .ok_or((StatusCode::NOT_FOUND, "the provider is not known here yet"))
    }

    async fn rights_json(&self) -> Result<Response<Body>, Refused> {
        let path = self.site.path("people").join("rights.json");
        let kept = spawn_blocking(move || durable::read_if_present(&path, MAX_LIST_BYTES)).await;
        match kept {
            Ok(Ok(Some(bytes))) => Ok(json_bytes(bytes)),
            _ => Err((StatusCode::NOT_FOUND, "there is no list of rights here")),
        }
    }

    async fn verify(&self, request: &SignedRequest, sign_in: &SignIn) -> Result<Identity, Refused> {
        let now = Instant::now();
        let verify = || {
            let provider = self.provider.known(sign_in);
            let rights = self.rights.lock().unwrap_or_else(PoisonError::into_inner).clone();
            request.verify(sign_in, provider.as_ref(), rights.as_ref(), now)
        };
        let first = verify();
        // The provider may have new keys.
        let verified = match first {
            Err(RequestError::Token(_) | RequestError::NoProvider) if self.provider.may_ask_again() => {
                self.mirror_provider(sign_in.clone()).await;
                verify()
            }
            other => other,
        };
        verified.map_err(|error| {
            tracing::warn!(%error, cause = ?std::error::Error::source(&error), tampering = error.is_tampering(),
                "a person's request is refused");
            match error {
                RequestError::NoProvider => LINK_CUT,
                RequestError::Time(_) | RequestError::Token(_) | RequestError::UnknownCode => {
                    (StatusCode::UNAUTHORIZED, "the sign-in is not, or no longer, accepted")
                }
                _ => (StatusCode::FORBIDDEN, "the request is not signed by whoever it speaks for"),
            }
        })
    }

    async fn person(self: &Arc<Self>, bytes: Vec<u8>) -> Result<Response<Body>, Refused> {
        let sign_in = self.sign_in().ok_or((StatusCode::NOT_FOUND, "nobody signs in here"))?;
        let request = SignedRequest::parse(&bytes)
            .map_err(|_| (StatusCode::BAD_REQUEST, "the request cannot be read"))?;
        let identity = self.verify(&request, &sign_in).await?;
        let asked = &request.request;
        match &asked.action {
            Action::Read => self.read(identity, bytes).await,
            Action::Choose { .. } | Action::Follow { .. } | Action::Forget => {
                let (this, action, at) = (self.clone(), asked.action.clone(), asked.at);
                let kept = spawn_blocking(move || {
                    this.outbox.put(&bytes)?;
                    this.choices.apply(identity.person, &action, at)
                });
                let choices = kept.await.map_err(|_| NOT_KEPT)?.map_err(|error| {
                    tracing::error!(%error, "what a person chose could not be kept");
                    NOT_KEPT
                })?;
                self.waiting.notify_one();
                Ok(json(&choices.unwrap_or_default()))
            }
            Action::EnableOffline { .. } => self.pass_on(bytes).await,
            _ if !identity.teaches_at(&asked.college) => {
                Err((StatusCode::FORBIDDEN, "she does not teach at that college"))
            }
            _ if asked.college != self.college => self.pass_on(bytes).await,
            action => {
                let network = self.network().ok_or(LINK_CUT)?;
                let (this, action, id, at) = (self.clone(), action.clone(), asked.id.clone(), asked.at);
                let done = spawn_blocking(move || {
                    let room = orders::Situation {
                        network: &network,
                        college: &this.college,
                        is_here: &|release| this.is_here(release),
                        link: &this.link.report(Instant::now()),
                        now: Instant::now(),
                    };
                    this.orders.act(&room, &action, id, at, identity.person)
                });
                match done.await.map_err(|_| NOT_KEPT)? {
                    Ok(value) => Ok(json(&value)),
                    Err(Refusal::NotHers) => Err((StatusCode::FORBIDDEN, "it is another's order")),
                    Err(Refusal::TooMany) => Err((StatusCode::TOO_MANY_REQUESTS, "too many orders are open")),
                    Err(Refusal::Past) => {
                        Err((StatusCode::BAD_REQUEST, "the hour of the order is past, or too far away"))
                    }
                    Err(Refusal::Disk(error)) => {
                        tracing::error!(%error, "an order could not be kept");
                        Err(NOT_KEPT)
                    }
                }
            }
        }
    }

    /// What is kept of her here, and what upstream knows, if it answers soon.
    async fn read(self: &Arc<Self>, identity: Identity, bytes: Vec<u8>) -> Result<Response<Body>, Refused> {
        let upstream = match self.upstream(bytes).await {
            Some(Reply { status: 200, body }) => serde_json::from_slice::<Choices>(&body).ok(),
            _ => None,
        };
        let this = self.clone();
        let kept = spawn_blocking(move || {
            this.choices.change(identity.person, |choices| {
                if let Some(upstream) = &upstream {
                    choices.merge(upstream);
                }
            })
        });
        kept.await.ok().and_then(Result::ok).map(|choices| json(&choices)).ok_or(NOT_KEPT)
    }

    /// Upstream's answer, as it is.
    async fn pass_on(self: &Arc<Self>, bytes: Vec<u8>) -> Result<Response<Body>, Refused> {
        let Reply { status, body } = self.upstream(bytes).await.ok_or(LINK_CUT)?;
        let mut response = json_bytes(body);
        *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
        Ok(response)
    }

    /// Asks the first upstream that answers; each speaks the same protocol.
    async fn upstream(self: &Arc<Self>, bytes: Vec<u8>) -> Option<Reply> {
        let this = self.clone();
        let asking = self.runtime.spawn(async move { this.exchange("person", Some(bytes)).await });
        tokio::time::timeout(PATIENCE, asking).await.ok()?.ok()?
    }

    async fn exchange(&self, path: &str, json: Option<Vec<u8>>) -> Option<Reply> {
        for upstream in self.upstreams.in_order(Instant::now()) {
            match upstream
                .at(Priority::Waiting)
                .exchange(path, &[], json.clone().map(Sent::Json), MAX_LIST_BYTES.max(MAX_ANSWER_BYTES))
                .await
            {
                Ok(reply) if reply.status != 404 => return Some(reply),
                Ok(_) => {}
                Err(error) => tracing::debug!(%error, "an upstream does not answer a person"),
            }
        }
        None
    }

    fn orders_of_room(&self, query: &str) -> Result<Response<Body>, Refused> {
        let fields: BTreeMap<&str, &str> = query.split('&').filter_map(|pair| pair.split_once('=')).collect();
        let unreadable = (StatusCode::BAD_REQUEST, "say which room, and which machine");
        let room: RoomName = fields.get("room").and_then(|room| room.parse().ok()).ok_or(unreadable)?;
        let machine: MachineId =
            fields.get("machine").and_then(|machine| machine.parse().ok()).ok_or(unreadable)?;
        Ok(json(&self.orders.of_room(&room, &machine, Instant::now())))
    }

    async fn progress(self: &Arc<Self>, bytes: &[u8]) -> Result<Response<Body>, Refused> {
        let progress: MachineProgress = serde_json::from_slice(bytes)
            .map_err(|_| (StatusCode::BAD_REQUEST, "the report cannot be read"))?;
        let this = self.clone();
        let kept = spawn_blocking(move || this.orders.report(progress)).await;
        match kept {
            Ok(Ok(true)) => Ok(Response::new(body("ok\n"))),
            Ok(Ok(false)) => Err((StatusCode::NOT_FOUND, "there is no such order for that machine's room")),
            _ => Err(NOT_KEPT),
        }
    }

    async fn estimate(self: &Arc<Self>, release: Digest) -> Result<Response<Body>, Refused> {
        let network = self.network().ok_or(LINK_CUT)?;
        let entry = network
            .catalogue
            .by_digest(release)
            .ok_or((StatusCode::NOT_FOUND, "there is no such release"))?;
        let (this, bytes) = (self.clone(), entry.listing.download_size);
        let here = spawn_blocking(move || this.is_here(release));
        let here = here.await.unwrap_or(false);
        let wan_bytes = if here { 0 } else { bytes };
        let seconds = orders::seconds_to_carry(&self.link.report(Instant::now()), wan_bytes);
        Ok(json(&serde_json::json!({ "here": here, "wan_bytes": wan_bytes, "seconds": seconds })))
    }

    /// Follows the provider and the origin, sends what is on its way, and wakes rooms, until the node stops.
    pub(crate) async fn keep(self: Arc<Self>, stop: &CancellationToken) {
        let mut looked: Option<tokio::time::Instant> = None;
        self.take_up();
        loop {
            let due = looked.is_none_or(|looked| looked.elapsed() >= LOOK_EVERY);
            let working = async {
                if due && let Some(sign_in) = self.sign_in() {
                    if self.provider.is_old(&sign_in) {
                        self.mirror_provider(sign_in.clone()).await;
                    }
                    self.mirror_lists(&sign_in).await;
                }
                self.send().await;
                self.orders.wake(Instant::now()).await;
            };
            if stop.run_until_cancelled(working).await.is_none() {
                return;
            }
            // Before the first catalogue is served, nobody knows who signs in.
            if due && self.network().is_some() {
                looked = Some(tokio::time::Instant::now());
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.waiting.notified() => {}
                () = tokio::time::sleep(if looked.is_none() { Duration::from_millis(500) } else { CLOCK_EVERY }) => {}
            }
        }
    }

    /// The list of rights that was kept, for as long as it counts.
    fn take_up(&self) {
        let Some(key) = self.sign_in().and_then(|sign_in| sign_in.rights_key) else { return };
        let path = self.site.path("people").join("rights.json");
        if let Ok(Some(bytes)) = durable::read_if_present(&path, MAX_LIST_BYTES)
            && let Ok(rights) = SignedList::rights(&bytes, &key, Instant::now())
        {
            self.rights.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(rights);
        }
    }

    async fn mirror_provider(&self, sign_in: SignIn) {
        // On the main runtime: the link's near end lives there.
        let (asking, link) = (self.provider.clone(), self.link.clone());
        let asked = self.runtime.spawn(async move { asking.ask(&sign_in, &link).await });
        if tokio::time::timeout(Duration::from_secs(45), asked).await.is_err() {
            tracing::warn!("the provider did not answer in time");
        }
    }

    /// What the origin signed: who may sign in with a code, and what was ordered elsewhere for this college.
    async fn mirror_lists(&self, sign_in: &SignIn) {
        self.take_up();
        let Some(key) = &sign_in.rights_key else { return };
        let now = Instant::now();
        if let Some(Reply { status: 200, body }) = self.exchange("rights.json", None).await {
            match SignedList::rights(&body, key, now) {
                Ok(newest) => {
                    let mut rights = self.rights.lock().unwrap_or_else(PoisonError::into_inner);
                    if rights.as_ref().is_none_or(|known| known.issued <= newest.issued) {
                        let path = self.site.path("people").join("rights.json");
                        if let Err(error) = durable::write_atomically(&path, &body) {
                            tracing::warn!(%error, "the list of rights could not be kept");
                        }
                        *rights = Some(newest);
                    }
                }
                Err(error) => tracing::error!(%error, "the list of rights that upstream gives is refused"),
            }
        }
        let path = format!("orders/{}.json", self.college);
        if let Some(Reply { status: 200, body }) = self.exchange(&path, None).await {
            match SignedList::read::<OrderList>(&body, key) {
                Ok(list) if list.college == self.college => {
                    let status = self.orders.take_up(list, now);
                    match status.map(|status| serde_json::to_vec(&status)) {
                        Ok(Ok(status)) => {
                            self.exchange(&format!("orders/{}/status", self.college), Some(status)).await;
                        }
                        Ok(Err(error)) => tracing::error!(%error, "how far orders are cannot be said"),
                        Err(error) => tracing::error!(%error, "orders from elsewhere could not be kept"),
                    }
                }
                Ok(_) => tracing::error!("upstream gives the orders of another college"),
                Err(error) => tracing::error!(%error, "the orders that upstream gives are refused"),
            }
        }
    }

    /// Sends on what people asked, in order, as long as upstream takes it.
    async fn send(&self) {
        while let Some((name, bytes)) = self.outbox.first() {
            let Some(reply) = self.exchange("person", Some(bytes)).await else { return };
            match reply.status {
                200..300 => {}
                400..500 if reply.status != 429 => {
                    tracing::warn!(
                        status = reply.status,
                        "upstream refuses what a person asked, and it is dropped"
                    );
                }
                _ => return,
            }
            if let Err(error) = self.outbox.sent(name) {
                tracing::warn!(%error, "what was sent could not be removed");
                return;
            }
        }
    }
}
