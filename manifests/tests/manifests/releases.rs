//! Release manifests: what a packager may not say, whatever she signs.

use mirabelle_keys::SigningKey;
use mirabelle_manifests::{
    Behaviour, Bundle, Description, Digest, Entry, Frame, Json, Kind, Launcher, MAX_SBOM_BYTES, Mode, Node,
    Platform, Release, ReleaseError, Sbom, SignedRelease, Text,
};

fn description() -> Description {
    let text = Text { fr: "Essai".into(), en: "Test".into() };
    Description {
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
        behaviour: Behaviour::default(),
    }
}

fn file(path: &str) -> Entry {
    let node = Node::File { frame: 0, mode: Mode::Regular, sha256: Digest::of(path.as_bytes()), size: 3 };
    Entry { path: path.parse().unwrap(), node }
}

fn link(path: &str, target: &str) -> Entry {
    Entry { path: path.parse().unwrap(), node: Node::Link { target: target.into() } }
}

fn bundle() -> Bundle {
    Bundle { frames: vec![Frame { length: 2048, size: 100 }], sha256: Digest::of(b"bundle"), size: 100 }
}

fn release(entries: Vec<Entry>) -> Result<Release, ReleaseError> {
    Release::new(description(), entries, bundle())
}

#[test]
fn comes_back_as_it_was_signed() {
    let key = SigningKey::generate();
    let release = release(vec![file("b"), file("a"), link("c", "a")]).unwrap();
    let bytes = release.sign(&key).unwrap();
    let signed = SignedRelease::parse(&bytes).unwrap();
    assert_eq!(signed.release, release);
    assert_eq!(signed.digest, Digest::of(&bytes));
    assert!(key.public().verifies(&signed.signed_bytes, &signed.signatures[0]));
    // Any other byte, even white space, is another document: the signature covers bytes, not meaning.
    let text = String::from_utf8(bytes).unwrap().replace("\"format\":1", "\"format\": 1");
    let signed = SignedRelease::parse(text.as_bytes()).unwrap();
    assert!(!key.public().verifies(&signed.signed_bytes, &signed.signatures[0]));
}

#[test]
fn its_sbom_is_signed_with_it_and_bounded() {
    let key = SigningKey::generate();
    let plain = release(vec![file("a")]).unwrap();
    let without = String::from_utf8(plain.sign(&key).unwrap()).unwrap();
    assert!(!without.contains("sbom"), "{without}");
    assert_eq!(SignedRelease::parse(without.as_bytes()).unwrap().release.sbom, None);

    let sbom = Sbom::of(b"{}");
    let bytes = plain.clone().with_sbom(sbom).unwrap().sign(&key).unwrap();
    assert_eq!(SignedRelease::parse(&bytes).unwrap().release.sbom, Some(sbom));
    let large = Sbom { size: MAX_SBOM_BYTES + 1, ..sbom };
    assert!(matches!(plain.with_sbom(large), Err(ReleaseError::OversizedSbom(_))));
}

#[test]
fn refuses_a_tree_that_cannot_be_built() {
    let beneath = |entries| matches!(release(entries), Err(ReleaseError::BeneathAFile { .. }));
    assert!(beneath(vec![file("a"), file("a/b")]));
    assert!(beneath(vec![file("a"), file("a-b"), file("a/b")]));
    assert!(beneath(vec![link("a", "b"), file("a/b/c")]));
    assert!(matches!(release(vec![file("a"), file("a")]), Err(ReleaseError::OutOfOrder(_))));
    assert!(matches!(release(vec![link("a", "../b")]), Err(ReleaseError::Link(_))));
    assert!(matches!(release(vec![link("a", "/etc/passwd")]), Err(ReleaseError::Link(_))));
}

#[test]
fn refuses_content_that_does_not_add_up() {
    let mut far = file("a");
    let Node::File { frame, .. } = &mut far.node else { unreachable!() };
    *frame = 1;
    assert!(matches!(release(vec![far]), Err(ReleaseError::NoSuchFrame { frame: 1, frames: 1, .. })));

    let mut other = file("b");
    other.node = Node::File { frame: 0, mode: Mode::Regular, sha256: Digest::of(b"a"), size: 4 };
    assert!(matches!(release(vec![file("a"), other]), Err(ReleaseError::Ambiguous(_))));

    let new = |bundle| Release::new(description(), vec![], bundle);
    assert!(matches!(
        new(Bundle { size: 99, ..bundle() }),
        Err(ReleaseError::FramesDoNotTile { sum: 100, size: 99 })
    ));
    let frames = vec![Frame { length: 1, size: u64::MAX }, Frame { length: 1, size: 2 }];
    assert!(matches!(new(Bundle { frames, ..bundle() }), Err(ReleaseError::FramesDoNotTile { .. })));
    let frames = vec![Frame { length: u64::MAX, size: 100 }];
    assert!(matches!(new(Bundle { frames, ..bundle() }), Err(ReleaseError::Oversized(_))));
}

#[test]
fn refuses_launchers_of_what_it_does_not_hold() {
    let starting = |command: &[&str]| {
        let launcher = Launcher {
            command: command.iter().map(ToString::to_string).collect(),
            environment: std::collections::BTreeMap::new(),
            icon: None,
            name: "essai".parse().unwrap(),
            mime_types: vec![],
            terminal: false,
            title: Text { fr: "x".into(), en: "x".into() },
        };
        let mut program = file("bin/program");
        program.node = Node::File { frame: 0, mode: Mode::Executable, sha256: Digest::of(b"p"), size: 3 };
        let description = Description { launchers: vec![launcher], ..description() };
        Release::new(description, vec![program, file("data")], bundle())
    };
    for command in [&["{release}/bin/program"][..], &["python3", "-m", "essai"]] {
        assert!(starting(command).is_ok(), "{command:?}");
    }
    for command in
        [&["{release}/bin/gone"][..], &["{release}/data"], &["/usr/bin/sudo"], &["../x"], &[""], &[]]
    {
        assert!(matches!(starting(command), Err(ReleaseError::LauncherProgram { .. })), "{command:?}");
    }
}

#[test]
fn refuses_texts_that_break_out_of_their_line() {
    let mut about = description();
    about.title.fr = "Essai\nExec=rm -rf /".into();
    assert!(matches!(Release::new(about, vec![], bundle()), Err(ReleaseError::ControlCharacter("title"))));
}

#[test]
fn refuses_other_documents_and_duplicate_members() {
    let bytes = release(vec![file("a")]).unwrap().sign(&SigningKey::generate()).unwrap();
    let text = String::from_utf8(bytes).unwrap();
    let cases = [
        text.replace("\"_type\":\"release\"", "\"_type\":\"catalogue\""),
        text.replace("\"format\":1", "\"format\":2"),
        text.replace("\"sequence\":1", "\"sequence\":1,\"sequence\":2"),
        text.replace("\"path\":\"a\"", "\"path\":\"../a\""),
        text.replace("\"mode\":\"0644\"", "\"mode\":\"4755\""),
        text.replace("\"sequence\":1", "\"sequence\":-1"),
        text[..text.len() - 1].to_owned(),
        String::new(),
    ];
    for case in cases {
        assert_ne!(case, text, "the case changes nothing");
        assert!(SignedRelease::parse(case.as_bytes()).is_err(), "{case}");
    }
}

/// A release of a file `conf`, a launcher `essai` and this behaviour.
fn behaving(behaviour: &str) -> Result<Release, ReleaseError> {
    let launcher = Launcher {
        command: vec!["python3".into()],
        environment: std::collections::BTreeMap::new(),
        icon: None,
        name: "essai".parse().unwrap(),
        mime_types: vec![],
        terminal: false,
        title: Text { fr: "x".into(), en: "x".into() },
    };
    let behaviour = serde_json::from_str(behaviour).unwrap();
    let about = Description { launchers: vec![launcher], behaviour, ..description() };
    Release::new(about, vec![file("conf"), link("link", "conf")], bundle())
}

/// Everything that a release may say of a workstation.
const ALL: &str = r#"{
    "checks": [
        {"type": "command", "command": ["hello", "--version"], "seconds": 5},
        {"type": "file", "path": "/usr/bin/hello"},
        {"type": "launcher", "launcher": "essai", "arguments": ["--version"]}
    ],
    "conflicts": [{"package": "old"}],
    "installer": {
        "detect": {"command": ["dpkg-query", "-W", "hello"], "prints": "hello 2"},
        "exit-codes": {"1618": "later", "3010": "restart", "-1": "done"},
        "install": ["dpkg", "-i", "{release}/hello.deb"],
        "seconds": 600,
        "uninstall": ["dpkg", "--purge", "hello"],
        "upgrade": ["dpkg", "-i", "{release}/hello.deb"]
    },
    "requires": [{"package": "jre", "at-least": 17, "at-most": 21}],
    "settings": [{"path": "/etc/hello.conf", "template": "conf", "owner": "lp", "group": "lp", "mode": "0640"}]
}"#;

#[test]
fn what_it_does_to_a_workstation_comes_back_as_it_was_signed() {
    let release = behaving(ALL).unwrap();
    assert_eq!(release.kind, Kind::Installer);
    let signed = SignedRelease::parse(&release.sign(&SigningKey::generate()).unwrap()).unwrap();
    assert_eq!(signed.release, release);
    assert_eq!(behaving("{}").unwrap().kind, Kind::Files);
}

#[test]
fn manifests_of_before_keep_their_bytes() {
    let bytes = include_bytes!("../../../tests/fuzz/corpus/release/hello.json");
    let signed = SignedRelease::parse(bytes).unwrap();
    let again = signed.release.sign(&SigningKey::from_seed(&[7; 32])).unwrap();
    let again = SignedRelease::parse(&again).unwrap();
    assert_eq!(again.signed_bytes, Json::parse(&signed.signed_bytes).unwrap().to_file());
    for member in ["checks", "conflicts", "installer", "requires", "settings", "mime-types"] {
        assert!(!String::from_utf8_lossy(&again.signed_bytes).contains(member), "{member}");
    }
}

#[test]
fn refuses_relations_that_say_nothing() {
    for relation in [r#"{"package": "essai"}"#, r#"{"package": "jre", "at-least": 3, "at-most": 2}"#] {
        for member in ["requires", "conflicts"] {
            let refused = behaving(&format!(r#"{{"{member}": [{relation}]}}"#));
            assert!(matches!(refused, Err(ReleaseError::Relation(_))), "{member} {relation}: {refused:?}");
        }
    }
    assert!(behaving(r#"{"requires": [{"package": "jre", "at-least": 3, "at-most": 3}]}"#).is_ok());
}

#[test]
fn refuses_checks_that_cannot_be_made() {
    for check in [
        r#"{"type": "command", "command": []}"#,
        r#"{"type": "command", "command": [""]}"#,
        r#"{"type": "command", "command": ["-c"]}"#,
        r#"{"type": "command", "command": ["hello", "a\nb"]}"#,
        r#"{"type": "command", "command": ["hello"], "seconds": 0}"#,
        r#"{"type": "command", "command": ["hello"], "seconds": 301}"#,
        r#"{"type": "launcher", "launcher": "other", "arguments": []}"#,
        r#"{"type": "launcher", "launcher": "essai", "arguments": [], "seconds": 301}"#,
    ] {
        let refused = behaving(&format!(r#"{{"checks": [{check}]}}"#));
        assert!(matches!(refused, Err(ReleaseError::UnsoundCheck)), "{check}: {refused:?}");
    }
}

#[test]
fn refuses_installers_that_cannot_be_run() {
    for (sound, unsound) in [
        (r#""install": ["dpkg", "-i", "{release}/hello.deb"]"#, r#""install": []"#),
        (r#""uninstall": ["dpkg", "--purge", "hello"]"#, r#""uninstall": [""]"#),
        (r#""upgrade": ["dpkg", "-i", "{release}/hello.deb"]"#, r#""upgrade": ["-i"]"#),
        (r#""command": ["dpkg-query", "-W", "hello"]"#, r#""command": []"#),
        (r#""seconds": 600"#, r#""seconds": 0"#),
        (r#""seconds": 600"#, r#""seconds": 7201"#),
    ] {
        let behaviour = ALL.replace(sound, unsound);
        assert_ne!(behaviour, ALL, "the case changes nothing");
        let refused = behaving(&behaviour);
        assert!(matches!(refused, Err(ReleaseError::UnsoundInstaller)), "{unsound}: {refused:?}");
    }
}

#[test]
fn refuses_a_kind_that_its_installer_contradicts() {
    for (behaviour, kind, other) in [(ALL, "installer", "files"), ("{}", "files", "installer")] {
        let bytes = behaving(behaviour).unwrap().sign(&SigningKey::generate()).unwrap();
        let text = String::from_utf8(bytes).unwrap();
        let changed = text.replace(&format!(r#""kind":"{kind}""#), &format!(r#""kind":"{other}""#));
        assert_ne!(changed, text, "the case changes nothing");
        let refused = SignedRelease::parse(changed.as_bytes());
        assert!(matches!(refused, Err(ReleaseError::KindAndInstaller)), "{refused:?}");
    }
}

#[test]
fn refuses_settings_without_a_template_and_settings_that_are_made_twice() {
    for template in ["gone", "link"] {
        let refused =
            behaving(&format!(r#"{{"settings": [{{"path": "/etc/a", "template": "{template}"}}]}}"#));
        assert!(matches!(refused, Err(ReleaseError::SettingTemplate(_))), "{template}: {refused:?}");
    }
    let setting = r#"{"path": "/etc/a", "template": "conf"}"#;
    assert!(behaving(&format!(r#"{{"settings": [{setting}]}}"#)).is_ok());
    let twice = behaving(&format!(r#"{{"settings": [{setting}, {setting}]}}"#));
    assert!(matches!(twice, Err(ReleaseError::SettingTwice(_))), "{twice:?}");
}
