//! Commands of releases: run without a terminal, within a time, what they say kept in a log.

use std::io::{self, Read, Seek};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use fs_err as fs;
use mirabelle_content::durable;
use mirabelle_manifests::RELEASE_PLACEHOLDER;
use rustix::process::{Pid, Signal, kill_process_group};

use crate::platform;

/// The most of a command's output that is kept and compared.
const MAX_OUTPUT_BYTES: u64 = 1 << 20;
/// Of a long log, where its last line is looked for.
const LAST_BYTES: u64 = 4 << 10;
const MAX_NOTE_BYTES: u64 = 256;
/// How often one looks whether a command that outlived us has ended.
const GLANCE: Duration = Duration::from_millis(50);

/// What a command came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// With this exit code.
    With(i32),
    /// By a signal.
    Killed,
    /// Not within its time; it and all that it started were killed.
    TooLate,
    /// Not begun: its program is not there, or is none.
    NotStarted,
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::With(code) => write!(f, "it ended with {code}"),
            Self::Killed => f.write_str("it was killed"),
            Self::TooLate => f.write_str("it did not end in its time"),
            Self::NotStarted => f.write_str("its program could not be started"),
        }
    }
}

/// `command` with `{release}` filled in, ready to start: no input, no terminal, in the release's directory, and alone in its process
/// group, so that all of it can be ended.
pub(crate) fn command(words: &[String], tree: &Path) -> io::Result<Command> {
    let place = tree.display().to_string();
    let mut words = words.iter().map(|word| word.replace(RELEASE_PLACEHOLDER, &place));
    let program = words.next().ok_or_else(|| io::Error::other("a command has no program"))?;
    let mut command = Command::new(program);
    command.args(words).stdin(Stdio::null()).process_group(0);
    // Debian's packages ask nothing, and nobody's settings decide how a machine is installed.
    command.env("DEBIAN_FRONTEND", "noninteractive").env("LC_ALL", "C.UTF-8");
    if tree.is_dir() {
        command.current_dir(tree);
    }
    Ok(command)
}

/// Runs `command` for at most `limit`; its output goes to the file `log`, in place of what was there.
pub(crate) fn run(command: Command, limit: Duration, log: &Path) -> io::Result<Ended> {
    run_into(command, limit, &new(log)?, |_| Ok(()))
}

/// As [`run`], and leaves in `note` who is at it meanwhile, since a command outlives whoever started it and is killed.
pub(crate) fn run_noted(command: Command, limit: Duration, log: &Path, note: &Path) -> io::Result<Ended> {
    let output = new(log)?;
    let ended = run_into(command, limit, &output, |pid| match platform::started(pid) {
        Some(started) => durable::write_atomically(note, format!("{pid} {started}").as_bytes()),
        None => Ok(()),
    });
    durable::remove_file(note)?;
    ended
}

/// Waits for the command of which `note` says that it is at it, if it still is; ends it after `limit`.
pub(crate) fn wait_for_survivor(note: &Path, limit: Duration) -> io::Result<()> {
    let Some(bytes) = durable::read_if_present(note, MAX_NOTE_BYTES)? else { return Ok(()) };
    let noted = String::from_utf8_lossy(&bytes).into_owned();
    let noted = noted.split_once(' ').and_then(|(pid, started)| Some((pid.parse().ok()?, started)));
    if let Some((pid, started)) = noted {
        // Numbers of processes are used again: the time at which it started tells whether it is the same.
        let lives = || platform::started(pid).is_some_and(|now| now == started);
        let end = Instant::now() + limit;
        while lives() && Instant::now() < end {
            std::thread::sleep(GLANCE);
        }
        if lives()
            && let Some(group) = i32::try_from(pid).ok().and_then(Pid::from_raw)
        {
            kill_process_group(group, Signal::KILL)?;
        }
    }
    durable::remove_file(note)
}

fn new(log: &Path) -> io::Result<std::fs::File> {
    if let Some(directory) = log.parent() {
        fs::create_dir_all(directory)?;
    }
    Ok(fs::File::create(log)?.into_file())
}

/// As [`run`], and returns what it said; writes no log, so that whoever only looks can ask, and on a full disk.
pub(crate) fn ask(command: Command, limit: Duration) -> io::Result<(Ended, String)> {
    let mut output = platform::scratch()?;
    let ended = run_into(command, limit, &output, |_| Ok(()))?;
    output.rewind()?;
    let mut said = Vec::new();
    output.take(MAX_OUTPUT_BYTES).read_to_end(&mut said)?;
    Ok((ended, String::from_utf8_lossy(&said).into_owned()))
}

fn run_into(
    mut command: Command,
    limit: Duration,
    output: &std::fs::File,
    begun: impl FnOnce(u32) -> io::Result<()>,
) -> io::Result<Ended> {
    command.stdout(output.try_clone()?).stderr(output.try_clone()?);
    let mut child = match command.spawn() {
        Err(error) if is_no_program(&error) => return Ok(Ended::NotStarted),
        spawned => spawned?,
    };
    let group = Pid::from_child(&child);
    // A note that cannot be written is no reason to leave alone what has begun.
    if let Err(error) = begun(child.id()) {
        tracing::warn!(%error, "it is not noted which command is being run");
    }
    let (ended, waiting) = mpsc::channel();
    std::thread::scope(|threads| {
        threads.spawn(move || ended.send(child.wait()));
        if let Ok(status) = waiting.recv_timeout(limit) {
            let status = status?;
            Ok(status.code().map_or(Ended::Killed, Ended::With))
        } else {
            // Whatever has ended meanwhile needs no signal.
            let _ = kill_process_group(group, Signal::KILL);
            Ok(Ended::TooLate)
        }
    })
}

/// True when what was to be started can never be: what is there is no program, or its arguments are none. That is about the
/// command; whatever else keeps a process from starting is about the machine.
fn is_no_program(error: &io::Error) -> bool {
    use rustix::io::Errno;
    // `InvalidInput` is also what is said of a NUL among the words, which no system call has seen.
    let invalid = error.kind() == io::ErrorKind::InvalidInput;
    let no_program = [
        Errno::NOENT,
        Errno::ACCESS,
        Errno::PERM,
        Errno::NOEXEC,
        Errno::LIBBAD,
        Errno::NOTDIR,
        Errno::ISDIR,
        Errno::LOOP,
        Errno::NAMETOOLONG,
        Errno::TOOBIG,
    ];
    invalid || Errno::from_io_error(error).is_some_and(|error| no_program.contains(&error))
}

/// The last line that a command said, for people, however much it said before.
pub(crate) fn last_words(log: &Path) -> String {
    let read_end = || -> io::Result<Vec<u8>> {
        let mut file = fs::File::open(log)?;
        let length = file.metadata()?.len();
        file.seek(io::SeekFrom::Start(length.saturating_sub(LAST_BYTES)))?;
        let mut end = Vec::new();
        file.take(LAST_BYTES).read_to_end(&mut end)?;
        Ok(end)
    };
    let said = read_end().unwrap_or_default();
    let said = String::from_utf8_lossy(&said);
    let last = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
    last.chars().filter(|c| !c.is_control()).take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        command(&["sh".into(), "-c".into(), script.into()], Path::new("/nowhere")).unwrap()
    }

    #[test]
    fn keeps_what_is_said_and_ends_what_takes_too_long() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("logs/x.log");
        let long = Duration::from_secs(30);
        let talks = || shell("echo one; echo two >&2; exit 3");
        assert_eq!(ask(talks(), long).unwrap(), (Ended::With(3), "one\ntwo\n".to_owned()));
        let much = shell("yes talk | head -c 3000000; echo; echo the end");
        assert_eq!(run(much, long, &log).unwrap(), Ended::With(0));
        assert_eq!(last_words(&log), "the end");
        assert_eq!(run(talks(), long, &log).unwrap(), Ended::With(3));
        assert_eq!(last_words(&log), "two");
        let begun = std::time::Instant::now();
        let ended = run(shell("sleep 60 & sleep 60"), Duration::from_millis(50), &log).unwrap();
        assert_eq!(ended, Ended::TooLate);
        assert!(begun.elapsed() < Duration::from_secs(20), "what it started is ended too");
        assert_eq!(run(shell("kill -9 $$"), long, &log).unwrap(), Ended::Killed);
        let gone = command(&["/nowhere/at-all".into()], Path::new("/nowhere")).unwrap();
        assert_eq!(run(gone, long, &log).unwrap(), Ended::NotStarted);
    }

    #[test]
    fn what_is_no_program_is_not_started() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        for (name, content) in [("empty", ""), ("text", "no program\n"), ("lost", "#!/nowhere/sh\n")] {
            fs::write(at(name), content).unwrap();
            fs::set_permissions(at(name), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        }
        fs::write(at("plain"), "#!/bin/sh\n").unwrap();
        fs::create_dir(at("directory")).unwrap();
        fs::os::unix::fs::symlink("loop", at("loop")).unwrap();
        let names = ["empty", "text", "lost", "plain", "directory", "loop", "text/below", "nothing"];
        let words = names.map(|name| vec![at(name).display().to_string()]);
        let long = vec!["true".to_owned(), "x".repeat(8 << 20)];
        let odd = vec!["true".to_owned(), "\0".to_owned()];
        for words in words.into_iter().chain([long, odd]) {
            let command = command(&words, Path::new("/nowhere")).unwrap();
            let (ended, _) = ask(command, Duration::from_secs(30)).unwrap();
            assert_eq!(ended, Ended::NotStarted, "{}", words[0]);
        }
    }

    #[test]
    fn fills_in_where_the_release_is() {
        let words = ["sh".to_owned(), "-c".to_owned(), "echo {release}/x".to_owned()];
        let directory = tempfile::tempdir().unwrap();
        let filled = command(&words, directory.path()).unwrap();
        let (_, said) = ask(filled, Duration::from_secs(9)).unwrap();
        assert_eq!(said, format!("{}/x\n", directory.path().display()));
    }
}
