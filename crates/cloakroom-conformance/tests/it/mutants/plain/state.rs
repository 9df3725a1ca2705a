//! What a [`Plain`](super::Plain) store keeps, and each step that is one locked section.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use cloakroom_core::record::{GrantRecord, TokenRecord};
use cloakroom_core::revocation::{EntryId, Epoch};
use cloakroom_core::store::{
    Advance, AdvanceOutcome, ChainUpdate, Found, Lookup, Selector, StoreError,
};
use cloakroom_core::time::{Clock, SystemClock, UnixTime};
use cloakroom_core::{GrantId, TokenDigest};

use super::Manners;
use super::log::RevocationLog;
use crate::mutants::fault::Fault;

#[derive(Clone)]
pub(crate) struct State {
    pub(crate) fault: Option<Fault>,
    pub(crate) manners: Manners,
    pub(crate) slots: BTreeMap<GrantId, Slot>,
    pub(crate) tokens: BTreeMap<(GrantId, [u8; 32]), TokenRecord>,
    pub(crate) revocation_log: RevocationLog,
    /// Sweeps that are not done.
    pub(crate) sweeps: Vec<Sweep>,
    /// Grants that were revoked, and do not show it yet.
    pub(crate) late: Vec<(GrantId, UnixTime)>,
    /// Grants that no index knows.
    pub(crate) unindexed: BTreeSet<GrantId>,
    /// A lock, for stores that do not free it.
    pub(crate) busy: bool,
    /// The latest time that anyone named.
    pub(crate) seen: UnixTime,
    /// Grants whose rows cannot be read.
    pub(crate) damaged: BTreeSet<GrantId>,
    /// Where an index believes that a grant ends.
    pub(crate) index_ends: BTreeMap<GrantId, UnixTime>,
    /// How often `maintain` has been called since it last had something to do.
    pub(crate) idle: u32,
    /// Records as they were before their last step.
    pub(crate) previous: BTreeMap<GrantId, Box<GrantRecord>>,
    /// Whose turn it is, where one row a call may be touched.
    pub(crate) turn: bool,
}

#[derive(Clone)]
pub(crate) enum Slot {
    Grant(Box<GrantRecord>),
    Tombstone { until: UnixTime },
}

#[derive(Clone)]
pub(crate) struct Sweep {
    pub(crate) of: Selector,
    pub(crate) bound: Epoch,
    pub(crate) at: UnixTime,
    /// The log entry of its revocation.
    pub(crate) entry: EntryId,
    /// The instance that began it.
    pub(crate) owner: [u8; 16],
}

/// What [`State::insert`] found or did.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Inserted {
    Written,
    Present,
    Exists,
    Revoked,
}

impl State {
    pub(crate) fn new(fault: Option<Fault>, manners: Manners) -> Self {
        Self {
            fault,
            manners,
            slots: BTreeMap::new(),
            tokens: BTreeMap::new(),
            revocation_log: RevocationLog::new(fault, manners),
            sweeps: Vec::new(),
            late: Vec::new(),
            unindexed: BTreeSet::new(),
            busy: false,
            seen: SystemClock::new().now(),
            damaged: BTreeSet::new(),
            index_ends: BTreeMap::new(),
            idle: 0,
            turn: false,
            previous: BTreeMap::new(),
        }
    }

    pub(crate) fn has(&self, fault: Fault) -> bool {
        self.fault == Some(fault)
    }

    pub(crate) fn see(&mut self, now: UnixTime) {
        self.seen = self.seen.max(now);
    }

    // create

    pub(crate) fn insert(
        &mut self,
        grant: &GrantRecord,
        tokens: &[TokenRecord],
    ) -> Result<Inserted, StoreError> {
        match self.slots.get(&grant.id) {
            Some(Slot::Tombstone { .. }) if !self.has(Fault::CreateIgnoresTombstones) => {
                return Ok(Inserted::Revoked);
            }
            Some(Slot::Grant(own)) if !self.has(Fault::CreateUpserts) => {
                let revoked = own.revoked_at.is_some();
                return Ok(if !self.holds(own, grant, tokens) {
                    if revoked && self.has(Fault::AnotherRevokedIsBarred) {
                        return Ok(Inserted::Revoked);
                    }
                    if self.has(Fault::CreateLeavesTokens) {
                        self.put_tokens(tokens.to_vec());
                    }
                    Inserted::Exists
                } else if self.has(Fault::RetryIsRefused) {
                    Inserted::Exists
                } else if revoked && !self.has(Fault::RetryMissesRevocation) {
                    Inserted::Revoked
                } else if self.has(Fault::RetryRevivesTokens) {
                    self.put_tokens(tokens.to_vec());
                    Inserted::Present
                } else {
                    Inserted::Present
                });
            }
            _ => {}
        }
        self.fresh(tokens)?;
        if self.has(Fault::RetryMissesIndex) {
            self.unindexed.insert(grant.id);
        }
        self.put(grant.clone());
        match self.fault {
            Some(Fault::CreateWritesTokensLater) => {}
            Some(Fault::CreateWritesOneToken) => {
                self.put_tokens(tokens.iter().take(1).cloned().collect());
            }
            _ => self.put_tokens(tokens.to_vec()),
        }
        Ok(Inserted::Written)
    }

    /// Whether it is barred; a grant that is gets revoked.
    pub(crate) fn check(&mut self, grant: &GrantRecord) -> bool {
        self.revocation_log.raise();
        let barred = self.revocation_log.bars(grant);
        if barred && !self.has(Fault::BarredStaysLive) {
            self.flag(grant.id, grant.created_at);
        }
        barred
    }

    pub(crate) fn put(&mut self, mut grant: GrantRecord) {
        if self.has(Fault::CreateDropsUnknown) {
            grant.unknown.clear();
            if let Some(chain) = &mut grant.chain {
                chain.unknown.clear();
            }
        }
        if self.has(Fault::TimesAreShort) {
            let most = UnixTime::from_secs(u32::MAX.into());
            grant.expires_at = grant.expires_at.min(most);
            grant.row_expires_at = grant.row_expires_at.min(most);
        }
        if self.has(Fault::TimesInSeconds) {
            grant.expires_at = UnixTime::from_secs(grant.expires_at.as_secs());
            grant.created_at = UnixTime::from_secs(grant.created_at.as_secs());
        }
        self.index_ends.entry(grant.id).or_insert(grant.row_expires_at);
        self.slots.insert(grant.id, Slot::Grant(Box::new(grant)));
    }

    pub(crate) fn put_tokens(&mut self, tokens: Vec<TokenRecord>) {
        for mut token in tokens {
            if self.has(Fault::TokensDropUnknown) {
                token.unknown.clear();
            }
            if self.has(Fault::TokensAreCapped) && self.tokens_of(token.grant).count() >= 1_024 {
                continue;
            }
            // What is there already is the same: a retry, which lifts no revocation.
            let key = (token.grant, *token.digest.as_bytes());
            if self.has(Fault::RetryRevivesTokens) {
                self.tokens.remove(&key);
            }
            self.tokens.entry(key).or_insert(token);
        }
    }

    /// Whether the store has what a `create` of these would have written; revocations aside.
    fn holds(&self, own: &GrantRecord, grant: &GrantRecord, tokens: &[TokenRecord]) -> bool {
        let mut unrevoked = own.clone();
        unrevoked.revoked_at = grant.revoked_at;
        unrevoked == *grant && tokens.iter().all(|token| self.known(token) == Some(true))
    }

    /// Whether the token is there with the same content; `None` if it is not there.
    fn known(&self, token: &TokenRecord) -> Option<bool> {
        let known = self.tokens.get(&(token.grant, *token.digest.as_bytes()))?;
        let mut unrevoked = known.clone();
        unrevoked.revoked_at = token.revoked_at;
        Some(unrevoked == *token)
    }

    fn fresh(&self, tokens: &[TokenRecord]) -> Result<(), StoreError> {
        let taken = tokens.iter().any(|token| self.known(token) == Some(false));
        if taken && !self.manners.other_choices {
            return Err(StoreError::Misuse("the token's digest is taken"));
        }
        Ok(())
    }

    // find

    pub(crate) fn find(&self, id: GrantId, digest: Option<TokenDigest>) -> Lookup {
        let grant = match self.slots.get(&id) {
            None => return Lookup::Absent,
            Some(Slot::Tombstone { .. }) => return Lookup::Tombstone,
            Some(Slot::Grant(grant)) => grant,
        };
        let hidden = match self.fault {
            Some(Fault::FindHidesRevoked) => grant.revoked_at.is_some(),
            Some(Fault::FindHidesExpired) => grant.expires_at <= self.seen,
            _ => false,
        };
        if hidden {
            return Lookup::Absent;
        }
        let token = digest.and_then(|digest| {
            if self.has(Fault::FindAnyToken) {
                return self.tokens.values().find(|token| token.digest == digest);
            }
            self.tokens.get(&(id, *digest.as_bytes()))
        });
        let token = token.filter(|token| match self.fault {
            Some(Fault::FindHidesRevokedTokens) => token.revoked_at.is_none(),
            Some(Fault::FindHidesTokensOfRevoked) => grant.revoked_at.is_none(),
            _ => true,
        });
        Lookup::Found(Found {
            grant: Arc::new(GrantRecord::clone(grant)),
            token: token.cloned().map(Arc::new),
        })
    }

    // advance

    /// What to answer; `None` if the step is to be taken.
    pub(crate) fn judge(&mut self, step: &Advance) -> Result<Option<AdvanceOutcome>, StoreError> {
        let is_there = matches!(self.slots.get(&step.grant), Some(Slot::Grant(_)));
        let looks = is_there || !self.has(Fault::AdvanceLooksAtTokensLast);
        let foreign = looks && step.tokens.iter().any(|token| token.grant != step.grant);
        if foreign && !self.has(Fault::AdvanceTakesForeignTokens) {
            return Err(StoreError::Misuse("a token names another grant"));
        }
        let record = match (self.slots.get(&step.grant), &step.change) {
            (None, ChainUpdate::Move(next)) if self.has(Fault::AdvanceInsertsUnknown) => {
                self.put((**next).clone());
                return Ok(Some(AdvanceOutcome::Unknown));
            }
            (None, _) => return Ok(Some(AdvanceOutcome::Unknown)),
            (Some(Slot::Tombstone { .. }), _) if self.has(Fault::TombstonesAreUnknown) => {
                return Ok(Some(AdvanceOutcome::Unknown));
            }
            (Some(Slot::Tombstone { .. }), _) => return Ok(Some(AdvanceOutcome::Dead)),
            (Some(Slot::Grant(record)), _) => record,
        };
        if let ChainUpdate::Move(next) = &step.change {
            self.follows(record, next, step)?;
        }
        if let Some(answer) = self.repeated(step) {
            return Ok(Some(answer));
        }
        let Some(Slot::Grant(record)) = self.slots.get(&step.grant) else {
            return Ok(Some(AdvanceOutcome::Unknown));
        };
        let stands = self.stands(record, step);
        let looks_elsewhere_first = match self.fault {
            Some(Fault::RevokedElsewhereIsStale) => record.revoked_at.is_some(),
            Some(Fault::ExpiredElsewhereIsStale) => record.revoked_at.is_none(),
            _ => false,
        };
        if (stands || !looks_elsewhere_first) && self.is_dead(record, step) {
            return Ok(Some(AdvanceOutcome::Dead));
        }
        if !stands {
            let shown = match &step.change {
                ChainUpdate::Move(next) if self.has(Fault::StaleShowsLosersRecord) => {
                    (**next).clone()
                }
                _ => GrantRecord::clone(record),
            };
            if self.has(Fault::LosersLeaveTokens) {
                self.put_tokens(step.tokens.clone());
            }
            return Ok(Some(AdvanceOutcome::Stale(Arc::new(shown))));
        }
        self.ends_in_time(record, step)?;
        self.fresh(&step.tokens)?;
        Ok(None)
    }

    /// The answer to a move that was taken before, where it has one of its own.
    fn repeated(&mut self, step: &Advance) -> Option<AdvanceOutcome> {
        let ChainUpdate::Move(to) = &step.change else { return None };
        let Some(Slot::Grant(record)) = self.slots.get_mut(&step.grant) else { return None };
        let (chain, next) = (record.chain.as_ref()?, to.chain.as_ref()?);
        let is_taken = match self.fault {
            Some(Fault::RepeatIsStale) => false,
            Some(Fault::RepeatComparesDigest) => next.digest == chain.digest,
            Some(Fault::RepeatComparesGeneration) => next.generation == chain.generation,
            // Judged after the chain's end.
            Some(Fault::RepeatDiesWithTheChain) if step.now >= chain.expires_at => false,
            _ => next.position() == chain.position(),
        };
        let is_live = match self.fault {
            Some(Fault::RepeatIgnoresTheEnd | Fault::RepeatRevives) => true,
            Some(Fault::RepeatIgnoresRevocation) => step.now < record.expires_at,
            _ => record.is_live(step.now),
        };
        if !is_taken || !is_live {
            return None;
        }
        match self.fault {
            Some(Fault::RepeatWritesAgain | Fault::RepeatRevives) => *record = to.clone(),
            Some(Fault::RepeatInsertsTokens) => self.put_tokens(step.tokens.clone()),
            _ => {}
        }
        Some(AdvanceOutcome::Advanced)
    }

    /// The answer if the chain stands elsewhere, whatever else is the matter with the grant.
    pub(crate) fn stale(&self, step: &Advance) -> Option<AdvanceOutcome> {
        match self.slots.get(&step.grant) {
            Some(Slot::Grant(record)) if self.stands(record, step) => None,
            Some(Slot::Grant(record)) => {
                Some(AdvanceOutcome::Stale(Arc::new(GrantRecord::clone(record))))
            }
            _ => Some(AdvanceOutcome::Unknown),
        }
    }

    fn follows(
        &self,
        record: &GrantRecord,
        next: &GrantRecord,
        step: &Advance,
    ) -> Result<(), StoreError> {
        if next.chain.is_none() && !self.has(Fault::AdvanceLosesChain) {
            return Err(StoreError::Misuse("the next record has no chain"));
        }
        let stays = next.chain.as_ref().is_some_and(|chain| chain.position() == step.expected);
        if self.has(Fault::AdvanceComparesEndsFirst) {
            self.ends_in_time(record, step)?;
        }
        if stays && !self.has(Fault::AdvanceStays) {
            return Err(StoreError::Misuse("the next record leaves the chain where it stands"));
        }
        let same_owner = next.client == record.client
            && next.subject == record.subject
            && next.epoch == record.epoch;
        if next.id != record.id || !(same_owner || self.has(Fault::AdvanceChangesOwner)) {
            return Err(StoreError::Misuse("the next record is another grant's"));
        }
        Ok(())
    }

    fn ends_in_time(&self, record: &GrantRecord, step: &Advance) -> Result<(), StoreError> {
        match &step.change {
            ChainUpdate::Move(next)
                if next.expires_at > record.expires_at && !self.has(Fault::AdvanceLengthens) =>
            {
                Err(StoreError::Misuse("the next record ends later than the grant"))
            }
            _ => Ok(()),
        }
    }

    fn is_dead(&self, record: &GrantRecord, step: &Advance) -> bool {
        let attaches = step.change == ChainUpdate::Attach;
        let ignores_revocation = match self.fault {
            Some(Fault::AdvanceIgnoresRevocation) => !attaches,
            Some(Fault::AttachIgnoresRevocation) => attaches,
            _ => false,
        };
        if record.revoked_at.is_some() && !ignores_revocation {
            return true;
        }
        if attaches && self.has(Fault::AttachIgnoresEnd) {
            return false;
        }
        let grant_ended = step.now >= record.expires_at || step.now >= record.row_expires_at;
        let at_the_end = step.now == record.expires_at;
        let ignores_end = match self.fault {
            Some(Fault::AdvanceIgnoresGrantEnd) => true,
            Some(Fault::AdvanceAtTheGrantsEnd) => at_the_end,
            _ => false,
        };
        if grant_ended && !ignores_end {
            return true;
        }
        let chain_ends = record.chain.as_ref().map(|chain| chain.expires_at);
        chain_ends.is_some_and(|end| match self.fault {
            Some(Fault::AdvanceIgnoresChainEnd) => false,
            Some(Fault::AdvanceAtTheEnd) => step.now > end,
            _ => step.now >= end,
        })
    }

    fn stands(&self, record: &GrantRecord, step: &Advance) -> bool {
        let Some(chain) = &record.chain else {
            return false;
        };
        let (own, expected) = (chain.position(), step.expected);
        match self.fault {
            Some(Fault::AdvanceComparesGeneration) => own.generation == expected.generation,
            Some(Fault::AdvanceComparesDigest) => own.digest == expected.digest,
            Some(Fault::AdvanceTakesOlder) => own.generation >= expected.generation,
            Some(Fault::AttachDoesNotCompare) if step.change == ChainUpdate::Attach => true,
            _ => own == expected,
        }
    }

    /// Takes the step, whatever stands there.
    pub(crate) fn take(&mut self, step: Advance) {
        let moves = step.change != ChainUpdate::Attach;
        if let Some(Slot::Grant(record)) = self.slots.get(&step.grant).filter(|_| moves) {
            self.previous.insert(step.grant, record.clone());
        }
        if let Some(Slot::Grant(record)) = self.slots.get_mut(&step.grant) {
            match (step.change, self.fault) {
                (ChainUpdate::Attach, Some(Fault::AttachWritesRecord)) => {
                    record.refreshed_at = Some(step.now);
                }
                (ChainUpdate::Attach, Some(Fault::AttachDropsTokens)) => return,
                (ChainUpdate::Attach, _) => {}
                (ChainUpdate::Move(next), Some(Fault::AdvanceKeepsDigest)) => {
                    let digest = record.chain.as_ref().map(|chain| chain.digest);
                    *record = next;
                    if let (Some(chain), Some(digest)) = (&mut record.chain, digest) {
                        chain.digest = digest;
                    }
                }
                (ChainUpdate::Move(next), Some(Fault::AdvanceWritesChainAlone)) => {
                    record.chain = next.chain;
                }
                (ChainUpdate::Move(next), Some(Fault::RewriteDropsUnknown)) => {
                    *record = next;
                    record.unknown.clear();
                }
                (ChainUpdate::Move(next), Some(Fault::MoveKeepsTheRowsEnd)) => {
                    let row_expires_at = record.row_expires_at;
                    *record = next;
                    record.row_expires_at = row_expires_at.min(record.row_expires_at);
                }
                (ChainUpdate::Move(next), _) => *record = next,
            }
        }
        if moves && self.has(Fault::MoveDeletesOldTokens) {
            self.tokens.retain(|(grant, _), _| *grant != step.grant);
        }
        if !(moves && self.drops_tokens_of_moves()) {
            self.put_tokens(step.tokens);
        }
    }

    fn drops_tokens_of_moves(&self) -> bool {
        self.has(Fault::MoveDropsTokens) || self.has(Fault::AdvanceWritesTokensLater)
    }

    pub(crate) fn grants(&self) -> impl Iterator<Item = &GrantRecord> {
        self.slots.values().filter_map(|slot| match slot {
            Slot::Grant(grant) => Some(&**grant),
            Slot::Tombstone { .. } => None,
        })
    }

    /// Marks a grant revoked, if it is there; the first revocation counts.
    pub(crate) fn flag(&mut self, id: GrantId, at: UnixTime) {
        if let Some(Slot::Grant(grant)) = self.slots.get_mut(&id) {
            grant.revoked_at.get_or_insert(at);
        }
    }
}
