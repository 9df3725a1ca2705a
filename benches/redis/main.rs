//! The Redis store beside the raw commands on the same driver. `cargo xtask bench redis` starts a server for it;
//! `CLOAKROOM_TEST_REDIS_URL` names another one, on which nothing else should run. The names of parts run these
//! parts alone: `finds`, `writes`, `items`, `sizes`, `growth`, `delay`, `cluster`, `replicas`. The last two start
//! servers of their own.

mod cluster;
mod finds;
#[path = "../../tests/it/free_port.rs"]
mod free_port;
mod growth;
mod items;
mod raw;
mod replicas;
#[path = "../../crates/cloakroom-redis/src/rows.rs"]
#[expect(dead_code, unused_imports, reason = "the raw commands write rows, and test none")]
mod rows;
#[path = "../server/mod.rs"]
mod server;
mod sizes;
#[path = "../../crates/cloakroom-redis/tests/it/server.rs"]
#[expect(dead_code, clippy::unwrap_used, reason = "the tests of the store need more of it")]
mod started;
mod writes;

use cloakroom_redis::{RedisStore, RedisStoreBuilder};

use crate::raw::Raw;
use crate::server::calls::{Calls as _, Ours};
use crate::server::{Login, Server, delay, space};

fn main() {
    let Some(bench) = Bench::from_env() else { return };
    bench.run(
        &[
            ("finds", finds::measure),
            ("writes", writes::measure),
            ("items", items::measure),
            ("sizes", sizes::measure),
            ("growth", growth::measure),
            ("delay", |bench| delay::measure(bench, Some(10e6))),
            ("cluster", cluster::measure),
            ("replicas", replicas::measure),
        ],
        &[],
    );
}

type Bench = server::Bench<Redis>;
type Place = server::Place<Redis>;

struct Redis;

impl Server for Redis {
    const NAME: &'static str = "Redis";
    const VARIABLE: &'static str = "CLOAKROOM_TEST_REDIS_URL";
    const WRITES: usize = 1_000;

    type Store = RedisStore;
    type Raw = Raw;

    async fn open(url: &str, space: &str) -> RedisStore {
        RedisStore::builder(url).prefix(space).connect().await.expect("a server")
    }

    /// By the store, which loads its scripts where they are missing.
    async fn insert(store: &RedisStore, _: &Raw, rows: Vec<Login>) {
        let store = Ours(store.clone());
        for row in rows {
            store.create(row).await;
        }
    }
}

/// An empty store at this URL, with these settings.
fn place_over(
    bench: &Bench,
    url: &str,
    settings: impl FnOnce(RedisStoreBuilder) -> RedisStoreBuilder,
) -> Place {
    let space = space();
    let builder = settings(RedisStore::builder(url).prefix(&space));
    let store = bench.runtime.block_on(builder.connect()).expect("a server");
    bench.place_of(url, space, store)
}
