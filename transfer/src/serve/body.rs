//! The bodies of answers: bytes, a part of a file, or a stream.
//!
//! A part of a file goes out in windows, each of which is in memory before it is sent (`gate.rs`). What becomes of a
//! window depends on who asks for it: the server's own HTTP/1 connections get its stand-in and send it with sendfile
//! (`window.rs`); for TLS, HTTP/2 and everybody else it is read, in smaller pieces, into memory.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::Stream;
use hyper::body::{Frame, SizeHint};

use super::gate;
use super::watch::Answering;
use super::window::{WINDOW_BYTES, Window};

/// Bytes read at a time where they cannot be sent from the file: below what the allocator asks the system for each time.
const PIECE_BYTES: usize = 64 << 10;

/// The body of every response.
#[derive(Debug)]
pub struct Body(Kind);

enum Kind {
    Whole(Bytes),
    File(FileBody),
    Stream(Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>),
}

impl std::fmt::Debug for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Whole(bytes) => write!(f, "{} bytes", bytes.len()),
            Self::File(file) => write!(f, "{} bytes of a file", file.left),
            Self::Stream(_) => f.write_str("a stream"),
        }
    }
}

/// A body of these bytes.
pub fn body(bytes: impl Into<Bytes>) -> Body {
    Body(Kind::Whole(bytes.into()))
}

/// A body that grows while it is sent; an error in it breaks the connection off. Whoever knows its length says so in
/// `Content-Length`.
pub fn streaming(stream: impl Stream<Item = io::Result<Bytes>> + Send + 'static) -> Body {
    Body(Kind::Stream(Box::pin(stream)))
}

impl Body {
    pub(super) fn of_file(file: Arc<File>, range: Range<u64>) -> Self {
        Self(Kind::File(FileBody {
            file,
            offset: range.start,
            left: range.end.saturating_sub(range.start),
            ready: 0,
            reading_ahead: None,
        }))
    }

    fn is_at_its_end(&self) -> bool {
        match &self.0 {
            Kind::Whole(bytes) => bytes.is_empty(),
            Kind::File(file) => file.left == 0,
            Kind::Stream(_) => false,
        }
    }

    fn length(&self) -> SizeHint {
        match &self.0 {
            Kind::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Kind::File(file) => SizeHint::with_exact(file.left),
            Kind::Stream(_) => SizeHint::default(),
        }
    }

    /// The next bytes, of a file by way of `take`.
    fn poll_bytes(
        &mut self,
        context: &mut Context<'_>,
        take: impl FnOnce(&mut FileBody, &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let bytes = match &mut self.0 {
            Kind::Whole(bytes) if bytes.is_empty() => None,
            Kind::Whole(bytes) => Some(Ok(std::mem::take(bytes))),
            Kind::File(file) => ready!(take(file, context)),
            Kind::Stream(stream) => ready!(stream.as_mut().poll_next(context)),
        };
        Poll::Ready(bytes.map(|bytes| bytes.map(Frame::data)))
    }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.poll_bytes(context, FileBody::poll_piece)
    }

    fn is_end_stream(&self) -> bool {
        self.is_at_its_end()
    }

    fn size_hint(&self) -> SizeHint {
        self.length()
    }
}

struct FileBody {
    file: Arc<File>,
    offset: u64,
    left: u64,
    /// So many of the next bytes are in memory, or were.
    ready: usize,
    reading_ahead: Option<Pin<Box<dyn Future<Output = io::Result<()>> + Send>>>,
}

impl FileBody {
    /// Waits until the next bytes are in memory: how many, up to a window; 0 at the end.
    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.ready > 0 || self.left == 0 {
            return Poll::Ready(Ok(self.ready));
        }
        let window = usize::try_from(self.left).unwrap_or(WINDOW_BYTES).min(WINDOW_BYTES);
        if self.reading_ahead.is_none() {
            if gate::is_in_memory(&self.file, self.offset, window) {
                self.ready = window;
                return Poll::Ready(Ok(window));
            }
            self.reading_ahead = Some(Box::pin(gate::read_ahead(self.file.clone(), self.offset, window)));
        }
        if let Some(reading) = &mut self.reading_ahead {
            let read = ready!(reading.as_mut().poll(context));
            self.reading_ahead = None;
            read?;
        }
        self.ready = window;
        Poll::Ready(Ok(window))
    }

    fn advance(&mut self, bytes: usize) {
        self.offset += bytes as u64;
        self.left -= bytes as u64;
        self.ready -= bytes;
    }

    /// The next bytes, read.
    fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        let ready = match ready!(self.poll_ready(context)) {
            Ok(0) => return Poll::Ready(None),
            Ok(ready) => ready,
            Err(error) => return Poll::Ready(Some(Err(error))),
        };
        let mut piece = Vec::with_capacity(ready.min(PIECE_BYTES));
        let read = rustix::io::pread(&*self.file, rustix::buffer::spare_capacity(&mut piece), self.offset);
        Poll::Ready(Some(match read {
            Ok(0) => Err(became_shorter()),
            Ok(_) => {
                piece.truncate(ready);
                self.advance(piece.len());
                Ok(Bytes::from(piece))
            }
            Err(error) => Err(error.into()),
        }))
    }

    /// The stand-in of the next window.
    fn poll_window(
        &mut self,
        context: &mut Context<'_>,
        answering: &Answering,
    ) -> Poll<Option<io::Result<Bytes>>> {
        let ready = match ready!(self.poll_ready(context)) {
            Ok(0) => return Poll::Ready(None),
            Ok(ready) => ready,
            Err(error) => return Poll::Ready(Some(Err(error))),
        };
        let stand_in = answering.windows().push(Window::new(self.file.clone(), self.offset, ready));
        self.advance(ready);
        Poll::Ready(Some(Ok(stand_in)))
    }
}

/// What there is to say when a file ends before the length that was promised of it.
pub(super) fn became_shorter() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the file became shorter while it was served")
}

/// A body on its way through one of our own connections.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) body: Body,
    /// Tells the watch, when it is dropped, that the connection waits for a request again.
    pub(super) answering: Answering,
    /// The socket beneath knows stand-ins.
    pub(super) by_sendfile: bool,
}

impl hyper::body::Body for Outgoing {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let Self { body, answering, by_sendfile } = &mut *self;
        if *by_sendfile {
            body.poll_bytes(context, |file, context| file.poll_window(context, answering))
        } else {
            body.poll_bytes(context, FileBody::poll_piece)
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_at_its_end()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.length()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use http_body_util::BodyExt;

    use super::*;

    fn file(length: usize) -> (Arc<File>, Vec<u8>) {
        let content: Vec<u8> = (0..length).map(|at| u8::try_from(at % 251).unwrap()).collect();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&content).unwrap();
        (Arc::new(file), content)
    }

    #[tokio::test]
    async fn a_part_of_a_file_is_just_that() {
        let (file, content) = file(3 * WINDOW_BYTES / 2);
        let length = content.len() as u64;
        for range in [0..length, 0..1, 5..5, 1000..1_200_000, length - 3..length] {
            let part = &content[usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap()];
            let collected = Body::of_file(file.clone(), range.clone()).collect().await.unwrap().to_bytes();
            assert!(collected == part, "{range:?}");
        }
    }

    #[tokio::test]
    async fn a_file_that_is_shorter_than_promised_ends_in_an_error() {
        let (file, content) = file(100);
        let error = Body::of_file(file, 0..101).collect().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{} bytes are there", content.len());
    }

    #[tokio::test]
    async fn a_stream_is_sent_as_it_comes_and_breaks_off_with_its_error() {
        let pieces = ["one ", "two"].map(|piece| Ok(Bytes::from(piece)));
        let whole = streaming(futures_util::stream::iter(pieces)).collect().await.unwrap();
        assert_eq!(whole.to_bytes(), "one two");
        let broken = [Ok(Bytes::from("one")), Err(io::Error::other("gone"))];
        assert!(streaming(futures_util::stream::iter(broken)).collect().await.is_err());
    }
}
