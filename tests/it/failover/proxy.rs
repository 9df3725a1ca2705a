//! The network before a server: it passes bytes on, or keeps them until it is mended.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::AbortHandle;

/// A proxy, until it is dropped.
#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) port: u16,
    is_cut: watch::Sender<bool>,
    task: AbortHandle,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Proxy {
    /// Listens on a free port, and passes on to this one.
    pub(crate) async fn to(target: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let target = SocketAddr::from(([127, 0, 0, 1], target));
        let is_cut = watch::Sender::new(false);
        let state = is_cut.subscribe();
        let task = tokio::spawn(async move {
            loop {
                // A busy machine may run out of sockets for a moment.
                let Ok((client, _)) = listener.accept().await else { continue };
                tokio::spawn(serve(client, target, state.clone()));
            }
        });
        Self { port, is_cut, task: task.abort_handle() }
    }

    /// From now on nothing passes, and nothing ends: that is how a network fails. What was sent
    /// meanwhile arrives when it is mended.
    pub(crate) fn cut(&self, is_cut: bool) {
        self.is_cut.send_replace(is_cut);
    }
}

async fn serve(client: TcpStream, target: SocketAddr, state: watch::Receiver<bool>) {
    if passable(&mut state.clone()).await.is_err() {
        return;
    }
    let Ok(server) = TcpStream::connect(target).await else { return };
    let _ = client.set_nodelay(true);
    let _ = server.set_nodelay(true);
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    // When one side has failed, the other one ends, too.
    let _ = tokio::try_join!(
        pass(from_client, to_server, state.clone()),
        pass(from_server, to_client, state)
    );
}

async fn passable(state: &mut watch::Receiver<bool>) -> io::Result<()> {
    let passable = state.wait_for(|is_cut| !is_cut).await;
    passable.map(drop).map_err(|_| io::ErrorKind::BrokenPipe.into())
}

async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut state: watch::Receiver<bool>,
) -> io::Result<()> {
    let mut bytes = vec![0; 16 * 1024];
    loop {
        let read = from.read(&mut bytes).await;
        passable(&mut state).await?;
        match read? {
            0 => return to.shutdown().await,
            read => to.write_all(&bytes[..read]).await?,
        }
    }
}
