//! Promise 1. Nothing is installed that was not signed by an authorised packager *and* approved by the rectorat's
//! threshold. Neither alone, nor the origin server, nor a node, nor a mirror, can ship software.

use std::path::Path;

use fs_err as fs;
use mirabelle_keys::SigningKey;
use mirabelle_manifests::network::{
    DEPLOYMENT_TARGET, bundle_path, catalogue_role, deployment_role, metadata_path, routes_path, sbom_path,
};
use mirabelle_manifests::tuf::RoleName;
use mirabelle_manifests::{Digest, Listing, SignedRelease};
use mirabelle_tests::{App, World};

use crate::forge::{key, list, publish, resign, write};

/// A world in which `hello` 1 is installed and served.
fn world() -> World {
    let mut world = World::new().college("57001").workstations(2).start();
    world.release(&App::new("hello", 1));
    let college = world.college("57001");
    college.sync();
    for number in [0, 1] {
        college.workstation(number).run(["install", "hello"]).succeeds();
    }
    world
}

/// After an attack: the node refused it with exit code 4 and `words`, and everything is as it was.
fn is_refused(world: &mut World, words: &str) {
    let college = world.college("57001");
    college.stop_node();
    college.node(["sync"]).fails(4, words);
    college.start_node();
    let workstation = college.workstation(0);
    workstation.run(["update"]).succeeds();
    assert_eq!(workstation.launch("hello", &[]).succeeds().stdout, "hello 1.0\n");
    // Straight from the origin, past the node, it is refused as well: by another workstation, since this one must not
    // go back to an older timestamp afterwards.
    let origin = world.origin().to_owned();
    let direct = world.college("57001").workstation(1);
    direct.run(["--node", &origin, "update"]).fails(4, words);
    assert_eq!(direct.launch("hello", &[]).succeeds().stdout, "hello 1.0\n");
}

/// Puts a built release where `publish` would, and lists it in a catalogue signed by `signers`.
fn list_by_hand(world: &World, built: &Path, signers: &[&SigningKey]) {
    let manifest = fs::read(built.join("release.json")).unwrap();
    let release = SignedRelease::parse(&manifest).unwrap().release;
    let listing = serde_json::to_value(Listing::of(&release)).unwrap();
    resign(world, &catalogue_role(), signers, |catalogue| {
        list(world, catalogue, release.target_path().as_str(), &manifest, Some(listing));
    });
    let public = world.path("repository/public");
    write(&public.join(bundle_path(release.bundle.sha256)), &fs::read(built.join("bundle.tar.zst")).unwrap());
    let sbom = release.sbom.unwrap();
    write(&public.join(sbom_path(sbom.sha256)), &fs::read(built.join("sbom.cdx.json")).unwrap());
    write(&public.join(routes_path(Digest::of(&manifest))), br#"{"bundle":true}"#);
}

/// Deploys release 2 of `hello`, approved or not, with the operator's own key.
fn deploy_by_hand(world: &World) {
    let policy = serde_json::json!({"_type": "deployment", "assignments": [{
        "mode": "required", "package": "hello", "track": {"pinned": {"sequence": 2, "version": "2.0"}}
    }]});
    resign(world, &deployment_role(), &[&key(world, "operator-1")], |deployment| {
        list(world, deployment, DEPLOYMENT_TARGET, &serde_json::to_vec(&policy).unwrap(), None);
    });
}

#[test]
fn refuses_what_the_rectorat_approved_but_no_packager_signed() {
    let mut world = world();
    world.publisher(["key", "new", "keys/stranger.key"]).succeeds();
    let built = world.build(&App::new("hello", 2));
    let manifest = fs::read(built.join("release.json")).unwrap();
    let release = SignedRelease::parse(&manifest).unwrap().release;
    fs::write(built.join("release.json"), release.sign(&key(&world, "stranger")).unwrap()).unwrap();

    world.publisher(["submit".as_ref(), built.as_os_str()]).fails(4, "no authorised packager signed it");
    list_by_hand(&world, &built, &[&key(&world, "approver-1"), &key(&world, "approver-2")]);
    deploy_by_hand(&world);
    publish(&world);
    is_refused(&mut world, "no packager stands behind it");
}

#[test]
fn refuses_a_manifest_that_was_changed_after_its_packager_signed() {
    let mut world = world();
    let built = world.build(&App::new("hello", 2));
    let manifest = fs::read_to_string(built.join("release.json")).unwrap();
    fs::write(built.join("release.json"), manifest.replace("Dit bonjour", "Dit au revoir")).unwrap();

    world.publisher(["submit".as_ref(), built.as_os_str()]).fails(4, "is not valid over this manifest");
    list_by_hand(&world, &built, &[&key(&world, "approver-1"), &key(&world, "approver-2")]);
    deploy_by_hand(&world);
    publish(&world);
    is_refused(&mut world, "is not valid over this manifest");
}

#[test]
fn passes_over_what_is_deployed_but_was_never_approved() {
    let mut world = world();
    world.submit(&App::new("hello", 2));
    let deploy = ["deploy", "hello@2.0", "--colleges", "all", "--key", "keys/operator-1.key"];
    world.publisher(deploy).fails(1, "`hello@2.0` is not approved");
    deploy_by_hand(&world);
    publish(&world);
    let college = world.college("57001");
    college.sync();
    let workstation = college.workstation(0);
    workstation.run(["install", "hello"]).fails(1, "the rectorat has not approved it");
    workstation.run(["update"]).succeeds();
    assert_eq!(workstation.launch("hello", &[]).succeeds().stdout, "hello 1.0\n");
}

#[test]
fn one_approver_of_two_is_not_enough() {
    let mut world = world();
    let app = App::new("hello", 2);
    world.submit(&app);
    let approve =
        |key: &str| world.publisher(["--json", "approve", "hello@2.0", "--key", key]).succeeds().json();
    assert_eq!(approve("keys/approver-1.key")["waiting"]["have"], 1);
    world
        .publisher(["approve", "hello@2.0", "--key", "keys/operator-1.key"])
        .fails(4, "does not hold the role `catalogue`");
    world.publish();
    world.college("57001").sync();
    let info = world.college("57001").workstation(0).run(["refresh"]).succeeds();
    assert!(info.stdout.contains("1 approved releases"), "{}", info.stdout);
    // The same approver once more is still one.
    let approve =
        |key: &str| world.publisher(["--json", "approve", "hello@2.0", "--key", key]).succeeds().json();
    assert_eq!(approve("keys/approver-1.key")["waiting"]["have"], 1);
    assert!(approve("keys/approver-2.key")["complete"].is_object());

    // And a catalogue that only one signed is refused wherever it comes from.
    let built = world.build(&App::new("hello", 3));
    list_by_hand(&world, &built, &[&key(&world, "approver-1")]);
    publish(&world);
    is_refused(&mut world, "`catalogue` is not signed as `targets` demands");
}

#[test]
fn the_targets_role_cannot_name_other_approvers() {
    let mut world = world();
    let mine = SigningKey::generate();
    resign(&world, &RoleName::targets(), &[&key(&world, "targets")], |targets| {
        let delegations = targets.delegations.as_mut().unwrap();
        let catalogue = delegations.roles.iter_mut().find(|role| role.name == catalogue_role()).unwrap();
        catalogue.keys.keyids = vec![mine.public().id()];
        catalogue.keys.threshold = 1;
        delegations.keys.insert(mine.public().id(), mine.public());
    });
    let built = world.build(&App::new("hello", 2));
    list_by_hand(&world, &built, &[&mine]);
    deploy_by_hand(&world);
    publish(&world);
    is_refused(&mut world, "`catalogue` is not signed as `root` demands");
}

#[test]
fn a_packager_signs_only_what_is_hers() {
    let world = World::new().start();
    world.publisher(["key", "new", "keys/visitor.key"]).succeeds();
    let add = ["packager", "add", "keys/visitor.pub", "--packages", "geogebra", "--key", "keys/targets.key"];
    world.publisher(add).succeeds();
    let built = world.build(&App::new("hello", 2));
    let manifest = fs::read(built.join("release.json")).unwrap();
    let release = SignedRelease::parse(&manifest).unwrap().release;
    fs::write(built.join("release.json"), release.sign(&key(&world, "visitor")).unwrap()).unwrap();
    world.publisher(["submit".as_ref(), built.as_os_str()]).fails(4, "may not sign `hello`");
}

#[test]
fn a_server_that_changes_any_file_is_noticed() {
    let mut world = world();
    world.release(&App::new("hello", 2));
    let public = world.path("repository/public");
    // Plain, so that what is changed is what is sent; encoded forms decode to the same bytes or are asked for again.
    fs::remove_dir_all(public.join("encoded")).unwrap();
    let manifest =
        fs::read_dir(public.join("targets/packages/hello/2.0/any")).unwrap().next().unwrap().unwrap().path();
    let versioned = |role: &str, version| public.join(metadata_path(&RoleName::new(role), version));
    let (timestamp, snapshot) = (versioned("timestamp", None), versioned("snapshot", Some(3)));
    let (catalogue, deployment) = (versioned("catalogue", Some(3)), versioned("deployment", Some(3)));
    let read = |path: &Path| fs::read(path).unwrap();
    // A digit of some number or digest: the document still parses, the signature no longer covers it.
    let altered = |path: &Path| {
        let mut bytes = read(path);
        let digit = bytes.iter().rposition(|byte| (b'0'..=b'8').contains(byte)).unwrap();
        bytes[digit] += 1;
        bytes
    };
    let mismatch = "does not have the length or digest";
    // In the order they are fetched: what was verified once is kept, and not asked for again.
    let cases = [
        (&timestamp, altered(&timestamp), "`timestamp` is not signed"),
        (&timestamp, vec![b' '; 100_000], "bytes it may have"),
        (&snapshot, altered(&snapshot), mismatch),
        (&snapshot, read(&snapshot)[..100].to_vec(), mismatch),
        (&snapshot, Vec::new(), mismatch),
        (&catalogue, altered(&catalogue), mismatch),
        (&catalogue, [read(&catalogue), vec![b' '; 4096]].concat(), "bytes it may have"),
        (&catalogue, read(&deployment), mismatch),
        (&manifest, altered(&manifest), "the rectorat approved another manifest"),
        (&manifest, read(&manifest)[..200].to_vec(), "the rectorat approved another manifest"),
    ];
    for (path, bad, words) in cases {
        let good = read(path);
        fs::write(path, bad).unwrap();
        is_refused(&mut world, words);
        fs::write(path, good).unwrap();
    }
    world.college("57001").sync();
    world.college("57001").workstation(0).run(["update"]).succeeds();
    assert_eq!(world.college("57001").workstation(0).launch("hello", &[]).succeeds().stdout, "hello 2.0\n");
}
