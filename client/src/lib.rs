//! The workstation client: installs, updates and takes back releases from its college's node, all or nothing.
//!
//! ```text
//! refresh ─▶ decide ─▶ plan ─▶ fetch ─▶ stage ─▶ check ─▶ activate
//!            decide.rs  plan.rs          transaction.rs
//! ```
//!
//! Promise 4: what a person sees changes in one rename of one small file ([`layout`]). What differs between systems
//! lives in `platform/` alone.

pub mod cli;
pub mod commands;

mod collect;
mod config;
mod decide;
mod generation;
mod journal;
mod layout;
mod plan;
mod platform;
mod release_tree;
mod transaction;
