//! A stick fills a node: what was exported elsewhere comes without the link, is verified like anything else, and harms nothing
//! when it is wrong, old or hostile.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use fs_err as fs;
use mirabelle_tests::{App, Fault, World};

/// Metadata, and the question whether there is news: what the link carries beside content.
const METADATA: u64 = 40_000;

fn apps() -> [App; 2] {
    [
        App::new("atlas", 1).noise("data", 3_000_000, 1).file("text", "mirabelle ".repeat(50_000)),
        App::new("boussole", 1).noise("data", 500_000, 2),
    ]
}

/// Two colleges, the first of which holds everything; and a stick that it exported to.
fn exported() -> (World, PathBuf) {
    let mut world = World::new().college("57001").college("57002").workstations(1).start();
    for app in apps() {
        world.release(&app);
    }
    let stick = world.path("stick");
    let college = world.college("57001");
    college.node(["sync"]).succeeds();
    let outcome = college.node(["--json".as_ref(), "export".as_ref(), stick.as_os_str()]).succeeds().json();
    assert_eq!(outcome["releases"], 2, "{outcome}");
    assert_eq!(outcome["kept"], 0, "{outcome}");
    (world, stick)
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

/// The digest that an object's name says.
fn digest_named(object: &Path) -> String {
    let name = object.to_str().unwrap();
    name.rsplit_once("objects/").unwrap().1.replace('/', "")
}

/// The file on the stick that holds these bytes.
fn object_of_size(stick: &Path, size: u64) -> PathBuf {
    let found = files(&stick.join("objects")).into_iter().find(|path| path.metadata().unwrap().len() == size);
    found.unwrap_or_else(|| panic!("no object of {size} bytes is on the stick"))
}

/// Gives an object a content of its own, since the export may have linked it.
fn replace(path: &Path, content: &[u8]) {
    fs::remove_file(path).unwrap();
    fs::write(path, content).unwrap();
}

#[test]
fn a_node_that_was_filled_from_a_stick_serves_without_the_link() {
    let (mut world, stick) = exported();
    let college = world.college("57002");
    // Until then nothing came over the link, and during the import it is cut.
    college.wan().fail(Fault::Down);
    let outcome = college.node(["--json".as_ref(), "import".as_ref(), stick.as_os_str()]).succeeds().json();
    assert_eq!(outcome["releases"].as_array().unwrap().len(), 2, "{outcome}");
    assert_eq!(college.wan().down(), 0);
    assert_eq!(college.node(["--json", "status"]).succeeds().json()["received_bytes"], 0);

    college.start_node();
    college.workstation(0).run(["install", "atlas", "boussole"]).succeeds();
    let said = college.workstation(0).launch("atlas", &[]).succeeds().stdout;
    assert_eq!(said, "atlas 1.0\n");
    assert_eq!(college.wan().down(), 0, "all of it came from the node");

    // Back on the link there is nothing to fetch but what says so.
    college.stop_node();
    college.wan().fail(Fault::None);
    college.node(["sync"]).succeeds();
    assert!(college.wan().down() < METADATA, "{}", college.wan().down());
}

#[test]
fn an_export_is_a_repository_that_is_brought_up_to_date() {
    let (mut world, stick) = exported();
    // Without a node of ours: a plain static server would do the same, and the publisher's is one.
    let objects = files(&stick.join("objects"));
    for object in &objects {
        let digest = mirabelle_manifests::Digest::of(&fs::read(object).unwrap());
        assert_eq!(digest.to_string(), digest_named(object), "plain bytes under their digest");
    }
    assert!(!stick.join(".incoming").exists());

    // The second export writes what is new, and takes away what only the first one needed.
    world.release(&App::new("atlas", 2).noise("data", 3_000_000, 1).file("text", "new"));
    let college = world.college("57001");
    college.node(["sync"]).succeeds();
    college.node(["gc", "--keep-unassigned", "0 s"]);
    let outcome = college.node(["--json".as_ref(), "export".as_ref(), stick.as_os_str()]).succeeds().json();
    assert!(outcome["written_bytes"].as_u64().unwrap() < 10_000, "{outcome}");
    assert!(outcome["kept"].as_u64().unwrap() > 0, "{outcome}");
    let snapshots = files(&stick.join("metadata"));
    let snapshots = snapshots.iter().filter(|path| path.to_string_lossy().ends_with(".snapshot.json"));
    assert_eq!(snapshots.count(), 1);
    let again = college.node(["--json".as_ref(), "export".as_ref(), stick.as_os_str()]).succeeds().json();
    assert_eq!(again["written_bytes"], 0, "{again}");
    assert_eq!(again["removed_files"], 0, "{again}");

    let college = world.college("57002");
    college.wan().fail(Fault::Down);
    college.node(["import".as_ref(), stick.as_os_str()]).succeeds();
}

#[test]
fn a_copy_of_the_origins_tree_will_do() {
    let (mut world, _) = exported();
    let public = world.path("repository/public");
    let college = world.college("57002");
    college.wan().fail(Fault::Down);
    let outcome = college.node(["--json".as_ref(), "import".as_ref(), public.as_os_str()]).succeeds().json();
    assert_eq!(outcome["releases"].as_array().unwrap().len(), 2, "{outcome}");
    assert_eq!(outcome["releases"][0]["came"]["by"], "bundle", "{outcome}");
}

#[test]
fn one_flipped_bit_is_found_and_the_rest_is_kept() {
    let (mut world, stick) = exported();
    let object = object_of_size(&stick, 3_000_000);
    let mut content = fs::read(&object).unwrap();
    content[1_234_567] ^= 0x10;
    replace(&object, &content);
    let name = digest_named(&object);

    let college = world.college("57002");
    college.wan().fail(Fault::Down);
    let refused = college.node(["import".as_ref(), stick.as_os_str()]).fails(4, "does not have its digest");
    assert!(refused.stderr.contains(&name[..16]), "it is named:\n{}", refused.stderr);
    let said = refused.stderr.split("error: cannot import").last().unwrap();
    assert!(!said.contains("127.0.0.1"), "in the words of whoever brought the stick:\n{said}");
    // Nothing is served that is not whole; what was right is here, and the link brings only what was wrong.
    assert!(!college.node_root().join("served/metadata/timestamp.json").exists());
    college.wan().fail(Fault::None);
    college.node(["sync"]).succeeds();
    let down = college.wan().down();
    assert!((3_000_000..3_500_000).contains(&down), "{down}");
}

#[test]
fn an_older_stick_than_what_is_held_changes_nothing() {
    let (mut world, stick) = exported();
    world.release(&App::new("atlas", 2).noise("data", 3_000_000, 1).file("text", "new"));
    let college = world.college("57002");
    college.node(["sync"]).succeeds();
    let timestamp = fs::read(college.node_root().join("served/metadata/timestamp.json")).unwrap();
    college.node(["import".as_ref(), stick.as_os_str()]).fails(4, "cannot import from");
    assert_eq!(fs::read(college.node_root().join("served/metadata/timestamp.json")).unwrap(), timestamp);
    college.start_node();
    college.workstation(0).run(["install", "atlas"]).succeeds();
    assert_eq!(college.workstation(0).launch("atlas", &[]).succeeds().stdout, "atlas 2.0\n");
}

#[test]
fn links_pipes_and_what_is_cut_short_are_refused_by_their_names() {
    let (mut world, stick) = exported();
    let secret = world.path("secret");
    fs::write(&secret, "not on the stick").unwrap();
    let object = object_of_size(&stick, 3_000_000);
    let content = fs::read(&object).unwrap();
    let name = object.strip_prefix(&stick).unwrap().to_str().unwrap().to_owned();
    let college = world.college("57002");
    college.wan().fail(Fault::Down);
    let import = || college.node(["import".as_ref(), stick.as_os_str()]);

    fs::remove_file(&object).unwrap();
    symlink(&secret, &object).unwrap();
    let refused = import().fails(4, "is a symbolic link");
    assert!(refused.stderr.contains(&name), "{}", refused.stderr);

    fs::remove_file(&object).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(&object).status().unwrap().success());
    let refused = import().fails(4, "neither a plain file");
    assert!(refused.stderr.contains(&name), "{}", refused.stderr);

    replace(&object, &content[..1_000_000]);
    let refused = import().fails(1, "is shorter than it should be");
    assert!(refused.stderr.contains(&name), "{}", refused.stderr);

    // Not by what it holds, but by how much: an endless file is read no further than was signed.
    fs::remove_file(&object).unwrap();
    fs::File::create(&object).unwrap().set_len(1 << 40).unwrap();
    let refused = import().fails(4, "is longer than");
    assert!(refused.stderr.contains(&name), "{}", refused.stderr);

    // A directory that is a link is as little followed for writing.
    let elsewhere = world.path("elsewhere");
    fs::create_dir_all(&elsewhere).unwrap();
    fs::remove_dir_all(stick.join("objects")).unwrap();
    symlink(&elsewhere, stick.join("objects")).unwrap();
    let college = world.college("57001");
    college.node(["export".as_ref(), stick.as_os_str()]).fails(4, "is a symbolic link");
    assert!(files(&elsewhere).is_empty());

    // Mended, the stick is as good as new.
    fs::remove_file(stick.join("objects")).unwrap();
    college.node(["export".as_ref(), stick.as_os_str()]).succeeds();
    let college = world.college("57002");
    college.node(["import".as_ref(), stick.as_os_str()]).succeeds();
}

#[test]
fn an_export_that_is_killed_leaves_the_one_before_or_none_and_the_next_goes_on() {
    let (mut world, stick) = exported();
    let new = world.path("new-stick");
    let command = |college: &mirabelle_tests::College| {
        let mut command = college.node_command();
        command.arg("export").arg(&new);
        command
    };
    // With no room for all of it, as a stick that is pulled out: no timestamp, and so no repository.
    let college = world.college("57001");
    fs::create_dir_all(&new).unwrap();
    fs::write(new.join("metadata"), "in the way").unwrap();
    assert_ne!(mirabelle_tests::run(&mut command(college)).code, Some(0));
    fs::remove_file(new.join("metadata")).unwrap();
    college.node(["import".as_ref(), new.as_os_str()]).fails(1, "holds no export");
    let outcome = mirabelle_tests::run(command(college).arg("--json")).succeeds().json();
    assert_eq!(outcome["written_bytes"], 0, "its objects were there already: {outcome}");

    // Over an older one: until the new timestamp is there, the old one is whole.
    world.release(&App::new("boussole", 2).noise("data", 700_000, 9));
    let college = world.college("57001");
    college.node(["sync"]).succeeds();
    let routes = fs::read_dir(stick.join("routes")).unwrap().next().unwrap().unwrap().path();
    fs::rename(stick.join("routes"), stick.join("routes-aside")).unwrap();
    fs::write(stick.join("routes"), "in the way").unwrap();
    assert_ne!(college.node(["export".as_ref(), stick.as_os_str()]).code, Some(0));
    fs::remove_file(stick.join("routes")).unwrap();
    fs::rename(stick.join("routes-aside"), stick.join("routes")).unwrap();
    assert!(routes.exists());
    let college = world.college("57002");
    college.wan().fail(Fault::Down);
    let outcome = college.node(["--json".as_ref(), "import".as_ref(), stick.as_os_str()]).succeeds().json();
    let versions: Vec<&str> = outcome["releases"]
        .as_array()
        .unwrap()
        .iter()
        .map(|held| held["version"].as_str().unwrap())
        .collect();
    assert_eq!(versions, ["1.0", "1.0"], "{outcome}");
}
