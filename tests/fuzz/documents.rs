//! The documents: each parsed, asked what it says, written and parsed again.

use std::collections::BTreeMap;

use mirabelle_keys::SigningKey;
use mirabelle_manifests::tuf::{
    Document, RoleDocument, RoleName, Root, Snapshot, Targets, Timestamp, TrustedMetadata, attach,
};
use mirabelle_manifests::{
    Brake, Catalogue, Deployment, Digest, Enrolment, Instant, Json, MAX_DELTA_OFFERS, Machine, ManifestParts,
    Packagers, Routes, SignedRelease, TargetPath, TemplateError, fill_template,
};

/// A role's document; `None` for what is none.
fn role<T: RoleDocument + PartialEq + std::fmt::Debug>(bytes: &[u8]) -> Option<Document<T>> {
    let document = Document::<T>::parse(bytes).ok()?;
    let written = attach(&document.signed, &document.signatures).expect("what was parsed can be written");
    let again = Document::<T>::parse(&written).expect("what was written can be parsed");
    assert_eq!(again.signed, document.signed);
    assert_eq!(again.signatures, document.signatures);
    Some(document)
}

pub(crate) fn root(bytes: &[u8]) -> bool {
    let Some(document) = role::<Root>(bytes) else { return false };
    let root = document.signed;
    for keys in root.roles.values().chain(root.quorums.values()) {
        if let Ok(keyring) = keys.keyring(&root.keys) {
            let _ = keyring.verify(&[], &document.signatures);
        }
    }
    for now in [Instant::MIN, Instant::UNIX_EPOCH, Instant::MAX] {
        if let Ok(trusted) = TrustedMetadata::begin_with_grace(bytes, now) {
            let _ = (trusted.finish_root(), trusted.stale_since(), trusted.clock_behind());
        }
    }
    true
}

pub(crate) fn timestamp(bytes: &[u8]) -> bool {
    role::<Timestamp>(bytes).inspect(|document| drop(document.signed.snapshot().cloned())).is_some()
}

pub(crate) fn snapshot(bytes: &[u8]) -> bool {
    let Some(document) = role::<Snapshot>(bytes) else { return false };
    for meta in document.signed.meta.values() {
        meta.hashes.as_ref().inspect(|hashes| assert!(!hashes.match_bytes(b"something else")));
    }
    true
}

pub(crate) fn targets(bytes: &[u8]) -> bool {
    let Some(document) = role::<Targets>(bytes) else { return false };
    let targets = document.signed;
    let _ = Catalogue::read(&targets);
    let paths = targets.targets.keys().cloned().chain([TargetPath::new("packages/a/1/any/release.json")]);
    for path in paths.take(20) {
        if let Ok(hashed) = path.hashed("00") {
            assert!(hashed.split('/').all(|segment| !matches!(segment, "" | "." | "..")), "{hashed}");
        }
        for (role, _) in targets.delegations.iter().flat_map(|delegations| delegations.for_path(&path)) {
            assert!(!role.file_stem().contains(['/', '\\']));
            let delegations = targets.delegations.as_ref().unwrap();
            assert!(delegations.keyring(&role).is_some(), "who may speak about a path is delegated");
        }
    }
    for name in ["", "root", "targets", "bin-0", "bin-+1"].map(RoleName::new) {
        drop(targets.delegations.as_ref().map(|delegations| delegations.keyring(&name)));
    }
    true
}

pub(crate) fn release(bytes: &[u8]) -> bool {
    let Ok(signed) = SignedRelease::parse(bytes) else { return false };
    let _ = (signed.release.objects(), signed.release.installed_size(), signed.release.target_path());
    let key = SigningKey::from_seed(&[7; 32]);
    let written = signed.release.sign(&key).expect("what was parsed can be signed");
    let again = SignedRelease::parse(&written).expect("what was signed can be parsed");
    assert_eq!(again.release, signed.release);
    assert!(key.public().verifies(&again.signed_bytes, &again.signatures[0]));
    true
}

/// What is taken apart is put together again, to the same bytes; anything may be put together.
pub(crate) fn release_parts(bytes: &[u8]) -> bool {
    let Some(parts) = ManifestParts::of(bytes) else {
        let stranger = ManifestParts { rest: bytes.to_vec(), entries: Vec::new(), frames: Vec::new() };
        return stranger.assemble().is_ok();
    };
    assert_eq!(parts.assemble().unwrap(), bytes);
    let again = ManifestParts { rest: parts.rest.clone(), entries: Vec::new(), frames: Vec::new() };
    assert_eq!(again.assemble().unwrap(), parts.rest, "the rest is a manifest of empty lists");
    true
}

pub(crate) fn packagers(bytes: &[u8]) -> bool {
    let Ok(packagers) = Packagers::parse(bytes) else { return false };
    assert_eq!(Packagers::parse(&packagers.to_bytes().unwrap()).unwrap(), packagers);
    true
}

pub(crate) fn deployment(bytes: &[u8]) -> bool {
    let Ok(deployment) = Deployment::parse(bytes) else { return false };
    assert_eq!(Deployment::parse(&deployment.to_bytes().unwrap()).unwrap(), deployment);
    let machine = Machine {
        college: "57001".parse().unwrap(),
        id: "b12-03".parse().unwrap(),
        model: None,
        platform: "linux-x86_64".parse().unwrap(),
        room: "B12".parse().ok(),
        tags: ["exam".parse().unwrap()].into(),
    };
    let assigned =
        deployment.assignments_of(&machine).into_values().map(|(_, assignment)| assignment.clone());
    let assigned = assigned.collect::<Vec<_>>();
    let _ = (
        deployment.values_of(&machine),
        deployment.owed(&Catalogue::default(), &machine.college, Instant::MAX),
    );
    let hours = deployment.timetable(&machine);
    for now in [Instant::MIN, Instant::UNIX_EPOCH, Instant::MAX] {
        let _ = (hours.lesson(now), hours.shutdown_before(now), hours.wake_after(now));
        assert!(hours.next_window(now).is_none_or(|at| hours.window(at).is_some()));
        assert!(hours.shutdown_after(now).is_none_or(|at| at > now));
    }
    // What an operator assigns next leaves something that can be followed.
    let mut next = deployment;
    for assignment in assigned {
        next.assign(assignment);
        assert_eq!(Deployment::parse(&next.to_bytes().unwrap()).unwrap(), next);
    }
    true
}

pub(crate) fn brake(bytes: &[u8]) -> bool {
    let Ok(brake) = Brake::parse(bytes) else { return false };
    assert_eq!(Brake::parse(&brake.to_bytes().unwrap()).unwrap(), brake);
    true
}

/// Whatever a server says can be planned with.
pub(crate) fn routes(bytes: &[u8]) -> bool {
    let routes = Routes::read(bytes);
    assert!(routes.deltas.len() <= MAX_DELTA_OFFERS);
    assert_eq!(Routes::read(&serde_json::to_vec(&routes).unwrap()), routes);
    routes != Routes::default()
}

/// A file of it is the same value; so is its canonical form, which is JSON unless strings hold control characters.
pub(crate) fn json(bytes: &[u8]) -> bool {
    let Ok(value) = Json::parse(bytes) else { return false };
    let canonical = value.canonical();
    let file = Json::parse(&value.to_file()).expect("what was written can be parsed");
    assert_eq!(file, value);
    assert_eq!(file.canonical(), canonical);
    if canonical.iter().all(|byte| *byte >= 0x20) {
        let again = Json::parse(&canonical).expect("it is JSON");
        assert_eq!(again, value);
        assert_eq!(again.canonical(), canonical);
    }
    // What others read of it with serde_json is the same as what the signature covers.
    let loose: serde_json::Value = serde_json::from_slice(bytes).expect("the strict reader takes less");
    assert_eq!(Json::of(&loose).expect("it holds nothing else"), value);
    true
}

/// What is filled is bounded, and whatever an error says fits on a line.
pub(crate) fn template(bytes: &[u8]) -> bool {
    let Ok(template) = std::str::from_utf8(bytes) else { return false };
    let facts = BTreeMap::from([("college", "57001"), ("room", "{{ room }}"), ("value.proxy", "")]);
    match fill_template(template, &facts) {
        Ok(filled) => {
            assert!(filled.len() <= 1 << 20);
            assert!(template.contains("{{") || filled == template, "there was nothing to replace");
            true
        }
        Err(TemplateError::Unknown { name, .. }) => {
            assert!(!facts.contains_key(name.as_str()));
            true
        }
        Err(_) => false,
    }
}

/// An enrolment code as a publisher makes it.
pub(crate) fn enrolment_code() -> Vec<u8> {
    let college = "57001".parse().expect("it is a college");
    let enrolment = Enrolment::new(college, "https://origin.example/", 1, Digest::of(b"root"));
    enrolment.expect("it can be made").to_string().into_bytes()
}

/// One enrolment has one code, but for white space.
pub(crate) fn enrolment(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let Ok(enrolment) = text.parse::<Enrolment>() else { return false };
    let written = enrolment.to_string();
    assert_eq!(written, text.split_ascii_whitespace().collect::<String>());
    assert_eq!(written.parse::<Enrolment>().expect("what was written can be read"), enrolment);
    true
}
