//! The PostgreSQL store beside the raw statements on the same driver and the same tables. `cargo xtask bench postgres`
//! starts a server for it; `CLOAKROOM_TEST_POSTGRES_URL` names another one, on which nothing else should run. The names
//! of parts run these parts alone: `one`, `finds`, `writes`, `sizes`, `growth`, `delay`, `cleaning`, `churn`, `load`, and
//! `growth-10m`, which runs only by its name.

mod raw;
#[path = "../server/mod.rs"]
mod server;
#[path = "../server/sql/mod.rs"]
mod sql;

use cloakroom_postgres::PostgresStore;

use crate::raw::Raw;
use crate::server::{Login, Server};
use crate::sql::{Database, Multiples, Plan};

fn main() {
    sql::run::<Postgres>();
}

struct Postgres;

impl Server for Postgres {
    const NAME: &'static str = "PostgreSQL";
    const VARIABLE: &'static str = "CLOAKROOM_TEST_POSTGRES_URL";
    const WRITES: usize = 50;

    type Store = PostgresStore;
    type Raw = Raw;

    async fn open(url: &str, space: &str) -> PostgresStore {
        PostgresStore::builder(url).schema(space).connect().await.expect("a server")
    }

    async fn insert(_: &PostgresStore, raw: &Raw, rows: Vec<Login>) {
        raw.insert(&rows).await;
    }
}

impl Database for Postgres {
    const PLAN: Plan = Plan {
        find: "the same statement, raw tokio-postgres",
        advance: "the same statement, raw tokio-postgres",
        create: "the same statements, raw tokio-postgres",
        pool: ("eight raw connections, each for one caller at a time", 64),
        writers: 4,
        most: Multiples { find: 1.1, advance: 1.1, create: Some(1.1) },
        least: Some(3.0),
        delay: Some(20e6),
    };

    async fn open_quick(url: &str, space: &str) -> PostgresStore {
        let more = if url.contains('?') { '&' } else { '?' };
        let url = format!("{url}{more}options=-csynchronous_commit%3Doff");
        Self::open(&url, space).await
    }
}
