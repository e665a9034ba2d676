//! The TUF client over HTTP, against servers that lie, break off and change under its hands.
#![expect(clippy::unwrap_used, reason = "a test that cannot make its world should stop")]

mod clock_and_grace;
mod downloads;
mod interrupted;
mod origin;
mod refused;
#[path = "../../../manifests/tests/manifests/repository.rs"]
#[expect(dead_code, reason = "shared with the tests of manifests, which use all of it")]
mod repository;
mod roots;
mod serving;
mod tampered_store;
