//! The Redis store beside the raw commands on the same driver. `cargo xtask bench redis` starts a server for it;
//! `CLOAKROOM_TEST_REDIS_URL` names another one, on which nothing else should run. The names of parts run these
//! parts alone: `finds`, `writes`, `items`, `sizes`, `growth`, `delay`, `cluster`, `replicas`. The last two start
//! servers of their own.

mod cluster;
mod delay;
mod finds;
mod growth;
mod items;
mod raw;
#[path = "../sqlite/records.rs"]
mod records;
mod replicas;
#[path = "../sqlite/rounds.rs"]
mod rounds;
#[path = "../../crates/cloakroom-redis/src/rows.rs"]
#[expect(dead_code, unused_imports, reason = "the raw commands write rows, and test none")]
mod rows;
#[path = "../../crates/cloakroom-redis/tests/it/server.rs"]
#[expect(dead_code, clippy::unwrap_used, reason = "the tests of the store need more of it")]
mod server;
mod sizes;
mod writes;

use std::env;
use std::sync::Arc;
use std::time::Instant;

use cloakroom_benches::Suite;
use cloakroom_core::Random;
use cloakroom_core::revocation::Epoch;
use cloakroom_core::store::{CreateOutcome, TokenStore as _};
use cloakroom_redis::{RedisStore, RedisStoreBuilder};
use tokio::runtime::Runtime;

use crate::raw::Raw;
use crate::records::{HOUR, Key, Records};
use crate::rounds::rate;

/// The number of concurrent tasks, where it is not one.
const TASKS: usize = 64;

type Part = (&'static str, fn(&Setting));

const PARTS: [Part; 8] = [
    ("finds", finds::measure),
    ("writes", writes::measure),
    ("items", items::measure),
    ("sizes", sizes::measure),
    ("growth", growth::measure),
    ("delay", delay::measure),
    ("cluster", cluster::measure),
    ("replicas", replicas::measure),
];

fn main() {
    let suite = Suite::from_args();
    let Ok(url) = env::var("CLOAKROOM_TEST_REDIS_URL") else {
        suite.say("CLOAKROOM_TEST_REDIS_URL names no server: nothing was measured");
        return;
    };
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("threads");
    let setting = Setting { suite, url, runtime: Arc::new(runtime) };
    let named: Vec<String> = env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    for (name, measure) in PARTS {
        if named.is_empty() || named.iter().any(|wanted| wanted == name) {
            measure(&setting);
        }
    }
}

/// What each part starts from.
struct Setting {
    suite: Suite,
    url: String,
    runtime: Arc<Runtime>,
}

impl Setting {
    /// This number, or a small one in a quick run.
    const fn count(&self, count: usize, quick: usize) -> usize {
        if self.suite.is_quick() { quick } else { count }
    }

    /// An empty store on the server.
    fn place(&self) -> Place {
        self.place_over(&self.url, |builder| builder)
    }

    /// An empty store at this URL, with these settings.
    fn place_over(
        &self,
        url: &str,
        settings: impl FnOnce(RedisStoreBuilder) -> RedisStoreBuilder,
    ) -> Place {
        let random: [u8; 8] = Random::system().array().expect("random bytes");
        let prefix = format!("bench{:016x}", u64::from_be_bytes(random));
        let builder = settings(RedisStore::builder(url).prefix(&prefix));
        let store = self.runtime.block_on(builder.connect()).expect("a server");
        let raw = Arc::new(self.runtime.block_on(Raw::connect(url, &prefix)));
        Place { runtime: Arc::clone(&self.runtime), store, raw, prefix }
    }
}

/// A store with keys of its own, and the driver beside it. Dropping it removes the keys.
struct Place {
    runtime: Arc<Runtime>,
    store: RedisStore,
    raw: Arc<Raw>,
    prefix: String,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.runtime.block_on(self.raw.remove_all());
    }
}

impl Place {
    /// Runs this many tasks, each of which makes `each` calls. How many calls a second.
    fn tasks<T>(&self, each: usize, task: impl Fn(usize) -> T) -> f64
    where
        T: Future<Output = ()> + Send + 'static,
    {
        let start = Instant::now();
        let tasks: Vec<_> = (0..TASKS).map(|number| self.runtime.spawn(task(number))).collect();
        for task in tasks {
            self.runtime.block_on(task).expect("no panic");
        }
        rate(TASKS * each, start.elapsed())
    }

    /// Creates so many grants, each with a token.
    fn fill(&self, grants: usize) -> Arc<[Key]> {
        let writers: Vec<_> = (0..TASKS)
            .map(|writer| {
                let (store, share) = (self.store.clone(), share(grants, writer));
                self.runtime.spawn(async move {
                    let mut records = Records::new(writer as u64 * 7_919);
                    let end = records.now + 24 * 14 * HOUR;
                    let mut keys = Vec::with_capacity(share);
                    for _ in 0..share {
                        let mut grant = records.grant(end);
                        grant.epoch = Epoch::new(u64::MAX);
                        let token = records.token(&grant, records.now + HOUR);
                        keys.push(Key { grant: grant.id, digest: token.digest });
                        let created = store.create(grant, vec![token]).await.expect("an answer");
                        assert_eq!(created, CreateOutcome::Inserted);
                    }
                    keys
                })
            })
            .collect();
        let keys = writers.into_iter().map(|it| self.runtime.block_on(it).expect("no panic"));
        keys.flatten().collect()
    }
}

/// How many of these a task does.
const fn share(all: usize, task: usize) -> usize {
    all / TASKS + if task < all % TASKS { 1 } else { 0 }
}
