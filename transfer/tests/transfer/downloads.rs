//! CVE-2021-41149, CVE-2026-6968: a target's name decides nothing about where it lands.

use std::collections::BTreeSet;

use fs_err as fs;
use mirabelle_manifests::TargetPath;
use mirabelle_manifests::tuf::TargetFile;

use crate::origin::{Answer, Client, Origin, Twist, word};
use crate::repository::Repository;

/// Names that Windows opens as a device, with any extension (Microsoft, "Naming Files, Paths, and Namespaces").
pub(crate) fn is_device(name: &str) -> bool {
    let stem = name.split('.').next().unwrap_or_default().trim_end().to_uppercase();
    let numbered = |prefix: &str| {
        stem.strip_prefix(prefix)
            .is_some_and(|rest| rest.len() == 1 && rest.chars().all(|c| c.is_ascii_digit()))
    };
    ["CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$"].contains(&stem.as_str())
        || numbered("COM")
        || numbered("LPT")
}

/// Lists `names`, each with itself as content, and serves them.
async fn listing(names: &[&str]) -> (Origin, Client) {
    let (origin, mut repository) = (Origin::start().await, Repository::new());
    for name in names {
        let file = TargetFile::of(name.as_bytes(), None);
        repository.targets.targets.insert(TargetPath::new(*name), file);
        if TargetPath::new(*name).plain().is_ok() {
            origin.put_target(name, name.as_bytes());
        }
    }
    let client = Client::trusting(&mut repository);
    origin.publish(&mut repository);
    (origin, client)
}

#[tokio::test]
async fn every_target_lands_in_one_file_of_its_directory() {
    let long = format!("dir/{}", "x".repeat(250));
    let names = [
        "file",
        "dir/file",
        "dir%2Ffile",
        "dir/sub/file",
        "File",
        "FILE",
        "a",
        "a.",
        "a..",
        "NUL",
        "nul.txt",
        "con",
        "dir/CON",
        "COM1.log",
        "aux.h",
        ".hidden",
        "a b",
        "a?b#c",
        "é",
        "É",
        "x.part",
        &long,
    ];
    let (origin, client) = listing(&names).await;
    let directory = client.beside("downloads");
    let mut session = client.session(&origin).await.unwrap();
    let mut landed = BTreeSet::new();
    for name in names {
        let path = session.download(&TargetPath::new(name), &directory).await.unwrap();
        assert_eq!(fs::read(&path).unwrap(), name.as_bytes());
        assert_eq!(path.parent().unwrap(), directory, "{name}");
        let file = path.file_name().unwrap().to_str().unwrap().to_owned();
        assert!(!is_device(&file) && !file.ends_with(['.', ' ']) && !file.starts_with('.'), "{file}");
        assert!(landed.insert(file.to_lowercase()), "{name} lands where another did: {file}");
        // Once more: it is there already.
        let asked = origin.requests().len();
        session.download(&TargetPath::new(name), &directory).await.unwrap();
        assert_eq!(origin.requests().len(), asked);
    }
    assert_eq!(fs::read_dir(&directory).unwrap().count(), names.len(), "and nothing is left beside them");
}

#[tokio::test]
async fn a_name_that_leads_elsewhere_is_refused() {
    let names = [
        "../up",
        "/etc/passwd",
        "a/../../b",
        "..",
        ".",
        "a/./b",
        "a//b",
        "",
        "a\\b",
        "C:\\x",
        "C:x",
        "\\\\host\\share",
        "a\nb",
        "a\0b",
    ];
    let (origin, client) = listing(&names).await;
    let directory = client.beside("downloads");
    let mut session = client.session(&origin).await.unwrap();
    for name in names {
        assert_eq!(
            word(session.download(&TargetPath::new(name), &directory).await),
            "not a path",
            "{name:?}"
        );
    }
    assert_eq!(fs::read_dir(&directory).unwrap().count(), 0);
}

/// A digest is as foreign as a name, and part of the address.
#[tokio::test]
async fn a_digest_that_is_a_path_is_refused() {
    let (origin, mut repository) = (Origin::start().await, Repository::new());
    for digest in ["../../x", "/", "a/../../b/", ""] {
        let file = serde_json::json!({"length": 4, "hashes": {"sha256": digest}});
        let file: TargetFile = serde_json::from_value(file).unwrap();
        repository.targets.targets.insert(TargetPath::new("dir/file"), file);
        let client = Client::trusting(&mut repository);
        origin.publish(&mut repository);
        let directory = client.beside("downloads");
        let mut session = client.session(&origin).await.unwrap();
        let result = word(session.download(&TargetPath::new("dir/file"), &directory).await);
        assert!(["not a path", "not found"].contains(&result.as_str()), "{digest}: {result}");
        assert!(origin.requests().iter().all(|path| !path.contains("..")));
        repository.next();
    }
}

/// The directory's own links and files are not followed, nor believed.
#[cfg(unix)]
#[tokio::test]
async fn a_symbolic_link_in_the_way_is_replaced_and_not_followed() {
    let (origin, client) = listing(&["dir/file", "file"]).await;
    let (directory, elsewhere) = (client.beside("downloads"), client.beside("elsewhere"));
    fs::write(elsewhere.join("precious"), "precious").unwrap();
    // A link where a careless client would make the target's directory, and one in the place of a target.
    fs::os::unix::fs::symlink(&elsewhere, directory.join("dir")).unwrap();
    fs::os::unix::fs::symlink(elsewhere.join("precious"), directory.join("file")).unwrap();
    let mut session = client.session(&origin).await.unwrap();
    for name in ["dir/file", "file"] {
        let path = session.download(&TargetPath::new(name), &directory).await.unwrap();
        assert_eq!(fs::read(&path).unwrap(), name.as_bytes());
        assert!(!fs::symlink_metadata(&path).unwrap().is_symlink(), "{name}");
    }
    assert_eq!(fs::read(elsewhere.join("precious")).unwrap(), b"precious");
    assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 1);
}

#[tokio::test]
async fn a_target_of_no_bytes_is_one() {
    let (origin, mut repository) = (Origin::start().await, Repository::new());
    repository.targets.targets.insert(TargetPath::new("empty"), TargetFile::of(b"", None));
    origin.put_target("empty", b"");
    let client = Client::trusting(&mut repository);
    origin.publish(&mut repository);
    let directory = client.beside("downloads");
    let mut session = client.session(&origin).await.unwrap();
    let path = session.download(&TargetPath::new("empty"), &directory).await.unwrap();
    assert_eq!(fs::read(path).unwrap(), b"");
}

/// Cut, exchanged, longer: nothing of it is left, and an earlier genuine copy stays.
#[tokio::test]
async fn a_target_that_is_not_the_one_signed_for_leaves_nothing() {
    let (origin, client) = listing(&["dir/file"]).await;
    let directory = client.beside("downloads");
    let mut session = client.session(&origin).await.unwrap();
    let answers: [(&str, Twist); 4] = [
        ("dir/file mismatch", |bytes| Answer::File(vec![b'x'; bytes.len()])),
        ("too long", |bytes| Answer::File([bytes, vec![b'x'; 10]].concat())),
        ("not found", |_| Answer::Status(404)),
        ("status 500", |_| Answer::Status(500)),
    ];
    for (expected, answer) in answers {
        origin.meddle(move |_, _, honest| match honest {
            Answer::File(bytes) => answer(bytes),
            honest => honest,
        });
        let result = session.download(&TargetPath::new("dir/file"), &directory).await;
        assert_eq!(word(result), expected);
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 0, "{expected}");
    }
    origin.behave();
    session.download(&TargetPath::new("dir/file"), &directory).await.unwrap();
}
