//! The socket that a server listens on: its own, or one that it was handed at its start.
//!
//! systemd passes sockets as file descriptors from 3 on and says so in `LISTEN_FDS` (`sd_listen_fds(3)`). It keeps them open
//! while a service is replaced: who connects meanwhile waits, and nobody is refused. The old process finishes what it
//! sends (`Limits::drain_time`), the new one accepts from the same queue.

use std::io;
use std::net::SocketAddr;

use listenfd::ListenFd;
use tokio::net::TcpListener;

/// The socket passed to this process, or else one bound to `address`.
///
/// # Errors
/// When what was passed is no listening TCP socket, or the address cannot be bound.
pub async fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    match ListenFd::from_env().take_tcp_listener(0)? {
        Some(passed) => {
            passed.set_nonblocking(true)?;
            TcpListener::from_std(passed)
        }
        None => TcpListener::bind(address).await,
    }
}
