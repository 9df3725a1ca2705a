//! The MySQL store beside the raw driver on the same tables. `CLOAKROOM_TEST_MYSQL_URL` names the database; its
//! server says how durable a commit is.

#[path = "../sqlite/records.rs"]
mod records;
#[path = "../sqlite/rounds.rs"]
mod rounds;

use std::env;
use std::sync::Arc;
use std::time::Instant;

use cloakroom_benches::{Dice, Pair, Suite, Unit, per_call};
use cloakroom_core::Random;
use cloakroom_core::record::{GrantRecord, TokenRow};
use cloakroom_core::store::{
    Advance, AdvanceOutcome, ChainUpdate, CreateOutcome, Lookup, TokenStore as _,
};
use cloakroom_mysql::MysqlStore;
use cloakroom_mysql::mysql_async::prelude::Queryable as _;
use cloakroom_mysql::mysql_async::{Conn, Opts, OptsBuilder, Row, Statement, Value};
use tokio::runtime::Runtime;

use crate::records::{HOUR, Key, Records};
use crate::rounds::{Comparison, rate};

/// The number of concurrent tasks, where it is not one.
const TASKS: usize = 64;

/// The connections of both sides.
const CONNECTIONS: usize = 8;

fn main() {
    let suite = Suite::from_args();
    let Ok(url) = env::var("CLOAKROOM_TEST_MYSQL_URL") else {
        suite.say("MySQL is not measured: CLOAKROOM_TEST_MYSQL_URL names no database");
        return;
    };
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("threads");
    let seed: [u8; 8] = Random::system().array().expect("random bytes");
    let prefix = format!("b{:016x}_", u64::from_le_bytes(seed));
    let store = MysqlStore::builder(&url).table_prefix(&prefix).connections(CONNECTIONS);
    let store = runtime.block_on(store.connect()).expect("a database");
    let bench = Bench { suite, url, prefix, runtime, store };
    let grants = if suite.is_quick() { 200 } else { 20_000 };
    let (keys, records) = bench.fill(grants);
    bench.find(&keys);
    bench.find_many(&keys.into());
    bench.advance(records);
}

struct Bench {
    suite: Suite,
    url: String,
    prefix: String,
    runtime: Runtime,
    store: MysqlStore,
}

/// The driver, with the statements of the store prepared by hand.
struct Raw {
    conn: Conn,
    find: Statement,
    update: Statement,
    insert: Statement,
}

impl Bench {
    fn raw(&self) -> Raw {
        let sql = |text: &str| text.replace('~', &self.prefix);
        self.runtime.block_on(async {
            let opts = Opts::from_url(&self.url).expect("a URL");
            let opts = OptsBuilder::from_opts(opts).prefer_socket(false).client_found_rows(true);
            let mut conn = Conn::new(opts).await.expect("a connection");
            let level = "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED";
            conn.query_drop(level).await.expect("it is set");
            let find = conn
                .prep(sql("SELECT g.id, g.client, g.subject, g.epoch, g.generation, g.digest, \
                     g.chain_expires_at, g.expires_at, g.row_expires_at, g.revoked_at, g.body, \
                     g.tombstone, t.issued_at, t.expires_at, t.revoked_at, t.body FROM ~grants g \
                     LEFT JOIN ~tokens t ON t.grant_id = g.id AND t.digest = ? WHERE g.id = ?"))
                .await
                .expect("it is prepared");
            let update = conn
                .prep(sql("UPDATE ~grants SET generation = ?, digest = ?, chain_expires_at = ?, \
                     row_expires_at = ?, body = ? WHERE id = ? AND generation = ? AND digest = ?"))
                .await
                .expect("it is prepared");
            let insert = conn
                .prep(sql("INSERT INTO ~tokens VALUES (?, ?, ?, ?, NULL, ?)"))
                .await
                .expect("it is prepared");
            Raw { conn, find, update, insert }
        })
    }

    /// Grants, each with a token.
    fn fill(&self, grants: usize) -> (Vec<Key>, Vec<GrantRecord>) {
        let mut records = Records::new(1);
        let end = records.now + 24 * HOUR;
        let (mut keys, mut kept) = (Vec::new(), Vec::new());
        for number in 0..grants {
            let mut grant = records.grant(end);
            grant.epoch = cloakroom_core::revocation::Epoch::new(u64::MAX);
            let token = records.token(&grant, end);
            keys.push(Key { grant: grant.id, digest: token.digest });
            if number < 4_000 {
                kept.push(grant.clone());
            }
            let created = self.runtime.block_on(self.store.create(grant, vec![token]));
            assert_eq!(created.expect("an answer"), CreateOutcome::Inserted);
        }
        (keys, kept)
    }

    fn find(&self, keys: &[Key]) {
        let (mut dice, mut other) = (Dice::new(3), Dice::new(4));
        let mut raw = self.raw();
        let pair = Pair::new(
            "find a token in MySQL, one task",
            per_call(|| self.runtime.block_on(find(&self.store, &keys[dice.below(keys.len())]))),
        )
        .floor(
            "the same prepared join, raw driver",
            per_call(|| self.runtime.block_on(raw.find(&keys[other.below(keys.len())]))),
        );
        self.suite.report(pair.at_most(1.15).measure(&self.suite));
    }

    fn find_many(&self, keys: &Arc<[Key]>) {
        let each = if self.suite.is_quick() { 2 } else { 200 };
        let mut seed = 10;
        let ours = || {
            seed += 1;
            let start = Instant::now();
            let tasks: Vec<_> = (0..TASKS)
                .map(|task| {
                    let (store, keys) = (self.store.clone(), Arc::clone(keys));
                    let mut dice = Dice::new(seed * 1_000 + task as u64);
                    self.runtime.spawn(async move {
                        for _ in 0..each {
                            find(&store, &keys[dice.below(keys.len())]).await;
                        }
                    })
                })
                .collect();
            for task in tasks {
                self.runtime.block_on(task).expect("no panic");
            }
            rate(TASKS * each, start.elapsed())
        };
        let mut pool: Vec<Raw> = (0..CONNECTIONS).map(|_| self.raw()).collect();
        let floor = || {
            let calls = TASKS * each / CONNECTIONS;
            let start = Instant::now();
            let tasks: Vec<_> = pool
                .drain(..)
                .enumerate()
                .map(|(number, mut raw)| {
                    let keys = Arc::clone(keys);
                    let mut dice = Dice::new(number as u64);
                    self.runtime.spawn(async move {
                        for _ in 0..calls {
                            raw.find(&keys[dice.below(keys.len())]).await;
                        }
                        raw
                    })
                })
                .collect();
            let all = tasks.into_iter().map(|task| self.runtime.block_on(task).expect("no panic"));
            pool = all.collect();
            rate(calls * CONNECTIONS, start.elapsed())
        };
        let comparison = Comparison {
            name: "find tokens in MySQL, 64 tasks",
            floor: "the raw driver on 8 connections, a task each",
            unit: Unit::PerSecond,
            aim: None,
        };
        self.suite.report(comparison.run(&self.suite, ours, floor));
    }

    fn advance(&self, mut grants: Vec<GrantRecord>) {
        let mut theirs = grants.split_off(grants.len() / 2);
        let (mut records, mut other) = (Records::new(30), Records::new(31));
        let now = records.now;
        let (mut mine, mut its) = (0, 0);
        let mut raw = self.raw();
        let pair = Pair::new(
            "advance a grant with a token in MySQL, one task",
            per_call(|| {
                mine = (mine + 1) % grants.len();
                let step = records.refresh(&mut grants[mine], now);
                let advanced = self.runtime.block_on(self.store.advance(step));
                assert_eq!(advanced.expect("an answer"), AdvanceOutcome::Advanced);
            }),
        )
        .floor(
            "the same, four statements of the raw driver",
            per_call(|| {
                its = (its + 1) % theirs.len();
                let step = other.refresh(&mut theirs[its], now);
                self.runtime.block_on(raw.advance(&step));
            }),
        );
        self.suite.report(pair.at_most(1.15).measure(&self.suite));
    }
}

async fn find(store: &MysqlStore, key: &Key) {
    let found = store.find(key.grant, Some(key.digest)).await.expect("an answer");
    assert!(matches!(found, Lookup::Found(found) if found.token.is_some()));
}

impl Raw {
    async fn find(&mut self, key: &Key) {
        let parameters = (key.digest.as_bytes().as_slice(), key.grant.as_bytes().as_slice());
        let row: Option<Row> =
            self.conn.exec_first(&self.find, parameters).await.expect("an answer");
        assert!(row.is_some());
    }

    async fn advance(&mut self, step: &Advance) {
        let ChainUpdate::Move(next) = &step.change else { panic!("a move") };
        let next = next.to_row();
        let (generation, digest) = next.chain.expect("a chain");
        let number = |value: u64| Value::UInt(value);
        let bytes = |value: &[u8]| Value::Bytes(value.to_vec());
        let update = vec![
            number(generation.into()),
            bytes(&digest),
            number(next.chain_expires_at.expect("an end")),
            number(next.row_expires_at),
            bytes(&next.body),
            bytes(step.grant.as_bytes()),
            number(step.expected.generation.into()),
            bytes(step.expected.digest.as_bytes()),
        ];
        let TokenRow { digest, grant, issued_at, expires_at, body, .. } = step.tokens[0].to_row();
        let insert = vec![
            bytes(grant.as_bytes()),
            bytes(&digest),
            number(issued_at),
            number(expires_at),
            bytes(&body),
        ];
        self.conn.query_drop("START TRANSACTION").await.expect("it begins");
        self.conn.exec_drop(&self.update, update).await.expect("it is written");
        assert_eq!(self.conn.affected_rows(), 1);
        self.conn.exec_drop(&self.insert, insert).await.expect("it is written");
        self.conn.query_drop("COMMIT").await.expect("it is committed");
    }
}
