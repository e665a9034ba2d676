//! `init`: a repository with all its roles, in one go.
//!
//! Every role of DESIGN.md is there from the first root on: targets delegates catalogue, deployment and brake, and root
//! pins the catalogue's approvers (`x-quorums`), so that promise 1 is in force before the first release.
//!
//! Making all keys in one place is for trying out and for a ceremony with everybody in the room; afterwards each
//! holder takes her key away. Keys that lie in the directory already are used as they are.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal};
use std::path::Path;

use jiff::SignedDuration;
use mirabelle_keys::{PublicKey, Signer};
use mirabelle_manifests::network::{
    BRAKE_TARGET, DEPLOYMENT_TARGET, PACKAGERS_TARGET, brake_role, catalogue_role, delegated_roles,
    deployment_role,
};
use mirabelle_manifests::tuf::{
    self, DelegatedRole, Delegations, RoleKeys, RoleName, Root, SuccinctRoles, TargetFile, Targets,
};
use mirabelle_manifests::{Brake, Deployment, Packager, Packagers, PathPattern, TargetPath};
use mirabelle_terminal::{Failure, OrFail, Table};
use serde::Serialize;

use super::{Context, ask};
use crate::audit::{Event, Record};
use crate::cli::Init;
use crate::keyfile::{self, Key};
use crate::passphrase::Passphrase;
use crate::repository::{Config, Repository};

/// How many keys each role has, and how many must sign.
struct Plan {
    root: (u32, u32),
    approvers: (u32, u32),
    operators: (u32, u32),
    packages: Vec<String>,
}

/// The keys, opened.
struct Keys {
    root: Vec<Key>,
    targets: Key,
    approvers: Vec<Key>,
    operators: Vec<Key>,
    brake: Key,
    online: Key,
    packager: Key,
}

#[derive(Serialize)]
struct RoleSummary {
    role: String,
    holder: &'static str,
    keys: Vec<String>,
    threshold: i64,
}

pub(super) fn run(context: &mut Context, arguments: &Init) -> Result<(), Failure> {
    let config = Config { catalogue_bin_bits: arguments.bins, ..Config::default() };
    let repository = Repository::create(&context.directory, config.clone())?;
    let _lock = repository.lock()?;
    let plan = Plan::new(arguments)?;
    let keys = Keys::make(&plan, &arguments.keys, &mut context.passphrase)?;

    let config = toml::to_string_pretty(&config).unwrap_or_default();
    repository.write("repository.toml", config.as_bytes())?;
    let packager_until = context.now + SignedDuration::from_hours(24 * 730);
    let packagers = Packagers::new(vec![Packager {
        from: context.now,
        key: keys.packager.public(),
        packages: plan.packages.iter().map(PathPattern::new).collect(),
        until: packager_until,
    }]);
    let packagers = packagers.to_bytes().or_fail(|| "cannot write the list of packagers".to_owned())?;
    let deployment = Deployment::new(Vec::new())
        .and_then(|deployment| deployment.to_bytes().map_err(mirabelle_manifests::DeploymentError::Malformed))
        .or_fail(|| "cannot write the deployment".to_owned())?;
    let brake = Brake::default().to_bytes().or_fail(|| "cannot write the brake".to_owned())?;

    let (approvers, operators) = (signers(&keys.approvers), signers(&keys.operators));
    let mut targets = empty(&repository, &RoleName::targets(), context);
    targets.delegations = Some(keys.delegations(&plan));
    list(&repository, &mut targets, PACKAGERS_TARGET, &packagers)?;
    write(&repository, &RoleName::targets(), &targets, &[keys.targets.as_ref()])?;
    let mut catalogue = empty(&repository, &catalogue_role(), context);
    catalogue.delegations = keys.bins(&plan, arguments.bins)?;
    write(&repository, &catalogue_role(), &catalogue, &approvers)?;
    for bin in repository.catalogue_bins()? {
        write(&repository, &bin, &empty(&repository, &bin, context), &approvers)?;
    }
    let mut role = empty(&repository, &deployment_role(), context);
    list(&repository, &mut role, DEPLOYMENT_TARGET, &deployment)?;
    write(&repository, &deployment_role(), &role, &operators)?;
    let mut role = empty(&repository, &brake_role(), context);
    list(&repository, &mut role, BRAKE_TARGET, &brake)?;
    write(&repository, &brake_role(), &role, &[keys.brake.as_ref()])?;

    // The root comes last: a repository without one is none, and `init` can be run again.
    let root = keys.root_document(&plan, &repository, context);
    write(&repository, &RoleName::root(), &root, &signers(&keys.root))?;

    let what = vec![format!("{} approvers of whom {} must approve", plan.approvers.0, plan.approvers.1)];
    let keys = keys.root.iter().map(|key| key.public().id()).collect();
    repository.record(Record { event: Event::Initialised, document: None, keys, what }, context.now)?;
    let summary = summary(&root, &targets);
    context.output.print(&summary, |summary| {
        let mut table = Table::new(["role", "held by", "keys", "must sign"]).right([3]);
        for role in summary {
            table.row([role.role.clone(), role.holder.to_owned(), role.keys.join(" "), role.threshold.to_string()]);
        }
        format!(
            "{}\nThe repository is in `{}`, its keys in `{}`.\nNext: build a release, submit, review, approve, \
             deploy, publish, serve.",
            table.render(),
            context.directory.display(),
            arguments.keys.display()
        )
    });
    Ok(())
}

impl Plan {
    fn new(arguments: &Init) -> Result<Self, Failure> {
        let guided = !arguments.yes && io::stdin().is_terminal();
        let number = |given: Option<u32>, question: &str, default: u32| match given {
            Some(number) => Ok(number),
            None if guided => ask_number(question, default),
            None => Ok(default),
        };
        let root_keys = number(arguments.root_keys, "Keys of the root role, held by different people", 3)?;
        let root_threshold =
            number(arguments.root_threshold, "How many of them must sign", root_keys.min(2))?;
        let approvers = number(arguments.approvers, "Approvers at the rectorat", 2)?;
        let approval_threshold =
            number(arguments.approval_threshold, "How many must approve a release", approvers.min(2))?;
        let operators = number(arguments.operators, "Operators at the département", 1)?;
        let operator_threshold = number(arguments.operator_threshold, "How many must sign a deployment", 1)?;
        let packages =
            if arguments.packages.is_empty() { vec!["*".to_owned()] } else { arguments.packages.clone() };
        let plan = Self {
            root: (root_keys, root_threshold),
            approvers: (approvers, approval_threshold),
            operators: (operators, operator_threshold),
            packages,
        };
        for (role, (keys, threshold)) in
            [("root", plan.root), ("approvers", plan.approvers), ("operators", plan.operators)]
        {
            if threshold == 0 || threshold > keys || keys > 16 {
                return Err(Failure::usage(format!("{threshold} of {keys} {role} is no threshold"))
                    .hint("1 ≤ threshold ≤ keys ≤ 16"));
            }
        }
        Ok(plan)
    }
}

fn ask_number(question: &str, default: u32) -> Result<u32, Failure> {
    match ask(&format!("{question} [{default}]:"))?.as_str() {
        "" => Ok(default),
        answer => answer.parse().map_err(|_| Failure::usage(format!("`{answer}` is no number"))),
    }
}

impl Keys {
    fn make(plan: &Plan, directory: &Path, passphrase: &mut Passphrase) -> Result<Self, Failure> {
        let mut key = |name: &str| {
            let path = directory.join(format!("{name}.key"));
            if path.exists() {
                keyfile::open_file(&path, passphrase)
            } else {
                keyfile::create_file(&path, passphrase)
            }
        };
        let mut several = |name: &str, count: u32| {
            (1..=count).map(|number| key(&format!("{name}-{number}"))).collect::<Result<Vec<_>, _>>()
        };
        let root = several("root", plan.root.0)?;
        let approvers = several("approver", plan.approvers.0)?;
        let operators = several("operator", plan.operators.0)?;
        let packager = key("packager-1")?;
        Ok(Self {
            root,
            targets: key("targets")?,
            approvers,
            operators,
            brake: key("brake")?,
            online: key("online")?,
            packager,
        })
    }

    fn delegations(&self, plan: &Plan) -> Delegations {
        let holders = |role: &RoleName| -> (Vec<PublicKey>, u32) {
            if *role == catalogue_role() {
                (publics(&self.approvers), plan.approvers.1)
            } else if *role == deployment_role() {
                (publics(&self.operators), plan.operators.1)
            } else {
                (vec![self.brake.public()], 1)
            }
        };
        let mut delegations = Delegations::default();
        for (name, paths) in delegated_roles() {
            let (keys, threshold) = holders(&name);
            delegations.roles.push(DelegatedRole {
                name,
                keys: role_keys(&keys, threshold),
                terminating: true,
                paths: Some(vec![paths]),
                path_hash_prefixes: None,
            });
            delegations.keys.extend(keys.into_iter().map(|key| (key.id(), key)));
        }
        delegations
    }

    /// The catalogue's bins, held by the approvers as well.
    fn bins(&self, plan: &Plan, bits: Option<u8>) -> Result<Option<Delegations>, Failure> {
        let Some(bits) = bits else { return Ok(None) };
        let approvers = publics(&self.approvers);
        let keys = role_keys(&approvers, plan.approvers.1);
        let bins = SuccinctRoles::new(bits, keys, catalogue_role().as_str())
            .map_err(|error| Failure::usage(error.to_string()))?;
        let keys = approvers.into_iter().map(|key| (key.id(), key)).collect();
        Ok(Some(Delegations { keys, roles: Vec::new(), bins: Some(bins) }))
    }

    fn root_document(&self, plan: &Plan, repository: &Repository, context: &Context) -> Root {
        let mut root = Root::new(1, repository.expiry(&RoleName::root(), context.now));
        let online = vec![self.online.public()];
        let mut role = |role: RoleName, keys: Vec<PublicKey>, threshold: u32| {
            root.roles.insert(role, role_keys(&keys, threshold));
            root.keys.extend(keys.into_iter().map(|key| (key.id(), key)));
        };
        role(RoleName::root(), publics(&self.root), plan.root.1);
        role(RoleName::targets(), vec![self.targets.public()], 1);
        role(RoleName::snapshot(), online.clone(), 1);
        role(RoleName::timestamp(), online, 1);
        root.grace_days = Some(repository.grace_days());
        let approvers = publics(&self.approvers);
        root.quorums = BTreeMap::from([(catalogue_role(), role_keys(&approvers, plan.approvers.1))]);
        root.keys.extend(approvers.into_iter().map(|key| (key.id(), key)));
        root
    }
}

fn publics(keys: &[Key]) -> Vec<PublicKey> {
    keys.iter().map(|key| key.public()).collect()
}

fn signers(keys: &[Key]) -> Vec<&dyn Signer> {
    keys.iter().map(AsRef::as_ref).collect()
}

fn role_keys(keys: &[PublicKey], threshold: u32) -> RoleKeys {
    RoleKeys { keyids: keys.iter().map(PublicKey::id).collect(), threshold: threshold.into() }
}

fn empty(repository: &Repository, role: &RoleName, context: &Context) -> Targets {
    Targets::new(1, repository.expiry(role, context.now))
}

fn list(repository: &Repository, role: &mut Targets, path: &str, bytes: &[u8]) -> Result<(), Failure> {
    let path = TargetPath::new(path);
    repository.put_target(&path, bytes)?;
    role.targets.insert(path, TargetFile::of(bytes, None));
    Ok(())
}

fn write<T: Serialize>(
    repository: &Repository,
    role: &RoleName,
    document: &T,
    keys: &[&dyn Signer],
) -> Result<(), Failure> {
    let bytes = tuf::sign(document, keys).or_fail(|| format!("cannot sign `{role}`"))?;
    repository.write_role(role, 1, &bytes)
}

fn summary(root: &Root, targets: &Targets) -> Vec<RoleSummary> {
    let holder = |role: &str| match role {
        "root" => "département and rectorat, offline",
        "targets" => "département, offline",
        "catalogue" => "approvers, rectorat",
        "deployment" => "operators, département",
        _ => "the server, online",
    };
    let delegated =
        targets.delegations.iter().flat_map(|all| &all.roles).map(|role| (&role.name, &role.keys));
    root.roles
        .iter()
        .chain(delegated)
        .map(|(role, keys)| RoleSummary {
            role: role.to_string(),
            holder: holder(role.as_str()),
            keys: keys.keyids.iter().map(|id| id.short().to_owned()).collect(),
            threshold: keys.threshold,
        })
        .collect()
}
