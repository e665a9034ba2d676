//! A connection's socket, which sends windows of files in place of their stand-ins (`window.rs`), and notes for the watch
//! what comes and what goes.
//!
//! The head of an answer that a window follows is sent with `MSG_MORE`, so that both leave in the same packets.
//!
//! Threats: *a file that becomes shorter*: sendfile finds its end, and the connection breaks off before the promised
//! length. *A hyper that reads or copies stand-ins*: what is written and the queue of windows disagree, at the latest
//! when it flushes, and the connection breaks off.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, ready};

use rustix::net::{SendAncillaryBuffer, SendFlags, sendmsg};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

use super::body::became_shorter;
use super::watch::Pulse;
use super::window::{Window, stands_in};

#[derive(Debug)]
pub(super) struct Socket {
    stream: TcpStream,
    pulse: Arc<Pulse>,
}

impl Socket {
    pub(super) fn new(stream: TcpStream, pulse: Arc<Pulse>) -> Self {
        Self { stream, pulse }
    }

    /// Sends by `send` when the network takes something; how many bytes it took.
    fn poll_send(
        &self,
        context: &mut Context<'_>,
        mut send: impl FnMut(&TcpStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        if self.pulse.was_nudged() {
            match send(&self.stream) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                sent => return Poll::Ready(sent.inspect(|sent| self.pulse.sent(*sent))),
            }
        }
        loop {
            let Poll::Ready(ready) = self.stream.poll_write_ready(context) else {
                self.pulse.blocked(context.waker());
                return Poll::Pending;
            };
            ready?;
            match self.stream.try_io(Interest::WRITABLE, || send(&self.stream)) {
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                sent => return Poll::Ready(sent.inspect(|sent| self.pulse.sent(*sent))),
            }
        }
    }

    fn poll_send_window(&self, context: &mut Context<'_>, stand_in: &[u8]) -> Poll<io::Result<usize>> {
        let Window { file, offset, left, .. } = self.pulse.windows.first(stand_in)?;
        let sent = ready!(self.poll_send(context, |stream| {
            let mut at = offset;
            Ok(rustix::fs::sendfile(stream, &*file, Some(&mut at), left)?)
        }))?;
        if sent == 0 {
            return Poll::Ready(Err(became_shorter()));
        }
        self.pulse.stats.sendfile_calls.fetch_add(1, Relaxed);
        self.pulse.windows.advance(sent);
        Poll::Ready(Ok(sent))
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        if buffer.filled().len() > before {
            self.pulse.heard();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let (slices, flags) = match slices.iter().position(|slice| stands_in(slice)) {
            Some(0) => return self.poll_send_window(context, &slices[0]),
            Some(window) => (&slices[..window], SendFlags::NOSIGNAL | SendFlags::MORE),
            None => (slices, SendFlags::NOSIGNAL),
        };
        self.poll_send(context, |stream| {
            Ok(sendmsg(stream, slices, &mut SendAncillaryBuffer::default(), flags)?)
        })
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.pulse.windows.is_empty() {
            Poll::Ready(Ok(()))
        } else {
            Poll::Ready(Err(io::Error::other("windows of a body were not sent")))
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
