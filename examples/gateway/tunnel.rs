//! The tunnel of a WebSocket: once both sides have switched protocols, it copies bytes both ways.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use metrics::gauge;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};
use tokio::sync::watch;
use tokio::time::sleep;
use tracing::Instrument;

use crate::body::Activity;
use crate::server::Seat;

/// The open tunnels. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Tunnels {
    open: Arc<watch::Sender<()>>,
    idle: Duration,
    lifetime: Duration,
}

impl Tunnels {
    /// A tunnel ends when it was silent for `idle`, and after `lifetime` in any case. **The gateway
    /// does not see what is inside, so revoking the token does not end the tunnel.** The client then
    /// connects again, and its token is checked again.
    pub(crate) fn new(idle: Duration, lifetime: Duration) -> Self {
        Self { open: Arc::new(watch::Sender::new(())), idle, lifetime }
    }

    /// Connects the two sides once both have switched protocols. The client keeps its place among the
    /// connections.
    pub(crate) fn open(&self, client: OnUpgrade, service: OnUpgrade, seat: Seat) {
        let (open, idle, lifetime) = (self.open.subscribe(), self.idle, self.lifetime);
        let tunnel = async move {
            gauge!("gateway_tunnels").increment(1);
            let end = tokio::select! {
                end = connect(client, service, idle) => end,
                () = sleep(lifetime) => Ok("its time is over"),
            };
            gauge!("gateway_tunnels").decrement(1);
            match end {
                Ok(why) => tracing::info!(why, "a tunnel ends"),
                Err(error) => tracing::info!(%error, "a tunnel breaks"),
            }
            drop((open, seat));
        };
        tokio::spawn(tunnel.in_current_span());
    }

    /// Returns once none is open.
    pub(crate) async fn closed(&self) {
        self.open.closed().await;
    }
}

async fn connect(
    client: OnUpgrade,
    service: OnUpgrade,
    idle: Duration,
) -> io::Result<&'static str> {
    let (client, service) = tokio::try_join!(client, service).map_err(io::Error::other)?;
    let (from_client, to_client) = split(TokioIo::new(client));
    let (from_service, to_service) = split(TokioIo::new(service));
    let activity = Activity::new();
    let both = async {
        tokio::try_join!(
            pump(from_client, to_service, &activity),
            pump(from_service, to_client, &activity),
        )
    };
    tokio::select! {
        end = both => end.map(|_| "both sides have ended"),
        () = activity.stalled(idle) => Ok("nobody said anything"),
    }
}

async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    activity: &Activity,
) -> io::Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let read = from.read(&mut buffer).await?;
        activity.note(false);
        if read == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer[..read]).await?;
        to.flush().await?;
        activity.note(false);
    }
}
