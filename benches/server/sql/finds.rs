//! Lookups of many tasks.

use std::sync::Arc;

use cloakroom_benches::{Aim, Dice, Unit};
use tokio::sync::Mutex;

use super::{Database, Plan};
use crate::server::calls::{Calls as _, Load, finds};
use crate::server::records::Key;
use crate::server::rounds::Comparison;
use crate::server::{Bench, Place, Raw as _, TASKS, seeds};

/// The connections of a pool that gives each to one caller.
const POOL: usize = 8;

pub(super) fn measure<S: Database>(bench: &Bench<S>) {
    let Plan { pool: (pool, callers), least, .. } = S::PLAN;
    let grants = bench.count(200_000, 1_000);
    bench.suite.say(format_args!("{grants} grants"));
    let place = bench.place();
    let keys = place.fill(grants, 0);
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
