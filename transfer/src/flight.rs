//! One transfer, many readers: what is fetched once goes to everybody who waits for it, while it arrives (promise 5).
//!
//! ```text
//! upstream ──▶ transfer (one task) ──▶ a file that grows ──▶ reader, reader, reader …
//!                         reached(n) ─────────┘ each reads what is before n, and waits for more
//! ```
//!
//! Whoever asks first starts the transfer; it belongs to no reader and goes on when all of them have gone away. A reader who
//! comes late reads from the start, as fast as its own connection takes it. What is read was not checked yet, if the transfer
//! checks only at its end: a reader whose transfer fails breaks off, and never ends as if it had the whole.
//!
//! Between looking whether something is here and joining its flight, that flight may have landed: a transfer begins with
//! looking again.
//!
//! Locks: the map's, never across an await.

use std::collections::HashMap;
use std::future::Future;
use std::hash::Hash;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use fs_err as fs;
use futures_util::Stream;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::spawn_blocking;

/// Bytes that a reader is given at a time.
const PIECE_BYTES: u64 = 256 << 10;

/// Why a transfer failed.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

/// A transfer ended before it had everything.
#[derive(Clone, Debug, thiserror::Error)]
pub enum FlightError {
    /// It failed.
    #[error("the transfer failed")]
    Failed(#[source] Arc<dyn std::error::Error + Send + Sync>),
    /// Its task died.
    #[error("the transfer was broken off")]
    BrokenOff,
}

impl From<FlightError> for io::Error {
    fn from(error: FlightError) -> Self {
        Self::other(error)
    }
}

/// The transfers under way, by what they fetch; `H` is what is known of a body before its first byte.
#[derive(Debug)]
pub struct Flights<K, H> {
    under_way: Arc<Mutex<HashMap<K, Flight<H>>>>,
    /// Where they run: whoever asks may be gone before they land, with the runtime that served her.
    runtime: Handle,
}

/// A transfer, to be followed.
#[derive(Debug)]
pub struct Flight<H> {
    state: watch::Receiver<State<H>>,
}

impl<H> Clone for Flight<H> {
    fn clone(&self) -> Self {
        Self { state: self.state.clone() }
    }
}

/// Where a transfer puts what it receives.
#[derive(Debug)]
pub struct Source<H> {
    state: watch::Sender<State<H>>,
}

impl<H> Clone for Source<H> {
    fn clone(&self) -> Self {
        Self { state: self.state.clone() }
    }
}

#[derive(Debug)]
struct State<H> {
    body: Option<(Arc<H>, Arc<fs::File>)>,
    reached: u64,
    /// How often what had been given turned out to be wrong.
    begun: u64,
    ended: Option<Result<(), FlightError>>,
}

impl<K: Clone + Eq + Hash + Send + 'static, H: Send + Sync + 'static> Flights<K, H> {
    /// None yet; they will run where this is called.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub fn here() -> Self {
        Self { under_way: Arc::default(), runtime: Handle::current() }
    }

    /// Follows the transfer of `key`; starts it with `transfer` where there is none.
    pub fn join<F>(&self, key: K, transfer: impl FnOnce(Source<H>) -> F) -> Flight<H>
    where
        F: Future<Output = Result<(), Cause>> + Send + 'static,
    {
        let mut under_way = lock(&self.under_way);
        if let Some(flight) = under_way.get(&key) {
            return flight.clone();
        }
        let (sender, state) = watch::channel(State { body: None, reached: 0, begun: 0, ended: None });
        let flight = Flight { state };
        under_way.insert(key.clone(), flight.clone());
        let landing = Landing { under_way: self.under_way.clone(), key, state: sender.clone() };
        let transfer = transfer(Source { state: sender });
        self.runtime.spawn(async move {
            let ended = transfer.await.map_err(|cause| FlightError::Failed(Arc::from(cause)));
            landing.land(ended);
        });
        flight
    }

    /// How many there are.
    pub fn under_way(&self) -> usize {
        lock(&self.under_way).len()
    }
}

fn lock<K, H>(under_way: &Mutex<HashMap<K, Flight<H>>>) -> std::sync::MutexGuard<'_, HashMap<K, Flight<H>>> {
    // An insertion or a removal is whole before anything can panic.
    under_way.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Says how a transfer ended, also when its task died.
struct Landing<K: Eq + Hash, H> {
    under_way: Arc<Mutex<HashMap<K, Flight<H>>>>,
    key: K,
    state: watch::Sender<State<H>>,
}

impl<K: Eq + Hash, H> Landing<K, H> {
    fn land(self, ended: Result<(), FlightError>) {
        self.state.send_modify(|state| state.ended = Some(ended));
    }
}

impl<K: Eq + Hash, H> Drop for Landing<K, H> {
    fn drop(&mut self) {
        self.state.send_modify(|state| {
            state.ended.get_or_insert(Err(FlightError::BrokenOff));
        });
        lock(&self.under_way).remove(&self.key);
    }
}

impl<H> Source<H> {
    /// What comes, and the file that it is written to.
    pub fn begin(&self, head: H, file: fs::File) {
        self.state.send_modify(|state| state.body = Some((Arc::new(head), Arc::new(file))));
    }

    /// So many bytes of the file may be read; never fewer than before.
    pub fn reached(&self, bytes: u64) {
        advance(&self.state, bytes);
    }

    /// How far readers may read.
    pub fn told(&self) -> u64 {
        self.state.borrow().reached
    }

    /// What readers were given is not what is in the file now: those who took some of it break off, and nothing may be read until
    /// [`Source::reached`] says so again.
    pub fn begin_anew(&self) {
        self.state.send_modify(|state| (state.begun, state.reached) = (state.begun + 1, 0));
    }
}

fn advance<H>(state: &watch::Sender<State<H>>, bytes: u64) {
    state.send_if_modified(|state| {
        let further = bytes > state.reached;
        state.reached = state.reached.max(bytes);
        further
    });
}

impl<H> Flight<H> {
    /// What comes, once that is known; `None` when nothing had to come.
    ///
    /// # Errors
    /// When the transfer failed before.
    pub async fn head(&mut self) -> Result<Option<Arc<H>>, FlightError> {
        let known = self.state.wait_for(|state| state.body.is_some() || state.ended.is_some()).await;
        let state = known.map_err(|_| FlightError::BrokenOff)?;
        match (&state.body, &state.ended) {
            (Some((head, _)), _) => Ok(Some(head.clone())),
            (None, Some(Err(error))) => Err(error.clone()),
            (None, _) => Ok(None),
        }
    }

    /// Waits until everything is there.
    ///
    /// # Errors
    /// When the transfer failed.
    pub async fn landed(&mut self) -> Result<(), FlightError> {
        let ended = self.state.wait_for(|state| state.ended.is_some()).await;
        let state = ended.map_err(|_| FlightError::BrokenOff)?;
        state.ended.clone().unwrap_or(Err(FlightError::BrokenOff))
    }

    /// The bytes from `from` until `to`, or until the end where nobody knows the length, as they arrive.
    pub fn read(self, from: u64, to: Option<u64>) -> impl Stream<Item = io::Result<Bytes>> + Send
    where
        H: Send + Sync + 'static,
    {
        let begun = self.state.borrow().begun;
        futures_util::stream::try_unfold((self, from, begun), move |(mut flight, at, mut begun)| async move {
            if to.is_some_and(|to| at >= to) {
                return Ok(None);
            }
            if at == from {
                // Who has taken nothing yet may as well begin with what is there now.
                begun = flight.state.borrow().begun;
            }
            let Some((file, reached)) = flight.beyond(at, begun).await? else {
                return match to {
                    Some(_) => Err(io::Error::new(
                        io::ErrorKind::UnexpectedEof,
                        "the transfer ended before its length",
                    )),
                    None => Ok(None),
                };
            };
            let want = (reached.min(to.unwrap_or(u64::MAX)) - at).min(PIECE_BYTES);
            let piece =
                spawn_blocking(move || read_at(&file, at, want)).await.map_err(io::Error::other)??;
            let next = at + piece.len() as u64;
            Ok(Some((piece, (flight, next, begun))))
        })
    }

    /// Waits for bytes after `at`: the file, and how far it may be read; `None` where it ends there.
    async fn beyond(&mut self, at: u64, begun: u64) -> io::Result<Option<(Arc<fs::File>, u64)>> {
        let more =
            self.state.wait_for(|state| state.reached > at || state.ended.is_some() || state.begun != begun);
        let state = more.await.map_err(|_| FlightError::BrokenOff)?;
        if state.begun != begun {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "what was read turned out to be wrong"));
        }
        if let Some(Err(error)) = &state.ended {
            return Err(error.clone().into());
        }
        Ok(state.body.as_ref().filter(|_| state.reached > at).map(|(_, file)| (file.clone(), state.reached)))
    }
}

fn read_at(file: &fs::File, at: u64, want: u64) -> io::Result<Bytes> {
    let mut piece = vec![0; usize::try_from(want).unwrap_or(0)];
    file.file().read_exact_at(&mut piece, at)?;
    Ok(piece.into())
}

/// A file that another task is writing, read from its start on a thread that may block: whoever decodes what arrives.
///
/// When its writer begins from the first byte again, reading ends in an error, and [`Tail::begun_anew`] says so.
#[derive(Debug)]
pub(crate) struct Tail {
    file: fs::File,
    at: u64,
    growth: watch::Receiver<Growth>,
    /// The beginning that is read.
    begun: u64,
    runtime: Handle,
}

/// How far a file has grown.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Growth {
    /// Bytes that are there.
    pub(crate) reached: u64,
    /// How often its writer began from the first byte.
    pub(crate) begun: u64,
    /// Nothing more comes.
    pub(crate) ended: bool,
}

impl Tail {
    /// Opens and reads the file at `path` from its start, as `growth` says that it grows.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub(crate) fn open(path: &Path, growth: watch::Receiver<Growth>, runtime: Handle) -> io::Result<Self> {
        // Before it is opened: a file that is made anew in between is noticed.
        let begun = growth.borrow().begun;
        Ok(Self { file: fs::File::open(path)?, at: 0, growth, begun, runtime })
    }

    /// True when the writer began from the first byte again.
    pub(crate) fn begun_anew(&self) -> bool {
        self.growth.borrow().begun != self.begun
    }
}

impl Read for Tail {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let (at, begun) = (self.at, self.begun);
        loop {
            let more =
                self.growth.wait_for(|growth| growth.reached > at || growth.ended || growth.begun != begun);
            let Ok(growth) = self.runtime.block_on(more).map(|growth| *growth) else { return Ok(0) };
            if growth.begun != begun {
                return Err(io::Error::other("what is read begins anew"));
            }
            let here = growth.reached.saturating_sub(at).min(buffer.len() as u64);
            let read = self.file.file().read_at(&mut buffer[..usize::try_from(here).unwrap_or(0)], at)?;
            self.at += read as u64;
            if read > 0 || growth.ended || buffer.is_empty() {
                return Ok(read);
            }
            // It was cut since, and is going to reach that far again.
            if self.runtime.block_on(self.growth.changed()).is_err() {
                return Ok(0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::atomic::{AtomicU32, Ordering};

    use futures_util::TryStreamExt;
    use tokio::sync::mpsc;

    use super::*;

    /// A transfer of which each step waits for the test.
    fn fly(
        flights: &Flights<u32, &'static str>,
        started: &Arc<AtomicU32>,
    ) -> (Flight<&'static str>, mpsc::UnboundedSender<Option<&'static [u8]>>) {
        let (step, mut steps) = mpsc::unbounded_channel::<Option<&'static [u8]>>();
        let started = started.clone();
        let flight = flights.join(7, move |source| async move {
            started.fetch_add(1, Ordering::SeqCst);
            let mut file = tempfile::tempfile()?;
            let reading = fs::File::from_parts(file.try_clone()?, "growing");
            source.begin("head", reading);
            let mut written = 0;
            while let Some(step) = steps.recv().await {
                let bytes = step.ok_or("the upstream is gone")?;
                file.write_all(bytes)?;
                written += bytes.len() as u64;
                source.reached(written);
            }
            Ok(())
        });
        (flight, step)
    }

    async fn all(flight: Flight<&'static str>, from: u64, to: Option<u64>) -> io::Result<Vec<u8>> {
        flight
            .read(from, to)
            .try_fold(Vec::new(), async |mut all, piece| {
                all.extend_from_slice(&piece);
                Ok(all)
            })
            .await
    }

    #[tokio::test]
    async fn everybody_reads_what_one_transfer_brings_whenever_they_come() {
        let (flights, started) = (Flights::here(), Arc::default());
        let (mut first, step) = fly(&flights, &started);
        assert_eq!(*first.head().await.unwrap().unwrap(), "head");
        let early = tokio::spawn(all(first.clone(), 0, Some(9)));
        step.send(Some(b"mira")).unwrap();
        let mut pieces = std::pin::pin!(first.clone().read(0, None));
        assert_eq!(pieces.try_next().await.unwrap().unwrap(), "mira", "before the end");
        let (late, never) = fly(&flights, &started);
        drop(never);
        let late = tokio::spawn(all(late, 2, None));
        step.send(Some(b"belle")).unwrap();
        drop(step);
        assert_eq!(early.await.unwrap().unwrap(), b"mirabelle");
        assert_eq!(late.await.unwrap().unwrap(), b"rabelle");
        first.landed().await.unwrap();
        assert_eq!(all(first, 0, Some(4)).await.unwrap(), b"mira", "who is slow reads on after the landing");
        assert_eq!((started.load(Ordering::SeqCst), flights.under_way()), (1, 0));
    }

    #[tokio::test]
    async fn goes_on_when_every_reader_has_gone_away() {
        let (flights, started) = (Flights::here(), Arc::default());
        let (flight, step) = fly(&flights, &started);
        let mut watching = flight.clone();
        drop(all(flight, 0, None));
        step.send(Some(b"mirabelle")).unwrap();
        drop(step);
        watching.landed().await.unwrap();
        assert_eq!(all(watching, 0, None).await.unwrap(), b"mirabelle");
    }

    #[tokio::test]
    async fn a_transfer_that_fails_is_never_taken_for_a_whole() {
        let (flights, started) = (Flights::here(), Arc::default());
        let (flight, step) = fly(&flights, &started);
        step.send(Some(b"mira")).unwrap();
        step.send(None).unwrap();
        assert!(all(flight.clone(), 0, None).await.is_err());
        assert!(all(flight, 0, Some(9)).await.is_err());
        // The next one who asks starts anew.
        let (flight, step) = fly(&flights, &started);
        step.send(Some(b"mira")).unwrap();
        drop(step);
        assert_eq!(all(flight.clone(), 0, None).await.unwrap(), b"mira");
        assert!(all(flight, 0, Some(9)).await.is_err(), "it is shorter than was said");
        assert_eq!(started.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn who_was_given_what_turned_out_wrong_breaks_off_and_the_next_one_gets_it_right() {
        let flights: Flights<u32, ()> = Flights::here();
        let (step, mut steps) = mpsc::unbounded_channel::<()>();
        let mut flight = flights.join(1, move |source| async move {
            let mut file = tempfile::tempfile()?;
            source.begin((), fs::File::from_parts(file.try_clone()?, "growing"));
            file.write_all(b"quet")?;
            source.reached(4);
            steps.recv().await;
            source.begin_anew();
            std::os::unix::fs::FileExt::write_all_at(&file, b"mirabelle", 0)?;
            source.reached(9);
            Ok(())
        });
        let mut pieces = std::pin::pin!(flight.clone().read(0, Some(9)));
        assert_eq!(pieces.try_next().await.unwrap().unwrap(), "quet");
        let patient = flight.clone().read(0, Some(9));
        step.send(()).unwrap();
        assert!(pieces.try_next().await.is_err(), "it never gets the rest of something else");
        let whole: Vec<Bytes> = patient.try_collect().await.unwrap();
        assert_eq!(whole.concat(), b"mirabelle");
        flight.landed().await.unwrap();
    }

    #[tokio::test]
    async fn a_task_that_dies_leaves_nobody_waiting() {
        let flights: Flights<u32, ()> = Flights::here();
        let mut flight = flights.join(1, |_| async { panic!("a fault of ours") });
        assert!(matches!(flight.head().await, Err(FlightError::BrokenOff)));
        assert!(matches!(flight.landed().await, Err(FlightError::BrokenOff)));
        assert_eq!(flights.under_way(), 0);
    }

    #[tokio::test]
    async fn a_tail_waits_for_more_and_hears_of_a_new_beginning() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let (growing, growth) = watch::channel(Growth::default());
        let mut tail = Tail::open(file.path(), growth, Handle::current()).unwrap();
        let (read, was_read) = tokio::sync::oneshot::channel();
        let reader = spawn_blocking(move || {
            let mut four = [0; 4];
            tail.read_exact(&mut four).unwrap();
            read.send(four).unwrap();
            tail.read(&mut four).is_err() && tail.begun_anew()
        });
        file.write_all(b"mira").unwrap();
        growing.send_replace(Growth { reached: 4, ..Growth::default() });
        assert_eq!(was_read.await.unwrap(), *b"mira");
        growing.send_replace(Growth { reached: 9, begun: 1, ended: false });
        assert!(reader.await.unwrap());
    }
}
