//! A port for a server that a test starts.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering};

/// From here on, and below the ports that systems give to connections, with room for a second one 10,000 above.
const FIRST: u16 = 12_000;
const PORTS: u16 = 10_000;

/// A port that is free, and that this process gets only once.
///
/// Between this answer and the server's start, no connection can take it: these ports are none that a system
/// chooses by itself. The port 10,000 above is free, too, where a node of a Redis Cluster hears the others.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Processes that run at the same time begin at different places.
    let start = (std::process::id().wrapping_mul(61) % u32::from(PORTS)) as u16;
    let is_free = |port| TcpListener::bind(("127.0.0.1", port)).is_ok();
    for _ in 0..PORTS {
        let step = NEXT.fetch_add(1, Ordering::Relaxed) % PORTS;
        let port = FIRST + (start + step) % PORTS;
        if is_free(port) && is_free(port + 10_000) {
            return port;
        }
    }
    panic!("no port is free");
}
