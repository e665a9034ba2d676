//! A server gives everybody what they asked for, whole or broken off, by sendfile where that is possible; nobody who takes
//! his time slows the others down; and one server takes over from another without anybody noticing.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fs_err as fs;
use hyper::StatusCode;
use mirabelle_content::ObjectStore;
use mirabelle_manifests::Digest;
use mirabelle_transfer::serve::{
    Limits, Naming, ServeStats, Server, Tls, file_of, problem, serve_file, serve_object, streaming,
};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

/// Larger than what a socket's buffers on both sides take.
const LARGE: usize = 24 << 20;

fn noise(length: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        state.to_be_bytes()
    };
    let mut bytes: Vec<u8> = (0..length.div_ceil(8)).flat_map(|_| next()).collect();
    bytes.truncate(length);
    bytes
}

/// A directory being served.
struct Site {
    directory: TempDir,
    address: SocketAddr,
    stats: Arc<ServeStats>,
    stop: CancellationToken,
    server: tokio::task::JoinHandle<()>,
}

impl Site {
    async fn start(limits: Limits, tls: Option<Tls>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stats, stop) = (Arc::<ServeStats>::default(), CancellationToken::new());
        let server = serve(listener, directory.path(), limits, tls, &stats, &stop);
        Self { directory, address, stats, stop, server }
    }

    async fn usual() -> Self {
        Self::start(Limits::default(), None).await
    }

    fn file(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.directory.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.address)
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    async fn end(self) {
        self.stop.cancel();
        self.server.await.unwrap();
    }
}

fn serve(
    listener: TcpListener,
    directory: &Path,
    limits: Limits,
    tls: Option<Tls>,
    stats: &Arc<ServeStats>,
    stop: &CancellationToken,
) -> tokio::task::JoinHandle<()> {
    let mut server = Server::default().limits(limits).stats(stats.clone());
    if let Some(tls) = tls {
        server = server.tls(tls);
    }
    let directory = directory.to_owned();
    let handler = move |request: hyper::Request<hyper::body::Incoming>, _| {
        let directory = directory.clone();
        async move {
            let Some(path) = file_of(request.uri().path()) else {
                return problem(StatusCode::NOT_FOUND, "none");
            };
            let (method, headers) = (request.method(), request.headers());
            match path.as_str().split_once('/') {
                Some(("objects", name)) => {
                    let store = ObjectStore::read_only(&directory);
                    serve_object(method, headers, &store, name.replace('/', "").parse().unwrap()).await
                }
                Some(("growing", length)) => {
                    let pieces = (0..length.parse().unwrap()).map(|_| Ok(Bytes::from(vec![7; 1000])));
                    let cut = Err(io::Error::other("no more"));
                    let pieces = pieces.chain(request.uri().query().map(|_| cut));
                    hyper::Response::new(streaming(futures_util::stream::iter(pieces)))
                }
                _ => serve_file(method, headers, &directory.join(path.as_str()), Naming::Immutable).await,
            }
        }
    };
    tokio::spawn(server.run(listener, handler, stop.clone()))
}

/// A client; the whole workspace's TLS is ring's.
fn client() -> reqwest::ClientBuilder {
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy()
}

/// Sends a request for `path` and nothing else.
async fn ask(stream: &mut TcpStream, path: &str) {
    stream.write_all(format!("GET /{path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await.unwrap();
}

/// Reads an answer of this length; its body.
async fn answer(stream: &mut TcpStream, length: usize) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let text = String::from_utf8_lossy(&head);
    assert!(text.contains(&format!("content-length: {length}\r\n")), "{text}");
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    Ok(body)
}

#[tokio::test(flavor = "multi_thread")]
async fn large_files_and_ranges_leave_by_sendfile_and_small_ones_from_memory() {
    let site = Site::usual().await;
    let (small, large) = (noise(20_000), noise(LARGE));
    site.file("small", &small);
    site.file("large", &large);
    let http = client().build().unwrap();
    for _ in 0..3 {
        let got = http.get(site.url("small")).send().await.unwrap().bytes().await.unwrap();
        assert!(got == small);
    }
    assert_eq!(site.stats.now().sendfile_calls, 0);

    let got = http.get(site.url("large")).send().await.unwrap().bytes().await.unwrap();
    assert!(got == large);
    for (first, last) in [(0, 0), (5_000_000, 5_299_999), (LARGE - 100_000, LARGE - 1)] {
        let range = format!("bytes={first}-{last}");
        let answer = http.get(site.url("large")).header("range", range).send().await.unwrap();
        assert_eq!(answer.status(), 206);
        assert!(answer.bytes().await.unwrap() == large[first..=last]);
    }
    let head = http.head(site.url("large")).send().await.unwrap();
    assert_eq!(head.headers()["content-length"], LARGE.to_string());
    drop(http);
    // A client can have an answer before the server has counted it; when it has ended, it has.
    let stats = site.stats.clone();
    site.end().await;
    let now = stats.now();
    assert!(now.sendfile_calls >= (LARGE >> 20) as u64 + 3, "{} calls", now.sendfile_calls);
    assert_eq!(now.answered, [0, 8, 0, 0, 0]);
    assert!(now.bytes > (LARGE + 3 * small.len()) as u64);
}

/// Several windows wait in one connection's queue at once, beside answers that are none.
#[tokio::test(flavor = "multi_thread")]
async fn requests_sent_all_at_once_are_answered_in_order() {
    let site = Site::usual().await;
    let names = ["a", "bb", "ccc", "none", "dddd"];
    let files: Vec<Vec<u8>> = [70_000, 100, 3 << 20, 0, 66_000].map(noise).to_vec();
    for (name, content) in names.iter().zip(&files).filter(|(name, _)| **name != "none") {
        site.file(name, content);
    }
    let mut stream = site.connect().await;
    for _ in 0..4 {
        for name in names {
            ask(&mut stream, name).await;
        }
        for (name, content) in names.iter().zip(&files) {
            if *name == "none" {
                let length =
                    br#"{"detail":"there is no such file here","status":404,"title":"Not Found"}"#.len();
                answer(&mut stream, length).await.unwrap();
            } else {
                assert!(answer(&mut stream, content.len()).await.unwrap() == *content, "{name}");
            }
        }
    }
    site.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_becomes_shorter_breaks_the_connection_off() {
    let site = Site::usual().await;
    let path = site.file("large", &noise(LARGE));
    let mut stream = site.connect().await;
    ask(&mut stream, "large").await;
    stream.readable().await.unwrap();
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(1000).unwrap();
    let error = answer(&mut stream, LARGE).await.unwrap_err();
    assert!(matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset), "{error}");
    site.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_asked_for_with_zstd_is_decoded_and_the_rest_is_sent_as_it_is_stored() {
    let site = Site::usual().await;
    let text = b"the same again and again; ".repeat(20_000);
    let object = Digest::of(&text);
    let store = ObjectStore::open_compressing(site.directory.path()).unwrap();
    let mut batch = store.batch();
    batch.add(&mut &text[..], object, text.len() as u64).unwrap();
    batch.commit().unwrap();
    let http = client().build().unwrap();
    let url = site.url(&format!("objects/{}", object.fanned_out()));
    for _ in 0..2 {
        let plain = http.get(&url).send().await.unwrap();
        assert!(!plain.headers().contains_key("content-encoding"));
        assert!(plain.bytes().await.unwrap() == text);
        let stored = http.get(&url).header("accept-encoding", "zstd").send().await.unwrap();
        assert_eq!(stored.headers()["content-encoding"], "zstd");
        assert!(zstd::decode_all(&stored.bytes().await.unwrap()[..]).unwrap() == text);
    }
    let posted = http.post(&url).send().await.unwrap();
    assert_eq!(posted.status(), 405);
    site.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_growing_body_is_sent_as_it_grows_and_an_error_breaks_it_off() {
    let site = Site::usual().await;
    let http = client().build().unwrap();
    let whole = http.get(site.url("growing/500")).send().await.unwrap().bytes().await.unwrap();
    assert_eq!(whole.len(), 500_000);
    assert!(http.get(site.url("growing/500?cut")).send().await.unwrap().bytes().await.is_err());
    site.end().await;
}

/// A certificate for `localhost`, made by the program that the other tests use for it too.
fn certificate() -> (Tls, Vec<u8>) {
    let directory = tempfile::tempdir().unwrap();
    let (certificate, key) = (directory.path().join("c.pem"), directory.path().join("k.pem"));
    let mut command = std::process::Command::new("openssl");
    command.args([
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "2",
    ]);
    command.args(["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]);
    command.args(["-addext", "basicConstraints=critical,CA:FALSE"]);
    command.arg("-keyout").arg(&key).arg("-out").arg(&certificate);
    assert!(command.output().unwrap().status.success());
    let certificate = fs::read(certificate).unwrap();
    (Tls::from_pem(&certificate, &fs::read(key).unwrap()).unwrap(), certificate)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_over_tls_and_over_http_2() {
    let (tls, certificate) = certificate();
    let site = Site::start(Limits::default(), Some(tls)).await;
    let (small, large) = (noise(20_000), noise(LARGE));
    site.file("small", &small);
    site.file("large", &large);
    let trusting = || {
        let roots = [reqwest::Certificate::from_pem(&certificate).unwrap()];
        client().tls_certs_only(roots).resolve("localhost", site.address)
    };
    let url = |path| format!("https://localhost:{}/{path}", site.address.port());
    for (http, version) in [
        (trusting().build().unwrap(), hyper::Version::HTTP_2),
        (trusting().http1_only().build().unwrap(), hyper::Version::HTTP_11),
    ] {
        for (path, content) in [("small", &small), ("large", &large)] {
            let answer = http.get(url(path)).send().await.unwrap();
            assert_eq!(answer.version(), version);
            assert!(answer.bytes().await.unwrap() == *content, "{path} over {version:?}");
        }
    }
    assert_eq!(site.stats.now().sendfile_calls, 0, "there is nothing to send by sendfile under TLS");
    site.end().await;

    let site = Site::usual().await;
    site.file("large", &large);
    let http = client().http2_prior_knowledge().build().unwrap();
    let asked = (0..4).map(|_| async {
        let answer = http.get(site.url("large")).send().await.unwrap();
        assert_eq!(answer.version(), hyper::Version::HTTP_2);
        assert!(answer.bytes().await.unwrap() == large);
    });
    futures_util::future::join_all(asked).await;
    assert_eq!(site.stats.now().sendfile_calls, 0);
    drop(http);
    site.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_takes_nothing_is_closed_while_others_are_served() {
    let limits = Limits { slow_time: Duration::from_millis(200), ..Limits::default() };
    let site = Site::start(limits, None).await;
    let large = noise(LARGE);
    site.file("large", &large);
    let mut lazy = site.connect().await;
    ask(&mut lazy, "large").await;
    let mut others = 0;
    while site.stats.now().slow_closed == 0 {
        let mut stream = site.connect().await;
        ask(&mut stream, "large").await;
        assert!(answer(&mut stream, LARGE).await.unwrap() == large);
        others += 1;
    }
    assert!(others > 0);
    assert!(answer(&mut lazy, LARGE).await.is_err(), "it was closed in the middle");
    site.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_does_not_end_and_a_connection_without_requests_are_closed() {
    let limits = Limits {
        head_time: Duration::from_millis(100),
        idle_time: Duration::from_millis(100),
        ..Limits::default()
    };
    let site = Site::start(limits, None).await;
    site.file("small", b"x");
    let mut unfinished = site.connect().await;
    unfinished.write_all(b"GET /small HTTP/1.1\r\nhost:").await.unwrap();
    let mut idle = site.connect().await;
    ask(&mut idle, "small").await;
    assert_eq!(answer(&mut idle, 1).await.unwrap(), b"x");
    let silent = site.connect().await;
    for mut stream in [unfinished, idle, silent] {
        // An end, or a reset: either way without another byte.
        assert_eq!(stream.read(&mut [0]).await.unwrap_or(0), 0);
    }
    assert_eq!(site.stats.now().idle_closed, 3);
    site.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_bodies_and_connections_have_their_limits() {
    let limits = Limits { connections_of_one: 3, body_bytes: 1000, ..Limits::default() };
    let site = Site::start(limits, None).await;
    let said = async |request: String| {
        let mut stream = site.connect().await;
        // It may be closed before all of it is written.
        let _ = stream.write_all(request.as_bytes()).await;
        let mut text = Vec::new();
        let _ = stream.read_to_end(&mut text).await;
        String::from_utf8_lossy(&text).lines().next().unwrap_or_default().to_owned()
    };
    let long = "x".repeat(20_000);
    assert_eq!(
        said(format!("GET /{long} HTTP/1.1\r\n")).await,
        "HTTP/1.1 431 Request Header Fields Too Large"
    );
    let many = "a: b\r\n".repeat(100);
    assert_eq!(
        said(format!("GET / HTTP/1.1\r\n{many}\r\n")).await,
        "HTTP/1.1 431 Request Header Fields Too Large"
    );
    let body = "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1001\r\n\r\n".to_owned();
    assert_eq!(said(body).await, "HTTP/1.1 413 Payload Too Large");

    let mut kept = Vec::new();
    while site.stats.now().refused == 0 {
        let mut stream = site.connect().await;
        ask(&mut stream, "none").await;
        if stream.read_u8().await.is_ok() {
            kept.push(stream);
        }
    }
    assert_eq!(kept.len(), 3);
    site.end().await;
}

/// The first server is stopped in the middle of a download, with the second already accepting from the same socket, as
/// when systemd passes it on.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_is_replaced_and_no_download_drops_and_nobody_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let large = noise(LARGE);
    fs::write(directory.path().join("large"), &large).unwrap();
    let listening = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listening.set_nonblocking(true).unwrap();
    let address = listening.local_addr().unwrap();
    let start = |stats: &Arc<ServeStats>, stop: &CancellationToken| {
        let listener = TcpListener::from_std(listening.try_clone().unwrap()).unwrap();
        serve(listener, directory.path(), Limits::default(), None, stats, stop)
    };
    let (first_stats, second_stats) = (Arc::<ServeStats>::default(), Arc::<ServeStats>::default());
    let (stop, never) = (CancellationToken::new(), CancellationToken::new());
    let first = start(&first_stats, &stop);
    let mut running = TcpStream::connect(address).await.unwrap();
    ask(&mut running, "large").await;
    running.readable().await.unwrap();

    stop.cancel();
    let get = || async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        ask(&mut stream, "large").await;
        answer(&mut stream, LARGE).await.unwrap()
    };
    // Asked while nobody accepts: it waits.
    let early = tokio::spawn(async move {
        let mut stream = TcpStream::connect(address).await.unwrap();
        ask(&mut stream, "large").await;
        answer(&mut stream, LARGE).await.unwrap()
    });
    let second = start(&second_stats, &never);
    assert!(get().await == large);
    assert!(early.await.unwrap() == large);
    assert!(answer(&mut running, LARGE).await.unwrap() == large, "the first server's download goes on");
    first.await.unwrap();
    assert_eq!(first_stats.now().connections, 0);
    assert!(second_stats.now().accepted >= 1);
    never.cancel();
    second.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stops_waits_no_longer_than_it_was_told_to() {
    let limits = Limits { drain_time: Duration::from_millis(50), ..Limits::default() };
    let site = Site::start(limits, None).await;
    site.file("large", &noise(LARGE));
    let mut stream = site.connect().await;
    ask(&mut stream, "large").await;
    stream.readable().await.unwrap();
    site.end().await;
    assert!(answer(&mut stream, LARGE).await.is_err());
}
