//! Operations that go wrong in the order of their steps.

use cloakroom_core::GrantId;
use cloakroom_core::record::{GrantRecord, TokenRecord};
use cloakroom_core::revocation::{Epoch, Revocation, Target};
use cloakroom_core::store::{
    Advance, AdvanceOutcome, ChainUpdate, CreateOutcome, RevokeOutcome, StoreError,
};

use super::state::{Inserted, Slot, State};
use super::{Plain, pause};
use crate::mutants::fault::Fault;

impl Plain {
    /// The answer of a `create` whose fault is in its order; `None` if it has another or none.
    pub(crate) async fn created_wrongly(
        &self,
        grant: &GrantRecord,
        tokens: &[TokenRecord],
    ) -> Option<CreateOutcome> {
        match self.fault? {
            Fault::CreateLooksThenWrites => {
                let free = !self.lock().slots.contains_key(&grant.id);
                pause().await;
                if free {
                    let mut state = self.lock();
                    state.slots.remove(&grant.id);
                }
                None
            }
            Fault::CreateChecksRulesFirst => {
                let barred = self.lock().revocation_log.denies(grant);
                pause().await;
                if barred {
                    return Some(CreateOutcome::Barred);
                }
                let inserted = self.lock().insert(grant, tokens).ok()?;
                Some(match inserted {
                    Inserted::Exists => CreateOutcome::Exists,
                    Inserted::Revoked => CreateOutcome::Barred,
                    Inserted::Written | Inserted::Present => CreateOutcome::Inserted,
                })
            }
            _ => None,
        }
    }

    pub(crate) fn advances_wrongly(&self) -> bool {
        matches!(
            self.fault,
            Some(
                Fault::AdvanceReadsThenWrites
                    | Fault::AdvanceMissesLateRevocation
                    | Fault::AdvanceWritesTokensLater
                    | Fault::AdvanceLeaksItsLock
            )
        )
    }

    pub(crate) async fn advanced_wrongly(
        &self,
        step: Advance,
    ) -> Result<AdvanceOutcome, StoreError> {
        match self.fault {
            Some(Fault::AdvanceReadsThenWrites) => {
                let refused = self.lock().judge(&step)?;
                pause().await;
                if let Some(refused) = refused {
                    return Ok(refused);
                }
                self.lock().take(step);
            }
            Some(Fault::AdvanceMissesLateRevocation) => {
                let refused = self.lock().judge(&step)?;
                pause().await;
                if let Some(refused) = refused {
                    return Ok(refused);
                }
                // Compares again, and writes a record that says nothing of a revocation.
                let mut state = self.lock();
                if let Some(stale) = state.stale(&step) {
                    return Ok(stale);
                }
                state.take(step);
            }
            Some(Fault::AdvanceWritesTokensLater) => {
                let tokens = step.tokens.clone();
                let moves = matches!(step.change, ChainUpdate::Move(_));
                let refused = self.request(|_| ()).and_then(|()| self.judge_and_take(step))?;
                if let Some(refused) = refused {
                    return Ok(refused);
                }
                pause().await;
                if moves {
                    self.request(|state| state.put_tokens(tokens))?;
                }
            }
            _ => {
                self.take_lock().await?;
                pause().await;
                let refused = self.judge_and_take(step);
                self.lock().busy = false;
                if let Some(refused) = refused? {
                    return Ok(refused);
                }
            }
        }
        pause().await;
        Ok(AdvanceOutcome::Advanced)
    }

    fn judge_and_take(&self, step: Advance) -> Result<Option<AdvanceOutcome>, StoreError> {
        let mut state = self.lock();
        let refused = state.judge(&step)?;
        if refused.is_none() {
            state.take(step);
        }
        Ok(refused)
    }

    async fn take_lock(&self) -> Result<(), StoreError> {
        for _ in 0..10_000 {
            if !std::mem::replace(&mut self.lock().busy, true) {
                return Ok(());
            }
            pause().await;
        }
        Err(StoreError::unavailable("waiting for the lock", "it is held"))
    }

    /// The answer of a `revoke` whose fault is in its order; `None` if it has another or none.
    pub(crate) async fn revoked_wrongly(
        &self,
        revocation: &Revocation,
    ) -> Option<Result<RevokeOutcome, StoreError>> {
        match (self.fault?, &revocation.target) {
            (Fault::LoggedThenFlagged, Target::Grant(id)) => {
                self.lock().revocation_log.record(revocation);
                pause().await;
                self.lock().flag_or_bury(*id, revocation);
            }
            (Fault::FlaggedThenLogged, Target::Grant(id)) => {
                self.lock().flag_or_bury(*id, revocation);
                pause().await;
                self.lock().revocation_log.record(revocation);
            }
            (Fault::TombstoneLooksThenWrites, Target::Grant(id)) => {
                let absent = !self.lock().slots.contains_key(id);
                pause().await;
                let mut state = self.lock();
                if absent {
                    let until = revocation.until;
                    state.slots.entry(*id).or_insert(Slot::Tombstone { until });
                    state.revocation_log.record(revocation);
                } else {
                    state.revoke_one(revocation).ok()?;
                }
            }
            (Fault::PositionsBeforeCommit, _) => {
                let position = self.lock().revocation_log.next_position();
                pause().await;
                pause().await;
                self.commit(revocation, position);
            }
            (Fault::PositionsCollide, _) => {
                let position = self.lock().revocation_log.peek_position();
                pause().await;
                self.commit(revocation, position);
            }
            (Fault::BoundsRace, target) if target.has_bound() => {
                let newest = self.lock().revocation_log.newest_bound();
                pause().await;
                let mut state = self.lock();
                let bound = newest.next_bound(revocation.at);
                state.revocation_log.allot_this(bound);
                let position = state.revocation_log.next_position();
                commit(&mut state, revocation, position, Some(bound));
            }
            (Fault::SweepMissesLateCreate, target) => {
                let of = target.selector()?;
                let covered = {
                    let state = self.lock();
                    let bound = state.revocation_log.newest_bound().next_bound(revocation.at);
                    state.covered(&of, bound, usize::MAX)
                };
                pause().await;
                self.lock().revocation_log.record(revocation);
                pause().await;
                let mut state = self.lock();
                for id in covered {
                    state.flag(id, revocation.at);
                }
            }
            _ => return None,
        }
        pause().await;
        Some(Ok(RevokeOutcome::Done))
    }

    /// Writes the entry at a position that was taken before, and does what it says.
    fn commit(&self, revocation: &Revocation, position: u64) {
        let mut state = self.lock();
        let has_bound = revocation.target.has_bound();
        let bound = has_bound.then(|| state.revocation_log.allot(revocation.at));
        commit(&mut state, revocation, position, bound);
    }
}

fn commit(state: &mut State, revocation: &Revocation, position: u64, bound: Option<Epoch>) {
    state.revocation_log.leave_rule(revocation, bound);
    state.revocation_log.write(position, revocation, bound);
    match (&revocation.target, bound) {
        (Target::Grant(id), _) => state.flag_or_bury(*id, revocation),
        (Target::Token { grant, digest }, _) => {
            if let Some(token) = state.tokens.get_mut(&(*grant, *digest.as_bytes())) {
                token.revoked_at.get_or_insert(revocation.at);
            }
        }
        (target, Some(bound)) => {
            let of = target.selector();
            let covered = of.map(|of| state.covered(&of, bound, usize::MAX));
            for id in covered.unwrap_or_default() {
                state.flag(id, revocation.at);
            }
        }
        _ => {}
    }
}

impl State {
    fn flag_or_bury(&mut self, id: GrantId, revocation: &Revocation) {
        let until = revocation.until;
        self.slots.entry(id).or_insert(Slot::Tombstone { until });
        self.flag(id, revocation.at);
    }
}
