//! Lookups: one task, and many.

use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use cloakroom_benches::{Aim, Dice, Pair, Row, Suite, Unit, now, per_call};
use cloakroom_core::store::{Lookup, TokenStore as _};
use cloakroom_sqlite::SqliteStore;

use crate::raw::{self, Raw};
use crate::records::{HOUR, Key, Records};
use crate::rounds::{Comparison, rate};
use crate::{TASKS, runtime};

/// How many threads a floor has, as many as the runtime has here.
const THREADS: usize = 2;

pub(crate) fn measure(suite: &Suite, grants: usize) {
    suite.say(format_args!("lookups among {grants} grants"));
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("tokens.db");
    let keys: Arc<[Key]> = fill(&path, grants).into();
    let store = SqliteStore::open(&path).expect("it opens");

    let (mut dice, mut other) = (Dice::new(3), Dice::new(4));
    let raw = Raw::open(&path);
    let mut statement = raw.finding();
    let one = Pair::new(
        "find a token in SQLite, one task",
        per_call(|| find(&store, &keys[dice.below(keys.len())])),
    )
    .floor(
        "the same join, raw rusqlite",
        per_call(|| raw::find(&mut statement, &keys[other.below(keys.len())])),
    );
    suite.report(one.at_most(1.8).measure(suite));
    let many = many(suite, &store, &path, &keys);
    // Half of a slower floor would be less.
    if many.floor.as_ref().is_some_and(|floor| floor.value >= 200_000.0) {
        let (name, aim) = (format!("{}, all in all", many.name), Some(Aim::AtLeast(100_000.0)));
        suite.report(Row { name, floor: None, aim, ..many.clone() });
    }
    suite.report(many);
}

/// A file with so many grants, each with a token.
fn fill(path: &Path, grants: usize) -> Vec<Key> {
    let mut records = Records::new(1);
    let end = records.now + 24 * HOUR;
    let mut keys = Vec::with_capacity(grants);
    let rows = (0..grants).map(|_| {
        let grant = records.grant(end);
        let token = records.token(&grant, end);
        keys.push(Key { grant: grant.id, digest: token.digest });
        (grant, vec![token])
    });
    Raw::open(path).fill(rows);
    keys
}

pub(crate) fn find(store: &SqliteStore, key: &Key) {
    let found = now(store.find(key.grant, Some(key.digest))).expect("an answer");
    assert!(matches!(found, Lookup::Found(found) if found.token.is_some()));
}

fn many(suite: &Suite, store: &SqliteStore, path: &Path, keys: &Arc<[Key]>) -> Row {
    let each = if suite.is_quick() { 5 } else { 1_000 };
    let runtime = runtime();
    let mut seed = 10;
    let ours = || {
        seed += 1;
        let start = Instant::now();
        let tasks: Vec<_> = (0..TASKS)
            .map(|task| {
                let (store, keys) = (store.clone(), Arc::clone(keys));
                let mut dice = Dice::new(seed * 1_000 + task as u64);
                runtime.spawn(async move {
                    for _ in 0..each {
                        find(&store, &keys[dice.below(keys.len())]);
                        // The others get their turn, as they do between two requests.
                        tokio::task::yield_now().await;
                    }
                })
            })
            .collect();
        for task in tasks {
            runtime.block_on(task).expect("no panic");
        }
        rate(TASKS * each, start.elapsed())
    };
    let connections: [Raw; THREADS] = std::array::from_fn(|_| Raw::open(path));
    let mut connections = connections.map(|raw| (raw, Dice::new(5)));
    let floor = || {
        let calls = TASKS * each / THREADS;
        let start = Instant::now();
        thread::scope(|scope| {
            for (raw, dice) in &mut connections {
                scope.spawn(move || {
                    let mut statement = raw.finding();
                    for _ in 0..calls {
                        raw::find(&mut statement, &keys[dice.below(keys.len())]);
                    }
                });
            }
        });
        rate(calls * THREADS, start.elapsed())
    };
    Comparison {
        name: "find tokens in SQLite, 64 tasks",
        floor: "the same join, raw rusqlite on two threads",
        unit: Unit::PerSecond,
        aim: Some(Aim::AtLeast(0.5)),
    }
    .run(suite, ours, floor)
}
