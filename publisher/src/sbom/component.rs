//! A component of an SBOM, in the form that CycloneDX gives it, and its package URL.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use mirabelle_manifests::Digest;
use serde::Serialize;

/// What sort of thing a component is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kind {
    /// A program.
    Application,
    /// A package of some ecosystem.
    Library,
    /// A file that is no package.
    File,
}

/// A component.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Component {
    #[serde(rename = "type")]
    kind: Kind,
    /// Names it within the document: its package URL where it has one.
    #[serde(rename = "bom-ref")]
    pub(crate) reference: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) supplier: Option<Supplier>,
    /// The scope of an npm package, with its `@`.
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<String>,
    pub(crate) name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) version: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    hashes: Vec<Hash>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    licenses: Vec<Licence>,
    #[serde(skip_serializing_if = "Option::is_none")]
    purl: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    external_references: Vec<Reference>,
    #[serde(skip_serializing_if = "Evidence::is_empty")]
    evidence: Evidence,
}

/// Who gives a component out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Supplier {
    name: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Hash {
    alg: &'static str,
    content: Digest,
}

/// A licence: an SPDX expression, or whatever its author calls it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
enum Licence {
    Expression { expression: String },
    Named { license: LicenceName },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct LicenceName {
    name: String,
}

/// Where something can be had.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Reference {
    #[serde(rename = "type")]
    kind: &'static str,
    url: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
struct Evidence {
    occurrences: BTreeSet<Occurrence>,
}

/// A path of the release that the component was found at.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
struct Occurrence {
    location: String,
}

impl Evidence {
    fn is_empty(&self) -> bool {
        self.occurrences.is_empty()
    }
}

impl Component {
    fn new(kind: Kind, reference: String, name: &str) -> Self {
        Self {
            kind,
            reference,
            supplier: None,
            group: None,
            name: name.to_owned(),
            version: None,
            hashes: Vec::new(),
            licenses: Vec::new(),
            purl: None,
            external_references: Vec::new(),
            evidence: Evidence::default(),
        }
    }

    fn package(kind: Kind, purl: String, name: &str, version: &str) -> Self {
        let version = Some(version.to_owned());
        Self { version, purl: Some(purl.clone()), ..Self::new(kind, purl, name) }
    }

    /// A file that nothing more is known about than its name.
    pub(crate) fn file(name: &str) -> Self {
        Self::new(Kind::File, format!("file:{name}"), name)
    }

    /// Something that belongs to no ecosystem.
    pub(super) fn generic(kind: Kind, name: &str, version: &str) -> Self {
        let purl = format!("pkg:generic/{}@{}", encoded(name), encoded(version));
        Self::package(kind, purl, name, version)
    }

    /// A Python distribution. Its package URL has the name as the Python package index compares them (PEP 503).
    pub(super) fn python(name: &str, version: &str) -> Self {
        let mut normal = String::new();
        for part in name.split(['-', '_', '.']).filter(|part| !part.is_empty()) {
            let dash = if normal.is_empty() { "" } else { "-" };
            let _ = write!(normal, "{dash}{}", part.to_lowercase());
        }
        let purl = format!("pkg:pypi/{}@{}", encoded(&normal), encoded(version));
        Self::package(Kind::Library, purl, name, version)
    }

    /// An npm package, whose name may begin with a scope: `@types/node`.
    pub(super) fn npm(name: &str, version: &str) -> Self {
        let (scope, bare) = match name.split_once('/') {
            Some((scope, bare)) => (Some(scope), bare),
            None => (None, name),
        };
        let above = scope.map(|scope| format!("{}/", encoded(scope))).unwrap_or_default();
        let purl = format!("pkg:npm/{above}{}@{}", encoded(bare), encoded(version));
        let package = Self::package(Kind::Library, purl, bare, version);
        Self { group: scope.map(str::to_owned), ..package }
    }

    /// A Debian package of a distribution (`debian`, `ubuntu`).
    pub(super) fn debian(distribution: &str, name: &str, version: &str, architecture: &str) -> Self {
        let (name_, version_, architecture) = (encoded(name), encoded(version), encoded(architecture));
        let purl = format!("pkg:deb/{distribution}/{name_}@{version_}?arch={architecture}");
        Self::package(Kind::Library, purl, name, version)
    }

    /// Its licence, as an SPDX expression.
    pub(super) fn licensed_under(&mut self, expression: &str) {
        self.licenses = vec![Licence::Expression { expression: expression.to_owned() }];
    }

    /// Its licence, as its author calls it.
    pub(super) fn licensed_as(&mut self, name: &str) {
        self.licenses = vec![Licence::Named { license: LicenceName { name: name.to_owned() } }];
    }

    /// Who gives it out.
    pub(super) fn supplied_by(&mut self, name: &str) {
        self.supplier = Some(Supplier { name: name.to_owned() });
    }

    /// A path of the release that says so.
    pub(crate) fn found_at(&mut self, path: &str) {
        self.evidence.occurrences.insert(Occurrence { location: path.to_owned() });
    }

    /// The file it came as, and where that can be had.
    pub(crate) fn fetched_as(&mut self, content: Digest, url: Option<&str>) {
        self.hashes.push(Hash { alg: "SHA-256", content });
        let reference = |url: &str| Reference { kind: "distribution", url: url.to_owned() };
        self.external_references.extend(url.map(reference));
    }

    /// Takes over what another description of the same component knows and this one does not.
    pub(super) fn learn(&mut self, other: Self) {
        self.supplier = self.supplier.take().or(other.supplier);
        if self.hashes.is_empty() {
            self.hashes = other.hashes;
        }
        if self.licenses.is_empty() {
            self.licenses = other.licenses;
        }
        if self.external_references.is_empty() {
            self.external_references = other.external_references;
        }
        self.evidence.occurrences.extend(other.evidence.occurrences);
    }
}

/// Percent-encoded as a package URL wants it (ECMA-427): all but letters, digits and `.-_~:`.
fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b".-_~:".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn package_urls_are_those_of_their_ecosystem() {
        let cases = [
            (Component::python("Send2Trash", "1.8.3"), "pkg:pypi/send2trash@1.8.3"),
            (Component::python("ruamel.yaml_-clib", "1+local"), "pkg:pypi/ruamel-yaml-clib@1%2Blocal"),
            (Component::npm("@types/node", "20.1.0"), "pkg:npm/%40types/node@20.1.0"),
            (Component::npm("blockly", "13.3.0"), "pkg:npm/blockly@13.3.0"),
            (
                Component::debian("debian", "libjq1", "1:1.6-2.1+deb12u3", "amd64"),
                "pkg:deb/debian/libjq1@1:1.6-2.1%2Bdeb12u3?arch=amd64",
            ),
            (Component::generic(Kind::Application, "essai", "1/?"), "pkg:generic/essai@1%2F%3F"),
        ];
        for (component, purl) in cases {
            assert_eq!(component.purl.as_deref(), Some(purl));
            assert_eq!(component.reference, purl);
        }
    }
}
