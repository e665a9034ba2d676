//! `build`: a recipe's sources, unpacked, bundled, described and signed by their packager.

use std::io::Read;
use std::path::{Path, PathBuf};

use fs_err as fs;
use mirabelle_content::bundle::{WriteOptions, verify_bundle, write_bundle};
use mirabelle_content::{SourceFile, SourceNode, durable, scan_tree};
use mirabelle_manifests::{Description, Digest, Release, Sbom};
use mirabelle_terminal::{Bar, Failure, OrFail, bytes};
use serde::Serialize;

use super::Context;
use crate::cli::Build;
use crate::keyfile;
use crate::recipe::Recipe;
use crate::sbom::{self, MAX_PAPER_BYTES, Papers};
use crate::storefront::write_files;

#[derive(Serialize)]
struct Built {
    directory: PathBuf,
    release: Digest,
    files: usize,
    installed_bytes: u64,
    bundle_bytes: u64,
    sbom: Digest,
}

pub(super) fn run(context: &mut Context, arguments: &Build) -> Result<(), Failure> {
    let recipe = Recipe::read(&arguments.recipe)?;
    let key = keyfile::open(&arguments.key, &mut context.passphrase)?;
    let what = || format!("cannot build `{}`", recipe.label());
    fs::create_dir_all(&arguments.out).or_fail(what)?;
    // Beside the result, where there is room for it; gone when the command ends, whatever way it ends but a kill.
    let work = tempfile::Builder::new().prefix(".building-").tempdir_in(&arguments.out).or_fail(what)?;

    let tree = work.path().join("tree");
    fs::create_dir(&tree).or_fail(what)?;
    recipe.unpack(&tree)?;
    let files = scan_tree(&tree, &mut |_| {}).or_fail(what)?;
    let total =
        files.iter().map(|file| if let SourceNode::File { size, .. } = file.node { size } else { 0 }).sum();

    let about = recipe.description(context.now);
    let sbom = sbom_of(&recipe, &about, &tree, &files)?;
    let (showcase, media) = recipe.showcase()?;

    let result = work.path().join("result");
    fs::create_dir(&result).or_fail(what)?;
    let bundle_path = result.join("bundle.tar.zst");
    let mut bundle =
        fs::OpenOptions::new().create_new(true).read(true).write(true).open(&bundle_path).or_fail(what)?;
    let options = WriteOptions { level: arguments.level, jobs: arguments.jobs };
    let bar = Bar::bytes(&format!("bundling {}", recipe.label()), total);
    let (entries, described) =
        write_bundle(&tree, &files, options, &mut bundle, &|bytes| bar.advance(bytes)).or_fail(what)?;
    bar.finish();
    let release = Release::new(about, entries, described)
        .and_then(|release| release.with_sbom(Sbom::of(&sbom)))
        .and_then(|release| release.with_showcase(showcase))
        .or_fail(what)?;

    // What was made is read back as everybody will read it, before anything is signed.
    let bar = Bar::bytes("checking the bundle", release.bundle.size);
    let written = fs::File::open(&bundle_path).or_fail(what)?;
    verify_bundle(written, &release, &mut |bytes| bar.advance(bytes)).or_fail(what)?;
    bar.finish();

    durable::write_atomically(&result.join(sbom::FILE_NAME), &sbom).or_fail(what)?;
    write_files(&media, &result.join("media"))?;
    let manifest = release.sign(key.as_ref()).or_fail(what)?;
    durable::write_atomically(&result.join("release.json"), &manifest).or_fail(what)?;
    let destination = arguments.out.join(recipe.label());
    durable::remove_tree(&destination).or_fail(what)?;
    fs::rename(&result, &destination).or_fail(what)?;

    let built = Built {
        directory: destination,
        release: Digest::of(&manifest),
        files: files.len(),
        installed_bytes: release.installed_size(),
        bundle_bytes: release.bundle.size,
        sbom: Digest::of(&sbom),
    };
    context.output.print(&built, |built| {
        format!(
            "built `{}`: {} files, {} installed, {} to download, signed with key {}",
            built.directory.display(),
            built.files,
            bytes(built.installed_bytes),
            bytes(built.bundle_bytes),
            key.public().id().short()
        )
    });
    Ok(())
}

/// The SBOM that the recipe supplies, or one made of its sources and of the papers in the tree.
fn sbom_of(
    recipe: &Recipe,
    about: &Description,
    tree: &Path,
    files: &[SourceFile],
) -> Result<Vec<u8>, Failure> {
    if let Some(supplied) = recipe.supplied_sbom()? {
        return Ok(supplied);
    }
    let what = || format!("cannot list what is in `{}`", recipe.label());
    let mut components = recipe.components()?;
    for file in files {
        let SourceNode::File { .. } = file.node else { continue };
        let Some(papers) = Papers::at(file.path.as_str()) else { continue };
        let mut bytes = Vec::new();
        let reader = fs::File::open(tree.join(file.path.as_str())).or_fail(what)?;
        reader.take(MAX_PAPER_BYTES).read_to_end(&mut bytes).or_fail(what)?;
        if let Some(mut component) = papers.read(&bytes) {
            component.found_at(file.path.as_str());
            components.push(component);
        }
    }
    sbom::generate(about, components).or_fail(what)
}
