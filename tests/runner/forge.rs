//! What somebody does who holds some keys and not others: documents signed by hand, past the publisher's own checks.

use std::path::Path;

use fs_err as fs;
use mirabelle_keys::{SealedKey, SigningKey};
use mirabelle_manifests::TargetPath;
use mirabelle_manifests::network::target_path;
use mirabelle_manifests::tuf::{self, Document, RoleName, TargetFile, Targets};
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

pub(crate) fn write(path: &Path, bytes: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}
