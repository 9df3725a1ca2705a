//! What the tasks do: lookups, steps, logins and revocations, by the store or by the raw driver. The figure of each is
//! how many calls they make a second.

use std::sync::{Arc, Mutex};

use cloakroom_benches::Dice;
use cloakroom_core::record::GrantRecord;
use cloakroom_core::revocation::{Revocation, Target};
use cloakroom_core::store::{Advance, AdvanceOutcome, CreateOutcome, Lookup, TokenStore};
use cloakroom_core::{GrantId, Random};

use super::records::{HOUR, Key, Records};
use super::{Login, Place, Server, TASKS, login, seeds};

/// The calls that a store and the raw driver both make. One that does not succeed is a panic.
pub(crate) trait Calls: Send + Sync + 'static {
    fn find(&self, key: &Key) -> impl Future<Output = ()> + Send;

    fn advance(&self, step: Advance) -> impl Future<Output = ()> + Send;

    fn create(&self, login: Login) -> impl Future<Output = ()> + Send;
}

/// The store.
pub(crate) struct Ours<T>(pub(crate) T);

impl<T: TokenStore> Calls for Ours<T> {
    async fn find(&self, key: &Key) {
        let found = self.0.find(key.grant, Some(key.digest)).await.expect("an answer");
        assert!(matches!(found, Lookup::Found(found) if found.token.is_some()));
    }

    async fn advance(&self, step: Advance) {
        let advanced = self.0.advance(step).await.expect("an answer");
        assert_eq!(advanced, AdvanceOutcome::Advanced);
    }

    async fn create(&self, (grant, token): Login) {
        let created = self.0.create(grant, vec![token]).await.expect("an answer");
        assert_eq!(created, CreateOutcome::Inserted);
    }
}

/// How many tasks there are, and how many calls each of them makes in a turn.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    pub(crate) tasks: usize,
    pub(crate) each: usize,
}

impl Load {
    pub(crate) const fn one(each: usize) -> Self {
        Self { tasks: 1, each }
    }

    pub(crate) const fn many(each: usize) -> Self {
        Self { tasks: TASKS, each }
    }
}

/// How long a call takes, in nanoseconds, given how many there are a second.
pub(crate) fn nanoseconds(mut rate: impl FnMut() -> f64) -> impl FnMut() -> f64 {
    move || 1e9 / rate()
}

pub(crate) fn finds<S: Server, C: Calls>(
    place: &Place<S>,
    calls: &Arc<C>,
    keys: &Arc<[Key]>,
    load: Load,
) -> impl FnMut() -> f64 {
    move || {
        let seed = seeds();
        place.tasks(load, |task| {
            let (calls, keys) = (Arc::clone(calls), Arc::clone(keys));
            let mut dice = Dice::new(seed + task as u64);
            async move {
                for _ in 0..load.each {
                    calls.find(&keys[dice.below(keys.len())]).await;
                }
            }
        })
    }
}

pub(crate) fn creates<S: Server, C: Calls>(
    place: &Place<S>,
    calls: &Arc<C>,
    load: Load,
) -> impl FnMut() -> f64 {
    move || {
        let seed = seeds();
        place.tasks(load, |task| {
            let (calls, mut records) = (Arc::clone(calls), Records::new(seed + task as u64));
            async move {
                for _ in 0..load.each {
                    calls.create(login(&mut records)).await;
                }
            }
        })
    }
}

/// Revocations by the store, of grants that are not there.
pub(crate) fn revokes<S: Server>(place: &Place<S>, load: Load) -> impl FnMut() -> f64 {
    move || {
        place.tasks(load, |_| {
            let ours = Arc::clone(&place.ours);
            async move {
                for _ in 0..load.each {
                    let id = GrantId::random(&Random::system()).expect("random bytes");
                    ours.0.revoke(revocation(id)).await.expect("an answer");
                }
            }
        })
    }
}

pub(crate) fn revocation(grant: GrantId) -> Revocation {
    let now = Records::new(1).now;
    Revocation::new(Target::Grant(grant), now, now + HOUR)
}

type Share = Arc<Mutex<(Records, Vec<GrantRecord>)>>;

/// Grants for each of the tasks, which it refreshes in turn.
pub(crate) struct Shares(Vec<Share>);

impl Shares {
    const EACH: usize = 20;

    pub(crate) fn new<S: Server>(place: &Place<S>) -> Self {
        let seed = seeds();
        let share = |task: u64| {
            let mut records = Records::new(seed + task);
            let rows: Vec<Login> = (0..Self::EACH).map(|_| login(&mut records)).collect();
            let grants = rows.iter().map(|(grant, _)| grant.clone()).collect();
            place.runtime.block_on(S::insert(place.store(), &place.raw, rows));
            Arc::new(Mutex::new((records, grants)))
        };
        Self((0..TASKS as u64).map(share).collect())
    }

    pub(crate) fn advances<S: Server, C: Calls>(
        &self,
        place: &Place<S>,
        calls: &Arc<C>,
        load: Load,
    ) -> impl FnMut() -> f64 {
        move || {
            place.tasks(load, |task| {
                let (calls, own) = (Arc::clone(calls), self.of(load, task));
                async move {
                    for turn in 0..load.each {
                        calls.advance(step(&own, turn)).await;
                    }
                }
            })
        }
    }

    /// The shares of a task: all of them, if it is the only one.
    fn of(&self, load: Load, task: usize) -> Vec<Share> {
        let each = TASKS / load.tasks;
        self.0[task * each..][..each].to_vec()
    }
}

fn step(own: &[Share], turn: usize) -> Advance {
    let mut share = own[turn / Shares::EACH % own.len()].lock().expect("no panic");
    let (records, grants) = &mut *share;
    let now = records.now;
    records.refresh(&mut grants[turn % Shares::EACH], now)
}
