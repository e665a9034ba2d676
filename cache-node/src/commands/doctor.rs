//! `doctor`: the node looked over, with what needs a person and what to do about it.
//!
//! ```text
//! files of the node's directory ──▶ Examination (here) ──▶ findings (judge.rs) ──▶ text (text.rs), or JSON
//! ```
//!
//! It reads what the node wrote and changes nothing; so it works beside a running node, and on one that died. What the node says of
//! itself (alarms, plan, upstreams) is as old as the node's last minute. Exits with 1 when something needs a person.

mod judge;
mod text;

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use fs_err as fs;
use mirabelle_manifests::{Instant, SiteId};
use mirabelle_terminal::{Failure, OrFail};
use serde::Serialize;

use super::Context;
use crate::care::{Alarms, Raised, read_scrubbed};
use crate::disk::{Folder, Room};
use crate::link::{self, Kept};
use crate::mirror::{Task, read_health, read_plan};
use crate::running::{self, Running};
use crate::site::Site;

/// Objects lie in a folder for each first byte of their digests.
const OBJECT_FOLDERS: u32 = 256;
/// What belongs to the node, and must be its user's.
const OWN: [&str; 9] =
    ["node.toml", "lock", "trust", "objects", "incoming", "served", "state.json", "identity.key", "index"];

/// What was seen.
#[derive(Serialize)]
struct Examination {
    college: SiteId,
    at: Instant,
    directory: PathBuf,
    /// What needs a person first.
    findings: Vec<Finding>,
    running: Option<Running>,
    /// When an upstream was last understood.
    refreshed: Option<Instant>,
    /// What is served was signed then, or later.
    issued: Option<Instant>,
    room: Room,
    quota: Option<u64>,
    folders: Vec<Folder>,
    alarms: BTreeMap<String, Raised>,
    upstreams: Vec<Upstream>,
    to_come: Vec<Task>,
    link: Option<Kept>,
    scrub: Scrub,
    access: Vec<Access>,
}

/// Something that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Finding {
    about: About,
    /// True: it does not pass by itself.
    needs_a_person: bool,
    what: String,
    to_do: String,
}

/// What a finding is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum About {
    Service,
    Alarm,
    Room,
    Upstream,
    Plan,
    Link,
    Scrub,
    Access,
    Clock,
}

#[derive(Serialize)]
struct Upstream {
    upstream: String,
    /// Failures in a row.
    failures: u32,
    rests_until: Option<Instant>,
    last_success: Option<Instant>,
    last_failure: Option<String>,
}

#[derive(Serialize)]
struct Scrub {
    /// Folders of this pass that were read, and of how many.
    folders: u32,
    of_folders: u32,
    begun: Option<Instant>,
    /// When the last whole pass ended.
    finished: Option<Instant>,
    set_aside: u64,
    unreadable: u64,
}

/// A file that others may change or read, or that is not the node's user's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Access {
    /// Below the node's directory; empty for itself.
    path: String,
    fault: AccessFault,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum AccessFault {
    /// Others may write it.
    Writable,
    /// Others may read, or write, what is secret.
    NotSecret,
    /// It belongs to another user than the directory.
    AnotherOwner,
}

pub(super) fn run(context: &Context) -> Result<(), Failure> {
    let now = Instant::now();
    let mut seen = examine(context, now)?;
    seen.findings = judge::findings(&seen, now);
    let people = seen.findings.iter().filter(|finding| finding.needs_a_person).count();
    context.output.print(&seen, |seen| text::text(seen, now));
    match people {
        0 => Ok(()),
        1 => Err(Failure::no("1 thing needs a person")),
        more => Err(Failure::no(format!("{more} things need a person"))),
    }
}

fn examine(context: &Context, now: Instant) -> Result<Examination, Failure> {
    let site = &context.site;
    let config = context.config()?;
    let root = site.path("");
    let what = || format!("cannot look at `{}`", root.display());
    let disk = config.disk(&root);
    let mut health = read_health(&site.path("upstreams.json"));
    let upstreams = config.upstreams.iter().map(|upstream| {
        let upstream = upstream.to_string();
        let health = health.remove(&upstream).unwrap_or_default();
        Upstream {
            upstream,
            failures: health.failures,
            rests_until: health.rests_until,
            last_success: health.last_success,
            last_failure: health.last_failure,
        }
    });
    let upstreams = upstreams.collect();
    let scrubbed = read_scrubbed(&site.path("scrub.json"));
    Ok(Examination {
        at: now,
        directory: root.clone(),
        findings: Vec::new(),
        running: running::find(site)?.map(|found| found.running),
        refreshed: site.state().refreshed,
        issued: site.served().timestamp().and_then(|timestamp| timestamp.issued),
        room: disk.room().or_fail(what)?,
        quota: config.disk_quota,
        folders: disk.folders().or_fail(what)?,
        alarms: Alarms::open(&site.path("alarms.json")).raised(),
        upstreams,
        to_come: read_plan(&site.path("plan.json")),
        link: link::kept(site)?.filter(|kept| kept.is_of_a_running_node(now)),
        scrub: Scrub {
            folders: scrubbed.folder,
            of_folders: OBJECT_FOLDERS,
            begun: scrubbed.begun,
            finished: scrubbed.finished,
            set_aside: scrubbed.set_aside,
            unreadable: scrubbed.unreadable,
        },
        access: access(site).or_fail(what)?,
        college: config.college,
    })
}

fn access(site: &Site) -> io::Result<Vec<Access>> {
    let mut faults = Vec::new();
    let mut fault = |path: &str, fault| faults.push(Access { path: path.to_owned(), fault });
    let root = fs::metadata(site.path(""))?;
    if root.mode() & 0o022 != 0 {
        fault("", AccessFault::Writable);
    }
    for name in OWN {
        let metadata = match fs::metadata(site.path(name)) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        if metadata.uid() != root.uid() {
            fault(name, AccessFault::AnotherOwner);
        }
        if name == "identity.key" && metadata.mode() & 0o077 != 0 {
            fault(name, AccessFault::NotSecret);
        } else if metadata.mode() & 0o022 != 0 {
            fault(name, AccessFault::Writable);
        }
    }
    Ok(faults)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn says_what_others_may_change_or_read() {
        let directory = tempfile::tempdir().unwrap();
        let site = Site::new(directory.path());
        for (name, mode) in [("node.toml", 0o664), ("identity.key", 0o640), ("state.json", 0o644)] {
            fs::write(site.path(name), "").unwrap();
            fs::set_permissions(site.path(name), PermissionsExt::from_mode(mode)).unwrap();
        }
        fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o777)).unwrap();
        let found = access(&site).unwrap();
        let found: Vec<_> = found.iter().map(|access| (access.path.as_str(), access.fault)).collect();
        let expected = [
            ("", AccessFault::Writable),
            ("node.toml", AccessFault::Writable),
            ("identity.key", AccessFault::NotSecret),
        ];
        assert_eq!(found, expected);
    }
}
