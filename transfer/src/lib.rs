//! What travels: fetching with resume, the TUF refresh, obtaining releases, serving files.
//!
//! Asynchronous where there is waiting; hashing, decompression and writing run on the blocking pool. Everything here
//! is the same for a node and a workstation, and against an origin and a node: an asker cannot tell them apart.
//!
//! - [`Fetcher`] asks one server, retries, and resumes at the byte.
//! - [`refresh`] brings a [`MetadataStore`] up to date and reads the [`Network`] in it.
//! - [`ObtainPlan`] says what of a release is missing and which route gets it; [`ObtainPlan::execute`] gets it.
//! - [`serve`] gives out files of a directory.

pub mod serve;

mod fetch;
mod metadata_store;
mod obtain;
mod partial;
mod refresh;
mod retry;

pub use fetch::{FetchError, Fetcher, Meter, Upstream};
pub use metadata_store::{MetadataStore, StoreError};
pub use obtain::{ObtainError, ObtainPlan, Route};
pub use refresh::{Network, RefreshError, fetch_release, kept_network, refresh};
pub use retry::RetryPolicy;
