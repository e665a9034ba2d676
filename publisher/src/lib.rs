//! The signed-package repository: build, submit, review, approve, deploy, publish, serve.
//!
//! ```text
//! recipe ── build ──▶ built release ── submit ──▶ submitted/ ── approve ──▶ roles/ ── publish ──▶ public/
//!           packager                              (waits)       rectorat    (signed)  online keys  (served)
//! ```
//!
//! Every role is changed as draft → signatures → its place in `roles/` ([`drafts`], [`draft_file`], [`words`]); what
//! anybody did is in the log ([`audit`]). Commands hold no state but the repository's directory, described in [`repository`]. Signing keys are sealed files
//! or on tokens, and a command is told where ([`KeyLocation`]); the server's own are the online ones, which can refresh
//! and brake and nothing else (promise 2).

pub mod cli;
pub mod commands;

mod audit;
mod delta_settings;
mod deltas;
mod draft_file;
mod drafts;
mod findings;
mod fleet;
mod key_location;
mod keyfile;
mod passphrase;
mod people;
mod policy;
mod recipe;
mod repository;
mod review;
mod sbom;
mod storefront;
mod submission;
mod token;
mod words;

pub use key_location::KeyLocation;
pub use token::{Algorithm, TokenError, TokenUri, TokenUriError};
