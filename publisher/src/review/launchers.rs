//! What changes among the things a release can start.

use std::collections::BTreeMap;

use mirabelle_manifests::{Launcher, PackageName, Release};
use serde::Serialize;

/// One thing that a launcher says, before and now.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct FieldChange {
    pub(super) field: Field,
    pub(super) before: String,
    pub(super) now: String,
}

/// What a launcher says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Field {
    Command,
    Environment,
    Title,
    Icon,
    MimeTypes,
    Terminal,
}

impl Field {
    /// In French and English.
    pub(super) fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Command => ("commande", "command"),
            Self::Environment => ("environnement", "environment"),
            Self::Title => ("titre", "title"),
            Self::Icon => ("icône", "icon"),
            Self::MimeTypes => ("ouvre les documents", "opens documents of"),
            Self::Terminal => ("dans un terminal", "in a terminal"),
        }
    }
}

/// A launcher that says other things than before.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct LauncherChange {
    pub(super) name: PackageName,
    pub(super) fields: Vec<FieldChange>,
}

/// What changes among the launchers.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct LauncherChanges {
    pub(super) added: Vec<Launcher>,
    pub(super) removed: Vec<Launcher>,
    pub(super) changed: Vec<LauncherChange>,
    pub(super) unchanged: Vec<Launcher>,
}

impl LauncherChanges {
    pub(super) fn new(before: Option<&Release>, now: &Release) -> Self {
        let launchers = before.map(|release| release.launchers.as_slice()).unwrap_or_default();
        let mut old: BTreeMap<&PackageName, &Launcher> =
            launchers.iter().map(|launcher| (&launcher.name, launcher)).collect();
        let mut changes = Self::default();
        for launcher in &now.launchers {
            match old.remove(&launcher.name) {
                None => changes.added.push(launcher.clone()),
                Some(before) if before == launcher => changes.unchanged.push(launcher.clone()),
                Some(before) => {
                    let fields = differences(before, launcher);
                    changes.changed.push(LauncherChange { name: launcher.name.clone(), fields });
                }
            }
        }
        changes.removed = old.into_values().cloned().collect();
        changes
    }

    /// True when there is a change.
    pub(super) fn any(&self) -> bool {
        !(self.added.is_empty() && self.removed.is_empty() && self.changed.is_empty())
    }
}

/// A command as it would be typed: an argument that a shell would take apart stands in quotes.
pub(super) fn command_line(command: &[String]) -> String {
    let plain = |c: char| c.is_alphanumeric() || "/{}-_.,:=+@%".contains(c);
    let quoted = |argument: &String| {
        let whole = !argument.is_empty() && argument.chars().all(plain);
        if whole { argument.clone() } else { format!("'{}'", argument.replace('\'', r"'\''")) }
    };
    command.iter().map(quoted).collect::<Vec<_>>().join(" ")
}

/// What a launcher sets in the environment.
pub(super) fn environment(launcher: &Launcher) -> String {
    let settings = launcher.environment.iter().map(|(name, value)| format!("{name}={value}"));
    settings.collect::<Vec<_>>().join(" ")
}

fn differences(before: &Launcher, now: &Launcher) -> Vec<FieldChange> {
    let icon = |launcher: &Launcher| launcher.icon.as_ref().map(ToString::to_string).unwrap_or_default();
    let mime_types = |launcher: &Launcher| {
        launcher.mime_types.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    };
    let title = |launcher: &Launcher| format!("{} / {}", launcher.title.fr, launcher.title.en);
    [
        (Field::Command, command_line(&before.command), command_line(&now.command)),
        (Field::Environment, environment(before), environment(now)),
        (Field::Title, title(before), title(now)),
        (Field::Icon, icon(before), icon(now)),
        (Field::MimeTypes, mime_types(before), mime_types(now)),
        (Field::Terminal, before.terminal.to_string(), now.terminal.to_string()),
    ]
    .into_iter()
    .filter(|(_, before, now)| before != now)
    .map(|(field, before, now)| FieldChange { field, before, now })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::review::sample::{launcher, release_starting};

    #[test]
    fn tells_which_launcher_says_what_else() {
        let before = release_starting(vec![
            launcher("stays", &["sh"]),
            launcher("goes", &["sh"]),
            launcher("x", &["sh"]),
        ]);
        let mut other = launcher("x", &["sh", "-c", "rm -rf \"$HOME\"", ""]);
        other.environment.insert("LD_PRELOAD".to_owned(), "{release}/evil.so".to_owned());
        let now = release_starting(vec![launcher("stays", &["sh"]), launcher("comes", &["sh"]), other]);
        let changes = LauncherChanges::new(Some(&before), &now);
        let names = |launchers: &[Launcher]| launchers.iter().map(|l| l.name.to_string()).collect::<Vec<_>>();
        assert_eq!(names(&changes.added), ["comes"]);
        assert_eq!(names(&changes.removed), ["goes"]);
        assert_eq!(names(&changes.unchanged), ["stays"]);
        let fields = &changes.changed[0].fields;
        assert_eq!(fields.len(), 2, "{fields:?}");
        assert_eq!(fields[0].now, "sh -c 'rm -rf \"$HOME\"' ''");
        assert_eq!(fields[1].now, "LD_PRELOAD={release}/evil.so");
        assert!(!LauncherChanges::new(Some(&now), &now).any());
    }
}
