//! Releases that were handed in: `submitted/<digest>/release.json`, `bundle.tar.zst`, `sbom.cdx.json` and `media/`.

use std::path::{Path, PathBuf};

use fs_err as fs;
use mirabelle_content::durable;
use mirabelle_manifests::network::{PACKAGERS_TARGET, bundle_path, catalogue_role, sbom_path};
use mirabelle_manifests::tuf::{RoleName, Targets};
use mirabelle_manifests::{
    Catalogue, CatalogueEntry, Digest, MAX_MANIFEST_BYTES, Packagers, Platform, Sbom, SignedRelease,
};
use mirabelle_terminal::{Failure, OrFail};

use crate::cli::NameAtVersion;
use crate::repository::Repository;
use crate::sbom;

/// A built or submitted release.
#[derive(Debug)]
pub(crate) struct Submission {
    pub(crate) directory: PathBuf,
    pub(crate) signed: SignedRelease,
    pub(crate) manifest: Vec<u8>,
}

impl Submission {
    /// Reads what `build` made, or `submit` kept.
    pub(crate) fn read(directory: PathBuf) -> Result<Self, Failure> {
        let path = directory.join("release.json");
        let manifest = durable::read_if_present(&path, MAX_MANIFEST_BYTES)
            .or_fail(|| format!("cannot read `{}`", path.display()))?
            .ok_or_else(|| Failure::usage(format!("`{}` holds no built release", directory.display())))?;
        let signed =
            SignedRelease::parse(&manifest).or_fail(|| format!("`{}` cannot be used", path.display()))?;
        Ok(Self { directory, signed, manifest })
    }

    pub(crate) fn bundle(&self) -> PathBuf {
        self.directory.join("bundle.tar.zst")
    }

    pub(crate) fn sbom(&self) -> PathBuf {
        self.directory.join(sbom::FILE_NAME)
    }

    pub(crate) fn label(&self) -> String {
        let release = &self.signed.release;
        format!("{} {} ({})", release.name, release.version, release.platform)
    }
}

impl Repository {
    pub(crate) fn submission_directory(&self, release: Digest) -> PathBuf {
        self.path("submitted").join(release.to_string())
    }

    /// The SBOM of a release that was handed in or published; `None` when it was signed without one.
    pub(crate) fn sbom(&self, signed: &SignedRelease) -> Result<Option<Vec<u8>>, Failure> {
        let Some(expected) = signed.release.sbom else { return Ok(None) };
        let submitted = self.submission_directory(signed.digest).join(sbom::FILE_NAME);
        let published = self.public().join(sbom_path(expected.sha256));
        let path = if submitted.exists() { submitted } else { published };
        checked_sbom(&path, expected).map(Some)
    }

    /// The bundle of a release that was handed in or published.
    pub(crate) fn bundle(&self, signed: &SignedRelease) -> Result<fs::File, Failure> {
        let submitted = self.submission_directory(signed.digest).join("bundle.tar.zst");
        let published = self.public().join(bundle_path(signed.release.bundle.sha256));
        let path = if submitted.exists() { submitted } else { published };
        fs::File::open(&path).or_fail(|| format!("cannot read `{}`", path.display()))
    }

    /// Everything that was handed in and has not been published yet.
    pub(crate) fn submissions(&self) -> Result<Vec<Submission>, Failure> {
        let directory = self.path("submitted");
        let what = || format!("cannot list `{}`", directory.display());
        if !directory.exists() {
            return Ok(Vec::new());
        }
        let mut submissions = Vec::new();
        for entry in fs::read_dir(&directory).or_fail(what)? {
            let entry = entry.or_fail(what)?;
            // A directory with another name is one that `submit` had not finished.
            let complete = entry.file_name().to_str().is_some_and(|name| name.parse::<Digest>().is_ok());
            if complete && entry.path().join("release.json").exists() {
                submissions.push(Submission::read(entry.path())?);
            }
        }
        submissions.sort_by_key(Submission::label);
        Ok(submissions)
    }

    /// One submitted release.
    pub(crate) fn submission(
        &self,
        wanted: &NameAtVersion,
        platform: Option<&Platform>,
    ) -> Result<Submission, Failure> {
        let mut found = self.submissions()?;
        found.retain(|submission| {
            let release = &submission.signed.release;
            release.name == wanted.name
                && release.version == wanted.version
                && platform.is_none_or(|platform| release.platform == *platform)
        });
        match found.len() {
            1 => found.pop().ok_or_else(|| Failure::no("nothing was submitted")),
            0 => Err(Failure::no(format!("`{wanted}` was not submitted"))
                .hint("`mirabelle-publisher status` lists what waits")),
            _ => Err(Failure::usage(format!(
                "`{wanted}` was submitted for several platforms, or more than once"
            ))
            .hint("name one with --platform")),
        }
    }

    /// One approved release.
    pub(crate) fn approved(
        &self,
        wanted: &NameAtVersion,
        platform: Option<&Platform>,
    ) -> Result<CatalogueEntry, Failure> {
        let catalogue = read_catalogue(&self.catalogue()?)?;
        let mut found = catalogue.iter().filter(|entry| {
            entry.listing.name == wanted.name
                && entry.listing.version == wanted.version
                && platform.is_none_or(|platform| entry.listing.platform == *platform)
        });
        match (found.next(), found.next()) {
            (Some(entry), None) => Ok(entry.clone()),
            (None, _) => Err(Failure::no(format!("`{wanted}` is not approved"))
                .hint("`mirabelle-publisher status` says what waits for whom")),
            (Some(_), Some(_)) => {
                Err(Failure::usage(format!("`{wanted}` is approved for several platforms"))
                    .hint("name one with --platform"))
            }
        }
    }

    /// The list of packagers as signed.
    pub(crate) fn packagers(&self) -> Result<Packagers, Failure> {
        let bytes = self.only_target(&RoleName::targets(), PACKAGERS_TARGET)?;
        Packagers::parse(&bytes).or_fail(|| format!("`{PACKAGERS_TARGET}` cannot be read"))
    }
}

/// Reads the SBOM at `path`, which must be the one that a release was signed with.
pub(crate) fn checked_sbom(path: &Path, expected: Sbom) -> Result<Vec<u8>, Failure> {
    match sbom::read(path)? {
        Some(bytes) if Sbom::of(&bytes) == expected => Ok(bytes),
        Some(_) => Err(Failure::trust(format!(
            "`{}` is not the SBOM that the release was signed with",
            path.display()
        ))),
        None => Err(Failure::trust(format!(
            "the SBOM `{}`, which the release was signed with, is missing",
            path.display()
        ))),
    }
}

/// Reads a catalogue role as a catalogue.
pub(crate) fn read_catalogue(role: &Targets) -> Result<Catalogue, Failure> {
    Catalogue::read(role).or_fail(|| format!("the role `{}` cannot be read", catalogue_role()))
}
