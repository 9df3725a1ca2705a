//! The network between an edge and the authorization server, with its faults.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use cloakroom::core::Random;
use cloakroom::core::revocation::{
    Cursor, EntryId, Epoch, LogEntry, LogEvent, RevocationBatch, RevocationPage,
};
use cloakroom::core::time::UnixTime;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::authority::{CLOCK_SKEW, HEARTBEAT};

/// What becomes of what is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// It arrives.
    Pass,
    /// It stays on the way, and so does the answer; connections stay open.
    Hold,
    /// Somebody else answers each question for the revocation log: that there is nothing new, or
    /// with a heartbeat that nobody has seen, and that was written then.
    Lie(UnixTime),
}

/// A TCP proxy. Where it leads to may change, and may be nowhere.
#[derive(Debug)]
pub(crate) struct Wire {
    pub(crate) address: SocketAddr,
    state: Arc<State>,
    task: AbortHandle,
}

#[derive(Debug)]
struct State {
    mode: watch::Sender<Mode>,
    /// Counts up when all connections are to be cut.
    cuts: watch::Sender<u64>,
    target: watch::Receiver<Option<SocketAddr>>,
    cut: AtomicUsize,
    held: AtomicUsize,
    lies: AtomicUsize,
}

impl Wire {
    pub(crate) async fn new(target: watch::Receiver<Option<SocketAddr>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            mode: watch::Sender::new(Mode::Pass),
            cuts: watch::Sender::new(0),
            target,
            cut: AtomicUsize::default(),
            held: AtomicUsize::default(),
            lies: AtomicUsize::default(),
        });
        let task = tokio::spawn(accept(listener, Arc::clone(&state))).abort_handle();
        Self { address, state, task }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// From now on. Who lied is not believed on the same connection again: it is cut.
    pub(crate) fn set(&self, mode: Mode) {
        let before = self.state.mode.send_replace(mode);
        let lies = |mode| matches!(mode, Mode::Lie(_));
        if lies(before) != lies(mode) {
            self.cut();
        }
    }

    /// Cuts every connection that there is.
    pub(crate) fn cut(&self) {
        self.state.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// How many connections were cut.
    pub(crate) fn was_cut(&self) -> usize {
        self.state.cut.load(Ordering::SeqCst)
    }

    /// How often something was held up.
    pub(crate) fn held(&self) -> usize {
        self.state.held.load(Ordering::SeqCst)
    }

    /// How many lies were told.
    pub(crate) fn lies(&self) -> usize {
        self.state.lies.load(Ordering::SeqCst)
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.task.abort();
        self.cut();
    }
}

async fn accept(listener: TcpListener, state: Arc<State>) {
    while let Ok((near, _)) = listener.accept().await {
        let state = Arc::clone(&state);
        let mut cuts = state.cuts.subscribe();
        tokio::spawn(async move {
            tokio::select! {
                () = connection(near, &state) => {}
                _ = cuts.changed() => drop(state.cut.fetch_add(1, Ordering::SeqCst)),
            }
        });
    }
}

async fn connection(near: TcpStream, state: &State) {
    let mode = *state.mode.borrow();
    if let Mode::Lie(at) = mode {
        return liar(near, at, state).await;
    }
    let target = *state.target.borrow();
    // Nobody listens: what came in is closed.
    let Some(target) = target else { return };
    let Ok(far) = TcpStream::connect(target).await else { return };
    for end in [&near, &far] {
        end.set_nodelay(true).unwrap();
    }
    let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
    // Whichever end is closed: nobody here sends half of something.
    tokio::select! {
        () = pump(near_in, far_out, state) => {}
        () = pump(far_in, near_out, state) => {}
    }
}

async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, state: &State) {
    let (mut mode, mut buffer) = (state.mode.subscribe(), vec![0; 16 * 1024]);
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        if *mode.borrow() == Mode::Hold {
            state.held.fetch_add(1, Ordering::SeqCst);
            let _ = mode.wait_for(|mode| *mode != Mode::Hold).await;
        }
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}

async fn liar(near: TcpStream, at: UnixTime, state: &State) {
    let service = hyper::service::service_fn(|request: Request<Incoming>| async move {
        let lies = state.lies.fetch_add(1, Ordering::SeqCst);
        Ok::<_, Infallible>(nothing_new(&request, (lies % 2 == 1).then_some(at)))
    });
    let http = hyper::server::conn::http1::Builder::new();
    let _ = http.serve_connection(TokioIo::new(near), service).await;
}

fn nothing_new(request: &Request<Incoming>, heartbeat: Option<UnixTime>) -> Response<Full<Bytes>> {
    let query = request.uri().query().unwrap_or_default();
    let after = url::form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "after");
    let next = after.map_or(Cursor::start(), |(_, cursor)| cursor.parse().unwrap());
    let heartbeat = heartbeat.map(|at| {
        let id = EntryId::random(&Random::system()).unwrap();
        LogEntry { id, event: LogEvent::Heartbeat {}, at, until: at + Duration::from_secs(3600) }
    });
    let page = RevocationPage {
        batch: RevocationBatch::Entries {
            entries: heartbeat.into_iter().collect(),
            next,
            more: false,
            newest_bound: Epoch::default(),
        },
        heartbeat: HEARTBEAT,
        clock_skew: CLOCK_SKEW,
    };
    let mut response = Response::new(Full::from(page.to_json()));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
