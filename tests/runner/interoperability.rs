//! What we publish, other TUF clients read; what another publishes, ours reads.

use std::process::Command;

use fs_err as fs;
use mirabelle_manifests::TargetPath;
use mirabelle_manifests::network::{BRAKE_TARGET, DEPLOYMENT_TARGET, PACKAGERS_TARGET, target_path};
use mirabelle_manifests::tuf::{Document, Targets};
use mirabelle_tests::{App, Programs, Running, World, run};

use crate::witness::{python, tough};

/// What the tests below read from a node: a target of each role, and the role.
const TARGETS: [(&str, &str); 4] = [
    (PACKAGERS_TARGET, "targets"),
    ("packages/hello/1.0/any/release.json", "catalogue"),
    (DEPLOYMENT_TARGET, "deployment"),
    (BRAKE_TARGET, "brake"),
];

/// A college whose node serves `hello`, and the node's address.
fn world() -> (World, String) {
    let mut world = World::new().college("57001").start();
    world.release(&App::new("hello", 1));
    let college = world.college("57001");
    college.sync();
    let node = college.running_node().unwrap().address().to_owned();
    (world, node)
}

/// The bytes of a target, as its role lists it at the publisher's.
fn published(world: &World, target: &str, role: &str) -> Vec<u8> {
    let role = fs::read(world.path(&format!("repository/roles/{role}.json"))).unwrap();
    let listed = Document::<Targets>::parse(&role).unwrap().signed.targets;
    let target = TargetPath::new(target);
    let digest = listed[&target].hashes.sha256().unwrap();
    fs::read(world.path("repository/public").join(target_path(&target, digest).unwrap())).unwrap()
}

#[test]
fn tough_reads_a_repository_of_ours_from_a_node() {
    let (world, node) = world();
    let mut command = tough();
    command
        .arg(world.trusted_root())
        .arg(format!("{node}metadata/"))
        .arg(format!("{node}targets/"))
        .args(TARGETS.map(|(target, _)| target));
    let outcome = run(&mut command).succeeds();
    let mut expected = vec!["root 1".to_owned(), "listed 4".to_owned()];
    expected.extend(
        TARGETS.map(|(target, role)| format!("read {target} {}", published(&world, target, role).len())),
    );
    assert_eq!(outcome.stdout.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn python_tuf_reads_a_repository_of_ours_from_a_node() {
    let (world, node) = world();
    let mut command = python("read.py");
    command.arg(world.trusted_root()).arg(format!("{node}metadata/")).arg(format!("{node}targets/"));
    command.arg(world.path("python-tuf")).args(TARGETS.map(|(target, _)| target));
    let outcome = run(&mut command).succeeds();
    let files: Vec<&str> = outcome.stdout.lines().collect();
    assert_eq!(files.len(), TARGETS.len());
    for ((target, role), file) in TARGETS.into_iter().zip(files) {
        assert_eq!(fs::read(file).unwrap(), published(&world, target, role), "{target}");
    }
}

/// Ed25519, P-256 and RSA keys, a rotated root, delegations with a threshold of two, the bins of TAP 15, SHA-512 alone.
#[test]
fn we_read_a_repository_of_python_tuf() {
    let directory = tempfile::tempdir().unwrap();
    let repository = directory.path().join("repository");
    run(python("publish.py").arg(&repository)).succeeds();
    let server = Running::start(python("serve.py").arg(&repository));
    let client = || {
        let mut command = Command::new(Programs::built().directory().join("tuf-conformance-client"));
        command.arg("--metadata-dir").arg(directory.path().join("store"));
        command
    };
    run(client().arg("init").arg(repository.join("metadata/1.root.json"))).succeeds();

    let names = fs::read_to_string(repository.join("targets/TARGETS.txt")).unwrap();
    let downloads = directory.path().join("downloads");
    fs::create_dir(&downloads).unwrap();
    let mut download = client();
    download.args(["--metadata-url", &format!("{}metadata/", server.address())]);
    download.args(["--target-base-url", &format!("{}targets/", server.address())]);
    for name in names.lines() {
        download.args(["--target-name", name]);
    }
    run(download.arg("--target-dir").arg(&downloads).arg("download")).succeeds();
    assert_eq!(names.lines().count(), 45);
    assert_eq!(fs::read_dir(&downloads).unwrap().count(), 45);
    assert_eq!(fs::read(downloads.join("bins%2F17")).unwrap(), b"in a bin: 17");
    assert_eq!(fs::read(downloads.join("signed%2Ftwice.txt")).unwrap(), b"by an rsa key and a P-256 one");
    assert_eq!(fs::read(downloads.join("empty")).unwrap(), b"");

    // Whatever python-tuf signed and somebody changed is refused.
    let path = repository.join("metadata/1.bin-0.json");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(
        &path,
        text.replacen("\"version\": 1", "\"version\": 2", 1).replacen("\"version\":1", "\"version\":2", 1),
    )
    .unwrap();
    assert_ne!(fs::read_to_string(&path).unwrap(), text);
    fs::remove_file(directory.path().join("store/bin-0.json")).unwrap();
    run(&mut download).fails(1, "does not have the length or digest");
}
