//! Signatures cover canonical JSON, so two implementations must agree on every byte of it: ours and securesystemslib's.

use fs_err as fs;
use mirabelle_manifests::Json;
use mirabelle_tests::run;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use crate::witness::python;

/// One process of Python encodes them all.
const DOCUMENTS: usize = 2000;

/// Any string: control characters, quotes, back-slashes, all planes of Unicode.
fn text() -> impl Strategy<Value = String> {
    let character = prop_oneof![
        4 => any::<char>(),
        1 => (0_u32..0x20).prop_filter_map("a character", char::from_u32),
        1 => prop_oneof![Just('"'), Just('\\'), Just('/'), Just('\u{7f}'), Just('\u{2028}'), Just('\u{feff}')],
        // Where the orders of UTF-16 and of code points part.
        1 => prop_oneof![Just('\u{ffff}'), Just('\u{e000}'), Just('\u{10000}'), Just('\u{10ffff}')],
        2 => prop::char::range('a', 'z'),
    ];
    prop::collection::vec(character, 0..12).prop_map(|characters| characters.into_iter().collect())
}

/// Any document that can be written to a file: numbers are of 64 bits.
fn document() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::Bool),
        any::<i64>().prop_map(|number| Json::Integer(number.into())),
        any::<u64>().prop_map(|number| Json::Integer(number.into())),
        prop::sample::select(vec![0, -1, i64::MIN.into(), i64::MAX.into(), u64::MAX.into()])
            .prop_map(Json::Integer),
        text().prop_map(Json::String),
    ];
    leaf.prop_recursive(6, 60, 8, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..8).prop_map(Json::Array),
            prop::collection::btree_map(text(), inner, 0..8).prop_map(Json::Object),
        ]
    })
}

#[test]
fn canonical_json_is_that_of_securesystemslib_to_the_byte() {
    let mut runner = TestRunner::deterministic();
    let documents: Vec<Json> =
        (0..DOCUMENTS).map(|_| document().new_tree(&mut runner).unwrap().current()).collect();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("documents");
    fs::write(&file, documents.iter().map(Json::to_file).collect::<Vec<_>>().join(&b'\n')).unwrap();
    let outcome = run(python("canonical.py").arg(&file)).succeeds();
    let theirs: Vec<&str> = outcome.stdout.lines().collect();
    assert_eq!(theirs.len(), documents.len());
    for (document, theirs) in documents.iter().zip(theirs) {
        assert_eq!(
            hex::encode(document.canonical()),
            theirs,
            "{}",
            String::from_utf8_lossy(&document.to_file())
        );
    }
}
