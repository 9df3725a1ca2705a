//! A proxy before the server that can cut connections, lose answers, or stall. It counts the commands of
//! clients: packets with the sequence number 0. What only sets up a
//! session is not counted.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::time::timeout;

/// Whether a command only tests or sets up its session.
fn does_nothing(command: &[u8]) -> bool {
    const QUERY: u8 = 0x03;
    const PING: u8 = 0x0e;
    const PREPARE: u8 = 0x16;
    match command {
        [PING | PREPARE, ..] => true,
        [QUERY, text @ ..] => ["SET ", "SHOW ", "SELECT @@", "SELECT VERSION()"]
            .iter()
            .any(|start| text.trim_ascii_start().starts_with(start.as_bytes())),
        _ => false,
    }
}

/// What the proxy does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Normal,
    /// So many more commands reach the server. Then every connection is cut, and new ones are refused.
    After(u32),
    /// Commands reach the server. Their answers do not come back, and the connection is cut.
    AnswersLost,
    /// After so many more commands, the answer to one is lost, and its connection is cut.
    OneAnswerLost(u32),
    /// After so many more commands, nothing moves any more, and connections stay open.
    Stalled(u32),
}

#[derive(Debug)]
pub(crate) struct Proxy {
    url: String,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    mode: Mutex<Mode>,
    /// The sessions on the server, as the server numbers them.
    sessions: Mutex<Vec<u32>>,
    /// Wakes what is stalled.
    changed: Notify,
}

impl Shared {
    fn mode(&self) -> Mode {
        *self.mode.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What to do with a command.
    fn next(&self) -> Mode {
        let mut mode = self.mode.lock().unwrap_or_else(PoisonError::into_inner);
        let now = *mode;
        match &mut *mode {
            Mode::After(left) | Mode::Stalled(left) | Mode::OneAnswerLost(left) if *left > 0 => {
                *left -= 1;
                Mode::Normal
            }
            Mode::OneAnswerLost(_) => {
                *mode = Mode::Normal;
                now
            }
            _ => now,
        }
    }
}

impl Proxy {
    pub(crate) async fn start(url: &str) -> Self {
        let (scheme, rest) = url.split_once("://").unwrap();
        let (user, rest) = rest.rsplit_once('@').unwrap();
        let (address, database) = rest.split_once('/').unwrap();
        let address = match address.contains(':') {
            true => address.to_owned(),
            false => format!("{address}:3306"),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            mode: Mutex::new(Mode::Normal),
            sessions: Mutex::default(),
            changed: Notify::new(),
        });
        tokio::spawn(accept(listener, address, Arc::clone(&shared)));
        Self { url: format!("{scheme}://{user}@127.0.0.1:{port}/{database}"), shared }
    }

    pub(crate) fn url(&self) -> String {
        self.url.clone()
    }

    pub(crate) fn set(&self, mode: Mode) {
        *self.shared.mode.lock().unwrap_or_else(PoisonError::into_inner) = mode;
        self.shared.changed.notify_waiters();
    }

    /// The numbers of the sessions that were ever opened through the proxy.
    pub(crate) fn sessions(&self) -> Vec<u32> {
        self.shared.sessions.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn accept(listener: TcpListener, address: String, shared: Arc<Shared>) {
    while let Ok((client, _)) = listener.accept().await {
        if shared.mode() == Mode::After(0) {
            continue;
        }
        let Ok(server) = TcpStream::connect(&address).await else { continue };
        let _ = client.set_nodelay(true);
        let _ = server.set_nodelay(true);
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = server.into_split();
        let link = Arc::new(Link {
            shared: Arc::clone(&shared),
            is_answer_wanted: AtomicBool::new(true),
            cut: Notify::new(),
        });
        tokio::spawn(Arc::clone(&link).commands(from_client, to_server));
        tokio::spawn(link.answers(from_server, to_client));
    }
}

/// One connection.
struct Link {
    shared: Arc<Shared>,
    /// Whether the answer to the last command comes back.
    is_answer_wanted: AtomicBool,
    /// Both sides end, whichever ends first.
    cut: Notify,
}

impl Link {
    /// Passes the packets of a client on.
    async fn commands(self: Arc<Self>, mut from: OwnedReadHalf, mut to: OwnedWriteHalf) {
        loop {
            let mut head = [0; 4];
            let read = tokio::select! {
                read = from.read_exact(&mut head) => read,
                () = self.cut.notified() => break,
            };
            if read.is_err() {
                break;
            }
            let [a, b, c, sequence] = head;
            let mut body = vec![0; u32::from_le_bytes([a, b, c, 0]) as usize];
            if from.read_exact(&mut body).await.is_err() {
                break;
            }
            if sequence == 0 && !self.may_pass(&body).await {
                break;
            }
            if to.write_all(&head).await.is_err() || to.write_all(&body).await.is_err() {
                break;
            }
        }
        self.cut.notify_one();
    }

    /// Whether a command reaches the server.
    async fn may_pass(&self, command: &[u8]) -> bool {
        let shared = &self.shared;
        let is_unreachable = matches!(shared.mode(), Mode::After(0) | Mode::Stalled(0));
        let mode = match does_nothing(command) && !is_unreachable {
            true => Mode::Normal,
            false => shared.next(),
        };
        let is_lost = matches!(mode, Mode::AnswersLost | Mode::OneAnswerLost(_));
        self.is_answer_wanted.store(!is_lost, Ordering::SeqCst);
        if matches!(mode, Mode::Stalled(_)) {
            loop {
                let changed = shared.changed.notified();
                if !matches!(shared.mode(), Mode::Stalled(_)) {
                    return false;
                }
                changed.await;
            }
        }
        !matches!(mode, Mode::After(_))
    }

    async fn answers(self: Arc<Self>, mut from: OwnedReadHalf, mut to: OwnedWriteHalf) {
        let mut buffer = vec![0; 65_536];
        let mut is_greeting = true;
        loop {
            let read = tokio::select! {
                read = from.read(&mut buffer) => read,
                () = self.cut.notified() => break,
            };
            let Ok(count @ 1..) = read else { break };
            if std::mem::take(&mut is_greeting)
                && let Some(session) = session(&buffer[..count])
            {
                let sessions = &self.shared.sessions;
                sessions.lock().unwrap_or_else(PoisonError::into_inner).push(session);
            }
            if !self.is_answer_wanted.load(Ordering::SeqCst) {
                let _ = to.shutdown().await;
                // The server finishes, as if the client listened.
                let quiet = Duration::from_millis(50);
                while let Ok(Ok(1..)) = timeout(quiet, from.read(&mut buffer)).await {}
                break;
            }
            if to.write_all(&buffer[..count]).await.is_err() {
                break;
            }
        }
        self.cut.notify_one();
    }
}

/// The number of a session, which the server tells in its greeting after its version.
fn session(greeting: &[u8]) -> Option<u32> {
    let version = greeting.get(5..)?;
    let end = version.iter().position(|byte| *byte == 0)?;
    version.get(end + 1..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
}
