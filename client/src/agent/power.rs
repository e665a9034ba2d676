//! The machine's power: holding shutdowns off for as long as an install takes, switching off, and knowing whether somebody is
//! working.
//!
//! Each is a command of the system, and can be another in `client.toml`: what a test, or a college with habits of its own,
//! needs.

use std::io;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};

use crate::config::AgentConfig;

/// How long a question about sessions may take.
const ANSWER_TIME: Duration = Duration::from_secs(10);
/// How long the system may take to accept that it goes off.
const OFF_TIME: Duration = Duration::from_mins(1);
/// Nobody is logged in: as if nobody had touched the machine for a day.
const NOBODY: Duration = Duration::from_hours(24);

/// The machine's power.
#[derive(Clone, Debug)]
pub(super) struct Power {
    off: Vec<String>,
    inhibit: Vec<String>,
    idle: Option<Vec<String>>,
}

/// Holds shutdowns off until it is dropped.
#[derive(Debug)]
pub(super) struct Hold {
    child: Child,
}

impl Drop for Hold {
    fn drop(&mut self) {
        // The inhibitor and what it runs.
        let _ = kill_process_group(Pid::from_child(&self.child), Signal::TERM);
        let _ = self.child.wait();
    }
}

fn words(command: &[&str]) -> Vec<String> {
    command.iter().map(ToString::to_string).collect()
}

impl Power {
    pub(super) fn new(config: &AgentConfig) -> Self {
        let inhibit = [
            "systemd-inhibit",
            "--what=shutdown:sleep",
            "--who=Mirabelle",
            "--why=Software is being installed",
            "--mode=block",
            "sleep",
            "infinity",
        ];
        Self {
            off: config
                .power_off
                .clone()
                .unwrap_or_else(|| words(&["systemctl", "poweroff", "--check-inhibitors=no"])),
            inhibit: config.inhibit.clone().unwrap_or_else(|| words(&inhibit)),
            idle: config.idle.clone(),
        }
    }

    /// Holds shutdowns off. Where the system has no such thing, there is nothing that would shut it down politely.
    pub(super) fn hold(&self) -> Option<Hold> {
        use std::os::unix::process::CommandExt;
        let (program, arguments) = self.inhibit.split_first()?;
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        match command.process_group(0).spawn() {
            Ok(child) => Some(Hold { child }),
            Err(error) => {
                tracing::warn!(program, %error, "shutdowns cannot be held off");
                None
            }
        }
    }

    /// Switches the machine off.
    pub(super) async fn switch_off(&self) -> io::Result<()> {
        let Some((program, arguments)) = self.off.split_first() else { return Ok(()) };
        let mut command = tokio::process::Command::new(program);
        let status = command.args(arguments).stdin(Stdio::null()).kill_on_drop(true).status();
        let status = tokio::time::timeout(OFF_TIME, status).await.map_err(|_| io::ErrorKind::TimedOut)??;
        if status.success() { Ok(()) } else { Err(io::Error::other(format!("`{program}`: {status}"))) }
    }

    /// How long nobody has touched the machine; `None` where it cannot be told.
    pub(super) async fn idle(&self) -> Option<Duration> {
        if let Some(command) = &self.idle {
            let said = ask(command).await?;
            return said.trim().parse().ok().map(Duration::from_secs);
        }
        let sessions = ask(&words(&["loginctl", "list-sessions", "--no-legend"])).await?;
        let mut least = NOBODY;
        for session in sessions.lines().filter_map(|line| line.split_ascii_whitespace().next()) {
            let show =
                ["loginctl", "show-session", session, "-p", "Class", "-p", "IdleHint", "-p", "IdleSinceHint"];
            // A session that has ended meanwhile has nobody in it.
            let Some(shown) = ask(&words(&show)).await else { continue };
            least = least.min(idle_of(&shown, jiff::Timestamp::now().as_microsecond()));
        }
        Some(least)
    }
}

/// How long a session has been idle, by logind's words about it.
fn idle_of(shown: &str, now_microseconds: i64) -> Duration {
    let value = |name: &str| shown.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    if value("Class").is_some_and(|class| !class.starts_with("user")) {
        return NOBODY;
    }
    if value("IdleHint") != Some("yes") {
        return Duration::ZERO;
    }
    let since =
        value("IdleSinceHint").and_then(|since| since.parse::<i64>().ok()).unwrap_or(now_microseconds);
    Duration::from_micros(u64::try_from(now_microseconds.saturating_sub(since)).unwrap_or(0))
}

async fn ask(command: &[String]) -> Option<String> {
    let (program, arguments) = command.split_first()?;
    let mut command = tokio::process::Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(ANSWER_TIME, command.output()).await.ok()?.ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_persons_session_counts() {
        let now = 1_000_000_000;
        let idle = |shown: &str| idle_of(shown, now).as_secs();
        assert_eq!(idle("Class=user\nIdleHint=no\nIdleSinceHint=0\n"), 0);
        assert_eq!(idle("Class=user\nIdleHint=yes\nIdleSinceHint=400000000\n"), 600);
        assert_eq!(idle("Class=greeter\nIdleHint=no\n"), NOBODY.as_secs());
    }
}
