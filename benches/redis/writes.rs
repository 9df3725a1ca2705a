//! Steps, logins and revocations, 64 tasks each.

use cloakroom_benches::{Aim, Unit};

use crate::server::Server as _;
use crate::server::calls::{Load, Shares, creates, revokes};
use crate::server::rounds::Comparison;
use crate::{Bench, Redis};

pub(crate) fn measure(bench: &Bench) {
    let place = bench.place();
    let load = Load::many(bench.count(Redis::WRITES, 2));
    let (mine, theirs) = (Shares::new(&place), Shares::new(&place));
    bench.suite.report(
        Comparison {
            name: "advance grants in Redis, 64 tasks",
            floor: "the raw script with the same arguments",
            unit: Unit::PerSecond,
            aim: Some(Aim::AtLeast(0.9)),
        }
        .run(
            &bench.suite,
            mine.advances(&place, &place.ours, load),
            theirs.advances(&place, &place.raw, load),
        ),
    );
    bench.suite.report(
        Comparison {
            name: "create grants in Redis, 64 tasks",
            floor: "the raw script with the same arguments, and MGET of the rules",
            unit: Unit::PerSecond,
            aim: Some(Aim::AtLeast(0.9)),
        }
        .run(
            &bench.suite,
            creates(&place, &place.ours, load),
            creates(&place, &place.raw, load),
        ),
    );
    bench.suite.report(
        Comparison {
            name: "revoke grants in Redis, 64 tasks",
            floor: "the store, one after the other",
            unit: Unit::PerSecond,
            aim: None,
        }
        .run(&bench.suite, revokes(&place, load), revokes(&place, Load::one(load.each))),
    );
}
