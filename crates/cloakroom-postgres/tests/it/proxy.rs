//! A proxy before the server, which cuts connections or lets them wait, at the statement that a test names.

use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use cloakroom_postgres::tokio_postgres::Config;
use cloakroom_postgres::tokio_postgres::config::Host;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::server::{url, without_sslmode};

/// The number of the next connection.
static NUMBER: AtomicUsize = AtomicUsize::new(0);

/// What the proxy does with a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Works,
    /// So many statements pass. The next one is not passed on, and its connection ends.
    After(u32),
    /// Statements pass. When the server has answered, the connection ends instead.
    AnswersLost,
    /// Nothing passes, and nothing ends.
    Stalled,
}

#[derive(Debug)]
struct State {
    mode: watch::Sender<Mode>,
    /// Counts the calls of `cut`.
    cuts: watch::Sender<u32>,
    /// The numbers of the connections that the client has not yet closed.
    open: Mutex<BTreeSet<usize>>,
    /// Connections that end.
    doomed: AtomicUsize,
    closed: watch::Sender<()>,
}

/// A proxy; it ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Proxy {
    url: String,
    state: Arc<State>,
    task: AbortHandle,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
        self.state.cuts.send_modify(|cuts| *cuts += 1);
    }
}

impl Proxy {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (base, own) = addresses(port);
        let state = Arc::new(State {
            mode: watch::Sender::new(Mode::Works),
            cuts: watch::Sender::new(0),
            open: Mutex::default(),
            doomed: AtomicUsize::new(0),
            closed: watch::Sender::new(()),
        });
        let shared = Arc::clone(&state);
        let task = tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                if *shared.mode.borrow() == Mode::After(0) {
                    continue;
                }
                tokio::spawn(Arc::clone(&shared).serve(client, base.clone()));
            }
        });
        Self { url: own, state, task: task.abort_handle() }
    }

    /// The URL of the database, through the proxy.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    pub(crate) async fn set(&self, mode: Mode) {
        self.state.mode.send_replace(mode);
        if mode == Mode::After(0) {
            self.cut().await;
        }
        self.settle().await;
    }

    /// Ends all connections, and waits until the client has noticed. It may make new ones meanwhile.
    pub(crate) async fn cut(&self) {
        let mut closed = self.state.closed.subscribe();
        let old = self.state.open.lock().unwrap().clone();
        self.state.cuts.send_modify(|cuts| *cuts += 1);
        while !self.state.open.lock().unwrap().is_disjoint(&old) {
            closed.changed().await.unwrap();
        }
    }

    /// Waits until the client has noticed the end of each connection that ended.
    async fn settle(&self) {
        let mut closed = self.state.closed.subscribe();
        while self.state.doomed.load(Ordering::SeqCst) > 0 {
            closed.changed().await.unwrap();
        }
    }
}

/// The address of the server, and the URL that leads to it through this port.
fn addresses(port: u16) -> (String, String) {
    let plain = without_sslmode(&url());
    let config: Config = plain.parse().unwrap();
    let Host::Tcp(host) = &config.get_hosts()[0] else { panic!("the server has a TCP port") };
    let server = config.get_ports().first().copied().unwrap_or(5432);
    let (scheme, rest) = plain.split_once("://").unwrap();
    let user = rest.rsplit_once('@').map_or("", |(user, _)| user);
    let database = config.get_dbname().unwrap();
    let own = format!("{scheme}://{user}@127.0.0.1:{port}/{database}?sslmode=disable");
    (format!("{host}:{server}"), own)
}

/// What a connection still owes.
#[derive(Debug, Default)]
struct Owed {
    /// For each statement that was passed on: whether its answer gets lost.
    answers: VecDeque<bool>,
    /// Whether the connection ends after these answers.
    ends: bool,
}

impl State {
    async fn serve(self: Arc<Self>, client: TcpStream, server: String) {
        let Ok(server) = TcpStream::connect(server).await else { return };
        client.set_nodelay(true).unwrap();
        server.set_nodelay(true).unwrap();
        let mut cut = self.cuts.subscribe();
        let number = NUMBER.fetch_add(1, Ordering::SeqCst);
        self.open.lock().unwrap().insert(number);
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = server.into_split();
        let owed = Arc::new(Mutex::new(Owed::default()));
        let (settled, settles) = watch::channel(());
        let mut from_client = Some(from_client);
        {
            let forth = self.forth(from_client.as_mut().unwrap(), to_server, &owed, settles);
            let back = back(from_server, to_client, &owed, &settled);
            tokio::select! {
                () = forth => {}
                () = back => {}
                _ = cut.changed() => {}
            }
            // Both halves to the client are shut here, except for reading.
        }
        self.doomed.fetch_add(1, Ordering::SeqCst);
        let mut rest = from_client.take().unwrap();
        let mut sink = [0; 4096];
        // The client closes when it has noticed.
        while rest.read(&mut sink).await.is_ok_and(|read| read > 0) {}
        self.doomed.fetch_sub(1, Ordering::SeqCst);
        self.open.lock().unwrap().remove(&number);
        self.closed.send_replace(());
    }

    /// What becomes of a statement; `false` if that is not decided yet.
    fn decide(&self, executes: bool, owed: &Mutex<Owed>) -> bool {
        let (mut owed, mut is_decided) = (owed.lock().unwrap(), true);
        self.mode.send_if_modified(|mode| {
            match mode {
                Mode::After(0) => owed.ends = true,
                Mode::Stalled => is_decided = false,
                Mode::After(left) => {
                    *left -= 1;
                    owed.answers.push_back(false);
                }
                Mode::Works => owed.answers.push_back(false),
                Mode::AnswersLost => owed.answers.push_back(executes),
            }
            false
        });
        is_decided
    }

    /// From the client to the server, statement by statement.
    async fn forth(
        &self,
        from: &mut OwnedReadHalf,
        mut to: OwnedWriteHalf,
        owed: &Mutex<Owed>,
        mut settles: watch::Receiver<()>,
    ) {
        // The first message has no type.
        let mut head = [0; 4];
        if from.read_exact(&mut head).await.is_err() {
            return;
        }
        let mut startup = vec![0; u32::from_be_bytes(head) as usize - 4];
        from.read_exact(&mut startup).await.unwrap();
        let _ = to.write_all(&[&head[..], &startup].concat()).await;
        let (mut statement, mut executes) = (Vec::new(), false);
        while let Some((kind, message)) = message(from).await {
            statement.extend_from_slice(&message);
            executes |= matches!(kind, b'E' | b'Q');
            match kind {
                // Passwords, and the end.
                b'p' | b'X' => {}
                b'S' | b'Q' => {
                    let mut mode = self.mode.subscribe();
                    while !self.decide(executes, owed) {
                        mode.changed().await.unwrap();
                    }
                    executes = false;
                }
                _ => continue,
            }
            if owed.lock().unwrap().ends {
                break;
            }
            if to.write_all(&statement).await.is_err() {
                return;
            }
            statement.clear();
        }
        // The answers to what was passed on still come.
        while owed.lock().unwrap().ends && !owed.lock().unwrap().answers.is_empty() {
            if settles.changed().await.is_err() {
                return;
            }
        }
    }
}

/// From the server to the client.
async fn back(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    owed: &Mutex<Owed>,
    settled: &watch::Sender<()>,
) {
    // The end of the handshake is no answer to a statement.
    let mut is_ready = false;
    while let Some((kind, message)) = message(&mut from).await {
        let is_lost = owed.lock().unwrap().answers.front().is_some_and(|is_lost| *is_lost);
        if kind == b'Z' && is_ready {
            owed.lock().unwrap().answers.pop_front();
        }
        if is_lost && is_ready {
            if kind == b'Z' {
                return;
            }
            continue;
        }
        is_ready |= kind == b'Z';
        if to.write_all(&message).await.is_err() {
            return;
        }
        settled.send_replace(());
    }
}

/// A message: its type, and all of it.
async fn message(from: &mut OwnedReadHalf) -> Option<(u8, Vec<u8>)> {
    let mut head = [0; 5];
    from.read_exact(&mut head).await.ok()?;
    let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
    let mut message = head.to_vec();
    message.resize(length + 1, 0);
    from.read_exact(&mut message[5..]).await.ok()?;
    Some((head[0], message))
}
