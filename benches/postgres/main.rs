//! The PostgreSQL store beside the raw statements on the same driver and the same tables. It needs a server:
//! `CLOAKROOM_TEST_POSTGRES_URL=postgres://… cargo bench -p cloakroom-benches --bench postgres`.
//! `finds`, `writes` or `sizes` runs that part alone.

mod finds;
mod raw;
#[path = "../sqlite/records.rs"]
mod records;
#[path = "../sqlite/rounds.rs"]
mod rounds;
mod sizes;
mod writes;

use std::env;
use std::sync::Arc;
use std::time::Instant;

use cloakroom_benches::Suite;
use cloakroom_core::store::{CreateOutcome, TokenStore as _};
use cloakroom_postgres::PostgresStore;
use tokio::runtime::Runtime;

use crate::raw::Raw;
use crate::records::{HOUR, Key, Records};
use crate::rounds::rate;

/// The number of concurrent tasks, where it is not one.
const TASKS: usize = 64;

/// The schema of the benchmark, which it removes at the end.
const SCHEMA: &str = "cloakroom_bench";

fn main() {
    let suite = Suite::from_args();
    let Ok(url) = env::var("CLOAKROOM_TEST_POSTGRES_URL") else {
        suite.say("CLOAKROOM_TEST_POSTGRES_URL names no database: nothing was measured");
        return;
    };
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("threads");
    let setting = Setting::new(suite, &url, &runtime);
    let named: Vec<String> = env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let parts: [(&str, &dyn Fn()); 3] = [
        ("finds", &|| finds::measure(&setting)),
        ("writes", &|| writes::measure(&setting)),
        ("sizes", &|| sizes::measure(&setting)),
    ];
    for (name, measure) in parts {
        if named.is_empty() || named.iter().any(|wanted| wanted == name) {
            measure();
        }
    }
    setting.end();
}

/// A filled store, and the driver beside it.
struct Setting<'a> {
    suite: Suite,
    runtime: &'a Runtime,
    url: String,
    store: PostgresStore,
    raw: Arc<Raw>,
    keys: Arc<[Key]>,
}

impl<'a> Setting<'a> {
    fn new(suite: Suite, url: &str, runtime: &'a Runtime) -> Self {
        let grants = if suite.is_quick() { 1_000 } else { 200_000 };
        let raw = runtime.block_on(Raw::connect(url));
        let (store, keys) = runtime.block_on(async {
            raw.run(&format!("DROP SCHEMA IF EXISTS {SCHEMA} CASCADE")).await;
            let store =
                PostgresStore::builder(url).schema(SCHEMA).connect().await.expect("a server");
            let keys = fill(&store, grants).await;
            raw.run(&format!("VACUUM ANALYZE {SCHEMA}.grants; ")).await;
            raw.run(&format!("VACUUM ANALYZE {SCHEMA}.tokens; ")).await;
            (store, keys.into())
        });
        suite.say(format_args!("{grants} grants"));
        Self { suite, runtime, url: url.to_owned(), store, raw: Arc::new(raw), keys }
    }

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

    fn end(&self) {
        self.runtime.block_on(self.raw.run(&format!("DROP SCHEMA {SCHEMA} CASCADE")));
    }
}

async fn fill(store: &PostgresStore, grants: usize) -> Vec<Key> {
    let mut writers = Vec::new();
    for writer in 0..TASKS {
        let store = store.clone();
        writers.push(tokio::spawn(async move {
            let mut records = Records::new(writer as u64);
            let end = records.now + 24 * 14 * HOUR;
            let mut keys = Vec::new();
            for _ in 0..grants / TASKS {
                let mut grant = records.grant(end);
                grant.epoch = cloakroom_core::revocation::Epoch::new(u64::MAX);
                let token = records.token(&grant, records.now + HOUR);
                keys.push(Key { grant: grant.id, digest: token.digest });
                let created = store.create(grant, vec![token]).await.expect("an answer");
                assert_eq!(created, CreateOutcome::Inserted);
            }
            keys
        }));
    }
    let mut keys = Vec::with_capacity(grants);
    for writer in writers {
        keys.extend(writer.await.expect("no panic"));
    }
    keys
}
