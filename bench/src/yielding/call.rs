//! A synthetic video call: packets evenly spaced, both ways, each with its number and the time at which it was sent.

use std::net::UdpSocket;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use fs_err as fs;
use serde::{Deserialize, Serialize};

/// Bytes of a packet's payload; with UDP, IP and Ethernet 1,250.
const PAYLOAD: usize = 1208;
const ON_THE_LINK: u64 = 1250;
/// Packets a second: 1.5 Mbit/s on the link.
const PACKETS_A_SECOND: u64 = 150;
/// What is late after the end is lost.
const PATIENCE: Duration = Duration::from_millis(1500);

/// What one side heard.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Heard {
    /// When each packet was sent, in seconds since measuring began, and how long it took, in milliseconds.
    pub(super) delays: Vec<(f64, f64)>,
    /// Packets that were sent and never came.
    pub(super) lost: u64,
    /// What they took of the link.
    pub(super) bits_per_second: f64,
}

impl Heard {
    /// So many hundredths of the delays are no longer than this, in milliseconds.
    pub(super) fn percentile(&self, hundredths: usize) -> f64 {
        let mut delays: Vec<f64> = self.delays.iter().map(|(_, delay)| *delay).collect();
        delays.sort_by(f64::total_cmp);
        delays
            .get((delays.len() * hundredths / 100).min(delays.len().saturating_sub(1)))
            .copied()
            .unwrap_or(0.0)
    }
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap()
}

/// Sends to the other side and listens to it, from `begin` on, for `warm_up` and then `measured`; writes what was heard.
pub(super) fn take_part(
    (own, other): (&str, &str),
    begin: Duration,
    (warm_up, measured): (Duration, Duration),
    heard: &Path,
) {
    let socket = UdpSocket::bind(own).unwrap();
    socket.connect(other).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let from = u64::try_from(warm_up.as_millis()).unwrap() * PACKETS_A_SECOND / 1000;
    let to = from + u64::try_from(measured.as_millis()).unwrap() * PACKETS_A_SECOND / 1000;
    let sending = socket.try_clone().unwrap();
    let (origin, wait) = (Instant::now(), begin.saturating_sub(now()));
    let done = Arc::new(AtomicBool::new(false));
    let finished = done.clone();
    let sender = std::thread::spawn(move || {
        let mut packet = [0; PAYLOAD];
        for number in 0..to {
            let at = origin + wait + Duration::from_nanos(number * 1_000_000_000 / PACKETS_A_SECOND);
            std::thread::sleep(at.saturating_duration_since(Instant::now()));
            packet[..8].copy_from_slice(&number.to_le_bytes());
            packet[8..24].copy_from_slice(&now().as_nanos().to_le_bytes());
            // The other side may not listen yet.
            let _ = sending.send(&packet);
        }
        std::thread::sleep(PATIENCE);
        finished.store(true, Ordering::Relaxed);
    });
    let measuring_from = begin + warm_up;
    let mut delays = Vec::new();
    let mut packet = [0; 2048];
    while !done.load(Ordering::Relaxed) {
        let Ok(PAYLOAD) = socket.recv(&mut packet) else { continue };
        let arrived = now().as_nanos();
        let number = u64::from_le_bytes(packet[..8].try_into().unwrap());
        let sent = u128::from_le_bytes(packet[8..24].try_into().unwrap());
        if (from..to).contains(&number) {
            let since = sent.saturating_sub(measuring_from.as_nanos());
            delays.push((since as f64 / 1e9, arrived.saturating_sub(sent) as f64 / 1e6));
        }
    }
    sender.join().unwrap();
    let lost = (to - from).saturating_sub(delays.len() as u64);
    let bits_per_second = (delays.len() as u64 * ON_THE_LINK * 8) as f64 / measured.as_secs_f64();
    fs::write(heard, serde_json::to_vec(&Heard { delays, lost, bits_per_second }).unwrap()).unwrap();
}
