//! Writes of many tasks beside one after the other. What the raw driver does with as many tasks shows how much of that
//! the server allows.

use std::sync::Arc;

use cloakroom_benches::{Aim, Beside, Unit};

use super::several::Several;
use super::{Database, RawSql as _};
use crate::server::calls::{Load, Shares, creates, revokes};
use crate::server::rounds::{Comparison, ROUNDS, median};
use crate::server::{Bench, Raw as _};

pub(super) fn measure<S: Database>(bench: &Bench<S>) {
    let (many, alone) = (Load::many(bench.count(S::WRITES, 2)), Load::one(bench.count(500, 10)));
    let place = bench.place();
    bench.suite.say(bench.runtime.block_on(place.raw.durability()));
    let (ours, raw) = (&place.ours, &place.raw);
    let connect = |_| bench.runtime.block_on(S::Raw::connect(&bench.url, &place.space));
    let several = Arc::new(Several::new((0..S::PLAN.writers).map(connect).collect()));
    let shares = || Shares::new(&place);
    let (mine, theirs, others) = (shares(), shares(), shares());
    compare_many(
        bench,
        "advance",
        "the raw driver, one after the other",
        mine.advances(&place, ours, many),
        theirs.advances(&place, raw, alone),
        Some(&mut others.advances(&place, &several, many)),
    );
    compare_many(
        bench,
        "create",
        "the raw driver, one after the other",
        creates(&place, ours, many),
        creates(&place, raw, alone),
        Some(&mut creates(&place, &several, many)),
    );
    // Revocations share commits.
    compare_many(
        bench,
        "revoke",
        "the store, one after the other",
        revokes(&place, many),
        revokes(&place, alone),
        None,
    );
}

fn compare_many<S: Database>(
    bench: &Bench<S>,
    call: &str,
    floor: &str,
    many: impl FnMut() -> f64,
    alone: impl FnMut() -> f64,
    several: Option<&mut dyn FnMut() -> f64>,
) {
    let comparison = Comparison {
        name: &format!("{call} grants in {}, 64 tasks", S::NAME),
        floor,
        unit: Unit::PerSecond,
        aim: S::PLAN.least.map(Aim::AtLeast),
    };
    let mut row = comparison.run(&bench.suite, many, alone);
    if let Some(several) = several {
        let value = median((0..ROUNDS).map(|_| several()).collect());
        let name = format!("the raw driver, 64 tasks on {} connections", S::PLAN.writers);
        row.beside.push(Beside { name, value });
    }
    bench.suite.report(row);
}
