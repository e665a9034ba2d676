//! Data on standard output: for people, or as one JSON value.

use std::io::{self, Write};

use serde::Serialize;

/// How a command prints its result.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    json: bool,
}

impl Output {
    /// Prints JSON, or for people.
    pub fn new(json: bool) -> Self {
        Self { json }
    }

    /// True when a program reads the result.
    pub fn is_json(self) -> bool {
        self.json
    }

    /// Prints what another process of ours printed.
    pub fn pass_on(self, printed: &str) {
        let printed = printed.trim_end();
        if !printed.is_empty() {
            let _ = writeln!(io::stdout().lock(), "{printed}");
        }
    }

    /// Prints `value` as JSON, or else what `human` says.
    pub fn print<T: Serialize>(self, value: &T, human: impl FnOnce(&T) -> String) {
        let text = if self.json {
            serde_json::to_string_pretty(value).unwrap_or_else(|error| format!("{{\"error\":\"{error}\"}}"))
        } else {
            human(value)
        };
        let text = text.trim_end();
        if !text.is_empty() {
            // Whoever closed the pipe has read enough.
            let _ = writeln!(io::stdout().lock(), "{text}");
        }
    }
}
