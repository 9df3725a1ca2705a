//! A world with three gateways and an API, and people who use their tokens and lose them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use cloakroom::core::time::UnixTime;
use cloakroom::resource::{
    Cursor, Freshness, RevocationLog, RevocationPage, RevocationReplica, StoreLog,
    UnavailableError, WhenStale,
};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::authority::{API, APPS, Authority, CLOCK_SKEW, EDGES, HEARTBEAT};
use crate::dice::Dice;
use crate::edge::{Wires, api, gateway};
use crate::people::{How, People, Token};
use crate::tape::{Place, Tape};
use crate::web::{Served, Web, bearer};
use crate::wire::Mode;

/// How much happens.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scale {
    /// All tokens that are used. A tenth of them are JWTs of those who sign in again after the key
    /// of the others was lost.
    pub(crate) tokens: usize,
    pub(crate) revocations: usize,
    /// How many visits there are for each revocation.
    pub(crate) pace: usize,
}

/// A log that can be paused, and tells when it was read.
#[derive(Debug)]
struct Followed<L> {
    log: L,
    paused: watch::Receiver<bool>,
    reads: watch::Sender<usize>,
}

#[async_trait]
impl<L: RevocationLog> RevocationLog for Followed<L> {
    async fn read(
        &self,
        after: Cursor,
        wait: Duration,
    ) -> Result<RevocationPage, UnavailableError> {
        let page = self.log.read(after, wait).await;
        drop(self.paused.clone().wait_for(|paused| !paused).await);
        self.reads.send_modify(|reads| *reads += 1);
        page
    }
}

/// A replica, and what it follows.
#[derive(Debug)]
struct Following {
    replica: RevocationReplica,
    /// What pauses its log, if that comes from the store.
    paused: Option<watch::Sender<bool>>,
    reads: watch::Receiver<usize>,
}

impl Following {
    async fn http(wires: &Wires) -> Self {
        let (pause, following) = Self::log(wires, wires.http_log()).await;
        drop(pause);
        following
    }

    async fn store(wires: &Wires, authority: &Authority) -> Self {
        let log = StoreLog::new(authority.fixture().open().await.tokens);
        let log = log.heartbeat(HEARTBEAT).clock_skew(CLOCK_SKEW);
        let (pause, following) = Self::log(wires, log).await;
        Self { paused: Some(pause), ..following }
    }

    async fn log(wires: &Wires, log: impl RevocationLog) -> (watch::Sender<bool>, Self) {
        let ((pause, paused), (reads, read)) = (watch::channel(false), watch::channel(0));
        let replica = wires.replica(Followed { log, paused, reads }).follow().await.unwrap();
        (pause, Self { replica, paused: None, reads: read })
    }
}

/// A gateway or the API.
#[derive(Debug)]
pub(crate) struct Edge {
    pub(crate) place: Place,
    pub(crate) wires: Wires,
    following: Following,
    served: Served,
}

impl Edge {
    /// Waits until its log is read once more.
    pub(crate) async fn until_read(&self) {
        let mut reads = self.following.reads.clone();
        reads.mark_unchanged();
        reads.changed().await.unwrap();
    }

    /// From now on nothing arrives of the log, or everything does.
    pub(crate) fn pause(&self, pause: bool) {
        match &self.following.paused {
            Some(paused) => drop(paused.send_replace(pause)),
            None => self.wires.log.set(if pause { Mode::Hold } else { Mode::Pass }),
        }
    }

    /// Whether it hears of the log over the network.
    pub(crate) const fn is_remote(&self) -> bool {
        self.following.paused.is_none()
    }
}

pub(crate) struct Storm {
    pub(crate) people: People,
    pub(crate) tape: Arc<Tape>,
    pub(crate) authority: Arc<Authority>,
    pub(crate) dice: Dice,
    pub(crate) scale: Scale,
    /// A time before anything was revoked.
    pub(crate) start: UnixTime,
    /// The gateways, and the API after them.
    pub(crate) edges: Vec<Edge>,
    web: Web,
    /// The next token that nobody has used yet.
    unused: AtomicUsize,
    /// Tokens that are used everywhere and often.
    hot: Mutex<Vec<Arc<Token>>>,
    /// Tokens that were revoked not long ago.
    lately: Mutex<VecDeque<Arc<Token>>>,
    revoked: Mutex<BTreeMap<How, usize>>,
    /// How often somebody has tried to take something away.
    tries: AtomicUsize,
    is_over: AtomicBool,
}

const USERS: usize = 4_000;

/// How long an edge waits for the authorization server.
const PATIENCE: Duration = Duration::from_millis(1500);

impl Storm {
    pub(crate) async fn new(authority: Arc<Authority>, dice: Dice, scale: Scale) -> Arc<Self> {
        let (tape, start) = (Tape::new(authority.clock()), authority.clock().now());
        let second = Duration::from_secs(1);
        let place = |name, bound| Place { name, bound };

        let wires = Wires::new(API, &authority).await.patience(PATIENCE);
        let following = Following::http(&wires).await;
        // Sooner than the gateways: it sees what they still let through.
        let layer = wires.api(following.replica.clone(), Freshness::within(second));
        let at = place(API, second);
        let served = api(at, &tape, &layer).await;
        let orders = served.url();
        let api = Edge { place: at, wires, following, served };

        let mut edges = Vec::new();
        for (name, bound) in EDGES.into_iter().zip([Duration::ZERO, 2 * second, 3 * second / 2]) {
            let wires = Wires::new(name, &authority).await.patience(PATIENCE);
            // One of them is beside the store.
            let following = if name == EDGES[1] {
                Following::store(&wires, &authority).await
            } else {
                Following::http(&wires).await
            };
            let layer = wires.gateway().cache(100_000).replica(following.replica.clone());
            let layer = layer.freshness(Freshness::within(bound)).unwrap();
            let layer = if name == EDGES[2] {
                layer.when_stale(WhenStale::Refuse).handle_keys(wires.handle_keys())
            } else {
                layer
            };
            let at = place(name, bound);
            let served = gateway(at, &tape, &layer, Some(&orders)).await;
            edges.push(Edge { place: at, wires, following, served });
        }
        edges.push(api);
        Arc::new(Self {
            people: People::new(Arc::clone(&authority), Arc::clone(&tape)),
            tape,
            authority,
            dice,
            scale,
            start,
            edges,
            web: Web::new(),
            unused: AtomicUsize::default(),
            hot: Mutex::default(),
            lately: Mutex::default(),
            revoked: Mutex::default(),
            tries: AtomicUsize::default(),
            is_over: AtomicBool::default(),
        })
    }

    pub(crate) fn api(&self) -> &Edge {
        self.edges.last().unwrap()
    }

    /// How often something was revoked in this way.
    pub(crate) fn revoked(&self, how: How) -> usize {
        self.revoked.lock().unwrap().get(&how).copied().unwrap_or_default()
    }

    pub(crate) fn end(&self) {
        self.is_over.store(true, Ordering::SeqCst);
    }

    /// Whether every token was used.
    pub(crate) fn all_used(&self) -> bool {
        self.unused.load(Ordering::SeqCst) >= self.scale.tokens
    }

    fn user(&self) -> u32 {
        u32::try_from(self.dice.below(USERS)).unwrap()
    }

    /// Hands out tokens until there are so many. Of three in four the client is an app that gets
    /// handles, and of a few the grant has two tokens.
    pub(crate) async fn hand_out(self: &Arc<Self>, tokens: usize, only_jwts: bool) {
        let mut tasks = JoinSet::new();
        for _ in 0..32 {
            let storm = Arc::clone(self);
            tasks.spawn(async move {
                while storm.people.count() < tokens {
                    let is_jwt = only_jwts || storm.dice.percent(25);
                    let app = 2 * storm.dice.below(APPS as usize / 2) + usize::from(is_jwt);
                    let user = storm.user();
                    let token = storm.people.sign_in(user, u32::try_from(app).unwrap()).await;
                    match token {
                        Some(token) if storm.dice.percent(5) => {
                            storm.people.refresh(&token).await;
                        }
                        Some(_) => {}
                        None => storm.authority.is_up().await,
                    }
                }
            });
        }
        tasks.join_all().await;
    }

    /// Presents a token at a place; `None` if nothing came back.
    pub(crate) async fn visit(&self, token: &Token, edge: &Edge) -> Option<u16> {
        self.web.get(&edge.served.url(), &bearer(&token.secret), token.number).await
    }

    /// Where a token may be presented, at random.
    pub(crate) fn somewhere(&self, token: &Token) -> &Edge {
        match self.dice.below(10) {
            _ if token.is_jwt() => self.api(),
            9 => self.api(),
            n => &self.edges[n % 3],
        }
    }

    /// Uses tokens until all is over: new ones, some very often, ones that were just revoked, and
    /// any.
    pub(crate) async fn use_tokens(&self) {
        while !self.is_over.load(Ordering::SeqCst) {
            let token = self.choose();
            let edge = self.somewhere(&token);
            self.visit(&token, edge).await.expect("an edge answers");
        }
    }

    fn choose(&self) -> Arc<Token> {
        let there = self.people.count();
        match self.dice.below(100) {
            0..52 => {
                let unused = self.unused.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |next| {
                    (next < there).then_some(next + 1)
                });
                if let Ok(unused) = unused {
                    return self.people.token(unused);
                }
            }
            52..70 => return self.hot(),
            70..92 => {
                let lately = self.lately.lock().unwrap();
                if !lately.is_empty() {
                    return Arc::clone(&lately[self.dice.below(lately.len())]);
                }
            }
            _ => {}
        }
        self.people.token(self.dice.below(there))
    }

    /// One of those that every edge remembers.
    fn hot(&self) -> Arc<Token> {
        const HOT: usize = 200;
        let mut hot = self.hot.lock().unwrap();
        if hot.len() < HOT {
            hot.push(self.people.token(self.dice.below(self.people.count())));
        }
        Arc::clone(self.dice.pick(&hot))
    }

    /// Takes tokens away, one in `pace` visits, until it was done so often.
    pub(crate) async fn take_away(self: &Arc<Self>) {
        let start = self.tape.visits();
        loop {
            let done = self.tape.acknowledged();
            if done >= self.scale.revocations {
                return;
            }
            self.tape.until(start + done * self.scale.pace).await;
            // A client has very many tokens. A storm ends a few.
            let often = self.scale.revocations / 6;
            let is_client = self.tries.fetch_add(1, Ordering::SeqCst) % often == often / 2;
            let how = match self.dice.below(100) {
                _ if is_client => How::Client,
                0..42 => How::Token,
                42..64 => How::Refresh,
                64..78 => How::Grant,
                78..84 => How::Session,
                84..93 => How::User,
                _ => How::UserAtClient,
            };
            let token = if self.dice.percent(50) {
                self.hot()
            } else {
                self.people.token(self.dice.below(self.people.count()))
            };
            if !self.revoke(how, &token).await {
                self.authority.is_up().await;
            }
        }
    }

    pub(crate) async fn revoke(&self, how: How, token: &Arc<Token>) -> bool {
        const LATELY: usize = 300;
        let done = self.people.revoke(how, token).await;
        if done {
            *self.revoked.lock().unwrap().entry(how).or_default() += 1;
            let of = how.of(token);
            let under = self.people.under(&of);
            self.hot.lock().unwrap().retain(|token| !token.is_under(&of));
            // Of very many some will do.
            let step = under.len().div_ceil(LATELY / 10).max(1);
            let mut lately = self.lately.lock().unwrap();
            lately.extend(under.into_iter().step_by(step));
            let too_many = lately.len().saturating_sub(LATELY);
            lately.drain(..too_many);
        }
        if matches!(how, How::User | How::UserAtClient) {
            // And in again: the new session has nothing to do with what ended.
            self.people.sign_in(token.user, token.client).await;
        }
        done
    }
}
