//! Programs with another clock: libfaketime, loaded into them.

use std::path::Path;
use std::process::Command;

use fs_err as fs;

/// For programs with threads; the dynamic linker knows where libraries are.
const LIBRARY: &str = "/usr/$LIB/faketime/libfaketimeMT.so.1";
const SHARED: &str = "/dev/shm";
/// What the library keeps there, by the number of its process.
const KEPT: [&str; 2] = ["faketime_shm_", "sem.faketime_sem_"];

/// A program with another clock: `+8d`, or a date. It is the program itself, that can be killed; `faketime` would stand before it.
pub fn with_clock(clock: &str, command: &Command) -> Command {
    forget_the_dead();
    let mut fake = Command::new(command.get_program());
    fake.args(command.get_args()).env("LD_PRELOAD", LIBRARY).env("FAKETIME", clock);
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => fake.env(name, value),
            None => fake.env_remove(name),
        };
    }
    if let Some(directory) = command.get_current_dir() {
        fake.current_dir(directory);
    }
    fake
}

/// A process that is killed leaves its part of the shared memory, and the next one of its number would not start.
fn forget_the_dead() {
    for entry in fs::read_dir(SHARED).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let process = name.to_str().and_then(|name| KEPT.iter().find_map(|kept| name.strip_prefix(kept)));
        if process.is_some_and(|process| !Path::new("/proc").join(process).exists()) {
            let _ = fs::remove_file(entry.path());
        }
    }
}
