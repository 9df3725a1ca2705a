//! The MySQL store beside the raw driver on the same tables. `cargo xtask bench mysql` starts a server for it;
//! `CLOAKROOM_TEST_MYSQL_URL` names the database of another one, on which nothing else should run. The names of parts
//! run these parts alone: `finds`, `writes`, `sizes`, `growth`, `delay`, `cleaning`, `churn`, `load`, and
//! `growth-10m`, which runs only by its name.

mod raw;
#[path = "../server/mod.rs"]
mod server;
#[path = "../server/sql/mod.rs"]
mod sql;

use cloakroom_mysql::MysqlStore;

use crate::raw::{Raw, prefix};
use crate::server::{Login, Server};
use crate::sql::{Database, Multiples, Plan};

fn main() {
    sql::run::<Mysql>();
}

struct Mysql;

impl Server for Mysql {
    const NAME: &'static str = "MySQL";
    const VARIABLE: &'static str = "CLOAKROOM_TEST_MYSQL_URL";
    const WRITES: usize = 50;

    type Store = MysqlStore;
    type Raw = Raw;

    async fn open(url: &str, space: &str) -> MysqlStore {
        MysqlStore::builder(url).table_prefix(prefix(space)).connect().await.expect("a database")
    }

    async fn insert(_: &MysqlStore, raw: &Raw, rows: Vec<Login>) {
        raw.insert(&rows).await;
    }
}

impl Database for Mysql {
    const PLAN: Plan = Plan {
        find: "the same prepared join, raw driver",
        advance: "the same, four statements of the raw driver",
        create: "the same, four statements of the raw driver, and the look for rules",
        pool: ("the raw driver on 8 connections, a task each", 8),
        writers: 8,
        most: Multiples { find: 1.15, advance: 1.15, create: None },
        least: None,
        delay: None,
    };
}
