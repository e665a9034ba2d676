//! The workstation client: installs, updates and takes back releases from its college's node, all or nothing.
//!
//! ```text
//! refresh ─▶ decide ─▶ plan ─▶ fetch ─▶ stage ─▶ activate ─▶ check ─▶ keep or return
//!      manifests/decide  plan.rs                transaction.rs
//! ```
//!
//! Promise 4: what a person sees changes in one rename of one small file ([`layout`]). What differs between systems
//! lives in `platform/` alone.

pub mod cli;
pub mod commands;

mod agent;
mod bounded;
mod collect;
mod config;
mod discover;
mod faults;
mod generation;
mod health;
mod integration;
mod journal;
mod layout;
mod native;
mod outlook;
mod plan;
mod platform;
mod release_tree;
mod room;
mod settings;
mod state;
mod store;
mod transaction;
