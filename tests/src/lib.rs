//! The network in a box: origin, links, nodes and workstations as real processes, on loopback, in one directory.
//!
//! ```text
//! publisher ─▶ origin process ─▶ Wan (rate, delay, faults) ─▶ node process ─▶ Wan (unlimited, counts) ─▶ workstations
//! ```
//!
//! A world is built with the product's own verbs and drives the product's own programs, so that what a test sees is
//! what a person would:
//!
//! ```no_run
//! use mirabelle_tests::{App, World, mbit};
//! let mut world = World::new().college("57001").wan(mbit(8)).workstations(2).start();
//! world.release(&App::new("hello", 1).file("bin/hello", "#!/bin/sh\necho hello 1\n"));
//! world.college("57001").sync();
//! world.college("57001").workstation(0).run(["install", "hello"]).succeeds();
//! ```
//!
//! Everything listens on a port that the system chose and that is then reported; everything ends with the world.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::missing_panics_doc,
    reason = "a world that cannot be built should stop the test"
)]

mod app;
mod browser;
mod clock;
mod hostile;
mod http;
mod postgres;
mod process;
mod programs;
mod samples;
mod wan;
mod world;

pub use app::App;
pub use browser::{Browser, Provider, as_somebody};
pub use clock::with_clock;
pub use hostile::{Hostile, Lie};
pub use http::{Answer, get, post, try_get};
pub use postgres::Postgres;
pub use process::{Outcome, Running, run, run_within};
pub use programs::Programs;
pub use samples::{many, sample, sample_policy, samples};
pub use wan::{Fault, Rate, Wan, mbit};
pub use world::{Approved, College, PASSPHRASE, Workstation, World, WorldBuilder};
