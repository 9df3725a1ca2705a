//! Lookups: one task, and many.

use std::sync::Arc;

use cloakroom_benches::{Aim, Dice, Unit};
use tokio::sync::Mutex;

use super::{Database, Plan};
use crate::server::calls::{Calls as _, Load, finds, nanoseconds};
use crate::server::records::Key;
use crate::server::rounds::Comparison;
use crate::server::{Bench, Place, Raw as _, TASKS, seeds};

/// The connections of a pool that gives each to one caller.
const POOL: usize = 8;

/// How many turns one task has. They are short, since a long one is disturbed more often.
pub(super) const TURNS: usize = 41;

pub(super) fn measure<S: Database>(bench: &Bench<S>) {
    let Plan { find, pool: (pool, callers), most, least, .. } = S::PLAN;
    let place = bench.place();
    let grants = bench.count(200_000, 1_000);
    let keys = place.fill(grants, 0);
    bench.suite.say(format_args!("{grants} grants"));
    let load = Load::one(bench.count(500, 20));
    let one = Comparison {
        name: &format!("find a token in {}, one task", S::NAME),
        floor: find,
        unit: Unit::Nanoseconds,
        aim: Some(Aim::AtMost(most.find)),
    };
    bench.suite.report(one.turns(
        &bench.suite,
        TURNS,
        nanoseconds(finds(&place, &place.ours, &keys, load)),
        nanoseconds(finds(&place, &place.raw, &keys, load)),
    ));
    let many = Comparison {
        name: &format!("find tokens in {}, 64 tasks", S::NAME),
        floor: pool,
        unit: Unit::PerSecond,
        aim: least.map(Aim::AtLeast),
    };
    let load = Load::many(bench.count(1_000, 5));
    bench.suite.report(many.run(
        &bench.suite,
        finds(&place, &place.ours, &keys, load),
        pooled(bench, &place, &keys, Load { tasks: callers, each: TASKS * load.each / callers }),
    ));
}

/// Lookups by the raw driver, by callers who wait for one of the connections.
fn pooled<S: Database>(
    bench: &Bench<S>,
    place: &Place<S>,
    keys: &Arc<[Key]>,
    load: Load,
) -> impl FnMut() -> f64 {
    let connect = |_| bench.runtime.block_on(S::Raw::connect(&bench.url, &place.space));
    let pool: Vec<_> = (0..POOL).map(|at| Arc::new(Mutex::new(connect(at)))).collect();
    move || {
        let seed = seeds();
        place.tasks(load, |task| {
            let (own, keys) = (Arc::clone(&pool[task % POOL]), Arc::clone(keys));
            let mut dice = Dice::new(seed + task as u64);
            async move {
                for _ in 0..load.each {
                    own.lock().await.find(&keys[dice.below(keys.len())]).await;
                }
            }
        })
    }
}
