//! Three authorization servers over one database, and clients that race each other.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cloakroom::core::handle::{HandleKeys, HandleSecret};

use cloakroom::core::keys::{KeyPolicy, KeyStore};
use cloakroom::core::revocation::Target;
use cloakroom::core::store::TokenStore;
use cloakroom::core::{ClientId, GrantId, Subject, TokenSecret};
use cloakroom::jwt::AesGcmSealer;
use cloakroom::mysql::MysqlStore;
use cloakroom::postgres::PostgresStore;
use cloakroom::{
    Caller, Client, Event, EventSink, Format, Grant, GrantType, Introspection, Issuer, Lifetimes,
    RefreshRequest, TokenError, TokenResponse,
};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::authority::{ISSUER, ORDERS, SECRET};
use crate::dice::Dice;
use crate::failover::history::{Answer, Deed, History, Of, Report, Time, Tokens};

pub(crate) const SERVERS: usize = 3;
const HEARTBEAT: Duration = Duration::from_millis(500);
pub(crate) const CLOCK_SKEW: Duration = Duration::from_millis(100);
/// Beyond this, a server does not vouch for tokens.
pub(crate) const STALENESS: Duration = Duration::from_secs(3);
/// Longer than any outage, so that a client whose answer was lost gets the successor.
pub(crate) const RETRY_WINDOW: Duration = Duration::from_secs(300);

pub(crate) const APP: &str = "app";
const USERS: u32 = 200;
/// Sessions at a time; two clients share each.
const SLOTS: usize = 40;
const CLIENTS: usize = 10;
/// How many revoked sessions are remembered, to be tried again.
const REVOKED: usize = 200;

/// A session, as its clients know it.
#[derive(Debug, Clone)]
struct Held {
    session: u32,
    user: u32,
    grant: GrantId,
    tokens: Tokens,
}

/// The servers, and all clients.
#[derive(Debug)]
pub(crate) struct Load {
    pub(crate) history: Arc<History>,
    servers: Vec<Issuer>,
    dice: Dice,
    slots: Vec<Mutex<Option<Held>>>,
    revoked: Mutex<VecDeque<Held>>,
    next: AtomicU32,
    sessions: Arc<Mutex<HashMap<GrantId, u32>>>,
    is_over: AtomicBool,
}

/// Writes down what a server reports.
#[derive(Debug)]
struct Sink {
    history: Arc<History>,
    sessions: Arc<Mutex<HashMap<GrantId, u32>>>,
}

impl EventSink for Sink {
    fn record(&self, event: &Event) {
        let session = |grant: &GrantId| self.sessions.lock().unwrap().get(grant).copied();
        let report = match event {
            Event::StoreRegressed { noticed } => Some(Report::Regressed(format!("{noticed:?}"))),
            Event::ReuseDetected { grant, .. } => session(grant).map(Report::Reused),
            Event::Revoked { target: Target::Grant(grant) } => {
                session(grant).map(|session| Report::Revoked(Of::Session(session)))
            }
            Event::Revoked { target: Target::Subject(subject) } => {
                user_of(subject).map(|user| Report::Revoked(Of::User(user)))
            }
            _ => None,
        };
        if let Some(report) = report {
            self.history.report(report);
        }
    }
}

fn name(user: u32) -> String {
    format!("user-{user}")
}

fn user_of(subject: &Subject) -> Option<u32> {
    subject.to_key().rsplit_once("user-")?.1.parse().ok()
}

/// What a call came to.
fn answer<T>(result: Result<T, TokenError>) -> Answer<T> {
    match result {
        Ok(value) => Answer::Yes(value),
        Err(TokenError::InvalidGrant(why)) => Answer::Refused(why.to_string()),
        Err(TokenError::Barred) => Answer::Refused("a revocation covers it".to_owned()),
        Err(TokenError::Unavailable(_) | TokenError::Store(_)) => Answer::Unknown,
        Err(error) => panic!("{error:?}"),
    }
}

fn tokens(response: &TokenResponse) -> Tokens {
    let refresh = response.refresh_token.as_ref().unwrap();
    Tokens { refresh: refresh.expose().into(), access: response.access_token.expose().into() }
}

impl Load {
    pub(crate) async fn new(url: &str, dice: Dice) -> Arc<Self> {
        let (history, sessions) = (Arc::new(History::new()), Arc::default());
        let mut servers = Vec::new();
        for _ in 0..SERVERS {
            let sink = Sink { history: Arc::clone(&history), sessions: Arc::clone(&sessions) };
            servers.push(server(url, Arc::new(sink)).await);
        }
        Arc::new(Self {
            history,
            servers,
            dice,
            slots: (0..SLOTS).map(|_| Mutex::default()).collect(),
            revoked: Mutex::default(),
            next: AtomicU32::default(),
            sessions,
            is_over: AtomicBool::default(),
        })
    }

    /// Starts the maintenance of the servers, and the clients.
    pub(crate) fn start(self: &Arc<Self>) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        for server in &self.servers {
            let server = server.clone();
            tasks.spawn(async move { server.run_maintenance().await });
        }
        for client in 0..CLIENTS {
            let load = Arc::clone(self);
            // Two clients share the same sessions.
            let slots = (client / 2..SLOTS).step_by(CLIENTS / 2).collect::<Vec<_>>();
            tasks.spawn(async move { load.act(&slots).await });
        }
        tasks
    }

    async fn act(&self, slots: &[usize]) {
        while !self.is_over.load(Ordering::SeqCst) {
            let slot = &self.slots[*self.dice.pick(slots)];
            let held = slot.lock().unwrap().clone();
            let server = self.dice.below(SERVERS);
            let is_known = match held {
                None => self.log_in(server, slot).await,
                Some(held) => match self.dice.below(100) {
                    0..55 => self.refresh(server, slot, &held).await,
                    55..75 => self.introspect(server, &held).await,
                    75..90 => match self.any_revoked() {
                        Some(revoked) => self.introspect(server, &revoked).await,
                        None => true,
                    },
                    90..98 => self.revoke(server, Of::Session(held.session), &held).await,
                    _ => self.revoke(server, Of::User(held.user), &held).await,
                },
            };
            let pause = if is_known { 10 + self.dice.below(30) } else { 50 + self.dice.below(150) };
            sleep(Duration::from_millis(pause as u64)).await;
        }
    }

    pub(crate) fn end(&self) {
        self.is_over.store(true, Ordering::SeqCst);
    }

    fn any_revoked(&self) -> Option<Held> {
        let revoked = self.revoked.lock().unwrap();
        (!revoked.is_empty()).then(|| revoked[self.dice.below(revoked.len())].clone())
    }

    async fn log_in(&self, server: usize, slot: &Mutex<Option<Held>>) -> bool {
        let session = self.next.fetch_add(1, Ordering::SeqCst);
        let user = self.dice.below(USERS as usize) as u32;
        let grant = Grant::user(APP, name(user)).unwrap();
        let begun = self.history.now();
        let answered = answer(self.servers[server].issue(grant).await);
        let known = match answered {
            Answer::Yes(response) => {
                self.sessions.lock().unwrap().insert(response.grant, session);
                let tokens = tokens(&response);
                let held = Held { session, user, grant: response.grant, tokens: tokens.clone() };
                *slot.lock().unwrap() = Some(held);
                Answer::Yes(tokens)
            }
            Answer::Unknown => Answer::Unknown,
            Answer::Refused(why) => Answer::Refused(why),
        };
        let is_known = known != Answer::Unknown;
        self.history.note(server, begun, Deed::LogIn { session, user, answer: known });
        is_known
    }

    async fn refresh(&self, server: usize, slot: &Mutex<Option<Held>>, held: &Held) -> bool {
        let presented = Arc::clone(&held.tokens.refresh);
        let token = TokenSecret::new(presented.to_string());
        let request = RefreshRequest::new(token, ClientId::new(APP).unwrap());
        let begun = self.history.now();
        let answered = match answer(self.servers[server].refresh(request).await) {
            Answer::Yes(response) => Answer::Yes(tokens(&response)),
            Answer::Unknown => Answer::Unknown,
            Answer::Refused(why) => Answer::Refused(why),
        };
        {
            let mut slot = slot.lock().unwrap();
            // The other client may have gone on meanwhile.
            if let Some(now) = slot.as_mut()
                && now.session == held.session
                && now.tokens.refresh == presented
            {
                match &answered {
                    Answer::Yes(tokens) => now.tokens = tokens.clone(),
                    Answer::Refused(_) => *slot = None,
                    Answer::Unknown => {}
                }
            }
        }
        let is_known = answered != Answer::Unknown;
        let deed = Deed::Refresh { session: held.session, presented, answer: answered };
        self.history.note(server, begun, deed);
        is_known
    }

    async fn introspect(&self, server: usize, held: &Held) -> bool {
        let access = Arc::clone(&held.tokens.access);
        let token = TokenSecret::new(access.to_string());
        let begun = self.history.now();
        let answered = self.servers[server].introspect(&token, Caller::Internal).await;
        let answer = answer(answered.map(|answer| matches!(answer, Introspection::Active(_))));
        let is_known = answer != Answer::Unknown;
        self.history.note(
            server,
            begun,
            Deed::Introspect { session: held.session, access, answer },
        );
        is_known
    }

    /// Revokes, and tries again until that is acknowledged.
    async fn revoke(&self, mut server: usize, of: Of, held: &Held) -> bool {
        loop {
            let begun = self.history.now();
            let revoked = match of {
                Of::Session(_) => self.servers[server].revoke_grant(held.grant).await,
                Of::User(user) => {
                    let subject = Subject::user(name(user)).unwrap();
                    self.servers[server].revoke_subject(&subject).await
                }
            };
            let answer = answer(revoked);
            let is_known = answer != Answer::Unknown;
            self.history.note(server, begun, Deed::Revoke { of, answer });
            if is_known {
                let mut revoked = self.revoked.lock().unwrap();
                revoked.push_front(held.clone());
                revoked.truncate(REVOKED);
                return true;
            }
            if self.is_over.load(Ordering::SeqCst) {
                return false;
            }
            sleep(Duration::from_millis(100)).await;
            server = self.dice.below(SERVERS);
        }
    }

    /// Waits until each server vouches again, with a log that it has read since now: whatever it does after
    /// that, it does knowing what the database knows.
    pub(crate) async fn settle(&self) {
        sleep(STALENESS + CLOCK_SKEW).await;
        for server in 0..SERVERS {
            let slot = Mutex::default();
            while !self.log_in(server, &slot).await {
                sleep(Duration::from_millis(100)).await;
            }
            let held = slot.lock().unwrap().clone();
            // A revocation of the user may cross the login.
            if let Some(held) = held {
                while !self.introspect(server, &held).await {
                    sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    /// Asks every server about all sessions.
    pub(crate) async fn audit(&self) {
        let revoked: Vec<Held> = self.revoked.lock().unwrap().iter().cloned().collect();
        let held = self.slots.iter().filter_map(|slot| slot.lock().unwrap().clone());
        let all: Vec<Held> = revoked.into_iter().chain(held).collect();
        for server in 0..SERVERS {
            for held in &all {
                self.introspect(server, held).await;
            }
        }
    }

    /// The longest time without an acknowledged write since this time.
    pub(crate) fn longest_outage(&self, since: Time) -> Duration {
        let entries = self.history.facts().entries;
        let mut ends: Vec<Time> = entries
            .iter()
            .filter(|entry| entry.ended >= since && entry.deed.is_written())
            .map(|entry| entry.ended)
            .collect();
        ends.push(since);
        ends.push(self.history.now());
        ends.sort_unstable();
        ends.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
    }
}

/// An authorization server over the database of this URL.
pub(crate) async fn server(url: &str, events: Arc<dyn EventSink>) -> Issuer {
    const TIMEOUT: Duration = Duration::from_secs(2);
    if url.starts_with("mysql:") {
        let store = MysqlStore::builder(url).statement_timeout(TIMEOUT).connect_timeout(TIMEOUT);
        return server_over(store.connect().await.unwrap(), events).await;
    }
    let store = PostgresStore::builder(url).statement_timeout(TIMEOUT).connect_timeout(TIMEOUT);
    server_over(store.connect().await.unwrap(), events).await
}

async fn server_over<S: TokenStore + KeyStore>(store: S, events: Arc<dyn EventSink>) -> Issuer {
    let app = Client::confidential(APP, SECRET)
        .grant_types([GrantType::AuthorizationCode, GrantType::RefreshToken])
        .redirect_uri("https://app.example/callback")
        .scope("orders:read")
        .audience(ORDERS, Format::Opaque);
    Issuer::builder(ISSUER)
        .store(Arc::new(store))
        .handle_keys(HandleKeys::new(&HandleSecret::new(1, [1; 32])))
        .sealer(Arc::new(AesGcmSealer::new(1, [2; 32])))
        .static_clients([app])
        .unwrap()
        .events(events)
        .lifetimes(
            Lifetimes::default().access_token(Duration::from_secs(3600)).retry_window(RETRY_WINDOW),
        )
        .key_policy(KeyPolicy::default().clock_skew(CLOCK_SKEW))
        .heartbeat_interval(HEARTBEAT)
        .max_log_staleness(STALENESS)
        .housekeeping_interval(Duration::from_secs(5))
        .build()
        .await
        .unwrap()
}
