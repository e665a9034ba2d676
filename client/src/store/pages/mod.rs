//! The pages, as functions from what is known to what is read.
//!
//! Threats and the defence for each:
//! - *A description that is markup*: everything a package says of itself is text to maud, which escapes it.
//! - *A script of somebody's*: no page has one within it, and the policy that goes with every answer lets none in (`guard.rs`).
//! - *A picture that does more*: pictures are files of approved digests, shown by `img` alone, and answered with a policy of their own.

mod about;
mod activity;
mod discover;
mod frame;
mod lists;
mod me;
mod message;
mod package;
mod parts;
mod rooms;
mod sign_in;

pub(super) use self::about::about;
pub(super) use self::activity::{activity, task_row};
pub(super) use self::discover::{discover, shelf_page};
pub(super) use self::lists::{mine, results, search, updates};
pub(super) use self::me::me;
pub(super) use self::message::message;
pub(super) use self::package::package;
pub(super) use self::rooms::rooms;
pub(super) use self::sign_in::sign_in;

#[cfg(test)]
pub(super) mod tests;
