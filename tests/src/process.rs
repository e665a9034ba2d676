//! Running the programs: to their end, or until they are killed.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

/// No command of a test takes longer, on any machine that can run the tests at all.
const LONGEST: Duration = Duration::from_mins(5);

/// What a command came to.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The exit code; `None` when it was killed.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// How long it took.
    pub took: Duration,
    /// What it and the children that it waited for spent on a processor, to a hundredth of a second.
    pub cpu: Duration,
    /// The most memory it had resident, in bytes.
    pub peak_rss: u64,
}

impl Outcome {
    /// Asserts that it succeeded.
    #[track_caller]
    pub fn succeeds(self) -> Self {
        assert_eq!(self.code, Some(0), "failed:\n{}{}", self.stdout, self.stderr);
        self
    }

    /// Asserts that it failed with this exit code, and that it said so in a sentence with `words` in it.
    #[track_caller]
    pub fn fails(self, code: i32, words: &str) -> Self {
        assert_eq!(self.code, Some(code), "ended otherwise:\n{}{}", self.stdout, self.stderr);
        assert!(self.stderr.contains(words), "expected `{words}` in:\n{}", self.stderr);
        assert!(self.stderr.starts_with("error: ") || self.stderr.contains("\nerror: "), "{}", self.stderr);
        assert!(!self.stderr.contains("panicked"), "{}", self.stderr);
        self
    }

    /// Standard output as JSON.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error} in:\n{}", self.stdout))
    }
}

/// Runs `command` to its end.
pub fn run(command: &mut Command) -> Outcome {
    run_within(command, LONGEST)
}

/// Runs `command` to its end, for at most `limit`.
pub fn run_within(command: &mut Command, limit: Duration) -> Outcome {
    let begun = Instant::now();
    let mut child = spawn(command);
    let stdout = reader(child.stdout.take().unwrap());
    let stderr = reader(child.stderr.take().unwrap());
    let mut peak_rss = 0;
    // It stays a zombie until its times are read: `NOWAIT`.
    let ended = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    while waitid(WaitId::Pid(Pid::from_child(&child)), ended).unwrap().is_none() {
        peak_rss = peak_rss.max(resident_peak(child.id()));
        if begun.elapsed() > limit {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("{command:?} did not end within {limit:?}");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    let took = begun.elapsed();
    let cpu = cpu_time(child.id());
    let status = child.wait().unwrap();
    Outcome {
        code: status.code(),
        stdout: stdout.join().unwrap(),
        stderr: stderr.join().unwrap(),
        took,
        cpu,
        peak_rss,
    }
}

/// Runs `command` and kills it (SIGKILL) after `life`; returns whether it was still alive then.
pub(crate) fn run_and_kill(command: &mut Command, life: Duration) -> bool {
    let mut child = spawn(command);
    let (stdout, stderr) = (reader(child.stdout.take().unwrap()), reader(child.stderr.take().unwrap()));
    std::thread::sleep(life);
    let alive = child.try_wait().unwrap().is_none();
    let _ = child.kill();
    child.wait().unwrap();
    let _ = (stdout.join(), stderr.join());
    alive
}

fn spawn(command: &mut Command) -> Child {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

fn reader(mut from: impl Read + Send + 'static) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut text = Vec::new();
        let _ = from.read_to_end(&mut text);
        String::from_utf8_lossy(&text).into_owned()
    })
}

/// `VmHWM` of a process: the kernel keeps the peak, so that looking now and then is enough.
fn resident_peak(pid: u32) -> u64 {
    let status =
        fs_err::read_to_string(Path::new("/proc").join(pid.to_string()).join("status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

/// User and system time of a process and of the children that it waited for (proc(5), `stat`, fields 14 to 17).
fn cpu_time(pid: u32) -> Duration {
    let stat =
        fs_err::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat")).unwrap_or_default();
    // The second field is the program's name in parentheses, and may hold anything.
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    let ticks =
        fields.split_ascii_whitespace().skip(11).take(4).filter_map(|field| field.parse::<u64>().ok());
    // USER_HZ is 100 on every Linux that Rust runs on.
    Duration::from_millis(ticks.sum::<u64>() * 10)
}

/// A server that runs until it is dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    said: serde_json::Value,
    address: String,
}

impl Running {
    /// Starts a server that reports `{"address": …}` on its standard output.
    pub fn start(command: &mut Command) -> Self {
        let log = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = log.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut text = String::new();
        let said = loop {
            let line = lines.next().unwrap_or_else(|| panic!("{command:?} ended without an address: {text}"));
            text.push_str(&line.unwrap());
            if let Ok(json) = serde_json::from_str::<serde_json::Value>(&text) {
                break json;
            }
        };
        std::thread::spawn(move || lines.for_each(drop));
        let address = said["address"].as_str().unwrap().to_owned();
        Self { child, said, address }
    }

    /// All that it reported.
    pub fn said(&self) -> &serde_json::Value {
        &self.said
    }

    /// Where it listens: `http://127.0.0.1:40123/`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The most memory it has had resident, in bytes.
    pub fn peak_rss(&self) -> u64 {
        resident_peak(self.child.id())
    }

    /// Kills it (SIGKILL), as a power cut would.
    pub fn kill(mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Asks it to stop (SIGTERM) and waits until it has.
    pub fn stop(mut self) -> ExitStatus {
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        self.child.wait().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
