//! The house stands as ARCHITECTURE.md draws it: crates depend downwards only, and the three programs not on one
//! another.

use std::collections::BTreeMap;
use std::path::Path;

use fs_err as fs;

/// From the ground up. Tests and benches stand beside the house and may use all of it.
const FLOORS: [&[&str]; 6] = [
    &["mirabelle-keys"],
    &["mirabelle-manifests"],
    &["mirabelle-content", "mirabelle-fleet", "mirabelle-identity"],
    &["mirabelle-transfer"],
    &["mirabelle-terminal"],
    &["mirabelle-publisher", "mirabelle-node", "mirabelle"],
];

fn floor(package: &str) -> Option<usize> {
    FLOORS.iter().position(|floor| floor.contains(&package))
}

#[test]
fn crates_depend_on_lower_ones_only() {
    let metadata = cargo_metadata::MetadataCommand::new()
        .no_deps()
        .other_options(["--offline".to_owned()])
        .exec()
        .unwrap();
    let mut checked = 0;
    for package in &metadata.packages {
        let Some(own) = floor(&package.name) else {
            assert!(
                ["mirabelle-tests", "mirabelle-bench"].contains(&package.name.as_str()),
                "{} has no floor",
                package.name
            );
            continue;
        };
        for dependency in
            package.dependencies.iter().filter(|dependency| dependency.name.starts_with("mirabelle"))
        {
            let other = floor(&dependency.name);
            assert!(other < Some(own) && other.is_some(), "{} depends on {}", package.name, dependency.name);
            checked += 1;
        }
    }
    assert!(checked >= 12, "only {checked} dependencies were found: the workspace was not read");
}

/// Bytes and the time come in as arguments.
const PURE: &[&str] =
    &["std::fs", "fs_err", "std::net", "SystemTime", "Timestamp::now", "Instant::now", "env::var", "tokio"];

/// What a crate may not touch, by what its room is for.
#[test]
fn the_lower_rooms_stay_what_they_are() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let forbidden: BTreeMap<&str, &[&str]> = BTreeMap::from([
        // Knows bytes, opens nothing, reads no clock.
        ("keys", &["std::fs", "fs_err", "std::net", "SystemTime", "Timestamp::now", "std::env"][..]),
        ("manifests", PURE),
        // As manifests: what people sign, and nothing kept of them.
        ("identity", PURE),
        // As manifests: what machines sign, and nothing kept of it.
        ("fleet", PURE),
        // Synchronous, and no network.
        ("content", &["async fn", "tokio", "std::net", "SystemTime", "Instant::now", "env::var"]),
        // Never talks to the terminal, never reads the environment or the wall clock.
        (
            "transfer",
            &["println!", "eprintln!", "env::var", "SystemTime::now", "Timestamp::now", "jiff::Timestamp"],
        ),
    ]);
    let mut files = 0;
    for (room, words) in forbidden {
        for path in sources(&root.join(room).join("src")) {
            files += 1;
            let text = fs::read_to_string(&path).unwrap();
            let code = text.split("#[cfg(test)]").next().unwrap();
            for word in words {
                let found =
                    code.lines().find(|line| line.contains(word) && !line.trim_start().starts_with("//"));
                assert!(found.is_none(), "{} has `{word}`: {}", path.display(), found.unwrap_or_default());
            }
        }
    }
    assert!(files > 25, "only {files} files were found");
}

#[test]
fn every_crate_and_every_file_says_what_it_is() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    for room in [
        "keys",
        "manifests",
        "content",
        "transfer",
        "terminal",
        "publisher",
        "cache-node",
        "client",
        "tests",
        "bench",
    ] {
        for path in sources(&root.join(room).join("src")) {
            let text = fs::read_to_string(&path).unwrap();
            assert!(text.starts_with("//! "), "{} has no header", path.display());
            assert!(
                text.lines().count() <= 600,
                "{} has {} lines: look for the second noun",
                path.display(),
                text.lines().count()
            );
        }
    }
}

fn sources(directory: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let files = entries.flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] });
    files.filter(|path| path.extension().is_some_and(|extension| extension == "rs")).collect()
}
