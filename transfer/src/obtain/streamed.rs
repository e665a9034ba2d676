//! One large object, read by whoever waits for it while it arrives.
//!
//! ```text
//! upstream ─▶ partial download (as it is encoded) ─▶ Tail ─▶ decoder ─▶ plain file that grows ─▶ readers
//!             goes on at the byte, from the next upstream if this one fails
//! ```
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

use std::io::{self, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use fs_err as fs;
use mirabelle_content::bundle::{BundleError, copy_object};
use mirabelle_content::{ObjectError, ObjectStore, copy_verified};
use mirabelle_manifests::network::{bundle_path, object_path};
use mirabelle_manifests::{ApprovedRelease, Digest};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::spawn_blocking;

use super::{ObtainError, package_of, routes_of};
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
}

/// Where the object's bytes come from.
#[derive(Clone)]
enum Wire {
    /// A frame of the bundle.
    Frame { partial: Partial, start: u64, length: u64 },
    /// The object itself, compressed or not.
    Object(ObjectPartials),
}

impl Streamed {
    /// Gets the object into `store`, from the first of `upstreams` that can give it, and lets `source` follow.
    pub async fn fetch(
        &self,
        upstreams: &[Fetcher],
        store: &ObjectStore,
        partials: &Path,
        source: &Source<u64>,
    ) -> Result<(), ObtainError> {
        let (file, path) = store.growing()?;
        source.begin(self.size, fs::File::open(&path)?);
        let file = Arc::new(file);
        let mut failure = None;
        for upstream in upstreams {
            match self.fetch_from(upstream, partials, &file, source).await {
                Ok(()) => {
                    let (store, Self { object, size, .. }) = (store.clone(), self.clone());
                    let committing = spawn_blocking(move || {
                        let mut batch = store.batch();
                        batch.adopt(&path, object, size)?;
                        batch.commit().map_err(ObjectError::Store)
                    });
                    return committing.await?.map_err(|source| self.refused(upstream, source));
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

    async fn fetch_from(
        &self,
        upstream: &Fetcher,
        partials: &Path,
        file: &Arc<fs::File>,
        source: &Source<u64>,
    ) -> Result<(), ObtainError> {
        let routes = routes_of(upstream, self.release.digest()).await?;
        let wire = match self.frame().filter(|_| routes.bundle && !routes.objects) {
            Some((start, length)) => {
                let name = format!("{}-at-{start}", self.release.bundle.sha256);
                let partial = Partial::new(partials, &name);
                // Whoever the first half came from: the bundle's name says what is in it.
                partial.forget_entity()?;
                Wire::Frame { partial, start, length }
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
        let mut done = self.follow(upstream, &wire, file, source).await;
        if resumed && matches!(&done, Err(error) if error.is_tampering()) {
            // What an earlier process left may have suffered in a power cut.
            wire.discard()?;
            done = self.follow(upstream, &wire, file, source).await;
        }
        match &done {
            Ok(()) => wire.discard()?,
            Err(error) if error.is_tampering() => wire.discard()?,
            Err(_) => {}
        }
        done
    }

    /// Receives and decodes at once.
    async fn follow(
        &self,
        upstream: &Fetcher,
        wire: &Wire,
        file: &Arc<fs::File>,
        source: &Source<u64>,
    ) -> Result<(), ObtainError> {
        let (growing, growth) = watch::channel(Growth { reached: wire.length(), ..Growth::default() });
        let growing = Arc::new(growing);
        let decoding = {
            let (this, wire, runtime) = (self.clone(), wire.clone(), Handle::current());
            let to = Growing { file: file.clone(), at: 0, size: self.size, tell: Box::new(source.progress()) };
            spawn_blocking(move || this.decode(&wire, &growth, &runtime, to))
        };
        let received = self.receive(upstream, wire.followed(&growing)).await;
        growing.send_modify(|growth| growth.ended = true);
        let decoded = decoding.await?;
        // Without all of the bytes, that they do not decode says nothing.
        received?;
        decoded.map_err(|fault| match fault {
            Fault::Frame(BundleError::Io(error)) => ObtainError::Disk(error),
            Fault::Frame(source) => ObtainError::Bundle {
                upstream: upstream.upstream().to_string(),
                package: package_of(&self.release),
                source,
            },
            Fault::Object(source) => self.refused(upstream, source),
        })?;
        source.reached(self.size);
        Ok(())
    }

    async fn receive(&self, upstream: &Fetcher, wire: Wire) -> Result<(), FetchError> {
        match wire {
            Wire::Frame { partial, start, length } => {
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
    fn decode(
        &self,
        wire: &Wire,
        growth: &watch::Receiver<Growth>,
        runtime: &Handle,
        mut to: Growing,
    ) -> Result<(), Fault> {
        loop {
            let mut arriving = growth.clone();
            let begun = runtime.block_on(arriving.wait_for(|growth| growth.reached > 0 || growth.ended));
            if begun.is_err() {
                return Err(Fault::Object(ObjectError::Store(io::ErrorKind::UnexpectedEof.into())));
            }
            to.at = 0;
            let tail = |partial: &Partial| {
                let file = fs::File::open(partial.path()).map_err(ObjectError::Store)?;
                Ok::<_, ObjectError>(Tail::new(file, growth.clone(), runtime.clone()))
            };
            let (object, size) = (self.object, self.size);
            let (done, begun_anew) = match wire {
                Wire::Frame { partial, .. } => {
                    let mut tail = tail(partial).map_err(Fault::Object)?;
                    let reader = BufReader::with_capacity(READ_BYTES, &mut tail);
                    let done = copy_object(reader, &self.release, object, &mut to).map_err(Fault::Frame);
                    (done, tail.begun_anew())
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
                return done;
            }
        }
    }

    /// Where in the bundle the object's frame is, and how long it is.
    fn frame(&self) -> Option<(u64, u64)> {
        let number = usize::try_from(self.release.objects().get(&self.object)?.frame).ok()?;
        let frames = &self.release.bundle.frames;
        let start = frames.get(..number)?.iter().map(|frame| frame.size).sum();
        Some((start, frames.get(number)?.size))
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
            Self::Frame { partial, start, length } => {
                Self::Frame { partial: partial.followed(growing), start, length }
            }
            Self::Object(ObjectPartials { plain, encoded }) => Self::Object(ObjectPartials {
                plain: plain.followed(growing),
                encoded: encoded.followed(growing),
            }),
        }
    }
}

/// The plain file: says how far it has come, but for the last byte.
struct Growing {
    file: Arc<fs::File>,
    at: u64,
    size: u64,
    tell: Box<dyn Fn(u64) + Send>,
}

impl Write for Growing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.file().write_all_at(bytes, self.at)?;
        self.at += bytes.len() as u64;
        (self.tell)(self.at.min(self.size.saturating_sub(1)));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
