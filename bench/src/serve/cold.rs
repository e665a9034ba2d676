//! A slow disk: what a control group's processes read from a device is limited to so many bytes a second.
//!
//! Needs root and the kernel's block throttling, of cgroup v1 or v2; without them there is nothing to measure.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use fs_err as fs;

/// What the disk gives, in bytes a second.
const RATE: u64 = 100_000_000;

/// A control group whose reads are slow, until it is dropped.
pub(super) struct SlowDisk {
    group: PathBuf,
    /// Where its hierarchy was mounted for it.
    mounted: Option<tempfile::TempDir>,
}

impl SlowDisk {
    /// For the disk that `path` is on.
    pub(super) fn below(path: &Path) -> Option<Self> {
        let device = fs::metadata(path).ok()?.dev();
        let device = format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device));
        let name = format!("mirabelle-bench-{}", std::process::id());
        let unified = Path::new("/sys/fs/cgroup");
        let v2 = fs::read_to_string(unified.join("cgroup.controllers")).unwrap_or_default();
        if v2.split_whitespace().any(|controller| controller == "io") {
            let disk = Self { group: unified.join(name), mounted: None };
            fs::write(unified.join("cgroup.subtree_control"), "+io").ok()?;
            fs::create_dir(&disk.group).ok()?;
            fs::write(disk.group.join("io.max"), format!("{device} rbps={RATE}")).ok()?;
            return Some(disk);
        }
        let mounted = tempfile::tempdir().ok()?;
        let mut mount = Command::new("mount");
        mount.args(["-t", "cgroup", "-o", "blkio", "none"]).arg(mounted.path());
        mount.status().ok().filter(std::process::ExitStatus::success)?;
        let disk = Self { group: mounted.path().join(name), mounted: Some(mounted) };
        fs::create_dir(&disk.group).ok()?;
        fs::write(disk.group.join("blkio.throttle.read_bps_device"), format!("{device} {RATE}")).ok()?;
        Some(disk)
    }

    /// Lets these processes read from it.
    pub(super) fn slow_down(&self, processes: &[u32]) {
        for process in processes {
            fs::write(self.group.join("cgroup.procs"), process.to_string()).unwrap();
        }
    }
}

impl Drop for SlowDisk {
    fn drop(&mut self) {
        // Its processes have ended by now; a group that is still in use stays until the machine stops.
        let _ = fs::remove_dir(&self.group);
        if let Some(mounted) = &self.mounted {
            let _ = Command::new("umount").arg(mounted.path()).status();
        }
    }
}
