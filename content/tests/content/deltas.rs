//! A delta leads from what is held to exactly what was signed, whatever the releases hold.

use std::collections::BTreeMap;
use std::io::Write;
use std::num::NonZeroUsize;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use fs_err as fs;
use mirabelle_content::delta::{DeltaError, EncodeOptions, Expected, Held, decode, encode};
use mirabelle_content::{ObjectStore, ReadObjects, TreeObjects};
use mirabelle_manifests::{Digest, Json, ManifestParts, Release};
use proptest::prelude::*;

use crate::executables::{elf, pe, program};
use crate::release_of;

/// What stands at a path.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Node {
    File(Vec<u8>),
    Program(Vec<u8>),
    Link(String),
    Directory,
}

pub(crate) type Tree = BTreeMap<String, Node>;

pub(crate) fn tree(files: &[(&str, &[u8])]) -> Tree {
    files.iter().map(|(path, content)| ((*path).to_owned(), Node::File(content.to_vec()))).collect()
}

/// A release, held in a store and as a tree.
pub(crate) struct Side {
    pub(crate) tree: PathBuf,
    pub(crate) store: ObjectStore,
    pub(crate) release: Release,
    pub(crate) manifest: Vec<u8>,
}

/// How a manifest is written.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Form {
    /// As ours: a delta takes it apart.
    Ours,
    /// With a member from the future: it stays whole.
    Foreign,
    /// With other white space: the same.
    Spaced,
}

pub(crate) fn manifest(release: &Release, form: Form) -> Vec<u8> {
    let signed = String::from_utf8(Json::of(release).unwrap().to_file()).unwrap();
    match form {
        Form::Ours => format!(r#"{{"signatures":[],"signed":{signed}}}"#),
        Form::Foreign => format!(r#"{{"signatures":[],"signed":{{"zest":[1],{}}}"#, &signed[1..]),
        Form::Spaced => format!("{{\"signatures\":[], \"signed\":{signed}}}\n"),
    }
    .into_bytes()
}

/// Where the releases of a test are.
pub(crate) struct World {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) count: std::cell::Cell<usize>,
}

impl World {
    pub(crate) fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap(), count: std::cell::Cell::new(0) }
    }

    pub(crate) fn fresh(&self, name: &str) -> PathBuf {
        self.count.set(self.count.get() + 1);
        let path = self.directory.path().join(format!("{name}-{}", self.count.get()));
        fs::create_dir(&path).unwrap();
        path
    }

    pub(crate) fn side(&self, content: &Tree, form: Form) -> Side {
        let directory = self.fresh("side");
        let tree = directory.join("tree");
        fs::create_dir(&tree).unwrap();
        for (path, node) in content {
            let path = tree.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            match node {
                Node::File(bytes) => fs::write(&path, bytes).unwrap(),
                Node::Program(bytes) => {
                    fs::write(&path, bytes).unwrap();
                    fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
                }
                Node::Link(target) => fs::os::unix::fs::symlink(target, &path).unwrap(),
                Node::Directory => fs::create_dir_all(&path).unwrap(),
            }
        }
        let release = release_of(&tree, &directory.join("bundle"), 1);
        let store = ObjectStore::open(&directory.join("store")).unwrap();
        let objects = TreeObjects::new(&tree, &release);
        let mut batch = store.batch();
        for (object, what) in release.objects() {
            batch.add(&mut objects.open(object, what.size).unwrap(), object, what.size).unwrap();
        }
        batch.commit().unwrap();
        let manifest = manifest(&release, form);
        Side { tree, store, release, manifest }
    }

    pub(crate) fn encode(&self, base: Option<&Side>, target: &Side, jobs: usize) -> PathBuf {
        let path = self.fresh("encode").join("delta");
        let options = EncodeOptions { effort: 1, jobs: NonZeroUsize::new(jobs).unwrap() };
        let scratch = self.fresh("scratch");
        let mut out = fs::File::create(&path).unwrap();
        let base = base.map(Side::held);
        let length = encode(base, target.held(), options, &scratch, &mut out, &|_| {}).unwrap();
        assert_eq!(length, fs::metadata(&path).unwrap().len());
        assert_eq!(fs::read_dir(&scratch).unwrap().count(), 0);
        path
    }

    /// Decodes into a store of its own; whatever comes of it, only that store was written, and only within bounds.
    pub(crate) fn decode(
        &self,
        delta: &Path,
        base: Option<Held<'_>>,
        target: &Side,
    ) -> Result<(Vec<u8>, ObjectStore), DeltaError> {
        let (scratch, root) = (self.fresh("scratch"), self.fresh("store"));
        let store = ObjectStore::open(&root).unwrap();
        let result = decode(delta, base, target.expected(), &scratch, &store, &mut |_| {});
        assert_eq!(fs::read_dir(&scratch).unwrap().count(), 0, "scratch is left clean");
        let mut written = 0;
        for object in store.objects().unwrap() {
            let (object, size) = object.unwrap();
            store.verify(object, size).unwrap();
            written += size;
        }
        assert!(written <= target.release.installed_size(), "no more is written than was signed");
        assert_eq!(fs::read_dir(root.join("incoming")).unwrap().count(), 0);
        result.map(|manifest| (manifest, store))
    }

    /// Decodes what must be right.
    pub(crate) fn check(&self, delta: &Path, base: Option<&Side>, target: &Side) {
        let known = base.map(|base| base.release.objects()).unwrap_or_default();
        let installed = base.map(|base| TreeObjects::new(&base.tree, &base.release));
        let from_tree = base.zip(installed.as_ref());
        let from_tree = from_tree.map(|(base, objects)| Held { manifest: &base.manifest, objects });
        for held in [base.map(Side::held), from_tree] {
            let (manifest, store) = self.decode(delta, held, target).unwrap();
            assert_eq!(manifest, target.manifest);
            let new = target.release.objects().into_iter().filter(|(object, _)| !known.contains_key(object));
            let mut expected: Vec<(Digest, u64)> = new.map(|(object, what)| (object, what.size)).collect();
            expected.sort();
            let mut got: Vec<(Digest, u64)> = store.objects().unwrap().map(Result::unwrap).collect();
            got.sort();
            assert_eq!(got, expected, "the objects that the base lacks, and no others");
        }
    }

    /// There and back, and each from nothing; returns the length of the delta there.
    pub(crate) fn round_trip(&self, old: &Tree, new: &Tree, forms: [Form; 2]) -> u64 {
        let (old, new) = (self.side(old, forms[0]), self.side(new, forms[1]));
        let there = self.encode(Some(&old), &new, 1);
        self.check(&there, Some(&old), &new);
        for (base, target) in [(Some(&new), &old), (None, &new)] {
            self.check(&self.encode(base, target, 1), base, target);
        }
        fs::metadata(there).unwrap().len()
    }
}

impl Side {
    pub(crate) fn held(&self) -> Held<'_> {
        Held { manifest: &self.manifest, objects: &self.store }
    }

    pub(crate) fn expected(&self) -> Expected {
        Expected {
            manifest: Digest::of(&self.manifest),
            manifest_length: self.manifest.len() as u64,
            installed_size: self.release.installed_size(),
        }
    }
}

pub(crate) fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    let next = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..length).map(next).collect()
}

pub(crate) fn text(lines: u64, seed: u64, identifier: &str) -> Vec<u8> {
    let line = |line: u64| {
        let mixed = (line + seed * 1000).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 48;
        format!("let {identifier}_{mixed} = {identifier}({mixed}, {});\n", line % 7)
    };
    (0..lines).map(line).collect::<String>().into_bytes()
}

pub(crate) fn zip(members: &[(&str, Vec<u8>, bool)]) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, content, deflated) in members {
        let method =
            if *deflated { zip::CompressionMethod::Deflated } else { zip::CompressionMethod::Stored };
        writer
            .start_file(*name, zip::write::SimpleFileOptions::default().compression_method(method))
            .unwrap();
        writer.write_all(content).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

pub(crate) fn gzip(content: &[u8], level: u32) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(level));
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn trees_of_every_shape_lead_to_each_other() {
    let world = World::new();
    let (large, mut changed) = (noise(2 << 20, 1), noise(2 << 20, 1));
    changed.splice(100_000..100_000, *b"inserted");
    changed[1 << 20] ^= 1;
    let mut old = tree(&[
        ("empty", b""),
        ("lib/large.bin", &large),
        ("same/one.txt", b"the same"),
        ("same/two.txt", b"the same"),
        ("share/notes.txt", &text(500, 1, "mirabelle")),
        ("tiny", b"x"),
        ("was-empty", b""),
        ("will-be-empty", b"something"),
    ]);
    old.insert("bin/run".into(), Node::Program(b"#!/bin/sh\n".to_vec()));
    old.insert("link".into(), Node::Link("bin/run".into()));
    old.insert("var".into(), Node::Directory);
    let mut new = tree(&[
        ("bin/run", b"#!/bin/sh\n"),
        ("elsewhere/one.txt", b"the same"),
        ("empty", b""),
        ("lib/large.bin", &changed),
        ("lib/larger.bin", &changed[..1_100_000]),
        ("lib/two.bin", &changed),
        ("same/two.txt", b"no longer the same"),
        ("share/notes.txt", &text(500, 1, "quetsche")),
        ("was-empty", b"something"),
        ("will-be-empty", b""),
    ]);
    new.insert("link".into(), Node::Link("share/notes.txt".into()));
    new.insert("tiny".into(), Node::Program(b"x".to_vec()));
    new.insert("var/lib".into(), Node::Directory);
    let length = world.round_trip(&old, &new, [Form::Ours, Form::Ours]);
    assert!(length < 5000, "{length} bytes");
    // A file where a link or a directory was, and the reverse.
    world.round_trip(
        &BTreeMap::from([("a".into(), Node::Directory), ("b".into(), Node::Link("a".into()))]),
        &tree(&[("a/b", b"1"), ("b/c", b"2")]),
        [Form::Ours, Form::Ours],
    );
    // Nothing at all, and nothing new.
    old.remove("lib/large.bin");
    world.round_trip(&Tree::new(), &old, [Form::Ours, Form::Ours]);
    world.round_trip(&old, &old, [Form::Ours, Form::Ours]);
}

#[test]
fn manifests_of_others_come_back_whole() {
    let world = World::new();
    let old = tree(&[("a", &text(50, 1, "old")), ("b", b"the same"), ("e", b"")]);
    let new = tree(&[("a", &text(50, 1, "new")), ("b", b"the same"), ("c", b""), ("d", b"d")]);
    assert!(ManifestParts::of(&world.side(&new, Form::Ours).manifest).is_some());
    for form in [Form::Foreign, Form::Spaced] {
        assert!(ManifestParts::of(&world.side(&new, form).manifest).is_none());
        for forms in [[Form::Ours, form], [form, Form::Ours], [form, form]] {
            world.round_trip(&old, &new, forms);
        }
    }
}

#[test]
fn archives_within_are_opened_and_closed() {
    let world = World::new();
    let inner = |identifier: &str| zip(&[("deep.txt", text(300, 3, identifier), true)]);
    let jar = |identifier: &str, extra: bool| {
        let mut members = vec![
            ("a.txt", text(800, 1, identifier), true),
            ("b.bin", noise(5000, 2), true),
            ("c.txt", text(200, 2, identifier), false),
            ("inner.zip", inner(identifier), false),
            ("deflated.zip", inner(identifier), true),
            ("empty", Vec::new(), true),
        ];
        if extra {
            members.insert(0, ("0.txt", text(20, 9, "more"), true));
            members.remove(2);
        }
        zip(&members)
    };
    let (old_jar, new_jar) = (jar("mirabelle", false), jar("quetsche", true));
    let old = tree(&[
        ("bomb.gz", &gzip(&vec![0; 1 << 20], 9)),
        ("cut.zip", &old_jar[..old_jar.len() - 30]),
        ("page.gz", &gzip(&text(900, 4, "old"), 9)),
        ("x.jar", &old_jar),
    ]);
    let new = tree(&[
        ("bomb.gz", &gzip(&vec![1; 1 << 20], 9)),
        ("cut.zip", &new_jar[..new_jar.len() - 30]),
        ("page.gz", &gzip(&text(900, 4, "new"), 6)),
        ("y/x.jar", &new_jar),
    ]);
    world.round_trip(&old, &new, [Form::Ours, Form::Ours]);
    world.round_trip(&old, &new, [Form::Spaced, Form::Foreign]);
}

#[test]
fn executables_that_moved_cost_little() {
    let world = World::new();
    let lengths: Vec<usize> = (0..300).map(|n| 40 + n * 37 % 90).collect();
    let mut longer = lengths.clone();
    longer[20] += 24;
    longer[200] += 16;
    for wrap in [elf, pe] {
        let (old, new) = (wrap(&program(&lengths)), wrap(&program(&longer)));
        let differing = old.iter().zip(&new).filter(|(old, new)| old != new).count();
        let length =
            world.round_trip(&tree(&[("lib.so", &old)]), &tree(&[("lib.so", &new)]), [Form::Ours; 2]);
        assert!(length < 1000 && differing > 2000, "{length} bytes for {differing}");
    }
    // Whole, cut within their headers, and in each other's place.
    let (elf, pe) = (elf(&program(&lengths)), pe(&program(&longer)));
    let parts = [&elf[..], &elf[..5000], &elf[..4096], &elf[..4095], &elf[..70], &pe[..], &pe[..6000]];
    let of = |shift: usize| -> Tree {
        let node = |n: usize| Node::Program(parts[(n + shift) % parts.len()].to_vec());
        (0..parts.len()).map(|n| (format!("f{n}.so"), node(n))).collect()
    };
    world.round_trip(&of(0), &of(3), [Form::Ours, Form::Ours]);
}

/// The program that runs this test: its start, and code from its middle, shifted.
#[test]
fn a_real_program_comes_back() {
    let world = World::new();
    let program = fs::read(std::env::current_exe().unwrap()).unwrap();
    let middle = program.len() / 2;
    let code = &program[middle..(middle + (400 << 10)).min(program.len())];
    let shifted = [&code[..100_000], &[0xcc; 48], &code[100_000..300_000], &code[300_016..]].concat();
    let start = program.len().min(2 << 20);
    let again = [&program[..start / 2], &[0x90; 64], &program[start / 2..start]].concat();
    let old = tree(&[("a.so", &elf(code)), ("b", &program[..start]), ("c.dll", &pe(code))]);
    let new = tree(&[("a.so", &elf(&shifted)), ("b", &again), ("c.dll", &pe(&shifted))]);
    let length = world.round_trip(&old, &new, [Form::Ours, Form::Ours]);
    assert!(length < 40_000, "{length} bytes");
}

#[test]
fn the_same_releases_give_the_same_bytes() {
    let world = World::new();
    let old = tree(&[("a.txt", &text(900, 1, "old")), ("b.jar", &zip(&[("m", text(90, 1, "old"), true)]))]);
    let new = tree(&[("a.txt", &text(900, 1, "new")), ("b.jar", &zip(&[("m", text(90, 1, "new"), true)]))]);
    let (old, new) = (world.side(&old, Form::Ours), world.side(&new, Form::Ours));
    for base in [Some(&old), None] {
        let one = fs::read(world.encode(base, &new, 1)).unwrap();
        assert_eq!(fs::read(world.encode(base, &new, 1)).unwrap(), one);
        assert_eq!(fs::read(world.encode(base, &new, 3)).unwrap(), one);
    }
}

/// The content of a file, by what it is like.
fn content() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        Just(Vec::new()),
        proptest::collection::vec(any::<u8>(), 1..40),
        (0_usize..150_000, any::<u64>()).prop_map(|(length, seed)| noise(length, seed)),
        (1_u64..400, 0_u64..5).prop_map(|(lines, seed)| text(lines, seed, "mirabelle")),
        (1_u64..300, 0_u64..3, any::<bool>(), 0_u32..10).prop_map(|(lines, seed, deflated, level)| zip(&[
            ("a", text(lines, seed, "a"), deflated),
            ("g", gzip(&text(lines, seed, "g"), level), false),
            ("b", text(99, seed, "b"), true)
        ])),
        (1_u64..300, 0_u64..3, 0_u32..10)
            .prop_map(|(lines, seed, level)| gzip(&text(lines, seed, "g"), level)),
        (proptest::collection::vec(8_usize..90, 1..60), any::<bool>()).prop_map(|(lengths, is_elf)| {
            if is_elf { elf(&program(&lengths)) } else { pe(&program(&lengths)) }
        }),
    ]
}

fn node() -> impl Strategy<Value = Node> {
    prop_oneof![
        6 => content().prop_map(Node::File),
        2 => content().prop_map(Node::Program),
        1 => Just(Node::Link("a".into())),
        1 => Just(Node::Directory),
    ]
}

/// How a release becomes the next.
#[derive(Clone, Debug)]
enum Edit {
    Remove(usize),
    Rename(usize, String),
    Duplicate(usize, String),
    Mode(usize),
    Splice(usize, usize, usize, Vec<u8>),
    Identifiers(usize),
    Add(String, Node),
}

fn path() -> impl Strategy<Value = String> {
    "[a-d]{1,2}[0-9](/[a-d]{1,2}[0-9]){0,2}\\.(so|txt|jar)"
}

fn edit() -> impl Strategy<Value = Edit> {
    let which = 0_usize..100;
    prop_oneof![
        which.clone().prop_map(Edit::Remove),
        (which.clone(), path()).prop_map(|(which, to)| Edit::Rename(which, to)),
        (which.clone(), path()).prop_map(|(which, to)| Edit::Duplicate(which, to)),
        which.clone().prop_map(Edit::Mode),
        (which.clone(), any::<usize>(), 0_usize..200, proptest::collection::vec(any::<u8>(), 0..99))
            .prop_map(|(which, at, cut, bytes)| Edit::Splice(which, at, cut, bytes)),
        which.prop_map(Edit::Identifiers),
        (path(), node()).prop_map(|(path, node)| Edit::Add(path, node)),
    ]
}

fn edited(tree: &Tree, edits: Vec<Edit>) -> Tree {
    let mut tree = tree.clone();
    for edit in edits {
        let nth = |which: usize| tree.keys().nth(which % tree.len().max(1)).cloned().unwrap_or_default();
        match edit {
            Edit::Remove(which) => drop(tree.remove(&nth(which))),
            Edit::Rename(which, to) => {
                if let Some(node) = tree.remove(&nth(which)) {
                    tree.insert(to, node);
                }
            }
            Edit::Duplicate(which, to) => {
                if let Some(node) = tree.get(&nth(which)).cloned() {
                    tree.insert(to, node);
                }
            }
            Edit::Mode(which) => {
                let path = nth(which);
                if let Some(Node::File(bytes)) = tree.get(&path).cloned() {
                    tree.insert(path, Node::Program(bytes));
                }
            }
            Edit::Splice(which, at, cut, with) => {
                let path = nth(which);
                if let Some(Node::File(bytes) | Node::Program(bytes)) = tree.get_mut(&path) {
                    let at = at % (bytes.len() + 1);
                    let end = bytes.len().min(at + cut);
                    bytes.splice(at..end, with);
                }
            }
            Edit::Identifiers(which) => {
                let path = nth(which);
                if let Some(Node::File(bytes)) = tree.get_mut(&path)
                    && let Ok(text) = std::str::from_utf8(bytes)
                {
                    *bytes = text.replace("mirabelle", "prune").into_bytes();
                }
            }
            Edit::Add(path, node) => drop(tree.insert(path, node)),
        }
    }
    tree
}

fn forms() -> impl Strategy<Value = [Form; 2]> {
    let form = || prop_oneof![4 => Just(Form::Ours), 1 => Just(Form::Foreign)];
    (form(), form()).prop_map(|(old, new)| [old, new])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_release_leads_to_any_other(
        old in proptest::collection::btree_map(path(), node(), 0..10),
        edits in proptest::collection::vec(edit(), 0..8),
        forms in forms(),
    ) {
        let new = edited(&old, edits);
        World::new().round_trip(&old, &new, forms);
    }
}
