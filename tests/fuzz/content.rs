//! What carries content: deltas, bundles, and the files of a release that are taken apart on their way.

use std::io::Write;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use fs_err as fs;
use mirabelle_content::bundle::{BundleError, WriteOptions, read_frame, verify_bundle, write_bundle};
use mirabelle_content::delta::{DeltaError, EncodeOptions, Expected, Held, decode, encode};
use mirabelle_content::{ObjectStore, ReadObjects, TreeObjects, scan_tree};
use mirabelle_keys::SigningKey;
use mirabelle_manifests::{Description, Digest, Platform, Release, Text};

/// A release in a directory of its own, and its manifest.
struct Side {
    directory: tempfile::TempDir,
    release: Release,
    manifest: Vec<u8>,
    objects: TreeObjects,
}

impl Side {
    fn of(files: &[(&str, &[u8])]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let tree = directory.path().join("tree");
        for (path, content) in files {
            let path = tree.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        let listed = scan_tree(&tree, &mut |_| {}).unwrap();
        let mut out = fs::File::create(directory.path().join("bundle")).unwrap();
        let options = WriteOptions { level: 3, jobs: NonZeroUsize::MIN };
        let (entries, bundle) = write_bundle(&tree, &listed, options, &mut out, &|_| {}).unwrap();
        let text = Text { fr: "Essai".into(), en: "Test".into() };
        let about = Description {
            name: "essai".parse().unwrap(),
            version: "1".parse().unwrap(),
            platform: Platform::any(),
            sequence: 1,
            date: "2026-01-01T00:00:00Z".parse().unwrap(),
            title: text.clone(),
            summary: text,
            categories: vec![],
            licence: "MIT".into(),
            launchers: vec![],
            behaviour: mirabelle_manifests::Behaviour::default(),
        };
        let release = Release::new(about, entries, bundle).unwrap();
        let manifest = release.sign(&SigningKey::from_seed(&[7; 32])).unwrap();
        let objects = TreeObjects::new(&tree, &release);
        Self { directory, release, manifest, objects }
    }

    /// With a manifest that a delta does not take apart.
    fn foreign(mut self) -> Self {
        self.manifest.push(b'\n');
        self
    }

    fn held(&self) -> Held<'_> {
        Held { manifest: &self.manifest, objects: &self.objects }
    }

    fn expected(&self) -> Expected {
        Expected {
            manifest: Digest::of(&self.manifest),
            manifest_length: self.manifest.len() as u64,
            installed_size: self.release.installed_size(),
        }
    }

    fn bundle(&self) -> Vec<u8> {
        fs::read(self.directory.path().join("bundle")).unwrap()
    }
}

/// Where one input is tried: a store, and a directory for scratch that is left empty.
struct Bench {
    directory: tempfile::TempDir,
    store: ObjectStore,
    scratch: PathBuf,
}

impl Bench {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let scratch = directory.path().join("scratch");
        fs::create_dir(&scratch).unwrap();
        let store = ObjectStore::open(&directory.path().join("store")).unwrap();
        Self { directory, store, scratch }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("delta")
    }

    fn encode(&self, base: Option<&Side>, target: &Side) {
        let mut out = fs::File::create(self.path()).unwrap();
        let options = EncodeOptions { effort: 1, ..EncodeOptions::default() };
        encode(base.map(Side::held), target.held(), options, &self.scratch, &mut out, &|_| {}).unwrap();
    }

    /// Decodes; what it wrote is within bounds, and all that it owes if it says that it is done.
    fn decode(&self, base: Option<&Side>, target: &Side) -> Result<(), DeltaError> {
        let held = base.map(Side::held);
        let result = decode(&self.path(), held, target.expected(), &self.scratch, &self.store, &mut |_| {});
        assert!(is_empty(&self.scratch) && is_empty(&self.directory.path().join("store/incoming")));
        let objects = self.store.objects().unwrap().map(Result::unwrap);
        let written = objects.map(|(object, size)| {
            self.store.verify(object, size).unwrap();
            size
        });
        assert!(written.sum::<u64>() <= target.release.installed_size());
        let manifest = result?;
        assert_eq!(manifest, target.manifest);
        let known = base.map(|base| base.release.objects()).unwrap_or_default();
        for (object, what) in target.release.objects() {
            assert!(known.contains_key(&object) || self.store.holds(object, what.size));
        }
        Ok(())
    }
}

fn is_empty(directory: &Path) -> bool {
    fs::read_dir(directory).unwrap().count() == 0
}

fn text(word: &str) -> Vec<u8> {
    (0..200).flat_map(|line| format!("{word} {} of {word}\n", line * 7919 % 1000).into_bytes()).collect()
}

fn jar(content: &[u8]) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let options =
        zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Deflated);
    writer.start_file("m", options).unwrap();
    writer.write_all(content).unwrap();
    writer.finish().unwrap().into_inner()
}

static BASE: LazyLock<Side> = LazyLock::new(|| {
    Side::of(&[
        ("a.txt", &text("mirabelle")),
        ("b.jar", &jar(&text("jar"))),
        ("c.so", EXECUTABLE),
        ("same", b"same"),
    ])
});

/// The two ways of sending a manifest.
static TARGETS: LazyLock<[Side; 2]> = LazyLock::new(|| {
    let mut executable = EXECUTABLE.to_vec();
    executable.splice(4200..4200, [0x90; 16]);
    let (notes, jam) = (text("quetsche"), jar(&text("jam")));
    let files: [(&str, &[u8]); 6] = [
        ("a.txt", &notes),
        ("b.jar", &jam),
        ("c.so", &executable),
        ("d/moved", b"same"),
        ("empty", b""),
        ("new", b"new"),
    ];
    [Side::of(&files), Side::of(&files).foreign()]
});

const EXECUTABLE: &[u8] = include_bytes!("corpus/delta-image/small.elf");

/// Where a delta's check begins and ends.
const CHECK: std::ops::Range<usize> = 5..13;

/// Deltas of every kind: from a release and from nothing, with the manifest in parts and whole.
pub(crate) fn deltas() -> Vec<Vec<u8>> {
    let ways = TARGETS.iter().flat_map(|target| [(Some(&*BASE), target), (None, target)]);
    ways.map(|(base, target)| {
        let bench = Bench::new();
        bench.encode(base, target);
        fs::read(bench.path()).unwrap()
    })
    .collect()
}

/// A delta whose check is right, whatever it covers.
pub(crate) fn delta(bytes: &[u8]) -> bool {
    let Some(flags) = bytes.get(CHECK.end) else { return false };
    let base = (flags & 1 != 0).then_some(&*BASE);
    let target = &TARGETS[usize::from(flags & 2 != 0)];
    let mut bytes = bytes.to_vec();
    let check = Digest::of(&bytes[CHECK.end..]);
    bytes[CHECK].copy_from_slice(&check.as_bytes()[..CHECK.len()]);
    let bench = Bench::new();
    fs::write(bench.path(), bytes).unwrap();
    !matches!(bench.decode(base, target), Err(DeltaError::Malformed(_)))
}

/// A release that holds a file leads to one that holds another, or back: one of the two, for encoding is slow.
fn either_way(name: &str, known: &[u8], bytes: &[u8]) -> bool {
    let (old, new) = (Side::of(&[(name, known)]), Side::of(&[(name, bytes)]));
    let there = Digest::of(bytes).as_bytes()[0] & 1 == 0;
    let (base, target) = if there { (&old, &new) } else { (&new, &old) };
    let bench = Bench::new();
    bench.encode(Some(base), target);
    bench.decode(Some(base), target).unwrap();
    true
}

pub(crate) fn delta_image(bytes: &[u8]) -> bool {
    either_way("lib.so", EXECUTABLE, bytes)
}

pub(crate) fn opened_archive(bytes: &[u8]) -> bool {
    either_way("a.jar", include_bytes!("corpus/opened-archive/small.zip"), bytes)
}

/// A bundle, and the tar that its first frame holds.
pub(crate) fn bundle() -> [Vec<u8>; 2] {
    let bundle = BASE.bundle();
    let mut frames = &bundle[..];
    let mut tar = Vec::new();
    // The skeleton is empty here; files stand in the frame after it.
    let decoder = zstd::Decoder::new(&mut frames).unwrap();
    std::io::copy(&mut std::io::BufReader::new(decoder), &mut tar).unwrap();
    [bundle, tar]
}

/// A frame as it comes, and one whose tar is this.
pub(crate) fn bundle_frame(bytes: &[u8]) -> bool {
    let mut read = false;
    for frame in [bytes.to_vec(), zstd::encode_all(bytes, 1).unwrap()] {
        for number in 0..u32::try_from(BASE.release.bundle.frames.len()).unwrap() {
            let bench = Bench::new();
            let objects = BASE.release.objects().into_iter().filter(|(_, what)| what.frame == number);
            let wanted = objects.map(|(object, what)| (object, what.size)).collect();
            let mut batch = bench.store.batch();
            let outcome = read_frame(&frame[..], &BASE.release, number, wanted, &mut batch);
            read |= !matches!(outcome, Err(BundleError::Frame { .. }));
            batch.commit().unwrap();
            for object in bench.store.objects().unwrap() {
                let (object, size) = object.unwrap();
                assert!(BASE.objects.open(object, size).is_ok(), "an object of the release");
                bench.store.verify(object, size).unwrap();
            }
        }
    }
    let whole = verify_bundle(bytes, &BASE.release, &mut |_| {}).is_ok();
    assert_eq!(whole, bytes == BASE.bundle());
    read
}
