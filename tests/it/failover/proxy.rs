//! The network before a server: it passes bytes on, keeps them until it is mended, or leads to another server.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::AbortHandle;

/// How much of what a client sends first is searched for its mark.
const HEAD: usize = 1024;

/// A proxy, until it is dropped.
#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) port: u16,
    cut: watch::Sender<Cut>,
    target: watch::Sender<SocketAddr>,
    task: AbortHandle,
}

/// What does not pass.
#[derive(Debug, Clone, Default)]
enum Cut {
    #[default]
    Nothing,
    Everything,
    /// The connections of clients that begin with this text among others.
    Marked(Vec<u8>),
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
        let (cut, target) = (watch::Sender::new(Cut::Nothing), watch::Sender::new(local(target)));
        let (state, leads_to) = (cut.subscribe(), target.subscribe());
        let task = tokio::spawn(async move {
            loop {
                // A busy machine may run out of sockets for a moment.
                let Ok((client, _)) = listener.accept().await else { continue };
                tokio::spawn(serve(client, leads_to.clone(), Passage::new(state.clone())));
            }
        });
        Self { port, cut, target, task: task.abort_handle() }
    }

    /// From now on nothing passes, and nothing ends: that is how a network fails. What was sent
    /// meanwhile arrives when it is mended.
    pub(crate) fn cut(&self, is_cut: bool) {
        self.cut.send_replace(if is_cut { Cut::Everything } else { Cut::Nothing });
    }

    /// Cuts the connections of those clients alone that have sent this text early on.
    pub(crate) fn cut_marked(&self, mark: &str) {
        self.cut.send_replace(Cut::Marked(mark.into()));
    }

    /// From now on connections are to this port, and those to another one end.
    pub(crate) fn lead_to(&self, target: u16) {
        self.target.send_replace(local(target));
    }
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// What one connection knows of cuts.
#[derive(Debug, Clone)]
struct Passage {
    state: watch::Receiver<Cut>,
    /// What the client sent first.
    head: Arc<Mutex<Vec<u8>>>,
}

impl Passage {
    fn new(state: watch::Receiver<Cut>) -> Self {
        Self { state, head: Arc::default() }
    }

    fn note(&self, sent: &[u8]) {
        let mut head = self.head.lock().unwrap();
        let left = HEAD - head.len();
        head.extend(&sent[..sent.len().min(left)]);
    }

    async fn free(&mut self) -> io::Result<()> {
        let head = Arc::clone(&self.head);
        let is_free = |cut: &Cut| match cut {
            Cut::Nothing => true,
            Cut::Everything => false,
            Cut::Marked(mark) => !head.lock().unwrap().windows(mark.len()).any(|part| part == mark),
        };
        let free = self.state.wait_for(is_free).await;
        free.map(drop).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

async fn serve(client: TcpStream, mut leads_to: watch::Receiver<SocketAddr>, mut passage: Passage) {
    if passage.free().await.is_err() {
        return;
    }
    let target = *leads_to.borrow_and_update();
    let Ok(server) = TcpStream::connect(target).await else { return };
    let _ = client.set_nodelay(true);
    let _ = server.set_nodelay(true);
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    // When one side has failed, the other one ends, too.
    let passed = async {
        tokio::try_join!(
            pass(from_client, to_server, passage.clone(), true),
            pass(from_server, to_client, passage, false)
        )
    };
    tokio::select! {
        _ = passed => {}
        _ = leads_to.wait_for(|now| *now != target) => {}
    }
}

async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut passage: Passage,
    is_client: bool,
) -> io::Result<()> {
    let mut bytes = vec![0; 16 * 1024];
    loop {
        let read = from.read(&mut bytes).await;
        if let (Ok(read), true) = (&read, is_client) {
            passage.note(&bytes[..*read]);
        }
        passage.free().await?;
        match read? {
            0 => return to.shutdown().await,
            read => to.write_all(&bytes[..read]).await?,
        }
    }
}
