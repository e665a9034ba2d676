//! The deployment as TOML, for people: the same members as `policy.json`, without its `_type`.
//!
//! ```toml
//! [[assignments]]
//! mode = "required"
//! package = "ruff"
//! to = { colleges = ["57001"] }
//! track = { pinned = { sequence = 3, version = "0.3" } }
//! ```
//!
//! Whatever is written here is read again as the same deployment. Comments do not survive: what is kept is the signed
//! document.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use mirabelle_manifests::{
    Assignment, Deployment, DeploymentError, GroupName, Groups, Hours, PackageName, Rollout, SignIn, Values,
};
use mirabelle_terminal::Kind;
use mirabelle_terminal::failure::Sounds;
use serde::{Deserialize, Serialize};
use toml::Value;

/// The most of a policy: what a draft takes along to be put into words where it is signed.
pub(crate) const MAX_POLICY_BYTES: u64 = 4 << 20;

/// Why a text is no policy.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PolicyError {
    /// Not TOML of this shape.
    #[error("it is malformed")]
    Malformed(#[source] Box<toml::de::Error>),
    /// Cannot be followed.
    #[error("it cannot be followed")]
    Unsound(#[source] DeploymentError),
    /// Holds something that TOML cannot: never in practice.
    #[error("it cannot be written as TOML")]
    Unwritable(#[source] toml::ser::Error),
}

impl Sounds for PolicyError {
    fn kind(&self) -> Kind {
        match self {
            Self::Malformed(_) | Self::Unsound(_) => Kind::Usage,
            Self::Unwritable(_) => Kind::Machine,
        }
    }
}

/// The members of a deployment.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Policy {
    assignments: Vec<Assignment>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    featured: Vec<PackageName>,
    groups: Groups,
    hours: Vec<Hours>,
    rollouts: BTreeMap<GroupName, Rollout>,
    #[serde(rename = "sign-in", skip_serializing_if = "Option::is_none")]
    sign_in: Option<SignIn>,
    values: Vec<Values>,
}

/// Reads a policy.
pub(crate) fn read(text: &str) -> Result<Deployment, PolicyError> {
    let Policy { assignments, featured, groups, hours, rollouts, sign_in, values } =
        toml::from_str(text).map_err(|error| PolicyError::Malformed(Box::new(error)))?;
    let mut deployment = Deployment::default();
    deployment.assignments = assignments;
    deployment.featured = featured;
    deployment.groups = groups;
    deployment.hours = hours;
    deployment.rollouts = rollouts;
    deployment.sign_in = sign_in;
    deployment.values = values;
    deployment.checked().map_err(PolicyError::Unsound)
}

/// Writes a policy: each line of it as a table, what is within it inline.
pub(crate) fn write(deployment: &Deployment) -> Result<String, PolicyError> {
    let Deployment { assignments, featured, groups, hours, rollouts, sign_in, values, .. } =
        deployment.clone();
    let mut text = String::new();
    if !featured.is_empty() {
        let names: Vec<String> = featured.iter().map(|name| format!("\"{name}\"")).collect();
        // Before every table, as TOML wants what belongs to none.
        let _ = writeln!(text, "featured = [{}]", names.join(", "));
    }
    let policy = Policy { assignments, featured: Vec::new(), groups, hours, rollouts, sign_in, values };
    let policy = toml::Table::try_from(policy).map_err(PolicyError::Unwritable)?;
    for (name, member) in &policy {
        match member {
            Value::Array(lines) => {
                for line in lines.iter().filter_map(Value::as_table) {
                    table(&mut text, &format!("[[{name}]]"), line);
                }
            }
            Value::Table(members) if name == "sign-in" => table(&mut text, "[sign-in]", members),
            Value::Table(named) => {
                for (key, line) in named {
                    if let Some(line) = line.as_table() {
                        table(&mut text, &format!("[{name}.{key}]"), line);
                    }
                }
            }
            _ => {}
        }
    }
    Ok(text)
}

fn table(text: &mut String, head: &str, members: &toml::Table) {
    let gap = if text.is_empty() { "" } else { "\n" };
    let _ = writeln!(text, "{gap}{head}");
    for (name, value) in members {
        match value {
            // Everyone is what nobody needs to say.
            Value::Table(to) if name == "to" && to.is_empty() => {}
            Value::Array(items) if items.iter().any(Value::is_table) => {
                let _ = writeln!(text, "{name} = [");
                for item in items {
                    let _ = writeln!(text, "    {item},");
                }
                let _ = writeln!(text, "]");
            }
            value => {
                let _ = writeln!(text, "{name} = {value}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: &str = r#"featured = ["geogebra", "ruff"]

[[assignments]]
mode = "required"
package = "geogebra"
rollout = "careful"
since = "2026-09-01T06:00:00Z"
to = { groups = ["exams"] }
track = "newest"

[[assignments]]
mode = "available-to-teachers"
package = "ruff"
to = { colleges = ["57001"], rooms = ["B12"] }
track = { pinned = { sequence = 3, until = "2027-07-01T00:00:00Z", version = "0.3" } }

[groups.exams]
tags = ["exam"]

[[hours]]
holidays = [
    { from = "2026-10-17", name = "Vacances d\"automne", to = "2026-11-01" },
]
lessons = [
    { days = ["mon", "tue"], from = "08:00", to = "12:00" },
    { days = ["wed"], from = "08:00", to = "11:00" },
]
time-zone = "Europe/Paris"

[rollouts.careful]
rings = [
    { name = "first", percent = 5, soak-hours = 24, to = { rooms = ["B12"] } },
]

[sign-in]
client-id = "mirabelle"
college-claim = "college"
colleges = { 0570001A = "57001" }
idle-minutes = 30
issuer = "https://connexion.example"
offline-days = 14
role-claim = "role"
salt = "1111111111111111111111111111111111111111111111111111111111111111"
session-minutes = 600
teachers = ["ENS"]

[[values]]
to = { colleges = ["57001"] }
values = { proxy = "http://p:3128" }
"#;

    #[test]
    fn a_policy_reads_as_it_is_written() {
        let deployment = read(POLICY).unwrap();
        let written = write(&deployment).unwrap();
        assert_eq!(read(&written).unwrap(), deployment);
        // What the toml crate quotes one way may be written in another.
        assert_eq!(written.replace(r#"'Vacances d"automne'"#, r#""Vacances d\"automne""#), POLICY);
        assert_eq!(write(&Deployment::default()).unwrap(), "");
        assert_eq!(read("").unwrap(), Deployment::default());
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        for (from, to, words) in [
            ("mode = \"required\"", "mode = \"needed\"", "line 4"),
            ("package = \"ruff\"", "pakage = \"ruff\"", "unknown field `pakage`"),
            ("percent = 5", "percent = \"five\"", "line 32"),
            ("08:00", "8h", "`8h` is no time of the day"),
            (
                "percent = 5",
                "percent = 0",
                "the rollout `careful` has no rings, two of one name, a percentage outside",
            ),
            (
                "groups = [\"exams\"]",
                "groups = [\"exam\"]",
                "names `exam`, which the deployment does not define",
            ),
            ("https://connexion.example", "http://connexion.example", "the issuer is no `https://` address"),
            ("Europe/Paris", "Europe/Metz", "`Europe/Metz` is no time zone"),
        ] {
            let text = POLICY.replacen(from, to, 1);
            let error = read(&text).unwrap_err();
            let source = std::error::Error::source(&error).unwrap().to_string();
            assert!(source.contains(words), "{source}");
        }
    }
}
