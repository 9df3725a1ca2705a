//! How large the tables get while grants come and go.

use std::sync::Arc;
use std::time::Duration;

use cloakroom_benches::{Aim, Beside, Floor, Row, Unit};
use cloakroom_core::record::GrantRecord;
use cloakroom_core::store::{Housekeeping, TokenStore as _};
use cloakroom_core::time::UnixTime;
use tokio::sync::Mutex;

use super::{Database, RawSql as _};
use crate::server::calls::{Calls as _, Load};
use crate::server::records::{HOUR, Records};
use crate::server::{Bench, Place, TASKS, login_until, seeds, space};

/// How far time goes on with each step. Only the times in the rows move.
const DAY: Duration = Duration::from_secs(24 * 3_600);

/// How many days a grant lives. It is refreshed on the second.
const LIFE: u32 = 14;

/// The most that the tables may be at the end, as a multiple of their size after half of the grants. It leaves room
/// for the time since the last vacuum.
const BOUNDED: Aim = Aim::AtMost(1.25);

/// The grants of a task that it will refresh.
struct Life {
    records: Records,
    young: Vec<GrantRecord>,
}

pub(super) fn measure<S: Database>(bench: &Bench<S>) {
    let load = Load::many(bench.count(32, 1));
    let days = bench.count(1_000_000, 40 * TASKS).div_ceil(TASKS * load.each);
    let space = space();
    // The disk takes far longer than everything that decides how large the tables get.
    let store = bench.runtime.block_on(S::open_quick(&bench.url, &space));
    let place = bench.place_of(&bench.url, space, store);
    let seed = seeds();
    let life = |task: u64| {
        Arc::new(Mutex::new(Life { records: Records::new(seed + task), young: Vec::new() }))
    };
    let lives: Vec<_> = (0..TASKS as u64).map(life).collect();
    let mut now = Records::new(1).now;
    let mut sizes = Vec::new();
    for day in 1..=days {
        now = now + DAY;
        place.tasks(load, |task| pass(&place, &lives[task], load.each, now));
        bench.runtime.block_on(clean(&place, now));
        if [days / 4, days / 2, days].contains(&day) {
            sizes.push(size(bench, &place, day * TASKS * load.each));
        }
    }
    let [quarter, half, all] = sizes[..] else { panic!("three sizes") };
    bench.suite.report(Row {
        name: format!("size of the tables in {} after a million grants came and went", S::NAME),
        unit: Unit::Bytes,
        ours: all,
        floor: Some(Floor::new("after half of them", half, &[all / half])),
        aim: Some(BOUNDED),
        beside: vec![Beside { name: "after a quarter".into(), value: quarter }],
    });
}

/// A day of a task: yesterday's grants are refreshed, and as many are created.
fn pass<S: Database>(
    place: &Place<S>,
    life: &Arc<Mutex<Life>>,
    each: usize,
    now: UnixTime,
) -> impl Future<Output = ()> + Send + 'static + use<S> {
    let (ours, life) = (Arc::clone(&place.ours), Arc::clone(life));
    async move {
        let Life { records, young } = &mut *life.lock().await;
        records.now = now;
        for mut grant in std::mem::take(young) {
            ours.advance(records.refresh(&mut grant, now)).await;
        }
        for _ in 0..each {
            let end = now + LIFE * DAY;
            let (mut grant, token) = login_until(records, end, now + HOUR);
            if let Some(chain) = &mut grant.chain {
                chain.expires_at = end;
            }
            young.push(grant.clone());
            ours.create((grant, token)).await;
        }
    }
}

/// Deletes everything that has ended.
async fn clean<S: Database>(place: &Place<S>, now: UnixTime) {
    let task = Housekeeping { now, before: now, limit: 1_000, sweep: None };
    while place.store().maintain(task).await.expect("it works").more {}
}

fn size<S: Database>(bench: &Bench<S>, place: &Place<S>, grants: usize) -> f64 {
    let tables = bench.runtime.block_on(place.raw.tables());
    for table in &tables {
        let (name, rows, megabytes) = (table.name, table.rows, table.bytes / 1e6);
        bench
            .suite
            .say(format_args!("after {grants} grants: {rows} rows of {name}, {megabytes:.1} MB"));
    }
    tables.iter().map(|table| table.bytes).sum()
}
