//! The caching node of a college: mirrors what the deployment obliges it to hold, and serves it.
//!
//! ```text
//! upstream (origin or another node)
//!    │  refresh, verify            mirror/
//!    ▼
//! obligations ── obtain ──▶ objects/            over link.rs, within disk.rs
//!    │  only when all of it is here
//!    ▼
//! served/ ── timestamp.json last   served.rs      ──▶ workstations, other nodes   http/; on_demand.rs, media.rs, legacy/
//!
//! workstations and teachers ──▶ fleet/, people/ ──▶ upstream            care/ looks after all of it            lan/ wakes, and is found
//! ```
//!
//! Promise 3: what is served is always a complete catalogue; until a newer one is complete, the last one. Promise 10:
//! the index ([`index`]) can be deleted at any time.

pub mod cli;
pub mod commands;

mod care;
mod config;
mod disk;
mod fleet;
mod garbage;
mod holding;
mod http;
mod index;
mod lan;
mod legacy;
mod link;
mod media;
mod mirror;
mod on_demand;
mod people;
mod program;
mod proof;
mod running;
mod served;
mod site;
mod stick;
