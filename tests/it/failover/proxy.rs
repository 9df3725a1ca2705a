//! The network before a server: it passes bytes on, keeps them until it is mended, or leads to another server.

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
    network: watch::Sender<Network>,
    task: AbortHandle,
}

#[derive(Debug, Clone, Copy)]
struct Network {
    is_cut: bool,
    target: SocketAddr,
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
        let network = watch::Sender::new(Network { is_cut: false, target: local(target) });
        let state = network.subscribe();
        let task = tokio::spawn(async move {
            loop {
                // A busy machine may run out of sockets for a moment.
                let Ok((client, _)) = listener.accept().await else { continue };
                tokio::spawn(serve(client, state.clone()));
            }
        });
        Self { port, network, task: task.abort_handle() }
    }

    /// From now on nothing passes, and nothing ends: that is how a network fails. What was sent
    /// meanwhile arrives when it is mended.
    pub(crate) fn cut(&self, is_cut: bool) {
        self.network.send_modify(|network| network.is_cut = is_cut);
    }

    /// From now on connections are to this port, and those to another one end.
    pub(crate) fn lead_to(&self, target: u16) {
        self.network.send_modify(|network| network.target = local(target));
    }
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

async fn serve(client: TcpStream, mut state: watch::Receiver<Network>) {
    let Ok(network) = state.wait_for(|network| !network.is_cut).await.map(|network| *network)
    else {
        return;
    };
    let target = network.target;
    let Ok(server) = TcpStream::connect(target).await else { return };
    let _ = client.set_nodelay(true);
    let _ = server.set_nodelay(true);
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    // When one side has failed, the other one ends, too.
    let passed = async {
        tokio::try_join!(
            pass(from_client, to_server, state.clone()),
            pass(from_server, to_client, state.clone())
        )
    };
    let mut moved = state.clone();
    tokio::select! {
        _ = passed => {}
        _ = moved.wait_for(|network| network.target != target) => {}
    }
}

async fn passable(state: &mut watch::Receiver<Network>) -> io::Result<()> {
    let passable = state.wait_for(|network| !network.is_cut).await;
    passable.map(drop).map_err(|_| io::ErrorKind::BrokenPipe.into())
}

async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut state: watch::Receiver<Network>,
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
