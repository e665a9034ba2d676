//! What an SBOM lists, whoever wrote it, and how two lists differ.
//!
//! Read: CycloneDX 1.x JSON. Of each component, nested ones too, what identifies it (its package URL less the version,
//! or else group and name), its versions and its licences. The rest is for other tools.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use mirabelle_terminal::{Kind, failure::Sounds};
use serde::{Deserialize, Serialize};

/// Why bytes are not an SBOM that anybody could look at.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SbomError {
    /// Not JSON, or without what CycloneDX requires.
    #[error("the SBOM is not CycloneDX JSON with a list of components")]
    Malformed(#[source] serde_json::Error),
    /// Another format, or a version that is not known.
    #[error("the SBOM is of format `{format}` {version}, not CycloneDX 1.x")]
    UnknownFormat {
        /// `bomFormat` as stated.
        format: String,
        /// `specVersion` as stated.
        version: String,
    },
}

impl Sounds for SbomError {
    fn kind(&self) -> Kind {
        Kind::Trust
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    bom_format: String,
    spec_version: String,
    components: Vec<Stated>,
}

#[derive(Deserialize)]
struct Stated {
    group: Option<String>,
    name: String,
    version: Option<String>,
    purl: Option<String>,
    #[serde(default)]
    licenses: Vec<StatedLicence>,
    #[serde(default)]
    components: Vec<Stated>,
}

#[derive(Deserialize)]
struct StatedLicence {
    expression: Option<String>,
    license: Option<StatedLicenceName>,
}

#[derive(Deserialize)]
struct StatedLicenceName {
    id: Option<String>,
    name: Option<String>,
}

/// The versions and licences of a component; npm packages come in several versions at once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Listed {
    pub(crate) versions: BTreeSet<String>,
    pub(crate) licences: BTreeSet<String>,
}

/// The components that an SBOM lists, by what identifies them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Inventory(BTreeMap<String, Listed>);

/// How one list differs from the one before it.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct ComponentChanges {
    pub(crate) added: BTreeMap<String, Listed>,
    pub(crate) removed: BTreeMap<String, Listed>,
    /// Before and now.
    pub(crate) changed: BTreeMap<String, (Listed, Listed)>,
    pub(crate) unchanged: usize,
}

impl Inventory {
    /// Reads an SBOM.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, SbomError> {
        let document: Document = serde_json::from_slice(bytes).map_err(SbomError::Malformed)?;
        if document.bom_format != "CycloneDX" || !document.spec_version.starts_with("1.") {
            let short = |text: String| text.chars().take(80).collect();
            return Err(SbomError::UnknownFormat {
                format: short(document.bom_format),
                version: short(document.spec_version),
            });
        }
        let mut inventory = Self::default();
        inventory.list(document.components);
        Ok(inventory)
    }

    /// How many components there are.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// How this list differs from `before`.
    pub(crate) fn changes_since(&self, before: &Self) -> ComponentChanges {
        let mut changes = ComponentChanges::default();
        for (identity, now) in &self.0 {
            match before.0.get(identity) {
                None => drop(changes.added.insert(identity.clone(), now.clone())),
                Some(then) if then == now => changes.unchanged += 1,
                Some(then) => drop(changes.changed.insert(identity.clone(), (then.clone(), now.clone()))),
            }
        }
        let gone = before.0.iter().filter(|(identity, _)| !self.0.contains_key(*identity));
        changes.removed = gone.map(|(identity, listed)| (identity.clone(), listed.clone())).collect();
        changes
    }

    /// The parser bounds how deep they nest.
    fn list(&mut self, components: Vec<Stated>) {
        for component in components {
            let listed = self.0.entry(component.identity()).or_default();
            listed.versions.extend(component.version);
            for licence in component.licenses {
                let name = licence.license.and_then(|licence| licence.id.or(licence.name));
                listed.licences.extend(licence.expression.or(name));
            }
            self.list(component.components);
        }
    }
}

impl ComponentChanges {
    /// True when there is a change.
    pub(crate) fn any(&self) -> bool {
        !(self.added.is_empty() && self.removed.is_empty() && self.changed.is_empty())
    }
}

impl fmt::Display for Listed {
    /// Versions, and licences in parentheses.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let join = |texts: &BTreeSet<String>| texts.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
        f.write_str(&join(&self.versions))?;
        if self.licences.is_empty() { Ok(()) } else { write!(f, " ({})", join(&self.licences)) }
    }
}

impl Stated {
    /// What stays the same when the version changes.
    fn identity(&self) -> String {
        match (&self.purl, &self.group) {
            (Some(purl), _) => {
                let path = purl.split(['?', '#']).next().unwrap_or_default();
                // An `@` before the last `/` is that of an npm scope.
                let name = path.rfind('/').map_or(0, |at| at + 1);
                path[name..].find('@').map_or(path, |at| &path[..name + at]).to_owned()
            }
            (None, Some(group)) => format!("{group}/{}", self.name),
            (None, None) => self.name.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inventory(components: &str) -> Inventory {
        let text = format!(r#"{{"bomFormat":"CycloneDX","specVersion":"1.6","components":[{components}]}}"#);
        Inventory::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn tells_what_was_added_removed_and_changed() {
        let before = inventory(
            r#"{"name":"a","version":"1","purl":"pkg:npm/@s/a@1"},{"name":"b","group":"g"},
               {"name":"same","version":"1","purl":"pkg:deb/debian/same@1?arch=amd64"}"#,
        );
        let now = inventory(
            r#"{"name":"a","version":"2","purl":"pkg:npm/@s/a@2","licenses":[{"license":{"id":"MIT"}}],
                "components":[{"name":"c","version":"1"},{"name":"c","version":"2"}]},
               {"name":"same","version":"1","purl":"pkg:deb/debian/same@1?arch=arm64"}"#,
        );
        let changes = now.changes_since(&before);
        let versions = |listed: &Listed| listed.versions.iter().cloned().collect::<Vec<_>>().join(" ");
        assert_eq!(versions(&changes.added["c"]), "1 2");
        assert!(changes.removed.contains_key("g/b"));
        let (then, now) = &changes.changed["pkg:npm/@s/a"];
        assert_eq!((versions(then), versions(now)), ("1".to_owned(), "2".to_owned()));
        assert!(now.licences.contains("MIT"));
        assert_eq!(changes.unchanged, 1);
    }

    #[test]
    fn refuses_what_is_no_cyclonedx() {
        let cases = [
            "",
            "[]",
            r#"{"bomFormat":"CycloneDX","specVersion":"1.5"}"#,
            r#"{"bomFormat":"CycloneDX","specVersion":"1.5","components":{}}"#,
            r#"{"bomFormat":"CycloneDX","specVersion":"1.5","components":[{"version":"1"}]}"#,
            r#"{"bomFormat":"CycloneDX","bomFormat":"CycloneDX","specVersion":"1.5","components":[]}"#,
        ];
        for text in cases {
            assert!(matches!(Inventory::parse(text.as_bytes()), Err(SbomError::Malformed(_))), "{text}");
        }
        for text in [
            r#"{"bomFormat":"SPDX","specVersion":"1.5","components":[]}"#,
            r#"{"bomFormat":"CycloneDX","specVersion":"2.0","components":[]}"#,
        ] {
            let refusal = Inventory::parse(text.as_bytes());
            assert!(matches!(refusal, Err(SbomError::UnknownFormat { .. })), "{text}");
        }
        let deep = format!("{}{}", r#"{"name":"x","components":["#.repeat(200), "]}".repeat(200));
        let text = format!(r#"{{"bomFormat":"CycloneDX","specVersion":"1.5","components":[{deep}]}}"#);
        assert!(Inventory::parse(text.as_bytes()).is_err(), "nesting without a bound");
    }

    #[test]
    fn fractions_are_no_obstacle() {
        let text = r#"{"name":"x","evidence":{"identity":{"confidence":0.8}}}"#;
        assert_eq!(inventory(text).len(), 1);
    }
}
