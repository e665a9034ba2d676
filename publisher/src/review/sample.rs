//! Releases for the tests of this folder.

use std::collections::BTreeMap;

use mirabelle_keys::SigningKey;
use mirabelle_manifests::{
    Behaviour, Bundle, Description, Digest, Entry, Frame, Instant, Launcher, Mode, Node, Packager,
    PathPattern, Platform, Release, SignedRelease, Text,
};

use super::{Review, Side, Templates};

/// What a hostile packager writes wherever she may.
pub(super) const HOSTILE: &str = "<script>alert(1)</script>\"'&";

fn instant(text: &str) -> Instant {
    text.parse().unwrap()
}

pub(super) fn packager() -> Packager {
    Packager {
        from: instant("2026-01-01T00:00:00Z"),
        key: SigningKey::generate().public(),
        packages: vec![PathPattern::new("es*")],
        until: instant("2028-01-01T00:00:00Z"),
    }
}

pub(super) fn file(path: &str, content: &str, frame: u32) -> Entry {
    let node = Node::File {
        frame,
        mode: Mode::Regular,
        sha256: Digest::of(content.as_bytes()),
        size: content.len() as u64,
    };
    Entry { path: path.parse().unwrap(), node }
}

pub(super) fn executable(path: &str, content: &str, frame: u32) -> Entry {
    let mut entry = file(path, content, frame);
    if let Node::File { mode, .. } = &mut entry.node {
        *mode = Mode::Executable;
    }
    entry
}

pub(super) fn link(path: &str, target: &str) -> Entry {
    Entry { path: path.parse().unwrap(), node: Node::Link { target: target.to_owned() } }
}

pub(super) fn launcher(name: &str, command: &[&str]) -> Launcher {
    Launcher {
        command: command.iter().map(ToString::to_string).collect(),
        environment: BTreeMap::new(),
        icon: None,
        name: name.parse().unwrap(),
        mime_types: vec![],
        terminal: false,
        title: Text { fr: HOSTILE.into(), en: HOSTILE.into() },
    }
}

fn described(sequence: u64, licence: &str, launchers: Vec<Launcher>, entries: Vec<Entry>) -> Release {
    behaving(sequence, licence, launchers, entries, Behaviour::default())
}

fn behaving(
    sequence: u64,
    licence: &str,
    launchers: Vec<Launcher>,
    entries: Vec<Entry>,
    behaviour: Behaviour,
) -> Release {
    let about = Description {
        name: "essai".parse().unwrap(),
        version: format!("{sequence}.0").parse().unwrap(),
        platform: Platform::any(),
        sequence,
        date: instant("2026-11-01T00:00:00Z"),
        title: Text { fr: HOSTILE.into(), en: HOSTILE.into() },
        summary: Text { fr: HOSTILE.into(), en: HOSTILE.into() },
        categories: vec![HOSTILE.into()],
        licence: licence.to_owned(),
        launchers,
        behaviour,
    };
    let frames = [100, 20, 3].map(|size| Frame { length: 4096, size });
    let bundle = Bundle { frames: frames.into(), sha256: Digest::of(b"bundle"), size: 123 };
    Release::new(about, entries, bundle).unwrap()
}

pub(super) fn signed(release: &Release) -> SignedRelease {
    SignedRelease::parse(&release.sign(&SigningKey::generate()).unwrap()).unwrap()
}

/// A release of these entries; frames have 100, 20 and 3 bytes.
pub(super) fn release(sequence: u64, entries: Vec<Entry>) -> SignedRelease {
    signed(&described(sequence, "MIT", vec![], entries))
}

/// A release of these launchers and nothing else.
pub(super) fn release_starting(launchers: Vec<Launcher>) -> Release {
    described(1, "MIT", launchers, vec![])
}

/// A release with everything that a release may do to a workstation.
pub(super) fn installer() -> Release {
    let behaviour = serde_json::json!({
        "checks": [{"type": "file", "path": "/usr/bin/hello"}],
        "conflicts": [{"package": "old"}],
        "installer": {
            "detect": {"command": ["dpkg-query", "-W", "hello"], "prints": "hello 2"},
            "exit-codes": {"100": "later", "3010": "restart"},
            "install": ["dpkg", "-i", "{release}/hello.deb"],
            "seconds": 600,
            "uninstall": ["dpkg", "--purge", "hello"],
        },
        "requires": [{"package": "jre", "at-least": 17}],
        "settings": [{"path": "/etc/hello.conf", "template": "conf/hello.conf"}],
    });
    let entries = vec![file("hello.deb", "deb", 0), file("conf/hello.conf", "conf", 0)];
    behaving(2, "MIT", vec![], entries, serde_json::from_value(behaviour).unwrap())
}

/// A review in which much changes and everything is hostile.
pub(super) fn review() -> Review {
    let packager = packager();
    let before = vec![file("same", "same", 0), file("gone", "gone", 0), file(HOSTILE_PATH, "old", 0)];
    let before = signed(&described(1, "MIT", vec![launcher("essai", &["sh"])], before));
    let mut now = vec![file("same", "same", 0), file(HOSTILE_PATH, "newer", 1)];
    now.extend((0..40).map(|number| executable(&format!("tool-{number}"), "tool", 2)));
    now.push(file("conf", "conf", 0));
    let behaviour = serde_json::json!({
        "checks": [{"type": "command", "command": ["sh", "-c", HOSTILE]}],
        "settings": [{"path": "/etc/<b>essai</b>", "template": "conf"}],
    });
    let behaviour = serde_json::from_value(behaviour).unwrap();
    let launchers = vec![launcher("essai", &["sh", "-c", HOSTILE])];
    let now = signed(&behaving(2, HOSTILE, launchers, now, behaviour));
    let templates = Templates::from([("conf".parse().unwrap(), format!("one\n{HOSTILE}\u{202e}\n"))]);
    let side = |signed| Side { signed, packager: Some(&packager), inventory: None, templates: &templates };
    let today = instant("2026-11-02T00:00:00Z");
    Review::new(Some(&side(&before)), &side(&now), &packager, today)
}

/// A path may hold neither `:` nor `\`, but this.
pub(super) const HOSTILE_PATH: &str = "<img src=x onerror=alert(1)>\u{202e}";
