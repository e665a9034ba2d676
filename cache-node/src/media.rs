//! Pictures and pages of the store: small files that approved listings name by their digests.
//!
//! ```text
//! <root>/served/media/<sha256>      GET /media/<sha256>
//! listing ─▶ icon, page;  page ─▶ screenshots
//! ```
//!
//! Those of what the college may have are fetched before its catalogue is served, those of other approved releases when somebody asks. An
//! icon is not worth a catalogue: what no upstream gives is said in the log, and the college goes on without it.
//!
//! Each is compared with its digest whenever it is read: one that the disk changed is fetched again, so nothing else has to look after them. What no
//! listing names any more goes after the next flip.
//!
//! Threats and the defence for each:
//! - *Asking for much that nobody approved*: only digests that a listing, or an approved page, names are looked for upstream.
//! - *An upstream that sends something else, or without end*: length and digest are known before.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use fs_err as fs;
use hyper::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use mirabelle_content::durable;
use mirabelle_manifests::network::media_path;
use mirabelle_manifests::{
    CatalogueEntry, Digest, Instant, MAX_PAGE_BYTES, MAX_SCREENSHOT_BYTES, MediaKind, StorePage,
};
use mirabelle_transfer::flight::{Cause, FlightError, Flights};
use mirabelle_transfer::serve::{Body, body, problem};
use mirabelle_transfer::{Network, Priority};
use tokio::sync::watch;
use tokio::task::{block_in_place, spawn_blocking};

use crate::mirror::{Current, Upstreams};
use crate::site::Site;

/// The store's files.
pub(crate) struct Media {
    site: Site,
    upstreams: Arc<Upstreams>,
    served: watch::Receiver<Current>,
    flights: Flights<Digest, ()>,
    named: Mutex<Option<(Arc<Network>, Arc<Named>)>>,
}

/// Digests that are named, and the length of each.
type Named = BTreeMap<Digest, u64>;

impl Media {
    /// Its transfers run where this is called.
    pub(crate) fn new(site: &Site, upstreams: Arc<Upstreams>, served: watch::Receiver<Current>) -> Arc<Self> {
        let flights = Flights::here();
        Arc::new(Self { site: site.clone(), upstreams, served, flights, named: Mutex::default() })
    }

    /// A file of the store; `None` if nothing that is approved names it.
    pub(crate) async fn read(self: &Arc<Self>, digest: Digest) -> Result<Option<Vec<u8>>, FlightError> {
        if let Some(bytes) = self.kept(digest).await {
            return Ok(Some(bytes));
        }
        let Some(size) = self.size_of(digest).await else { return Ok(None) };
        let this = self.clone();
        let mut flight = self.flights.join(digest, move |_| async move {
            if this.kept(digest).await.is_some() {
                return Ok(());
            }
            fetch(&this.site, &this.upstreams, digest, size, Priority::Waiting).await?;
            // A page may name pictures.
            *this.named.lock().unwrap_or_else(PoisonError::into_inner) = None;
            Ok(())
        });
        flight.landed().await?;
        Ok(self.kept(digest).await)
    }

    /// The answer to whoever asks for one.
    pub(crate) async fn answer(self: &Arc<Self>, digest: Digest) -> Result<Response<Body>, FlightError> {
        let Some(bytes) = self.read(digest).await? else {
            return Ok(problem(StatusCode::NOT_FOUND, "there is no such file here"));
        };
        let kind = MediaKind::recognise(&bytes).map_or("application/json", MediaKind::mime);
        let mut response = Response::new(body(bytes));
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=31536000, immutable"));
        // Opened by itself in a browser, a picture is a picture.
        headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; sandbox"));
        Ok(response)
    }

    async fn kept(&self, digest: Digest) -> Option<Vec<u8>> {
        let site = self.site.clone();
        spawn_blocking(move || kept(&site, digest)).await.ok().flatten()
    }

    async fn size_of(&self, digest: Digest) -> Option<u64> {
        // A node that has just started is waited for until it has read what it serves.
        let mut served = self.served.clone();
        let network = served.wait_for(|current| !matches!(current, Current::Unread)).await.ok()?.network()?;
        let known = self.named.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((_, named)) = known.filter(|(of, _)| Arc::ptr_eq(of, &network)) {
            return named.get(&digest).copied();
        }
        let (site, of) = (self.site.clone(), network.clone());
        let named = Arc::new(spawn_blocking(move || named(&site, of.catalogue.iter())).await.ok()?);
        *self.named.lock().unwrap_or_else(PoisonError::into_inner) = Some((network, named.clone()));
        named.get(&digest).copied()
    }
}

/// Sees to it that the files of these listings are here, pages before what they name; says whether all of them are.
pub(crate) async fn hold(site: &Site, upstreams: &Upstreams, entries: &[&CatalogueEntry]) -> bool {
    let mut missed = BTreeSet::new();
    // Once for icons and pages, and once more for what the pages name.
    for _ in 0..2 {
        let lacking = block_in_place(|| {
            let mut named = named(site, entries.iter().copied());
            named.retain(|digest, _| {
                !missed.contains(digest) && !site.served().path(&media_path(*digest)).exists()
            });
            named
        });
        for (digest, size) in lacking {
            if let Err(error) = fetch(site, upstreams, digest, size, Priority::Available).await {
                if missed.is_empty() {
                    tracing::warn!(%digest, %error, "a picture or page of the store is not to be had, and is left out");
                }
                missed.insert(digest);
            }
        }
    }
    missed.is_empty()
}

/// Removes what none of these listings names, and is no longer young: somebody may be about to need it.
pub(crate) fn sweep<'a>(
    site: &Site,
    entries: impl Iterator<Item = &'a CatalogueEntry>,
    before: Instant,
) -> io::Result<()> {
    let directory = directory(site);
    if !directory.exists() {
        return Ok(());
    }
    let named = named(site, entries);
    for file in fs::read_dir(&directory)? {
        let file = file?;
        let is_named = file
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
            .is_some_and(|digest| named.contains_key(&digest));
        let modified = file.metadata()?.modified().ok().and_then(|at| Instant::try_from(at).ok());
        if !is_named && modified.is_none_or(|modified| modified < before) {
            durable::remove_file(&file.path())?;
        }
    }
    Ok(())
}

fn directory(site: &Site) -> PathBuf {
    site.served().path("media")
}

fn kept(site: &Site, digest: Digest) -> Option<Vec<u8>> {
    let path = site.served().path(&media_path(digest));
    let bytes = durable::read_if_present(&path, MAX_SCREENSHOT_BYTES).ok()??;
    if Digest::of(&bytes) != digest {
        tracing::error!(%digest, "the disk changed a file of the store, and it is fetched again");
        let _ = durable::remove_file(&path);
        return None;
    }
    Some(bytes)
}

/// What these listings name, and what those of their pages name that are here.
fn named<'a>(site: &Site, entries: impl Iterator<Item = &'a CatalogueEntry>) -> Named {
    let mut named = Named::new();
    for showcase in entries.filter_map(|entry| entry.listing.showcase.as_ref()) {
        named.extend(showcase.icon.map(|icon| (icon.sha256, icon.size)));
        let Some(page) = showcase.page.filter(|page| page.size <= MAX_PAGE_BYTES) else { continue };
        named.insert(page.sha256, page.size);
        let page = kept(site, page.sha256).and_then(|bytes| StorePage::parse(&bytes).ok());
        let images = page
            .into_iter()
            .flat_map(|page| page.screenshots)
            .map(|shot| (shot.image.sha256, shot.image.size));
        named.extend(images);
    }
    named
}

/// Fetches a file from the first upstream that has it.
async fn fetch(
    site: &Site,
    upstreams: &Upstreams,
    digest: Digest,
    size: u64,
    priority: Priority,
) -> Result<(), Cause> {
    let mut failure: Cause = "there is no upstream to ask".into();
    for upstream in upstreams.in_order(Instant::now()) {
        match upstream.at(priority).bytes(&media_path(digest), size).await {
            Ok(bytes) if Digest::of(&bytes) == digest => {
                let path = site.served().path(&media_path(digest));
                let keeping = spawn_blocking(move || durable::write_atomically(&path, &bytes));
                return Ok(keeping.await??);
            }
            Ok(_) => failure = format!("{} gives another file than was approved", upstream.upstream()).into(),
            Err(error) => failure = error.into(),
        }
    }
    Err(failure)
}
