//! One task beside the same statements of the raw driver.
//!
//! Run it on one core (`taskset -c 0 cargo xtask bench postgres/one`). On several, the answer takes twice as long where
//! the server and its client happen to be on different ones.

use cloakroom_benches::{Aim, Unit};

use super::{Database, Plan, RawSql as _};
use crate::server::Bench;
use crate::server::calls::{Load, Shares, creates, finds, nanoseconds};
use crate::server::rounds::Comparison;

/// How many turns each has. They are short, since a long one is disturbed more often.
const TURNS: usize = 41;

/// Makes calls, and says how many a second.
type Figure<'a> = Box<dyn FnMut() -> f64 + 'a>;

pub(super) fn measure<S: Database>(bench: &Bench<S>) {
    let Plan { find, advance, create, most, .. } = S::PLAN;
    let place = bench.place_for_one();
    let keys = place.fill(bench.count(200_000, 1_000), 0);
    bench.suite.say(place.runtime.block_on(place.raw.durability()));
    let (ours, raw) = (&place.ours, &place.raw);
    let compare = |call: &str, floor: &str, most: Option<f64>, our: Figure<'_>, its: Figure<'_>| {
        let name = format!("{call} in {}, one task", S::NAME);
        let (unit, aim) = (Unit::Nanoseconds, most.map(Aim::AtMost));
        let comparison = Comparison { name: &name, floor, unit, aim };
        let (our, its) = (nanoseconds(our), nanoseconds(its));
        bench.suite.report(comparison.turns(&bench.suite, TURNS, our, its));
    };

    let load = Load::one(bench.count(500, 20));
    compare(
        "find a token",
        find,
        Some(most.find),
        Box::new(finds(&place, ours, &keys, load)),
        Box::new(finds(&place, raw, &keys, load)),
    );
    let load = Load::one(bench.count(100, 10));
    let (mine, theirs) = (Shares::new(&place), Shares::new(&place));
    compare(
        "advance a grant",
        advance,
        Some(most.advance),
        Box::new(mine.advances(&place, ours, load)),
        Box::new(theirs.advances(&place, raw, load)),
    );
    compare(
        "create a grant",
        create,
        most.create,
        Box::new(creates(&place, ours, load)),
        Box::new(creates(&place, raw, load)),
    );
}
