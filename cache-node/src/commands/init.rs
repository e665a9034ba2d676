//! `init`: a node's college, upstream and trusted root.

use std::path::Path;

use mirabelle_content::durable;
use mirabelle_manifests::Instant;
use mirabelle_manifests::tuf::TrustedMetadata;
use mirabelle_terminal::{Failure, OrFail};
use serde::Serialize;

use super::Context;
use crate::config::ConfigFile;

const MAX_ROOT_BYTES: u64 = 512 << 10;

#[derive(Serialize)]
struct Initialised {
    college: String,
    root_version: u64,
}

pub(super) fn run(context: &Context, trusted_root: &Path) -> Result<(), Failure> {
    let what = || format!("cannot trust `{}`", trusted_root.display());
    let bytes = durable::read_if_present(trusted_root, MAX_ROOT_BYTES)
        .or_fail(what)?
        .ok_or_else(|| Failure::usage(format!("`{}` does not exist", trusted_root.display())))?;
    let trusted = TrustedMetadata::begin(&bytes, Instant::now()).or_fail(what)?;
    let settings = &context.settings;
    let college =
        settings.college.clone().ok_or_else(|| Failure::usage("name the college with --college"))?;
    if settings.upstreams.is_empty() {
        return Err(Failure::usage("name where to mirror from with --upstream"));
    }
    let _lock = context.site.lock()?;
    let path = context.site.path("node.toml");
    if path.exists() {
        return Err(Failure::no(format!("`{}` exists already: this node is set up", path.display())));
    }

    context.site.trust().trust(&bytes).or_fail(what)?;
    let file = ConfigFile {
        college: Some(college.clone()),
        upstreams: settings.upstreams.iter().map(ToString::to_string).collect(),
        listen: settings.listen,
        sync_every: settings.sync_every.clone(),
        keep_unassigned: settings.keep_unassigned.clone(),
        disk_quota: settings.disk_quota.clone(),
        disk_reserve: settings.disk_reserve.clone(),
        memory_cache: settings.memory_cache.clone(),
        scrub_every: settings.scrub_every.clone(),
        ..ConfigFile::default()
    };
    let text = toml::to_string_pretty(&file).map_err(|error| Failure::usage(error.to_string()))?;
    durable::write_atomically(&path, text.as_bytes())
        .or_fail(|| format!("cannot write `{}`", path.display()))?;
    let done = Initialised { college: college.to_string(), root_version: trusted.root().version };
    context.output.print(&done, |done| {
        format!("the node of college {} trusts root version {}; next: `run`", done.college, done.root_version)
    });
    Ok(())
}
