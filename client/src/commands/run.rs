//! `run`: starts an application of the current generation, and keeps its release from being swept while it runs.

use std::ffi::OsString;
use std::io;
use std::process::Command;
use std::time::Duration;

use fs_err as fs;
use mirabelle_manifests::{PackageName, RELEASE_PLACEHOLDER};
use mirabelle_terminal::{Failure, OrFail};

use super::Context;
use crate::platform;

/// How long to wait for a lock that somebody holds alone. The sweeper does for a moment; who else does wants to keep
/// others from working, and is not waited for: what is current is not swept.
const LOCK_WAITS: u32 = 20;
const LOCK_WAIT: Duration = Duration::from_millis(100);

/// How often to look again when a release was swept between reading `current` and locking it.
const ATTEMPTS: usize = 5;

pub(super) fn run(context: &Context, name: &PackageName, arguments: &[OsString]) -> Result<(), Failure> {
    let layout = &context.layout;
    for _ in 0..ATTEMPTS {
        let current = layout.current_generation()?;
        let (package, installed, launcher) = current.launcher(name).ok_or_else(|| {
            Failure::no(format!("`{name}` is not installed"))
                .hint(format!("`mirabelle install {name}` may help"))
        })?;
        let what = || format!("cannot start `{name}`");
        // Made when the release was staged. Read access is enough to share it, so pupils can.
        let path = layout.run_lock(package, &installed.id);
        let lock = match fs::File::open(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            opened => opened.or_fail(what)?,
        };
        share(&lock).or_fail(what)?;
        let tree = layout.release(package, &installed.id);
        // The sweeper takes the lock alone before it removes a tree, and removes the lock's file with it: holding the
        // file that is still there means the tree stays.
        if !path.exists() || !tree.exists() {
            continue;
        }

        let tree = tree.display().to_string();
        let filled = |text: &String| text.replace(RELEASE_PLACEHOLDER, &tree);
        let mut words = launcher.command.iter().map(filled);
        let program = words.next().ok_or_else(|| Failure::no(format!("`{name}` starts nothing")))?;
        let mut command = Command::new(program);
        command.args(words).args(arguments);
        command.envs(launcher.environment.iter().map(|(key, value)| (key, filled(value))));
        platform::start_holding(&lock, command).or_fail(what)?;
    }
    Err(Failure::no(format!("cannot start `{name}`: it is being replaced")).hint("try again"))
}

/// Shares `lock`, unless somebody keeps it.
fn share(lock: &fs::File) -> io::Result<()> {
    for _ in 0..LOCK_WAITS {
        match lock.file().try_lock_shared() {
            Err(std::fs::TryLockError::WouldBlock) => std::thread::sleep(LOCK_WAIT),
            Err(std::fs::TryLockError::Error(error)) => return Err(error),
            Ok(()) => return Ok(()),
        }
    }
    tracing::warn!("the release is started without its lock, which somebody keeps");
    Ok(())
}
