//! The papers that packages carry: what a Python distribution, an npm package or a Debian package says about itself.
//!
//! Pure: a path says what papers lie there, their bytes what they are of. Papers that do not parse, or lack a name or
//! a version, say nothing.

use serde::Deserialize;
use serde_json::Value;

use super::Component;

/// The most that is read of a file that may be papers. Those of Python begin with what matters.
pub(crate) const MAX_PAPER_BYTES: u64 = 1 << 20;
/// The longest name, version or licence that is taken over.
const MAX_WORD_CHARS: usize = 200;

/// Papers in a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Papers {
    /// Core metadata of a Python distribution: `*.dist-info/METADATA`, `*.egg-info/PKG-INFO`.
    Python,
    /// `package.json` of an npm package.
    Npm,
}

impl Papers {
    /// What papers lie at `path` of a release, by its name.
    pub(crate) fn at(path: &str) -> Option<Self> {
        let (directory, file) = path.rsplit_once('/').unwrap_or(("", path));
        let named = |name: &str, suffix: &str| name.strip_suffix(suffix).is_some_and(|stem| !stem.is_empty());
        match file {
            "METADATA" if named(directory, ".dist-info") => Some(Self::Python),
            "PKG-INFO" if named(directory, ".egg-info") => Some(Self::Python),
            // What distutils left, and Debian keeps: a file where others have a directory.
            _ if named(file, ".egg-info") => Some(Self::Python),
            "package.json" if holds_npm_package(directory) => Some(Self::Npm),
            _ => None,
        }
    }

    /// The component that papers of these bytes are of.
    pub(crate) fn read(self, bytes: &[u8]) -> Option<Component> {
        match self {
            Self::Python => python(bytes),
            Self::Npm => npm(bytes),
        }
    }
}

/// The top of the release, or a directory right below `node_modules` or below a scope in it. Deeper ones hold
/// `package.json` files that only tell Node how to load what is beside them.
fn holds_npm_package(directory: &str) -> bool {
    let mut above = directory.rsplit('/').skip(1);
    match (above.next(), above.next()) {
        (None, _) => directory.is_empty(),
        (Some("node_modules"), _) => true,
        (Some(scope), Some("node_modules")) => scope.starts_with('@'),
        _ => false,
    }
}

fn python(bytes: &[u8]) -> Option<Component> {
    let text = String::from_utf8_lossy(bytes);
    let fields = Fields(&text);
    let mut component = Component::python(&fields.word("Name")?, &fields.word("Version")?);
    let classifier = fields.all("Classifier").find_map(|text| text.strip_prefix("License ::"));
    let classifier = classifier.and_then(|text| word(text.rsplit("::").next()?));
    if let Some(expression) = fields.word("License-Expression") {
        component.licensed_under(&expression);
    } else if let Some(name) = fields.word("License").or(classifier) {
        component.licensed_as(&name);
    }
    let people = ["Author", "Author-email", "Maintainer", "Maintainer-email"];
    if let Some(name) = people.iter().find_map(|field| person(&fields.word(field)?)) {
        component.supplied_by(&name);
    }
    Some(component)
}

#[derive(Deserialize)]
struct NpmPackage {
    name: String,
    version: String,
    #[serde(default)]
    license: Value,
    #[serde(default)]
    author: Value,
}

fn npm(bytes: &[u8]) -> Option<Component> {
    let package: NpmPackage = serde_json::from_slice(bytes).ok()?;
    let mut component = Component::npm(&word(&package.name)?, &word(&package.version)?);
    // An object with a type is what npm wanted before 2014.
    let licence = package.license.as_str().or(package.license["type"].as_str()).and_then(word);
    match licence {
        Some(licence) if licence.starts_with("SEE ") || licence == "UNLICENSED" => {
            component.licensed_as(&licence);
        }
        Some(licence) => component.licensed_under(&licence),
        None => {}
    }
    let author = package.author.as_str().or(package.author["name"].as_str());
    if let Some(name) = author.and_then(word).as_deref().and_then(person) {
        component.supplied_by(&name);
    }
    Some(component)
}

/// The component that a Debian package's control file is of (deb-control(5)).
pub(crate) fn debian(control: &[u8]) -> Option<Component> {
    let text = String::from_utf8_lossy(control);
    let fields = Fields(&text);
    let (name, version) = (fields.word("Package")?, fields.word("Version")?);
    let maintainer = fields.word("Maintainer").unwrap_or_default();
    // The control file does not say whose package it is; Ubuntu marks what it changed, and signs what it maintains.
    let ubuntu = version.contains("ubuntu") || maintainer.contains("ubuntu.com");
    let distribution = if ubuntu { "ubuntu" } else { "debian" };
    let architecture = fields.word("Architecture")?;
    let mut component = Component::debian(distribution, &name, &version, &architecture);
    if let Some(name) = person(&maintainer) {
        component.supplied_by(&name);
    }
    Some(component)
}

/// The component that a wheel is, by its file's name (PEP 427): `name-version[-build]-python-abi-platform.whl`.
pub(crate) fn wheel(file_name: &str) -> Option<Component> {
    let parts: Vec<&str> = file_name.strip_suffix(".whl")?.split('-').collect();
    let [name, version, ..] = parts.as_slice() else { return None };
    let complete = matches!(parts.len(), 5 | 6);
    complete.then(|| Some(Component::python(&word(name)?, &word(version)?)))?
}

/// `Field: value` lines up to the first empty one, as mail has them, and Python and Debian after it. Of a value over
/// several lines the first is taken.
struct Fields<'a>(&'a str);

impl<'a> Fields<'a> {
    fn all(&self, name: &str) -> impl Iterator<Item = &'a str> {
        let lines = self.0.lines().take_while(|line| !line.is_empty());
        lines.filter_map(move |line| {
            let (field, value) = line.split_once(':')?;
            field.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    fn word(&self, name: &str) -> Option<String> {
        self.all(name).next().and_then(word)
    }
}

/// A text that fits on a line and says something.
fn word(text: &str) -> Option<String> {
    let text = text.trim();
    let nothing = text.is_empty() || text == "UNKNOWN";
    let fits = text.chars().count() <= MAX_WORD_CHARS && !text.chars().any(char::is_control);
    (fits && !nothing).then(|| text.to_owned())
}

/// Somebody's name, without the address: `Ada Lovelace <ada@example.org> (https://example.org)`.
fn person(text: &str) -> Option<String> {
    let name = text.split(['<', '(']).next().unwrap_or_default().trim().trim_matches('"');
    word(name).filter(|name| !name.contains('@'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn described(component: &Component) -> Value {
        serde_json::to_value(component).unwrap()
    }

    #[test]
    fn papers_are_known_by_their_place() {
        let cases = [
            ("ruff-0.17.6.dist-info/METADATA", Some(Papers::Python)),
            ("lib/python3/x.egg-info/PKG-INFO", Some(Papers::Python)),
            ("usr/lib/python3/dist-packages/six-1.16.egg-info", Some(Papers::Python)),
            ("METADATA", None),
            (".dist-info/METADATA", None),
            ("x.dist-info/RECORD", None),
            ("package.json", Some(Papers::Npm)),
            ("app/node_modules/left-pad/package.json", Some(Papers::Npm)),
            ("node_modules/@types/node/package.json", Some(Papers::Npm)),
            ("node_modules/left-pad/lib/package.json", None),
            ("node_modules/package.json", None),
            ("esm/package.json", None),
        ];
        for (path, papers) in cases {
            assert_eq!(Papers::at(path), papers, "{path}");
        }
    }

    #[test]
    fn python_says_name_version_licence_and_who() {
        let text = "Metadata-Version: 2.1\nName: asttokens\nVersion: 3.0.0\nLicense: Apache 2.0\n \
            and a page of text\nAuthor-email: Dmitry <d@example.org>\n\nName: not-a-header\n";
        let component = described(&Papers::Python.read(text.as_bytes()).unwrap());
        assert_eq!(component["purl"], "pkg:pypi/asttokens@3.0.0");
        assert_eq!(component["licenses"], json!([{"license": {"name": "Apache 2.0"}}]));
        assert_eq!(component["supplier"]["name"], "Dmitry");

        let text = "Name: x\nVersion: 1\nLicense: UNKNOWN\nClassifier: Topic :: X\n\
            Classifier: License :: OSI Approved :: MIT License\n";
        let component = described(&Papers::Python.read(text.as_bytes()).unwrap());
        assert_eq!(component["licenses"], json!([{"license": {"name": "MIT License"}}]));
        let text = "Name: x\nVersion: 1\nLicense-Expression: MIT OR Apache-2.0\nLicense: other\n";
        let component = described(&Papers::Python.read(text.as_bytes()).unwrap());
        assert_eq!(component["licenses"], json!([{"expression": "MIT OR Apache-2.0"}]));
    }

    #[test]
    fn npm_says_name_version_licence_and_who() {
        let text = br#"{"name":"@a/b","version":"1.2.3","license":"MIT","author":"Ada <a@b> (http://x)"}"#;
        let component = described(&Papers::Npm.read(text).unwrap());
        assert_eq!(component["purl"], "pkg:npm/%40a/b@1.2.3");
        assert_eq!((&component["group"], &component["name"]), (&json!("@a"), &json!("b")));
        assert_eq!(component["licenses"], json!([{"expression": "MIT"}]));
        assert_eq!(component["supplier"]["name"], "Ada");
        let text = br#"{"name":"b","version":"1","license":"SEE LICENSE IN x","author":{"name":"Ada"}}"#;
        let component = described(&Papers::Npm.read(text).unwrap());
        assert_eq!(component["licenses"], json!([{"license": {"name": "SEE LICENSE IN x"}}]));
    }

    #[test]
    fn debian_says_whose_it_is() {
        let control = "Package: libjq1\nVersion: 1.6-2.1+deb12u3\nArchitecture: amd64\n\
            Maintainer: ChangZhuo Chen (陳昌倬) <c@debian.org>\nDescription: x\n y\n";
        let component = described(&debian(control.as_bytes()).unwrap());
        assert_eq!(component["purl"], "pkg:deb/debian/libjq1@1.6-2.1%2Bdeb12u3?arch=amd64");
        assert_eq!(component["supplier"]["name"], "ChangZhuo Chen");
        let control = "Package: jq\nVersion: 1.7-3ubuntu1\nArchitecture: all\n";
        let component = described(&debian(control.as_bytes()).unwrap());
        assert_eq!(component["purl"], "pkg:deb/ubuntu/jq@1.7-3ubuntu1?arch=all");
    }

    #[test]
    fn a_wheel_says_it_by_its_name() {
        let purl = |name| wheel(name).map(|component| component.reference);
        let ruff = "ruff-0.17.6-py3-none-manylinux_2_17_x86_64.manylinux2014_x86_64.whl";
        assert_eq!(purl(ruff).as_deref(), Some("pkg:pypi/ruff@0.17.6"));
        assert_eq!(purl("x_y-1-2build-py3-none-any.whl").as_deref(), Some("pkg:pypi/x-y@1"));
        for name in ["x.whl", "x-1.whl", "-1-py3-none-any.whl", "x-1-py3-none-any.zip"] {
            assert_eq!(purl(name), None, "{name}");
        }
    }

    #[test]
    fn papers_that_say_nothing_are_passed_over() {
        let long = format!("Name: {}\nVersion: 1\n", "x".repeat(300));
        let python = [&b""[..], b"Name: x\n", b"Name: x\x1b[2J\nVersion: 1\n", b"\xff\xfe", long.as_bytes()];
        for bytes in python {
            assert_eq!(Papers::Python.read(bytes), None, "{bytes:?}");
        }
        let npm = ["", "[]", "{}", r#"{"name":"x"}"#, r#"{"name":1,"version":"1"}"#, r#"{"type":"module"}"#];
        for text in npm {
            assert_eq!(Papers::Npm.read(text.as_bytes()), None, "{text}");
        }
    }
}
