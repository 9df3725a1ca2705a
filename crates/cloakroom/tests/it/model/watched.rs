//! The in-memory store, which tells what was written at whose turn, pauses around every call, and
//! fails where the story says so.

use std::fmt;
use std::sync::{Mutex, MutexGuard};
use std::task::Poll;

use async_trait::async_trait;
use cloakroom::core::record::*;
use cloakroom::core::revocation::*;
use cloakroom::core::store::*;
use cloakroom::core::time::*;
use cloakroom::core::*;
use cloakroom::memory::MemoryStore;

use crate::engine::store::When;

/// Which call of a request fails, and whether it takes effect all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) call: u8,
    pub(super) when: When,
}

/// What a call did or saw.
pub(super) enum Effect {
    /// The epoch was read.
    Epoch,
    Inserted(GrantId),
    Barred,
    Found(GrantId),
    /// The chain moved on from this generation.
    Moved(GrantId, u32),
    /// An access token was added to the chain where it stands.
    Attached(GrantId, u32),
    /// A revocation was asked for.
    Asked(Target),
    /// It is in force; when it was asked for.
    Revoked(Target, UnixTime),
}

/// The calls of one request, between two pauses.
#[derive(Default)]
pub(super) struct Turn {
    pub(super) fault: Option<Fault>,
    pub(super) failed: bool,
    pub(super) effects: Vec<Effect>,
    pub(super) calls: u8,
}

pub(super) struct Watched {
    pub(super) memory: MemoryStore,
    turn: Mutex<Turn>,
    /// Whether sweeps are said to be left to housekeeping, one a round.
    late: bool,
    unswept: Mutex<usize>,
}

impl Watched {
    pub(super) fn new(memory: MemoryStore, late: bool) -> Self {
        Self { memory, turn: Mutex::default(), late, unswept: Mutex::default() }
    }

    /// Whose turn it is.
    pub(super) fn turn(&self) -> MutexGuard<'_, Turn> {
        self.turn.lock().unwrap()
    }

    async fn call<T>(
        &self,
        operation: impl Future<Output = Result<T, StoreError>>,
        effects: impl FnOnce(&T) -> Vec<Effect>,
    ) -> Result<T, StoreError> {
        pause().await;
        self.check(When::Before)?;
        let answer = operation.await?;
        self.turn().effects.extend(effects(&answer));
        pause().await;
        self.check(When::After)?;
        self.turn().calls += 1;
        Ok(answer)
    }

    fn check(&self, when: When) -> Result<(), StoreError> {
        let mut turn = self.turn();
        let now = Fault { call: turn.calls, when };
        if turn.fault.take_if(|fault| *fault == now).is_none() {
            return Ok(());
        }
        turn.failed = true;
        Err(StoreError::unavailable("test", "the store is down"))
    }
}

/// Gives the turn back, once.
async fn pause() {
    let mut waited = false;
    std::future::poll_fn(|_| match std::mem::replace(&mut waited, true) {
        false => Poll::Pending,
        true => Poll::Ready(()),
    })
    .await;
}

#[async_trait]
impl CheckValues for Watched {
    async fn check_values(&self) -> Result<Vec<CheckValue>, StoreError> {
        self.memory.check_values().await
    }

    async fn set_check_value(
        &self,
        name: &str,
        expected: Option<&[u8]>,
        value: Option<&[u8]>,
    ) -> Result<bool, StoreError> {
        self.memory.set_check_value(name, expected, value).await
    }
}

#[async_trait]
impl TokenStore for Watched {
    async fn create(
        &self,
        grant: GrantRecord,
        tokens: Vec<TokenRecord>,
    ) -> Result<CreateOutcome, StoreError> {
        let id = grant.id;
        self.call(self.memory.create(grant, tokens), |created| match created {
            CreateOutcome::Inserted => vec![Effect::Inserted(id)],
            CreateOutcome::Barred => vec![Effect::Barred],
            CreateOutcome::Exists => Vec::new(),
        })
        .await
    }

    async fn find(&self, grant: GrantId, token: Option<TokenDigest>) -> Result<Lookup, StoreError> {
        self.call(self.memory.find(grant, token), |_| vec![Effect::Found(grant)]).await
    }

    async fn advance(&self, step: Advance) -> Result<AdvanceOutcome, StoreError> {
        let (grant, generation) = (step.grant, step.expected.generation);
        let effect = match step.change {
            ChainUpdate::Attach => Effect::Attached(grant, generation),
            _ => Effect::Moved(grant, generation),
        };
        self.call(self.memory.advance(step), |advanced| match advanced {
            AdvanceOutcome::Advanced => vec![effect],
            _ => Vec::new(),
        })
        .await
    }

    async fn revoke(&self, revocation: Revocation) -> Result<RevokeOutcome, StoreError> {
        let (target, at) = (revocation.target.clone(), revocation.at);
        let late = self.late && target.has_bound();
        let revoke = async {
            let revoked = self.memory.revoke(revocation).await?;
            if late {
                *self.unswept.lock().unwrap() += 1;
                return Ok(RevokeOutcome::Sweeping(EntryId::from_bytes([1; 16])));
            }
            Ok(revoked)
        };
        let effects = |_: &_| vec![Effect::Asked(target.clone()), Effect::Revoked(target, at)];
        self.call(revoke, effects).await
    }

    async fn rules(&self, keys: Vec<RuleKey>) -> Result<Rules, StoreError> {
        let epoch = keys.is_empty();
        self.call(self.memory.rules(keys), |_| epoch.then_some(Effect::Epoch).into_iter().collect())
            .await
    }

    async fn list(
        &self,
        of: Selector,
        page: PageRequest,
        now: UnixTime,
    ) -> Result<Listing, StoreError> {
        self.memory.list(of, page, now).await
    }

    async fn revocations(&self, after: Cursor, limit: u32) -> Result<RevocationBatch, StoreError> {
        self.memory.revocations(after, limit).await
    }

    fn wakeups(&self) -> LogNotifications {
        self.memory.wakeups()
    }

    async fn heartbeat(&self, now: UnixTime, until: UnixTime) -> Result<(), StoreError> {
        self.memory.heartbeat(now, until).await
    }

    async fn maintain(&self, task: Housekeeping) -> Result<MaintenanceReport, StoreError> {
        let round = async {
            let unswept = self.unswept.lock().unwrap().checked_sub(1);
            let Some(unswept) = unswept else {
                return TokenStore::maintain(&self.memory, task).await;
            };
            *self.unswept.lock().unwrap() = unswept;
            let mut done = MaintenanceReport::default();
            done.more = true;
            done.sweeping = true;
            Ok(done)
        };
        self.call(round, |_| Vec::new()).await
    }
}

impl fmt::Debug for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watched").finish_non_exhaustive()
    }
}
