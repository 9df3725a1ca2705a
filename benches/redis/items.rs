//! Single-use items, 64 tasks.

use std::sync::Arc;

use cloakroom_benches::{Aim, Unit};
use cloakroom_core::Random;
use cloakroom_core::store::{SingleUseId, SingleUseStore as _, Spend, Spent};
use cloakroom_core::time::{Clock as _, SystemClock};

use crate::Bench;
use crate::server::calls::Load;
use crate::server::records::HOUR;
use crate::server::rounds::Comparison;

pub(crate) fn measure(bench: &Bench) {
    let place = bench.place();
    let load = Load::many(bench.count(1_000, 2));
    let now = SystemClock::new().now();
    let id = || Random::system().array::<32>().expect("random bytes");
    let ours = || {
        place.tasks(load, |_| {
            let store = place.store().clone();
            async move {
                for _ in 0..load.each {
                    let id = SingleUseId::from_bytes(id());
                    let spent = store.spend(Spend { id, until: now + HOUR, now }).await;
                    assert_eq!(spent.expect("an answer"), Spent::First);
                }
            }
        })
    };
    let floor = || {
        place.tasks(load, |_| {
            let raw = Arc::clone(&place.raw);
            async move {
                for _ in 0..load.each {
                    raw.note(&id(), HOUR.as_millis() as u64).await;
                }
            }
        })
    };
    bench.suite.report(
        Comparison {
            name: "spend single-use items in Redis, 64 tasks",
            floor: "SET NX PX, raw driver",
            unit: Unit::PerSecond,
            aim: Some(Aim::AtLeast(0.9)),
        }
        .run(&bench.suite, ours, floor),
    );
}
