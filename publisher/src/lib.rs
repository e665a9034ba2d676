//! The signed-package repository: build, submit, review, approve, deploy, publish, serve.
//!
//! ```text
//! recipe ── build ──▶ built release ── submit ──▶ submitted/ ── approve ──▶ roles/ ── publish ──▶ public/
//!           packager                              (waits)       rectorat    (signed)  online keys  (served)
//! ```
//!
//! Commands hold no state but the repository's directory, described in [`repository`]. Signing keys are files that a
//! command is given by name ([`keyfile`]); the server's own are the online ones, which can refresh and brake and
//! nothing else (promise 2).

pub mod cli;
pub mod commands;

mod keyfile;
mod recipe;
mod repository;
mod review;
mod sbom;
mod submission;
