//! Between a workstation and its node: passes everything on, and keeps the heads of the requests that have no body.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::serve::{Got, read_head};

/// A listener that leads to a node.
pub(super) struct Tap {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<Vec<String>>>>,
}

impl Tap {
    pub(super) async fn start(node: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let all = asked.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let connection = {
                    let mut all = all.lock().unwrap();
                    all.push(Vec::new());
                    all.len() - 1
                };
                let all = all.clone();
                tokio::spawn(async move {
                    let server = TcpStream::connect(node).await.unwrap();
                    let (mut from_client, mut to_client) = client.into_split();
                    let (mut from_server, mut to_server) = server.into_split();
                    let back = tokio::spawn(async move {
                        let _ = tokio::io::copy(&mut from_server, &mut to_client).await;
                    });
                    let (mut buffer, mut text) = (vec![0; 64 << 10], String::new());
                    while let Ok(read) = from_client.read(&mut buffer).await
                        && read > 0
                    {
                        text.push_str(&String::from_utf8_lossy(&buffer[..read]));
                        while let Some(end) = text.find("\r\n\r\n") {
                            let head: String = text.drain(..end + 4).collect();
                            if head.starts_with("GET ") {
                                all.lock().unwrap()[connection].push(head);
                            }
                        }
                        if to_server.write_all(&buffer[..read]).await.is_err() {
                            break;
                        }
                    }
                    drop(to_server);
                    let _ = back.await;
                });
            }
        });
        Self { address, asked }
    }

    pub(super) fn address(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// What was asked, connection by connection.
    pub(super) fn asked(&self) -> Vec<Vec<String>> {
        let asked = self.asked.lock().unwrap().clone();
        asked.into_iter().filter(|connection| !connection.is_empty()).collect()
    }
}

/// Asks once, on a connection of its own; the head of the answer and its body.
pub(super) async fn answer_to(address: SocketAddr, head: &str) -> (Got, Vec<u8>) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut buffer = vec![0; 64 << 10];
    let (got, filled, begins) = read_head(&mut stream, &mut buffer).await.unwrap();
    let mut body = buffer[begins..filled].to_vec();
    body.resize(usize::try_from(got.length).unwrap(), 0);
    stream.read_exact(&mut body[filled - begins..]).await.unwrap();
    (got, body)
}
