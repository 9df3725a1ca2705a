//! How much room a row takes, with its index entries.

use cloakroom_benches::{Row, Unit};

use super::{Database, RawSql as _};
use crate::server::Bench;
use crate::server::calls::{Load, revokes};

pub(super) fn measure<S: Database>(bench: &Bench<S>) {
    let place = bench.place();
    place.fill(bench.count(200_000, 1_000), 0);
    revokes(&place, Load::many(bench.count(200, 2)))();
    for table in bench.runtime.block_on(place.raw.tables()) {
        bench.suite.report(Row {
            name: format!("a row of {} in {}, with its indexes", table.name, S::NAME),
            unit: Unit::Bytes,
            ours: table.bytes / table.rows.max(1.0),
            floor: None,
            aim: None,
            beside: Vec::new(),
        });
    }
}
