//! Progress: a bar on a terminal; lines for a program that asked for them; nothing where nobody looks.
//!
//! ```text
//! MIRABELLE_PROGRESS=lines     on standard error:  progress {"done":1048576,"total":4194304}
//!                                                  progress {"stage":"installing"}
//! ```

use std::future::Future;
use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::{Deserialize, Serialize};

/// How often a bar is drawn anew.
const REDRAW: Duration = Duration::from_millis(100);

/// What a line of progress begins with.
const PROGRESS_LINE: &str = "progress ";
/// The variable that asks for lines.
pub const PROGRESS_VARIABLE: &str = "MIRABELLE_PROGRESS";
/// How often a line is written: a page that shows it is read by a person.
const LINE_EVERY: Duration = Duration::from_millis(250);

/// A line of progress: how far a transfer is, or what follows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Progress {
    /// Bytes.
    Bytes {
        /// So many were counted.
        done: u64,
        /// Of so many.
        total: u64,
    },
    /// What is done now.
    Stage {
        /// Its name.
        stage: String,
    },
}

impl Progress {
    /// Reads a line.
    pub fn of(line: &str) -> Option<Self> {
        serde_json::from_str(line.strip_prefix(PROGRESS_LINE)?).ok()
    }

    fn write(&self) {
        if let Ok(json) = serde_json::to_string(self) {
            eprintln!("{PROGRESS_LINE}{json}");
        }
    }
}

/// True when a program reads our progress.
fn in_lines() -> bool {
    std::env::var_os(PROGRESS_VARIABLE).is_some_and(|value| value == "lines")
}

/// Says what is done now, to whoever reads lines.
pub fn stage(name: &str) {
    if in_lines() {
        Progress::Stage { stage: name.to_owned() }.write();
    }
}

/// A bar that counts bytes.
#[derive(Clone)]
pub struct Bar(ProgressBar);

impl Bar {
    /// A bar for `total` bytes; invisible where nobody looks.
    pub fn bytes(label: &str, total: u64) -> Self {
        let target = if std::io::stderr().is_terminal() {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        };
        let bar = ProgressBar::with_draw_target(Some(total), target);
        let template = "{msg:28} [{bar:30}] {decimal_bytes:>10} of {decimal_total_bytes:<10} {decimal_bytes_per_sec:>12} {eta:>5}";
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        bar.set_style(style.progress_chars("=> "));
        bar.set_message(label.to_owned());
        Self(bar)
    }

    /// So many more.
    pub fn advance(&self, bytes: u64) {
        self.0.inc(bytes);
    }

    /// Takes the bar away.
    pub fn finish(self) {
        self.0.finish_and_clear();
    }
}

/// Awaits `work` while a bar shows what `done` counts.
pub async fn watch<T>(label: &str, total: u64, done: impl Fn() -> u64, work: impl Future<Output = T>) -> T {
    let bar = Bar::bytes(label, total);
    let lines = in_lines();
    let begun = done();
    let mut ticks = tokio::time::interval(if lines { LINE_EVERY } else { REDRAW });
    let mut said = None;
    let mut work = std::pin::pin!(work);
    loop {
        tokio::select! {
            result = &mut work => {
                bar.finish();
                return result;
            }
            _ = ticks.tick() => {
                let progress = Progress::Bytes { done: (done() - begun).min(total), total };
                bar.0.set_position(done() - begun);
                if lines && said.as_ref() != Some(&progress) {
                    progress.write();
                    said = Some(progress);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_progress_is_read_and_others_are_not() {
        assert_eq!(
            Progress::of(r#"progress {"done":1,"total":4}"#),
            Some(Progress::Bytes { done: 1, total: 4 })
        );
        let stage = Progress::Stage { stage: "installing".to_owned() };
        assert_eq!(Progress::of(r#"progress {"stage":"installing"}"#), Some(stage));
        assert_eq!(Progress::of("error: cannot install `ruff`"), None);
        assert_eq!(Progress::of("progress is made"), None);
    }
}
