//! Steps, logins and revocations, 64 tasks each.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use cloakroom_benches::{Aim, Unit};
use cloakroom_core::record::GrantRecord;
use cloakroom_core::revocation::{Epoch, Revocation, Target};
use cloakroom_core::store::{Advance, AdvanceOutcome, CreateOutcome, TokenStore as _};
use cloakroom_core::{GrantId, Random};

use crate::records::{HOUR, Records};
use crate::rounds::{Comparison, rate};
use crate::{Place, Setting, TASKS};

pub(crate) fn measure(setting: &Setting) {
    let place = setting.place();
    let each = setting.count(1_000, 2);
    // The scripts are loaded by the first call.
    let (mine, theirs) = (Shares::new(&place, 500), Shares::new(&place, 900));
    setting.suite.report(
        Comparison {
            name: "advance grants in Redis, 64 tasks",
            floor: "the raw script with the same arguments",
            unit: Unit::PerSecond,
            aim: Some(Aim::AtLeast(0.9)),
        }
        .run(
            &setting.suite,
            mine.advances(&place, each),
            theirs.raw_advances(&place, each),
        ),
    );
    setting.suite.report(
        Comparison {
            name: "create grants in Redis, 64 tasks",
            floor: "the raw script with the same arguments, and MGET of the rules",
            unit: Unit::PerSecond,
            aim: Some(Aim::AtLeast(0.9)),
        }
        .run(
            &setting.suite,
            creates(&place, each, 20_000),
            raw_creates(&place, each, 40_000_000),
        ),
    );
    let one = || {
        let start = Instant::now();
        place.runtime.block_on(async {
            for _ in 0..each {
                place.store.revoke(revocation()).await.expect("an answer");
            }
        });
        rate(each, start.elapsed())
    };
    setting.suite.report(
        Comparison {
            name: "revoke grants in Redis, 64 tasks",
            floor: "the store, one after the other",
            unit: Unit::PerSecond,
            aim: None,
        }
        .run(&setting.suite, revokes(&place, each), one),
    );
}

/// Grants for each of the tasks, which refresh them in turn.
pub(crate) struct Shares(Vec<Arc<Mutex<(Records, Vec<GrantRecord>)>>>);

impl Shares {
    const EACH: usize = 20;

    pub(crate) fn new(place: &Place, seed: u64) -> Self {
        let share = |task: u64| {
            let mut records = Records::new(seed * 1_000 + task);
            let end = records.now + 24 * 14 * HOUR;
            let grants = (0..Self::EACH).map(|_| {
                let mut grant = records.grant(end);
                grant.epoch = Epoch::new(u64::MAX);
                let created = place.runtime.block_on(place.store.create(grant.clone(), vec![]));
                assert_eq!(created.expect("an answer"), CreateOutcome::Inserted);
                grant
            });
            let grants = grants.collect();
            // The first step loads the script.
            let share = Arc::new(Mutex::new((records, grants)));
            let advanced = place.runtime.block_on(place.store.advance(step(&share, 0)));
            assert_eq!(advanced.expect("an answer"), AdvanceOutcome::Advanced);
            share
        };
        Self((0..TASKS as u64).map(share).collect())
    }

    pub(crate) fn advances(&self, place: &Place, each: usize) -> impl FnMut() -> f64 {
        move || {
            place.tasks(each, |task| {
                let (store, share) = (place.store.clone(), Arc::clone(&self.0[task]));
                async move {
                    for turn in 0..each {
                        let advanced = store.advance(step(&share, turn)).await.expect("an answer");
                        assert_eq!(advanced, AdvanceOutcome::Advanced);
                    }
                }
            })
        }
    }

    /// Steps a second, of one task.
    pub(crate) fn one(&self, place: &Place, each: usize) -> impl FnMut() -> f64 {
        move || {
            let start = Instant::now();
            place.runtime.block_on(async {
                for turn in 0..each {
                    let advanced = place.store.advance(step(&self.0[0], turn)).await;
                    assert_eq!(advanced.expect("an answer"), AdvanceOutcome::Advanced);
                }
            });
            rate(each, start.elapsed())
        }
    }

    pub(crate) fn raw_advances(&self, place: &Place, each: usize) -> impl FnMut() -> f64 {
        move || {
            place.tasks(each, |task| {
                let (raw, share) = (Arc::clone(&place.raw), Arc::clone(&self.0[task]));
                async move {
                    for turn in 0..each {
                        raw.advance(&step(&share, turn)).await;
                    }
                }
            })
        }
    }
}

fn step(share: &Mutex<(Records, Vec<GrantRecord>)>, turn: usize) -> Advance {
    let (records, grants) = &mut *share.lock().expect("no panic");
    let (now, place) = (records.now, turn % grants.len());
    records.refresh(&mut grants[place], now)
}

pub(crate) fn creates(place: &Place, each: usize, mut seed: u64) -> impl FnMut() -> f64 {
    move || {
        seed += 1_000;
        place.tasks(each, |task| {
            let (store, mut records) = (place.store.clone(), Records::new(seed + task as u64));
            async move {
                let end = records.now + 24 * 14 * HOUR;
                for _ in 0..each {
                    let mut grant = records.grant(end);
                    grant.epoch = Epoch::new(u64::MAX);
                    let token = records.token(&grant, records.now + HOUR);
                    let created = store.create(grant, vec![token]).await.expect("an answer");
                    assert_eq!(created, CreateOutcome::Inserted);
                }
            }
        })
    }
}

pub(crate) fn raw_creates(place: &Place, each: usize, mut seed: u64) -> impl FnMut() -> f64 {
    move || {
        seed += 1_000;
        place.tasks(each, |task| {
            let (raw, mut records) = (Arc::clone(&place.raw), Records::new(seed + task as u64));
            async move {
                let end = records.now + 24 * 14 * HOUR;
                for _ in 0..each {
                    let mut grant = records.grant(end);
                    grant.epoch = Epoch::new(u64::MAX);
                    let token = records.token(&grant, records.now + HOUR);
                    raw.create(&grant, &token).await;
                }
            }
        })
    }
}

/// A revocation of a grant that is not there.
fn revocation() -> Revocation {
    let id = GrantId::random(&Random::system()).expect("random bytes");
    let now = Records::new(1).now;
    Revocation::new(Target::Grant(id), now, now + HOUR)
}

pub(crate) fn revokes(place: &Place, each: usize) -> impl FnMut() -> f64 {
    move || {
        place.tasks(each, |_| {
            let store = place.store.clone();
            async move {
                for _ in 0..each {
                    store.revoke(revocation()).await.expect("an answer");
                }
            }
        })
    }
}
