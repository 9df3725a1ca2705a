//! The steps of a revocation, each one locked section.

use cloakroom_core::GrantId;
use cloakroom_core::revocation::{Epoch, Revocation, Target};
use cloakroom_core::store::{Selector, StoreError};

use super::state::{Slot, State, Sweep};
use crate::mutants::fault::Fault;

impl State {
    /// Revokes what has no bound, and logs it, in one step.
    pub(crate) fn revoke_one(&mut self, revocation: &Revocation) -> Result<(), StoreError> {
        match &revocation.target {
            Target::Grant(id) => {
                let revoked = match self.slots.get_mut(id) {
                    Some(Slot::Grant(grant)) => grant.revoked_at.is_some(),
                    Some(Slot::Tombstone { until }) => {
                        let shortens = self.fault == Some(Fault::TombstonesShorten);
                        if shortens || revocation.until > *until {
                            *until = revocation.until;
                        }
                        false
                    }
                    None => {
                        if !self.has(Fault::NoTombstones) {
                            let until = match self.fault {
                                Some(Fault::TombstonesEndWithRules) => revocation.rule_until,
                                _ => revocation.until,
                            };
                            self.slots.insert(*id, Slot::Tombstone { until });
                        }
                        if self.has(Fault::AbsentAreNotLogged) {
                            return Ok(());
                        }
                        false
                    }
                };
                if revoked && self.has(Fault::RevokedTwiceIsAnError) {
                    return Err(StoreError::Misuse("the grant is revoked already"));
                }
                if revoked && self.has(Fault::RevokedTwiceIsLive) {
                    if let Some(Slot::Grant(grant)) = self.slots.get_mut(id) {
                        grant.revoked_at = None;
                    }
                } else if self.has(Fault::AnsweredBeforeVisible) {
                    self.late.push((*id, revocation.at));
                } else {
                    self.flag(*id, revocation.at);
                }
                if self.has(Fault::GrantsAreNotLogged) {
                    return Ok(());
                }
            }
            Target::Token { grant, digest } => {
                let key = (*grant, *digest.as_bytes());
                if let Some(token) = self.tokens.get_mut(&key)
                    && self.fault != Some(Fault::TokenStaysLive)
                {
                    token.revoked_at.get_or_insert(revocation.at);
                }
                if self.has(Fault::TokensAreNotLogged) {
                    return Ok(());
                }
            }
            _ => {}
        }
        self.revocation_log.record(revocation);
        Ok(())
    }

    /// Makes visible what was answered before it was.
    pub(crate) fn catch_up(&mut self) {
        for (id, at) in std::mem::take(&mut self.late) {
            self.flag(id, at);
        }
    }

    /// Flags at most `limit` grants that the sweep covers; how many it flagged.
    pub(crate) fn sweep(&mut self, sweep: &Sweep, limit: usize) -> usize {
        let covered = self.covered(&sweep.of, sweep.bound, limit);
        for id in &covered {
            self.flag(*id, sweep.at);
        }
        covered.len()
    }

    /// Grants that are covered and not yet revoked.
    pub(crate) fn covered(&self, of: &Selector, bound: Epoch, limit: usize) -> Vec<GrantId> {
        let wide = self.has(Fault::PairCoversSubject);
        if matches!(of, Selector::Client(_)) && self.has(Fault::ClientCoversNothing) {
            return Vec::new();
        }
        self.grants()
            .filter(|grant| grant.revoked_at.is_none())
            .filter(|grant| match self.fault {
                Some(Fault::SweepIgnoresEpochs) => true,
                Some(Fault::SweepSparesItsBound) => grant.epoch < bound,
                _ => grant.epoch <= bound,
            })
            .filter(|grant| self.selects(of, grant, wide))
            .filter(|grant| {
                !(self.has(Fault::SweepSparesDamage) && self.damaged.contains(&grant.id))
            })
            .take(limit)
            .map(|grant| grant.id)
            .collect()
    }

    /// The sweep of this bound is done.
    pub(crate) fn swept(&mut self, bound: Epoch) {
        self.sweeps.retain(|sweep| sweep.bound != bound);
    }
}
