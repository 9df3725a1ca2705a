//! Writes: one task beside the raw statements, and many tasks beside one after the other.

use cloakroom_benches::{Aim, Unit};

use super::finds::TURNS;
use super::{Database, Multiples, Plan, RawSql as _};
use crate::server::Bench;
use crate::server::calls::{Load, Shares, creates, nanoseconds, revokes};
use crate::server::rounds::Comparison;

pub(super) fn measure<S: Database>(bench: &Bench<S>) {
    let Plan {
        advance, create, most: Multiples { advance: most, create: most_create, .. }, ..
    } = S::PLAN;
    let place = bench.place();
    bench.suite.say(bench.runtime.block_on(place.raw.durability()));
    let one = Load::one(bench.count(100, 10));
    let (many, alone) = (Load::many(bench.count(S::WRITES, 2)), Load::one(bench.count(500, 10)));
    let (ours, raw) = (&place.ours, &place.raw);

    let (mine, theirs) = (Shares::new(&place), Shares::new(&place));
    bench.suite.report(
        Comparison {
            name: &format!("advance a grant in {}, one task", S::NAME),
            floor: advance,
            unit: Unit::Nanoseconds,
            aim: Some(Aim::AtMost(most)),
        }
        .turns(
            &bench.suite,
            TURNS,
            nanoseconds(mine.advances(&place, ours, one)),
            nanoseconds(theirs.advances(&place, raw, one)),
        ),
    );
    compare_many(
        bench,
        "advance",
        "the raw driver, one after the other",
        mine.advances(&place, ours, many),
        theirs.advances(&place, raw, alone),
    );
    bench.suite.report(
        Comparison {
            name: &format!("create a grant in {}, one task", S::NAME),
            floor: create,
            unit: Unit::Nanoseconds,
            aim: most_create.map(Aim::AtMost),
        }
        .turns(
            &bench.suite,
            TURNS,
            nanoseconds(creates(&place, ours, one)),
            nanoseconds(creates(&place, raw, one)),
        ),
    );
    compare_many(
        bench,
        "create",
        "the raw driver, one after the other",
        creates(&place, ours, many),
        creates(&place, raw, alone),
    );
    // Revocations share commits.
    compare_many(
        bench,
        "revoke",
        "the store, one after the other",
        revokes(&place, many),
        revokes(&place, alone),
    );
}

fn compare_many<S: Database>(
    bench: &Bench<S>,
    call: &str,
    floor: &str,
    many: impl FnMut() -> f64,
    alone: impl FnMut() -> f64,
) {
    let comparison = Comparison {
        name: &format!("{call} grants in {}, 64 tasks", S::NAME),
        floor,
        unit: Unit::PerSecond,
        aim: S::PLAN.least.map(Aim::AtLeast),
    };
    bench.suite.report(comparison.run(&bench.suite, many, alone));
}
