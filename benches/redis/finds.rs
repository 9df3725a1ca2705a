//! Lookups: one task, and many.

use std::sync::Arc;

use cloakroom_benches::{Aim, Dice, Unit};

use crate::Bench;
use crate::server::calls::{Load, finds, nanoseconds};
use crate::server::rounds::Comparison;
use crate::server::seeds;

pub(crate) fn measure(bench: &Bench) {
    let grants = bench.count(100_000, 500);
    bench.suite.say(format_args!("{grants} grants"));
    let place = bench.place_for_one();
    let keys = place.fill(grants, 0);
    let load = Load::one(bench.count(5_000, 20));
    bench.suite.report(
        Comparison {
            name: "find a token in Redis, one task",
            floor: "the same command, raw driver",
            unit: Unit::Nanoseconds,
            aim: None,
        }
        .run(
            &bench.suite,
            nanoseconds(finds(&place, &place.ours, &keys, load)),
            nanoseconds(finds(&place, &place.raw, &keys, load)),
        ),
    );
    let place = bench.place();
    let keys = place.fill(grants, 0);
    let load = Load::many(bench.count(2_000, 5));
    bench.suite.report(
        Comparison {
            name: "find tokens in Redis, 64 tasks",
            floor: "the same command, raw driver",
            unit: Unit::PerSecond,
            aim: Some(Aim::AtLeast(0.92)),
        }
        .run(
            &bench.suite,
            finds(&place, &place.ours, &keys, load),
            finds(&place, &place.raw, &keys, load),
        ),
    );
    let size = place.runtime.block_on(place.raw.size(&keys[0]));
    place.runtime.block_on(async {
        for key in keys.iter() {
            place.raw.set(key, &vec![b'x'; size]).await;
        }
    });
    let gets = || {
        let seed = seeds();
        place.tasks(load, |task| {
            let (raw, keys) = (Arc::clone(&place.raw), Arc::clone(&keys));
            let mut dice = Dice::new(seed + task as u64);
            async move {
                for _ in 0..load.each {
                    raw.get(&keys[dice.below(keys.len())]).await;
                }
            }
        })
    };
    bench.suite.report(
        Comparison {
            name: "find tokens in Redis, 64 tasks, beside GET",
            floor: "GET of a value of the same size, raw driver",
            unit: Unit::PerSecond,
            aim: Some(Aim::AtLeast(0.6)),
        }
        .run(&bench.suite, finds(&place, &place.ours, &keys, load), gets),
    );
}
