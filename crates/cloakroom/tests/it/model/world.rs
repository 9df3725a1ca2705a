//! Two nodes over one store, and everyone who holds something.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use cloakroom::core::keys::KeyPolicy;
use cloakroom::core::revocation::Epoch;
use cloakroom::core::time::{Clock as _, ManualClock, UnixTime};
use cloakroom::core::{GrantId, TokenSecret};
use cloakroom::jwt::{AesGcmSealer, KeyManager};
use cloakroom::memory::MemoryStore;
use cloakroom::{Client, ClientBuilder, ClientLifetimes, Format, GrantType, Issuer, Lifetimes};

use super::answers::Reply;
use super::flight::Flight;
use super::oracle::{Broken, Key, Oracle};
use super::story::{Nth, Request, Shown, Step, Story, What, Who, shown};
use super::time::{self, Millis, Sure};
use super::watched::Watched;
use crate::engine::support::{CALLBACK, CLIENT_SECRET, ISSUER, JOBS, ORDERS, START, handles};

/// More turns than any request needs.
const TURNS: usize = 500;

pub(super) struct World {
    pub(super) store: Arc<Watched>,
    pub(super) nodes: [Node; 2],
    pub(super) oracle: Oracle,
    /// What people hold, a session each.
    pub(super) held: Vec<Held>,
    /// Sign-ins that have begun: the epoch, and how many revocations there were.
    pub(super) openings: Vec<(Epoch, usize)>,
    /// What happened, for people.
    pub(super) lines: Vec<String>,
    pub(super) checks: usize,
    /// Situations that it has come to.
    pub(super) met: BTreeSet<&'static str>,
    flights: Vec<Flight>,
    pub(super) begun: usize,
    tended: bool,
}

pub(super) struct Node {
    pub(super) issuer: Issuer,
    /// What rotates its keys.
    keys: KeyManager,
    clock: Arc<ManualClock>,
    ahead: Millis,
}

pub(super) struct Held {
    pub(super) grant: GrantId,
    /// Which credential of the chain each of them has.
    pub(super) by: [Option<usize>; 3],
    /// Which key each of them proves.
    pub(super) shows: [Option<Key>; 3],
    pub(super) access: Vec<TokenSecret>,
}

impl World {
    pub(super) fn new(late_sweeps: bool, tended: bool) -> Self {
        let clocks = [(); 2].map(|()| Arc::new(ManualClock::at(START)));
        let memory = MemoryStore::with_clock(clocks[0].clone());
        let store = Arc::new(Watched::new(memory, late_sweeps));
        let nodes = clocks.map(|clock| {
            let (issuer, keys) = (issuer(&store, &clock), keys(&store, &clock));
            Node { issuer, keys, clock, ahead: 0 }
        });
        Self {
            store,
            nodes,
            oracle: Oracle::default(),
            held: Vec::new(),
            openings: Vec::new(),
            lines: Vec::new(),
            checks: 0,
            met: BTreeSet::new(),
            flights: Vec::new(),
            begun: 0,
            tended,
        }
    }

    pub(super) fn live_through(&mut self, story: &Story) -> Broken {
        for step in &story.steps {
            self.take(step)?;
            self.check(false)?;
        }
        while !self.flights.is_empty() {
            for flight in std::mem::take(&mut self.flights) {
                let left = self.turn(flight)?;
                self.flights.extend(left);
            }
        }
        self.check(true)
    }

    fn take(&mut self, step: &Step) -> Broken {
        match step {
            Step::Whole(request) => {
                if let Some(flight) = self.depart(request) {
                    self.land(flight)?;
                }
            }
            Step::Begun(request, turns) => {
                if let Some(flight) = self.depart(request) {
                    let left = self.turns(flight, *turns)?;
                    self.flights.extend(left);
                }
            }
            Step::Race(one, two, order) => {
                let mut both = [self.depart(one), self.depart(two)];
                for turn in 0..u16::BITS {
                    let at = usize::from(order >> turn & 1);
                    if let Some(flight) = both[at].take() {
                        both[at] = self.turn(flight)?;
                    }
                }
                for flight in both.into_iter().flatten() {
                    self.land(flight)?;
                }
            }
            Step::Resumed(slot, turns) => {
                if let Some(flight) = self.pick(*slot) {
                    let left = self.turns(flight, *turns)?;
                    self.flights.extend(left);
                }
            }
            Step::Dropped(slot) => {
                if let Some(flight) = self.pick(*slot) {
                    self.say(&format!("#{} is dropped", flight.number));
                }
            }
            Step::Spin(nth, times, pause) => {
                for _ in 0..*times {
                    self.pass(*pause)?;
                    let comes = What::Comes(*nth, Who::TabA, None);
                    if let Some(flight) = self.depart(&Request::of(comes)) {
                        self.land(flight)?;
                    }
                }
            }
            Step::Copied(nth, from, to) => {
                if let Some(session) = self.find(*nth) {
                    let by = &mut self.held[session].by;
                    by[*to as usize] = by[*from as usize];
                    self.say(&format!("{to:?} copies what {from:?} has of session {session}"));
                }
            }
            Step::Shows(nth, who, key) => {
                if let Some(session) = self.find(*nth) {
                    self.held[session].shows[*who as usize] = *key;
                    self.say(&format!("{who:?} proves {} of session {session}", shown(*key)));
                }
            }
            Step::Passes(time) => self.pass(*time)?,
            Step::Drifts(node, ahead) => {
                self.nodes[*node].ahead = *ahead;
                self.set_clocks();
                self.say(&format!("node {node} is {} ahead", Shown(*ahead)));
            }
            Step::Restarts(node) => {
                self.flights.retain(|flight| flight.node != *node);
                let node_again = issuer(&self.store, &self.nodes[*node].clock);
                self.nodes[*node].issuer = node_again;
                self.say(&format!("node {node} restarts"));
            }
        }
        Ok(())
    }

    fn pass(&mut self, time: Millis) -> Broken {
        if time == 0 {
            return Ok(());
        }
        self.oracle.now += time;
        for node in &self.nodes {
            node.clock.advance(millis(time));
        }
        self.set_clocks();
        self.say(&format!("{} have passed", Shown(time)));
        for node in 0..2 {
            if time <= time::ACCESS {
                break;
            }
            // Signing keys always rotate: no story is about their end.
            soon(self.nodes[node].keys.maintain()).unwrap();
            let maintains = Request { node, ..Request::of(What::Maintains) };
            if let Some(flight) = self.tended.then(|| self.depart(&maintains)).flatten() {
                self.land(flight)?;
            }
        }
        Ok(())
    }

    fn set_clocks(&self) {
        for node in &self.nodes {
            node.clock.set(START + millis(self.oracle.now + node.ahead));
        }
    }

    /// What this holder has of this session. A thief who has nothing yet helps himself first.
    pub(super) fn credential(&mut self, nth: Nth, who: Who) -> Option<(usize, usize, TokenSecret)> {
        let session = self.find(nth)?;
        let by = &mut self.held[session].by;
        let generation = by[who as usize].or(by[Who::TabA as usize])?;
        by[who as usize] = Some(generation);
        let text = self.oracle.sessions[session].chain[generation].text.as_ref()?;
        Some((session, generation, TokenSecret::new(text.clone())))
    }

    pub(super) fn find(&self, nth: Nth) -> Option<usize> {
        let mut sessions: Vec<_> = (0..self.held.len()).rev().collect();
        sessions.sort_by_key(|session| self.oracle.lives(*session) == Sure::No);
        sessions.get(usize::from(nth.0).checked_rem(sessions.len())?).copied()
    }

    pub(super) fn anyone_lives(&self) -> bool {
        (0..self.held.len()).any(|session| self.oracle.lives(session) != Sure::No)
    }

    fn pick(&mut self, slot: u8) -> Option<Flight> {
        let at = usize::from(slot).checked_rem(self.flights.len())?;
        Some(self.flights.remove(at))
    }

    fn turns(&mut self, flight: Flight, turns: u8) -> Result<Option<Flight>, String> {
        let mut flight = Some(flight);
        for _ in 0..turns {
            let Some(at_work) = flight else { break };
            flight = self.turn(at_work)?;
        }
        Ok(flight)
    }

    fn land(&mut self, flight: Flight) -> Broken {
        let mut flight = Some(flight);
        for _ in 0..TURNS {
            let Some(at_work) = flight else { return Ok(()) };
            flight = self.turn(at_work)?;
        }
        Err("a request never ends".into())
    }

    pub(super) fn add_session(&mut self, grant: GrantId, key: Option<Key>) {
        let shows = [key, key, None];
        self.held.push(Held { grant, by: [None; 3], shows, access: Vec::new() });
    }

    pub(super) fn keep_access(
        &mut self,
        session: usize,
        token: TokenSecret,
        key: Option<Key>,
        asked: Millis,
    ) {
        self.oracle.token(session, asked, key);
        self.held[session].access.push(token);
    }

    pub(super) fn say(&mut self, line: &str) {
        self.lines.push(format!("[{:>11}] {line}", Shown(self.oracle.now).to_string()));
    }

    pub(super) fn tell(&mut self, flight: &Flight, reply: &Reply) {
        let lost = if flight.lost { " (lost)" } else { "" };
        self.say(&format!("#{} -> {}{lost}", flight.number, reply.shown()));
    }
}

/// Runs what nothing holds up.
pub(super) fn soon<F: Future>(future: F) -> F::Output {
    let mut future = std::pin::pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return output;
        }
    }
}

pub(super) fn millis(time: Millis) -> Duration {
    Duration::from_millis(u64::try_from(time).unwrap_or(0))
}

impl Node {
    pub(super) fn now(&self) -> UnixTime {
        self.clock.now()
    }
}

fn key_policy() -> KeyPolicy {
    KeyPolicy::default().clock_skew(millis(time::SKEW))
}

fn keys(store: &Arc<Watched>, clock: &Arc<ManualClock>) -> KeyManager {
    let sealer = Arc::new(AesGcmSealer::new(1, [2; 32]));
    let builder = KeyManager::builder(Arc::new(store.memory.clone()), sealer)
        .issuer(ISSUER)
        .policy(key_policy())
        .clock(clock.clone());
    soon(builder.build()).unwrap()
}

fn issuer(store: &Arc<Watched>, clock: &Arc<ManualClock>) -> Issuer {
    let lifetimes = Lifetimes::default()
        .access_token(millis(time::ACCESS))
        .code(millis(time::CODE))
        .refresh_idle(millis(time::IDLE))
        .grant(millis(time::GRANT))
        .retry_window(millis(time::WINDOW));
    let patient = ClientLifetimes::default().retry_window(millis(time::LONG_WINDOW));
    let app = |client: ClientBuilder| {
        client
            .lifetimes(patient)
            .redirect_uri(CALLBACK)
            .scope("orders:read orders:write")
            .audience(ORDERS, Format::Phantom)
            .audience(JOBS, Format::Jwt)
    };
    let confidential = |id: &str| app(Client::confidential(id, CLIENT_SECRET));
    let (code, refresh) = (GrantType::AuthorizationCode, GrantType::RefreshToken);
    let clients = [
        confidential("web").grant_types([code, refresh]),
        confidential("other").grant_types([code, refresh]),
        confidential("workers").grant_types([code, refresh]).without_rotation(),
        app(Client::public("spa")).grant_types([code, refresh]),
        app(Client::public("kiosk")).grant_types([code]),
    ];
    let builder = Issuer::builder(ISSUER)
        .token_store(store.clone())
        .key_store(Arc::new(store.memory.clone()))
        .handle_keys(handles())
        .sealer(Arc::new(AesGcmSealer::new(1, [2; 32])))
        .clock(clock.clone())
        .lifetimes(lifetimes)
        .key_policy(key_policy())
        .static_clients(clients.map(|client| client.build().unwrap()))
        .unwrap();
    soon(builder.build()).unwrap()
}
