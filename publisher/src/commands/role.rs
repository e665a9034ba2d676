//! `role …`: who holds a role, and how many of them must sign.
//!
//! One command makes every draft that belongs to the change. A top-level role's keys stand in root. A delegated role's
//! stand in targets, and the catalogue's in root as well, which pins the approvers. When those who signed a role's
//! present document no longer suffice, the same content is drafted once more for the new holders: no release is signed
//! again, and no machine is visited. All of it takes effect together (`drafts.rs`).

use mirabelle_keys::{KeyId, PublicKey};
use mirabelle_manifests::tuf::{RoleKeys, RoleName, Root, Targets};
use mirabelle_terminal::{Failure, Table};
use serde::Serialize;

use super::Context;
use super::draft::{role_of, who};
use crate::cli::{RoleCommand, Signing};
use crate::drafts::{Outcome, Progress, signed_roles};
use crate::keyfile;
use crate::repository::Repository;

/// What to do to a role's keys.
enum Change {
    Replace(String, PublicKey),
    Add(PublicKey),
    Remove(String),
    Threshold(u32),
}

pub(super) fn run(context: &mut Context, command: RoleCommand) -> Result<(), Failure> {
    let repository = context.repository()?;
    let (role, change, signing) = match command {
        RoleCommand::List => return list(context, &repository),
        RoleCommand::Renew { role, signing } => {
            let role = role_of(&role)?;
            let _lock = repository.lock()?;
            return renew(context, &repository, &role, &signing);
        }
        RoleCommand::ReplaceKey { role, old, new, signing } => {
            (role, Change::Replace(old, keyfile::public(&new)?), signing)
        }
        RoleCommand::AddKey { role, new, signing } => (role, Change::Add(keyfile::public(&new)?), signing),
        RoleCommand::RemoveKey { role, old, signing } => (role, Change::Remove(old), signing),
        RoleCommand::Threshold { role, threshold, signing } => (role, Change::Threshold(threshold), signing),
    };
    let _lock = repository.lock()?;
    let role = RoleName::new(role);
    let new = Holders::new(&repository)?.changed(&role, &change)?;
    apply(context, &repository, &role, &new, &signing)
}

/// The two documents that say who holds what.
struct Holders {
    root: Root,
    targets: Targets,
    root_changed: bool,
    targets_changed: bool,
}

impl Holders {
    fn new(repository: &Repository) -> Result<Self, Failure> {
        let root = repository.role::<Root>(&RoleName::root())?.signed;
        let targets = repository.role::<Targets>(&RoleName::targets())?.signed;
        Ok(Self { root, targets, root_changed: false, targets_changed: false })
    }

    fn changed(mut self, role: &RoleName, change: &Change) -> Result<Self, Failure> {
        let mut found = false;
        if let Some(keys) = self.root.roles.get_mut(role) {
            change.apply(role, keys)?;
            (found, self.root_changed) = (true, true);
        }
        if let Some(keys) = self.root.quorums.get_mut(role) {
            change.apply(role, keys)?;
            self.root_changed = true;
        }
        if let Some(delegations) = &mut self.targets.delegations {
            for delegated in delegations.roles.iter_mut().filter(|delegated| delegated.name == *role) {
                change.apply(role, &mut delegated.keys)?;
                (found, self.targets_changed) = (true, true);
            }
            delegations.keys.extend(change.new_key().map(|key| (key.id(), key.clone())));
            let used: Vec<&KeyId> = delegations.roles.iter().flat_map(|role| &role.keys.keyids).collect();
            delegations.keys.retain(|id, _| used.contains(&id));
        }
        if !found {
            return Err(Failure::usage(format!("there is no role `{role}`"))
                .hint("`mirabelle-publisher role list` lists them"));
        }
        self.root.keys.extend(change.new_key().map(|key| (key.id(), key.clone())));
        let used: Vec<&KeyId> = self
            .root
            .roles
            .values()
            .chain(self.root.quorums.values())
            .flat_map(|keys| &keys.keyids)
            .collect();
        self.root.keys.retain(|id, _| used.contains(&id));
        Ok(self)
    }
}

impl Change {
    fn new_key(&self) -> Option<&PublicKey> {
        match self {
            Self::Replace(_, key) | Self::Add(key) => Some(key),
            Self::Remove(_) | Self::Threshold(_) => None,
        }
    }

    fn apply(&self, role: &RoleName, keys: &mut RoleKeys) -> Result<(), Failure> {
        if let Some(key) = self.new_key()
            && keys.keyids.contains(&key.id())
        {
            return Err(Failure::no(format!("key {} holds `{role}` already", key.id().short())));
        }
        match self {
            Self::Replace(old, key) => {
                let at = position(role, keys, old)?;
                keys.keyids[at] = key.id();
            }
            Self::Add(key) => keys.keyids.push(key.id()),
            Self::Remove(old) => {
                let at = position(role, keys, old)?;
                keys.keyids.remove(at);
            }
            Self::Threshold(threshold) => keys.threshold = (*threshold).into(),
        }
        let holders = keys.keyids.len();
        if keys.threshold < 1 || usize::try_from(keys.threshold).is_ok_and(|threshold| threshold > holders) {
            return Err(Failure::usage(format!(
                "{} of {holders} keys is no threshold for `{role}`",
                keys.threshold
            ))
            .hint("set the threshold first, or add a key first"));
        }
        Ok(())
    }
}

fn position(role: &RoleName, keys: &RoleKeys, beginning: &str) -> Result<usize, Failure> {
    let mut found = keys.keyids.iter().enumerate().filter(|(_, id)| id.as_str().starts_with(beginning));
    match (found.next(), found.next()) {
        (Some((at, _)), None) if beginning.len() >= 8 => Ok(at),
        (Some(_), None) => {
            Err(Failure::usage(format!("`{beginning}` is too short for a key id: give 8 characters")))
        }
        (Some(_), Some(_)) => {
            Err(Failure::usage(format!("several keys of `{role}` begin with `{beginning}`")))
        }
        (None, _) => Err(Failure::no(format!("no key of `{role}` begins with `{beginning}`"))
            .hint("`mirabelle-publisher role list` lists them")),
    }
}

#[derive(Serialize)]
struct Applied {
    completed: Vec<String>,
    waiting: Vec<Progress>,
    /// Why roles are drafted that were not named.
    notes: Vec<String>,
}

fn apply(
    context: &mut Context,
    repository: &Repository,
    role: &RoleName,
    new: &Holders,
    signing: &Signing,
) -> Result<(), Failure> {
    // Decide which documents belong to the change.
    let mut drafted = Vec::new();
    let mut notes = Vec::new();
    if new.root_changed {
        drafted.push(RoleName::root());
    }
    let mut renewed = None;
    if signed_roles().contains(role) && *role != RoleName::root() {
        let document = repository.role::<Targets>(role)?;
        let mut demands = Vec::new();
        demands.extend(new.root.roles.get(role).map(|keys| keys.keyring(&new.root.keys)));
        demands.extend(new.targets.delegations.as_ref().and_then(|delegations| delegations.keyring(role)));
        demands.extend(new.root.quorums.get(role).map(|keys| keys.keyring(&new.root.keys)));
        let satisfied = demands.into_iter().all(|keyring| {
            keyring.is_ok_and(|keyring| keyring.verify(document.signed_bytes(), &document.signatures).is_ok())
        });
        if !satisfied {
            notes.push(format!("`{role}` stays as it is, and is signed once more by those who hold it then"));
            renewed = Some(document.signed);
        }
    }
    if new.targets_changed || (renewed.is_some() && *role == RoleName::targets()) {
        drafted.push(RoleName::targets());
    }
    if renewed.is_some() && *role != RoleName::targets() {
        drafted.push(role.clone());
    }
    if [RoleName::snapshot(), RoleName::timestamp()].contains(role) {
        notes.push("from then on, `publish` with the new key".to_owned());
    }
    if signing.dry_run {
        let names: Vec<String> = drafted.iter().map(|role| format!("`{role}`")).collect();
        context.output.print(&names, |names| {
            format!("would need new signatures under {}\n{}", names.join(", "), notes.join("\n"))
        });
        return Ok(());
    }

    // Act: all drafts first, since each is measured against the others, then the signatures.
    let keys = keyfile::open_all(&signing.keys, &mut context.passphrase)?;
    for draft in &drafted {
        if *draft == RoleName::root() {
            repository.draft_and_sign(draft, &new.root, &[], context.now)?;
        } else if *draft == RoleName::targets() {
            repository.draft_and_sign(draft, &new.targets, &[], context.now)?;
        } else if let Some(document) = &renewed {
            repository.draft_and_sign(draft, document, &[], context.now)?;
        }
    }
    repository.check_holders(&drafted, &keys)?;
    for draft in &drafted {
        repository.add_signatures(draft, &keys, context.now)?;
    }
    repository.promote(context.now)?;
    report(context, repository, &drafted, notes)
}

fn renew(
    context: &mut Context,
    repository: &Repository,
    role: &RoleName,
    signing: &Signing,
) -> Result<(), Failure> {
    if signing.dry_run {
        let until = repository.expiry(role, context.now);
        context.output.print(&until, |until| format!("would make `{role}` valid until {until:.0}"));
        return Ok(());
    }
    let keys = keyfile::open_all(&signing.keys, &mut context.passphrase)?;
    repository.check_holders(std::slice::from_ref(role), &keys)?;
    if *role == RoleName::root() {
        repository.propose(role, &repository.role::<Root>(role)?.signed, &keys, context.now)?;
    } else {
        repository.propose(role, &repository.role::<Targets>(role)?.signed, &keys, context.now)?;
    }
    report(context, repository, std::slice::from_ref(role), vec![])
}

fn report(
    context: &Context,
    repository: &Repository,
    drafted: &[RoleName],
    notes: Vec<String>,
) -> Result<(), Failure> {
    let mut applied = Applied { completed: Vec::new(), waiting: Vec::new(), notes };
    for role in drafted {
        match repository.outcome(role)? {
            Outcome::Complete { .. } => applied.completed.push(role.to_string()),
            Outcome::Waiting(progress) => applied.waiting.push(progress),
        }
    }
    context.output.print(&applied, |applied| {
        let mut lines: Vec<String> =
            applied.completed.iter().map(|role| format!("`{role}` is complete; `publish` makes it known")).collect();
        lines.extend(applied.waiting.iter().map(|waiting| format!("`{}`: {}", waiting.role, who(waiting))));
        lines.extend(applied.notes.iter().cloned());
        if !applied.waiting.is_empty() {
            lines.push("gather what is missing with `draft export`, `sign` and `draft import`; until then everything goes on as before".to_owned());
        }
        lines.join("\n")
    });
    Ok(())
}

#[derive(Serialize)]
struct Listed {
    role: String,
    threshold: i64,
    keys: Vec<String>,
}

fn list(context: &Context, repository: &Repository) -> Result<(), Failure> {
    let holders = Holders::new(repository)?;
    let delegated = holders.targets.delegations.iter().flat_map(|delegations| &delegations.roles);
    let delegated = delegated.map(|role| (role.name.to_string(), &role.keys));
    let pinned = holders.root.quorums.iter().map(|(role, keys)| (format!("{role} (pinned by root)"), keys));
    let top = holders.root.roles.iter().map(|(role, keys)| (role.to_string(), keys));
    let listed: Vec<Listed> = top
        .chain(delegated)
        .chain(pinned)
        .map(|(role, keys)| Listed {
            role,
            threshold: keys.threshold,
            keys: keys.keyids.iter().map(ToString::to_string).collect(),
        })
        .collect();
    context.output.print(&listed, |listed| {
        let mut table = Table::new(["role", "must sign", "keys"]).right([1]);
        for role in listed {
            let keys: Vec<&str> = role.keys.iter().map(|id| id.get(..12).unwrap_or(id)).collect();
            table.row([role.role.clone(), format!("{} of {}", role.threshold, keys.len()), keys.join(" ")]);
        }
        table.render()
    });
    Ok(())
}
