//! Lookups: one task, and many.

use std::sync::Arc;
use std::time::Instant;

use cloakroom_benches::{Aim, Dice, Unit};
use cloakroom_core::store::{Lookup, TokenStore as _};
use cloakroom_redis::RedisStore;

use crate::records::Key;
use crate::rounds::Comparison;
use crate::{Place, Setting};

pub(crate) fn measure(setting: &Setting) {
    let place = setting.place();
    let grants = setting.count(100_000, 500);
    let keys = place.fill(grants);
    setting.suite.say(format_args!("{grants} grants"));
    one(setting, &place, &keys);
    let each = setting.count(2_000, 5);
    setting.suite.report(
        Comparison {
            name: "find tokens in Redis, 64 tasks",
            floor: "the same command, raw driver",
            unit: Unit::PerSecond,
            aim: Some(Aim::AtLeast(0.92)),
        }
        .run(&setting.suite, finds(&place, &keys, each), raw_finds(&place, &keys, each)),
    );
    let size = place.runtime.block_on(place.raw.size(&keys[0]));
    place.runtime.block_on(async {
        for key in keys.iter() {
            place.raw.set(key, &vec![b'x'; size]).await;
        }
    });
    let mut dice = Dice::new(77);
    let gets = || {
        let seed = dice.below(1 << 30) as u64;
        place.tasks(each, |task| {
            let (raw, keys) = (Arc::clone(&place.raw), Arc::clone(&keys));
            let mut dice = Dice::new(seed + task as u64);
            async move {
                for _ in 0..each {
                    raw.get(&keys[dice.below(keys.len())]).await;
                }
            }
        })
    };
    setting.suite.report(
        Comparison {
            name: "find tokens in Redis, 64 tasks, beside GET",
            floor: "GET of a value of the same size, raw driver",
            unit: Unit::PerSecond,
            aim: Some(Aim::AtLeast(0.6)),
        }
        .run(&setting.suite, finds(&place, &keys, each), gets),
    );
}

async fn find(store: &RedisStore, key: &Key) {
    let found = store.find(key.grant, Some(key.digest)).await.expect("an answer");
    assert!(matches!(found, Lookup::Found(found) if found.token.is_some()));
}

/// Lookups a second, of 64 tasks.
pub(crate) fn finds(place: &Place, keys: &Arc<[Key]>, each: usize) -> impl FnMut() -> f64 {
    let mut seed = 0;
    move || {
        seed += 1_000;
        place.tasks(each, |task| {
            let (store, keys) = (place.store.clone(), Arc::clone(keys));
            let mut dice = Dice::new(seed + task as u64);
            async move {
                for _ in 0..each {
                    find(&store, &keys[dice.below(keys.len())]).await;
                }
            }
        })
    }
}

pub(crate) fn raw_finds(place: &Place, keys: &Arc<[Key]>, each: usize) -> impl FnMut() -> f64 {
    let mut seed = 500;
    move || {
        seed += 1_000;
        place.tasks(each, |task| {
            let (raw, keys) = (Arc::clone(&place.raw), Arc::clone(keys));
            let mut dice = Dice::new(seed + task as u64);
            async move {
                for _ in 0..each {
                    raw.find(&keys[dice.below(keys.len())]).await;
                }
            }
        })
    }
}

fn one(setting: &Setting, place: &Place, keys: &Arc<[Key]>) {
    let calls = setting.count(5_000, 20);
    let (mut dice, mut other) = (Dice::new(3), Dice::new(4));
    let runtime = &place.runtime;
    // As one task of a server: on a thread of the runtime.
    let ours = || {
        let (store, keys, mut own) = (place.store.clone(), Arc::clone(keys), dice.other());
        dice.below(7);
        let task = runtime.spawn(async move {
            let start = Instant::now();
            for _ in 0..calls {
                find(&store, &keys[own.below(keys.len())]).await;
            }
            start.elapsed()
        });
        runtime.block_on(task).expect("no panic").as_nanos() as f64 / calls as f64
    };
    let floor = || {
        let (raw, keys, mut own) = (Arc::clone(&place.raw), Arc::clone(keys), other.other());
        other.below(7);
        let task = runtime.spawn(async move {
            let start = Instant::now();
            for _ in 0..calls {
                raw.find(&keys[own.below(keys.len())]).await;
            }
            start.elapsed()
        });
        runtime.block_on(task).expect("no panic").as_nanos() as f64 / calls as f64
    };
    setting.suite.report(
        Comparison {
            name: "find a token in Redis, one task",
            floor: "the same command, raw driver",
            unit: Unit::Nanoseconds,
            aim: None,
        }
        .run(&setting.suite, ours, floor),
    );
}
