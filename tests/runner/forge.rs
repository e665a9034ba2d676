//! What somebody does who holds some keys and not others: documents signed by hand, past the publisher's own checks.

use std::path::Path;

use fs_err as fs;
use mirabelle_keys::{SealedKey, SigningKey};
use mirabelle_manifests::TargetPath;
use mirabelle_manifests::network::{
    DEPLOYMENT_TARGET, brake_role, catalogue_role, deployment_role, metadata_path, target_path,
};
use mirabelle_manifests::tuf::{
    self, Document, FileMeta, RoleName, Snapshot, TargetFile, Targets, Timestamp,
};
use mirabelle_tests::{PASSPHRASE, World};

/// Opens a key of the world.
pub(crate) fn key(world: &World, name: &str) -> SigningKey {
    let text = fs::read_to_string(world.path(&format!("keys/{name}.key"))).unwrap();
    SealedKey::from_text(&text).unwrap().open(PASSPHRASE.as_bytes()).unwrap()
}

/// Changes a targets role and signs it with `keys`, whoever they belong to.
pub(crate) fn resign(
    world: &World,
    role: &RoleName,
    keys: &[&SigningKey],
    change: impl FnOnce(&mut Targets),
) {
    let path = world.path(&format!("repository/roles/{}.json", role.file_stem()));
    let mut document = Document::<Targets>::parse(&fs::read(&path).unwrap()).unwrap().signed;
    document.version += 1;
    change(&mut document);
    fs::write(&path, tuf::sign(&document, keys).unwrap()).unwrap();
}

/// Lists a target in a role, and puts its bytes where the publisher keeps them.
pub(crate) fn list(
    world: &World,
    targets: &mut Targets,
    path: &str,
    bytes: &[u8],
    custom: Option<serde_json::Value>,
) {
    let path = TargetPath::new(path);
    let file = TargetFile::of(bytes, custom);
    let digest = file.hashes.sha256().unwrap();
    write(&world.path("repository").join(target_path(&path, digest).unwrap()), bytes);
    targets.targets.insert(path, file);
}

/// What whoever holds the server and its online key can do: publish what is in `roles/`, signed by whomever, past the
/// checks of `publish`.
pub(crate) fn publish(world: &World) {
    let (repository, public) = (world.path("repository"), world.path("repository/public"));
    let online = key(world, "online");
    let expires = "2099-01-01T00:00:00Z".parse().unwrap();
    let timestamp_path = public.join(metadata_path(&RoleName::timestamp(), None));
    let last = Document::<Timestamp>::parse(&fs::read(&timestamp_path).unwrap()).unwrap().signed;
    let mut snapshot = Snapshot::new(last.snapshot().unwrap().version + 1, expires);
    for role in [RoleName::targets(), catalogue_role(), deployment_role(), brake_role()] {
        let bytes = fs::read(repository.join(format!("roles/{}.json", role.file_stem()))).unwrap();
        let document = Document::<Targets>::parse(&bytes).unwrap().signed;
        for (path, file) in &document.targets {
            let below = target_path(path, file.hashes.sha256().unwrap()).unwrap();
            write(&public.join(&below), &fs::read(repository.join(&below)).unwrap());
        }
        write(&public.join(metadata_path(&role, Some(document.version))), &bytes);
        snapshot.meta.insert(role.meta_name(), FileMeta::of(document.version, &bytes));
    }
    let bytes = tuf::sign(&snapshot, &[&online]).unwrap();
    write(&public.join(metadata_path(&RoleName::snapshot(), Some(snapshot.version))), &bytes);
    let mut timestamp = Timestamp::new(last.version + 1, expires);
    timestamp.meta.insert(RoleName::snapshot().meta_name(), FileMeta::of(snapshot.version, &bytes));
    write(&timestamp_path, &tuf::sign(&timestamp, &[&online]).unwrap());
}

pub(crate) fn write(path: &Path, bytes: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

/// Puts a whole deployment in place of what is deployed, as its operator; `publish` makes it known.
pub(crate) fn deploy(world: &World, policy: &serde_json::Value) {
    resign(world, &deployment_role(), &[&key(world, "operator-1")], |document| {
        list(world, document, DEPLOYMENT_TARGET, policy.to_string().as_bytes(), None);
    });
}
