//! A release's SBOM: the list of what is in it, as CycloneDX 1.5 JSON (ECMA-424).
//!
//! The recipe supplies one, or `build` makes it of what can be known: the recipe's sources, and the packages whose
//! papers lie in the unpacked tree ([`papers`]). [`Inventory`] reads either.
//!
//! Invariant: the same description, sources and tree give the same bytes. Components are sorted by their reference,
//! there is no serial number, and the date is the release's.
//!
//! It does not claim to be complete: what was compiled into a program leaves no papers, and the document says so
//! (`compositions`).
//!
//! Threats and the defence for each:
//! - *Papers that are forged or broken*: they only say what is in the list, which the packager signs and the approver
//!   reads; what does not parse is passed over, what would not fit on a line of text is not taken.
//! - *A list of a gigabyte*: every read is bounded, here and by [`MAX_SBOM_BYTES`].

mod component;
mod inventory;
mod papers;

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use mirabelle_content::durable;
use mirabelle_manifests::{Description, MAX_SBOM_BYTES};
use mirabelle_terminal::{Failure, OrFail};
use serde::Serialize;

pub(crate) use component::Component;
pub(crate) use inventory::{ComponentChanges, Inventory, Listed};
pub(crate) use papers::{MAX_PAPER_BYTES, Papers, debian, wheel};

use component::Kind;

/// The SBOM's name in a built or submitted release.
pub(crate) const FILE_NAME: &str = "sbom.cdx.json";

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    bom_format: &'static str,
    spec_version: &'static str,
    version: u32,
    metadata: Metadata,
    components: Vec<Component>,
    compositions: [Composition; 1],
}

#[derive(Serialize)]
struct Metadata {
    timestamp: String,
    tools: Tools,
    component: Component,
}

#[derive(Serialize)]
struct Tools {
    components: [Component; 1],
}

#[derive(Serialize)]
struct Composition {
    aggregate: &'static str,
    assemblies: [String; 1],
}

/// The SBOM of a release, of its sources and what was found in its tree.
pub(crate) fn generate(about: &Description, known: Vec<Component>) -> Result<Vec<u8>, serde_json::Error> {
    let mut components: BTreeMap<String, Component> = BTreeMap::new();
    for component in known {
        match components.get_mut(&component.reference) {
            Some(same) => same.learn(component),
            None => {
                components.insert(component.reference.clone(), component);
            }
        }
    }
    let mut package = Component::generic(Kind::Application, about.name.as_str(), about.version.as_str());
    // The package is often one of its components: what is known of that one's origin is known of it.
    let same = |other: &&Component| {
        other.name.eq_ignore_ascii_case(&package.name) && other.version == package.version
    };
    let supplier = components.values().find(same).and_then(|component| component.supplier.clone());
    package.supplier = supplier;
    package.licensed_under(&about.licence);
    let tool = Component::generic(Kind::Application, env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"));
    let assemblies = [package.reference.clone()];
    let document = Document {
        bom_format: "CycloneDX",
        spec_version: "1.5",
        version: 1,
        metadata: Metadata {
            timestamp: about.date.to_string(),
            tools: Tools { components: [tool] },
            component: package,
        },
        components: components.into_values().collect(),
        compositions: [Composition { aggregate: "incomplete", assemblies }],
    };
    let mut bytes = serde_json::to_vec_pretty(&document)?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// Reads an SBOM file, if it is there.
pub(crate) fn read(path: &Path) -> Result<Option<Vec<u8>>, Failure> {
    match durable::read_if_present(path, MAX_SBOM_BYTES) {
        Err(error) if error.kind() == io::ErrorKind::FileTooLarge => {
            Err(Failure::trust(format!("the SBOM `{}` is longer than 16 MiB", path.display())))
        }
        read => read.or_fail(|| format!("cannot read the SBOM `{}`", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mirabelle_manifests::{Digest, Platform, Text};

    fn about() -> Description {
        let text = Text { fr: "Essai".into(), en: "Test".into() };
        Description {
            name: "essai".parse().unwrap(),
            version: "1.0".parse().unwrap(),
            platform: Platform::any(),
            sequence: 1,
            date: "2026-11-01T00:00:00Z".parse().unwrap(),
            title: text.clone(),
            summary: text,
            categories: vec![],
            licence: "MIT".into(),
            launchers: vec![],
            behaviour: mirabelle_manifests::Behaviour::default(),
        }
    }

    fn known() -> Vec<Component> {
        let mut wheel = wheel("Essai-1.0-py3-none-any.whl").unwrap();
        wheel.fetched_as(Digest::of(b"wheel"), Some("https://example.org/essai.whl"));
        let metadata = b"Name: Essai\nVersion: 1.0\nAuthor: Ada\nLicense: MIT\n\nx";
        let mut found = Papers::Python.read(metadata).unwrap();
        found.found_at("essai-1.0.dist-info/METADATA");
        vec![wheel, found, Component::file("data.tar.gz")]
    }

    #[test]
    fn the_same_gives_the_same_bytes_in_any_order() {
        let bytes = generate(&about(), known()).unwrap();
        let reversed: Vec<_> = known().into_iter().rev().collect();
        assert_eq!(bytes, generate(&about(), reversed).unwrap());
        let value: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(value["metadata"]["timestamp"], "2026-11-01T00:00:00Z");
        assert!(value.get("serialNumber").is_none());
    }

    #[test]
    fn a_source_and_what_was_found_of_it_are_one_component() {
        let bytes = generate(&about(), known()).unwrap();
        let value: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        let components = value["components"].as_array().unwrap();
        assert_eq!(components.len(), 2, "{components:?}");
        let essai = &components[1];
        assert_eq!(essai["purl"], "pkg:pypi/essai@1.0");
        assert_eq!(essai["hashes"][0]["content"], Digest::of(b"wheel").to_string());
        assert_eq!(essai["licenses"][0]["license"]["name"], "MIT");
        assert_eq!(essai["evidence"]["occurrences"][0]["location"], "essai-1.0.dist-info/METADATA");
        assert_eq!(value["metadata"]["component"]["supplier"]["name"], "Ada");
        assert_eq!(value["metadata"]["component"]["licenses"][0]["expression"], "MIT");
        assert_eq!(components[0]["type"], "file");
    }

    #[test]
    fn what_is_made_can_be_read() {
        let bytes = generate(&about(), known()).unwrap();
        assert_eq!(Inventory::parse(&bytes).unwrap().len(), 2);
    }
}
