//! An approver sees what she signs for: what changes, on a terminal, as JSON and as a page; and the list of components
//! travels with its release and is checked on the way.

use std::path::{Path, PathBuf};

use fs_err as fs;
use mirabelle_manifests::SignedRelease;
use mirabelle_manifests::network::sbom_path;
use mirabelle_tests::{App, World};

const SCRIPT: &str = "<script>alert(1)</script>";

/// Builds `hello` 2 with everything in it that an approver should notice, and hostile words wherever they may stand.
fn build_second(world: &World) -> PathBuf {
    let work = world.path("second");
    let files = [
        ("bin/hello", "#!/bin/sh\necho hello 2.0\n", 0o755),
        ("bin/extra", "#!/bin/sh\necho extra\n", 0o755),
        ("kept", "the same", 0o644),
        ("<img src=x onerror=alert(1)>", "hostile", 0o644),
        ("lib/essai-2.1.dist-info/METADATA", "Name: Essai\nVersion: 2.1\nLicense: <b>MIT</b>\n", 0o644),
        ("app/node_modules/left-pad/package.json", r#"{"name":"left-pad","version":"1.3.0"}"#, 0o644),
    ];
    for (path, content, mode) in files {
        let file = work.join("tree").join(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, content).unwrap();
        fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    }
    let recipe = format!(
        r#"
name = "hello"
version = "2.0"
sequence = 2
platform = "any"
licence = "GPL-3.0-or-later"
date = "{date}"
title = {{ fr = "{SCRIPT}", en = "{SCRIPT}" }}
summary = {{ fr = "Dit bonjour", en = "Says hello" }}
[[source]]
path = "tree"
kind = "directory"
[[launcher]]
name = "hello"
title = {{ fr = "{SCRIPT}", en = "{SCRIPT}" }}
command = ["{{release}}/bin/hello", "--loud"]
terminal = true
"#,
        date = date_of(&world.path("built/hello-1.0-any")),
    );
    fs::write(work.join("recipe.toml"), recipe).unwrap();
    build(world, "second/recipe.toml");
    world.path("built/hello-2.0-any")
}

fn build(world: &World, recipe: &str) {
    world.publisher(["build", "--level", "1", "--key", "keys/packager-1.key", recipe]).succeeds();
}

fn date_of(built: &Path) -> String {
    release_of(built).release.date.to_string()
}

fn release_of(built: &Path) -> SignedRelease {
    SignedRelease::parse(&fs::read(built.join("release.json")).unwrap()).unwrap()
}

fn submit(world: &World, built: &Path) -> mirabelle_tests::Outcome {
    world.publisher(["submit".as_ref(), built.as_os_str()])
}

/// `hello` 1, published.
fn world() -> World {
    let world = World::new().college("57001").workstations(1).start();
    let metadata = "Name: Essai\nVersion: 2.0\n";
    let first = App::new("hello", 1)
        .file("kept", "the same")
        .file("gone", "four")
        .file("lib/essai-2.0.dist-info/METADATA", metadata)
        .noise("data", 500_000, 1);
    world.release(&first);
    world
}

#[test]
fn what_changes_is_shown_in_three_ways() {
    let world = world();
    submit(&world, &build_second(&world)).succeeds();
    let review =
        |more: &[&str]| world.publisher(more.iter().copied().chain(["review", "hello@2.0"])).succeeds();

    let text = review(&[]).stdout;
    for words in [
        "compared with 1.0, approved before it",
        "! the licence changes",
        "! the launchers change",
        "! files become executable",
        "! the list of components changes",
        "GPL-3.0-or-later (WAS MIT)",
        "authorised  until ",
        "was {release}/bin/hello\n",
        "is  {release}/bin/hello --loud",
        "files removed: 3, ",
        "newly executable: 1\n  bin/extra",
        "set-uid: none",
        "pkg:npm/left-pad",
        "2.1 (<b>MIT</b>), was 2.0",
    ] {
        assert!(text.contains(words), "`{words}` is not in:\n{text}");
    }

    let json = review(&["--json"]).json();
    let attention = ["licence-changed", "launchers-changed", "became-executable", "components-changed"];
    assert_eq!(json["attention"], serde_json::json!(attention));
    assert_eq!(json["previous"]["version"], "1.0");
    let paths = |list: &serde_json::Value| -> Vec<String> {
        list.as_array().unwrap().iter().map(|item| item["path"].as_str().unwrap().to_owned()).collect()
    };
    let tree = &json["tree"];
    assert_eq!(paths(&tree["removed"]), ["data", "gone", "lib/essai-2.0.dist-info/METADATA"]);
    assert_eq!(tree["removed_bytes"], 500_000 + 4 + 25);
    assert_eq!(paths(&tree["changed"]), ["bin/hello"]);
    assert_eq!(paths(&tree["added"]).len(), 4);
    assert_eq!(tree["unchanged"], 1);
    assert_eq!(tree["became_executable"], serde_json::json!(["bin/extra"]));
    assert_eq!(json["launchers"]["changed"][0]["fields"][0]["field"], "command");
    assert_eq!(json["sbom"]["added"]["pkg:npm/left-pad"]["versions"][0], "1.3.0");
    assert_eq!(json["sbom"]["changed"]["pkg:pypi/essai"][1]["versions"][0], "2.1");
    assert_eq!(json["packager"]["authorised_today"], true);
    assert!(json["sizes"]["wan"].as_u64().unwrap() <= json["sizes"]["download"]["now"].as_u64().unwrap());

    world.publisher(["review", "hello@2.0", "--html", "review.html"]).succeeds();
    let page = fs::read_to_string(world.path("review.html")).unwrap();
    for words in
        ["Fichiers", "Files", "&lt;script&gt;", "&lt;img src=x", "&lt;b&gt;MIT", "left-pad", "--loud"]
    {
        assert!(page.contains(words), "`{words}` is not in the page");
    }
    for markup in ["<script", "<img", "<b>"] {
        assert!(!page.contains(markup), "`{markup}` is in the page");
    }
}

#[test]
fn what_a_node_fetches_is_what_was_said() {
    let mut world = World::new().college("57001").start();
    // Large enough for a frame of its own, which the node need not fetch again.
    let app = |number| App::new("hello", number).noise("data", 20_000_000, 1);
    world.release(&app(1));
    world.college("57001").sync();
    let second = app(2).noise("more", 90_000, 2);
    world.submit(&second);
    let said = world.publisher(["--json", "review", "hello@2.0"]).succeeds().json();
    let said = said["sizes"]["wan"].as_u64().unwrap();
    assert!((90_000..100_000).contains(&said), "{said}");
    world.approve(&second);
    world.deploy(&second, "all");
    world.publish();
    let before = world.college("57001").wan().down();
    world.college("57001").sync();
    let fetched = world.college("57001").wan().down() - before;
    assert!(fetched >= 90_000, "{fetched}");
    // Documents come on top.
    assert!(fetched <= said + 60_000, "{fetched} were fetched, {said} at most were announced");
}

#[test]
fn the_sbom_travels_with_its_release() {
    let world = world();
    let built = build_second(&world);
    let made = fs::read(built.join("sbom.cdx.json")).unwrap();
    // The same again is the same.
    build(&world, "second/recipe.toml");
    assert_eq!(made, fs::read(built.join("sbom.cdx.json")).unwrap());
    let sbom = release_of(&built).release.sbom.unwrap();

    submit(&world, &built).succeeds();
    let approve = ["approve", "hello@2.0", "--key", "keys/approver-1.key", "--key", "keys/approver-2.key"];
    world.publisher(approve).succeeds();
    world.publish();
    let published = world.path("repository/public").join(sbom_path(sbom.sha256));
    assert_eq!(made, fs::read(&published).unwrap());
    assert_eq!(world.publisher(["--json", "verify"]).succeeds().json()["sboms"], 2);

    fs::write(&published, b"{}").unwrap();
    world.publisher(["verify"]).fails(4, "is not the SBOM that the release was signed with");
    fs::remove_file(&published).unwrap();
    world.publisher(["verify"]).fails(4, "which the release was signed with, is missing");
}

#[test]
fn an_sbom_that_is_wrong_or_missing_is_refused_when_it_is_handed_in() {
    let world = world();
    let built = build_second(&world);
    let path = built.join("sbom.cdx.json");
    let made = String::from_utf8(fs::read(&path).unwrap()).unwrap();

    fs::write(&path, made.replace("left-pad", "left-pat")).unwrap();
    submit(&world, &built).fails(4, "is not the SBOM that the release was signed with");
    fs::remove_file(&path).unwrap();
    submit(&world, &built).fails(4, "which the release was signed with, is missing");
    world.publisher(["review", "hello@2.0"]).fails(1, "was not submitted");
    fs::write(&path, made).unwrap();
    submit(&world, &built).succeeds();
}

#[test]
fn a_recipe_may_supply_its_sbom() {
    let world = world();
    build_second(&world);
    let recipe = fs::read_to_string(world.path("second/recipe.toml")).unwrap();
    let recipe = recipe.replace("licence =", "sbom = \"own.cdx.json\"\nlicence =");
    fs::write(world.path("second/recipe.toml"), recipe).unwrap();
    let refused = |code, words: &str| {
        let build = ["build", "--key", "keys/packager-1.key", "second/recipe.toml"];
        world.publisher(build).fails(code, words);
    };
    refused(2, "own.cdx.json` does not exist");
    let own = world.path("second/own.cdx.json");
    fs::write(&own, r#"{"bomFormat":"SPDX","specVersion":"2.3","components":[]}"#).unwrap();
    refused(4, "not CycloneDX 1.x");
    fs::write(&own, r#"{"bomFormat":"CycloneDX","specVersion":"1.6"}"#).unwrap();
    refused(4, "is not CycloneDX JSON with a list of components");
    fs::write(&own, vec![b' '; (16 << 20) + 1]).unwrap();
    refused(4, "is longer than 16 MiB");

    let supplied =
        r#"{"bomFormat":"CycloneDX","specVersion":"1.6","components":[{"name":"own","version":"7"}]}"#;
    fs::write(&own, supplied).unwrap();
    build(&world, "second/recipe.toml");
    let built = world.path("built/hello-2.0-any");
    assert_eq!(fs::read_to_string(built.join("sbom.cdx.json")).unwrap(), supplied);
    submit(&world, &built).succeeds();
    let text = world.publisher(["review", "hello@2.0"]).succeeds().stdout;
    assert!(text.contains("components added: 1\n  own"), "{text}");
    assert!(text.contains("components removed: 1\n  pkg:pypi/essai"), "{text}");
}
