//! What was seen, judged: what needs a person, and what passes by itself and is good to know.
//!
//! What an alarm says already is not said a second time.

use super::{About, Access, AccessFault, Examination, Finding};
use crate::disk::Stage;
use crate::mirror::Step;

/// A pass over all objects takes a week unless configured otherwise; one that is this old is not getting on.
const SCRUB_DAYS: i64 = 30;
/// What must come and failed so often does not come by itself.
const ATTEMPTS: u32 = 3;

/// The findings at `now`, those that need a person first.
pub(super) fn findings(seen: &Examination, now: mirabelle_manifests::Instant) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut find = |about, needs_a_person, what: String, to_do: &str| {
        findings.push(Finding { about, needs_a_person, what, to_do: to_do.to_owned() });
    };
    let alarm = |name: &str| seen.alarms.contains_key(name);

    if seen.running.is_none() {
        let to_do = "`systemctl start mirabelle-node`; `journalctl -u mirabelle-node` says why it ended";
        find(About::Service, true, "the node does not run".to_owned(), to_do);
    }
    for raised in seen.alarms.values() {
        find(About::Alarm, true, raised.what.clone(), &raised.to_do);
    }
    let at_least = seen.refreshed.max(seen.issued);
    if let Some(at_least) = at_least.filter(|at_least| now < *at_least && !alarm("clock")) {
        let what = format!("the clock says {now:.0}, and it is {at_least:.0} or later");
        find(About::Clock, true, what, "set the clock, or see why it is not set by the network");
    }
    let file = |path: &str| seen.directory.join(path).display().to_string();
    for Access { path, fault } in &seen.access {
        let path = file(path);
        let (what, to_do) = match fault {
            AccessFault::Writable => ("may be changed by others", format!("chmod go-w {path}")),
            AccessFault::NotSecret => (
                "may be read or changed by others",
                format!("chmod 600 {path}; who has read it can sign as this node"),
            ),
            AccessFault::AnotherOwner => (
                "belongs to another user than the directory",
                "chown it, and run commands as the node's user: `runuser -u mirabelle-node -- mirabelle-node …`"
                    .to_owned(),
            ),
        };
        find(About::Access, true, format!("{path} {what}"), &to_do);
    }

    if seen.room.stage >= Stage::Cramped && !alarm("little-room") && !alarm("no-room") {
        let to_do = "below is what takes the space; raise the quota, or have less deployed here";
        find(About::Room, true, "there is little room left".to_owned(), to_do);
    } else if seen.room.stage == Stage::Tight {
        let to_do = "nothing yet: what is only worth having is not fetched";
        find(About::Room, false, "room gets scarce".to_owned(), to_do);
    }

    let failing = seen.upstreams.iter().filter(|upstream| upstream.failures > 0);
    let all = failing.clone().count() == seen.upstreams.len();
    for upstream in failing {
        let what = match upstream.failures {
            1 => format!("{} failed once", upstream.upstream),
            more => format!("{} failed {more} times in a row", upstream.upstream),
        };
        // One failure is a link that was down for a moment.
        let needs = all && upstream.failures >= ATTEMPTS && !alarm("no-upstream");
        find(About::Upstream, needs, what, "below is what it said; see whether the link is up");
    }
    for task in &seen.to_come {
        let name = format!("{} {}", task.package, task.version);
        match task.state {
            Step::NoRoom if task.must && !alarm("no-room") => {
                find(
                    About::Plan,
                    true,
                    format!("{name} has no room"),
                    "make room, or have less deployed here",
                );
            }
            Step::Failed if task.must => {
                let what = format!("{name} did not come in {} attempts", task.attempts);
                let to_do = "below is why; nothing newer is served before it is here";
                find(About::Plan, task.attempts >= ATTEMPTS, what, to_do);
            }
            Step::Waiting | Step::UnderWay | Step::Failed | Step::NoRoom => {}
        }
    }

    if let Some(kept) = &seen.link {
        if kept.refused.is_some() {
            let what = "what `node.toml` says now of the link is not in force".to_owned();
            find(About::Link, true, what, "`mirabelle-node config --check` says what is wrong in it");
        }
        if let Some(closed) = &kept.report.closed {
            find(About::Link, false, closed.to_string(), "nothing: it goes on by itself");
        }
    }
    if seen.scrub.set_aside > 0 {
        let what = format!("{} objects were wrong, and were set aside", seen.scrub.set_aside);
        find(About::Scrub, false, what, "they are fetched again; if it comes back, replace the disk");
    }
    let old = |finished| now.duration_since(finished).as_hours() > SCRUB_DAYS * 24;
    if seen.scrub.finished.is_some_and(old) {
        let what = format!("nobody has read through all objects for {SCRUB_DAYS} days");
        find(
            About::Scrub,
            false,
            what,
            "is the node switched off most of the time? `mirabelle-node verify` reads them now",
        );
    }
    // Stable: within each half in the order above.
    findings.sort_by_key(|finding| !finding.needs_a_person);
    findings
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use mirabelle_manifests::Instant;

    use super::super::{Scrub, Upstream};
    use super::*;
    use crate::care::{Alarm, Raised};
    use crate::disk::Room;
    use crate::running::Running;

    fn now() -> Instant {
        "2026-11-26T08:00:00Z".parse().unwrap()
    }

    /// A node that is well.
    fn well() -> Examination {
        let running = r#"{"pid":1,"started":1,"address":"http://[::]:8701/","since":"2026-11-01T00:00:00Z",
            "socket_stays":true}"#;
        Examination {
            college: "57001".parse().unwrap(),
            at: now(),
            directory: "/var/lib/mirabelle-node".into(),
            findings: Vec::new(),
            running: Some(serde_json::from_str::<Running>(running).unwrap()),
            refreshed: Some(now()),
            issued: None,
            room: Room { capacity: 100, left: 50, stage: Stage::Roomy },
            quota: None,
            folders: Vec::new(),
            alarms: BTreeMap::new(),
            upstreams: vec![upstream("http://a.example/", 0), upstream("http://b.example/", 0)],
            to_come: Vec::new(),
            link: None,
            scrub: Scrub {
                folders: 7,
                of_folders: 256,
                begun: None,
                finished: Some(now()),
                set_aside: 0,
                unreadable: 0,
            },
            access: Vec::new(),
        }
    }

    fn upstream(name: &str, failures: u32) -> Upstream {
        Upstream {
            upstream: name.to_owned(),
            failures,
            rests_until: None,
            last_success: None,
            last_failure: None,
        }
    }

    /// What is said, with a `!` before what needs a person.
    fn said(seen: &Examination) -> Vec<String> {
        let mark = |finding: &Finding| if finding.needs_a_person { "!" } else { "" };
        findings(seen, now()).iter().map(|finding| format!("{}{}", mark(finding), finding.what)).collect()
    }

    #[test]
    fn of_a_node_that_is_well_nothing_is_said() {
        assert_eq!(said(&well()), Vec::<String>::new());
    }

    #[test]
    fn one_upstream_that_fails_is_good_to_know_and_all_of_them_need_a_person() {
        let mut seen = well();
        seen.upstreams[0] = upstream("http://a.example/", 9);
        assert_eq!(said(&seen), ["http://a.example/ failed 9 times in a row"]);
        seen.upstreams[1] = upstream("http://b.example/", 1);
        assert_eq!(
            said(&seen),
            ["!http://a.example/ failed 9 times in a row", "http://b.example/ failed once"]
        );
    }

    #[test]
    fn what_an_alarm_says_is_said_once() {
        let mut seen = well();
        seen.room.stage = Stage::Full;
        assert_eq!(said(&seen), ["!there is little room left"]);
        let alarm = Alarm::LittleRoom;
        let (what, to_do) = (alarm.what(), alarm.to_do().to_owned());
        seen.alarms.insert("little-room".to_owned(), Raised { since: now(), alarm, what, to_do });
        assert_eq!(said(&seen), ["!less than 5 % of the room is left"]);
    }

    #[test]
    fn what_needs_a_person_comes_first() {
        let mut seen = well();
        seen.scrub.set_aside = 2;
        seen.running = None;
        seen.issued = "2026-11-27T00:00:00Z".parse().ok();
        seen.access.push(Access { path: "served".into(), fault: AccessFault::Writable });
        assert_eq!(
            said(&seen),
            [
                "!the node does not run",
                "!the clock says 2026-11-26T08:00:00Z, and it is 2026-11-27T00:00:00Z or later",
                "!/var/lib/mirabelle-node/served may be changed by others",
                "2 objects were wrong, and were set aside"
            ]
        );
    }
}
