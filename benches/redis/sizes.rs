//! How much memory the server needs for a grant, with its index entries.

use cloakroom_benches::{Aim, Row, Unit};
use cloakroom_core::revocation::{Epoch, Revocation, Target};
use cloakroom_core::store::{AdvanceOutcome, CreateOutcome, TokenStore as _};

use crate::records::{HOUR, Records};
use crate::{Setting, TASKS, share};

pub(crate) fn measure(setting: &Setting) {
    let place = setting.place();
    let grants = setting.count(100_000, 500);
    let used = || place.runtime.block_on(place.raw.used_memory());
    let report = |name: &str, bytes: f64, count: usize, aim: Option<f64>| {
        setting.suite.report(Row {
            name: name.into(),
            unit: Unit::Bytes,
            ours: bytes / count as f64,
            floor: None,
            aim: aim.map(Aim::AtMost),
            beside: Vec::new(),
        });
    };
    let empty = used();
    let writers: Vec<_> = (0..TASKS)
        .map(|task| {
            let (store, share) = (place.store.clone(), share(grants, task));
            place.runtime.spawn(async move {
                let mut records = Records::new(3_000_000 + task as u64);
                let end = records.now + 24 * 14 * HOUR;
                let mut written = Vec::new();
                for _ in 0..share {
                    let mut grant = records.grant(end);
                    grant.epoch = Epoch::new(u64::MAX);
                    let token = records.token(&grant, records.now + HOUR);
                    let created = store.create(grant.clone(), vec![token]).await;
                    assert_eq!(created.expect("an answer"), CreateOutcome::Inserted);
                    written.push(grant);
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
            let store = place.store.clone();
            place.runtime.spawn(async move {
                for grant in &mut grants {
                    let now = records.now;
                    let step = records.refresh(grant, now);
                    let advanced = store.advance(step).await.expect("an answer");
                    assert_eq!(advanced, AdvanceOutcome::Advanced);
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
            let now = Records::new(1).now;
            let revocation = Revocation::new(Target::Grant(grant.id), now, now + HOUR);
            place.store.revoke(revocation).await.expect("an answer");
        }
    });
    report(
        "memory of a revocation in Redis, less than a minute old",
        used() - refreshed,
        count,
        None,
    );
}
