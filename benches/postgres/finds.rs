//! Lookups: one task, and many.

use std::sync::Arc;
use std::time::Instant;

use cloakroom_benches::{Aim, Dice, Unit};
use cloakroom_core::store::{Lookup, TokenStore as _};
use cloakroom_postgres::PostgresStore;
use tokio::sync::Mutex;

use crate::Setting;
use crate::raw::Raw;
use crate::records::Key;
use crate::rounds::Comparison;

/// The connections of a pool that gives each to one caller.
const POOL: usize = 8;

async fn find(store: &PostgresStore, key: &Key) {
    let found = store.find(key.grant, Some(key.digest)).await.expect("an answer");
    assert!(matches!(found, Lookup::Found(found) if found.token.is_some()));
}

pub(crate) fn measure(setting: &Setting<'_>) {
    let Setting { suite, runtime, store, raw, keys, .. } = setting;
    let calls = if suite.is_quick() { 20 } else { 5_000 };
    let statement = runtime.block_on(raw.finding());
    let (mut dice, mut other) = (Dice::new(3), Dice::new(4));
    // As one task of a server: on a thread of the runtime.
    let mut ours = || {
        let (store, keys, mut dice_of) = (store.clone(), Arc::clone(keys), dice.other());
        dice.below(7);
        let task = runtime.spawn(async move {
            let start = Instant::now();
            for _ in 0..calls {
                find(&store, &keys[dice_of.below(keys.len())]).await;
            }
            start.elapsed()
        });
        runtime.block_on(task).expect("no panic").as_nanos() as f64 / calls as f64
    };
    let mut floor = || {
        let (raw, keys, statement) = (Arc::clone(raw), Arc::clone(keys), statement.clone());
        let mut dice_of = other.other();
        other.below(7);
        let task = runtime.spawn(async move {
            let start = Instant::now();
            for _ in 0..calls {
                raw.find(&statement, &keys[dice_of.below(keys.len())]).await;
            }
            start.elapsed()
        });
        runtime.block_on(task).expect("no panic").as_nanos() as f64 / calls as f64
    };
    suite.report(
        Comparison {
            name: "find a token in PostgreSQL, one task",
            floor: "the same statement, raw tokio-postgres",
            unit: Unit::Nanoseconds,
            aim: Some(Aim::AtMost(1.1)),
        }
        .run(suite, &mut ours, &mut floor),
    );
    many(setting);
}

fn many(setting: &Setting<'_>) {
    let Setting { suite, runtime, store, keys, url, .. } = setting;
    let each = if suite.is_quick() { 5 } else { 1_000 };
    let pool: Vec<_> = (0..POOL)
        .map(|_| {
            runtime.block_on(async {
                let raw = Raw::connect(url).await;
                let statement = raw.finding().await;
                Arc::new(Mutex::new((raw, statement)))
            })
        })
        .collect();
    let mut seed = 0;
    let ours = || {
        seed += 1;
        setting.tasks(each, |task| {
            let (store, keys) = (store.clone(), Arc::clone(keys));
            let mut dice = Dice::new(seed * 1_000 + task as u64);
            async move {
                for _ in 0..each {
                    find(&store, &keys[dice.below(keys.len())]).await;
                }
            }
        })
    };
    let pooled = || {
        setting.tasks(each, |task| {
            let (own, keys) = (Arc::clone(&pool[task % POOL]), Arc::clone(keys));
            let mut dice = Dice::new(task as u64);
            async move {
                for _ in 0..each {
                    let held = own.lock().await;
                    held.0.find(&held.1, &keys[dice.below(keys.len())]).await;
                }
            }
        })
    };
    suite.report(
        Comparison {
            name: "find tokens in PostgreSQL, 64 tasks",
            floor: "eight raw connections, each for one caller at a time",
            unit: Unit::PerSecond,
            aim: Some(Aim::AtLeast(3.0)),
        }
        .run(suite, ours, pooled),
    );
}
