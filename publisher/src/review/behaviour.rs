//! What changes among the things that a release needs of a workstation and does to it: commands that install it, files of
//! the machine that it sets, checks, requirements and conflicts.

use std::collections::BTreeMap;

use mirabelle_manifests::{
    Behaviour, Check, EntryPath, ExitMeaning, Installer, Node, Release, Setting, SystemPath,
};
use serde::Serialize;

use super::launchers::command_line;

/// The text of a release's templates that could be read, by their paths in it.
pub(crate) type Templates = BTreeMap<EntryPath, String>;

/// A sort of thing that a release needs or does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Sort {
    Install,
    Upgrade,
    Uninstall,
    Detect,
    ExitCodes,
    Seconds,
    Setting,
    Template,
    Check,
    Requires,
    Conflicts,
}

impl Sort {
    /// In French and English.
    pub(super) fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Install => ("installe, en administrateur", "installs, as administrator"),
            Self::Upgrade => ("met à niveau, en administrateur", "upgrades, as administrator"),
            Self::Uninstall => ("désinstalle, en administrateur", "uninstalls, as administrator"),
            Self::Detect => ("détecte", "detects"),
            Self::ExitCodes => ("codes de sortie", "exit codes"),
            Self::Seconds => ("durée maximale", "time limit"),
            Self::Setting => ("règle le fichier", "sets the file"),
            Self::Template => ("modèle de", "template of"),
            Self::Check => ("vérifie", "checks"),
            Self::Requires => ("requiert", "requires"),
            Self::Conflicts => ("exclut", "excludes"),
        }
    }

    /// True for what an installer runs, or makes of its outcome.
    fn is_of_the_installer(self) -> bool {
        self <= Self::Seconds
    }
}

/// Something that a release needs or does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Trait {
    pub(super) sort: Sort,
    /// The file or package that it is about, where there may be several.
    pub(super) of: String,
    pub(super) says: String,
}

/// Something that is otherwise than before.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct TraitChange {
    pub(super) sort: Sort,
    pub(super) of: String,
    pub(super) before: String,
    pub(super) now: String,
}

/// What changes in a release's behaviour.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct BehaviourChanges {
    pub(super) added: Vec<Trait>,
    pub(super) removed: Vec<Trait>,
    pub(super) changed: Vec<TraitChange>,
    pub(super) unchanged: Vec<Trait>,
}

impl BehaviourChanges {
    pub(super) fn new(before: Option<(&Release, &Templates)>, now: (&Release, &Templates)) -> Self {
        let mut old = before.map(|(release, templates)| traits(release, templates)).unwrap_or_default();
        let mut changes = Self::default();
        for ((sort, of), says) in traits(now.0, now.1) {
            match old.remove(&(sort, of.clone())) {
                None => changes.added.push(Trait { sort, of, says }),
                Some(before) if before == says => changes.unchanged.push(Trait { sort, of, says }),
                Some(before) => changes.changed.push(TraitChange { sort, of, before, now: says }),
            }
        }
        changes.removed = old.into_iter().map(|((sort, of), says)| Trait { sort, of, says }).collect();
        changes
    }

    /// True when there is a change.
    pub(super) fn any(&self) -> bool {
        !(self.added.is_empty() && self.removed.is_empty() && self.changed.is_empty())
    }

    /// True when there is neither a change nor anything that stays.
    pub(super) fn is_empty(&self) -> bool {
        !self.any() && self.unchanged.is_empty()
    }

    /// True when the release runs commands of its own as administrator.
    pub(super) fn installs(&self) -> bool {
        self.has(Sort::is_of_the_installer)
    }

    /// True when the release sets files of the machine.
    pub(super) fn sets_files(&self) -> bool {
        self.has(|sort| sort == Sort::Setting)
    }

    fn has(&self, is: impl Fn(Sort) -> bool) -> bool {
        let there = self.added.iter().chain(&self.unchanged).map(|one| one.sort);
        there.chain(self.changed.iter().map(|change| change.sort)).any(is)
    }
}

/// All that a release needs and does. What is said twice of one thing stands in one text.
fn traits(release: &Release, templates: &Templates) -> BTreeMap<(Sort, String), String> {
    let mut traits: BTreeMap<(Sort, String), String> = BTreeMap::new();
    let mut add = |sort: Sort, of: String, says: String| {
        traits.entry((sort, of)).and_modify(|known| *known = format!("{known}; {says}")).or_insert(says);
    };
    let Behaviour { checks, conflicts, installer, requires, settings } = &release.behaviour;
    if let Some(installer) = installer {
        for (sort, says) in of_the_installer(installer) {
            add(sort, String::new(), says);
        }
    }
    for setting in settings {
        let Setting { group, mode, owner, path, template } = setting;
        add(Sort::Setting, path.to_string(), format!("{owner}:{group} {mode}, from {template}"));
        add(Sort::Template, path.to_string(), template_text(release, template, templates));
    }
    for check in checks {
        // A check has no name: one that says something else is another.
        add(Sort::Check, said(check), String::new());
    }
    for (sort, relations) in [(Sort::Requires, requires), (Sort::Conflicts, conflicts)] {
        for relation in relations {
            add(sort, relation.package.to_string(), relation.to_string());
        }
    }
    traits
}

fn of_the_installer(installer: &Installer) -> Vec<(Sort, String)> {
    let Installer { detect, exit_codes, install, seconds, uninstall, upgrade } = installer;
    let printed = match &detect.prints {
        Some(prints) => format!("{}, which must print {prints}", command_line(&detect.command)),
        None => command_line(&detect.command),
    };
    let meanings = exit_codes.iter().map(|(code, meaning)| {
        let meaning = match meaning {
            ExitMeaning::Done => "done",
            ExitMeaning::Restart => "restart",
            ExitMeaning::Later => "later",
        };
        format!("{code} = {meaning}")
    });
    let meanings: Vec<String> = meanings.collect();
    let mut traits = vec![
        (Sort::Install, command_line(install)),
        (Sort::Uninstall, command_line(uninstall)),
        (Sort::Detect, printed),
        (Sort::Seconds, format!("{seconds} s")),
    ];
    traits.extend(upgrade.as_ref().map(|upgrade| (Sort::Upgrade, command_line(upgrade))));
    if !meanings.is_empty() {
        traits.push((Sort::ExitCodes, meanings.join(", ")));
    }
    traits
}

fn said(check: &Check) -> String {
    match check {
        Check::Command { command, seconds } => format!("{}, in {seconds} s", command_line(command)),
        Check::File { path } => file_is_there(path),
        Check::Launcher { arguments, launcher, seconds } => {
            let words: Vec<String> = [launcher.to_string()].into_iter().chain(arguments.clone()).collect();
            format!("run {}, in {seconds} s", command_line(&words))
        }
    }
}

fn file_is_there(path: &SystemPath) -> String {
    format!("file {path}")
}

/// The template as it is, or what can be told of one that is not shown: its digest, which changes with it.
fn template_text(release: &Release, template: &EntryPath, templates: &Templates) -> String {
    if let Some(text) = templates.get(template) {
        return text.clone();
    }
    let node = release.entries.iter().find(|entry| entry.path == *template).map(|entry| &entry.node);
    match node {
        Some(Node::File { sha256, size, .. }) => format!("(not shown: {size} bytes, SHA-256 {sha256})"),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use mirabelle_manifests::Relation;

    use super::*;
    use crate::review::sample;

    fn words(traits: &[Trait]) -> Vec<String> {
        traits.iter().map(|one| format!("{} {} {}", one.sort.words().1, one.of, one.says)).collect()
    }

    #[test]
    fn an_installer_and_its_settings_are_shown_word_by_word() {
        let now = sample::installer();
        let templates =
            Templates::from([("conf/hello.conf".parse().unwrap(), "proxy={{ value.proxy }}\n".into())]);
        let changes = BehaviourChanges::new(None, (&now, &templates));
        assert_eq!(
            words(&changes.added),
            [
                "installs, as administrator  dpkg -i {release}/hello.deb",
                "uninstalls, as administrator  dpkg --purge hello",
                "detects  dpkg-query -W hello, which must print hello 2",
                "exit codes  100 = later, 3010 = restart",
                "time limit  600 s",
                "sets the file /etc/hello.conf root:root 0644, from conf/hello.conf",
                "template of /etc/hello.conf proxy={{ value.proxy }}\n",
                "checks file /usr/bin/hello ",
                "requires jre jre from release 17",
                "excludes old old",
            ]
        );
        assert!(changes.installs() && changes.sets_files());
        assert_eq!(BehaviourChanges::new(Some((&now, &templates)), (&now, &templates)).unchanged.len(), 10);
    }

    #[test]
    fn what_is_said_otherwise_is_a_change() {
        let before = sample::installer();
        let mut now = before.clone();
        let installer = now.behaviour.installer.as_mut().unwrap();
        installer.install.push("--force-all".to_owned());
        now.behaviour.requires.push(Relation {
            package: "jre".parse().unwrap(),
            at_least: None,
            at_most: Some(21),
        });
        now.behaviour.checks.clear();
        let text = |text: &str| Templates::from([("conf/hello.conf".parse().unwrap(), text.to_owned())]);
        let changes = BehaviourChanges::new(Some((&before, &text("a"))), (&now, &text("b")));
        let changed: Vec<_> = changes
            .changed
            .iter()
            .map(|change| (change.sort, change.before.as_str(), change.now.as_str()))
            .collect();
        assert_eq!(
            changed,
            [
                (Sort::Install, "dpkg -i {release}/hello.deb", "dpkg -i {release}/hello.deb --force-all"),
                (Sort::Template, "a", "b"),
                (Sort::Requires, "jre from release 17", "jre from release 17; jre up to release 21"),
            ]
        );
        assert_eq!(words(&changes.removed), ["checks file /usr/bin/hello "]);
        assert!(changes.added.is_empty());
    }

    #[test]
    fn a_template_that_is_not_shown_is_told_by_its_digest() {
        let now = sample::installer();
        let changes = BehaviourChanges::new(None, (&now, &Templates::new()));
        let template = changes.added.iter().find(|one| one.sort == Sort::Template).unwrap();
        assert!(template.says.starts_with("(not shown: "), "{}", template.says);
    }
}
