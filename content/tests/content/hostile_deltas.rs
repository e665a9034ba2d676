//! A delta leads to exactly what was signed or to an error, whatever happened to it or to the base on the way, and however
//! an enemy made it.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use fs_err as fs;
use mirabelle_content::ObjectStore;
use mirabelle_content::bundle::verify_bundle;
use mirabelle_content::delta::{DeltaError, Held, decode};
use mirabelle_manifests::Digest;

use crate::deltas::{Form, Side, World, text, tree, zip};

/// A delta with all its parts, as small as one gets.
fn small(world: &World, forms: [Form; 2]) -> (Side, Side, Vec<u8>, PathBuf) {
    let jar = |identifier: &str| zip(&[("m.txt", text(30, 1, identifier), true)]);
    let old = tree(&[("a.jar", &jar("old")), ("b.txt", &text(30, 2, "old")), ("c", b"same")]);
    let new = tree(&[("a.jar", &jar("new")), ("b.txt", &text(31, 2, "old")), ("d", b"same"), ("e", b"")]);
    let (old, new) = (world.side(&old, forms[0]), world.side(&new, forms[1]));
    let delta = fs::read(world.encode(Some(&old), &new, 1)).unwrap();
    let path = world.fresh("broken").join("delta");
    (old, new, delta, path)
}

#[test]
fn every_flipped_bit_every_cut_and_every_byte_more_is_noticed() {
    let world = World::new();
    let (old, new, delta, path) = small(&world, [Form::Ours, Form::Ours]);
    let scratch = world.fresh("scratch");
    let store = ObjectStore::open(&world.fresh("store")).unwrap();
    let decode = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        decode(&path, Some(old.held()), new.expected(), &scratch, &store, &mut |_| {})
    };
    for at in 0..delta.len() * 8 {
        let mut bytes = delta.clone();
        bytes[at / 8] ^= 1 << (at % 8);
        let error = decode(&bytes).unwrap_err();
        assert!(matches!(error, DeltaError::Malformed(_)), "bit {at}: {error}");
    }
    for length in 0..delta.len() {
        decode(&delta[..length]).unwrap_err();
    }
    decode(&[&delta[..], b"\0"].concat()).unwrap_err();
    decode(&delta).unwrap();
}

/// Makes the check of a delta right, whatever follows it.
fn rechecked(mut delta: Vec<u8>) -> Vec<u8> {
    if delta.len() >= 13 {
        let digest = Digest::of(&delta[13..]);
        delta[5..13].copy_from_slice(&digest.as_bytes()[..8]);
    }
    delta
}

#[test]
fn an_enemy_who_knows_the_check_gets_no_further() {
    let world = World::new();
    for forms in [[Form::Ours, Form::Ours], [Form::Ours, Form::Foreign]] {
        let (old, new, delta, path) = small(&world, forms);
        let try_it = |bytes: Vec<u8>| {
            fs::write(&path, rechecked(bytes)).unwrap();
            if let Ok((manifest, store)) = world.decode(&path, Some(old.held()), &new) {
                assert_eq!(manifest, new.manifest);
                let known = old.release.objects();
                let lacking = new.release.objects().into_iter().filter(|(o, _)| !known.contains_key(o));
                for (object, what) in lacking {
                    store.verify(object, what.size).unwrap();
                }
            }
        };
        for at in (13..delta.len()).step_by(2) {
            let mut bytes = delta.clone();
            bytes[at] ^= 1 << (at % 8);
            try_it(bytes);
        }
        for at in (13..delta.len()).step_by(23) {
            try_it(delta[..at].to_vec());
            try_it([&delta[..at], &[0xff; 9], &delta[at..]].concat());
        }
    }
}

/// Lengths that nobody has: each is refused before anything is made of it.
#[test]
fn enormous_claims_fail_at_once() {
    let world = World::new();
    let target = world.side(&tree(&[("a", b"a")]), Form::Ours);
    let path = world.fresh("broken").join("delta");
    let huge = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f];
    let none = [0, 0, 0];
    let one_window = |numbers: [&[u8]; 5]| [&[0, 0, 0][..], &none, &none, &[1], &numbers.concat()].concat();
    let claims: Vec<Vec<u8>> = vec![
        [&[0][..], &huge, &[0], &none, &none, &[0]].concat(),
        [&[0, 0][..], &huge, &none, &none, &[0]].concat(),
        [&[0, 0, 0, 0][..], &huge, &[0], &none, &[0]].concat(),
        [&[0, 0, 0, 0][..], &huge, &huge, &none, &[0]].concat(),
        [&[0, 0, 0, 2, 0x5d, 25][..], &huge, &huge, &none, &[0]].concat(),
        [&[0, 0, 0, 2, 0x5d, 200][..], &[0, 0], &none, &[0]].concat(),
        [&[0, 0, 0][..], &none, &none, &huge].concat(),
        one_window([&huge, &[0], &[0], &[0], &[0]]),
        one_window([&[1], &huge, &huge, &[0], &[0]]),
        one_window([&[1], &[0], &[0], &huge, &huge]),
        [0xff; 40].to_vec(),
    ];
    let begun = std::time::Instant::now();
    for claim in claims {
        for tail in [0, 1, 300] {
            let delta = [&b"MDLT\x01\0\0\0\0\0\0\0\0"[..], &claim, &vec![0xaa; tail]].concat();
            fs::write(&path, rechecked(delta)).unwrap();
            world.decode(&path, None, &target).map(|(manifest, _)| manifest).unwrap_err();
        }
    }
    assert!(begun.elapsed() < std::time::Duration::from_secs(10));
}

#[test]
fn a_wrong_base_is_named() {
    let world = World::new();
    let (old, new, delta, path) = small(&world, [Form::Ours, Form::Ours]);
    fs::write(&path, &delta).unwrap();
    let fails = |base: Option<Held<'_>>| world.decode(&path, base, &new).map(|(m, _)| m).unwrap_err();

    // Another release, or none, or one where none is needed.
    assert!(matches!(fails(None), DeltaError::OtherBase));
    assert!(matches!(fails(Some(new.held())), DeltaError::OtherBase));
    let packed = world.encode(None, &new, 1);
    let error = world.decode(&packed, Some(old.held()), &new).map(|(m, _)| m).unwrap_err();
    assert!(matches!(error, DeltaError::OtherBase));
    // Signed for another release.
    let error = world.decode(&path, Some(old.held()), &old).map(|(m, _)| m).unwrap_err();
    assert!(matches!(
        error,
        DeltaError::OtherRelease { .. } | DeltaError::Malformed(_) | DeltaError::Stream(_)
    ));

    // An object of the base that is damaged, cut, or gone.
    for (object, what) in old.release.objects() {
        if new.release.objects().contains_key(&object) {
            continue;
        }
        let file = old.store.path(object);
        fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
        let good = fs::read(&file).unwrap();
        let names = |what: &str| match fails(Some(old.held())) {
            DeltaError::Base { object: named, .. } => assert_eq!(named, object, "{what}"),
            error => panic!("{what}: {error:?}"),
        };
        for at in (0..good.len()).step_by(41) {
            let mut bytes = good.clone();
            bytes[at] ^= 4;
            fs::write(&file, bytes).unwrap();
            // Some bytes of a base are not copied from; then it is right all the same.
            if let Err(error) = world.decode(&path, Some(old.held()), &new) {
                assert!(
                    matches!(error, DeltaError::Base { object: named, .. } if named == object),
                    "{error}"
                );
            }
        }
        fs::write(&file, &good[..good.len() - 1]).unwrap();
        names("cut");
        fs::remove_file(&file).unwrap();
        names("gone");
        fs::write(&file, &good).unwrap();
        assert_eq!(good.len() as u64, what.size);
    }
    world.check(&path, Some(&old), &new);
}

#[test]
fn every_flipped_bit_of_a_bundle_is_found() {
    let world = World::new();
    let side =
        world.side(&tree(&[("a", b"a"), ("b/c.txt", &text(9, 1, "mirabelle")), ("e", b"")]), Form::Ours);
    let bundle = fs::read(side.tree.with_file_name("bundle")).unwrap();
    for at in 0..bundle.len() * 8 {
        let mut bytes = bundle.clone();
        bytes[at / 8] ^= 1 << (at % 8);
        assert!(verify_bundle(&bytes[..], &side.release, &mut |_| {}).is_err(), "bit {at}");
    }
    verify_bundle(&bundle[..], &side.release, &mut |_| {}).unwrap();
}
