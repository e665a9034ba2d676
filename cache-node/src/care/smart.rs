//! What the disk says of itself, by `smartctl` (smartmontools) where that is installed.
//!
//! `smartctl --json --health DEVICE` answers `smart_status.passed`; bit 3 of its exit status says the same (smartctl(8)). Where
//! there is no such program, no such disk, or no right to ask, nothing is said.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fs_err as fs;
use serde::Deserialize;
use tokio::process::Command;

use super::Alarm;

/// A disk that has to wake up may take some seconds to answer.
const ANSWERS_WITHIN: Duration = Duration::from_secs(30);

/// The disk below a directory.
pub(super) struct Smart {
    program: PathBuf,
    device: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Health {
    smart_status: Option<Status>,
}

#[derive(Deserialize)]
struct Status {
    passed: bool,
}

impl Smart {
    pub(super) fn of(directory: &Path) -> Self {
        Self { program: "smartctl".into(), device: device_of(directory) }
    }

    /// The alarm, when the disk says that it is about to fail.
    pub(super) async fn failing(&self) -> Option<Alarm> {
        let device = self.device.as_ref()?;
        let mut command = Command::new(&self.program);
        command.args(["--json", "--health"]).arg(device).kill_on_drop(true);
        let output = tokio::time::timeout(ANSWERS_WITHIN, command.output()).await.ok()?.ok()?;
        let health: Health = serde_json::from_slice(&output.stdout).ok()?;
        let failing = health.smart_status.is_some_and(|status| !status.passed);
        failing.then(|| Alarm::DiskFailing { device: device.display().to_string() })
    }
}

/// The whole disk that holds a directory: `/dev/sda` of what is on `/dev/sda2`.
fn device_of(directory: &Path) -> Option<PathBuf> {
    let device = fs::metadata(directory).ok()?.dev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let node = fs::canonicalize(format!("/sys/dev/block/{major}:{minor}")).ok()?;
    // A partition's folder lies in its disk's.
    let disk = if node.join("partition").exists() { node.parent()? } else { &node };
    Some(Path::new("/dev").join(disk.file_name()?))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[tokio::test]
    async fn hears_a_disk_that_is_about_to_fail_and_nothing_where_nobody_can_tell() {
        let directory = tempfile::tempdir().unwrap();
        let says = |name: &str, answer: &str| {
            let program = directory.path().join(name);
            fs::write(&program, format!("#!/bin/sh\necho '{answer}'\n")).unwrap();
            fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
            Smart { program, device: Some("/dev/sdx".into()) }
        };
        let failing = says("failing", r#"{"smart_status": {"passed": false}}"#);
        assert_eq!(failing.failing().await, Some(Alarm::DiskFailing { device: "/dev/sdx".to_owned() }));
        assert_eq!(says("well", r#"{"smart_status": {"passed": true}}"#).failing().await, None);
        assert_eq!(says("none", r#"{"json_format_version": [1, 0]}"#).failing().await, None);
        assert_eq!(says("words", "no such device").failing().await, None);
        let missing = Smart { program: directory.path().join("missing"), device: Some("/dev/sdx".into()) };
        assert_eq!(missing.failing().await, None);
    }
}
