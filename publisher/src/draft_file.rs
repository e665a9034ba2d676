//! A draft that travels: on a stick, by mail, over a server that nobody trusts.
//!
//! ```text
//! <role>-<version>.draft.json             what is to be signed, what it replaces, the small files it names
//! <role>-<version>.<key>.sig.json         one holder's signature; several may be made at the same time
//! ```
//!
//! Threats and the defence for each:
//! - *A draft that was changed on the way*: whoever signs reads what she signs, in words made on her own machine from the
//!   very bytes that her signature covers; the small files are compared with the digests in those bytes.
//! - *A draft that hides what it replaces* (`previous` was swapped for something close to the new content, so that the words
//!   say that little changes): whoever signs compares only with what her own key has signed before, and otherwise reads
//!   all of it.
//! - *A draft without the small files*: refused; a digest says nothing to a person.
//! - *Names that move the cursor*: every line is made visible.
//! - *A signature for something else*: it is checked against the repository's own draft before it is added.

use std::collections::BTreeMap;
use std::path::Path;

use mirabelle_content::durable;
use mirabelle_keys::{PublicKey, Signature};
use mirabelle_manifests::tuf::{RoleName, TargetFile, attach};
use mirabelle_manifests::{Digest, Json, TargetPath};
use mirabelle_terminal::{Failure, OrFail};
use serde::{Deserialize, Serialize};

use crate::drafts::{Signed, no_draft};
use crate::repository::Repository;
use crate::words::{Files, describe, release_listed};

/// A catalogue of 100,000 releases, twice over, is smaller than this.
const MAX_DRAFT_BYTES: u64 = 256 << 20;
/// Files below a role that travel along, so that they can be put into words. Manifests do not: `review` is for them.
const MAX_SMALL_FILE: u64 = 4 << 20;
const FORMAT: u32 = 1;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct DraftDocument {
    #[serde(rename = "_type")]
    type_: DraftType,
    format: u32,
    role: RoleName,
    /// The document and the signatures it has so far.
    draft: Json,
    /// The document it replaces.
    previous: Json,
    /// Small files, by path.
    files: BTreeMap<String, SmallFile>,
}

#[derive(Serialize, Deserialize)]
enum DraftType {
    #[serde(rename = "mirabelle-draft")]
    Draft,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SmallFile {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    before: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    now: Option<String>,
}

/// A detached signature under a draft.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SignatureFile {
    #[serde(rename = "_type")]
    type_: SignatureType,
    pub(crate) role: RoleName,
    pub(crate) version: u64,
    pub(crate) signature: Signature,
}

#[derive(Serialize, Deserialize)]
enum SignatureType {
    #[serde(rename = "mirabelle-signature")]
    Signature,
}

/// A draft that was read.
pub(crate) struct DraftFile {
    pub(crate) role: RoleName,
    pub(crate) draft: Signed,
    pub(crate) previous: Signed,
    files: Files,
}

impl DraftFile {
    /// Reads a draft, and checks what it carries against what is to be signed.
    pub(crate) fn read(path: &Path) -> Result<Self, Failure> {
        let what = || format!("`{}` is no draft that can be signed", path.display());
        let bytes = durable::read_if_present(path, MAX_DRAFT_BYTES)
            .or_fail(|| format!("cannot read `{}`", path.display()))?
            .ok_or_else(|| Failure::usage(format!("`{}` does not exist", path.display())))?;
        Json::parse(&bytes).or_fail(what)?;
        let document: DraftDocument =
            serde_json::from_slice(&bytes).map_err(|error| Failure::usage(format!("{}: {error}", what())))?;
        if document.format != FORMAT {
            return Err(Failure::usage(format!("{}: it is of format {}", what(), document.format))
                .hint("use the version of mirabelle-publisher that the repository uses"));
        }
        let draft = Signed::parse(&document.role, &document.draft.to_file()).or_fail(what)?;
        let previous = Signed::parse(&document.role, &document.previous.to_file()).or_fail(what)?;
        let text = |text: Option<String>| text.map(String::into_bytes);
        let files: Files = document
            .files
            .into_iter()
            .map(|(path, file)| (path, (text(file.before), text(file.now))))
            .collect();
        for (path, (before, now)) in &files {
            check(&previous, path, before.as_deref())?;
            check(&draft, path, now.as_deref())?;
        }
        if let Signed::Targets(new) = &draft {
            let shown = |path: &TargetPath, file| {
                release_listed(&document.role, path, file).is_some() || files.contains_key(path.as_str())
            };
            if let Some((path, _)) = new.signed.targets.iter().find(|(path, file)| !shown(path, file)) {
                return Err(Failure::trust(format!("{}: it does not show what is in `{path}`", what())));
            }
        }
        Ok(Self { role: document.role, draft, previous, files })
    }

    /// What it changes, in words, for somebody who knows that `previous` is what is replaced.
    pub(crate) fn words(&self) -> Vec<String> {
        describe(&self.role, Some(&self.previous), &self.draft, &self.files)
    }

    /// The same for the holder of `key`, who knows only what she has signed: all of it, unless she signed `previous`.
    pub(crate) fn words_for(&self, key: &PublicKey) -> Vec<String> {
        let previous = &self.previous;
        if previous.signatures().iter().any(|signature| key.verifies(previous.signed_bytes(), signature)) {
            return self.words();
        }
        let mut words =
            vec!["what it replaces was not signed with this key, so that all of it is listed:".to_owned()];
        let now = |path: &String, now: &Option<Vec<u8>>| (path.clone(), (None, now.clone()));
        let files = self.files.iter().map(|(path, (_, new))| now(path, new)).collect();
        words.extend(describe(&self.role, None, &self.draft, &files));
        words
    }

    /// SHA-256 of the bytes that are signed, and of those they replace: what two people compare by telephone.
    pub(crate) fn digests(&self) -> (Digest, Digest) {
        (Digest::of(self.draft.signed_bytes()), Digest::of(self.previous.signed_bytes()))
    }

    fn to_bytes(&self) -> Result<Vec<u8>, Failure> {
        let what = || format!("cannot write the draft of `{}`", self.role);
        let json = |document: &Signed| Json::parse(&attach(document.json(), document.signatures())?);
        let text = |bytes: &Option<Vec<u8>>| {
            bytes.as_deref().map(|bytes| String::from_utf8_lossy(bytes).into_owned())
        };
        let files = self
            .files
            .iter()
            .map(|(path, (before, now))| (path.clone(), SmallFile { before: text(before), now: text(now) }));
        let document = DraftDocument {
            type_: DraftType::Draft,
            format: FORMAT,
            role: self.role.clone(),
            draft: json(&self.draft).or_fail(what)?,
            previous: json(&self.previous).or_fail(what)?,
            files: files.collect(),
        };
        Ok(Json::of(&document).or_fail(what)?.to_file())
    }
}

/// A file that travels along must be the one that the document names.
fn check(document: &Signed, path: &str, bytes: Option<&[u8]>) -> Result<(), Failure> {
    let Signed::Targets(document) = document else { return Ok(()) };
    let listed = document.signed.targets.get(&TargetPath::new(path));
    match (listed, bytes) {
        (None, None) => Ok(()),
        (Some(file), Some(bytes)) if file.hashes.match_bytes(bytes) => Ok(()),
        _ => Err(Failure::trust(format!("the draft shows another `{path}` than it would have signed"))
            .hint("do not sign it; ask where it comes from")),
    }
}

impl SignatureFile {
    pub(crate) fn new(role: &RoleName, version: u64, signature: Signature) -> Self {
        Self { type_: SignatureType::Signature, role: role.clone(), version, signature }
    }

    pub(crate) fn read(path: &Path) -> Result<Self, Failure> {
        let bytes = durable::read_if_present(path, 64 << 10)
            .or_fail(|| format!("cannot read `{}`", path.display()))?
            .ok_or_else(|| Failure::usage(format!("`{}` does not exist", path.display())))?;
        serde_json::from_slice(&bytes)
            .map_err(|error| Failure::usage(format!("`{}` is no signature file: {error}", path.display())))
    }
}

impl Repository {
    /// The draft of a role, with everything it takes to put it into words.
    pub(crate) fn travelling_draft(&self, role: &RoleName) -> Result<DraftFile, Failure> {
        let draft = self.drafts()?.remove(role).ok_or_else(|| no_draft(role))?;
        let previous = Signed::parse(role, &self.role_bytes(role)?)
            .or_fail(|| format!("cannot read the role `{role}`"))?;
        let mut files = Files::new();
        if let (Signed::Targets(was), Signed::Targets(is)) = (&previous, &draft) {
            let (was, is) = (&was.signed.targets, &is.signed.targets);
            for path in was.keys().chain(is.keys()) {
                // A release is described by its listing.
                let file = |listed: &BTreeMap<TargetPath, TargetFile>| {
                    let file = listed.get(path)?;
                    let small = release_listed(role, path, file).is_none() && file.length <= MAX_SMALL_FILE;
                    small.then(|| file.hashes.sha256()).flatten()
                };
                let read =
                    |digest: Option<Digest>| digest.map(|digest| self.target(path, digest)).transpose();
                let (before, now) = (read(file(was))?, read(file(is))?);
                if before.is_some() || now.is_some() {
                    files.insert(path.to_string(), (before, now));
                }
            }
        }
        Ok(DraftFile { role: role.clone(), draft, previous, files })
    }

    /// Writes the draft of a role as a file that travels.
    pub(crate) fn export_draft(&self, role: &RoleName, path: &Path) -> Result<DraftFile, Failure> {
        let draft = self.travelling_draft(role)?;
        durable::write_atomically(path, &draft.to_bytes()?)
            .or_fail(|| format!("cannot write `{}`", path.display()))?;
        Ok(draft)
    }
}
