//! A server that lies: in front of a real one, it answers some paths in one of the ways in which servers go wrong.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Longer than anybody waits for the next byte.
const FOR_EVER: Duration = Duration::from_mins(10);

/// How it goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// Half of the body, and the end.
    Truncates,
    /// Half of the body, and nothing more; to whoever goes on from there, nothing at all.
    Stalls,
    /// Half of the body, and a connection that is reset.
    Resets,
    /// The body, of which it says that it is longer.
    SaysLonger,
    /// The body, of which it says that it is shorter.
    SaysShorter,
    /// 404.
    NotFound,
    /// 503, with a `Retry-After`.
    Unavailable,
    /// 200, and a page about something else.
    Page,
    /// A redirect to itself.
    Loops,
    /// The same byte, without end.
    SameByte,
}

impl Lie {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Truncates,
        Self::Stalls,
        Self::Resets,
        Self::SaysLonger,
        Self::SaysShorter,
        Self::NotFound,
        Self::Unavailable,
        Self::Page,
        Self::Loops,
        Self::SameByte,
    ];
}

/// A hostile server that runs until the process ends.
#[derive(Debug)]
pub struct Hostile {
    address: SocketAddr,
    wrong: Arc<Mutex<Option<(&'static str, Lie)>>>,
}

impl Hostile {
    /// In front of `upstream`; honest for now.
    pub fn start(upstream: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let wrong: Arc<Mutex<Option<(&'static str, Lie)>>> = Arc::default();
        let (upstream, lies) = (host_of(upstream), wrong.clone());
        std::thread::spawn(move || {
            for near in listener.incoming().flatten() {
                let (upstream, lies) = (upstream.clone(), lies.clone());
                // Whoever goes away ends it.
                std::thread::spawn(move || answer(near, &upstream, &lies));
            }
        });
        Self { address, wrong }
    }

    /// Where it listens.
    pub fn address(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// From now on lies about paths with `part` in them.
    pub fn lie(&self, part: &'static str, lie: Lie) {
        *self.wrong.lock().unwrap() = Some((part, lie));
    }

    /// From now on says the truth.
    pub fn mend(&self) {
        *self.wrong.lock().unwrap() = None;
    }
}

fn host_of(url: &str) -> String {
    url.trim_start_matches("http://").trim_end_matches('/').to_owned()
}

/// One request on one connection.
fn answer(mut near: TcpStream, upstream: &str, lies: &Mutex<Option<(&'static str, Lie)>>) -> io::Result<()> {
    let mut request = String::new();
    let mut lines = BufReader::new(near.try_clone()?);
    while !request.ends_with("\r\n\r\n") {
        if lines.read_line(&mut request)? == 0 {
            return Ok(());
        }
    }
    let path = request.split(' ').nth(1).unwrap_or_default();
    let lie = lies.lock().unwrap().filter(|(part, _)| path.contains(part)).map(|(_, lie)| lie);
    match lie {
        Some(Lie::NotFound) => return say(&mut near, "404 Not Found", "", b"no"),
        Some(Lie::Unavailable) => {
            return say(&mut near, "503 Service Unavailable", "Retry-After: 1\r\n", b"later");
        }
        Some(Lie::Page) => {
            let page = b"<html><body>Please log in to the network of the school</body></html>";
            return say(&mut near, "200 OK", "Content-Type: text/html\r\n", page);
        }
        Some(Lie::Loops) => {
            return say(&mut near, "302 Found", &format!("Location: {path}\r\n"), b"");
        }
        Some(Lie::SameByte) => {
            near.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")?;
            loop {
                near.write_all(&[b'a'; 4096])?;
            }
        }
        _ => {}
    }
    let (head, body) = ask(upstream, &request)?;
    let length = match lie {
        Some(Lie::SaysLonger) => body.len() + 1000,
        Some(Lie::SaysShorter) => body.len() / 2,
        _ => body.len(),
    };
    let own = |line: &&str| {
        let line = line.to_ascii_lowercase();
        !["content-length:", "connection:", "transfer-encoding:"].iter().any(|name| line.starts_with(name))
    };
    let head = head.lines().filter(own).fold(String::new(), |head, line| head + line + "\r\n");
    write!(near, "{head}Content-Length: {length}\r\nConnection: close\r\n\r\n")?;
    match lie {
        Some(Lie::Truncates) => near.write_all(&body[..body.len() / 2]),
        Some(Lie::Stalls) => {
            let goes_on = request.to_ascii_lowercase().contains("\r\nrange:");
            near.write_all(&body[..if goes_on { 0 } else { body.len() / 2 }])?;
            // Until whoever asked has had enough.
            near.set_read_timeout(Some(FOR_EVER))?;
            near.read(&mut [0; 1]).map(|_| ())
        }
        Some(Lie::Resets) => {
            near.write_all(&body[..body.len() / 2])?;
            // What was sent arrives; then a reset instead of an end.
            rustix::net::sockopt::set_socket_linger(&near, Some(Duration::ZERO))?;
            Ok(())
        }
        _ => near.write_all(&body),
    }
}

fn say(near: &mut TcpStream, status: &str, headers: &str, body: &[u8]) -> io::Result<()> {
    let length = body.len();
    write!(near, "HTTP/1.1 {status}\r\n{headers}Content-Length: {length}\r\nConnection: close\r\n\r\n")?;
    near.write_all(body)
}

/// Asks the real server the same.
fn ask(upstream: &str, request: &str) -> io::Result<(String, Vec<u8>)> {
    let mut far = TcpStream::connect(upstream)?;
    let own = |line: &&str| !line.to_ascii_lowercase().starts_with("connection:") && !line.is_empty();
    let request = request.lines().filter(own).fold(String::new(), |request, line| request + line + "\r\n");
    write!(far, "{request}Connection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    far.read_to_end(&mut answer)?;
    let end =
        answer.windows(4).position(|window| window == b"\r\n\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
    Ok((String::from_utf8_lossy(&answer[..end]).into_owned(), answer[end + 4..].to_vec()))
}
