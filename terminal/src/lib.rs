//! Where the three programs meet people: failures and exit codes, progress, tables, configuration files.
//!
//! Standard output is data, standard error is talk. With `--json` standard output holds one JSON value; progress bars
//! appear on a terminal only; `NO_COLOR` is obeyed.
//!
//! How an error from a room below sounds, and which exit code it gets, is said once, in [`failure`].

pub mod failure;

mod config;
mod documents;
mod output;
mod progress;
mod run;
mod table;
mod ways;

pub use config::{Layer, Setting, read_config, settings_table};
pub use documents::{DocumentKind, print_document};
pub use failure::{Failure, Kind, OrFail, Sounds};
pub use output::Output;
pub use progress::{Bar, PROGRESS_VARIABLE, Progress, stage, watch};
pub use run::{runtime, start, stop_signal};
pub use table::{ByteCount, ByteCountError, Table, bytes};
pub use ways::ways;
