//! Whom a line of the deployment is for: workstations by college, room, tag, hardware model, name and system.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::names::{GroupName, MachineId, Platform, RoomName, SiteId, Tag};

/// What a workstation is, as far as the deployment can tell workstations apart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// The college it stands in.
    pub college: SiteId,
    /// Its name.
    pub id: MachineId,
    /// Its hardware model, as its firmware calls it, if it does.
    #[serde(default)]
    pub model: Option<String>,
    /// What it runs.
    pub platform: Platform,
    /// The room it stands in, if that is known.
    pub room: Option<RoomName>,
    /// Words that are true of it.
    pub tags: BTreeSet<Tag>,
}

/// Some workstations: those of which every list that is not empty says one. The empty audience is everyone.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Audience {
    /// In one of these colleges.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub colleges: BTreeSet<SiteId>,
    /// In one of these groups, which the deployment names.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub groups: BTreeSet<GroupName>,
    /// One of these.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub machines: BTreeSet<MachineId>,
    /// Of one of these hardware models.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub models: BTreeSet<String>,
    /// Of one of these systems.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub platforms: BTreeSet<Platform>,
    /// In one of these rooms.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub rooms: BTreeSet<RoomName>,
    /// With one of these tags.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub tags: BTreeSet<Tag>,
}

/// The groups that a deployment names.
pub type Groups = BTreeMap<GroupName, Audience>;

/// How closely an audience is drawn: of two that a workstation belongs to, the closer comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Closeness(u8);

impl Audience {
    /// Everyone.
    pub fn everyone() -> Self {
        Self::default()
    }

    /// These colleges.
    pub fn colleges(colleges: impl IntoIterator<Item = SiteId>) -> Self {
        Self { colleges: colleges.into_iter().collect(), ..Self::default() }
    }

    /// True when `machine` belongs to it. A group that nobody named has no members.
    pub fn includes(&self, machine: &Machine, groups: &Groups) -> bool {
        fn says<T: Ord>(list: &BTreeSet<T>, value: &T) -> bool {
            list.is_empty() || list.contains(value)
        }
        says(&self.colleges, &machine.college)
            && says(&self.machines, &machine.id)
            && (self.models.is_empty()
                || machine.model.as_ref().is_some_and(|model| self.models.contains(model)))
            && (self.platforms.is_empty()
                || self.platforms.iter().any(|platform| platform.runs_on(&machine.platform)))
            && (self.rooms.is_empty() || machine.room.as_ref().is_some_and(|room| self.rooms.contains(room)))
            && (self.tags.is_empty() || !self.tags.is_disjoint(&machine.tags))
            && (self.groups.is_empty()
                || self.groups.iter().any(|name| {
                    groups.get(name).is_some_and(|group| group.includes(machine, &Groups::new()))
                }))
    }

    /// True when some workstation of `college` may belong to it.
    pub fn may_include_some_of(&self, college: &SiteId, groups: &Groups) -> bool {
        (self.colleges.is_empty() || self.colleges.contains(college))
            && (self.groups.is_empty()
                || self.groups.iter().any(|name| {
                    groups.get(name).is_some_and(|group| group.may_include_some_of(college, &Groups::new()))
                }))
    }

    /// True when every workstation that belongs to `other` belongs to this one too, as far as the lists alone say so.
    pub fn includes_all_of(&self, other: &Self) -> bool {
        fn wider<T: Ord>(list: &BTreeSet<T>, other: &BTreeSet<T>) -> bool {
            list.is_empty() || (!other.is_empty() && other.is_subset(list))
        }
        let runs = |platform: &Platform| self.platforms.iter().any(|own| own.runs_on(platform));
        wider(&self.colleges, &other.colleges)
            && wider(&self.groups, &other.groups)
            && wider(&self.machines, &other.machines)
            && wider(&self.models, &other.models)
            && wider(&self.rooms, &other.rooms)
            && wider(&self.tags, &other.tags)
            && (self.platforms.is_empty()
                || runs(&Platform::any())
                || (!other.platforms.is_empty() && other.platforms.iter().all(runs)))
    }

    /// Those of it that are in `college`.
    pub fn within(&self, college: &SiteId) -> Self {
        Self { colleges: [college.clone()].into(), ..self.clone() }
    }

    /// How closely it is drawn: machines before rooms, rooms before tags, tags before models, models before colleges, colleges
    /// before systems; a group counts as what it is made of.
    pub fn closeness(&self, groups: &Groups) -> Closeness {
        let own = u8::from(!self.machines.is_empty()) << 5
            | u8::from(!self.rooms.is_empty()) << 4
            | u8::from(!self.tags.is_empty()) << 3
            | u8::from(!self.models.is_empty()) << 2
            | u8::from(!self.colleges.is_empty()) << 1
            | u8::from(!self.platforms.is_empty());
        let named = self.groups.iter().filter_map(|name| groups.get(name));
        Closeness(named.fold(own, |bits, group| bits | group.closeness(&Groups::new()).0))
    }
}

impl fmt::Display for Audience {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fn list<T: fmt::Display>(parts: &mut Vec<String>, word: &str, names: &BTreeSet<T>) {
            if !names.is_empty() {
                let names: Vec<String> = names.iter().map(ToString::to_string).collect();
                parts.push(format!("{word} {}", names.join(", ")));
            }
        }
        let mut parts = Vec::new();
        list(&mut parts, "machine", &self.machines);
        list(&mut parts, "room", &self.rooms);
        list(&mut parts, "tag", &self.tags);
        list(&mut parts, "model", &self.models);
        list(&mut parts, "group", &self.groups);
        list(&mut parts, "college", &self.colleges);
        list(&mut parts, "system", &self.platforms);
        if parts.is_empty() { f.write_str("all colleges") } else { f.write_str(&parts.join("; ")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine() -> Machine {
        Machine {
            college: "57001".parse().unwrap(),
            id: "b12-03".parse().unwrap(),
            model: Some("OptiPlex 3070".to_owned()),
            platform: "linux-x86_64".parse().unwrap(),
            room: Some("B12".parse().unwrap()),
            tags: ["exam".parse().unwrap()].into(),
        }
    }

    fn audience(json: &str) -> Audience {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn every_list_must_say_one() {
        let groups = Groups::from([("exams".parse().unwrap(), audience(r#"{"tags":["exam"]}"#))]);
        for (json, expected) in [
            ("{}", true),
            (r#"{"colleges":["57001","57002"]}"#, true),
            (r#"{"colleges":["57002"]}"#, false),
            (r#"{"colleges":["57001"],"rooms":["B12"]}"#, true),
            (r#"{"colleges":["57001"],"rooms":["B13"]}"#, false),
            (r#"{"platforms":["windows-x86_64"]}"#, false),
            (r#"{"tags":["exam","touch"]}"#, true),
            (r#"{"models":["OptiPlex 3070"]}"#, true),
            (r#"{"models":["ProDesk 400"]}"#, false),
            (r#"{"groups":["exams"]}"#, true),
            (r#"{"groups":["nobody"]}"#, false),
        ] {
            assert_eq!(audience(json).includes(&machine(), &groups), expected, "{json}");
        }
        let nowhere = Machine { room: None, model: None, ..machine() };
        for json in [r#"{"rooms":["B12"]}"#, r#"{"models":["OptiPlex 3070"]}"#] {
            assert!(!audience(json).includes(&nowhere, &groups), "{json}");
        }
    }

    #[test]
    fn a_room_is_closer_than_a_college() {
        let groups = Groups::from([("b12".parse().unwrap(), audience(r#"{"rooms":["B12"]}"#))]);
        let ordered = [
            "{}",
            r#"{"platforms":["any"]}"#,
            r#"{"colleges":["57001"]}"#,
            r#"{"models":["OptiPlex 3070"]}"#,
            r#"{"tags":["exam"]}"#,
            r#"{"groups":["b12"]}"#,
            r#"{"colleges":["57001"],"rooms":["B12"]}"#,
            r#"{"machines":["b12-03"]}"#,
        ];
        let closeness: Vec<Closeness> =
            ordered.iter().map(|json| audience(json).closeness(&groups)).collect();
        assert!(closeness.is_sorted(), "{closeness:?}");
    }
}
