//! Writes: one task beside the raw statements, and many tasks beside one after the other.

use std::sync::Arc;
use std::time::Instant;

use cloakroom_benches::{Aim, Unit};
use cloakroom_core::record::GrantRecord;
use cloakroom_core::revocation::{Epoch, Revocation, Target};
use cloakroom_core::store::{AdvanceOutcome, CreateOutcome, TokenStore as _};
use cloakroom_core::{GrantId, Random};

use crate::records::{HOUR, Records};
use crate::rounds::{Comparison, rate};
use crate::{Setting, TASKS};

pub(crate) fn measure(setting: &Setting<'_>) {
    advance(setting);
    create(setting);
    revoke(setting);
}

fn grants(setting: &Setting<'_>, seed: u64, count: usize) -> Vec<GrantRecord> {
    let mut records = Records::new(seed);
    let end = records.now + 24 * 14 * HOUR;
    (0..count)
        .map(|_| {
            let mut grant = records.grant(end);
            grant.epoch = Epoch::new(u64::MAX);
            let created = setting.runtime.block_on(setting.store.create(grant.clone(), vec![]));
            assert_eq!(created.expect("an answer"), CreateOutcome::Inserted);
            grant
        })
        .collect()
}

fn advance(setting: &Setting<'_>) {
    let Setting { suite, runtime, store, raw, .. } = setting;
    let calls = if suite.is_quick() { 10 } else { 1_000 };
    let mut records = Records::new(500);
    let now = records.now;
    let (mut mine, mut theirs) = (grants(setting, 501, 200), grants(setting, 502, 200));
    let statement = runtime.block_on(raw.advancing());
    let mut other = Records::new(503);
    let ours = || {
        let start = Instant::now();
        runtime.block_on(async {
            for turn in 0..calls {
                let place = turn % mine.len();
                let step = records.refresh(&mut mine[place], now);
                let advanced = store.advance(step).await.expect("an answer");
                assert_eq!(advanced, AdvanceOutcome::Advanced);
            }
        });
        start.elapsed().as_nanos() as f64 / calls as f64
    };
    let mut floor_of = || {
        let start = Instant::now();
        runtime.block_on(async {
            for turn in 0..calls {
                let place = turn % theirs.len();
                raw.advance(&statement, &other.refresh(&mut theirs[place], now)).await;
            }
        });
        start.elapsed().as_nanos() as f64 / calls as f64
    };
    suite.report(
        Comparison {
            name: "advance a grant in PostgreSQL, one task",
            floor: "the same statement, raw tokio-postgres",
            unit: Unit::Nanoseconds,
            aim: Some(Aim::AtMost(1.1)),
        }
        .run(suite, ours, &mut floor_of),
    );
    let each = if suite.is_quick() { 2 } else { 100 };
    let shares: Vec<Vec<GrantRecord>> =
        (0..TASKS).map(|task| grants(setting, 600 + task as u64, 20)).collect();
    let shares: Vec<_> = shares
        .into_iter()
        .enumerate()
        .map(|(task, share)| {
            Arc::new(std::sync::Mutex::new((Records::new(700 + task as u64), share)))
        })
        .collect();
    let many = || {
        setting.tasks(each, |task| {
            let (store, share) = (store.clone(), Arc::clone(&shares[task]));
            async move {
                for turn in 0..each {
                    let step = {
                        let (records, share) = &mut *share.lock().expect("no panic");
                        let place = turn % share.len();
                        records.refresh(&mut share[place], now)
                    };
                    let advanced = store.advance(step).await.expect("an answer");
                    assert_eq!(advanced, AdvanceOutcome::Advanced);
                }
            }
        })
    };
    suite.report(
        Comparison {
            name: "advance grants in PostgreSQL, 64 tasks",
            floor: "the raw statement, one after the other",
            unit: Unit::PerSecond,
            aim: Some(Aim::AtLeast(3.0)),
        }
        .run(suite, many, || 1e9 / floor_of()),
    );
}

fn create(setting: &Setting<'_>) {
    let Setting { suite, runtime, store, raw, .. } = setting;
    let calls = if suite.is_quick() { 10 } else { 1_000 };
    let (mut records, mut other) = (Records::new(800), Records::new(801));
    let end = records.now + 24 * 14 * HOUR;
    let statements = runtime.block_on(raw.creating());
    let ours = || {
        let start = Instant::now();
        runtime.block_on(async {
            for _ in 0..calls {
                let mut grant = records.grant(end);
                grant.epoch = Epoch::new(u64::MAX);
                let token = records.token(&grant, records.now + HOUR);
                let created = store.create(grant, vec![token]).await.expect("an answer");
                assert_eq!(created, CreateOutcome::Inserted);
            }
        });
        start.elapsed().as_nanos() as f64 / calls as f64
    };
    let mut floor_of = || {
        let start = Instant::now();
        runtime.block_on(async {
            for _ in 0..calls {
                let mut grant = other.grant(end);
                grant.epoch = Epoch::new(u64::MAX);
                let token = other.token(&grant, other.now + HOUR);
                raw.create(&statements, &grant, &token).await;
            }
        });
        start.elapsed().as_nanos() as f64 / calls as f64
    };
    suite.report(
        Comparison {
            name: "create a grant in PostgreSQL, one task",
            floor: "the insert and the look for rules, raw tokio-postgres",
            unit: Unit::Nanoseconds,
            aim: Some(Aim::AtMost(1.1)),
        }
        .run(suite, ours, &mut floor_of),
    );
    let each = if suite.is_quick() { 2 } else { 100 };
    let mut seed = 10_000;
    let many = || {
        seed += 100;
        setting.tasks(each, |task| {
            let (store, mut records) = (store.clone(), Records::new(seed + task as u64));
            async move {
                for _ in 0..each {
                    let mut grant = records.grant(end);
                    grant.epoch = Epoch::new(u64::MAX);
                    let token = records.token(&grant, records.now + HOUR);
                    let created = store.create(grant, vec![token]).await.expect("an answer");
                    assert_eq!(created, CreateOutcome::Inserted);
                }
            }
        })
    };
    suite.report(
        Comparison {
            name: "create grants in PostgreSQL, 64 tasks",
            floor: "the raw statements, one after the other",
            unit: Unit::PerSecond,
            aim: Some(Aim::AtLeast(3.0)),
        }
        .run(suite, many, || 1e9 / floor_of()),
    );
}

/// Revocations share commits.
fn revoke(setting: &Setting<'_>) {
    let Setting { suite, runtime, store, .. } = setting;
    let each = if suite.is_quick() { 2 } else { 100 };
    let now = Records::new(1).now;
    let revocation = move || {
        let id = GrantId::random(&Random::system()).expect("random bytes");
        Revocation::new(Target::Grant(id), now, now + HOUR)
    };
    let many = || {
        setting.tasks(each, |_| {
            let store = store.clone();
            async move {
                for _ in 0..each {
                    store.revoke(revocation()).await.expect("an answer");
                }
            }
        })
    };
    let one = || {
        let start = Instant::now();
        runtime.block_on(async {
            for _ in 0..each {
                store.revoke(revocation()).await.expect("an answer");
            }
        });
        rate(each, start.elapsed())
    };
    suite.report(
        Comparison {
            name: "revoke grants in PostgreSQL, 64 tasks",
            floor: "the store, one after the other",
            unit: Unit::PerSecond,
            aim: Some(Aim::AtLeast(3.0)),
        }
        .run(suite, many, one),
    );
}
