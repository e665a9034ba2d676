//! The link itself, and fetchers over it: real sockets, a clock that is waited for.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::{FetchError, Fetcher, RetryPolicy};

fn morning() -> Instant {
    "2026-11-26T08:00:00Z".parse().unwrap()
}

fn budget(bytes: u64) -> Limits {
    Limits { daily_budget: Some(bytes), ..Limits::default() }
}

/// A server that answers every request with `head` and so many bytes; counts what it sent and received.
async fn server(head: &'static str, bytes: usize) -> (Fetcher, Arc<AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let upstream = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
    let carried: Arc<AtomicU64> = Arc::default();
    let counter = carried.clone();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let counter = counter.clone();
            tokio::spawn(async move {
                let mut request = [0; 4096];
                while let Ok(read @ 1..) = stream.read(&mut request).await {
                    counter.fetch_add(read as u64, Ordering::SeqCst);
                    let mut answer = format!("HTTP/1.1 {head}\r\n\r\n").into_bytes();
                    answer.resize(answer.len() + bytes, b'x');
                    for piece in answer.chunks(1000) {
                        if stream.write_all(piece).await.is_err() {
                            return;
                        }
                        counter.fetch_add(piece.len() as u64, Ordering::SeqCst);
                    }
                    if !head.contains("content-length") || head.contains("close") {
                        return;
                    }
                }
            });
        }
    });
    let retry = RetryPolicy {
        attempts: 50,
        first_wait: Duration::from_millis(1),
        longest_wait: Duration::from_millis(1),
        ..RetryPolicy::default()
    };
    (Fetcher::new(upstream, retry).unwrap(), carried)
}

#[tokio::test(start_paused = true)]
async fn a_rate_is_kept_and_whoever_needs_it_more_overtakes() {
    let link = Link::unlimited();
    link.set_limits(Limits { otherwise: Rate::BytesPerSecond(100_000), ..Limits::default() });
    let begun = tokio::time::Instant::now();
    let (slow, urgent) = tokio::join!(
        async {
            link.take(Priority::Available, 1_000_000).await.unwrap();
            begun.elapsed()
        },
        async {
            link.take(Priority::Waiting, 100_000).await.unwrap();
            begun.elapsed()
        }
    );
    assert!(urgent < Duration::from_millis(1100), "{urgent:?}");
    assert!((Duration::from_millis(10_900)..Duration::from_millis(11_200)).contains(&slow), "{slow:?}");
    let report = link.report(morning());
    assert_eq!(report.by_priority["available"] + report.by_priority["waiting"], 1_100_000);
}

#[tokio::test]
async fn the_budget_survives_a_crash_and_an_end_in_order_costs_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let ledger = directory.path().join("ledger");
    let link = Link::open(&ledger, budget(1 << 30), morning());
    link.take(Priority::Required, 1_000_000).await.unwrap();
    let crashed = fs_err::read(&ledger).unwrap();
    drop(link);
    assert_eq!(Link::open(&ledger, budget(1 << 30), morning()).report(morning()).spent, 1_000_000);
    fs_err::write(&ledger, crashed).unwrap();
    let spent = Link::open(&ledger, budget(1 << 30), morning()).report(morning()).spent;
    assert!((1_000_000..=1_000_000 + (4 << 20)).contains(&spent), "{spent}");
    fs_err::write(&ledger, b"{").unwrap();
    let link = Link::open(&ledger, budget(1 << 30), morning());
    let closed = link.take(Priority::Waiting, 1).await.unwrap_err();
    assert_eq!(closed.why, Closed::Budget);
    link.report("2026-11-27T00:00:00Z".parse().unwrap());
    link.take(Priority::Waiting, 1).await.unwrap();
}

#[tokio::test]
async fn a_fetcher_over_a_link_counts_every_byte_that_crosses() {
    let (fetcher, carried) = server("200 OK\r\ncontent-length: 5000", 5000).await;
    let link = Link::unlimited();
    let fetcher = fetcher.over(link.clone());
    for _ in 0..3 {
        assert_eq!(fetcher.bytes("f", 5000).await.unwrap().len(), 5000);
    }
    let report = link.report(morning());
    assert_eq!(report.by_priority["metadata"], carried.load(Ordering::SeqCst));
}

#[tokio::test]
async fn nothing_a_server_does_costs_more_than_the_budget() {
    for (head, bytes) in [
        // Truncated, time after time; an error page without end; an answer that is never the same; a lie about its length.
        ("200 OK\r\ncontent-length: 100000\r\nconnection: close", 30_000),
        ("404 Not Found", 10_000_000),
        ("503 Busy\r\ncontent-length: 50000", 50_000),
        ("200 OK", 10_000_000),
    ] {
        let (fetcher, carried) = server(head, bytes).await;
        let link = Link::unlimited();
        link.report(morning());
        link.set_limits(Limits { otherwise: Rate::BytesPerSecond(20_000_000), ..budget(400_000) });
        let fetcher = fetcher.over(link.clone());
        let mut closed = false;
        for _ in 0..200 {
            match fetcher.bytes("f", 100_000).await {
                Err(error) if error.is_link_closed() => {
                    assert!(!error.is_retryable() && !error.is_tampering());
                    closed = true;
                    break;
                }
                Err(_) => {}
                Ok(_) => unreachable!("it never gets a whole answer"),
            }
        }
        assert!(closed, "{head}");
        let spent = link.report(morning()).spent;
        assert!(spent <= 400_000, "{head}: {spent}");
        // What is under way when a connection ends lies in the buffers of the two ends, and in nobody's hands.
        let carried = carried.load(Ordering::SeqCst);
        assert!(
            head == "404 Not Found" || head == "200 OK" || carried <= 400_000 + 200_000,
            "{head}: {carried}"
        );
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_is_named_as_such() {
    let retry = RetryPolicy { attempts: 1, ..RetryPolicy::default() };
    let fetcher =
        Fetcher::new("http://127.0.0.1:1/".parse().unwrap(), retry).unwrap().over(Link::unlimited());
    let error = fetcher.bytes("f", 10).await.unwrap_err();
    let FetchError::Unreachable { source: crate::Broken::Connect(source), .. } = error else {
        panic!("{error:?}")
    };
    assert_eq!(source.kind(), std::io::ErrorKind::ConnectionRefused);
}

#[tokio::test]
async fn a_link_that_yields_measures_and_begins_slowly() {
    let (fetcher, _) = server("200 OK\r\ncontent-length: 400000", 400_000).await;
    let link = Link::unlimited();
    link.set_limits(Limits { yielding: Some(Duration::from_millis(5)), ..Limits::default() });
    let begun = std::time::Instant::now();
    let fetcher = fetcher.over(link.clone());
    fetcher.bytes("f", 400_000).await.unwrap();
    assert!(begun.elapsed() > Duration::from_millis(500), "{:?}", begun.elapsed());
    let report = link.report(morning());
    assert!(report.by_priority["probes"] > 0 && report.base_delay_ms.is_some(), "{report:?}");
}
