//! What a release needs of a workstation and does to it, beside the files it brings.
//!
//! Every member may be missing from a manifest, and is then left out of its bytes: releases of before there were any
//! stay what they were.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{Entry, Launcher, Node, ReleaseError};
use crate::EntryPath;
use crate::names::{MachineUser, PackageName, SystemPath};

/// The longest that a command of a release may take: an office suite's setup on the slowest disk in use.
const MAX_SECONDS: u32 = 2 * 3600;
/// The longest that a health check may take: a person waits for it before login.
const MAX_CHECK_SECONDS: u32 = 300;

/// What a release needs and does, beside its files.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Behaviour {
    /// How one knows that it works, once it is installed. All must pass, or the workstation goes back.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<Check>,
    /// Packages that cannot be installed beside it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conflicts: Vec<Relation>,
    /// How its native package is installed: present exactly for releases of kind `installer`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub installer: Option<Installer>,
    /// Packages that must be installed beside it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub requires: Vec<Relation>,
    /// Files of the machine that it sets and keeps.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub settings: Vec<Setting>,
}

/// Some releases of another package, by their sequences.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Relation {
    /// The lowest sequence that is meant; any, if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_least: Option<u64>,
    /// The highest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_most: Option<u64>,
    /// The package.
    pub package: PackageName,
}

impl Relation {
    /// True when release `sequence` of the package is meant.
    pub fn covers(&self, sequence: u64) -> bool {
        self.at_least.is_none_or(|least| least <= sequence)
            && self.at_most.is_none_or(|most| sequence <= most)
    }
}

impl fmt::Display for Relation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.at_least, self.at_most) {
            (None, None) => write!(f, "{}", self.package),
            (Some(least), None) => write!(f, "{} from release {least}", self.package),
            (None, Some(most)) => write!(f, "{} up to release {most}", self.package),
            (Some(least), Some(most)) => write!(f, "{} of releases {least} to {most}", self.package),
        }
    }
}

/// One way to know that a release works.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Check {
    /// A command ends with 0.
    Command {
        /// Program and arguments; `{release}` stands for the directory of the release's files.
        command: Vec<String>,
        /// How long it may take.
        #[serde(default = "check_seconds")]
        seconds: u32,
    },
    /// A file of the machine is there.
    File {
        /// The file.
        path: SystemPath,
    },
    /// A launcher of the release, started with these arguments, ends with 0 in time.
    Launcher {
        /// Arguments that make it answer and end: `--version`.
        arguments: Vec<String>,
        /// The launcher.
        launcher: PackageName,
        /// How long it may take.
        #[serde(default = "check_seconds")]
        seconds: u32,
    },
}

fn check_seconds() -> u32 {
    30
}

/// How a native package (a .deb, an MSI, a vendor's setup) gets onto a machine and off it. Commands are programs with
/// arguments, never a shell's line; `{release}` stands for the directory of the release's files, where the native package is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Installer {
    /// Says whether exactly this release is on the machine.
    pub detect: Detection,
    /// What exit codes mean beside 0, which is done.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub exit_codes: BTreeMap<ExitCode, ExitMeaning>,
    /// Installs it on a machine that has it in no version, or in any if there is no `upgrade`.
    pub install: Vec<String>,
    /// How long each command may take.
    #[serde(default = "installer_seconds")]
    pub seconds: u32,
    /// Takes it off the machine.
    pub uninstall: Vec<String>,
    /// Goes from another version to this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upgrade: Option<Vec<String>>,
}

fn installer_seconds() -> u32 {
    1800
}

/// A command that tells whether a release is on the machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Detection {
    /// Program and arguments.
    pub command: Vec<String>,
    /// What its output must be, without the white space around it; any output counts if this is missing. It must end with 0
    /// either way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prints: Option<String>,
}

/// A process's exit code, as JSON writes the keys of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ExitCode(pub i32);

impl FromStr for ExitCode {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

impl fmt::Display for ExitCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for ExitCode {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ExitCode {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// What an exit code of an installer means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ExitMeaning {
    /// Done.
    Done,
    /// Done, once the machine was restarted (3010 of MSI).
    Restart,
    /// Busy now; another attempt later may succeed (1618 of MSI).
    Later,
}

/// A file of the machine that a release sets and keeps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Setting {
    /// The group that it belongs to.
    #[serde(default = "root_user", skip_serializing_if = "is_root")]
    pub group: MachineUser,
    /// Its permissions.
    #[serde(default)]
    pub mode: Permissions,
    /// The user that it belongs to.
    #[serde(default = "root_user", skip_serializing_if = "is_root")]
    pub owner: MachineUser,
    /// Where it stands on the machine.
    pub path: SystemPath,
    /// The file of the release that it is made from (`template.rs`).
    pub template: EntryPath,
}

fn root_user() -> MachineUser {
    MachineUser::root()
}

fn is_root(user: &MachineUser) -> bool {
    *user == MachineUser::root()
}

/// Permissions of a file of the machine: no set-uid, never writable by everyone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Permissions(u32);

impl Permissions {
    /// The Unix permission bits.
    pub fn bits(self) -> u32 {
        self.0
    }

    /// As a manifest writes them.
    pub fn as_str(self) -> String {
        format!("{:04o}", self.0)
    }
}

impl Default for Permissions {
    fn default() -> Self {
        Self(0o644)
    }
}

/// Why a text is no permissions of a setting.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` are no permissions: four octal digits such as 0644, without set-uid, not writable by everyone"
)]
pub struct PermissionsError(String);

impl FromStr for Permissions {
    type Err = PermissionsError;

    fn from_str(text: &str) -> Result<Self, PermissionsError> {
        let refused = || PermissionsError(text.chars().take(16).collect());
        let bits = u32::from_str_radix(text, 8).map_err(|_| refused())?;
        if text.len() != 4
            || !text.bytes().all(|digit| digit.is_ascii_digit())
            || bits > 0o777
            || bits & 0o002 != 0
            || bits & 0o400 == 0
        {
            return Err(refused());
        }
        Ok(Self(bits))
    }
}

impl fmt::Display for Permissions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.as_str())
    }
}

impl Serialize for Permissions {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Permissions {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl Behaviour {
    /// Refuses what no workstation could follow: relations with itself, commands that are empty or have no end, templates that
    /// the release does not hold.
    pub(super) fn check(
        &self,
        name: &PackageName,
        entries: &[Entry],
        launchers: &[Launcher],
    ) -> Result<(), ReleaseError> {
        for relation in self.requires.iter().chain(&self.conflicts) {
            if relation.package == *name || relation.at_least > relation.at_most.or(Some(u64::MAX)) {
                return Err(ReleaseError::Relation(relation.to_string()));
            }
        }
        for check in &self.checks {
            let sound = match check {
                Check::Command { command, seconds } => {
                    runnable(command) && (1..=MAX_CHECK_SECONDS).contains(seconds)
                }
                Check::File { .. } => true,
                Check::Launcher { launcher, seconds, .. } => {
                    launchers.iter().any(|known| known.name == *launcher)
                        && (1..=MAX_CHECK_SECONDS).contains(seconds)
                }
            };
            if !sound {
                return Err(ReleaseError::UnsoundCheck);
            }
        }
        if let Some(installer) = &self.installer {
            let commands = [&installer.detect.command, &installer.install, &installer.uninstall];
            if !commands.into_iter().chain(&installer.upgrade).all(|command| runnable(command))
                || !(1..=MAX_SECONDS).contains(&installer.seconds)
            {
                return Err(ReleaseError::UnsoundInstaller);
            }
        }
        let mut paths = BTreeSet::new();
        for setting in &self.settings {
            let held =
                |entry: &Entry| entry.path == setting.template && matches!(entry.node, Node::File { .. });
            if !entries.iter().any(held) {
                return Err(ReleaseError::SettingTemplate(setting.template.clone()));
            }
            if !paths.insert(&setting.path) {
                return Err(ReleaseError::SettingTwice(setting.path.clone()));
            }
        }
        Ok(())
    }
}

/// True for a command whose program is a name on the PATH, an absolute path, or a file of the release, and that holds no
/// control character.
fn runnable(command: &[String]) -> bool {
    command.first().is_some_and(|program| !program.is_empty() && !program.starts_with('-'))
        && command.iter().all(|word| !word.chars().any(char::is_control))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permissions_are_plain_and_safe() {
        for bad in ["644", "4755", "0777", "0666", "0044", "abcd", "", "00644", "+644"] {
            assert!(bad.parse::<Permissions>().is_err(), "{bad}");
        }
        for good in ["0644", "0600", "0640", "0755", "0400"] {
            assert_eq!(good.parse::<Permissions>().unwrap().to_string(), good);
        }
    }

    #[test]
    fn a_relation_covers_its_range() {
        let relation =
            |least, most| Relation { package: "jre".parse().unwrap(), at_least: least, at_most: most };
        assert!(relation(None, None).covers(0));
        assert!(relation(Some(3), None).covers(3) && !relation(Some(3), None).covers(2));
        assert!(relation(Some(3), Some(4)).covers(4) && !relation(Some(3), Some(4)).covers(5));
    }
}
