//! What the benchmarks of stores on a server share: a store with tables or keys of its own, the raw driver beside it,
//! and the parts that measure all of them.

pub(crate) mod calls;
pub(crate) mod delay;
pub(crate) mod growth;
pub(crate) mod node;
#[path = "../sqlite/records.rs"]
pub(crate) mod records;
#[path = "../sqlite/rounds.rs"]
pub(crate) mod rounds;

use std::env;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use cloakroom_benches::Suite;
use cloakroom_core::Random;
use cloakroom_core::keys::KeyStore;
use cloakroom_core::record::{GrantRecord, TokenRecord};
use cloakroom_core::revocation::Epoch;
use cloakroom_core::store::TokenStore;
use cloakroom_core::time::UnixTime;
use tokio::runtime::Runtime;

use self::calls::{Calls, Load, Ours};
use self::records::{HOUR, Key, Records};
use self::rounds::rate;

/// The number of concurrent tasks, where it is not one.
pub(crate) const TASKS: usize = 64;

/// A kind of server, and the store for it.
pub(crate) trait Server: Sized + 'static {
    /// As in "find a token in Redis".
    const NAME: &'static str;
    /// The variable of the environment that names a server.
    const VARIABLE: &'static str;
    /// How many writes each of many tasks makes in a turn.
    const WRITES: usize;

    type Store: TokenStore + KeyStore + Clone;
    type Raw: Raw;

    /// A store whose tables or keys have this name.
    fn open(url: &str, space: &str) -> impl Future<Output = Self::Store>;

    /// Inserts grants in the quickest way.
    fn insert(
        store: &Self::Store,
        raw: &Self::Raw,
        rows: Vec<Login>,
    ) -> impl Future<Output = ()> + Send;
}

/// The driver by itself: the statements of the store, on one connection.
pub(crate) trait Raw: Calls + Sized {
    /// Connects, for the tables or keys of a store.
    fn connect(url: &str, space: &str) -> impl Future<Output = Self>;

    /// Does what the server would do by itself some time after many inserts.
    fn settle(&self) -> impl Future<Output = ()> {
        async {}
    }

    /// Removes everything that the store has written.
    fn remove_all(&self) -> impl Future<Output = ()>;
}

/// A part of a benchmark, and its name.
pub(crate) type Part<S> = (&'static str, fn(&Bench<S>));

/// What each part starts from.
pub(crate) struct Bench<S> {
    pub(crate) suite: Suite,
    pub(crate) url: String,
    pub(crate) runtime: Arc<Runtime>,
    server: PhantomData<S>,
}

impl<S: Server> Bench<S> {
    /// For the server that the environment names, if it names one.
    pub(crate) fn from_env() -> Option<Self> {
        let suite = Suite::from_args();
        let Ok(url) = env::var(S::VARIABLE) else {
            suite.say(format_args!("{} names no server: nothing was measured", S::VARIABLE));
            return None;
        };
        Some(Self { suite, url, runtime: runtime(), server: PhantomData })
    }

    /// Runs the parts that the command line names. If it names none, all but the rare ones.
    pub(crate) fn run(&self, parts: &[Part<S>], rare: &[Part<S>]) {
        let named: Vec<String> = env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
        let is_part = |name: &str| parts.iter().chain(rare).any(|(part, _)| *part == name);
        let unknown: Vec<&String> = named.iter().filter(|name| !is_part(name)).collect();
        assert!(unknown.is_empty(), "there are no parts with these names: {unknown:?}");
        let is_named = |part: &str| named.iter().any(|name| name == part);
        for (part, measure) in parts {
            if named.is_empty() || is_named(part) {
                measure(self);
            }
        }
        for (_, measure) in rare.iter().filter(|(part, _)| is_named(part)) {
            measure(self);
        }
    }

    /// This number, or a small one in a quick run.
    pub(crate) const fn count(&self, count: usize, quick: usize) -> usize {
        if self.suite.is_quick() { quick } else { count }
    }

    /// An empty store on the server.
    pub(crate) fn place(&self) -> Place<S> {
        self.place_on(&self.runtime)
    }

    /// The same, for one task at a time. A task and its connection share a thread, so that no call wakes another one.
    pub(crate) fn place_for_one(&self) -> Place<S> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        self.place_on(&Arc::new(runtime.expect("a runtime")))
    }

    fn place_on(&self, runtime: &Arc<Runtime>) -> Place<S> {
        let space = space();
        let store = runtime.block_on(S::open(&self.url, &space));
        Self::place_with(runtime, &self.url, space, store)
    }

    /// This store, which is empty, at this URL.
    pub(crate) fn place_of(&self, url: &str, space: String, store: S::Store) -> Place<S> {
        Self::place_with(&self.runtime, url, space, store)
    }

    fn place_with(runtime: &Arc<Runtime>, url: &str, space: String, store: S::Store) -> Place<S> {
        let raw = runtime.block_on(S::Raw::connect(url, &space));
        let (ours, raw) = (Arc::new(Ours(store)), Arc::new(raw));
        // The first calls load scripts and prepare statements.
        let mut records = Records::new(seeds());
        let (mut grant, token) = login(&mut records);
        runtime.block_on(async {
            ours.create((grant.clone(), token)).await;
            let now = records.now;
            ours.advance(records.refresh(&mut grant, now)).await;
        });
        Place { runtime: Arc::clone(runtime), ours, raw, space }
    }
}

/// Threads, one for each core.
pub(crate) fn runtime() -> Arc<Runtime> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    Arc::new(runtime.expect("threads"))
}

/// A name for tables or keys that nobody else uses. It has the length of the default one.
pub(crate) fn space() -> String {
    let random: [u8; 4] = Random::system().array().expect("random bytes");
    format!("b{:08x}", u32::from_be_bytes(random))
}

/// The first of as many seeds as there are tasks, which nothing else uses.
pub(crate) fn seeds() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(TASKS as u64, Ordering::Relaxed)
}

/// A grant and its first token.
pub(crate) type Login = (GrantRecord, TokenRecord);

/// Those of a login that begins just now.
pub(crate) fn login(records: &mut Records) -> Login {
    let now = records.now;
    login_until(records, now + 24 * 14 * HOUR, now + HOUR)
}

/// The same with other ends.
pub(crate) fn login_until(records: &mut Records, end: UnixTime, token_end: UnixTime) -> Login {
    let mut grant = records.grant(end);
    grant.epoch = Epoch::new(u64::MAX);
    let token = records.token(&grant, token_end);
    (grant, token)
}

/// A store with tables or keys of its own, and the driver beside it. Dropping it removes what it wrote.
pub(crate) struct Place<S: Server> {
    pub(crate) runtime: Arc<Runtime>,
    pub(crate) ours: Arc<Ours<S::Store>>,
    pub(crate) raw: Arc<S::Raw>,
    pub(crate) space: String,
}

impl<S: Server> Drop for Place<S> {
    fn drop(&mut self) {
        self.runtime.block_on(self.raw.remove_all());
    }
}

impl<S: Server> Place<S> {
    /// About how many grants are inserted at a time.
    const CHUNK: usize = 500;

    pub(crate) fn store(&self) -> &S::Store {
        &self.ours.0
    }

    /// Runs tasks, on the threads of the runtime as those of a server do. How many calls a second.
    pub(crate) fn tasks<T>(&self, load: Load, task: impl Fn(usize) -> T) -> f64
    where
        T: Future<Output = ()> + Send + 'static,
    {
        let start = Instant::now();
        let tasks: Vec<_> =
            (0..load.tasks).map(|number| self.runtime.spawn(task(number))).collect();
        for task in tasks {
            self.runtime.block_on(task).expect("no panic");
        }
        rate(load.tasks * load.each, start.elapsed())
    }

    /// Inserts so many live grants, each with a token, and after each of them `ended` others that have ended. The
    /// keys of the live ones.
    pub(crate) fn fill(&self, grants: usize, ended: usize) -> Arc<[Key]> {
        let seed = seeds();
        let writers: Vec<_> = (0..TASKS)
            .map(|writer| {
                let (ours, raw) = (Arc::clone(&self.ours), Arc::clone(&self.raw));
                let mut left = share(grants, writer);
                self.runtime.spawn(async move {
                    let mut records = Records::new(seed + writer as u64);
                    let past = records.now - HOUR;
                    let mut keys = Vec::with_capacity(left);
                    while left > 0 {
                        let (mut rows, some) = (Vec::new(), left.min(Self::CHUNK / (1 + ended)));
                        for _ in 0..some {
                            let live = login(&mut records);
                            keys.push(Key { grant: live.0.id, digest: live.1.digest });
                            rows.push(live);
                            rows.extend((0..ended).map(|_| login_until(&mut records, past, past)));
                        }
                        left -= some;
                        S::insert(&ours.0, &raw, rows).await;
                    }
                    keys
                })
            })
            .collect();
        let keys = writers.into_iter().map(|it| self.runtime.block_on(it).expect("no panic"));
        let keys = keys.flatten().collect();
        self.runtime.block_on(self.raw.settle());
        keys
    }
}

/// How many of these a task does.
pub(crate) const fn share(all: usize, task: usize) -> usize {
    all / TASKS + if task < all % TASKS { 1 } else { 0 }
}
