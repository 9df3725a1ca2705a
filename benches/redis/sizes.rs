//! How much memory the server needs for a grant, with its index entries.

use std::sync::Arc;

use cloakroom_benches::{Aim, Row, Unit};
use cloakroom_core::store::TokenStore as _;

use crate::Bench;
use crate::server::calls::{Calls as _, revocation};
use crate::server::records::Records;
use crate::server::{TASKS, login, seeds, share};

pub(crate) fn measure(bench: &Bench) {
    let place = bench.place();
    let grants = bench.count(100_000, 500);
    let used = || place.runtime.block_on(place.raw.used_memory());
    let report = |name: &str, bytes: f64, count: usize, aim: Option<f64>| {
        bench.suite.report(Row {
            name: name.into(),
            unit: Unit::Bytes,
            ours: bytes / count as f64,
            floor: None,
            aim: aim.map(Aim::AtMost),
            beside: Vec::new(),
        });
    };
    let (empty, seed) = (used(), seeds());
    let writers: Vec<_> = (0..TASKS)
        .map(|task| {
            let (ours, share) = (Arc::clone(&place.ours), share(grants, task));
            place.runtime.spawn(async move {
                let mut records = Records::new(seed + task as u64);
                let mut written = Vec::new();
                for _ in 0..share {
                    let (grant, token) = login(&mut records);
                    written.push(grant.clone());
                    ours.create((grant, token)).await;
                }
                (records, written)
            })
        })
        .collect();
    let written: Vec<_> =
        writers.into_iter().map(|it| place.runtime.block_on(it).expect("no panic")).collect();
    let new = used();
    report("memory of a grant in Redis, new", new - empty, grants, Some(1.2 * 1024.0));

    let refreshers: Vec<_> = written
        .into_iter()
        .map(|(mut records, mut grants)| {
            let ours = Arc::clone(&place.ours);
            place.runtime.spawn(async move {
                for grant in &mut grants {
                    let now = records.now;
                    ours.advance(records.refresh(grant, now)).await;
                }
                grants
            })
        })
        .collect();
    let written: Vec<_> =
        refreshers.into_iter().map(|it| place.runtime.block_on(it).expect("no panic")).collect();
    let refreshed = used();
    let name = "memory of a grant in Redis, just refreshed";
    report(name, refreshed - empty, grants, Some(1.6 * 1024.0));

    // Those of the first tasks: a log of all would be longer than one is.
    let revoked: Vec<_> = written.into_iter().flatten().take(grants / 10).collect();
    let count = revoked.len();
    place.runtime.block_on(async {
        for grant in revoked {
            place.store().revoke(revocation(grant.id)).await.expect("an answer");
        }
    });
    report(
        "memory of a revocation in Redis, less than a minute old",
        used() - refreshed,
        count,
        None,
    );
}
