//! `init`: a node's college, upstream and trusted root, from a file or by an enrolment code.
//!
//! Invariant: `node.toml` is written last, when all that it speaks of is here; a node without it is not set up. So one that was cut
//! short begins anew, and what is refused leaves nothing: the root is fetched and compared before anything is written.
//!
//! Threats and the defence for each:
//! - *An origin, or somebody between, that sends another root*: only the one whose SHA-256 is in the code is taken.
//! - *A root that is here already*: a directory that trusts another one is not given this one; a person moves it aside.

use std::path::{Path, PathBuf};

use mirabelle_content::durable;
use mirabelle_manifests::network::metadata_path;
use mirabelle_manifests::tuf::{RoleName, TrustedMetadata};
use mirabelle_manifests::{Digest, Enrolment, Instant, MAX_CODE_BYTES, SiteId};
use mirabelle_terminal::{Failure, OrFail};
use mirabelle_transfer::{Fetcher, RetryPolicy, Upstream};
use serde::Serialize;

use super::Context;
use crate::cli::Whom;
use crate::config::{ConfigFile, LinkTable};

const MAX_ROOT_BYTES: u64 = 512 << 10;
/// Where a code is provided: a systemd credential, or else a variable of the environment.
const CREDENTIAL: &str = "enrolment";
const VARIABLE: &str = "MIRABELLE_ENROLMENT";

/// What was set up.
#[derive(Serialize)]
pub(super) struct Initialised {
    pub(super) college: String,
    pub(super) root_version: u64,
}

pub(super) async fn run(context: &Context, whom: &Whom) -> Result<(), Failure> {
    let done = match whom {
        Whom { trusted_root: Some(path), .. } => with_root(context, path)?,
        Whom { code: Some(code), .. } => enrol(context, code).await?,
        Whom { code_file: Some(path), .. } => {
            let code = read_code(path)?
                .ok_or_else(|| Failure::usage(format!("there is no code in `{}`", path.display())))?;
            enrol(context, &code).await?
        }
        Whom { trusted_root: None, code: None, code_file: None } => {
            let code = provided()?.ok_or_else(|| {
                Failure::usage("nobody says whom to trust").hint(
                    "give --code with what `mirabelle-publisher enrolment-code` printed, or --trusted-root",
                )
            })?;
            enrol(context, &code).await?
        }
    };
    context.output.print(&done, |done| {
        format!("the node of college {} trusts root version {}; next: `run`", done.college, done.root_version)
    });
    Ok(())
}

/// The code that this process was started with, if it was.
pub(super) fn provided() -> Result<Option<Enrolment>, Failure> {
    if let Some(directory) = std::env::var_os("CREDENTIALS_DIRECTORY")
        && let Some(code) = read_code(&PathBuf::from(directory).join(CREDENTIAL))?
    {
        return Ok(Some(code));
    }
    match std::env::var(VARIABLE) {
        Ok(text) => parse_code(&text, VARIABLE),
        Err(_) => Ok(None),
    }
}

/// The code in a file; none where there is no file, or nothing in it.
fn read_code(path: &Path) -> Result<Option<Enrolment>, Failure> {
    let bytes = durable::read_if_present(path, MAX_CODE_BYTES as u64)
        .or_fail(|| format!("cannot read the enrolment code in `{}`", path.display()))?;
    bytes.map_or(Ok(None), |bytes| parse_code(&String::from_utf8_lossy(&bytes), &path.display().to_string()))
}

fn parse_code(text: &str, place: &str) -> Result<Option<Enrolment>, Failure> {
    if text.trim().is_empty() {
        return Ok(None);
    }
    let code = text.parse().map_err(|error| Failure::usage(format!("`{place}`: {error}")))?;
    Ok(Some(code))
}

/// Sets the node up with a root that somebody brought here.
fn with_root(context: &Context, path: &Path) -> Result<Initialised, Failure> {
    let bytes = durable::read_if_present(path, MAX_ROOT_BYTES)
        .or_fail(|| format!("cannot trust `{}`", path.display()))?
        .ok_or_else(|| Failure::usage(format!("`{}` does not exist", path.display())))?;
    let settings = &context.settings;
    let college =
        settings.college.clone().ok_or_else(|| Failure::usage("name the college with --college"))?;
    if settings.upstreams.is_empty() {
        return Err(Failure::usage("name where to mirror from with --upstream"));
    }
    set_up(context, &bytes, &path.display().to_string(), &college, &settings.upstreams, None)
}

/// Sets the node up as a code says: with the root of its origin, if that is the one that is meant.
pub(super) async fn enrol(context: &Context, code: &Enrolment) -> Result<Initialised, Failure> {
    refuse_if_set_up(context)?;
    let settings = &context.settings;
    if let Some(college) = settings.college.as_ref().filter(|college| **college != code.college) {
        return Err(Failure::usage(format!("the code is for college {}, not for {college}", code.college)));
    }
    let origin: Upstream =
        code.origin().parse().map_err(|error| Failure::usage(format!("the enrolment code: {error}")))?;
    let what = || format!("cannot enrol at {origin}");
    let fetcher = Fetcher::new(origin.clone(), RetryPolicy::default()).or_fail(what)?;
    let path = metadata_path(&RoleName::root(), Some(code.root_version));
    let bytes = fetcher.bytes(&path, MAX_ROOT_BYTES).await.or_fail(what)?;
    let got = Digest::of(&bytes);
    if got != code.root {
        return Err(Failure::trust(format!(
            "{origin} has another root than the enrolment code says: version {} should have SHA-256 {}, and has {got}",
            code.root_version, code.root
        ))
        .hint("nothing was changed; get a new code from the publisher, or find out who answers in the origin's place"));
    }

    let upstreams = match &settings.upstreams[..] {
        [] => std::slice::from_ref(&origin),
        others => others,
    };
    // Nobody is near who would say that lessons come first.
    let link = LinkTable { r#yield: Some(true), ..LinkTable::default() };
    set_up(context, &bytes, &format!("{origin}{path}"), &code.college, upstreams, Some(link))
}

fn refuse_if_set_up(context: &Context) -> Result<(), Failure> {
    let path = context.site.path("node.toml");
    if path.exists() {
        return Err(Failure::no(format!("`{}` exists already: this node is set up", path.display())));
    }
    Ok(())
}

/// Trusts a root, then writes what the node is told. `place` is where the root came from.
fn set_up(
    context: &Context,
    root: &[u8],
    place: &str,
    college: &SiteId,
    upstreams: &[Upstream],
    link: Option<LinkTable>,
) -> Result<Initialised, Failure> {
    let what = || format!("cannot trust `{place}`");
    let trusted = TrustedMetadata::begin(root, Instant::now()).or_fail(what)?;
    let _lock = context.site.lock()?;
    refuse_if_set_up(context)?;

    let store = context.site.trust();
    store.trust(root).or_fail(what)?;
    if store.root().or_fail(what)? != root {
        let kept = context.site.path("trust");
        return Err(Failure::trust(format!("another root is trusted already, in `{}`", kept.display()))
            .hint("move that directory aside, if it is of another repository"));
    }
    let settings = &context.settings;
    let file = ConfigFile {
        college: Some(college.clone()),
        upstreams: upstreams.iter().map(ToString::to_string).collect(),
        listen: settings.listen,
        sync_every: settings.sync_every.clone(),
        keep_unassigned: settings.keep_unassigned.clone(),
        disk_quota: settings.disk_quota.clone(),
        disk_reserve: settings.disk_reserve.clone(),
        memory_cache: settings.memory_cache.clone(),
        scrub_every: settings.scrub_every.clone(),
        link,
        ..ConfigFile::default()
    };
    let text = toml::to_string_pretty(&file).map_err(|error| Failure::usage(error.to_string()))?;
    let path = context.site.path("node.toml");
    durable::write_atomically(&path, text.as_bytes())
        .or_fail(|| format!("cannot write `{}`", path.display()))?;
    Ok(Initialised { college: college.to_string(), root_version: trusted.root().version })
}
