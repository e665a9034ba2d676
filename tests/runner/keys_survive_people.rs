//! Keys change and the network goes on: signatures are gathered over time and machines, any key of any role is replaced
//! with one command, a packager is revoked, and no release is signed again and no machine visited.

use std::path::Path;

use fs_err as fs;
use mirabelle_manifests::tuf::{self, Document, Timestamp};
use mirabelle_tests::{App, Outcome, PASSPHRASE, Programs, World, run};

use crate::forge::key;

/// A college in which `hello` 1 is installed.
fn world() -> World {
    let mut world = World::new().college("57001").workstations(1).start();
    world.release(&App::new("hello", 1));
    goes_on(&mut world, 1);
    world
}

/// The college mirrors, and its workstation comes to `version`.
fn goes_on(world: &mut World, version: u64) {
    let college = world.college("57001");
    college.sync();
    let workstation = college.workstation(0);
    workstation.run(["install", "hello"]).succeeds();
    let said = workstation.launch("hello", &[]).succeeds().stdout;
    assert_eq!(said, format!("hello {version}.0\n"));
}

/// Makes a key, and returns the id of one that is there.
fn new_key(world: &World, name: &str) {
    world.publisher(["key", "new", &format!("keys/{name}.key")]).succeeds();
}

fn id(world: &World, name: &str) -> String {
    let shown = world.publisher(["--json", "key", "show", &format!("keys/{name}.pub")]).succeeds().json();
    shown["key_id"].as_str().unwrap().to_owned()
}

/// Signs a draft as a holder does who has nothing but the draft and her key: in a directory of her own, without the
/// repository.
fn sign_elsewhere(world: &World, draft: &str, key: &str) -> (Outcome, String) {
    let away = tempfile::tempdir().unwrap();
    fs::copy(world.path(draft), away.path().join("draft.json")).unwrap();
    fs::copy(world.path(&format!("keys/{key}.key")), away.path().join("mine.key")).unwrap();
    let mut sign = std::process::Command::new(Programs::built().publisher());
    sign.current_dir(away.path()).env("MIRABELLE_PASSPHRASE", PASSPHRASE).env_remove("MIRABELLE_LOG");
    let signature = world.path(&format!("{key}.sig.json"));
    let outcome = run(sign
        .args(["--json", "sign", "draft.json", "--key", "mine.key", "--yes", "--out"])
        .arg(Path::new(&signature)));
    (outcome, signature.display().to_string())
}

#[test]
fn two_approvers_sign_on_their_own_machines_and_nothing_is_published_before() {
    let mut world = world();
    world.submit(&App::new("hello", 2));
    world.publisher(["approve", "hello@2.0"]).succeeds();
    world.publisher(["draft", "export", "catalogue", "--out", "c.json"]).succeeds();
    let status = world.publisher(["status"]).succeeds().stdout;
    assert!(status.contains("0 of 2 signatures: nobody yet; can still sign:"), "{status}");

    let (signed, first) = sign_elsewhere(&world, "c.json", "approver-1");
    let signed = signed.succeeds();
    assert!(signed.stderr.contains("approves hello 2.0 for any (sequence 2), manifest"), "{}", signed.stderr);
    assert_eq!(signed.json()["role"], "catalogue");
    world.publisher(["draft", "import", &first]).succeeds();
    world.publish();
    goes_on(&mut world, 1);

    let (_, second) = sign_elsewhere(&world, "c.json", "approver-2");
    let imported = world.publisher(["draft", "import", &second]).succeeds().stdout;
    assert!(imported.contains("`catalogue` is complete"), "{imported}");
    world.deploy(&App::new("hello", 2), "all");
    world.publish();
    goes_on(&mut world, 2);
}

#[test]
fn refuses_signatures_of_strangers_for_other_drafts_and_drafts_that_were_changed() {
    let world = world();
    world.submit(&App::new("hello", 2));
    world.publisher(["approve", "hello@2.0"]).succeeds();
    world.publisher(["draft", "export", "catalogue", "--out", "c.json"]).succeeds();
    let (_, stranger) = sign_elsewhere(&world, "c.json", "operator-1");
    world.publisher(["draft", "import", &stranger]).fails(4, "does not hold the role `catalogue`");

    // Somebody on the way changes what is approved: the signature is for something that does not wait here.
    let draft = fs::read_to_string(world.path("c.json")).unwrap();
    fs::write(world.path("c.json"), draft.replace("Dit bonjour", "Dit au revoir")).unwrap();
    let (_, bent) = sign_elsewhere(&world, "c.json", "approver-1");
    world
        .publisher(["draft", "import", &bent])
        .fails(4, "did not sign the draft of `catalogue` that waits here");

    // The same with a small file that travels beside the document: refused before anybody signs.
    let deploy = ["deploy", "hello@1.0", "--colleges", "57001"];
    world.publisher(deploy).succeeds();
    world.publisher(["draft", "export", "deployment", "--out", "d.json"]).succeeds();
    let draft = fs::read_to_string(world.path("d.json")).unwrap();
    assert!(draft.contains("57001"));
    fs::write(world.path("d.json"), draft.replace("57001", "57002")).unwrap();
    let (refused, _) = sign_elsewhere(&world, "d.json", "operator-1");
    refused.fails(4, "the draft shows another `deployment/policy.json` than it would have signed");

    // What it replaces is made to look like what it becomes: nothing seems to change. Nobody signed that.
    world.publisher(["draft", "export", "catalogue", "--out", "c.json"]).succeeds();
    let mut bent: serde_json::Value =
        serde_json::from_slice(&fs::read(world.path("c.json")).unwrap()).unwrap();
    bent["previous"]["signed"] = bent["draft"]["signed"].clone();
    fs::write(world.path("c.json"), bent.to_string()).unwrap();
    let (shown, _) = sign_elsewhere(&world, "c.json", "approver-1");
    let words = shown.succeeds().stderr;
    assert!(
        words.contains("was not signed with this key") && words.contains("approves hello 2.0"),
        "{words}"
    );

    // The small file is left out, and what is signed would be a digest to whoever reads.
    world.publisher(["draft", "export", "deployment", "--out", "d.json"]).succeeds();
    let mut bare: serde_json::Value =
        serde_json::from_slice(&fs::read(world.path("d.json")).unwrap()).unwrap();
    bare["files"] = serde_json::json!({});
    fs::write(world.path("d.json"), bare.to_string()).unwrap();
    let (refused, _) = sign_elsewhere(&world, "d.json", "operator-1");
    refused.fails(4, "it does not show what is in `deployment/policy.json`");

    // Something that the words would not tell of.
    fs::write(
        world.path("d.json"),
        draft.replacen(r#""_type":"targets""#, r#""_type":"targets","x-also":1"#, 1),
    )
    .unwrap();
    let (shown, _) = sign_elsewhere(&world, "d.json", "operator-1");
    assert!(shown.stderr.contains("HOLDS SOMETHING THAT THIS VERSION DOES NOT KNOW"), "{}", shown.stderr);

    // And what is no draft at all.
    for text in ["", "{}", "[1,2", r#"{"_type":"mirabelle-draft","format":9}"#] {
        fs::write(world.path("n.json"), text).unwrap();
        let (refused, _) = sign_elsewhere(&world, "n.json", "operator-1");
        assert_ne!(refused.code, Some(0));
        assert!(refused.stderr.contains("is no draft that can be signed"), "{}", refused.stderr);
    }
    world.publisher(["draft", "discard", "catalogue"]).succeeds();
    world.publisher(["draft", "show", "catalogue"]).fails(1, "no draft of `catalogue` waits");
}

#[test]
fn an_approver_leaves_and_her_successor_approves() {
    let mut world = world();
    new_key(&world, "approver-3");
    let leaving = id(&world, "approver-2");
    let replace = ["role", "replace-key", "catalogue", &leaving[..12], "keys/approver-3.pub"];
    world.publisher(replace.iter().chain(&["--dry-run"])).succeeds();

    // Root and targets name her; the catalogue as it is must be signed by those who hold it then.
    let keys = ["--key", "keys/root-1.key", "--key", "keys/targets.key"];
    let begun = world.publisher(replace.iter().chain(&keys)).succeeds().stdout;
    assert!(begun.contains("`catalogue` stays as it is, and is signed once more"), "{begun}");
    // Half signed, everything goes on as before: freshness does not wait for anybody.
    world.publish();
    goes_on(&mut world, 1);

    for (role, holder) in [("root", "root-2"), ("catalogue", "approver-1"), ("catalogue", "approver-3")] {
        let file = format!("{role}.json");
        world.publisher(["draft", "export", role, "--out", &file]).succeeds();
        let (signed, signature) = sign_elsewhere(&world, &file, holder);
        let words = signed.succeeds().stderr;
        match role {
            _ if holder == "approver-3" => {
                // She has signed nothing before, and reads all of it.
                assert!(
                    words.contains("was not signed with this key, so that all of it is listed"),
                    "{words}"
                );
                assert!(words.contains("approves hello 1.0"), "{words}");
            }
            "root" => {
                assert!(words.contains(&format!("key {leaving} no longer holds `catalogue`")), "{words}");
            }
            _ => assert!(words.contains("renews the signatures; nothing else changes"), "{words}"),
        }
        world.publisher(["draft", "import", &signature]).succeeds();
    }
    let status = world.publisher(["status"]).succeeds().stdout;
    assert!(status.contains("drafts waiting for signatures: 0"), "{status}");
    world.publish();
    // No release was signed again: what was installed stays, and the new approver counts.
    goes_on(&mut world, 1);
    world.submit(&App::new("hello", 2));
    let approve = |key: &str| world.publisher(["approve", "hello@2.0", "--key", key]);
    approve("keys/approver-2.key").fails(4, "does not hold the role `catalogue`");
    approve("keys/approver-1.key").succeeds();
    approve("keys/approver-3.key").succeeds();
    world.deploy(&App::new("hello", 2), "all");
    world.publish();
    goes_on(&mut world, 2);
}

/// Three documents take their places one after the other. Killed between any two, with the drafts still there, the next
/// publication moves the rest, and until then nothing that readers would refuse goes out.
#[test]
fn a_rotation_that_is_killed_between_two_moves_is_finished_by_the_next_publication() {
    let world = world();
    new_key(&world, "approver-3");
    let leaving = id(&world, "approver-2");
    let replace = ["role", "replace-key", "catalogue", &leaving[..12], "keys/approver-3.pub"];
    let keys = ["root-1", "root-2", "targets", "approver-1", "approver-3"];
    let keys: Vec<String> =
        keys.iter().flat_map(|key| ["--key".to_owned(), format!("keys/{key}.key")]).collect();
    let before = tempfile::tempdir().unwrap();
    let copy = |from: &Path, to: &Path| {
        run(std::process::Command::new("cp").arg("-a").arg(from).arg(to)).succeeds();
    };
    copy(&world.path("repository"), &before.path().join("repository"));
    world.publisher(replace.iter().map(|word| (*word).to_owned()).chain(keys)).succeeds();
    let role = |name: &str| fs::read(world.path(&format!("repository/roles/{name}.json"))).unwrap();
    let moves = ["catalogue", "root", "targets"].map(|name| (name, role(name)));

    for moved in 0..=moves.len() {
        fs::remove_dir_all(world.path("repository")).unwrap();
        copy(&before.path().join("repository"), &world.path("repository"));
        for (number, (name, bytes)) in moves.iter().enumerate() {
            crate::forge::write(&world.path(&format!("repository/drafts/{name}.json")), bytes);
            if number < moved {
                fs::write(world.path(&format!("repository/roles/{name}.json")), bytes).unwrap();
                if *name == "root" {
                    fs::write(world.path("repository/roots/2.root.json"), bytes).unwrap();
                }
            }
        }
        world.publisher(["status"]).succeeds();
        world.publish();
        for (name, bytes) in &moves {
            assert_eq!(role(name), *bytes, "{name} after {moved} moves");
        }
        world.publisher(["verify"]).succeeds();
    }
}

#[test]
fn any_key_of_any_role_can_be_replaced() {
    let mut world = world();
    let roots = ["--key", "keys/root-1.key", "--key", "keys/root-2.key"];
    // The role, the key that is lost, and who signs besides two holders of root.
    let cases: [(&str, &str, &[&str]); 5] = [
        ("root", "root-3", &[]),
        ("targets", "targets", &["--key", "keys/targets-new.key"]),
        ("deployment", "operator-1", &["--key", "keys/targets-new.key", "--key", "keys/operator-1-new.key"]),
        ("brake", "brake", &["--key", "keys/targets-new.key", "--key", "keys/brake-new.key"]),
        // Freshness is one key with two roles.
        ("snapshot,timestamp", "online", &[]),
    ];
    let mut version = 1;
    for (role, lost, signers) in cases {
        let new = format!("keys/{lost}-new");
        if !world.path(&format!("{new}.key")).exists() {
            new_key(&world, &format!("{lost}-new"));
        }
        let old = id(&world, lost);
        let replace = ["role", "replace-key", role, &old[..12], &format!("{new}.pub")];
        let roots: &[&str] = if ["deployment", "brake"].contains(&role) { &[] } else { &roots };
        let outcome = world.publisher(replace.iter().chain(roots).chain(signers)).succeeds().stdout;
        assert!(!outcome.contains("can still sign"), "{role}: {outcome}");
        fs::remove_file(world.path(&format!("keys/{lost}.key"))).unwrap();
        let online = if lost == "online" { "keys/online-new.key" } else { "keys/online.key" };
        version += 1;
        let app = App::new("hello", version);
        world.submit(&app);
        world.approve(&app);
        let operator = if world.path("keys/operator-1-new.key").exists() {
            "keys/operator-1-new.key"
        } else {
            "keys/operator-1.key"
        };
        world.publisher(["deploy", &app.label(), "--colleges", "all", "--key", operator]).succeeds();
        world.publisher(["publish", "--key", online]).succeeds();
        goes_on(&mut world, version);
    }
    // A new root holder signs the next root; the old one cannot.
    fs::write(world.path("x"), "x").unwrap();
    let renew = ["role", "renew", "root", "--key", "keys/root-1.key", "--key", "keys/root-3-new.key"];
    assert!(world.publisher(renew).succeeds().stdout.contains("`root` is complete"));
    // A workstation that was away from the first root on follows the whole chain.
    world.publisher(["publish", "--key", "keys/online-new.key"]).succeeds();
    goes_on(&mut world, version);
    let audit = world.publisher(["audit", "verify"]).succeeds().stdout;
    assert!(audit.contains("none changed or removed; the published snapshot vouches for it"), "{audit}");
}

/// A fast-forward attack: versions so high that nothing later could be published, and a time of signing in 2090.
#[test]
fn versions_that_a_stolen_online_key_raced_ahead_are_left_behind() {
    let mut world = world();
    let path = world.path("repository/public/metadata/timestamp.json");
    let mut timestamp = Document::<Timestamp>::parse(&fs::read(&path).unwrap()).unwrap().signed;
    timestamp.version = u64::MAX;
    timestamp.expires = "2099-01-01T00:00:00Z".parse().unwrap();
    timestamp.issued = Some("2090-01-01T00:00:00Z".parse().unwrap());
    fs::write(&path, tuf::sign(&timestamp, &[&key(&world, "online")]).unwrap()).unwrap();
    // It is signed, and its root lasts no longer than a year: refused as what it is, a time when nothing is fresh.
    world.college("57001").stop_node();
    world.college("57001").node(["sync"]).fails(4, "expired at");
    timestamp.issued = None;
    fs::write(&path, tuf::sign(&timestamp, &[&key(&world, "online")]).unwrap()).unwrap();
    goes_on(&mut world, 1);
    world.publisher(["publish", "--key", "keys/online.key"]).fails(1, "role replace-key snapshot,timestamp");

    new_key(&world, "fresh");
    let stolen = id(&world, "online");
    let replace = ["role", "replace-key", "snapshot,timestamp", &stolen[..12], "keys/fresh.pub"];
    world
        .publisher(replace.iter().chain(&["--key", "keys/root-1.key", "--key", "keys/root-2.key"]))
        .succeeds();
    let app = App::new("hello", 2);
    world.submit(&app);
    world.approve(&app);
    world.deploy(&app, "all");
    world.publisher(["publish", "--key", "keys/fresh.key"]).succeeds();
    goes_on(&mut world, 2);
}

/// The emergency brake, and approvals, do not wait for a ceremony.
#[test]
fn a_rotation_that_waits_for_signatures_is_in_nobodys_way() {
    let mut world = world();
    for (role, key) in [("brake", "brake"), ("catalogue", "approver-2")] {
        new_key(&world, &format!("{key}-new"));
        let old = id(&world, key);
        let new = format!("keys/{key}-new.pub");
        world
            .publisher(["role", "replace-key", role, &old[..12], &new, "--key", "keys/stranger.key"])
            .fails(2, "does not exist");
        let wrong = ["role", "replace-key", role, &old[..12], &new, "--key", "keys/packager-1.key"];
        world.publisher(wrong).fails(4, "does not hold the role");
        assert!(world.publisher(["status"]).succeeds().stdout.contains("waiting for signatures: "));
        if role == "brake" {
            world.publisher(["role", "replace-key", role, &old[..12], &new]).succeeds();
            world.publisher(["pause", "hello@1.0", "--key", "keys/brake.key"]).succeeds();
            world.publisher(["resume", "hello@1.0", "--key", "keys/brake.key"]).succeeds();
            world.publisher(["draft", "discard", "targets"]).succeeds();
        } else {
            world.publisher(["role", "replace-key", role, &old[..12], &new]).succeeds();
        }
    }
    let app = App::new("hello", 2);
    world.submit(&app);
    world.approve(&app);
    world.deploy(&app, "all");
    world.publish();
    goes_on(&mut world, 2);
}

#[test]
fn thresholds_change_with_the_signatures_of_before_and_after() {
    let mut world = world();
    let threshold = |n: &str, keys: &[&str]| {
        let keys = keys.iter().flat_map(|key| ["--key".to_owned(), format!("keys/{key}.key")]);
        let arguments = ["role", "threshold", "root", n].map(ToOwned::to_owned).into_iter().chain(keys);
        world.publisher(arguments.collect::<Vec<_>>())
    };
    threshold("4", &[]).fails(2, "4 of 3 keys is no threshold");
    threshold("0", &[]).fails(2, "0 of 3 keys is no threshold");
    // Two of three were enough until now; the new root asks for three.
    let waiting = threshold("3", &["root-1", "root-2"]).succeeds().stdout;
    assert!(waiting.contains("2 of 3 signatures"), "{waiting}");
    let done = threshold("3", &["root-3"]).succeeds().stdout;
    assert!(done.contains("`root` is complete"), "{done}");
    world.publish();
    goes_on(&mut world, 1);
}

#[test]
fn a_revoked_packager_brings_nothing_new_and_what_she_brought_stays() {
    let mut world = world();
    let packager = id(&world, "packager-1");
    world
        .publisher(["packager", "revoke", "abc", "--key", "keys/targets.key"])
        .fails(1, "is not the beginning of one");
    world.publisher(["packager", "revoke", &packager[..12], "--key", "keys/targets.key"]).succeeds();
    world.publish();
    let built = world.build(&App::new("hello", 2));
    world.publisher(["submit".as_ref(), built.as_os_str()]).fails(4, "is authorised from");
    // A workstation that has nothing yet still gets what was packaged before.
    goes_on(&mut world, 1);
    let workstation = world.college("57001").workstation(0);
    workstation.run(["remove", "hello"]).succeeds();
    goes_on(&mut world, 1);
    let check = world.publisher(["check"]).succeeds().stdout;
    assert!(check.contains("hello") && check.contains("has no packager today"), "{check}");
}

#[test]
fn the_log_holds_who_did_what_and_shows_when_it_was_changed() {
    let world = world();
    let shown = world.publisher(["audit", "show"]).succeeds().stdout;
    for words in [
        "initialised",
        "submitted",
        "signed catalogue 2 with key",
        "approves hello 1.0",
        "is required at all colleges",
        "published snapshot",
    ] {
        assert!(shown.contains(words), "{words} is missing in\n{shown}");
    }
    let lines = world.publisher(["audit", "export", "--format", "rfc5424"]).succeeds().stdout;
    assert!(lines.lines().all(|line| line.starts_with("<109>1 20")), "{lines}");
    world.publisher(["audit", "verify"]).succeeds();
    let path = world.path("repository/audit.log");
    let good = fs::read_to_string(&path).unwrap();
    fs::write(&path, good.replacen("approves hello", "approves Hello", 1)).unwrap();
    world.publisher(["audit", "verify"]).fails(4, "does not follow from the line before");
    let lines: Vec<&str> = good.lines().collect();
    fs::write(&path, lines[..lines.len() - 3].join("\n") + "\n").unwrap();
    world.publisher(["audit", "verify"]).fails(4, "its end was cut off or written anew");
    // Whoever holds the server publishes once more, and its own snapshot agrees with the new past. A node's does not.
    let kept = world.path("repository/public/metadata/2.snapshot.json");
    let witness = world.path("from-a-node.json");
    fs::copy(kept, &witness).unwrap();
    world.publish();
    world.publisher(["audit", "verify"]).succeeds();
    world
        .publisher(["audit".as_ref(), "verify".as_ref(), witness.as_os_str()])
        .fails(4, "it was changed since");
}

#[test]
fn check_finds_what_will_go_wrong() {
    let world = world();
    let quiet = world.publisher(["check"]).succeeds().stdout;
    assert!(quiet.contains("one lost key would lose the role"), "{quiet}");
    // One person in both bodies.
    let add = ["packager", "add", "keys/approver-1.pub", "--packages", "x", "--key", "keys/targets.key"];
    world.publisher(add).succeeds();
    let json =
        |outcome: Outcome| serde_json::from_str::<serde_json::Value>(&outcome.stdout).unwrap().to_string();
    let found = json(world.publisher(["--json", "check", "--days", "400"]).fails(1, "to put right"));
    for words in ["one person is both bodies", "`role renew root`", "expires"] {
        assert!(found.contains(words), "{words} is missing in {found}");
    }
    // A target that is gone.
    let targets = world.path("repository/targets/packages/hello/1.0/any");
    fs::remove_dir_all(targets).unwrap();
    let found = json(world.publisher(["--json", "check"]).fails(1, "to put right"));
    assert!(found.contains("is missing or damaged"), "{found}");
}

/// A catalogue split into hash bins (`init --bins`): the same life, in many files.
#[test]
fn a_catalogue_in_bins_lives_as_one_in_a_single_role() {
    let mut world = World::new().bins(3).college("57001").workstations(1).start();
    for number in 1..=3 {
        world.release(&App::new(&format!("app-{number}"), 1));
    }
    world.release(&App::new("hello", 1));
    goes_on(&mut world, 1);
    let roles = fs::read_dir(world.path("college-57001/workstation-0/trust")).unwrap();
    let bins = roles
        .filter(|role| role.as_ref().unwrap().file_name().to_string_lossy().starts_with("catalogue-"))
        .count();
    assert_eq!(bins, 8);

    // An approver is replaced: the bins are signed once more, and one approver alone is still not enough for any.
    new_key(&world, "approver-3");
    let leaving = id(&world, "approver-2");
    let keys = ["root-1", "root-2", "targets", "approver-1", "approver-3"];
    let keys = keys.iter().flat_map(|key| ["--key".to_owned(), format!("keys/{key}.key")]);
    let replace =
        ["role", "replace-key", "catalogue", &leaving[..12], "keys/approver-3.pub"].map(ToOwned::to_owned);
    let replaced = world.publisher(replace.into_iter().chain(keys).collect::<Vec<_>>()).succeeds().stdout;
    assert!(!replaced.contains("can still sign"), "{replaced}");
    world.publish();
    goes_on(&mut world, 1);

    world.submit(&App::new("hello", 2));
    let approve = |key: &str| world.publisher(["approve", "hello@2.0", "--key", key]);
    approve("keys/approver-2.key").fails(4, "does not hold the role");
    assert!(approve("keys/approver-1.key").succeeds().stdout.contains("1 of 2 signatures"));
    approve("keys/approver-3.key").succeeds();
    world.deploy(&App::new("hello", 2), "all");
    world.publish();
    goes_on(&mut world, 2);
    world.publisher(["verify"]).succeeds();
    world.college("57001").node(["fsck"]).succeeds();
    world.publisher(["check"]).succeeds();
}
