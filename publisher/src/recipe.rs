//! Recipes: what a packager writes down about a piece of software.
//!
//! ```toml
//! name = "ruff"
//! version = "0.17.5"
//! sequence = 1705                      # orders releases; must grow
//! platform = "linux-x86_64"            # or "any"
//! date = "2026-11-01T00:00:00Z"        # when it was packaged; now, if not given
//! licence = "MIT"
//! categories = ["Development"]
//! sbom = "ruff.cdx.json"               # a CycloneDX JSON; made of what can be known, if not given
//! title   = { fr = "Ruff", en = "Ruff" }
//! summary = { fr = "Vérifie le code Python", en = "Checks Python code" }
//!
//! [[source]]                           # unpacked in order, into one tree
//! path = "ruff-0.17.5.whl"             # relative to the recipe
//! kind = "wheel"                       # directory, tar, zip, wheel, deb; file: taken as it is
//! sha256 = "…"                         # optional: refuse any other file
//! url = "https://…"                    # optional: where it was fetched, for the SBOM
//! strip = 0                            # leading path segments to drop
//! prefix = "lib"                       # where to put it
//! exclude = ["*.dist-info"]
//!
//! [[launcher]]
//! name = "ruff"
//! title = { fr = "Ruff", en = "Ruff" }
//! command = ["{release}/bin/ruff"]
//! mime-types = ["text/x-python"]
//! terminal = true
//! ```
//!
//! What the store shows of it stands under `[store]` (`storefront.rs`).
//!
//! Besides, what it needs of a workstation and does to it: `requires`, `conflicts`, `[[check]]`, `[[setting]]` and
//! `[installer]`, with the members that `manifests/src/release/behaviour.rs` gives them. `docs/RECIPES.md` has examples.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use mirabelle_content::archive::{Format, Limits, Selection, deb_control, unpack};
use mirabelle_content::{SourceNode, Staging, digest, durable, scan_tree};
use mirabelle_manifests::{
    Behaviour, Check, Description, Digest, EntryPath, Installer, Instant, Launcher, PackageName, PathPattern,
    Platform, Relation, Setting, Showcase, TemplateError, Text, Version, fill_template,
};
use mirabelle_terminal::{Failure, OrFail};
use serde::Deserialize;

use crate::sbom::{self, Component, Inventory};
use crate::storefront::{Files, StoreTable};

/// The most of a recipe.
const MAX_RECIPE_BYTES: u64 = 1 << 20;

/// The most of a template.
const MAX_TEMPLATE_BYTES: u64 = 1 << 20;

/// A recipe file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Recipe {
    name: PackageName,
    version: Version,
    sequence: u64,
    platform: Platform,
    date: Option<Instant>,
    licence: String,
    #[serde(default)]
    categories: Vec<String>,
    title: Text,
    summary: Text,
    sbom: Option<PathBuf>,
    source: Vec<Source>,
    #[serde(default)]
    launcher: Vec<Launcher>,
    #[serde(default)]
    requires: Vec<Relation>,
    #[serde(default)]
    conflicts: Vec<Relation>,
    #[serde(default)]
    check: Vec<Check>,
    #[serde(default)]
    setting: Vec<Setting>,
    installer: Option<Installer>,
    store: Option<StoreTable>,
    /// Where relative paths start.
    #[serde(skip)]
    directory: PathBuf,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum SourceKind {
    Directory,
    Tar,
    Zip,
    Wheel,
    Deb,
    /// Not unpacked: a native package for an installer, a template, a script.
    File,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Source {
    path: PathBuf,
    kind: SourceKind,
    sha256: Option<Digest>,
    url: Option<String>,
    #[serde(default)]
    strip: usize,
    prefix: Option<EntryPath>,
    #[serde(default)]
    exclude: Vec<PathPattern>,
}

impl Recipe {
    pub(crate) fn read(path: &Path) -> Result<Self, Failure> {
        let what = || format!("cannot use the recipe `{}`", path.display());
        let bytes = durable::read_if_present(path, MAX_RECIPE_BYTES)
            .or_fail(what)?
            .ok_or_else(|| Failure::usage(format!("`{}` does not exist", path.display())))?;
        let mut recipe: Self = toml::from_slice(&bytes).or_fail(what)?;
        recipe.directory = path.parent().unwrap_or(Path::new("")).to_owned();
        if recipe.source.is_empty() {
            return Err(Failure::usage(format!("the recipe `{}` has no [[source]]", path.display())));
        }
        Ok(recipe)
    }

    pub(crate) fn label(&self) -> String {
        format!("{}-{}-{}", self.name, self.version, self.platform)
    }

    pub(crate) fn description(&self, now: Instant) -> Description {
        let now = Instant::from_second(now.as_second()).unwrap_or(now);
        Description {
            name: self.name.clone(),
            version: self.version.clone(),
            platform: self.platform.clone(),
            sequence: self.sequence,
            date: self.date.unwrap_or(now),
            title: self.title.clone(),
            summary: self.summary.clone(),
            categories: self.categories.clone(),
            licence: self.licence.clone(),
            launchers: self.launcher.clone(),
            behaviour: Behaviour {
                checks: self.check.clone(),
                conflicts: self.conflicts.clone(),
                installer: self.installer.clone(),
                requires: self.requires.clone(),
                settings: self.setting.clone(),
            },
        }
    }

    /// The SBOM that the recipe supplies, if it does.
    pub(crate) fn supplied_sbom(&self) -> Result<Option<Vec<u8>>, Failure> {
        let Some(path) = &self.sbom else { return Ok(None) };
        let path = self.directory.join(path);
        let bytes = sbom::read(&path)?
            .ok_or_else(|| Failure::usage(format!("the SBOM `{}` does not exist", path.display())))?;
        Inventory::parse(&bytes).or_fail(|| format!("cannot use the SBOM `{}`", path.display()))?;
        Ok(Some(bytes))
    }

    /// What the store shows of it, and the files that belong to that.
    pub(crate) fn showcase(&self) -> Result<(Option<Showcase>, Files), Failure> {
        let Some(store) = &self.store else { return Ok((None, Files::new())) };
        let (showcase, files) = store.read(&self.directory)?;
        Ok((Some(showcase), files))
    }

    /// What an SBOM can say about the sources.
    pub(crate) fn components(&self) -> Result<Vec<Component>, Failure> {
        self.source.iter().filter_map(|source| source.component(&self.directory).transpose()).collect()
    }

    /// Unpacks every source into `tree`.
    pub(crate) fn unpack(&self, tree: &Path) -> Result<(), Failure> {
        let mut staging = Staging::new(tree, Limits::default());
        for source in &self.source {
            let path = self.directory.join(&source.path);
            if !path.exists() {
                return Err(Failure::usage(format!("the source `{}` does not exist", path.display())));
            }
            let selection = Selection {
                strip: source.strip,
                prefix: source.prefix.clone(),
                exclude: source.exclude.clone(),
            };
            let format = match source.kind {
                SourceKind::Directory => {
                    copy_directory(&path, &selection, &mut staging)?;
                    continue;
                }
                SourceKind::File => {
                    check_digest(&path, source.sha256)?;
                    copy_file(&path, &selection, &mut staging)?;
                    continue;
                }
                SourceKind::Tar => Format::Tar,
                SourceKind::Zip => Format::Zip,
                SourceKind::Wheel => Format::Wheel,
                SourceKind::Deb => Format::Deb,
            };
            check_digest(&path, source.sha256)?;
            unpack(&path, format, &selection, &mut staging)
                .or_fail(|| format!("cannot unpack the source `{}`", path.display()))?;
        }
        staging.finish().or_fail(|| "cannot unpack the sources".to_owned())?;
        self.check_templates(tree)
    }

    /// Settings are made from files of the release that are text with names in it: said here, where a packager can mend it,
    /// and not on the workstations that it comes to.
    fn check_templates(&self, tree: &Path) -> Result<(), Failure> {
        for setting in &self.setting {
            let what = || format!("cannot use the template `{}` of `{}`", setting.template, setting.path);
            let path = tree.join(setting.template.as_str());
            if !fs_err::symlink_metadata(&path).is_ok_and(|found| found.is_file()) {
                return Err(Failure::usage(format!("{}: no source brings such a file", what())).hint(
                    "a `[[source]]` of kind \"file\" takes a file as it is; `prefix` says where it goes",
                ));
            }
            let template = durable::read_if_present(&path, MAX_TEMPLATE_BYTES).or_fail(what)?;
            let template = String::from_utf8(template.unwrap_or_default())
                .map_err(|_| Failure::usage(format!("{}: it is not text", what())))?;
            // Which values there are is decided by colleges; whether it can be read as a template is not.
            match fill_template(&template, &BTreeMap::new()) {
                Ok(_) | Err(TemplateError::Unknown { .. }) => {}
                Err(error) => return Err(Failure::usage(format!("{}: {error}", what()))),
            }
        }
        Ok(())
    }
}

impl Source {
    /// The source as a component; nothing for a directory, whose name means something to its packager alone.
    fn component(&self, directory: &Path) -> Result<Option<Component>, Failure> {
        let path = directory.join(&self.path);
        let what = || format!("cannot read the source `{}`", path.display());
        let Some(name) = path.file_name() else { return Ok(None) };
        let name = name.to_string_lossy();
        let package = match self.kind {
            SourceKind::Directory => return Ok(None),
            SourceKind::Wheel => sbom::wheel(&name),
            SourceKind::Deb => sbom::debian(&deb_control(&path).or_fail(what)?),
            // As it is, a native package still says what it is.
            SourceKind::File if is_deb(&path) => sbom::debian(&deb_control(&path).or_fail(what)?),
            SourceKind::File | SourceKind::Tar | SourceKind::Zip => None,
        };
        let mut component = package.unwrap_or_else(|| Component::file(&name));
        component.fetched_as(digest_of(&path)?, self.url.as_deref());
        Ok(Some(component))
    }
}

fn digest_of(path: &Path) -> Result<Digest, Failure> {
    let what = || format!("cannot read the source `{}`", path.display());
    let mut file = fs_err::File::open(path).or_fail(what)?;
    Ok(digest(&mut file).or_fail(what)?.0)
}

fn check_digest(path: &Path, expected: Option<Digest>) -> Result<(), Failure> {
    let Some(expected) = expected else { return Ok(()) };
    let got = digest_of(path)?;
    if got == expected {
        return Ok(());
    }
    Err(Failure::trust(format!(
        "the source `{}` has digest {got}, and the recipe expects {expected}",
        path.display()
    )))
}

fn is_deb(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("deb"))
}

/// Takes a file as it is, under its own name, not executable.
fn copy_file(path: &Path, selection: &Selection, staging: &mut Staging) -> Result<(), Failure> {
    let what = || format!("cannot copy the source `{}`", path.display());
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let Some(place) = selection.place_entry(&name.parse().or_fail(what)?).or_fail(what)? else {
        return Err(Failure::usage(format!("{}: `strip` or `exclude` leaves nothing of it", what())));
    };
    let mut content = fs_err::File::open(path).or_fail(what)?;
    let size = content.metadata().or_fail(what)?.len();
    staging.file(&place, false, size, &mut content).or_fail(what)
}

fn copy_directory(root: &Path, selection: &Selection, staging: &mut Staging) -> Result<(), Failure> {
    let what = || format!("cannot copy the source `{}`", root.display());
    for file in scan_tree(root, &mut |_| {}).or_fail(what)? {
        let Some(path) = selection.place_entry(&file.path).or_fail(what)? else { continue };
        match file.node {
            SourceNode::Directory => staging.directory(&path),
            SourceNode::Link { target } => staging.link(&path, &target),
            SourceNode::File { mode, size, .. } => {
                let mut content = fs_err::File::open(root.join(file.path.as_str())).or_fail(what)?;
                staging.file(&path, mode == mirabelle_manifests::Mode::Executable, size, &mut content)
            }
        }
        .or_fail(what)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use fs_err as fs;

    use super::*;

    const HEAD: &str = r#"
        name = "hello"
        version = "2"
        sequence = 2
        platform = "linux-x86_64"
        licence = "MIT"
        title = { fr = "x", en = "x" }
        summary = { fr = "x", en = "x" }
    "#;

    /// The recipe of the words of `docs/RECIPES.md` in a folder with its sources.
    fn recipe(rest: &str) -> (tempfile::TempDir, Result<Recipe, Failure>) {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("hello_2.deb"), "a package").unwrap();
        fs::write(folder.path().join("hello.conf"), "proxy={{ value.proxy }}\n").unwrap();
        fs::write(folder.path().join("bad.conf"), "proxy={{ value.proxy\n").unwrap();
        let path = folder.path().join("recipe.toml");
        fs::write(&path, format!("{HEAD}{rest}")).unwrap();
        let recipe = Recipe::read(&path);
        (folder, recipe)
    }

    fn unpacked(rest: &str) -> Result<Vec<String>, Failure> {
        let (folder, recipe) = recipe(rest);
        let tree = folder.path().join("tree");
        fs::create_dir(&tree).unwrap();
        recipe?.unpack(&tree)?;
        Ok(scan_tree(&tree, &mut |_| {}).unwrap().into_iter().map(|file| file.path.to_string()).collect())
    }

    const FILES: &str = r#"
        [[source]]
        path = "hello_2.deb"
        kind = "file"
        [[source]]
        path = "hello.conf"
        kind = "file"
        prefix = "conf"
    "#;

    #[test]
    fn the_worked_example_of_the_documentation_is_a_recipe() {
        let documentation = include_str!("../../docs/RECIPES.md");
        let (_, example) =
            documentation.split_once("<!-- a recipe with an installer -->\n```toml\n").unwrap();
        let (example, _) = example.split_once("```").unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("recipe.toml");
        fs::write(&path, example).unwrap();
        let behaviour = Recipe::read(&path).unwrap().description(Instant::UNIX_EPOCH).behaviour;
        assert_eq!(behaviour.checks.len(), 2);
        assert_eq!((behaviour.requires.len(), behaviour.conflicts.len()), (1, 1));
        assert_eq!(behaviour.settings.len(), 1);
        assert_eq!(behaviour.installer.unwrap().install, ["dpkg", "-i", "{release}/hello.deb"]);
    }

    #[test]
    fn takes_a_file_as_it_is() {
        assert_eq!(unpacked(FILES).unwrap(), ["conf/hello.conf", "hello_2.deb"]);
        let other = FILES.replacen(
            "kind = \"file\"",
            &format!("kind = \"file\"\nsha256 = \"{}\"", "0".repeat(64)),
            1,
        );
        assert!(unpacked(&other).unwrap_err().render().contains("the recipe expects"));
    }

    #[test]
    fn a_setting_needs_a_template_that_can_be_filled() {
        let setting = |template: &str| {
            format!("[[setting]]\npath = \"/etc/hello.conf\"\ntemplate = \"{template}\"\n{FILES}")
        };
        assert!(unpacked(&setting("conf/hello.conf")).is_ok());
        let missing = unpacked(&setting("hello.conf")).unwrap_err().render();
        assert!(
            missing.contains("`hello.conf` of `/etc/hello.conf`: no source brings such a file"),
            "{missing}"
        );
        let malformed = setting("conf/bad.conf").replace("path = \"hello.conf\"", "path = \"bad.conf\"");
        let malformed = unpacked(&malformed).unwrap_err().render();
        assert!(malformed.contains("line 1 of the template has `{{` without `}}`"), "{malformed}");
    }

    #[test]
    fn unknown_members_are_refused() {
        for unknown in [
            "settings = []\n",
            "[installer]\nscript = \"x\"\n",
            "[[check]]\ntype = \"file\"\nfile = \"/x\"\n",
        ] {
            let (_, recipe) = recipe(&format!("{unknown}{FILES}"));
            assert!(recipe.is_err(), "{unknown}");
        }
    }
}
