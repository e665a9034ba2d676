//! What travels: fetching with resume, the TUF refresh, obtaining releases, serving files.
//!
//! Asynchronous where there is waiting; hashing, decompression and writing run on the blocking pool. Everything here
//! is the same for a node and a workstation, and against an origin and a node: an asker cannot tell them apart.
//!
//! - [`Fetcher`] asks one server, retries, and resumes at the byte.
//! - [`Link`] says when it may, and how fast: limits, budget, and giving way to lessons.
//! - [`TufClient`] brings a [`MetadataStore`] up to date; [`refresh`] does, and reads the [`Network`] in it.
//! - [`ReleaseRequest`] plans the cheapest way to a release from what is held, deltas among it, explains it, and goes it.
//! - [`ObtainPlan`] says what of a known release is missing and which route gets it; [`ObtainPlan::execute`] gets it.
//! - [`flight`]: one transfer that feeds everybody who waits for it.
//! - [`people`]: what a node and an origin keep of people, and how they learn the keys of whoever signs them in.
//! - [`reports`]: what machines say of themselves, on its way to the origin.
//! - [`serve`] gives out files of a directory.

pub mod flight;
pub mod people;
pub mod reports;
pub mod serve;

mod encoding;
mod fetch;
mod link;
mod local_name;
mod metadata_store;
mod network;
mod obtain;
mod partial;
mod retry;
mod tuf_client;

pub use encoding::EncodedForms;
pub use fetch::{Broken, FetchError, Fetcher, Meter, Reply, Sent, SignedBody, Upstream, plain_client};
pub use link::{
    Bucket, Closed, Limits, Link, LinkClient, LinkClientError, LinkClosed, LinkReport, LinkState, Priority,
    Rate, RateRule,
};
pub use metadata_store::{MetadataStore, StoreError};
pub use network::{
    Network, RefreshError, fetch_release, is_unchanged, kept_network, refresh, refresh_or_keep,
};
pub use obtain::{
    Candidate, HeldManifest, ObtainError, ObtainPlan, Obtained, PassedOver, ReleasePlan, ReleaseRequest,
    Route, Stock, Streamed, UsedDelta, WayKind,
};
pub use retry::RetryPolicy;
pub use tuf_client::{Repository, TufClient, TufError};
