//! What travels: fetching with resume, the TUF refresh, obtaining releases, serving files.
//!
//! Asynchronous where there is waiting; hashing, decompression and writing run on the blocking pool. Everything here
//! is the same for a node and a workstation, and against an origin and a node: an asker cannot tell them apart.
//!
//! - [`Fetcher`] asks one server, retries, and resumes at the byte.
//! - [`TufClient`] brings a [`MetadataStore`] up to date; [`refresh`] does, and reads the [`Network`] in it.
//! - [`ReleaseRequest`] plans the cheapest way to a release from what is held, deltas among it, explains it, and goes it.
//! - [`ObtainPlan`] says what of a known release is missing and which route gets it; [`ObtainPlan::execute`] gets it.
//! - [`flight`]: one transfer that feeds everybody who waits for it.
//! - [`serve`] gives out files of a directory.

pub mod flight;
pub mod serve;

mod encoding;
mod fetch;
mod local_name;
mod metadata_store;
mod network;
mod obtain;
mod partial;
mod retry;
mod tuf_client;

pub use encoding::EncodedForms;
pub use fetch::{FetchError, Fetcher, Meter, Upstream};
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
