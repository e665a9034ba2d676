//! Servers that cut, stall, lie and repeat themselves: each a few lines of TCP.

use std::sync::Mutex;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

/// Starts a server that answers the n-th request with `answer(n, request)` and closes; records the requests.
async fn server(
    answer: impl Fn(usize, &str) -> Vec<u8> + Send + 'static,
) -> (Fetcher, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let upstream = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
    let requests: Arc<Mutex<Vec<String>>> = Arc::default();
    let seen = requests.clone();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                if stream.read(&mut byte).await.unwrap_or(0) == 0 {
                    break;
                }
                request.push(byte[0]);
            }
            let request = String::from_utf8(request).unwrap().to_ascii_lowercase();
            let number = {
                let mut seen = seen.lock().unwrap();
                seen.push(request.clone());
                seen.len()
            };
            let _ = stream.write_all(&answer(number, &request)).await;
            let _ = stream.shutdown().await;
        }
    });
    let retry = RetryPolicy {
        attempts: 4,
        first_wait: Duration::from_millis(1),
        longest_wait: Duration::from_millis(2),
        ..RetryPolicy::default()
    };
    (Fetcher::new(upstream, retry).unwrap(), requests)
}

fn response(head: &str, body: &[u8]) -> Vec<u8> {
    [format!("HTTP/1.1 {head}\r\nconnection: close\r\n\r\n").as_bytes(), body].concat()
}

fn partial() -> (tempfile::TempDir, Partial) {
    let directory = tempfile::tempdir().unwrap();
    let partial = Partial::new(directory.path(), "file");
    (directory, partial)
}

const FILE: &[u8] = b"0123456789abcdefghij";

#[tokio::test]
async fn goes_on_at_the_byte_after_each_cut() {
    // Sends six bytes a time, whatever is asked, then breaks off.
    let (fetcher, requests) = server(|_, request| {
        let from = request
            .split("range: bytes=")
            .nth(1)
            .map_or(0, |range| range.split('-').next().unwrap().parse().unwrap());
        let rest = &FILE[from..];
        let status = if from == 0 { "200 OK" } else { "206 Partial Content" };
        let head = format!(
            "{status}\r\netag: \"a\"\r\ncontent-range: bytes {from}-19/20\r\ncontent-length: {}",
            rest.len()
        );
        response(&head, &rest[..rest.len().min(6)])
    })
    .await;
    let (_directory, partial) = partial();
    fetcher.range("f", 0..20, 20, &partial).await.unwrap();
    assert_eq!(fs_err::read(partial.path()).unwrap(), FILE);
    let requests = requests.lock().unwrap();
    assert_eq!(requests.len(), 4);
    assert!(!requests[0].contains("range:"), "the whole file is asked for as such");
    for (request, from) in requests[1..].iter().zip([6, 12, 18]) {
        assert!(request.contains(&format!("range: bytes={from}-19")), "{request}");
        assert!(request.contains("if-range: \"a\""), "{request}");
    }
    assert_eq!(fetcher.meter().received(), 20);
}

#[tokio::test]
async fn begins_again_when_the_file_has_changed_meanwhile() {
    let (fetcher, _) = server(|number, _| match number {
        1 => response("200 OK\r\netag: \"old\"\r\ncontent-length: 20", b"OLDOLD"),
        _ => response("200 OK\r\netag: \"new\"\r\ncontent-length: 20", FILE),
    })
    .await;
    let (_directory, partial) = partial();
    fetcher.range("f", 0..20, 20, &partial).await.unwrap();
    assert_eq!(fs_err::read(partial.path()).unwrap(), FILE);
    assert_eq!(partial.etag().as_deref(), Some("\"new\""));
}

#[tokio::test]
async fn refuses_a_range_that_is_not_the_one_asked_for() {
    for answer in [
        "200 OK\r\ncontent-length: 20",
        "206 Partial Content\r\ncontent-range: bytes 0-19/20\r\ncontent-length: 20",
        "206 Partial Content\r\ncontent-length: 20",
    ] {
        let (fetcher, _) = server(move |_, _| response(answer, FILE)).await;
        let (_directory, partial) = partial();
        let result = fetcher.range("f", 10..20, 20, &partial).await;
        assert!(matches!(result, Err(FetchError::NoRanges { .. })), "{answer}: {result:?}");
        assert_eq!(partial.length(), 0);
    }
}

#[tokio::test]
async fn a_server_without_ranges_that_breaks_off_is_given_up() {
    let (fetcher, requests) = server(|_, _| response("200 OK\r\ncontent-length: 20", &FILE[..6])).await;
    let (_directory, partial) = partial();
    let error = fetcher.range("f", 0..20, 20, &partial).await.unwrap_err();
    assert!(error.is_retryable(), "{error}");
    // Once because the first six bytes were progress, then as often as the policy says without any.
    assert_eq!(requests.lock().unwrap().len(), 4);
}

#[tokio::test]
async fn the_whole_file_in_answer_to_its_first_part_is_no_tampering() {
    let (fetcher, _) = server(|_, _| response("200 OK\r\ncontent-length: 20", FILE)).await;
    let (_directory, partial) = partial();
    let result = fetcher.range("f", 0..10, 20, &partial).await;
    assert!(matches!(result, Err(FetchError::NoRanges { .. })), "{result:?}");
    assert_eq!(partial.length(), 0);
}

#[tokio::test]
async fn a_weak_tag_is_not_kept() {
    let (fetcher, _) = server(|_, _| response("200 OK\r\netag: W/\"a\"\r\ncontent-length: 20", FILE)).await;
    let (_directory, partial) = partial();
    fetcher.range("f", 0..20, 20, &partial).await.unwrap();
    assert_eq!(partial.etag(), None);
}

#[tokio::test]
async fn a_body_without_end_is_cut_off() {
    let (fetcher, _) = server(|_, _| response("200 OK", &vec![0; 100_000])).await;
    assert!(matches!(fetcher.bytes("f", 1000).await, Err(FetchError::TooLong { limit: 1000, .. })));
    assert!(fetcher.meter().received() <= 100_000);
    let (_directory, partial) = partial();
    let result = fetcher.range("f", 0..1000, 1000, &partial).await;
    assert!(matches!(result, Err(FetchError::TooLong { limit: 1000, .. })), "{result:?}");
    assert_eq!(partial.length(), 0, "nothing of it is kept");
}

#[tokio::test]
async fn a_truncated_body_is_not_taken_for_the_whole() {
    let (fetcher, requests) = server(|_, _| response("200 OK\r\ncontent-length: 20", &FILE[..5])).await;
    assert!(fetcher.bytes("f", 100).await.unwrap_err().is_retryable());
    assert_eq!(requests.lock().unwrap().len(), 4, "it was tried as often as the policy says");
}

#[tokio::test]
async fn asks_again_when_that_may_help_and_only_then() {
    for (status, times) in [
        ("503 Busy\r\nretry-after: 0", 4),
        ("500 Oops", 4),
        ("429 Slow down", 4),
        ("403 No", 1),
        ("404 Not Found", 1),
        ("301 Moved\r\nlocation: http://127.0.0.1:1/", 1),
        ("416 Range", 1),
    ] {
        let (fetcher, requests) =
            server(move |_, _| response(&format!("{status}\r\ncontent-length: 0"), b"")).await;
        let error = fetcher.bytes("f", 100).await.unwrap_err();
        assert_eq!(requests.lock().unwrap().len(), times, "{status}");
        assert_eq!(error.is_retryable(), times > 1, "{status}: {error}");
    }
}

#[tokio::test]
async fn succeeds_after_some_failures() {
    let (fetcher, _) = server(|number, _| match number {
        1..=3 => response("503 Busy\r\ncontent-length: 0", b""),
        _ => response("200 OK\r\ncontent-length: 20", FILE),
    })
    .await;
    assert_eq!(fetcher.bytes("f", 100).await.unwrap(), FILE);
}

#[tokio::test]
async fn paths_stay_below_the_base_and_are_not_reinterpreted() {
    let (fetcher, requests) = server(|_, _| response("200 OK\r\ncontent-length: 0", b"")).await;
    for path in ["metadata/1.a%3Fb.json", "a?b#c", "dir/f+1~2"] {
        fetcher.bytes(path, 10).await.unwrap();
    }
    let requests = requests.lock().unwrap().clone();
    let asked: Vec<&str> = requests.iter().map(|request| request.split(' ').nth(1).unwrap()).collect();
    assert_eq!(asked, ["/metadata/1.a%3fb.json", "/a%3fb%23c", "/dir/f+1~2"]);
    for path in ["../up", "a/../b", "/etc", "a//b", "", "./a"] {
        assert!(matches!(fetcher.bytes(path, 10).await, Err(FetchError::NotAPath { .. })), "{path}");
    }
}
