//! A frame's objects, of which the largest is read by whoever waits for it while it arrives.
//!
//! ```text
//! upstream ─▶ partial download (as it is encoded) ─▶ Tail ─▶ decoder ─▶ plain file that grows ─▶ readers
//!             goes on at the byte, from the next upstream if this one fails
//! ```
//!
//! What shares the object's frame of the bundle comes with it, since it crosses the link anyway (promise 5).
//!
//! Once all of it is here and has its digest, it goes into the store. The last byte is given to nobody before that: readers of an
//! object that turns out wrong break off, and none ends as if it had the whole.
//!
//! A crash: the partial download stays, and the next request goes on with it.
//!
//! Threats and the defence for each:
//! - *An upstream that sends something else*: nobody is given its last byte, the next upstream is asked from the first byte, and
//!   readers check the digest as ever.
//! - *Two upstreams whose compressed forms differ*: only files that are exact to the byte by their name go on from another
//!   upstream; a compressed object begins anew, and what readers have already is written over with the same bytes.

use std::collections::BTreeMap;
use std::io::{self, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use fs_err as fs;
use mirabelle_content::bundle::{BundleError, read_frame_while};
use mirabelle_content::{Batch, ObjectError, ObjectStore, copy_verified};
use mirabelle_manifests::network::{bundle_path, object_path};
use mirabelle_manifests::{ApprovedRelease, Digest};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::spawn_blocking;

use super::{ObtainError, ObtainPlan, package_of, routes_of};
use crate::encoding::unzstd;
use crate::fetch::{FetchError, Fetcher, ObjectPartials};
use crate::flight::{Growth, Source, Tail};
use crate::partial::Partial;

/// Bytes read from a partial download at a time.
const READ_BYTES: usize = 128 << 10;

/// One object of a release that is to be had while others read it.
#[derive(Clone, Debug)]
pub struct Streamed {
    /// The release, which both bodies stand behind.
    pub release: Arc<ApprovedRelease>,
    /// The object.
    pub object: Digest,
    /// Its bytes.
    pub size: u64,
    /// Others of the same frame that are missing, with their sizes.
    pub others: BTreeMap<Digest, u64>,
}

/// Where the object's bytes come from.
#[derive(Clone)]
enum Wire {
    /// A frame of the bundle.
    Frame { partial: Partial, number: u32, start: u64, length: u64 },
    /// The object itself, compressed or not.
    Object(ObjectPartials),
}

impl Streamed {
    /// Gets the object from the first of `upstreams` that can give it, lets `source` follow, of which it says `head`, and takes it into `store`; where it
    /// only `passes`, it is gone once the last one who reads it is.
    pub async fn fetch<H: Send + Sync + 'static>(
        &self,
        upstreams: &[Fetcher],
        store: &ObjectStore,
        partials: &Path,
        source: &Source<H>,
        head: H,
        passes: bool,
    ) -> Result<(), ObtainError> {
        let (file, path) = store.growing()?;
        source.begin(head, fs::File::open(&path)?);
        let file = Arc::new(file);
        let mut failure = None;
        for upstream in upstreams {
            match self.fetch_from(upstream, store, partials, &file, source).await {
                Ok(_) if passes => return Ok(()),
                Ok(mut batch) => {
                    let Self { object, size, .. } = *self;
                    let committing = spawn_blocking(move || {
                        batch.adopt(&path, object, size)?;
                        batch.commit().map_err(ObjectError::Store)
                    });
                    committing.await?.map_err(|source| self.refused(upstream, source))?;
                    // From a server that gives objects one by one. Whoever wants one of them asks again if it did not come.
                    let rest = async {
                        let rest = self.others.clone();
                        let rest = ObtainPlan::of(upstream, self.release.clone(), rest, store).await?;
                        rest.execute(upstream, store, partials).await
                    };
                    if let Err(error) = rest.await {
                        tracing::warn!(%error, upstream = %upstream.upstream(), "an object's neighbours did not come");
                    }
                    return Ok(());
                }
                Err(error @ (ObtainError::Disk(_) | ObtainError::Task(_))) => return Err(error),
                Err(error) => {
                    tracing::warn!(%error, upstream = %upstream.upstream(), object = %self.object,
                        "an upstream failed in the middle of an object");
                    failure.get_or_insert(error);
                }
            }
        }
        Err(failure.unwrap_or_else(|| ObtainError::NoRoute {
            upstream: "no upstream".to_owned(),
            package: package_of(&self.release),
        }))
    }

    async fn fetch_from<H: Send + Sync + 'static>(
        &self,
        upstream: &Fetcher,
        store: &ObjectStore,
        partials: &Path,
        file: &Arc<fs::File>,
        source: &Source<H>,
    ) -> Result<Batch, ObtainError> {
        let routes = routes_of(upstream, self.release.digest()).await?;
        let wire = match self.frame().filter(|_| routes.bundle && !routes.objects) {
            Some((number, start, length)) => {
                let name = format!("{}-at-{start}", self.release.bundle.sha256);
                let partial = Partial::new(partials, &name);
                // Whoever the first half came from: the bundle's name says what is in it.
                partial.forget_entity()?;
                Wire::Frame { partial, number, start, length }
            }
            None if routes.objects => {
                Wire::Object(ObjectPartials::new(partials, &format!("{}-streamed", self.object)))
            }
            None => {
                let upstream = upstream.upstream().to_string();
                return Err(ObtainError::NoRoute { upstream, package: package_of(&self.release) });
            }
        };
        let resumed = wire.length() > 0;
        let mut done = self.follow(upstream, &wire, store, file, source).await;
        if resumed && matches!(&done, Err(error) if error.is_tampering()) {
            // What an earlier process left may have suffered in a power cut.
            wire.discard()?;
            done = self.follow(upstream, &wire, store, file, source).await;
        }
        match &done {
            Ok(_) => wire.discard()?,
            Err(error) if error.is_tampering() => wire.discard()?,
            Err(_) => {}
        }
        done
    }

    /// Receives and decodes at once.
    async fn follow<H: Send + Sync + 'static>(
        &self,
        upstream: &Fetcher,
        wire: &Wire,
        store: &ObjectStore,
        file: &Arc<fs::File>,
        source: &Source<H>,
    ) -> Result<Batch, ObtainError> {
        let (growing, growth) = watch::channel(Growth { reached: wire.length(), ..Growth::default() });
        let growing = Arc::new(growing);
        let decoding = {
            let (this, wire, runtime) = (self.clone(), wire.clone(), Handle::current());
            let to = Growing { file: file.clone(), at: 0, size: self.size, source: source.clone() };
            let store = store.clone();
            spawn_blocking(move || this.decode(&wire, &store, &growth, &runtime, to))
        };
        let mut decoding = std::pin::pin!(decoding);
        let (received, decoded) = tokio::select! {
            received = self.receive(upstream, wire.followed(&growing)) => {
                growing.send_modify(|growth| growth.ended = true);
                (received, decoding.await?)
            }
            // What is wrong from its start on need not come to its end; what is right ends with the last byte.
            decoded = &mut decoding => (Ok(()), decoded?),
        };
        // Without all of the bytes, that they do not decode says nothing.
        received?;
        let batch = decoded.map_err(|fault| match fault {
            Fault::Frame(BundleError::Io(error)) => ObtainError::Disk(error),
            Fault::Frame(source) => ObtainError::Bundle {
                upstream: upstream.upstream().to_string(),
                package: package_of(&self.release),
                source,
            },
            Fault::Object(source) => self.refused(upstream, source),
        })?;
        source.reached(self.size);
        Ok(batch)
    }

    async fn receive(&self, upstream: &Fetcher, wire: Wire) -> Result<(), FetchError> {
        match wire {
            Wire::Frame { partial, start, length, .. } => {
                let bundle = &self.release.bundle;
                let path = bundle_path(bundle.sha256);
                upstream.range(&path, start..start + length, bundle.size, &partial).await
            }
            Wire::Object(partials) => {
                upstream.object(&object_path(self.object), self.size, &partials).await.map(|_| ())
            }
        }
    }

    /// Decodes what arrives; from the start when it begins anew.
    fn decode<H: Send + Sync + 'static>(
        &self,
        wire: &Wire,
        store: &ObjectStore,
        growth: &watch::Receiver<Growth>,
        runtime: &Handle,
        mut to: Growing<H>,
    ) -> Result<Batch, Fault> {
        loop {
            let mut batch = store.batch();
            let mut arriving = growth.clone();
            // What it returns keeps the writer waiting until it is dropped.
            let begun =
                runtime.block_on(arriving.wait_for(|growth| growth.reached > 0 || growth.ended)).is_ok();
            if !begun {
                return Err(Fault::Object(ObjectError::Store(io::ErrorKind::UnexpectedEof.into())));
            }
            to.at = 0;
            let tail = |partial: &Partial| {
                Tail::open(partial.path(), growth.clone(), runtime.clone()).map_err(ObjectError::Store)
            };
            let (object, size) = (self.object, self.size);
            let (done, begun_anew) = match wire {
                Wire::Frame { partial, number, .. } => {
                    let mut tail = tail(partial).map_err(Fault::Object)?;
                    let reader = BufReader::with_capacity(READ_BYTES, &mut tail);
                    let mut wanted = self.others.clone();
                    wanted.insert(object, size);
                    let streamed: (Digest, &mut dyn Write) = (object, &mut to);
                    let done = read_frame_while(reader, &self.release, *number, wanted, &mut batch, streamed);
                    (done.map_err(Fault::Frame), tail.begun_anew())
                }
                Wire::Object(partials) if partials.encoded.length() > 0 => {
                    let mut tail = tail(&partials.encoded).map_err(Fault::Object)?;
                    let reader = unzstd(BufReader::with_capacity(READ_BYTES, &mut tail));
                    let done = reader
                        .map_err(|source| ObjectError::Source { object, source })
                        .and_then(|mut plain| copy_verified(&mut plain, &mut to, object, size));
                    (done.map_err(Fault::Object), tail.begun_anew())
                }
                Wire::Object(partials) => {
                    let mut tail = tail(&partials.plain).map_err(Fault::Object)?;
                    let done = copy_verified(&mut tail, &mut to, object, size).map_err(Fault::Object);
                    (done, tail.begun_anew())
                }
            };
            if !begun_anew {
                return done.map(|()| batch);
            }
        }
    }

    /// The object's frame: its number, where in the bundle it is, and how long.
    fn frame(&self) -> Option<(u32, u64, u64)> {
        let number = self.release.objects().get(&self.object)?.frame;
        let (frames, at) = (&self.release.bundle.frames, usize::try_from(number).ok()?);
        let start = frames.get(..at)?.iter().map(|frame| frame.size).sum();
        Some((number, start, frames.get(at)?.size))
    }

    fn refused(&self, upstream: &Fetcher, source: ObjectError) -> ObtainError {
        match source {
            ObjectError::Store(error) => ObtainError::Disk(error),
            source => ObtainError::Object {
                upstream: upstream.upstream().to_string(),
                package: package_of(&self.release),
                source,
            },
        }
    }
}

/// What is wrong with what arrived.
enum Fault {
    Frame(BundleError),
    Object(ObjectError),
}

impl Wire {
    fn length(&self) -> u64 {
        match self {
            Self::Frame { partial, .. } => partial.length(),
            Self::Object(partials) => partials.length(),
        }
    }

    fn discard(&self) -> io::Result<()> {
        match self {
            Self::Frame { partial, .. } => partial.discard(),
            Self::Object(partials) => partials.discard(),
        }
    }

    fn followed(&self, growing: &Arc<watch::Sender<Growth>>) -> Self {
        match self.clone() {
            Self::Frame { partial, number, start, length } => {
                Self::Frame { partial: partial.followed(growing), number, start, length }
            }
            Self::Object(ObjectPartials { plain, encoded }) => Self::Object(ObjectPartials {
                plain: plain.followed(growing),
                encoded: encoded.followed(growing),
            }),
        }
    }
}

/// The plain file: says how far it has come, but for the last byte. Where something else was written before, by what another
/// upstream sent, whoever has read that is told.
struct Growing<H> {
    file: Arc<fs::File>,
    at: u64,
    size: u64,
    source: Source<H>,
}

impl<H: Send + Sync> Write for Growing<H> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let file = self.file.file();
        let told = usize::try_from(self.source.told().saturating_sub(self.at)).unwrap_or(usize::MAX);
        let mut given = vec![0; told.min(bytes.len())];
        file.read_exact_at(&mut given, self.at)?;
        if given != bytes[..given.len()] {
            self.source.begin_anew();
        }
        file.write_all_at(bytes, self.at)?;
        self.at += bytes.len() as u64;
        self.source.reached(self.at.min(self.size.saturating_sub(1)));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
