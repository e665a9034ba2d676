//! A bundle is an ordinary archive, the same everywhere, and gives back exactly what went in.

use std::collections::BTreeMap;
use std::io::{Read, Seek};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use fs_err as fs;
use mirabelle_content::bundle::{read_frame, verify_bundle};
use mirabelle_content::{ObjectStore, scan_tree};
use mirabelle_manifests::Digest;
use proptest::prelude::*;

use crate::release_of;

/// Every shape a tree may have: empty and large files, links, empty directories, long names, equal contents.
fn sample_tree(root: &Path) {
    let long = "d".repeat(90);
    let write = |path: &str, content: &[u8], mode: u32| {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    write("bin/run", b"#!/bin/sh\necho salut\n", 0o755);
    write("empty", b"", 0o644);
    write("share/a.txt", b"the same", 0o644);
    write("share/b.txt", b"the same", 0o644);
    write("bin/same", b"the same", 0o755);
    write(&format!("{long}/{long}/{long}/name.txt"), b"far away", 0o644);
    let noise: Vec<u8> =
        (0_u64..20 << 17).flat_map(|i| (i.wrapping_mul(0x9E37_79B9_7F4A_7C15)).to_le_bytes()).collect();
    write("lib/large.so.1", &noise, 0o644);
    write("œuvre/été.txt", "é".as_bytes(), 0o644);
    fs::create_dir_all(root.join("var/empty")).unwrap();
    fs::os::unix::fs::symlink("../bin/run", root.join("share/run")).unwrap();
}

#[test]
fn tar_unpacks_the_whole() {
    let directory = tempfile::tempdir().unwrap();
    let (tree, out) = (directory.path().join("tree"), directory.path().join("out"));
    sample_tree(&tree);
    let bundle = directory.path().join("b.tar.zst");
    let release = release_of(&tree, &bundle, 1);
    assert!(release.bundle.frames.len() >= 4, "skeleton, small files, one large, end");

    fs::create_dir(&out).unwrap();
    let tar =
        std::process::Command::new("tar").arg("--zstd").arg("-xf").arg(&bundle).arg("-C").arg(&out).status();
    assert!(tar.unwrap().success());
    assert_eq!(scan_tree(&out, &mut |_| {}).unwrap(), scan_tree(&tree, &mut |_| {}).unwrap());
}

#[test]
fn is_the_same_whatever_the_threads_and_the_clock() {
    let directory = tempfile::tempdir().unwrap();
    let tree = directory.path().join("tree");
    sample_tree(&tree);
    let one = release_of(&tree, &directory.path().join("1"), 1);
    fs::File::open(tree.join("empty")).unwrap().file().set_modified(std::time::UNIX_EPOCH).unwrap();
    let two = release_of(&tree, &directory.path().join("2"), 3);
    assert_eq!(one, two);
    assert_eq!(fs::read(directory.path().join("1")).unwrap(), fs::read(directory.path().join("2")).unwrap());
}

#[test]
fn gives_any_object_from_its_frame_alone() {
    let directory = tempfile::tempdir().unwrap();
    let tree = directory.path().join("tree");
    sample_tree(&tree);
    let path = directory.path().join("b.tar.zst");
    let release = release_of(&tree, &path, 2);
    let mut progress = 0;
    verify_bundle(fs::File::open(&path).unwrap(), &release, &mut |bytes| progress += bytes).unwrap();
    assert_eq!(progress, release.bundle.size);

    let store = ObjectStore::open(&directory.path().join("store")).unwrap();
    for (digest, object) in release.objects() {
        let offset: u64 = release.bundle.frames[..object.frame as usize].iter().map(|frame| frame.size).sum();
        let mut bundle = fs::File::open(&path).unwrap();
        bundle.seek(std::io::SeekFrom::Start(offset)).unwrap();
        let mut batch = store.batch();
        read_frame(&mut bundle, &release, object.frame, BTreeMap::from([(digest, object.size)]), &mut batch)
            .unwrap();
        batch.commit().unwrap();
        store.verify(digest, object.size).unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_tree_comes_back(files in proptest::collection::btree_map("[a-c]{1,2}(/[a-c]{1,2}){0,2}\\.[xy]", proptest::collection::vec(any::<u8>(), 0..3000), 1..12)) {
        let directory = tempfile::tempdir().unwrap();
        let tree = directory.path().join("tree");
        for (path, content) in &files {
            let path = tree.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        let path = directory.path().join("b");
        let release = release_of(&tree, &path, 2);
        let store = ObjectStore::open(&directory.path().join("store")).unwrap();
        let mut bundle = fs::File::open(&path).unwrap();
        for number in 0..u32::try_from(release.bundle.frames.len()).unwrap() {
            let wanted = release.objects().into_iter().filter(|(_, o)| o.frame == number).map(|(d, o)| (d, o.size)).collect();
            let mut compressed = Vec::new();
            (&mut bundle).take(release.bundle.frames[number as usize].size).read_to_end(&mut compressed).unwrap();
            let mut batch = store.batch();
            read_frame(&compressed[..], &release, number, wanted, &mut batch).unwrap();
            batch.commit().unwrap();
        }
        for content in files.values() {
            prop_assert_eq!(&fs::read(store.path(Digest::of(content))).unwrap(), content);
        }
    }
}
