//! What somebody gets who speaks HTTP and nothing else.

use std::io::{self, Read, Write};
use std::net::TcpStream;

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Its status line and header, in small letters.
    pub head: String,
    /// Its body, as it came.
    pub body: Vec<u8>,
}

impl Answer {
    /// The status.
    pub fn status(&self) -> u16 {
        self.head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
    }
}

/// One `GET` of a path below a server's address, with these header lines, each of which ends in CR LF.
pub fn get(server: &str, path: &str, headers: &str) -> Answer {
    try_get(server, path, headers).unwrap()
}

/// The same, where the server may break off.
///
/// # Errors
/// Those of the connection; a body that is shorter than its head says is one.
pub fn try_get(server: &str, path: &str, headers: &str) -> io::Result<Answer> {
    exchange(server, "GET", path, headers, b"")
}

/// One `POST` of `body` to a path below a server's address, with these header lines, each of which ends in CR LF.
pub fn post(server: &str, path: &str, headers: &str, body: &[u8]) -> Answer {
    let headers = format!("{headers}Content-Length: {}\r\n", body.len());
    exchange(server, "POST", path, &headers, body).unwrap()
}

fn exchange(server: &str, method: &str, path: &str, headers: &str, body: &[u8]) -> io::Result<Answer> {
    let host = server.trim_start_matches("http://").trim_end_matches('/');
    let mut stream = TcpStream::connect(host)?;
    write!(stream, "{method} /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{headers}\r\n")?;
    // Whoever refuses it need not hear it to its end.
    let _ = stream.write_all(body);
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n");
    let end = end.ok_or(io::ErrorKind::UnexpectedEof)?;
    let head = String::from_utf8_lossy(&answer[..end]).to_lowercase();
    let body = answer[end + 4..].to_vec();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
    if length.is_some_and(|length| length != body.len()) {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(Answer { head, body })
}
