//! A small, plain store of single-use items that keeps the contract, unless it is told what to do
//! wrong; and the kit, which must convict it then.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use cloakroom_conformance::Promise;
use cloakroom_conformance::single_use::{SingleUseDatabase, SingleUseFactory, checks, run_all};
use cloakroom_core::store::{SingleUseStore, Spend, Spent, StoreError};
use cloakroom_core::time::UnixTime;

use super::plain::pause;
use super::rounds;

macro_rules! faults {
    ($($(#[doc = $what:literal])+ $test:ident $fault:ident: $($promise:ident),+;)*) => {
        /// The one thing that a wrong store does wrong.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        enum Fault {
            $($(#[doc = $what])+ $fault,)*
        }

        /// Every promise that some wrong store breaks.
        pub(super) const TRIED: &[Promise] = &[$($(Promise::$promise),+),*];

        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
            async fn $test() {
                convict(Fault::$fault, &[$(Promise::$promise),+], concat!($($what),+)).await;
            }
        )*
    };
}

faults! {
    /// It looks whether an id is there, and writes later.
    looks_then_writes LooksThenWrites: SpendOnce;
    /// It looks whether an item is over, and writes later.
    looks_at_the_end_then_writes LooksAtTheEndThenWrites: SpendOnce;
    /// Each node remembers what it spent, and no other.
    each_node_for_itself EachNodeForItself: SpendOnce;
    /// Every call is `First`.
    always_first AlwaysFirst: SpendOnce, SpendHeld, SpendIds;
    /// All databases are one.
    databases_are_one DatabasesAreOne: SpendFirst;
    /// An id that was spent once is never free.
    never_free NeverFree: SpendFirst;
    /// An item is held for one millisecond more.
    held_too_long HeldTooLong: SpendFirst;
    /// What ends within a minute is refused.
    refuses_what_ends_soon RefusesWhatEndsSoon: SpendFirst;
    /// It refuses all that ends within a minute after something it forgot.
    forgets_with_a_margin ForgetsWithAMargin: SpendFirst;
    /// It forgets what ends within a second.
    forgets_early ForgetsEarly: SpendHeld;
    /// It forgets the item that ends first, over or not.
    forgets_the_first ForgetsTheFirst: SpendHeld;
    /// It keeps ends in whole seconds.
    ends_are_seconds EndsAreSeconds: SpendHeld;
    /// It keeps ends in 32 bits.
    ends_have_32_bits EndsHave32Bits: SpendHeld;
    /// It keeps ends as floating-point numbers.
    ends_are_floats EndsAreFloats: SpendHeld;
    /// It goes by its own clock, not by the caller's.
    own_clock OwnClock: SpendFirst, SpendOver;
    /// A second call replaces the end.
    ends_are_replaced EndsAreReplaced: SpendLater;
    /// A second call leaves the end as it is.
    ends_stay EndsStay: SpendLater;
    /// A second call reads the end, and writes the later one in a second step.
    ends_are_raced EndsAreRaced: SpendLater;
    /// What is over at this moment is spent.
    over_is_first_at_its_end OverIsFirstAtItsEnd: SpendOver;
    /// What is over is spent.
    over_is_first OverIsFirst: SpendOver;
    /// What is over is refused, and held for ever.
    over_is_held OverIsHeld: SpendOver;
    /// It forgets that it has forgotten.
    forgets_without_a_trace ForgetsWithoutATrace: SpendForgotten;
    /// It remembers the earliest end that it has forgotten.
    remembers_the_earliest RemembersTheEarliest: SpendForgotten;
    /// It forgets items, and notes their end in a second step.
    notes_later NotesLater: Cancellation;
    /// The last byte of an id is cut off.
    ids_are_cut IdsAreCut: SpendIds;
    /// The first byte of an id is lost.
    ids_lose_the_first IdsLoseTheFirst: SpendIds;
    /// Ids end at NUL.
    ids_end_at_nul IdsEndAtNul: SpendIds;
    /// Ids are compared as text of ASCII, in any case.
    ids_fold_case IdsFoldCase: SpendIds;
    /// Ids are compared by half of their bits.
    ids_are_hashed IdsAreHashed: SpendIds;
    /// It forgets nothing.
    forgets_nothing ForgetsNothing: SpendCleans;
    /// Each call forgets as much as it adds.
    forgets_one_a_call ForgetsOneACall: SpendCleans;
    /// It writes down what it refuses.
    keeps_what_it_refuses KeepsWhatItRefuses: SpendCleans;
    /// When it is full it drops what ends first.
    evicts_the_first EvictsTheFirst: SpendBounded;
    /// When it is full it drops what ends last.
    evicts_the_last EvictsTheLast: SpendBounded;
    /// When it is full it answers `Again`.
    full_is_again FullIsAgain: SpendBounded;
    /// When it is full it answers `First`.
    full_is_first FullIsFirst: SpendBounded;
    /// When it is full it refuses even to look.
    full_is_blind FullIsBlind: SpendBounded;
    /// When it is full it stays so.
    full_for_ever FullForEver: SpendBounded;
    /// It has no bound.
    knows_no_bound KnowsNoBound: SpendBounded;
    /// A call that fails for want of room spends its item all the same.
    full_and_spent FullAndSpent: SpendBounded;
    /// A restart loses the items.
    restart_loses_items RestartLosesItems: SpendDurable;
    /// A restart loses the latest end that was forgotten.
    restart_loses_the_end RestartLosesTheEnd: SpendDurable;
    /// A restart brings the first ends back.
    restart_loses_later_ends RestartLosesLaterEnds: SpendDurable;
    /// It writes an id, and its end in a second step.
    ends_come_later EndsComeLater: Cancellation;
    /// It holds a lock that nobody frees when its future is dropped.
    leaks_its_lock LeaksItsLock: Cancellation;
    /// It takes the old end away, and writes the later one in a second step.
    later_ends_come_later LaterEndsComeLater: Cancellation;
}

/// The kit must convict this store of each of these promises, in each round.
async fn convict(fault: Fault, promises: &[Promise], what: &str) {
    for promise in promises {
        let mut checks = checks();
        checks.retain(|check| check.promise == *promise);
        for round in 1..=rounds() {
            let mut is_convicted = false;
            for check in &checks {
                // One is enough: some wait for what never comes.
                is_convicted |= check.run(Arc::new(Plainly(Some(fault)))).await.is_err();
                if is_convicted {
                    break;
                }
            }
            assert!(is_convicted, "{fault:?} kept {promise} in round {round}:{what}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_plain_store_passes() {
    run_all(Plainly(None)).await.assert_ok();
}

#[derive(Debug)]
struct Plainly(Option<Fault>);

#[async_trait]
impl SingleUseFactory for Plainly {
    async fn database(&self) -> Arc<dyn SingleUseDatabase> {
        Arc::new(Database::new(self.0, usize::MAX))
    }

    async fn bounded(&self, items: usize) -> Option<Arc<dyn SingleUseDatabase>> {
        Some(Arc::new(Database::new(self.0, items)))
    }
}

type Id = [u8; 32];

/// What is stored.
#[derive(Debug, Clone, Default)]
struct State {
    ends: BTreeMap<Id, u64>,
    forgotten: u64,
    /// Nothing is over before: spares looking at all of them.
    nothing_before: u64,
}

#[derive(Debug)]
struct Database {
    fault: Option<Fault>,
    most: usize,
    state: Arc<Mutex<State>>,
    /// What the open stores share. When none is open, what is not durable is lost.
    open: Mutex<Weak<()>>,
}

/// One database that every database is.
static ONE: Mutex<Option<Arc<Mutex<State>>>> = Mutex::new(None);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Database {
    fn new(fault: Option<Fault>, most: usize) -> Self {
        let state = match fault {
            Some(Fault::DatabasesAreOne) => Arc::clone(lock(&ONE).get_or_insert_default()),
            _ => Arc::default(),
        };
        Self { fault, most, state, open: Mutex::default() }
    }
}

#[async_trait]
impl SingleUseDatabase for Database {
    async fn open(&self) -> Arc<dyn SingleUseStore> {
        let mut open = lock(&self.open);
        let alive = open.upgrade().unwrap_or_else(|| {
            let mut state = lock(&self.state);
            match self.fault {
                Some(Fault::RestartLosesItems) => state.ends.clear(),
                Some(Fault::RestartLosesTheEnd) => state.forgotten = 0,
                Some(Fault::RestartLosesLaterEnds) => {
                    let first = state.ends.values().copied().min().unwrap_or_default();
                    state.ends.values_mut().for_each(|end| *end = first.min(FIRST_END));
                }
                _ => {}
            }
            Arc::new(())
        });
        *open = Arc::downgrade(&alive);
        let state = match self.fault {
            Some(Fault::EachNodeForItself) => Arc::default(),
            _ => Arc::clone(&self.state),
        };
        Arc::new(Plain { fault: self.fault, most: self.most, state, alive, gate: Gate::default() })
    }

    async fn count(&self) -> Option<u64> {
        Some(lock(&self.state).ends.len() as u64)
    }
}

/// No end that a check asks for is earlier, but for those that are over.
const FIRST_END: u64 = 2_000_000_060_000;

#[derive(Debug)]
struct Plain {
    fault: Option<Fault>,
    most: usize,
    state: Arc<Mutex<State>>,
    #[expect(dead_code, reason = "tells the database that the store is open")]
    alive: Arc<()>,
    gate: Gate,
}

/// Whether a call is under way, where calls exclude each other.
type Gate = Mutex<bool>;

#[async_trait]
impl SingleUseStore for Plain {
    async fn spend(&self, spend: Spend) -> Result<Spent, StoreError> {
        if self.has(Fault::LeaksItsLock) {
            while std::mem::replace(&mut *lock(&self.gate), true) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            pause().await;
            let answer = self.step(self.read(&spend));
            *lock(&self.gate) = false;
            return answer;
        }
        pause().await;
        let call = self.read(&spend);
        let answer = match self.wrongly(&call).await {
            Some(answer) => Ok(answer),
            None => self.step(call),
        };
        pause().await;
        answer
    }
}

/// A call, as the store reads it.
struct Call {
    id: Id,
    until: u64,
    now: u64,
}

impl Plain {
    fn has(&self, fault: Fault) -> bool {
        self.fault == Some(fault)
    }

    fn read(&self, spend: &Spend) -> Call {
        let (until, now) = (spend.until.as_millis(), spend.now.as_millis());
        let until = match self.fault {
            Some(Fault::EndsAreSeconds) => until / 1000 * 1000,
            Some(Fault::EndsHave32Bits) => u64::from((until / 1000) as u32) * 1000,
            Some(Fault::EndsAreFloats) => (until as f64) as u64 - until % 2,
            _ => until,
        };
        let now = match self.fault {
            Some(Fault::OwnClock) => UnixTime::from_secs(2_000_000_000).as_millis(),
            _ => now,
        };
        Call { id: self.filed(*spend.id.as_bytes()), until, now }
    }

    /// What the id is filed under.
    fn filed(&self, mut id: Id) -> Id {
        match self.fault {
            Some(Fault::IdsAreCut) => id[31] = 0,
            Some(Fault::IdsLoseTheFirst) => id[0] = 0,
            Some(Fault::IdsFoldCase) => id.make_ascii_lowercase(),
            Some(Fault::IdsEndAtNul) => {
                let length = id.iter().position(|byte| *byte == 0).unwrap_or(32);
                id[length..].fill(0);
            }
            Some(Fault::IdsAreHashed) => id.iter_mut().for_each(|byte| *byte &= 0x55),
            _ => {}
        }
        id
    }

    /// The call, in one section under one lock.
    fn step(&self, Call { id, until, now }: Call) -> Result<Spent, StoreError> {
        let mut state = lock(&self.state);
        let full = state.ends.len() >= self.most;
        if full && self.has(Fault::FullIsBlind) {
            return Err(self.full());
        }
        let stored = state.ends.get(&id).copied();
        let held_at = now - u64::from(self.has(Fault::HeldTooLong));
        if let Some(end) = stored
            .filter(|end| held_at < *end || self.has(Fault::NeverFree))
            .filter(|_| !self.has(Fault::AlwaysFirst))
        {
            let end = match self.fault {
                Some(Fault::EndsAreReplaced) => until,
                Some(Fault::EndsStay) => end,
                _ => end.max(until),
            };
            state.ends.insert(id, end);
            state.nothing_before = state.nothing_before.min(end);
            return Ok(Spent::Again);
        }
        let margin = if self.has(Fault::ForgetsWithAMargin) { 60_000 } else { 0 };
        let is_over = match self.fault {
            Some(Fault::OverIsFirst) => false,
            Some(Fault::OverIsFirstAtItsEnd) => until < now,
            Some(Fault::RefusesWhatEndsSoon) => until < now + 59_999,
            _ => until <= now,
        };
        if is_over || state.forgotten > 0 && until <= state.forgotten + margin {
            if self.has(Fault::OverIsHeld) {
                state.ends.insert(id, UnixTime::MAX.as_millis());
            }
            if self.has(Fault::KeepsWhatItRefuses) {
                state.ends.insert(id, until);
            }
            return Ok(Spent::Again);
        }
        self.forget(&mut state, now);
        if state.ends.len() >= self.most && !state.ends.contains_key(&id) {
            let by_end = state.ends.iter().map(|(id, end)| (*end, *id));
            match self.fault {
                Some(Fault::EvictsTheFirst) => by_end.min().map(|(_, id)| state.ends.remove(&id)),
                Some(Fault::EvictsTheLast) => by_end.max().map(|(_, id)| state.ends.remove(&id)),
                Some(Fault::FullIsAgain) => return Ok(Spent::Again),
                Some(Fault::FullIsFirst) => return Ok(Spent::First),
                Some(Fault::KnowsNoBound) => None,
                Some(Fault::FullAndSpent) => {
                    state.ends.insert(id, until);
                    return Err(self.full());
                }
                _ => return Err(self.full()),
            };
        }
        state.ends.insert(id, until);
        state.nothing_before = state.nothing_before.min(until);
        Ok(Spent::First)
    }

    fn full(&self) -> StoreError {
        StoreError::unavailable("spending", format!("there are {} items", self.most))
    }

    /// Forgets a few items that are over.
    fn forget(&self, state: &mut State, now: u64) {
        let count = match self.fault {
            Some(Fault::ForgetsNothing | Fault::FullForEver | Fault::NeverFree) => 0,
            Some(Fault::ForgetsOneACall) => 1,
            _ => 8,
        };
        let now = match self.fault {
            Some(Fault::ForgetsEarly) => now + 1_000,
            Some(Fault::ForgetsTheFirst) => u64::MAX,
            _ => now,
        };
        if now < state.nothing_before {
            return;
        }
        for _ in 0..count {
            let first = state.ends.iter().map(|(id, end)| (*end, *id)).min();
            let Some((end, id)) = first.filter(|(end, _)| *end <= now) else {
                state.nothing_before = first.map_or(0, |(end, _)| end);
                return;
            };
            state.ends.remove(&id);
            state.forgotten = match self.fault {
                Some(
                    Fault::ForgetsWithoutATrace | Fault::ForgetsEarly | Fault::ForgetsTheFirst,
                ) => 0,
                Some(Fault::RemembersTheEarliest) if state.forgotten > 0 => state.forgotten,
                _ => state.forgotten.max(end),
            };
        }
    }

    /// What it does in two steps where it must be one; `None` if it does not come to that.
    async fn wrongly(&self, call: &Call) -> Option<Spent> {
        let Call { id, until, now } = *call;
        let stored = lock(&self.state).ends.get(&id).copied();
        let held = stored.filter(|end| now < *end);
        match self.fault? {
            Fault::LooksThenWrites if stored.is_none() && now < until => {
                pause().await;
                lock(&self.state).ends.insert(id, until);
                Some(Spent::First)
            }
            Fault::LooksAtTheEndThenWrites if held.is_none() && stored.is_some() && now < until => {
                pause().await;
                lock(&self.state).ends.insert(id, until);
                Some(Spent::First)
            }
            Fault::EndsAreRaced => {
                let end = held?;
                pause().await;
                lock(&self.state).ends.insert(id, end.max(until));
                Some(Spent::Again)
            }
            Fault::LaterEndsComeLater => {
                let end = held.filter(|end| *end < until)?;
                lock(&self.state).ends.remove(&id);
                pause().await;
                lock(&self.state).ends.insert(id, end.max(until));
                Some(Spent::Again)
            }
            Fault::EndsComeLater if stored.is_none() && now < until => {
                lock(&self.state).ends.insert(id, UnixTime::MAX.as_millis());
                pause().await;
                lock(&self.state).ends.insert(id, until);
                Some(Spent::First)
            }
            Fault::NotesLater => {
                let before = lock(&self.state).forgotten;
                let noted = {
                    let mut state = lock(&self.state);
                    self.forget(&mut state, now);
                    std::mem::replace(&mut state.forgotten, before)
                };
                pause().await;
                lock(&self.state).forgotten = noted;
                None
            }
            _ => None,
        }
    }
}
