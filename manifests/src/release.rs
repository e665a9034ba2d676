//! One version of one package for one platform: what `release.json` says.
//!
//! ```text
//! {"signatures":[{"keyid":…,"sig":…}],"signed":{ … }}
//!                                     └── the packager's signatures cover exactly these bytes
//! ```
//!
//! Invariant of a parsed [`Release`]: its paths are safe, unique, sorted, and nothing stands beneath a file or a link;
//! its frames tile the bundle; every size is bounded; every launcher starts something that the release holds. What
//! uses it need not check again.

mod behaviour;

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp as Instant;
use mirabelle_keys::{Signature, Signer};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::names::{MimeType, PackageName, Platform, SystemPath, Text, Version};
use crate::tuf::SignError;
use crate::{Digest, EntryPath, Json, Showcase, ShowcaseError, TargetPath};

pub use self::behaviour::{
    Behaviour, Check, Detection, ExitCode, ExitMeaning, Installer, Permissions, PermissionsError, Relation,
    Setting,
};

/// The largest `release.json` that is read: a release of 300,000 files.
pub const MAX_MANIFEST_BYTES: u64 = 64 << 20;
/// The largest release, unpacked. Twice the largest package a school installs today.
pub const MAX_RELEASE_BYTES: u64 = 64 << 30;
/// The largest SBOM: one of some 30,000 components.
pub const MAX_SBOM_BYTES: u64 = 16 << 20;

const RELEASE_TYPE: &str = "release";
/// The layout of this document; a reader refuses one it does not know.
const FORMAT: u32 = 1;

/// How a release gets onto a workstation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Files in a directory of their own; activated and taken back in one switch.
    Files,
    /// A native package, installed by silent commands that its manifest gives.
    Installer,
}

/// A release, as its packager describes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    #[serde(rename = "_type")]
    type_: String,
    /// What it needs of a workstation and does to it, beside its files.
    #[serde(flatten)]
    pub behaviour: Behaviour,
    /// The full bundle that carries it.
    pub bundle: Bundle,
    /// Categories of the store, as freedesktop.org names them.
    pub categories: Vec<String>,
    /// When it was packaged. Its packager must have been authorised then.
    pub date: Instant,
    /// Its files, links and empty directories, sorted by path.
    pub entries: Vec<Entry>,
    format: u32,
    /// How it gets onto a workstation.
    pub kind: Kind,
    /// What it can start.
    pub launchers: Vec<Launcher>,
    /// SPDX expression.
    pub licence: String,
    /// The package.
    pub name: PackageName,
    /// What it runs on.
    pub platform: Platform,
    /// The list of what is in it. Releases of before there were any have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sbom: Option<Sbom>,
    /// Orders the releases of a package and platform.
    pub sequence: u64,
    /// What a store shows of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub showcase: Option<Showcase>,
    /// What it is, in a sentence or three.
    pub summary: Text,
    /// Its name for people.
    pub title: Text,
    /// Its version for people.
    pub version: Version,
}

/// The `.tar.zst` that holds the release: independent zstd frames, one after the other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bundle {
    /// The frames, in order.
    pub frames: Vec<Frame>,
    /// Digest of the whole file.
    pub sha256: Digest,
    /// Length of the whole file in bytes.
    pub size: u64,
}

/// One frame of a bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frame {
    /// Bytes of tar in it, uncompressed: the ceiling for whoever decompresses.
    pub length: u64,
    /// Bytes in the bundle.
    pub size: u64,
}

/// The SBOM that goes with a release: a CycloneDX JSON file beside its bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sbom {
    /// Digest of the file.
    pub sha256: Digest,
    /// Length of the file in bytes.
    pub size: u64,
}

impl Sbom {
    /// What a release says about an SBOM of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self { sha256: Digest::of(bytes), size: bytes.len() as u64 }
    }
}

/// A file, link or empty directory of a release.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Where it stands.
    pub path: EntryPath,
    /// What it is.
    #[serde(flatten)]
    pub node: Node,
}

/// What stands at a path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum Node {
    /// A regular file.
    File {
        /// The frame of the bundle that holds its bytes. Files of equal content share one.
        frame: u32,
        /// Permissions.
        mode: Mode,
        /// Digest of its bytes: the name of its object.
        sha256: Digest,
        /// Length in bytes.
        size: u64,
    },
    /// A symbolic link within the release.
    Link {
        /// Where it points, relative to its own directory.
        target: String,
    },
    /// A directory with nothing in it.
    Directory,
}

/// The permissions a file may have. Set-uid and writable-by-all do not exist here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Mode {
    /// `rw-r--r--`
    #[serde(rename = "0644")]
    Regular,
    /// `rwxr-xr-x`
    #[serde(rename = "0755")]
    Executable,
}

impl Mode {
    /// The Unix permission bits.
    pub fn bits(self) -> u32 {
        match self {
            Self::Regular => 0o644,
            Self::Executable => 0o755,
        }
    }
}

/// A command that the release offers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Launcher {
    /// Program and arguments. `{release}` stands for the directory of the release's files.
    pub command: Vec<String>,
    /// Environment to set; `{release}` as above.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub environment: BTreeMap<String, String>,
    /// An image of the release, for menus.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icon: Option<EntryPath>,
    /// The MIME types of documents that it opens.
    #[serde(default, skip_serializing_if = "Vec::is_empty", rename = "mime-types")]
    pub mime_types: Vec<MimeType>,
    /// The name a person types.
    pub name: PackageName,
    /// True when it talks in a terminal rather than a window.
    #[serde(default)]
    pub terminal: bool,
    /// The name a person sees.
    pub title: Text,
}

/// What a launcher's command says for the directory of the release's files.
pub const RELEASE_PLACEHOLDER: &str = "{release}";

/// Why bytes are not a release manifest.
#[derive(Debug, thiserror::Error)]
pub enum ReleaseError {
    /// Not JSON of this shape.
    #[error("the release manifest is malformed")]
    Malformed(#[source] serde_json::Error),
    /// Larger than anything we read.
    #[error("the release manifest has {0} bytes, more than 64 MiB")]
    TooLarge(u64),
    /// Another kind of document, or a layout this version does not know.
    #[error("not a release manifest of format {FORMAT}: type `{type_}`, format {format}")]
    UnknownFormat {
        /// `_type` as stated.
        type_: String,
        /// `format` as stated.
        format: u32,
    },
    /// A path appears twice, or out of order.
    #[error("entry `{0}` is out of order or appears twice")]
    OutOfOrder(EntryPath),
    /// Something stands beneath a file or link.
    #[error("entry `{entry}` stands beneath `{parent}`, which is no directory")]
    BeneathAFile {
        /// The entry.
        entry: EntryPath,
        /// The file or link above it.
        parent: String,
    },
    /// A link that leaves the release.
    #[error(transparent)]
    Link(#[from] crate::PathError),
    /// A frame that does not exist.
    #[error("entry `{entry}` names frame {frame} of {frames}")]
    NoSuchFrame {
        /// The entry.
        entry: EntryPath,
        /// The frame it names.
        frame: u32,
        /// How many there are.
        frames: usize,
    },
    /// One object is described in two ways.
    #[error("object {0} has two sizes or two frames")]
    Ambiguous(Digest),
    /// The bundle's frames do not add up.
    #[error("the bundle's frames add up to {sum} bytes, not to its size of {size}")]
    FramesDoNotTile {
        /// What they add up to.
        sum: u64,
        /// What the bundle states.
        size: u64,
    },
    /// Something that a store cannot show.
    #[error("the store cannot show it")]
    Showcase(#[from] ShowcaseError),
    /// More bytes than a release may have.
    #[error("the release unpacks to {0} bytes, more than 64 GiB")]
    Oversized(u64),
    /// An SBOM of more bytes than anybody reads.
    #[error("the SBOM has {0} bytes, more than 16 MiB")]
    OversizedSbom(u64),
    /// A launcher without a command, or whose program the release does not hold.
    #[error("launcher `{launcher}` starts `{program}`, which is not an executable file of the release")]
    LauncherProgram {
        /// The launcher.
        launcher: PackageName,
        /// What it would start.
        program: String,
    },
    /// Two launchers of one name.
    #[error("launcher `{0}` appears twice")]
    LauncherTwice(PackageName),
    /// A text with a line break or another control character.
    #[error("{0} holds a control character")]
    ControlCharacter(&'static str),
    /// A relation with the package itself, or with no release at all.
    #[error("the relation to {0} says nothing: it is to the package itself, or to no release")]
    Relation(String),
    /// A health check that cannot be made.
    #[error(
        "a health check has no command, no such launcher, or none of the times allowed (1 to 300 seconds)"
    )]
    UnsoundCheck,
    /// An installer that cannot be run.
    #[error("the installer has an empty command, or none of the times allowed (1 second to 2 hours)")]
    UnsoundInstaller,
    /// Kind and installer that do not go together.
    #[error("a release has the kind `installer` exactly if it says how it is installed")]
    KindAndInstaller,
    /// A setting made from a file that the release does not hold.
    #[error("a setting is made from `{0}`, which is no file of the release")]
    SettingTemplate(EntryPath),
    /// A file of the machine that is set twice.
    #[error("the setting `{0}` appears twice")]
    SettingTwice(SystemPath),
}

/// A manifest and the signatures that came with it, trusted by nobody yet.
#[derive(Clone, Debug)]
pub struct SignedRelease {
    /// The manifest.
    pub release: Release,
    /// The signatures.
    pub signatures: Vec<Signature>,
    /// The bytes they are said to cover.
    pub signed_bytes: Vec<u8>,
    /// SHA-256 of the whole file: the release's identity.
    pub digest: Digest,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    signatures: Vec<Signature>,
    #[serde(borrow)]
    signed: &'a RawValue,
}

/// The parts of a release that its packager decides.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "each field is documented on `Release`")]
pub struct Description {
    pub name: PackageName,
    pub version: Version,
    pub platform: Platform,
    pub sequence: u64,
    pub date: Instant,
    pub title: Text,
    pub summary: Text,
    pub categories: Vec<String>,
    pub licence: String,
    pub launchers: Vec<Launcher>,
    pub behaviour: Behaviour,
}

impl Release {
    /// A release from its description and its content.
    pub fn new(about: Description, mut entries: Vec<Entry>, bundle: Bundle) -> Result<Self, ReleaseError> {
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        let release = Self {
            type_: RELEASE_TYPE.to_owned(),
            kind: if about.behaviour.installer.is_some() { Kind::Installer } else { Kind::Files },
            behaviour: about.behaviour,
            bundle,
            categories: about.categories,
            date: about.date,
            entries,
            format: FORMAT,
            launchers: about.launchers,
            licence: about.licence,
            name: about.name,
            platform: about.platform,
            sbom: None,
            sequence: about.sequence,
            showcase: None,
            summary: about.summary,
            title: about.title,
            version: about.version,
        };
        release.check()?;
        Ok(release)
    }

    /// The release with this SBOM.
    pub fn with_sbom(self, sbom: Sbom) -> Result<Self, ReleaseError> {
        let release = Self { sbom: Some(sbom), ..self };
        release.check()?;
        Ok(release)
    }

    /// The release with this in the store.
    pub fn with_showcase(self, showcase: Option<Showcase>) -> Result<Self, ReleaseError> {
        let release = Self { showcase, ..self };
        release.check()?;
        Ok(release)
    }

    /// The release as its packager signs it: the bytes of `release.json`.
    pub fn sign<S: Signer + ?Sized>(&self, packager: &S) -> Result<Vec<u8>, SignError> {
        let signed = Json::of(self)?.to_file();
        let signatures = serde_json::to_string(&[packager.sign(&signed)?])?;
        let mut file = format!(r#"{{"signatures":{signatures},"signed":"#).into_bytes();
        file.extend_from_slice(&signed);
        file.push(b'}');
        Ok(file)
    }

    /// Where the catalogue lists it.
    pub fn target_path(&self) -> TargetPath {
        release_target(&self.name, &self.version, &self.platform)
    }

    /// Its objects, each once, with length and frame.
    pub fn objects(&self) -> BTreeMap<Digest, Object> {
        self.entries
            .iter()
            .filter_map(|entry| match entry.node {
                Node::File { frame, sha256, size, .. } => Some((sha256, Object { size, frame })),
                _ => None,
            })
            .collect()
    }

    /// Bytes of its files, as installed.
    pub fn installed_size(&self) -> u64 {
        self.entries.iter().fold(0_u64, |sum, entry| match entry.node {
            Node::File { size, .. } => sum.saturating_add(size),
            _ => sum,
        })
    }

    fn check(&self) -> Result<(), ReleaseError> {
        if self.type_ != RELEASE_TYPE || self.format != FORMAT {
            let type_ = self.type_.chars().take(80).collect();
            return Err(ReleaseError::UnknownFormat { type_, format: self.format });
        }
        self.check_texts()?;
        self.check_tree()?;
        self.check_content()?;
        self.check_launchers()?;
        if let Some(showcase) = &self.showcase {
            showcase.check()?;
        }
        if (self.kind == Kind::Installer) != self.behaviour.installer.is_some() {
            return Err(ReleaseError::KindAndInstaller);
        }
        self.behaviour.check(&self.name, &self.entries, &self.launchers)
    }

    fn check_texts(&self) -> Result<(), ReleaseError> {
        let texts = [
            ("title", &self.title.fr),
            ("title", &self.title.en),
            ("summary", &self.summary.fr),
            ("summary", &self.summary.en),
            ("licence", &self.licence),
        ];
        let texts = texts.into_iter().chain(self.categories.iter().map(|category| ("a category", category)));
        for (what, text) in texts {
            if text.chars().any(char::is_control) {
                return Err(ReleaseError::ControlCharacter(what));
            }
        }
        Ok(())
    }

    fn check_tree(&self) -> Result<(), ReleaseError> {
        let mut not_directories: BTreeSet<&str> = BTreeSet::new();
        let mut previous: Option<&EntryPath> = None;
        for entry in &self.entries {
            if previous.is_some_and(|previous| *previous >= entry.path) {
                return Err(ReleaseError::OutOfOrder(entry.path.clone()));
            }
            previous = Some(&entry.path);
            if let Some(parent) = entry.path.ancestors().find(|parent| not_directories.contains(parent)) {
                return Err(ReleaseError::BeneathAFile {
                    entry: entry.path.clone(),
                    parent: parent.to_owned(),
                });
            }
            match &entry.node {
                Node::File { .. } => not_directories.insert(entry.path.as_str()),
                Node::Link { target } => {
                    entry.path.check_link(target)?;
                    not_directories.insert(entry.path.as_str())
                }
                Node::Directory => false,
            };
        }
        Ok(())
    }

    fn check_content(&self) -> Result<(), ReleaseError> {
        if let Some(Sbom { size, .. }) = self.sbom.filter(|sbom| sbom.size > MAX_SBOM_BYTES) {
            return Err(ReleaseError::OversizedSbom(size));
        }
        let size = self.bundle.size;
        let sum = self.bundle.frames.iter().try_fold(0_u64, |sum, frame| sum.checked_add(frame.size));
        if sum != Some(size) {
            return Err(ReleaseError::FramesDoNotTile { sum: sum.unwrap_or(u64::MAX), size });
        }
        let frames = self.bundle.frames.len();
        let unpacked = self.bundle.frames.iter().fold(0_u64, |sum, frame| sum.saturating_add(frame.length));
        let unpacked = unpacked.max(self.installed_size());
        if unpacked > MAX_RELEASE_BYTES {
            return Err(ReleaseError::Oversized(unpacked));
        }
        let mut objects: BTreeMap<Digest, Object> = BTreeMap::new();
        for entry in &self.entries {
            let Node::File { frame, sha256, size, .. } = entry.node else { continue };
            if frame as usize >= frames {
                return Err(ReleaseError::NoSuchFrame { entry: entry.path.clone(), frame, frames });
            }
            let object = Object { size, frame };
            if *objects.entry(sha256).or_insert(object) != object {
                return Err(ReleaseError::Ambiguous(sha256));
            }
        }
        Ok(())
    }

    fn check_launchers(&self) -> Result<(), ReleaseError> {
        let mut names = BTreeSet::new();
        for launcher in &self.launchers {
            if !names.insert(&launcher.name) {
                return Err(ReleaseError::LauncherTwice(launcher.name.clone()));
            }
            if launcher.title.fr.chars().chain(launcher.title.en.chars()).any(char::is_control) {
                return Err(ReleaseError::ControlCharacter("a launcher's title"));
            }
            let program = launcher.command.first().map_or("", String::as_str);
            let inside = program.strip_prefix(RELEASE_PLACEHOLDER).and_then(|rest| rest.strip_prefix('/'));
            let found = match inside {
                Some(path) => self.entries.iter().any(|entry| {
                    let runs = match &entry.node {
                        Node::File { mode, .. } => *mode == Mode::Executable,
                        Node::Link { .. } => true,
                        Node::Directory => false,
                    };
                    entry.path.as_str() == path && runs
                }),
                // A program of the machine, found on its PATH: an interpreter.
                None => !program.is_empty() && !program.contains(['/', '\\']),
            };
            if !found {
                return Err(ReleaseError::LauncherProgram {
                    launcher: launcher.name.clone(),
                    program: program.to_owned(),
                });
            }
        }
        Ok(())
    }
}

/// An object of a release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Object {
    /// Length in bytes.
    pub size: u64,
    /// The frame of the bundle that holds it.
    pub frame: u32,
}

impl SignedRelease {
    /// Reads a `release.json`. Proves nothing about who wrote it.
    pub fn parse(bytes: &[u8]) -> Result<Self, ReleaseError> {
        if bytes.len() as u64 > MAX_MANIFEST_BYTES {
            return Err(ReleaseError::TooLarge(bytes.len() as u64));
        }
        Json::check(bytes).map_err(ReleaseError::Malformed)?;
        let envelope: Envelope<'_> = serde_json::from_slice(bytes).map_err(ReleaseError::Malformed)?;
        let signed_bytes = envelope.signed.get().as_bytes().to_vec();
        let release: Release = serde_json::from_slice(&signed_bytes).map_err(ReleaseError::Malformed)?;
        release.check()?;
        Ok(Self { release, signatures: envelope.signatures, signed_bytes, digest: Digest::of(bytes) })
    }
}

/// `packages/<name>/<version>/<platform>/release.json`
pub fn release_target(name: &PackageName, version: &Version, platform: &Platform) -> TargetPath {
    TargetPath::new(format!("packages/{name}/{version}/{platform}/release.json"))
}
