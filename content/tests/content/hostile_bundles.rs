//! A bundle comes over a hostile wire: whatever it holds, only signed bytes are kept, and the refusal names the frame.

use std::collections::BTreeMap;
use std::io::Read;

use fs_err as fs;
use mirabelle_content::ObjectStore;
use mirabelle_content::bundle::{BundleError, read_frame, verify_bundle};
use mirabelle_manifests::{Digest, Release};

use crate::release_of;

struct Victim {
    directory: tempfile::TempDir,
    release: Release,
    bundle: Vec<u8>,
}

fn victim() -> Victim {
    let directory = tempfile::tempdir().unwrap();
    let tree = directory.path().join("tree");
    fs::create_dir(&tree).unwrap();
    for number in 0_u64..50 {
        let content: Vec<u8> = (0..200 + number * 37).flat_map(|i| (i * i * number).to_le_bytes()).collect();
        fs::write(tree.join(format!("f{number}")), content).unwrap();
    }
    let path = directory.path().join("b");
    let release = release_of(&tree, &path, 1);
    let bundle = fs::read(&path).unwrap();
    Victim { directory, release, bundle }
}

impl Victim {
    /// What reading frame 0 from `bytes` comes to, and whether anything was kept.
    fn read(&self, bytes: &[u8]) -> Result<usize, BundleError> {
        let store = ObjectStore::open(&self.directory.path().join("store")).unwrap();
        let wanted: BTreeMap<Digest, u64> =
            self.release.objects().into_iter().map(|(d, o)| (d, o.size)).collect();
        let count = wanted.len();
        let mut batch = store.batch();
        let result = read_frame(bytes, &self.release, 0, wanted, &mut batch);
        drop(batch);
        assert_eq!(store.objects().unwrap().count(), 0, "nothing is kept of a frame that was not committed");
        result.map(|()| count)
    }
}

#[test]
fn every_flipped_bit_is_noticed() {
    let victim = victim();
    assert_eq!(victim.read(&victim.bundle).unwrap(), 50);
    let whole = |bytes: &[u8]| verify_bundle(bytes, &victim.release, &mut |_| {});
    whole(&victim.bundle).unwrap();
    for position in (0..victim.bundle.len()).step_by(101) {
        let mut bytes = victim.bundle.clone();
        bytes[position] ^= 1 << (position % 8);
        assert!(whole(&bytes).is_err(), "a flipped bit at byte {position} went unnoticed");
    }
}

#[test]
fn truncated_swapped_or_foreign_frames_are_refused() {
    let victim = victim();
    let compress = |bytes: &[u8]| zstd::encode_all(bytes, 3).unwrap();
    let end = compress(&[0; 1024]);
    let half = victim.bundle.len() / 2;
    let cases: [(&str, Vec<u8>); 6] = [
        ("truncated", victim.bundle[..half].to_vec()),
        ("no zstd", b"<html>404</html>".to_vec()),
        ("empty", Vec::new()),
        ("another frame", end.clone()),
        ("no tar", compress(&[7; 4096])),
        ("a tar cut short", compress(&[b'x'; 100])),
    ];
    for (name, bytes) in cases {
        let error = victim.read(&bytes).unwrap_err();
        assert!(
            matches!(error, BundleError::Frame { frame: 0, .. } | BundleError::Missing { frame: 0, .. }),
            "{name}: {error:?}"
        );
    }
}

#[test]
fn a_bomb_stops_at_the_signed_length() {
    let victim = victim();
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(1 << 32);
    header.set_mode(0o644);
    tar.append_data(&mut header, "bomb", std::io::empty()).unwrap();
    let start = tar.into_inner().unwrap();
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    std::io::copy(&mut start[..512].chain(std::io::repeat(0).take(64 << 20)), &mut encoder).unwrap();
    let error = victim.read(&encoder.finish().unwrap()).unwrap_err();
    let BundleError::Frame { source, .. } = error else { panic!("{error:?}") };
    assert!(source.to_string().contains("longer than its signed length"), "{source}");
}

#[test]
fn a_gigabyte_of_name_is_not_read() {
    let victim = victim();
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::GNULongName);
    header.set_size(1 << 30);
    header.set_cksum();
    let frame = zstd::encode_all(header.as_bytes().as_slice(), 1).unwrap();
    let BundleError::Frame { source, .. } = victim.read(&frame).unwrap_err() else { panic!() };
    assert!(source.to_string().contains("extension record"), "{source}");
}

#[test]
fn a_longer_bundle_is_not_the_bundle() {
    let victim = victim();
    let mut longer = victim.bundle.clone();
    longer.push(0);
    let error = verify_bundle(&longer[..], &victim.release, &mut |_| {}).unwrap_err();
    assert!(matches!(error, BundleError::NotTheBundle { .. }));
}
