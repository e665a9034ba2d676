//! `enroll`: a workstation's node, college and trusted root.

use mirabelle_content::durable;
use mirabelle_manifests::tuf::TrustedMetadata;
use mirabelle_terminal::{Failure, OrFail};
use serde::Serialize;

use super::Context;
use crate::cli::Enroll;
use crate::config::{ConfigFile, own_name};

const MAX_ROOT_BYTES: u64 = 512 << 10;

#[derive(Serialize)]
struct Enrolled {
    college: String,
    node: String,
    root_version: u64,
}

pub(super) fn run(context: &Context, arguments: Enroll) -> Result<(), Failure> {
    let Enroll { trusted_root, code, machine, room, tags } = arguments;
    let what = || format!("cannot trust `{}`", trusted_root.display());
    let bytes = durable::read_if_present(&trusted_root, MAX_ROOT_BYTES)
        .or_fail(what)?
        .ok_or_else(|| Failure::usage(format!("`{}` does not exist", trusted_root.display())))?;
    let trusted = TrustedMetadata::begin(&bytes, context.now).or_fail(what)?;
    let settings = &context.settings;
    let college =
        settings.college.clone().ok_or_else(|| Failure::usage("name the college with --college"))?;
    let node = settings.node.clone().ok_or_else(|| Failure::usage("name the college's node with --node"))?;
    let _lock = context.layout.lock()?;
    let path = context.layout.config();
    if path.exists() {
        return Err(Failure::no(format!(
            "`{}` exists already: this workstation is enrolled",
            path.display()
        )));
    }

    context.layout.trust().trust(&bytes).or_fail(what)?;
    let file = ConfigFile {
        node: Some(node.to_string()),
        college: Some(college.clone()),
        machine: Some(machine.map_or_else(own_name, Ok)?),
        room,
        tags: tags.into_iter().collect(),
        ..ConfigFile::default()
    };
    if let Some(code) = code {
        let path = context.layout.college_code();
        let text = format!("{}\n", code.shown().as_str());
        durable::write_atomically_as(&path, text.as_bytes(), 0o600, None)
            .or_fail(|| format!("cannot write `{}`", path.display()))?;
    }
    let text = toml::to_string_pretty(&file).map_err(|error| Failure::usage(error.to_string()))?;
    durable::write_atomically(&path, text.as_bytes())
        .or_fail(|| format!("cannot write `{}`", path.display()))?;
    let done = Enrolled {
        college: college.to_string(),
        node: node.to_string(),
        root_version: trusted.root().version,
    };
    context.output.print(&done, |done| {
        format!(
            "this workstation of college {} asks {} and trusts root version {}",
            done.college, done.node, done.root_version
        )
    });
    Ok(())
}
