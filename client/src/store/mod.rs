//! The store: what a person at the workstation sees of the approved software, and what she may do about it.
//!
//! ```text
//!  desktop entry ─▶ companion.rs ─▶ session.rs ─▶ browser ─▶ server.rs (guard.rs) ─▶ routes/ ─▶ pages/ (words.rs)
//!                                                                   │
//!     stock.rs: what there is and how it stands (decide) ◀──────────┤──▶ activity.rs: the queue ─▶ the agent's commands
//!     sign_in.rs, person.rs: who she is ◀───────────────────────────┤──▶ people.rs: what she asks of the node
//!     media.rs: icons and screenshots ◀─────────────────────────────┘
//! ```
//!
//! The agent serves it on the loopback, as plain pages that work without scripts. It decides nothing: what may be installed is decided by
//! the command that installs, from the signed deployment, whatever a page showed or a browser sent.
//!
//! Threats and the defence for each: `guard.rs` for what comes by the network, `session.rs` for other users of the machine,
//! `sign_in.rs` for signing in, `pages/` for what packages say of themselves.

mod activity;
mod companion;
mod guard;
mod media;
mod pages;
mod people;
mod person;
mod routes;
mod search;
mod server;
mod session;
mod sign_in;
mod stock;
mod view;
mod words;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mirabelle_identity::Provider;
use mirabelle_manifests::{Asker, Instant, SiteId};
use mirabelle_terminal::{Failure, OrFail};
use mirabelle_transfer::{Fetcher, RetryPolicy, plain_client};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use self::activity::Activity;
pub(crate) use self::companion::{Opened, Said};
use self::session::Sessions;
use self::stock::Stock;
use crate::agent::socket::Wishes;
use crate::config::Config;
use crate::discover;
use crate::layout::Layout;

/// The node is on the same network: a page does not wait for one that is not there.
const IMPATIENT: RetryPolicy = RetryPolicy {
    attempts: 1,
    first_wait: Duration::from_millis(100),
    longest_wait: Duration::from_millis(100),
    stall: Duration::from_secs(5),
};

/// The store of this workstation.
pub(crate) struct Store {
    layout: Layout,
    config: Config,
    sessions: Sessions,
    activity: Arc<Activity>,
    wishes: Wishes,
    /// Asks the provider, and nobody else.
    http: reqwest::Client,
    address: SocketAddr,
    /// Taken by whoever serves it.
    listener: Mutex<Option<TcpListener>>,
    known: Mutex<Known>,
    /// Held by whoever works out a stock: nobody does so twice.
    making: tokio::sync::Mutex<()>,
}

/// What is kept between pages.
#[derive(Default)]
struct Known {
    stock: BTreeMap<Asker, Arc<Stock>>,
    provider: Option<Provider>,
    node: Option<Fetcher>,
}

impl Store {
    /// Takes the store's port, before anybody else of this machine can.
    pub(crate) async fn open(layout: Layout, config: &Config, wishes: Wishes) -> Result<Arc<Self>, Failure> {
        let asked = SocketAddr::from((Ipv4Addr::LOCALHOST, config.agent.store_port()));
        let what = || format!("cannot open the store at {asked}");
        let listener = TcpListener::bind(asked).await.or_fail(what)?;
        let address = listener.local_addr().or_fail(what)?;
        // It follows no redirect: one would take the code elsewhere.
        let http = plain_client().or_fail(what)?;
        Ok(Arc::new(Self {
            layout,
            config: config.clone(),
            sessions: Sessions::default(),
            activity: Arc::default(),
            wishes,
            http,
            address,
            listener: Mutex::new(Some(listener)),
            known: Mutex::default(),
            making: tokio::sync::Mutex::default(),
        }))
    }

    /// Serves the store until the agent stops.
    pub(crate) async fn serve(store: Option<Arc<Self>>, stop: CancellationToken) {
        let Some(store) = store else { return };
        let listener = store.listener.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(listener) = listener else { return };
        let working = tokio::spawn(store.activity.clone().work(store.wishes.clone()));
        server::serve(store, listener, stop).await;
        working.abort();
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // Each change is whole before anything can panic.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where the provider sends the browser back to.
    fn returns_to(&self) -> String {
        format!("http://{}/sign-in/return", self.address)
    }

    fn college(&self) -> &SiteId {
        &self.config.machine.college
    }

    /// What there is, for one kind of asker.
    async fn stock(&self, asker: Asker) -> Result<Arc<Stock>, Failure> {
        let _alone = self.making.lock().await;
        let known = self.known().stock.get(&asker).cloned();
        let stock = Stock::fresh(&self.layout, &self.config, asker, known, Instant::now()).await?;
        self.known().stock.insert(asker, stock.clone());
        Ok(stock)
    }

    fn known_provider(&self) -> Option<Provider> {
        self.known().provider.clone()
    }

    fn keep_provider(&self, provider: Provider) {
        self.known().provider = Some(provider);
    }

    /// Whoever is asked on this network.
    fn node(&self) -> Option<Fetcher> {
        let upstream = discover::known(&self.layout, &self.config)?;
        let mut known = self.known();
        if known.node.as_ref().is_none_or(|node| *node.upstream() != upstream) {
            known.node = Fetcher::new(upstream, IMPATIENT).ok();
        }
        known.node.clone()
    }
}
