//! The near end of the link: every connection to an upstream passes through here, byte by byte.
//!
//! An HTTP client reads as much as there is: what it then waits for a rate comes in bursts of a whole window, and what TLS
//! and failed attempts cost it does not know. So the client talks to a socket of this process, and this talks to the server:
//!
//! ```text
//! reqwest ──▶ <temporary directory, 0700>/<class> ──▶ this ──▶ upstream
//!                                                  pieces, each after `Link::take`; the receive buffer is bounded
//! ```
//!
//! TLS goes through untouched: the client checks the server's name as ever. A bounded receive buffer bounds how much a
//! server can send that nobody has asked the link for, and how large a burst is when a connection begins: the kernel lets
//! windows grow to many round trips otherwise. While the link yields, the buffer is what the controller steers, as in
//! RFC 9840: packets that leave as others are acknowledged come smoothly, where a reader that waits lets the window open in
//! lumps (measured: 8 kB with pieces of 2, which is 8 ms of a call's delay at 8 Mbit/s). What each class of bytes asks for has a socket, and so connections, of its
//! own: nothing urgent waits behind something large.
//!
//! Threats: *another user of the machine* who would spend the college's budget: only this process's user can reach the
//! sockets. *A server that sends what nobody wants* (an error page without end): the connection is closed with the client's
//! side, and what has come until then counts.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::unix::{ReadHalf as NearRead, WriteHalf as NearWrite};
use tokio::net::{TcpSocket, TcpStream, UnixListener, UnixStream};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{Class, Link, LinkClosed};

/// A server that is not reached within this is down.
const CONNECT_TIME: Duration = Duration::from_secs(10);
/// Whoever waits longer for their turn gives the connection up, before the server does, and asks for the rest later.
const LONGEST_WAIT: Duration = Duration::from_secs(20);
/// Bytes of one read where nothing is limited.
const READ_BYTES: usize = 64 << 10;
/// The least and the most of a bounded receive buffer: three packets, and more than most kernels allow. The kernel takes
/// twice what it is told, for what it needs beside the bytes.
const SMALLEST_BUFFER: u64 = 4_400;
const LARGEST_BUFFER: u64 = 4 << 20;
/// How often a buffer follows the rate.
const ADJUST_EVERY: Duration = Duration::from_millis(100);

/// How long to wait when a connection cannot be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Numbers connections, of all links.
static CONNECTIONS: AtomicU64 = AtomicU64::new(0);

/// One upstream, reached through the link.
pub(crate) struct NearEnd {
    link: Arc<Link>,
    base: Base,
    /// The last reason why the upstream could not be reached.
    fault: Arc<Mutex<Option<io::Error>>>,
    /// Why connections of a class were cut off by the link, until somebody has heard of it.
    cut: Arc<Mutex<BTreeMap<Class, LinkClosed>>>,
    clients: Mutex<Clients>,
    stop: CancellationToken,
    _guard: DropGuard,
}

impl std::fmt::Debug for NearEnd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NearEnd").field("base", &self.base).finish_non_exhaustive()
    }
}

#[derive(Default)]
struct Clients {
    directory: Option<tempfile::TempDir>,
    by_class: BTreeMap<Class, reqwest::Client>,
}

/// Where an upstream is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Base {
    host: String,
    port: u16,
    /// What is asked for to measure the delay.
    pub(super) probe: reqwest::Url,
}

/// Where the server of an address is. None for an address without a host, which no upstream has.
pub(crate) fn base_of(url: &reqwest::Url) -> Option<Base> {
    let host = url.host_str()?.trim_matches(['[', ']']).to_owned();
    let port = url.port_or_known_default()?;
    Some(Base { host, port, probe: url.join("metadata/timestamp.json").ok()? })
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NearEndError {
    #[error(transparent)]
    Socket(#[from] io::Error),
    #[error(transparent)]
    Client(#[from] reqwest::Error),
}

impl NearEnd {
    pub(crate) fn new(link: Arc<Link>, base: Base) -> Arc<Self> {
        let stop = CancellationToken::new();
        Arc::new(Self {
            link,
            base,
            fault: Arc::default(),
            cut: Arc::default(),
            clients: Mutex::default(),
            stop: stop.clone(),
            _guard: stop.drop_guard(),
        })
    }

    pub(crate) fn link(&self) -> &Arc<Link> {
        &self.link
    }

    /// Why `class` may have nothing now, or why the link has just cut off one of its connections.
    pub(crate) fn closed(&self, class: Class) -> Option<LinkClosed> {
        let cut = self.cut.lock().unwrap_or_else(PoisonError::into_inner).remove(&class);
        let closed = self.link.closed(class).or(cut);
        if closed.is_some() {
            self.take_fault();
        }
        closed
    }

    pub(super) fn base(&self) -> &Base {
        &self.base
    }

    /// Why the upstream could not be reached the last time, once.
    pub(crate) fn take_fault(&self) -> Option<io::Error> {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// The client for a class of bytes; `build` makes one that talks to a socket.
    pub(crate) fn client(
        &self,
        class: Class,
        build: impl FnOnce(&Path) -> reqwest::Result<reqwest::Client>,
    ) -> Result<reqwest::Client, NearEndError> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.by_class.get(&class) {
            return Ok(client.clone());
        }
        let directory = match &mut clients.directory {
            Some(directory) => directory,
            none => none.insert(tempfile::Builder::new().prefix("mirabelle-link-").tempdir()?),
        };
        let path = directory.path().join(class.to_string());
        let listener = UnixListener::bind(&path)?;
        let client = build(&path)?;
        let carrier = Carrier {
            link: self.link.clone(),
            base: self.base.clone(),
            fault: self.fault.clone(),
            cut: self.cut.clone(),
            class,
        };
        tokio::spawn(accept(listener, Arc::new(carrier), self.stop.clone()));
        clients.by_class.insert(class, client.clone());
        Ok(client)
    }
}

/// What carries the connections of one class.
struct Carrier {
    link: Arc<Link>,
    base: Base,
    fault: Arc<Mutex<Option<io::Error>>>,
    cut: Arc<Mutex<BTreeMap<Class, LinkClosed>>>,
    class: Class,
}

async fn accept(listener: UnixListener, carrier: Arc<Carrier>, stop: CancellationToken) {
    loop {
        let near = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => match accepted {
                Ok((near, _)) => near,
                Err(error) => {
                    // Out of file descriptors, most likely: wait for some to come free.
                    tracing::warn!(%error, "a connection over the link could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
        };
        let (carrier, stop) = (carrier.clone(), stop.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                // What breaks a connection, its client sees.
                _ = carrier.carry(near) => {}
            }
        });
    }
}

/// What is kept of the day's budget for a connection, until it ends, however it does: then what lies in its buffer counts.
struct Held<'a> {
    carrier: &'a Carrier,
    connection: u64,
    far: OwnedFd,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let unread = rustix::io::ioctl_fionread(&self.far).unwrap_or(0);
        if unread > 0 {
            self.carrier.link.came_unasked(self.carrier.class, unread);
        }
        self.carrier.link.let_go(self.connection);
    }
}

impl Carrier {
    async fn carry(&self, mut near: UnixStream) -> io::Result<()> {
        let connection = CONNECTIONS.fetch_add(1, Ordering::Relaxed);
        let mut far = match self.connect(connection).await {
            Ok(far) => far,
            Err(error) => {
                *self.fault.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                return Ok(());
            }
        };
        far.set_nodelay(true)?;
        *self.fault.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let _held = Held { carrier: self, connection, far: far.as_fd().try_clone_to_owned()? };
        if let Err(error) = self.hold_back(connection, &far) {
            *self.fault.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
            return Ok(());
        }
        let (near_read, near_write) = near.split();
        let (far_read, far_write) = far.split();
        // Whichever side ends first ends both: a client that wants no more must not be sent more.
        tokio::select! {
            down = self.down(connection, far_read, near_write) => down,
            up = self.up(near_read, far_write) => up,
        }
    }

    /// What the connection's buffer may hold is kept of the day's budget.
    fn hold_back(&self, connection: u64, far: &TcpStream) -> io::Result<()> {
        let bytes = rustix::net::sockopt::socket_recv_buffer_size(far)?;
        self.link.hold_back(connection, self.class, bytes as u64).map_err(|closed| self.is_cut(closed))
    }

    async fn connect(&self, connection: u64) -> io::Result<TcpStream> {
        let connecting = async {
            let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
            for address in tokio::net::lookup_host((self.base.host.as_str(), self.base.port)).await? {
                let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
                if let Some(bytes) = self.buffer(connection, false) {
                    // Before the connection, so that its first window is bounded already.
                    socket.set_recv_buffer_size(bytes)?;
                }
                match socket.connect(address).await {
                    Ok(stream) => return Ok(stream),
                    Err(error) => last = error,
                }
            }
            Err(last)
        };
        let timed_out = |_| Err(io::ErrorKind::TimedOut.into());
        tokio::time::timeout(CONNECT_TIME, connecting).await.unwrap_or_else(timed_out)
    }

    /// How large a connection's receive buffer may be; none, if the kernel may do as it likes.
    fn buffer(&self, connection: u64, active: bool) -> Option<u32> {
        let bytes = self.link.window(connection, active)?.clamp(SMALLEST_BUFFER, LARGEST_BUFFER);
        u32::try_from(bytes).ok()
    }

    async fn down(&self, connection: u64, mut far: ReadHalf<'_>, mut near: NearWrite<'_>) -> io::Result<()> {
        let mut buffer = vec![0; READ_BYTES];
        let mut adjusted: Option<(Instant, Option<u32>)> = None;
        loop {
            let piece = usize::try_from(self.link.piece(self.class)).unwrap_or(READ_BYTES).min(READ_BYTES);
            // What is there stays in the kernel, and so the window closed, until it may come.
            let there = far.peek(&mut buffer[..piece]).await?;
            if there == 0 {
                return near.shutdown().await;
            }
            if adjusted.is_none_or(|(at, _)| at.elapsed() >= ADJUST_EVERY) {
                let wanted = self.buffer(connection, self.class != Class::Probe);
                if let Some(bytes) = wanted.filter(|_| adjusted.is_none_or(|(_, known)| known != wanted)) {
                    let stream: &TcpStream = far.as_ref();
                    rustix::net::sockopt::set_socket_recv_buffer_size(stream, bytes as usize)?;
                    self.hold_back(connection, stream)?;
                }
                adjusted = Some((Instant::now(), wanted));
            }
            self.take(there).await?;
            let read = far.read(&mut buffer[..there]).await?;
            near.write_all(&buffer[..read]).await?;
        }
    }

    async fn up(&self, mut near: NearRead<'_>, mut far: WriteHalf<'_>) -> io::Result<()> {
        let mut buffer = vec![0; READ_BYTES];
        loop {
            let read = near.read(&mut buffer).await?;
            if read == 0 {
                return Ok(());
            }
            self.take(read).await?;
            far.write_all(&buffer[..read]).await?;
        }
    }

    async fn take(&self, bytes: usize) -> io::Result<()> {
        let taking = self.link.take_for(self.class, bytes as u64);
        let taken = tokio::time::timeout(LONGEST_WAIT, taking).await;
        let taken = taken.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?;
        taken.map_err(|closed| self.is_cut(closed))
    }

    /// The link cuts a connection off: its client must be able to tell that from an end.
    fn is_cut(&self, closed: LinkClosed) -> io::Error {
        self.cut.lock().unwrap_or_else(PoisonError::into_inner).insert(self.class, closed);
        io::Error::other(closed)
    }
}
