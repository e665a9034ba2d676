//! Measurements: ours and the peers' in one run, as ratios.
//!
//!     cargo run --release -p mirabelle-bench -- NAME
//!
//! Each prints a table and ends with one line `result: key=value …`.
#![expect(
    clippy::unwrap_used,
    clippy::cast_precision_loss,
    reason = "a bench stops when it cannot measure, and prints three digits"
)]

mod decide;
mod fleet;
mod install;
mod metadata;
mod pipeline;
mod serve;
mod soak;
mod store;
mod storm;
mod wan;
mod wan_bytes;
mod yielding;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "mirabelle-bench", about = "Measurements beside the peers")]
struct Cli {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Debug, Subcommand)]
enum Bench {
    /// What deciding for 500 packages costs a workstation.
    Decide(decide::Arguments),
    /// A morning of check-ins of 7,000 workstations at the origin.
    Fleet(fleet::Arguments),
    /// Installing and updating a release that the node holds, beside tar, OSTree and dpkg with the same content.
    Install(install::Arguments),
    /// Bytes of a refresh in large catalogues, beside plain, gzip and zstd; the cost of verifying.
    Metadata(metadata::Arguments),
    /// Building, mirroring and installing a large release, beside `sha256sum` and `cp` of the same bytes.
    Pipeline(pipeline::Arguments),
    /// What answers cost a node, beside nginx: small, large, ranges, TLS, cold, in a crowd, in a storm.
    Serve(serve::Arguments),
    /// Our server, in a process of its own so that its time and memory can be read.
    #[command(hide = true)]
    ServeStep(serve::Step),
    /// Half an hour of new releases, faults and load: a node's memory, files and disk stay flat.
    Soak(soak::Arguments),
    /// What pages of the store cost with a thousand packages, and pictures for sixty browsers at once.
    Store(store::Arguments),
    /// 80 workstations start within a minute and update five packages each, beside nginx.
    Storm(storm::Arguments),
    /// A room asks at once for a large object that its node does not hold, beside nginx.
    Wan(wan::Arguments),
    /// Bytes over the link of updates and first installs of real releases, beside the best tools there are.
    WanBytes(wan_bytes::Arguments),
    /// One step of ours, in a process of its own so that its time and memory can be read.
    #[command(hide = true, subcommand)]
    WanBytesStep(wan_bytes::Step),
    /// What a node that fetches costs a video call over the same link.
    Yield(yielding::Arguments),
    /// One process of `yield`, in a namespace.
    #[command(hide = true, subcommand)]
    YieldStep(yielding::Step),
}

fn main() {
    match Cli::parse().bench {
        Bench::Decide(arguments) => decide::run(&arguments),
        Bench::Fleet(arguments) => fleet::run(&arguments),
        Bench::Install(arguments) => install::run(&arguments),
        Bench::Metadata(arguments) => metadata::run(&arguments),
        Bench::Pipeline(arguments) => pipeline::run(&arguments),
        Bench::Serve(arguments) => serve::run(&arguments),
        Bench::ServeStep(step) => step.run(),
        Bench::Soak(arguments) => soak::run(&arguments),
        Bench::Wan(arguments) => wan::run(&arguments),
        Bench::Store(arguments) => store::run(&arguments),
        Bench::Storm(arguments) => storm::run(&arguments),
        Bench::WanBytes(arguments) => wan_bytes::run(&arguments),
        Bench::WanBytesStep(step) => step.run(),
        Bench::Yield(arguments) => yielding::run(&arguments),
        Bench::YieldStep(step) => step.run(),
    }
}
