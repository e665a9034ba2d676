//! `verify`: everything that is published, checked as a workstation would and down to the last object.
//!
//! The published tree is served on loopback and refreshed from into an empty store: the very code that nodes and
//! workstations run, beginning at root version 1. Then every release is checked for both bodies, its SBOM for its
//! digest, every bundle read through, and every delta compared with what the routes say of it.

use std::net::Ipv4Addr;
use std::path::Path;

use fs_err as fs;
use mirabelle_content::bundle::verify_bundle;
use mirabelle_content::{digest, durable};
use mirabelle_manifests::network::{bundle_path, delta_path, metadata_path, routes_path, sbom_path};
use mirabelle_manifests::tuf::RoleName;
use mirabelle_manifests::{Digest, MAX_ROUTES_BYTES, Routes};
use mirabelle_terminal::{Bar, Failure, OrFail};
use mirabelle_transfer::{Fetcher, MetadataStore, RetryPolicy, fetch_release, refresh};
use serde::Serialize;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::Context;
use crate::storefront::read_files;
use crate::submission::checked_sbom;

#[derive(Serialize)]
struct Verified {
    releases: usize,
    bundle_bytes: u64,
    sboms: usize,
    /// Pictures and pages of the store.
    media: usize,
    deltas: usize,
    assignments: usize,
}

pub(super) async fn run(context: &Context) -> Result<(), Failure> {
    let repository = context.repository()?;
    let public = repository.public();
    let what = || format!("`{}` does not verify", public.display());
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.or_fail(what)?;
    let address = listener.local_addr().or_fail(what)?;
    let stop = CancellationToken::new();
    let server = tokio::spawn(super::serve::serve(listener, public.clone(), None, None, stop.clone()));

    let store = tempfile::tempdir().or_fail(what)?;
    let first_root = public.join(metadata_path(&RoleName::root(), Some(1)));
    let store = MetadataStore::new(store.path());
    store.trust(&fs::read(&first_root).or_fail(what)?).or_fail(what)?;
    let upstream = format!("http://{address}/")
        .parse()
        .map_err(|_| Failure::usage(format!("cannot serve `{}` on {address}", public.display())))?;
    let fetcher = Fetcher::new(upstream, RetryPolicy::default()).or_fail(what)?;
    let network = refresh(&fetcher, &store, context.now).await.or_fail(what)?;

    let assignments = network.deployment.assignments.len();
    let mut verified = Verified { releases: 0, bundle_bytes: 0, sboms: 0, media: 0, deltas: 0, assignments };
    for entry in network.catalogue.iter() {
        let label = format!("{} {}", entry.listing.name, entry.listing.version);
        let (release, _) = fetch_release(&fetcher, &network, entry, None)
            .await
            .or_fail(|| format!("`{label}` does not verify"))?;
        if let Some(expected) = release.sbom {
            checked_sbom(&public.join(sbom_path(expected.sha256)), expected)?;
            verified.sboms += 1;
        }
        verified.media += read_files(release.showcase.as_ref(), &public.join("media"))?.len();
        verified.deltas += check_deltas(&public, entry.digest)?;
        let path = public.join(bundle_path(release.bundle.sha256));
        let bar = Bar::bytes(&label, release.bundle.size);
        let checking = bar.clone();
        let size = release.bundle.size;
        let result = tokio::task::spawn_blocking(move || {
            let bundle = fs::File::open(&path)?;
            verify_bundle(bundle, &release, &mut |bytes| checking.advance(bytes))
        });
        result.await.or_fail(what)?.or_fail(|| format!("the bundle of `{label}` does not verify"))?;
        bar.finish();
        verified.releases += 1;
        verified.bundle_bytes += size;
    }
    if let Some((assignment, _)) = network.deployment.not_approved(&network.catalogue, context.now).next() {
        let label = format!("{}, {}", assignment.package, assignment.track);
        return Err(Failure::trust(format!("`{label}` is deployed, but not approved")));
    }
    stop.cancel();
    server.await.or_fail(what)?;
    context.output.print(&verified, |verified| {
        format!(
            "all is well: {} releases with {} of bundles, {} SBOMs, {} files of the store and {} deltas, {} assignments",
            verified.releases,
            mirabelle_terminal::bytes(verified.bundle_bytes),
            verified.sboms,
            verified.media,
            verified.deltas,
            verified.assignments
        )
    });
    Ok(())
}

/// Compares the deltas to a release with its routes; returns how many there are. That each decodes was seen when it was
/// made.
fn check_deltas(public: &Path, release: Digest) -> Result<usize, Failure> {
    let routes = public.join(routes_path(release));
    let what = || format!("cannot read `{}`", routes.display());
    let bytes = durable::read_if_present(&routes, MAX_ROUTES_BYTES).or_fail(what)?.unwrap_or_default();
    let offers = Routes::read(&bytes).deltas;
    for offer in &offers {
        let path = public.join(delta_path(release, offer.from));
        let what = || format!("cannot read `{}`", path.display());
        if digest(&mut fs::File::open(&path).or_fail(what)?).or_fail(what)? != (offer.sha256, offer.size) {
            return Err(Failure::no(format!("`{}` is not what the routes say", path.display()))
                .hint("delete it; `deltas` makes it anew, and until then machines take another way"));
        }
    }
    Ok(offers.len())
}
