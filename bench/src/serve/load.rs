//! Clients: so many connections, each asking for one object after another, and how long each answer took.
//!
//! An answer that is not the whole of what was asked for stops the bench.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use super::tree::mixed;

/// Bytes that a client reads at a time.
const READ_BYTES: usize = 256 << 10;

/// What is asked for.
#[derive(Clone)]
pub(crate) struct Load {
    pub(crate) connections: usize,
    pub(crate) paths: Arc<Vec<String>>,
    /// So many bytes of a file of so many, from a place that is drawn.
    pub(crate) range: Option<(u64, u64)>,
    pub(crate) end: End,
}

/// When to stop asking.
#[derive(Clone, Copy)]
pub(crate) enum End {
    Requests(u64),
    Time(Duration),
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Answered {
    pub(crate) requests: u64,
    pub(crate) bytes: u64,
    pub(crate) elapsed: Duration,
    /// Of each answer, from the request's first byte to the answer's last, sorted.
    pub(crate) times: Vec<Duration>,
}

impl Answered {
    pub(crate) fn rate(&self) -> f64 {
        self.requests as f64 / self.elapsed.as_secs_f64()
    }

    /// The time within which so much of a thousand was answered.
    pub(crate) fn time(&self, of_1000: usize) -> Duration {
        let place = (self.times.len() * of_1000 / 1000).min(self.times.len().saturating_sub(1));
        self.times.get(place).copied().unwrap_or_default()
    }
}

/// Asks a server, over TLS if there is a connector.
pub(crate) async fn ask(address: SocketAddr, tls: Option<TlsConnector>, load: &Load) -> Answered {
    let (tickets, begun) = (Arc::new(AtomicU64::new(0)), Instant::now());
    let mut connections = JoinSet::new();
    for _ in 0..load.connections {
        let (load, tls, tickets) = (load.clone(), tls.clone(), tickets.clone());
        connections.spawn(async move {
            let stream = TcpStream::connect(address).await.unwrap();
            stream.set_nodelay(true).unwrap();
            match tls {
                None => one_connection(stream, &load, &tickets, begun).await,
                Some(tls) => {
                    let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
                    let stream = tls.connect(name, stream).await.unwrap();
                    one_connection(stream, &load, &tickets, begun).await
                }
            }
        });
    }
    let mut all = Answered::default();
    while let Some(one) = connections.join_next().await {
        let one = one.unwrap();
        all.requests += one.requests;
        all.bytes += one.bytes;
        all.times.extend(one.times);
    }
    all.elapsed = begun.elapsed();
    all.times.sort_unstable();
    all
}

async fn one_connection<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    load: &Load,
    tickets: &AtomicU64,
    begun: Instant,
) -> Answered {
    let mut answered = Answered::default();
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let ticket = tickets.fetch_add(1, Relaxed);
        let drawn = mixed(ticket);
        let path = match load.end {
            End::Requests(most) if ticket >= most => break,
            End::Time(most) if begun.elapsed() >= most => break,
            _ => &load.paths[usize::try_from(drawn % load.paths.len() as u64).unwrap()],
        };
        let range = load.range.map_or(String::new(), |(length, of)| {
            let first = mixed(drawn) % (of - length);
            format!("Range: bytes={first}-{}\r\n", first + length - 1)
        });
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{range}\r\n");
        let asked = Instant::now();
        stream.write_all(request.as_bytes()).await.unwrap();
        let got =
            read_answer(&mut stream, &mut buffer).await.unwrap_or_else(|problem| panic!("{path}: {problem}"));
        answered.times.push(asked.elapsed());
        answered.requests += 1;
        answered.bytes += got.length;
        assert!(got.status == 200 || got.status == 206, "{path} is answered with {}", got.status);
        assert!(load.range.is_none_or(|(length, _)| length == got.length), "{path}: another range");
    }
    answered
}

/// The head of an answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Got {
    pub(crate) status: u16,
    pub(crate) length: u64,
}

/// Reads the head of an answer whose length is stated: what it says, how much of the buffer is filled, and where in it the
/// body begins.
pub(crate) async fn read_head<S: AsyncRead + Unpin>(
    stream: &mut S,
    buffer: &mut [u8],
) -> Result<(Got, usize, usize), String> {
    let (mut filled, mut looked) = (0, 0);
    let begins = loop {
        let read = stream.read(&mut buffer[filled..]).await.map_err(|error| error.to_string())?;
        if read == 0 {
            return Err("ended before its head did".to_owned());
        }
        filled += read;
        if let Some(at) = buffer[looked..filled].windows(4).position(|four| four == b"\r\n\r\n") {
            break looked + at + 4;
        }
        looked = filled.saturating_sub(3);
    };
    let head = str::from_utf8(&buffer[..begins]).map_err(|error| error.to_string())?;
    let status: u16 = head.get(9..12).and_then(|status| status.parse().ok()).ok_or("has no status")?;
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<u64>().ok())?
    });
    let length = if status == 304 { 0 } else { length.ok_or("states no length")? };
    Ok((Got { status, length }, filled, begins))
}

/// Reads one answer whose length is stated, and throws it away.
pub(crate) async fn read_answer<S: AsyncRead + Unpin>(
    stream: &mut S,
    buffer: &mut [u8],
) -> Result<Got, String> {
    let (got, filled, begins) = read_head(stream, buffer).await?;
    let mut left = got.length.checked_sub((filled - begins) as u64).ok_or("is longer than it states")?;
    while left > 0 {
        let want = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let read = stream.read(&mut buffer[..want]).await.map_err(|error| error.to_string())?;
        if read == 0 {
            return Err(format!("ended {left} bytes early"));
        }
        left -= read as u64;
    }
    Ok(got)
}

/// What our server says it keeps of small objects, in bytes.
pub(super) async fn cached(address: SocketAddr) -> u64 {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET /stats HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut buffer = vec![0; 4096];
    let (got, _, begins) = read_head(&mut stream, &mut buffer).await.unwrap();
    // So short an answer comes in one piece.
    let body = &buffer[begins..begins + usize::try_from(got.length).unwrap()];
    serde_json::from_slice::<serde_json::Value>(body).unwrap()["cache"].as_u64().unwrap()
}

/// Clients that are there and do next to nothing, until they are dropped.
pub(super) struct Crowd(#[expect(dead_code, reason = "dropping it ends them")] JoinSet<()>);

impl Crowd {
    /// `idle` connections that asked once, and `slow` ones that take 512 bytes twice a second of `large`.
    pub(super) async fn gather(
        address: SocketAddr,
        idle: usize,
        slow: usize,
        small: &str,
        large: &str,
    ) -> Self {
        let mut clients = JoinSet::new();
        for _ in 0..idle {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(format!("GET {small} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await.unwrap();
            read_answer(&mut stream, &mut vec![0; 64 << 10]).await.unwrap();
            clients.spawn(async move {
                let _ = stream.read(&mut [0]).await;
            });
        }
        for _ in 0..slow {
            let socket = TcpSocket::new_v4().unwrap();
            socket.set_recv_buffer_size(4096).unwrap();
            let mut stream = socket.connect(address).await.unwrap();
            stream.write_all(format!("GET {large} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await.unwrap();
            clients.spawn(async move {
                while stream.read(&mut [0; 512]).await.is_ok_and(|read| read > 0) {
                    tokio::time::sleep(Duration::from_millis(500)).await;
                }
            });
        }
        Self(clients)
    }
}
