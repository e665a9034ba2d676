//! A workstation that is a machine of its own: a package manager that needs no root, files that settings may change, a disk
//! that is full soon.
//!
//! ```text
//! <root>/machine/<package>          the version that the fake package manager has installed
//! <root>/machine/log                a line for each of its commands: `install tool 2.0`
//! <root>/system/etc/<package>.conf  what a setting sets
//! ```

use std::path::{Path, PathBuf};
use std::process::Command;

use fs_err as fs;
use mirabelle_tests::{App, Workstation};

/// A package manager: `manager VERB PACKAGE VERSION`, with its database beside the release's.
const MANAGER: &str = r#"#!/bin/sh
set -e
machine="${0%/releases/*}/machine"
mkdir -p "$machine"
echo "$1 $2 $3" >> "$machine/log"
case $1 in
    install) echo "$3" > "$machine/.$2"; mv "$machine/.$2" "$machine/$2" ;;
    remove) rm -f "$machine/$2" ;;
    detect) cat "$machine/$2" ;;
esac
"#;

/// `app`, with a native package of the fake manager. `more` are lines of its `[installer]`.
pub(crate) fn native(app: App, name: &str, more: &str) -> App {
    let version = app.version();
    let command = |verb: &str| format!(r#"["{{release}}/bin/manager", "{verb}", "{name}", "{version}"]"#);
    let (install, uninstall, detect) = (command("install"), command("remove"), command("detect"));
    app.file("bin/manager", MANAGER).recipe(&format!(
        "[installer]\ninstall = {install}\nuninstall = {uninstall}\n\
         detect = {{ command = {detect}, prints = \"{version}\" }}\n{more}"
    ))
}

/// `app`, which sets `/etc/NAME.conf` to `template`. `more` are lines of its `[[setting]]`.
pub(crate) fn sets(app: App, name: &str, template: &str, more: &str) -> App {
    app.file("share/conf", template)
        .recipe(&format!("[[setting]]\npath = \"/etc/{name}.conf\"\ntemplate = \"share/conf\"\n{more}"))
}

/// Gives a workstation files of a machine of its own.
pub(crate) fn own_system(workstation: &Workstation) {
    fs::create_dir_all(workstation.root().join("system/etc")).unwrap();
    workstation.configure(&format!("system-root = \"{}\"", workstation.root().join("system").display()));
}

/// The version that the fake manager says is installed.
pub(crate) fn on_machine(root: &Path, name: &str) -> Option<String> {
    Some(fs::read_to_string(root.join("machine").join(name)).ok()?.trim().to_owned())
}

/// How often the fake manager was called so.
pub(crate) fn calls(root: &Path, line: &str) -> usize {
    let log = fs::read_to_string(root.join("machine/log")).unwrap_or_default();
    log.lines().filter(|known| *known == line).count()
}

/// What stands in `/etc/NAME.conf`.
pub(crate) fn configured(root: &Path, name: &str) -> Option<String> {
    fs::read_to_string(root.join(format!("system/etc/{name}.conf"))).ok()
}

/// A file system of a few kilobytes, full soon; needs the right to mount one.
pub(crate) struct SmallDisk(PathBuf);

impl SmallDisk {
    pub(crate) fn mount(at: &Path, kilobytes: u64) -> Self {
        fs::create_dir_all(at).unwrap();
        let size = format!("size={kilobytes}k");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &size, "mirabelle-test"]).arg(at).status();
        assert!(mounted.is_ok_and(|status| status.success()), "this test mounts a tmpfs, which root may");
        Self(at.to_owned())
    }

    /// Makes it larger, or smaller.
    pub(crate) fn resize(&self, kilobytes: u64) {
        let size = format!("remount,size={kilobytes}k");
        let done = Command::new("mount").args(["-o", &size]).arg(&self.0).status();
        assert!(done.is_ok_and(|status| status.success()), "a tmpfs can be resized");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}
