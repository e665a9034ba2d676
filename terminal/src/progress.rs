//! Progress bars, on a terminal only.

use std::future::Future;
use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How often a bar is drawn anew.
const REDRAW: Duration = Duration::from_millis(100);

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
    let begun = done();
    let mut ticks = tokio::time::interval(REDRAW);
    let mut work = std::pin::pin!(work);
    loop {
        tokio::select! {
            result = &mut work => {
                bar.finish();
                return result;
            }
            _ = ticks.tick() => bar.0.set_position(done() - begun),
        }
    }
}
