//! The node that runs on this machine, for the commands that are about it.
//!
//! ```text
//! <root>/running.json    {"pid": 4711, "started": 8123456, "address": "http://[::]:8701/", "since": "…", "socket_stays": true}
//! ```
//!
//! Written once the node listens and holds `lock`, removed when it stops. It is believed only while the lock is held *and* the process of
//! that number is the one that wrote it: `started`, the kernel's time of its start (proc(5), `stat`, field 22), is the same. So what a
//! killed node left says nothing, and a number that the system gave to another program later is never mistaken for the node.
//!
//! The process is held on to (`pidfd_open(2)`) before that is looked at: between the look and the signal it cannot become another
//! one. Read without the lock, the file is written whole or not at all.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use fs_err as fs;
use mirabelle_content::durable;
use mirabelle_manifests::Instant;
use mirabelle_terminal::{Failure, OrFail};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

use crate::site::Site;

const MAX_FILE_BYTES: u64 = 4096;

/// `running.json`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Running {
    /// Its process.
    pub(crate) pid: u32,
    /// When that was started, in the kernel's ticks.
    started: u64,
    /// Where it listens.
    pub(crate) address: String,
    pub(crate) since: Instant,
    /// True: whoever connects after its end waits for the next process, since systemd holds the socket.
    pub(crate) socket_stays: bool,
}

/// The file, until it is dropped.
pub(crate) struct Announced(PathBuf);

impl Drop for Announced {
    fn drop(&mut self) {
        if let Err(error) = durable::remove_file(&self.0) {
            tracing::debug!(%error, "`running.json` stays, and says nothing");
        }
    }
}

/// Says that this process, which holds the lock, is the node. One that cannot say so works all the same.
pub(crate) fn announce(site: &Site, address: &str, socket_stays: bool, now: Instant) -> Option<Announced> {
    let path = site.path("running.json");
    let pid = rustix::process::getpid();
    let written = start_of(pid).and_then(|started| {
        let pid = pid.as_raw_nonzero().get().unsigned_abs();
        let running = Running { pid, started, address: address.to_owned(), since: now, socket_stays };
        durable::write_atomically(&path, &serde_json::to_vec_pretty(&running)?)
    });
    match written {
        Ok(()) => Some(Announced(path)),
        Err(error) => {
            tracing::warn!(%error, "other commands will not know that the node runs");
            None
        }
    }
}

/// The node that runs, held on to.
pub(crate) struct Found {
    pub(crate) running: Running,
    process: OwnedFd,
}

impl Found {
    /// Asks it to stop in order (SIGTERM).
    pub(crate) fn ask_to_stop(&self) -> io::Result<()> {
        Ok(pidfd_send_signal(&self.process, Signal::TERM)?)
    }

    /// The process, which becomes readable when it has ended.
    pub(crate) fn into_process(self) -> OwnedFd {
        self.process
    }
}

/// The node that runs on this directory, if one does.
pub(crate) fn find(site: &Site) -> Result<Option<Found>, Failure> {
    let what = || "cannot find out whether the node runs".to_owned();
    let Some(bytes) = durable::read_if_present(&site.path("running.json"), MAX_FILE_BYTES).or_fail(what)?
    else {
        return Ok(None);
    };
    let Ok(running) = serde_json::from_slice::<Running>(&bytes) else { return Ok(None) };
    let Some(pid) = i32::try_from(running.pid).ok().and_then(Pid::from_raw) else { return Ok(None) };
    let process = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(process) => process,
        Err(rustix::io::Errno::SRCH) => return Ok(None),
        Err(error) => return Err(io::Error::from(error)).or_fail(what),
    };
    let is_it = start_of(pid).is_ok_and(|started| started == running.started);
    let found = is_it && is_held(&site.path("lock")).or_fail(what)?;
    Ok(found.then_some(Found { running, process }))
}

/// True when somebody holds the lock.
fn is_held(lock: &Path) -> io::Result<bool> {
    match fs::File::open(lock) {
        // Shared: two who look do not take one another for the node.
        Ok(file) => match file.file().try_lock_shared() {
            Ok(()) => Ok(false),
            Err(std::fs::TryLockError::WouldBlock) => Ok(true),
            Err(std::fs::TryLockError::Error(error)) => Err(error),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// When a process was started, in ticks since the machine was.
fn start_of(pid: Pid) -> io::Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()))?;
    // The second field is the program's name in parentheses, and may hold anything.
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    let started = fields.split_ascii_whitespace().nth(19).and_then(|field| field.parse().ok());
    started.ok_or_else(|| io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site() -> (tempfile::TempDir, Site) {
        let directory = tempfile::tempdir().unwrap();
        let site = Site::new(directory.path());
        (directory, site)
    }

    #[test]
    fn is_found_while_it_holds_the_lock_and_never_after() {
        let (_directory, site) = site();
        assert!(find(&site).unwrap().is_none());
        let lock = site.lock().unwrap();
        let announced = announce(&site, "http://127.0.0.1:1/", false, Instant::UNIX_EPOCH).unwrap();
        let found = find(&site).unwrap().unwrap();
        assert_eq!(found.running.address, "http://127.0.0.1:1/");
        assert_eq!(found.running.pid, std::process::id());
        drop(lock);
        assert!(find(&site).unwrap().is_none(), "as one that was killed leaves it");
        let _lock = site.lock().unwrap();
        drop(announced);
        assert!(find(&site).unwrap().is_none());
        assert!(!site.path("running.json").exists());
    }

    #[test]
    fn another_process_of_the_same_number_is_not_the_node() {
        let (_directory, site) = site();
        let _lock = site.lock().unwrap();
        let _announced = announce(&site, "http://127.0.0.1:1/", false, Instant::UNIX_EPOCH).unwrap();
        let mut running = find(&site).unwrap().unwrap().running;
        for (pid, started) in
            [(running.pid, running.started - 1), (1, running.started), (0, 0), (u32::MAX, 0)]
        {
            (running.pid, running.started) = (pid, started);
            fs::write(site.path("running.json"), serde_json::to_vec(&running).unwrap()).unwrap();
            assert!(find(&site).unwrap().is_none(), "{pid} {started}");
        }
        fs::write(site.path("running.json"), "{").unwrap();
        assert!(find(&site).unwrap().is_none());
    }
}
