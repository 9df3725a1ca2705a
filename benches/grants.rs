//! Issuing, introspecting and refreshing, among a thousand to a million grants in memory.

mod floor;

use std::hint::black_box;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use cloakroom::{Caller, Client, Format, Grant, GrantType, Issuer, RefreshRequest};
use cloakroom_benches::{Dice, Pair, Point, Row, Suite, Team, now, per_call, timed};
use cloakroom_core::handle::{HandleKeys, HandleSecret};
use cloakroom_core::keys::KeyPolicy;
use cloakroom_core::store::{Housekeeping, TokenStore};
use cloakroom_core::time::{Clock, SystemClock, UnixTime};
use cloakroom_core::{ClientId, Random, TokenSecret};
use cloakroom_jwt::AesGcmSealer;
use cloakroom_memory::MemoryStore;

use crate::floor::{AccessBytes, Floor};

const HOUR: Duration = Duration::from_secs(3600);

/// The lifetime of a grant that is deleted at the end of its turn.
const BRIEF: Duration = Duration::from_secs(1);

fn main() {
    let suite = Suite::from_args();
    let sizes: &[usize] =
        if suite.is_quick() { &[1_000] } else { &[1_000, 10_000, 100_000, 1_000_000] };
    for size in sizes {
        suite.say(format_args!("among {size} grants"));
        let mut world = World::new(*size);
        let introspect = world.introspect().at_most(1.4).measure(&suite);
        let threads = world.two_threads(&suite);
        let issue = world.issue().at_most(1.6).measure(&suite);
        let two_issue = world.issue_on_two_threads(&suite);
        // Last, because it ends the access tokens.
        let refresh = world.refresh().at_most(1.5).measure(&suite);
        let two_refresh = world.refresh_on_two_threads(&suite);

        for (series, row) in [("introspect", &introspect), ("issue", &issue), ("refresh", &refresh)]
        {
            let floor = row.floor.as_ref().map_or(f64::NAN, |floor| floor.value);
            let series = series.to_owned();
            suite.report(Point { series, grants: *size as u64, ours: row.ours, floor });
        }
        if Some(size) == sizes.last() {
            [introspect, threads, issue, two_issue, refresh, two_refresh]
                .into_iter()
                .for_each(|row| suite.report(row));
        }
    }
}

/// An issuer with this many grants, and a floor with as many.
struct World {
    issuer: Issuer,
    store: MemoryStore,
    floor: Floor,
    access: Vec<TokenSecret>,
    refresh: Vec<TokenSecret>,
    dice: Dice,
}

impl World {
    fn new(size: usize) -> Self {
        let store = MemoryStore::new();
        let secret = HandleSecret::random(1, &Random::system()).expect("random bytes");
        let app = Client::public("app")
            .grant_types([GrantType::RefreshToken])
            .scope("orders:read orders:write")
            .audience("https://orders.example", Format::Opaque)
            .build()
            .expect("valid");
        let lifetimes = cloakroom::Lifetimes::default().access_token(HOUR);
        let issuer = Issuer::builder("https://as.example")
            .store(Arc::new(store.clone()))
            .handle_keys(HandleKeys::new(&secret))
            .sealer(Arc::new(AesGcmSealer::random().expect("random bytes")))
            .lifetimes(lifetimes)
            .key_policy(KeyPolicy::default().max_token_life(HOUR))
            .static_clients([app])
            .expect("valid")
            .build();
        let issuer = now(issuer).expect("an issuer");
        let mut world = Self {
            issuer,
            store,
            floor: Floor::new(),
            access: Vec::with_capacity(size),
            refresh: Vec::with_capacity(size),
            dice: Dice::new(1),
        };
        for number in 0..size {
            let grant = Grant::user("app", format!("user-{number}")).expect("valid");
            let grant = grant.scope("orders:read").expect("valid");
            let tokens = now(world.issuer.issue(grant)).expect("tokens");
            world.floor.add(&world.store, &tokens.access_token);
            world.access.push(tokens.access_token);
            world.refresh.push(tokens.refresh_token.expect("the client may refresh"));
        }
        world
    }

    fn introspect(&self) -> Pair<'_> {
        let (mut ours, mut theirs) = (self.dice.clone(), self.dice.other());
        Pair::new(
            "introspect an opaque token, in process",
            Box::new(move |calls| {
                let tokens = self.presented(&mut ours, calls);
                timed(|| self.introspect_all(&tokens))
            }),
        )
        .floor(
            "SHA-256, HMAC, one lookup in a sharded std map",
            Box::new(move |calls| {
                let handles = self.handles(&mut theirs, calls);
                timed(|| self.floor.introspect_all(&handles))
            }),
        )
    }

    fn two_threads(&self, suite: &Suite) -> Row {
        thread::scope(|scope| {
            let ours = Team::of_two(scope, |tokens: &[_]| self.introspect_all(tokens));
            let floor = Team::of_two(scope, |handles: &[_]| self.floor.introspect_all(handles));
            let [both, one] = ours.turns(10, |dice, calls| self.presented(dice, calls));
            let [floor_both, floor_one] = floor.turns(20, |dice, calls| self.handles(dice, calls));
            Pair::new("introspect on two threads", both)
                .floor("the same on one", one)
                .beside("the floor of introspection on two", floor_both)
                .beside("that on one", floor_one)
                .per_second()
                .at_least(1.8)
                .measure(suite)
        })
    }

    /// Presented tokens, of random grants: a token that has just come from the network is in the
    /// caches, its grant is not.
    fn presented(&self, dice: &mut Dice, calls: u64) -> Vec<TokenSecret> {
        (0..calls).map(|_| self.access[dice.below(self.access.len())].clone()).collect()
    }

    fn handles(&self, dice: &mut Dice, calls: u64) -> Vec<AccessBytes> {
        (0..calls).map(|_| self.floor.handle(dice.below(self.access.len()))).collect()
    }

    fn introspect_all(&self, tokens: &[TokenSecret]) {
        for token in tokens {
            let answer = now(self.issuer.introspect(token, Caller::Internal)).expect("an answer");
            assert!(black_box(answer).is_active());
        }
    }

    /// New grants are deleted between the turns, so that their number stays the same.
    fn issue(&self) -> Pair<'_> {
        let (mut ours, mut theirs) = (0_u64, 0_u64);
        let issue = move |calls| {
            let start = Instant::now();
            for _ in 0..calls {
                ours += 1;
                let grant = Grant::user("app", format!("new-{ours}")).expect("valid");
                let grant = grant.scope("orders:read").expect("valid").lifetime(BRIEF);
                black_box(now(self.issuer.issue(grant)).expect("tokens"));
            }
            let took = start.elapsed();
            self.delete_before(SystemClock::new().now() + 10 * BRIEF);
            took
        };
        let floor = move |calls| {
            let first = theirs;
            let start = Instant::now();
            for _ in 0..calls {
                theirs += 1;
                self.floor.issue(theirs);
            }
            let took = start.elapsed();
            (first..theirs).for_each(|number| self.floor.forget(number + 1));
            took
        };
        Pair::new("issue opaque tokens, in memory", Box::new(issue)).floor(
            "random bytes, HMACs and digests of both tokens, one insertion into a sharded std map",
            Box::new(floor),
        )
    }

    /// The threads issue different grants, which are deleted between the turns.
    fn issue_on_two_threads(&self, suite: &Suite) -> Row {
        let issue = |names: &[usize]| {
            for name in names {
                let grant = Grant::user("app", format!("new-{name}")).expect("valid");
                let grant = grant.scope("orders:read").expect("valid").lifetime(BRIEF);
                black_box(now(self.issuer.issue(grant)).expect("tokens"));
            }
        };
        thread::scope(|scope| {
            let team = Team::of_two(scope, issue);
            let [both, one] = team.turns(30, |dice, calls| {
                self.delete_before(SystemClock::new().now() + 10 * BRIEF);
                (0..calls).map(|_| dice.below(usize::MAX)).collect()
            });
            Pair::new("issue opaque tokens on two threads", both)
                .floor("the same on one", one)
                .per_second()
                .at_least(1.8)
                .measure(suite)
        })
    }

    fn refresh_on_two_threads(&mut self, suite: &Suite) -> Row {
        let Self { issuer, store, refresh, .. } = self;
        let (issuer, store, size) = (&*issuer, &*store, refresh.len());
        let places: Vec<_> = refresh.drain(..).map(Mutex::new).collect();
        let client = ClientId::new("app").expect("valid");
        let refresh = |numbers: &[usize]| {
            for number in numbers {
                let mut place = places[*number].lock().expect("no thread has panicked");
                let request = RefreshRequest::new(place.clone(), client.clone());
                let tokens = now(issuer.refresh(request)).expect("tokens");
                *place = tokens.refresh_token.expect("it rotates");
            }
        };
        thread::scope(|scope| {
            let team = Team::of_two(scope, refresh);
            let [both, one] = team.turns(40, |dice, calls| {
                delete_before(store, SystemClock::new().now() + 2 * HOUR);
                (0..calls).map(|_| dice.below(size)).collect()
            });
            Pair::new("refresh on two threads", both)
                .floor("the same on one", one)
                .per_second()
                .at_least(1.8)
                .measure(suite)
        })
    }

    fn refresh(&mut self) -> Pair<'_> {
        let Self { issuer, store, floor, refresh, dice, .. } = self;
        let (mut ours, mut theirs) = (dice.clone(), dice.other());
        let size = refresh.len();
        let client = ClientId::new("app").expect("valid");
        let floor = &*floor;
        let (issuer, store) = (&*issuer, &*store);
        let turn = move |calls| {
            let start = Instant::now();
            for _ in 0..calls {
                let place = &mut refresh[ours.below(size)];
                let request = RefreshRequest::new(place.clone(), client.clone());
                let tokens = now(issuer.refresh(request)).expect("tokens");
                *place = tokens.refresh_token.expect("it rotates");
            }
            let took = start.elapsed();
            // The access tokens alone: they must not pile up on few grants.
            delete_before(store, SystemClock::new().now() + 2 * HOUR);
            took
        };
        Pair::new("refresh, in memory", Box::new(turn)).floor(
            "HMACs and digests of three tokens, random bytes, HKDF, AES-GCM, one lookup and one \
             replacement in a sharded std map",
            per_call(move || floor.refresh(theirs.below(size))),
        )
    }

    fn delete_before(&self, before: UnixTime) {
        delete_before(&self.store, before);
    }
}

fn delete_before(store: &MemoryStore, before: UnixTime) {
    let task = Housekeeping { now: SystemClock::new().now(), before, limit: u32::MAX, sweep: None };
    let done = now(store.maintain(task)).expect("housekeeping");
    assert!(!done.more, "all of it fits into one call");
}
