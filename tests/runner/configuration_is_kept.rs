//! Settings: what a release sets on a machine is what the deployment and the machine's own facts say, is put back when
//! somebody changes it, and becomes what it was when nobody sets it any more.

use fs_err as fs;
use mirabelle_tests::{App, Workstation, World};
use serde_json::{Value, json};

use crate::fake_machine::{calls, configured, native, own_system, sets};
use crate::forge;

const TEMPLATE: &str = "college={{ college }}\nroom={{ room }}\nproxy={{ value.proxy or \"none\" }}\n";

/// Deploys everything that is approved of these packages to everyone, with these values.
fn deploy(world: &mut World, packages: &[&str], values: &Value) {
    let lines: Vec<Value> =
        packages.iter().map(|package| json!({ "package": package, "mode": "required" })).collect();
    let policy = json!({ "_type": "deployment", "assignments": lines, "values": values });
    forge::deploy(world, &policy);
    world.publish();
    world.college("57001").sync();
}

fn approved(world: &World, app: &App) {
    world.submit(app);
    world.approve(app);
}

fn world() -> World {
    let mut world = World::new().college("57001").workstations(1).start();
    let workstation = world.college("57001").workstation(0);
    own_system(workstation);
    workstation.configure("room = \"B12\"");
    world
}

fn place(workstation: &Workstation) -> std::path::PathBuf {
    workstation.root().join("system/etc/hello.conf")
}

fn mode(path: &std::path::Path) -> u32 {
    std::os::unix::fs::PermissionsExt::mode(&fs::metadata(path).unwrap().permissions()) & 0o7777
}

fn change_mode(path: &std::path::Path, mode: u32) {
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
}

#[test]
fn a_setting_is_made_kept_changed_and_given_back() {
    let mut world = world();
    approved(&world, &sets(App::new("hello", 1), "hello", TEMPLATE, "mode = \"0640\"\n"));
    let workstation = world.college("57001").workstation(0);
    fs::write(place(workstation), "as it was\n").unwrap();
    change_mode(&place(workstation), 0o604);
    let proxy = |proxy: &str| json!([{ "values": { "proxy": proxy } }]);
    deploy(&mut world, &["hello"], &proxy("http://a:3128"));
    let workstation = world.college("57001").workstation(0);
    let (root, file) = (workstation.root(), place(workstation));
    workstation.run(["update"]).succeeds();
    let expected = "college=57001\nroom=B12\nproxy=http://a:3128\n";
    assert_eq!(configured(root, "hello").unwrap(), expected);
    assert_eq!(mode(&file), 0o640);
    workstation.run(["verify"]).succeeds();

    // Drift, in each of the ways: found, and put back by whatever comes first.
    let drift: [(&str, &dyn Fn()); 4] = [
        ("is changed", &|| fs::write(&file, "proxy=mine\n").unwrap()),
        ("is missing", &|| fs::remove_file(&file).unwrap()),
        ("is of another owner or mode", &|| change_mode(&file, 0o666)),
        ("is no file any more", &|| {
            fs::remove_file(&file).unwrap();
            fs::os::unix::fs::symlink("/etc/passwd", &file).unwrap();
        }),
    ];
    for command in ["update", "repair"] {
        for (fault, drift) in drift {
            drift();
            workstation.run(["verify"]).fails(1, fault);
            let done = workstation.run([command]).succeeds();
            assert!(done.stdout.contains("/etc/hello.conf"), "{command}, {fault}: {}", done.stdout);
            assert_eq!(configured(root, "hello").unwrap(), expected);
            assert_eq!(mode(&file), 0o640);
            workstation.run(["verify"]).succeeds();
        }
    }
    let generations = fs::read_dir(root.join("generations")).unwrap().count();
    assert_eq!(generations, 1, "drift is no new generation");

    // Another value, and the next release's template.
    deploy(&mut world, &["hello"], &proxy("http://b:3128"));
    let workstation = world.college("57001").workstation(0);
    workstation.run(["update"]).succeeds();
    assert!(configured(workstation.root(), "hello").unwrap().contains("proxy=http://b:3128\n"));
    approved(&world, &sets(App::new("hello", 2), "hello", "second in {{ college }}\n", ""));
    deploy(&mut world, &["hello"], &json!([]));
    let workstation = world.college("57001").workstation(0);
    workstation.run(["update"]).succeeds();
    assert_eq!(configured(workstation.root(), "hello").unwrap(), "second in 57001\n");
    assert_eq!(mode(&place(workstation)), 0o644);
    workstation.run(["rollback"]).succeeds();
    let back = configured(workstation.root(), "hello").unwrap();
    assert_eq!(back, "college=57001\nroom=B12\nproxy=none\n", "with the values of today");

    // Nobody sets it any more.
    workstation.run(["remove", "hello"]).succeeds();
    assert_eq!(configured(workstation.root(), "hello").unwrap(), "as it was\n");
    assert_eq!(mode(&place(workstation)), 0o604);
}

#[test]
fn a_file_that_was_not_there_is_not_there_afterwards() {
    let mut world = world();
    approved(&world, &sets(App::new("hello", 1), "hello", "x\n", ""));
    deploy(&mut world, &["hello"], &json!([]));
    let workstation = world.college("57001").workstation(0);
    workstation.run(["update"]).succeeds();
    assert!(place(workstation).exists());
    workstation.run(["rollback"]).succeeds();
    assert!(!place(workstation).exists());
    workstation.run(["verify"]).succeeds();
}

#[test]
fn two_that_set_one_file_are_refused_before_anything_changes() {
    let mut world = world();
    approved(&world, &sets(App::new("hello", 1), "hello", "one\n", ""));
    approved(&world, &sets(App::new("other", 1), "hello", "two\n", ""));
    deploy(&mut world, &["hello", "other"], &json!([]));
    let workstation = world.college("57001").workstation(0);
    let refused = "`hello` and `other` both set `/etc/hello.conf`, and cannot be installed together";
    workstation.run(["update"]).fails(1, refused);
    assert!(!place(workstation).exists());
    assert!(!workstation.root().join("current").exists());
    assert!(!workstation.root().join("journal/transaction.json").exists());
    workstation.run(["update", "hello"]).succeeds();
    workstation.run(["update"]).fails(1, refused);
    assert_eq!(configured(workstation.root(), "hello").unwrap(), "one\n");
    workstation.run(["verify"]).succeeds();
}

#[test]
fn a_value_that_nobody_gave_is_named_before_anything_changes() {
    let mut world = world();
    approved(&world, &sets(App::new("hello", 1), "hello", "one\nserver={{ value.server }}\n", ""));
    deploy(&mut world, &["hello"], &json!([]));
    let workstation = world.college("57001").workstation(0);
    let outcome = workstation.run(["update"]).fails(1, "line 2 of the template names `value.server`");
    assert!(outcome.stderr.contains("an operator gives values in the deployment"), "{}", outcome.stderr);
    assert!(!place(workstation).exists());
    assert!(!workstation.root().join("current").exists());
    deploy(&mut world, &["hello"], &json!([{ "values": { "server": "s1" } }]));
    let workstation = world.college("57001").workstation(0);
    workstation.run(["update"]).succeeds();
    assert_eq!(configured(workstation.root(), "hello").unwrap(), "one\nserver=s1\n");
}

#[test]
fn what_is_no_file_is_not_replaced() {
    let mut world = world();
    approved(&world, &native(sets(App::new("hello", 1), "hello", "x\n", ""), "hello", ""));
    let workstation = world.college("57001").workstation(0);
    fs::create_dir_all(place(workstation).join("somebody's")).unwrap();
    deploy(&mut world, &["hello"], &json!([]));
    let workstation = world.college("57001").workstation(0);
    let setting = "cannot make the setting `/etc/hello.conf` of `hello`: ";
    let refused = workstation.run(["update"]).fails(1, "is no file");
    assert!(refused.stderr.contains(setting), "{}", refused.stderr);
    assert!(place(workstation).join("somebody's").exists());
    fs::remove_dir_all(place(workstation)).unwrap();
    fs::write(place(workstation), vec![b'x'; (1 << 20) + 1]).unwrap();
    workstation.run(["update"]).fails(1, "is not replaced");
    assert_eq!(calls(workstation.root(), "install hello 1.0"), 0, "before anything changes");
    assert!(!workstation.root().join("current").exists());
    assert!(!workstation.root().join("journal/transaction.json").exists());
    fs::remove_file(place(workstation)).unwrap();
    workstation.run(["update"]).succeeds();
    assert_eq!(configured(workstation.root(), "hello").unwrap(), "x\n");
}

#[test]
fn an_owner_that_is_unknown_here_is_refused_or_was_the_installers_to_make() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root gives files away");
        return;
    }
    let mut world = world();
    let owned = |name: &str| sets(App::new(name, 1), name, "x\n", "owner = \"mirabelle-nobody\"\n");
    approved(&world, &owned("hello"));
    approved(&world, &native(owned("other"), "other", ""));
    deploy(&mut world, &["hello", "other"], &json!([]));
    let workstation = world.college("57001").workstation(0);
    workstation.run(["update", "hello"]).fails(1, "`mirabelle-nobody` is not in `/etc/passwd`");
    assert!(!workstation.root().join("current").exists());
    // Its installer might have made the user, and has not: that is not tried again and again.
    workstation.run(["update", "other"]).fails(1, "it is not tried again by itself");
    workstation.run(["update", "other"]).succeeds();
    assert_eq!(calls(workstation.root(), "install other 1.0"), 1);
}
