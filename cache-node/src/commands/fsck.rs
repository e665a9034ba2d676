//! `fsck`: everything the node holds, read and checked.
//!
//! What is served is verified as a workstation would: metadata, then each manifest for both bodies. Every object of the
//! store is read through and compared with its name; those that the college is owed must be here with their sizes. With
//! `--repair` what is wrong is set aside in `quarantine/`, so that it is neither served nor believed and the next sync
//! fetches it again, and what dead processes left in `incoming/` goes. Without, nothing is changed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use fs_err as fs;
use mirabelle_content::fsck::{self, Fault, Finding, Report};
use mirabelle_content::gc::Sweep;
use mirabelle_content::{ObjectStore, durable};
use mirabelle_manifests::{Digest, Instant, check_approval};
use mirabelle_terminal::{Bar, Failure, OrFail, bytes};
use mirabelle_transfer::{Network, kept_network};
use serde::Serialize;

use super::Context;
use crate::index::leave_doubt;
use crate::mirror::Obligations;

#[derive(Serialize)]
struct Checked {
    /// Releases that the college is owed.
    releases: usize,
    /// Files of the store, and their bytes.
    objects: u64,
    bytes: u64,
    /// Bytes that dead processes left; `None` while somebody is mirroring.
    left_over_bytes: Option<u64>,
    repaired: bool,
    wrong: Vec<Wrong>,
}

#[derive(Serialize)]
struct Wrong {
    /// The file, below the node's directory.
    path: String,
    object: Option<Digest>,
    what: String,
    /// Owed releases that need it.
    needed_by: Vec<String>,
}

/// What the college is owed, by what it needs.
#[derive(Default)]
struct Owed {
    releases: usize,
    sizes: BTreeMap<Digest, u64>,
    needed_by: BTreeMap<Digest, BTreeSet<String>>,
    /// Manifests that are missing or wrong.
    wrong: Vec<Wrong>,
}

pub(super) async fn run(context: &Context, repair: bool) -> Result<(), Failure> {
    let site = &context.site;
    let college = context.config()?.college;
    let what = || "what is served does not verify".to_owned();
    let copy = tempfile::tempdir().or_fail(what)?;
    let store = site.served().export(copy.path())?;
    store.trust(&site.trust().root().or_fail(what)?).or_fail(what)?;
    let now = Instant::now();
    let network = kept_network(&store, now).await.or_fail(what)?;
    let owed = owed(context, &network, &Obligations::new(&network, &college, now))?;

    let store = site.objects_read_only();
    let (report, left_over_bytes) = tokio::task::block_in_place(|| {
        let report = read_through(&store, &owed.sizes)?;
        if repair && !report.findings.is_empty() {
            set_aside(context, &report.findings)?;
        }
        let left = left_over(&store, &site.path("incoming"), repair)
            .or_fail(|| "cannot look at what was left over".to_owned())?;
        Ok::<_, Failure>((report, left))
    })?;

    let root = site.path("");
    let mut wrong = owed.wrong;
    wrong.extend(report.findings.into_iter().map(|finding| {
        Wrong {
            path: finding.path.strip_prefix(&root).unwrap_or(&finding.path).display().to_string(),
            object: finding.object,
            what: finding.fault.describe(),
            needed_by: finding
                .object
                .and_then(|object| owed.needed_by.get(&object))
                .map_or_else(Vec::new, |names| names.iter().cloned().collect()),
        }
    }));
    let checked = Checked {
        releases: owed.releases,
        objects: report.files,
        bytes: report.bytes,
        left_over_bytes,
        repaired: repair,
        wrong,
    };
    context.output.print(&checked, |checked| {
        if checked.wrong.is_empty() {
            let (releases, objects) = (checked.releases, checked.objects);
            format!("all is well: {releases} releases, {objects} objects, {}", bytes(checked.bytes))
        } else {
            String::new()
        }
    });
    say_what_is_wrong(&checked)
}

/// Reads the manifests of what the college is owed.
fn owed(context: &Context, network: &Network, obligations: &Obligations) -> Result<Owed, Failure> {
    let mut owed = Owed::default();
    for entry in obligations.musts().map(|obligation| &obligation.entry) {
        let label = format!("{} {}", entry.listing.name, entry.listing.version);
        owed.releases += 1;
        let Some(manifest) = context.site.served().manifest(entry)? else {
            owed.wrong.push(Wrong {
                path: entry.path.to_string(),
                object: None,
                what: "is missing or wrong".to_owned(),
                needed_by: vec![label],
            });
            continue;
        };
        let release = check_approval(&manifest, entry, &network.packagers)
            .or_fail(|| format!("`{label}` does not verify"))?;
        for (digest, object) in release.objects() {
            owed.sizes.insert(digest, object.size);
            owed.needed_by.entry(digest).or_default().insert(label.clone());
        }
    }
    if !owed.wrong.is_empty() {
        leave_doubt(&context.site.path(""));
    }
    Ok(owed)
}

fn read_through(store: &ObjectStore, sizes: &BTreeMap<Digest, u64>) -> Result<Report, Failure> {
    let what = || "cannot read the objects".to_owned();
    let bar = Bar::bytes("reading objects", fsck::bytes_to_read(store).or_fail(what)?);
    let report = fsck::check(store, sizes, &|bytes| bar.advance(bytes)).or_fail(what)?;
    bar.finish();
    Ok(report)
}

/// The doubt first: killed in between, the next sync looks at the files.
fn set_aside(context: &Context, findings: &[Finding]) -> Result<(), Failure> {
    leave_doubt(&context.site.path(""));
    let quarantine = context.site.path("quarantine");
    for finding in findings.iter().filter(|finding| !matches!(finding.fault, Fault::Missing)) {
        finding
            .set_aside(&quarantine)
            .or_fail(|| format!("cannot set `{}` aside", finding.path.display()))?;
    }
    Ok(())
}

/// Bytes of what was being written by somebody who is no more; nobody writes while we may sweep.
fn left_over(store: &ObjectStore, incoming: &Path, remove: bool) -> std::io::Result<Option<u64>> {
    let Some(_sweep) = Sweep::begin(store)? else { return Ok(None) };
    let mut bytes = 0;
    if fs::exists(incoming)? {
        for entry in fs::read_dir(incoming)? {
            let entry = entry?;
            bytes += entry.metadata()?.len();
            if remove {
                durable::remove_file(&entry.path())?;
            }
        }
    }
    Ok(Some(bytes))
}

fn say_what_is_wrong(checked: &Checked) -> Result<(), Failure> {
    if checked.wrong.is_empty() {
        return Ok(());
    }
    let lines = checked.wrong.iter().map(|wrong| {
        let needed_by = if wrong.needed_by.is_empty() {
            String::new()
        } else {
            format!(" ({})", wrong.needed_by.join(", "))
        };
        format!("\n  `{}` {}{needed_by}", wrong.path, wrong.what)
    });
    let count = checked.wrong.len();
    let failure =
        Failure::no(format!("{count} of what is held is wrong or missing:{}", lines.collect::<String>()));
    Err(failure.hint(if checked.repaired {
        "it was set aside; the next sync fetches it again"
    } else {
        "`mirabelle-node fsck --repair` sets it aside, to be fetched again"
    }))
}
