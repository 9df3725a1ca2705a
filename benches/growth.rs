//! What calls cost among ten thousand to ten million grants in memory, and how much memory these take.
//!
//! ```sh
//! cargo bench --package cloakroom-benches --bench growth
//! ```
//!
//! Ten million grants need some 8 GB, so that `cargo xtask bench` does not run it. Arguments are other
//! numbers of grants, the smallest first.

use std::array;
use std::env;
use std::fs;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use cloakroom::{Client, Format, Grant, GrantType, Issuer, RefreshRequest};
use cloakroom_benches::{Dice, Suite, now, quantile};
use cloakroom_core::handle::{HandleKeys, HandleSecret};
use cloakroom_core::revocation::{Revocation, Target};
use cloakroom_core::store::{Housekeeping, Lookup, MaintenanceReport, TokenStore};
use cloakroom_core::time::{Clock, SystemClock};
use cloakroom_core::{ClientId, GrantId, Random, Subject, TokenDigest, TokenSecret};
use cloakroom_jwt::AesGcmSealer;
use cloakroom_memory::MemoryStore;

const SIZES: [usize; 4] = [10_000, 100_000, 1_000_000, 10_000_000];

/// The most grants that are called, all over the store. With fewer, those of a large store would fit into
/// the processor's caches.
const SAMPLE: usize = 200_000;

const BRIEF: Duration = Duration::from_secs(1);

fn main() {
    let suite = Suite::from_args();
    let named: Vec<usize> = env::args().filter_map(|argument| argument.parse().ok()).collect();
    let sizes = match (named.is_empty(), suite.is_quick()) {
        (false, _) => named,
        (true, true) => vec![1_000, 2_000],
        (true, false) => SIZES.to_vec(),
    };
    let mut first: Option<[f64; 6]> = None;
    for size in sizes {
        let mut world = World::new(size);
        let bytes = resident() / size as f64;
        suite.say(format_args!("{size} grants: {bytes:.0} bytes each, with the whole process"));
        let read = random_read(size);
        suite.say(format_args!("  a read somewhere in as many cache lines: {read:.0} ns"));
        let costs = world.costs();
        let first = *first.get_or_insert(costs);
        for ((name, cost), before) in OPERATIONS.into_iter().zip(costs).zip(first) {
            let times = cost / before;
            suite.say(format_args!("  {name}: {cost:.0} ns, {times:.2} times the first"));
        }
        let [without, with] = world.p99_while_deleting();
        let times = with / without;
        suite.say(format_args!(
            "  p99 of find: {without:.0} ns, while rows are deleted {with:.0} ns, {times:.2} times"
        ));
    }
}

const OPERATIONS: [&str; 6] = [
    "find",
    "issue",
    "refresh",
    "list the sessions of a user",
    "delete an expired grant",
    "log out a user everywhere",
];

struct World {
    issuer: Issuer,
    store: MemoryStore,
    /// Some of the grants.
    sample: Vec<Sampled>,
    dice: Dice,
    issued: u64,
}

struct Sampled {
    user: Subject,
    grant: GrantId,
    access: TokenDigest,
    refresh: TokenSecret,
}

impl World {
    fn new(size: usize) -> Self {
        let store = MemoryStore::new();
        let secret = HandleSecret::random(1, &Random::system()).expect("random bytes");
        let url = "https://as.example";
        let handles = HandleKeys::new(&secret).for_issuer(url, &[]);
        let app = Client::public("app")
            .grant_types([GrantType::RefreshToken])
            .scope("orders:read orders:write")
            .audience("https://orders.example", Format::Opaque);
        let issuer = Issuer::builder(url)
            .store(Arc::new(store.clone()))
            .handle_keys(HandleKeys::new(&secret))
            .sealer(Arc::new(AesGcmSealer::random().expect("random bytes")))
            .static_clients([app])
            .expect("valid")
            .build();
        let issuer = now(issuer).expect("an issuer");
        let (sample, dice) = (Vec::with_capacity(SAMPLE), Dice::new(1));
        let mut world = Self { issuer, store, sample, dice, issued: 0 };
        let every = size.div_ceil(SAMPLE);
        for number in 0..size {
            let grant = Grant::user("app", format!("user-{number}")).expect("valid");
            let grant = grant.scope("orders:read").expect("valid");
            let tokens = now(world.issuer.issue(grant)).expect("tokens");
            if number % every == 0 {
                let handle = handles.parse_access(tokens.access_token.expose()).expect("our own");
                world.sample.push(Sampled {
                    user: Subject::user(format!("user-{number}")).expect("valid"),
                    grant: handle.grant,
                    access: handle.digest,
                    refresh: tokens.refresh_token.expect("the client may refresh"),
                });
            }
        }
        world
    }

    /// Nanoseconds a call of each of [`OPERATIONS`].
    fn costs(&mut self) -> [f64; 6] {
        [
            self.median(Self::find),
            self.median(|world, _| world.issue()),
            self.median(Self::refresh),
            self.median(Self::list),
            self.delete(),
            // Last, because it leaves rules behind.
            self.median(Self::log_out),
        ]
    }

    /// The median of some turns. What is presented is in the processor's caches, as when it has just come
    /// from the network.
    fn median(&mut self, call: impl Fn(&mut Self, usize)) -> f64 {
        const CALLS: usize = 32;
        let turns: Vec<f64> = (0..1_000)
            .map(|_| {
                let drawn: [usize; CALLS] = array::from_fn(|_| self.any());
                let start = Instant::now();
                drawn.into_iter().for_each(|at| call(self, at));
                start.elapsed().as_secs_f64() * 1e9 / CALLS as f64
            })
            .collect();
        quantile(&turns, 0.5)
    }

    /// One of the sample, which has been read.
    fn any(&mut self) -> usize {
        let at = self.dice.below(self.sample.len());
        let Sampled { user, grant, access, refresh } = &self.sample[at];
        black_box((user.clone(), *grant, *access, refresh.clone()));
        at
    }

    fn find(&mut self, at: usize) {
        let Sampled { grant, access, .. } = self.sample[at];
        let found = now(self.store.find(grant, Some(access))).expect("an answer");
        assert!(matches!(black_box(found), Lookup::Found(_)));
    }

    /// Issues a grant that has expired when it is deleted.
    fn issue(&mut self) {
        self.issued += 1;
        let grant = Grant::user("app", format!("new-{}", self.issued)).expect("valid");
        let grant = grant.scope("orders:read").expect("valid").lifetime(BRIEF);
        now(self.issuer.issue(grant)).expect("tokens");
    }

    fn refresh(&mut self, at: usize) {
        let place = &mut self.sample[at].refresh;
        let client = ClientId::new("app").expect("valid");
        let request = RefreshRequest::new(place.clone(), client);
        let tokens = now(self.issuer.refresh(request)).expect("tokens");
        *place = tokens.refresh_token.expect("it rotates");
    }

    fn list(&mut self, at: usize) {
        let sessions = now(self.issuer.sessions(&self.sample[at].user)).expect("an answer");
        assert_eq!(black_box(sessions).len(), 1);
    }

    fn delete(&mut self) -> f64 {
        (0..20_000).for_each(|_| self.issue());
        let mut turns = Vec::new();
        loop {
            let start = Instant::now();
            let done = delete_some(&self.store, 100);
            let took = start.elapsed().as_secs_f64() * 1e9;
            turns.push(took / done.grants.max(1) as f64);
            if !done.more {
                return quantile(&turns, 0.5);
            }
        }
    }

    fn log_out(&mut self, at: usize) {
        let target = Target::Subject(self.sample[at].user.clone());
        let at = SystemClock::new().now();
        let revoked = self.store.revoke(Revocation::new(target, at, at + BRIEF * 3_600));
        now(revoked).expect("revoked");
    }

    /// The 99th percentile of `find` by itself, and while another thread deletes rows.
    fn p99_while_deleting(&mut self) -> [f64; 2] {
        (0..200_000).for_each(|_| self.issue());
        let without = self.p99(|finds| finds < 100_000);
        let is_done = AtomicBool::new(false);
        let store = self.store.clone();
        let with = thread::scope(|scope| {
            scope.spawn(|| {
                // In calls of 1,000 rows, as maintenance does.
                while delete_some(&store, 1_000).more {}
                is_done.store(true, Ordering::SeqCst);
            });
            self.p99(|_| !is_done.load(Ordering::SeqCst))
        });
        [without, with]
    }

    fn p99(&mut self, goes_on: impl Fn(usize) -> bool) -> f64 {
        let mut times = Vec::new();
        while goes_on(times.len()) {
            let at = self.any();
            let start = Instant::now();
            self.find(at);
            times.push(start.elapsed().as_secs_f64() * 1e9);
        }
        quantile(&times, 0.99)
    }
}

/// Deletes at most this many rows of grants that have expired.
fn delete_some(store: &MemoryStore, limit: u32) -> MaintenanceReport {
    let at = SystemClock::new().now();
    // Before the access tokens of the other grants end.
    let task = Housekeeping { now: at, before: at + 10 * BRIEF, limit, sweep: None };
    now(store.maintain(task)).expect("housekeeping")
}

/// Nanoseconds of a read at a random place among so many cache lines, which the next read waits for.
fn random_read(lines: usize) -> f64 {
    #[repr(align(64))]
    struct CacheLine(usize);
    const READS: usize = 1_000_000;
    let mut memory: Vec<CacheLine> = (0..lines).map(CacheLine).collect();
    // One circle through all of them (Sattolo).
    let mut dice = Dice::new(2);
    for last in (1..lines).rev() {
        let other = dice.below(last);
        let place = memory[last].0;
        memory[last].0 = memory[other].0;
        memory[other].0 = place;
    }
    let start = Instant::now();
    let end = (0..READS).fold(0, |at, _| memory[at].0);
    let took = start.elapsed();
    black_box(end);
    took.as_secs_f64() * 1e9 / READS as f64
}

/// The bytes of the process that are in memory (`VmRSS`); none where there is no `/proc`.
fn resident() -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse().ok());
    kilobytes.unwrap_or(0.0) * 1024.0
}
