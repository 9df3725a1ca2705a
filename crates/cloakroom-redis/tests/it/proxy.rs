//! A proxy before a server, which fails as it is told. It takes a connection's commands one by one.

use std::io;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What becomes of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Through,
    /// Nothing is passed on, and nothing breaks.
    Frozen,
    /// So many commands are passed on. Then every connection breaks.
    After(u32),
    /// Every command is passed on, and its connection breaks before the answer.
    AnswersLost,
    /// So many commands are answered. The next is passed on, and its connection breaks before the answer;
    /// all others are passed on.
    OneAnswerLost(u32),
    /// So many commands are answered. The next is not passed on, and its connection breaks; all others are
    /// passed on.
    OneCommandLost(u32),
}

enum Fate {
    Passed,
    Unanswered,
    Lost,
}

impl Mode {
    fn next(&mut self, counts: bool) -> Fate {
        match self {
            Self::Through | Self::Frozen => Fate::Passed,
            Self::After(0) => Fate::Lost,
            Self::AnswersLost if counts => Fate::Unanswered,
            Self::OneAnswerLost(0) if counts => {
                *self = Self::Through;
                Fate::Unanswered
            }
            Self::OneCommandLost(0) if counts => {
                *self = Self::Through;
                Fate::Lost
            }
            Self::After(left) | Self::OneAnswerLost(left) | Self::OneCommandLost(left) => {
                *left -= u32::from(counts);
                Fate::Passed
            }
            Self::AnswersLost => Fate::Passed,
        }
    }
}

#[derive(Debug)]
pub(crate) struct Proxy {
    port: u16,
    mode: Arc<Mutex<Mode>>,
    /// Says that the mode changed.
    changed: watch::Sender<()>,
    server: Arc<Mutex<String>>,
    task: JoinHandle<()>,
}

impl Proxy {
    /// A proxy before the server at this address.
    pub(crate) async fn start(server: String) -> Self {
        Self::start_as(server, false).await
    }

    /// A proxy that passes on bytes, such as those between a master and its replica, until it is told
    /// [`Mode::After`].
    pub(crate) async fn start_raw(server: String) -> Self {
        Self::start_as(server, true).await
    }

    async fn start_as(server: String, is_raw: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let mode = Arc::new(Mutex::new(Mode::Through));
        let (changed, observed) = watch::channel(());
        let shared = Arc::clone(&mode);
        let server = Arc::new(Mutex::new(server));
        let to = Arc::clone(&server);
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (mode, observed) = (Arc::clone(&shared), observed.clone());
                let server = to.lock().unwrap().clone();
                if is_raw {
                    tokio::spawn(pass(client, server, mode, observed));
                } else {
                    tokio::spawn(serve(client, server, mode, observed));
                }
            }
        });
        Self { port, mode, changed, server, task }
    }

    pub(crate) const fn port(&self) -> u16 {
        self.port
    }

    /// New connections lead to another server.
    pub(crate) fn lead_to(&self, server: String) {
        *self.server.lock().unwrap() = server;
    }

    /// Reads that wait are broken, too.
    pub(crate) fn set(&self, mode: Mode) {
        *self.mode.lock().unwrap() = mode;
        self.changed.send_replace(());
    }

    /// The mode, after the proxy as well.
    pub(crate) fn watch(&self) -> Arc<Mutex<Mode>> {
        Arc::clone(&self.mode)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass(
    mut client: TcpStream,
    server: String,
    mode: Arc<Mutex<Mode>>,
    mut changed: watch::Receiver<()>,
) -> io::Result<()> {
    changed.mark_unchanged();
    if *mode.lock().unwrap() == Mode::After(0) {
        return Ok(());
    }
    let mut server = TcpStream::connect(server).await?;
    tokio::select! {
        passed = tokio::io::copy_bidirectional(&mut client, &mut server) => passed.map(drop),
        _ = changed.changed() => Ok(()),
    }
}

async fn serve(
    mut client: TcpStream,
    server: String,
    mode: Arc<Mutex<Mode>>,
    mut changed: watch::Receiver<()>,
) -> io::Result<()> {
    if *mode.lock().unwrap() == Mode::After(0) {
        return Ok(());
    }
    let mut server = TcpStream::connect(server).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (mut asked, mut answered) = (Vec::new(), Vec::new());
    loop {
        let Some(command) = frame(&mut client, &mut asked).await? else { return Ok(()) };
        // What belongs to a connection, and the reads that wait, are not operations of a call.
        let text = String::from_utf8_lossy(&command[..command.len().min(64)]).to_uppercase();
        let waits = text.contains("\r\nXREAD\r\n");
        let counts = !waits
            && !["CLIENT", "AUTH", "HELLO", "SELECT", "XREVRANGE"]
                .iter()
                .any(|name| text.contains(&format!("\r\n{name}\r\n")));
        while *mode.lock().unwrap() == Mode::Frozen {
            let _ = changed.changed().await;
        }
        let fate = mode.lock().unwrap().next(counts);
        if let Fate::Lost = fate {
            return Ok(());
        }
        server.write_all(&command).await?;
        changed.mark_unchanged();
        let answer = tokio::select! {
            answer = frame(&mut server, &mut answered) => answer?,
            _ = changed.changed(), if waits => return Ok(()),
        };
        let Some(answer) = answer else { return Ok(()) };
        if let Fate::Unanswered = fate {
            return Ok(());
        }
        client.write_all(&answer).await?;
    }
}

/// The next command or answer; `None` at the end.
async fn frame(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> io::Result<Option<Vec<u8>>> {
    loop {
        if let Some(length) = length(buffer) {
            let rest = buffer.split_off(length);
            return Ok(Some(std::mem::replace(buffer, rest)));
        }
        let mut chunk = [0; 65_536];
        match stream.read(&mut chunk).await? {
            0 => return Ok(None),
            count => buffer.extend_from_slice(&chunk[..count]),
        }
    }
}

/// The length of the first value in RESP, if all of it is there.
fn length(bytes: &[u8]) -> Option<usize> {
    let line = bytes.windows(2).position(|pair| pair == b"\r\n")? + 2;
    let number = || std::str::from_utf8(&bytes[1..line - 2]).ok()?.parse::<i64>().ok();
    match bytes[0] {
        b'$' => {
            let Ok(size) = usize::try_from(number()?) else { return Some(line) };
            (bytes.len() >= line + size + 2).then_some(line + size + 2)
        }
        b'*' => {
            let mut total = line;
            for _ in 0..number()?.max(0) {
                total += length(bytes.get(total..)?)?;
            }
            Some(total)
        }
        _ => Some(line),
    }
}
