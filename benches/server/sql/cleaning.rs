//! Lookups while a backlog of expired rows is cleaned away.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cloakroom_benches::{Aim, Dice, Unit, quantile};

use super::{Database, RawSql as _};
use crate::server::calls::Calls as _;
use crate::server::records::Key;
use crate::server::rounds::Comparison;
use crate::server::{Bench, Place, node, seeds};

/// How many grants have ended for each that lives.
const ENDED: usize = 10;

pub(super) fn measure<S: Database>(bench: &Bench<S>) {
    // Half of the expired rows are grants, half are their tokens.
    let rows = bench.count(1_000_000, 10_000);
    // Long enough for two rounds of housekeeping and the pause between them.
    let window = Duration::from_millis(if bench.suite.is_quick() { 50 } else { 4_000 });
    let place = bench.place();
    let keys = place.fill(rows / 2 / ENDED, ENDED);
    bench.suite.say(format_args!("lookups beside {rows} expired rows"));
    let issuer = bench.runtime.block_on(node::issuer(Arc::new(place.store().clone())));
    let all = || {
        let tables = bench.runtime.block_on(place.raw.tables());
        tables.iter().filter(|table| table.name != "log").map(|table| table.rows).sum::<f64>()
    };
    let live = all() - rows as f64;
    let mut left = rows as f64;
    let comparison = Comparison {
        name: &format!(
            "find a token in {}, 99th percentile, while a million expired rows are cleaned away",
            S::NAME
        ),
        floor: "the same while nothing is cleaned away",
        unit: Unit::Nanoseconds,
        aim: Some(Aim::AtMost(3.0)),
    };
    bench.suite.report(comparison.run(
        &bench.suite,
        || {
            let task = bench.runtime.block_on(async { node::maintain(&issuer) });
            let figure = lookups(&place, &keys, window);
            task.abort();
            let _ = bench.runtime.block_on(task);
            let before = std::mem::replace(&mut left, all() - live);
            let goes_on = 0.0 < left && left < before;
            assert!(goes_on || bench.suite.is_quick(), "{before} expired rows became {left}");
            figure
        },
        || lookups(&place, &keys, window),
    ));
    bench.suite.say(format_args!("{left} expired rows are left"));
}

/// The 99th percentile of the lookups of one task.
fn lookups<S: Database>(place: &Place<S>, keys: &Arc<[Key]>, window: Duration) -> f64 {
    let (ours, keys, mut dice) = (Arc::clone(&place.ours), Arc::clone(keys), Dice::new(seeds()));
    let task = place.runtime.spawn(async move {
        let (start, mut times) = (Instant::now(), Vec::new());
        while start.elapsed() < window {
            let key = &keys[dice.below(keys.len())];
            let before = Instant::now();
            ours.find(key).await;
            times.push(before.elapsed().as_nanos() as f64);
        }
        quantile(&times, 0.99)
    });
    place.runtime.block_on(task).expect("no panic")
}
