//! `role …`: who holds a role, and how many of them must sign.
//!
//! One command makes every draft that belongs to the change. A top-level role's keys stand in root. A delegated role's
//! stand in targets, and the catalogue's in root as well, which pins the approvers. When those who signed a role's
//! present document no longer suffice, the same content is drafted once more for the new holders: no release is signed
//! again, and no machine is visited. All of it takes effect together (`drafts.rs`).

use mirabelle_keys::{KeyId, PublicKey};
use mirabelle_manifests::network::catalogue_role;
use mirabelle_manifests::tuf::{RoleKeys, RoleName, Root, Targets};
use mirabelle_terminal::{Failure, Table};
use serde::Serialize;

use super::Context;
use super::draft::{role_of, who};
use crate::cli::{RoleCommand, Signing};
use crate::drafts::{Outcome, Progress};
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
            let role = role_of(&repository, &role)?;
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
    let roles: Vec<RoleName> = role.split(',').map(RoleName::new).collect();
    let mut new = Holders::new(&repository)?;
    for role in &roles {
        new = new.changed(role, &change)?;
    }
    let before: Vec<RoleName> = repository.drafts()?.into_keys().collect();
    let now = context.now;
    apply(context, &repository, &roles, &new, &signing).inspect_err(|_| {
        // Half of a change would only be in everybody's way; what people hear of is why it failed.
        if let Ok(drafts) = repository.drafts() {
            for role in drafts.keys().filter(|role| !before.contains(role)) {
                let _ = repository.drop_draft(role, now);
            }
        }
    })
}

/// The documents that say who holds what.
struct Holders {
    root: Root,
    targets: Targets,
    /// The catalogue, which says who holds its bins, if it has any.
    catalogue: Option<Targets>,
    root_changed: bool,
    targets_changed: bool,
}

impl Holders {
    fn new(repository: &Repository) -> Result<Self, Failure> {
        let root = repository.role::<Root>(&RoleName::root())?.signed;
        let targets = repository.role::<Targets>(&RoleName::targets())?.signed;
        let catalogue = match repository.bins()? {
            Some(_) => Some(repository.role::<Targets>(&catalogue_role())?.signed),
            None => None,
        };
        Ok(Self { root, targets, catalogue, root_changed: false, targets_changed: false })
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
        if *role == catalogue_role()
            && let Some(delegations) = self.catalogue.as_mut().and_then(|role| role.delegations.as_mut())
            && let Some(bins) = &mut delegations.bins
        {
            change.apply(role, &mut bins.keys)?;
            delegations.keys.extend(change.new_key().map(|key| (key.id(), key.clone())));
            delegations.keys.retain(|id, _| bins.keys.keyids.contains(id));
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

/// What a draft will say.
enum Content<'a> {
    Root(&'a Root),
    Targets(Targets),
}

impl Holders {
    /// The document of `role` as it is to be signed once more, when those who signed it do not suffice any longer.
    fn no_longer_satisfied(
        &self,
        repository: &Repository,
        role: &RoleName,
    ) -> Result<Option<Targets>, Failure> {
        if !repository.signed_roles()?.contains(role) || *role == RoleName::root() {
            return Ok(None);
        }
        let document = repository.role::<Targets>(role)?;
        // The document may itself say who holds others, and then it changes.
        let content = match &self.catalogue {
            Some(catalogue) if *role == catalogue_role() => catalogue.clone(),
            _ if *role == RoleName::targets() => self.targets.clone(),
            _ => document.signed.clone(),
        };
        if content != document.signed {
            return Ok(Some(content).filter(|_| *role != RoleName::targets() || !self.targets_changed));
        }
        let catalogue = self.catalogue.as_ref().and_then(|catalogue| catalogue.delegations.as_ref());
        let delegations = self.targets.delegations.as_ref();
        let mut demands = Vec::new();
        demands.extend(self.root.roles.get(role).map(|keys| keys.keyring(&self.root.keys)));
        demands.extend(delegations.and_then(|delegations| delegations.keyring(role)));
        demands.extend(catalogue.and_then(|delegations| delegations.keyring(role)));
        demands.extend(self.root.quorum_of(role).map(|keys| keys.keyring(&self.root.keys)));
        let satisfied = demands.into_iter().all(|keyring| {
            keyring.is_ok_and(|keyring| keyring.verify(document.signed_bytes(), &document.signatures).is_ok())
        });
        Ok((!satisfied).then_some(content))
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
    roles: &[RoleName],
    new: &Holders,
    signing: &Signing,
) -> Result<(), Failure> {
    // Decide which documents belong to the change.
    let mut drafted: Vec<(RoleName, Content<'_>)> = Vec::new();
    let mut notes = Vec::new();
    if new.root_changed {
        drafted.push((RoleName::root(), Content::Root(&new.root)));
    }
    if new.targets_changed {
        drafted.push((RoleName::targets(), Content::Targets(new.targets.clone())));
    }
    let mut resigned = roles.to_vec();
    if roles.contains(&catalogue_role()) {
        resigned.extend(repository.catalogue_bins()?);
    }
    for role in resigned {
        if let Some(document) = new.no_longer_satisfied(repository, &role)? {
            notes.push(format!("`{role}` stays as it is, and is signed once more by those who hold it then"));
            drafted.push((role, Content::Targets(document)));
        }
    }
    if roles.iter().any(|role| [RoleName::snapshot(), RoleName::timestamp()].contains(role)) {
        notes.push("from then on, `publish` with the new key".to_owned());
    }
    if signing.dry_run {
        let names: Vec<String> = drafted.iter().map(|(role, _)| format!("`{role}`")).collect();
        context.output.print(&names, |names| {
            format!("would need new signatures under {}\n{}", names.join(", "), notes.join("\n"))
        });
        return Ok(());
    }

    // Act: all drafts first, since each is measured against the others, then the signatures.
    let keys = keyfile::open_all(&signing.keys, &mut context.passphrase)?;
    for (role, content) in &drafted {
        match content {
            Content::Root(root) => repository.draft_and_sign(role, *root, &[], context.now)?,
            Content::Targets(targets) => repository.draft_and_sign(role, targets, &[], context.now)?,
        }
    }
    let drafted: Vec<RoleName> = drafted.into_iter().map(|(role, _)| role).collect();
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
