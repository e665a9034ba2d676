//! What is served: objects of a store, made from numbers so that they are the same everywhere, and kept for the next run.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fs_err as fs;
use mirabelle_content::ObjectStore;
use mirabelle_manifests::Digest;

/// Objects from 4 to 64 KB, and how many.
const SMALL: u64 = 5000;
const SMALLEST: u64 = 4 << 10;
const SMALL_SPAN: u64 = 60 << 10;
/// Objects of 1 MB.
const MEDIUM: u64 = 64;
const MEDIUM_BYTES: u64 = 1 << 20;
/// Objects of 256 MB.
const LARGE: u64 = 2;
pub(super) const LARGE_BYTES: u64 = 256 << 20;
/// Objects that are read cold, and their bytes.
const COLD: u64 = 96;
const COLD_BYTES: u64 = 16 << 20;

/// A tree with objects in it, and the paths of each kind as clients ask for them.
pub(super) struct Tree {
    pub(super) root: PathBuf,
    pub(super) small: Arc<Vec<String>>,
    pub(super) medium: Arc<Vec<String>>,
    pub(super) large: Arc<Vec<String>>,
    pub(super) cold: Arc<Vec<String>>,
    /// Of the small ones.
    pub(super) small_bytes: u64,
}

impl Tree {
    /// The tree below `root`, made if it is not there.
    pub(super) fn at(root: &Path) -> Self {
        let store = ObjectStore::open(root).unwrap();
        let list = |name: &str, count: u64, length: &dyn Fn(u64) -> u64| {
            let list = root.join(format!("{name}.list"));
            if !list.exists() {
                eprintln!("making {count} {name} objects");
                let paths: Vec<String> = (0..count)
                    .map(|number| add(&store, mixed(number) ^ length(number), length(number)))
                    .collect();
                fs::write(&list, paths.join("\n")).unwrap();
            }
            Arc::new(fs::read_to_string(&list).unwrap().lines().map(str::to_owned).collect::<Vec<_>>())
        };
        let small = |number| SMALLEST + mixed(number ^ 0x51) % SMALL_SPAN;
        Self {
            root: root.to_owned(),
            small: list("small", SMALL, &small),
            medium: list("medium", MEDIUM, &|_| MEDIUM_BYTES),
            large: list("large", LARGE, &|_| LARGE_BYTES),
            cold: list("cold", COLD, &|_| COLD_BYTES),
            small_bytes: (0..SMALL).map(small).sum(),
        }
    }

    /// Drops what is read cold from the page cache.
    pub(super) fn chill(&self) {
        for path in self.cold.iter() {
            let file = fs::File::open(self.root.join(&path[1..])).unwrap();
            file.sync_all().unwrap();
            rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
        }
    }

    /// Brings everything else into the page cache.
    pub(super) fn warm(&self) {
        for path in self.small.iter().chain(self.medium.iter()).chain(self.large.iter()) {
            std::io::copy(&mut fs::File::open(self.root.join(&path[1..])).unwrap(), &mut std::io::sink())
                .unwrap();
        }
    }
}

/// Adds an object of noise; its path.
fn add(store: &ObjectStore, seed: u64, length: u64) -> String {
    let mut file = tempfile::NamedTempFile::new_in(store_root(store)).unwrap();
    let mut bytes = Vec::with_capacity(1 << 20);
    let (mut hasher, mut left) = (mirabelle_manifests::Hasher::default(), length);
    while left > 0 {
        bytes.clear();
        let want = usize::try_from(left.min(1 << 20)).unwrap();
        bytes
            .extend((0..want.div_ceil(8) as u64).flat_map(|at| mixed(seed ^ mixed(at ^ left)).to_le_bytes()));
        bytes.truncate(want);
        hasher.update(&bytes);
        file.write_all(&bytes).unwrap();
        left -= want as u64;
    }
    let object: Digest = hasher.finish();
    let mut batch = store.batch();
    batch.adopt(file.path(), object, length).unwrap();
    batch.commit().unwrap();
    format!("/objects/{}", object.fanned_out())
}

/// Where a file lies on the same disk as the store's own.
fn store_root(store: &ObjectStore) -> PathBuf {
    let any = store.path(Digest::of(b""));
    any.ancestors().nth(3).unwrap().to_owned()
}

/// splitmix64.
pub(super) fn mixed(number: u64) -> u64 {
    let mut x = number.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}
