//! Native packages: the machine's own package manager is brought to what a generation says, and back, and whatever comes
//! between, detection decides.
//!
//! A .deb is made here and installed with the system's dpkg under a name that nothing else has; without dpkg or without
//! root these tests say so and end (CI has both). What is about exit codes and restarts uses a manager of our own.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

use fs_err as fs;
use mirabelle_tests::{App, Workstation, World, run};

use crate::fake_machine::{calls, native, on_machine};
use crate::forge;

/// A name that no distribution has.
const NAME: &str = "mirabelle-test-hello";

/// dpkg lets one at a time work; what a test left is purged whatever became of it.
struct Dpkg {
    directory: PathBuf,
    _alone: MutexGuard<'static, ()>,
}

impl Dpkg {
    fn here(world: &World) -> Option<Self> {
        static ALONE: Mutex<()> = Mutex::new(());
        let there = Command::new("dpkg-deb").arg("--version").output().is_ok();
        if !there || !rustix::process::geteuid().is_root() {
            println!("skipped: this test installs a .deb, which takes dpkg and root");
            return None;
        }
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        purge();
        Some(Self { directory: world.path("debs"), _alone: alone })
    }

    /// Builds the .deb of a version. Its postinst leaves a line, and waits for as long as `hold` is there.
    fn deb(&self, version: &str) -> Vec<u8> {
        let tree = self.directory.join(version);
        fs::create_dir_all(tree.join("DEBIAN")).unwrap();
        fs::create_dir_all(tree.join("usr/share").join(NAME)).unwrap();
        fs::write(tree.join("usr/share").join(NAME).join("version"), version).unwrap();
        let control = format!(
            "Package: {NAME}\nVersion: {version}\nArchitecture: all\nMaintainer: Nobody <nobody@example.org>\n\
             Description: made by a test of Mirabelle\n"
        );
        fs::write(tree.join("DEBIAN/control"), control).unwrap();
        let (log, hold) = (self.log(), self.hold());
        let script = format!(
            "#!/bin/sh\n[ \"$1\" = configure ] || exit 0\necho {version} >> '{}'\n\
             while [ -e '{}' ]; do sleep 0.05; done\n",
            log.display(),
            hold.display()
        );
        let postinst = tree.join("DEBIAN/postinst");
        fs::write(&postinst, script).unwrap();
        fs::set_permissions(&postinst, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let deb = self.directory.join(format!("{version}.deb"));
        run(Command::new("dpkg-deb").args(["--root-owner-group", "-Znone", "--build"]).arg(&tree).arg(&deb))
            .succeeds();
        fs::read(deb).unwrap()
    }

    fn app(&self, number: u64) -> App {
        let version = format!("{number}.0");
        App::new("hello", number).file("hello.deb", self.deb(&version)).recipe(&format!(
            "[installer]\ninstall = [\"dpkg\", \"--install\", \"{{release}}/hello.deb\"]\n\
             uninstall = [\"dpkg\", \"--purge\", \"{NAME}\"]\n\
             detect = {{ command = [\"dpkg-query\", \"--show\", \
             \"--showformat=${{db:Status-Status}} ${{Version}}\", \"{NAME}\"], prints = \"installed {version}\" }}\n"
        ))
    }

    /// A line for each time that a postinst was run.
    fn log(&self) -> PathBuf {
        self.directory.join("log")
    }

    fn hold(&self) -> PathBuf {
        self.directory.join("hold")
    }

    fn installs(&self) -> Vec<String> {
        fs::read_to_string(self.log()).unwrap_or_default().lines().map(str::to_owned).collect()
    }
}

impl Drop for Dpkg {
    fn drop(&mut self) {
        let _ = fs::remove_file(self.hold());
        purge();
    }
}

fn purge() {
    let _ = Command::new("dpkg").args(["--purge", "--force-all", NAME]).output();
}

/// What the machine has, by asking it and by looking.
fn installed() -> Option<String> {
    let asked = Command::new("dpkg-query")
        .args(["--show", "--showformat=${db:Status-Status} ${Version}", NAME])
        .output()
        .unwrap();
    let said = String::from_utf8(asked.stdout).unwrap();
    let version = said.strip_prefix("installed ").map(str::to_owned);
    let seen = fs::read_to_string(Path::new("/usr/share").join(NAME).join("version")).ok();
    assert_eq!(version, seen, "dpkg says `{said}`");
    version
}

fn is(workstation: &Workstation, number: u64) {
    assert_eq!(installed(), Some(format!("{number}.0")));
    assert_eq!(workstation.launch("hello", &[]).succeeds().stdout, format!("hello {number}.0\n"));
    workstation.run(["verify"]).succeeds();
    assert!(!workstation.root().join("journal/transaction.json").exists());
}

fn release(world: &mut World, app: &App) {
    world.release(app);
    world.college("57001").sync();
}

#[test]
fn a_deb_comes_is_updated_goes_back_is_put_right_and_goes() {
    let mut world = World::new().college("57001").workstations(1).start();
    let Some(dpkg) = Dpkg::here(&world) else { return };
    release(&mut world, &dpkg.app(1));
    world.college("57001").workstation(0).run(["install", "hello"]).succeeds();
    is(world.college("57001").workstation(0), 1);
    release(&mut world, &dpkg.app(2));
    let workstation = world.college("57001").workstation(0);
    workstation.run(["update"]).succeeds();
    is(workstation, 2);
    workstation.run(["rollback"]).succeeds();
    is(workstation, 1);
    assert_eq!(dpkg.installs(), ["1.0", "2.0", "1.0"]);
    // Somebody took it away behind our back.
    purge();
    workstation.run(["verify"]).fails(1, "its native package is not on the machine");
    assert!(workstation.run(["repair"]).succeeds().stdout.contains("the native package of `hello`"));
    is(workstation, 1);
    workstation.run(["remove", "hello"]).succeeds();
    assert_eq!(installed(), None);
    workstation.run(["verify"]).succeeds();
}

#[test]
fn what_is_there_already_is_taken_over_without_a_command() {
    let mut world = World::new().college("57001").workstations(1).start();
    let Some(dpkg) = Dpkg::here(&world) else { return };
    for number in [1, 2] {
        let app = dpkg.app(number);
        world.submit(&app);
        world.approve(&app);
    }
    let offered = |sequence: u64| {
        serde_json::json!({ "_type": "deployment", "assignments": [{ "package": "hello", "mode": "available",
            "track": { "pinned": { "sequence": sequence, "version": format!("{sequence}.0") } } }] })
    };
    forge::deploy(&world, &offered(1));
    world.publish();
    world.college("57001").sync();
    let workstation = world.college("57001").workstation(0);
    workstation.run(["install", "hello", "--adopt"]).fails(1, "it is not on this machine");
    // Whoever wants it taken over did not ask for it to be installed.
    workstation.run(["update"]).succeeds();
    assert_eq!(installed(), None);
    // Another version is not the one that was approved.
    let other = dpkg.directory.join("2.0.deb");
    run(Command::new("dpkg").arg("--install").arg(other)).succeeds();
    workstation.run(["install", "hello", "--adopt"]).fails(1, "it is not on this machine");
    assert_eq!(dpkg.installs(), ["2.0"]);

    forge::deploy(&world, &offered(2));
    world.publish();
    world.college("57001").sync();
    let workstation = world.college("57001").workstation(0);
    workstation.run(["install", "hello", "--adopt"]).succeeds();
    is(workstation, 2);
    assert_eq!(dpkg.installs(), ["2.0"], "no installer was run");
    // From here on it is ours: it goes back to what was there before, which is nothing.
    workstation.run(["remove", "hello"]).succeeds();
    assert_eq!(installed(), None);
}

#[test]
fn killed_around_or_within_dpkg_it_is_detected_and_goes_on() {
    let mut world = World::new().college("57001").workstations(1).start();
    let Some(dpkg) = Dpkg::here(&world) else { return };
    release(&mut world, &dpkg.app(1));
    world.college("57001").workstation(0).run(["install", "hello"]).succeeds();
    let mut installs = vec!["1.0".to_owned()];
    for (number, point) in [(2, "installer-begun"), (3, "installer-ran")] {
        release(&mut world, &dpkg.app(number));
        let workstation = world.college("57001").workstation(0);
        let killed = run(workstation.command().arg("update").env("MIRABELLE_FAULT", format!("{point}:kill")));
        assert_eq!(killed.code, None);
        let ran = point == "installer-ran";
        assert_eq!(installed(), Some(format!("{}.0", number - u64::from(!ran))));
        workstation.run(["resume"]).succeeds();
        is(workstation, number);
        // It was not installed twice: what is there is found.
        installs.push(format!("{number}.0"));
        assert_eq!(dpkg.installs(), installs);
    }

    // While dpkg itself is at it: it outlives us, and is waited for.
    release(&mut world, &dpkg.app(4));
    let workstation = world.college("57001").workstation(0);
    fs::write(dpkg.hold(), "").unwrap();
    let mut update = workstation.command().arg("update").spawn().unwrap();
    while dpkg.installs().len() == installs.len() {
        assert!(update.try_wait().unwrap().is_none(), "it ended before dpkg was at it");
        std::thread::yield_now();
    }
    update.kill().unwrap();
    update.wait().unwrap();
    let mut resume = workstation.command().arg("resume").spawn().unwrap();
    assert!(resume.try_wait().unwrap().is_none());
    fs::remove_file(dpkg.hold()).unwrap();
    assert!(resume.wait().unwrap().success());
    is(workstation, 4);
    installs.push("4.0".to_owned());
    assert_eq!(dpkg.installs(), installs);
}

#[test]
fn interrupted_again_and_again_it_is_taken_back() {
    let mut world = World::new().college("57001").workstations(1).start();
    release(&mut world, &native(App::new("hello", 1), "hello", ""));
    world.college("57001").workstation(0).run(["install", "hello"]).succeeds();
    release(&mut world, &native(App::new("hello", 2), "hello", ""));
    let workstation = world.college("57001").workstation(0);
    for command in ["update", "resume", "resume"] {
        let killed = run(workstation.command().arg(command).env("MIRABELLE_FAULT", "installer-begun:kill"));
        assert_eq!(killed.code, None);
    }
    workstation.run(["resume"]).succeeds();
    assert_eq!(workstation.launch("hello", &[]).succeeds().stdout, "hello 1.0\n");
    assert_eq!(on_machine(workstation.root(), "hello").unwrap(), "1.0");
    let why = workstation.run(["why", "hello"]).succeeds().stdout;
    assert!(why.contains("was interrupted 3 times while it was being installed"), "{why}");
}

#[test]
fn a_restart_that_is_needed_is_noted_and_nothing_is_run_again() {
    let mut world = World::new().college("57001").workstations(1).start();
    // As an MSI with 3010: done, and seen only after a restart.
    let late = |number: u64| {
        let app = native(App::new("hello", number), "hello", "exit-codes = { \"194\" = \"restart\" }\n");
        let good = format!(r#"install = ["{{release}}/bin/manager", "install", "hello", "{number}.0"]"#);
        let late = format!(
            r#"install = ["sh", "-c", "{{release}}/bin/manager pending hello {number}.0; exit 194"]"#
        );
        app.replaced(&good, &late)
    };
    // Until then it does not work.
    let late = |number: u64| late(number).check("{release}/bin/manager detect hello; exit $?");
    release(&mut world, &late(1));
    let workstation = world.college("57001").workstation(0);
    let killed =
        run(workstation.command().args(["install", "hello"]).env("MIRABELLE_FAULT", "installed:kill"));
    assert_eq!(killed.code, None);
    let done = workstation.run(["--json", "update"]).succeeds().json();
    assert_eq!(done["restart"], serde_json::json!(["hello"]));
    assert_eq!(calls(workstation.root(), "pending hello 1.0"), 1);
    assert_eq!(workstation.launch("hello", &[]).succeeds().stdout, "hello 1.0\n");
    // Until then it is not missed.
    workstation.run(["verify"]).succeeds();
    let again = workstation.run(["update"]).succeeds();
    assert!(again.stdout.contains("restart the machine to finish `hello`"), "{}", again.stdout);
    // After the restart it is there, and nothing is noted any more.
    let state = workstation.root().join("state.json");
    let text = fs::read_to_string(&state).unwrap();
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    fs::write(&state, text.replace(boot.trim(), "the boot before")).unwrap();
    workstation.run(["verify"]).fails(1, "its native package is not on the machine");
    fs::write(workstation.root().join("machine/hello"), "1.0\n").unwrap();
    workstation.run(["verify"]).succeeds();
    assert_eq!(workstation.run(["--json", "update"]).succeeds().json()["restart"], serde_json::json!([]));
}
