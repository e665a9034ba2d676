//! The client workflow of TUF against repositories that somebody tampered with; documents, and what follows from them.
#![expect(clippy::unwrap_used, reason = "a test that cannot make its world should stop")]

mod advisories;
mod delegations;
mod deployments;
mod hostile_metadata;
mod malformed_metadata;
mod releases;
mod repository;
mod timetables;
