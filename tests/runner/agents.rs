//! Agents as real processes, with clocks of their own, and a power switch that writes down what it is told.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use fs_err as fs;
use mirabelle_tests::{Workstation, World, with_clock};
use serde_json::Value;

/// No agent is waited for longer than this, on any machine that can run the tests at all.
const LONGEST: Duration = Duration::from_mins(3);

/// An agent that runs until it is dropped.
pub(crate) struct Agent {
    child: Child,
    root: PathBuf,
}

impl Agent {
    /// Starts the agent of a workstation, which asks its node every second; by its clock it is `clock` (`HH:MM:SS` of
    /// tomorrow, UTC), or what it is.
    pub(crate) fn start(workstation: &Workstation, clock: Option<&str>) -> Self {
        Self::start_program(workstation.command().get_program().as_ref(), workstation.root(), clock)
    }

    /// The same with another program, as the service manager would start it.
    pub(crate) fn start_program(program: &Path, root: &Path, clock: Option<&str>) -> Self {
        let mut command = Command::new(program);
        if let Some(clock) = clock {
            command = with_clock(&offset(clock), &command);
        }
        let log = fs::File::create(root.join("agent.log")).unwrap().into_file();
        command.arg("--root").arg(root).arg("agent").env("MIRABELLE_LOG", "info").env("NO_COLOR", "1");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        Self { child: command.spawn().unwrap(), root: root.to_owned() }
    }

    /// What it said so far.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.root.join("agent.log")).unwrap()
    }

    /// Waits until `seen`, looking now and then: agents have nothing else that a test could wait for.
    #[track_caller]
    pub(crate) fn until(&self, what: &str, seen: impl FnMut() -> bool) {
        assert!(eventually(LONGEST, seen), "{what} never came:\n{}", self.log());
    }

    /// True while it runs.
    pub(crate) fn is_alive(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Its process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Asks it to stop and waits until it has.
    pub(crate) fn stop(mut self) {
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        self.child.wait().unwrap();
    }

    /// Ends it as a power cut would.
    pub(crate) fn kill(mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Looks every few milliseconds until `seen`, for at most `limit`.
pub(crate) fn eventually(limit: Duration, mut seen: impl FnMut() -> bool) -> bool {
    let begun = Instant::now();
    while begun.elapsed() < limit {
        if seen() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    seen()
}

/// How far `clock` of tomorrow is from now, for faketime.
fn offset(clock: &str) -> String {
    let now = jiff::Timestamp::now();
    let tomorrow = (now + jiff::SignedDuration::from_hours(24)).to_string();
    let wanted: jiff::Timestamp = format!("{}T{clock}Z", &tomorrow[..10]).parse().unwrap();
    format!("+{}s", (wanted - now).as_secs())
}

/// A power switch that writes down what it is told.
pub(crate) struct Power {
    directory: PathBuf,
}

impl Power {
    /// Connects a workstation with a switch of its own; nobody has touched the machine for `idle` seconds.
    pub(crate) fn connect(workstation: &Workstation, idle: u64) -> Self {
        let directory = workstation.root().join("power");
        fs::create_dir_all(&directory).unwrap();
        let script = |name: &str, text: &str| {
            let path = directory.join(name);
            fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
            fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
            path.display().to_string()
        };
        let place = directory.display();
        let off = script("off", &format!("date +%H:%M:%S > {place}/went-off"));
        let hold = script(
            "hold",
            &format!(
                "echo held >> {place}/holds; trap 'echo released >> {place}/holds; exit' TERM; sleep 600 & wait"
            ),
        );
        let idle = script("idle", &format!("echo {idle}"));
        configure(
            workstation,
            &format!(
                "[agent]\nrefresh-every = \"1 s\"\npower-off = ['{off}']\ninhibit = ['{hold}']\nidle = ['{idle}']\n"
            ),
        );
        Self { directory }
    }

    /// When the machine was told to go off, by its clock.
    pub(crate) fn went_off(&self) -> Option<String> {
        let told = fs::read_to_string(self.directory.join("went-off")).ok()?;
        Some(told.trim().to_owned()).filter(|told| !told.is_empty())
    }

    /// How shutdowns were held off, in order.
    pub(crate) fn holds(&self) -> Vec<String> {
        let holds = fs::read_to_string(self.directory.join("holds")).unwrap_or_default();
        holds.lines().map(str::to_owned).collect()
    }
}

/// Adds to a workstation's configuration.
pub(crate) fn configure(workstation: &Workstation, toml: &str) {
    let path = workstation.root().join("client.toml");
    let known = fs::read_to_string(&path).unwrap();
    fs::write(&path, format!("{known}\n{toml}")).unwrap();
}

/// Signs the deployment with `toml` added at its end.
pub(crate) fn deploy_also(world: &World, toml: &str) {
    let known = world.publisher(["deploy", "--show"]).succeeds().stdout;
    let path = world.path("policy.toml");
    fs::write(&path, format!("{known}\n{toml}\n")).unwrap();
    let arguments = ["deploy", "--policy", path.to_str().unwrap(), "--key", "keys/operator-1.key"];
    world.publisher(arguments).succeeds();
}

/// What is installed of a package.
pub(crate) fn sequence(workstation: &Workstation, package: &str) -> Option<u64> {
    workstation.run(["--json", "list"]).succeeds().json()[package]["sequence"].as_u64()
}

/// A file that the agent keeps.
pub(crate) fn kept(workstation: &Workstation, name: &str) -> Value {
    let text = fs::read(workstation.root().join(name)).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or(Value::Null)
}
