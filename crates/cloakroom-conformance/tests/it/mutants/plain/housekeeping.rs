//! What a [`Plain`](super::Plain) store deletes, and when.

use std::time::Duration;

use cloakroom_core::GrantId;
use cloakroom_core::record::GrantRecord;
use cloakroom_core::store::{Housekeeping, MaintenanceReport};
use cloakroom_core::time::UnixTime;

use super::state::{Slot, State};
use crate::mutants::fault::Fault;

/// Something under this id has ended.
pub(crate) struct Due {
    id: GrantId,
    /// All of it.
    over: bool,
    tokens: Vec<[u8; 32]>,
}

impl State {
    /// Deletes what has ended, and does what sweeps left; `found` is what was found before.
    pub(crate) fn maintain(
        &mut self,
        task: &Housekeeping,
        found: Option<Vec<Due>>,
    ) -> MaintenanceReport {
        let mut done = MaintenanceReport::default();
        let before = match self.fault {
            Some(Fault::PurgeNothing) => return done,
            Some(Fault::PurgeWithoutMargin) => task.now,
            Some(Fault::PurgeAtTheBorder) => task.before + Duration::from_millis(1),
            _ => task.before,
        };
        let mut left = match task.limit as usize {
            _ if self.has(Fault::MaintainIsUnbounded) => usize::MAX,
            limit => limit.max(1),
        };
        let sweeps_last = self.has(Fault::DeletionStarvesSweeps);
        if !sweeps_last {
            left -= self.sweep_on(task, left);
        }
        if self.has(Fault::DamageStopsDeletion) && !self.damaged.is_empty() {
            return {
                let mut done = done;
                done.more = true;
                done
            };
        }
        for due in found.unwrap_or_else(|| self.due(before)) {
            if left > 0 {
                left -= self.delete(&due, left, &mut done);
            }
        }
        let trimmed = self.revocation_log.trim(before, task.now, left);
        done.revocations += trimmed as u64;
        if sweeps_last {
            self.sweep_on(task, left - trimmed);
        }
        if self.has(Fault::IndexEndsWithTheFirstRow) {
            let ends = self.index_ends.iter().filter(|(_, end)| **end < before);
            self.unindexed.extend(ends.map(|(id, _)| *id));
        }
        let goes_on = |entry| self.sweeps.iter().any(|sweep| sweep.entry == entry);
        done.sweeping = match self.fault {
            Some(Fault::SweepingIsDenied) => false,
            Some(Fault::UnknownSweepGoesOn) => task.sweep.is_some(),
            _ => task.sweep.is_some_and(goes_on),
        };
        done.more = match self.fault {
            Some(Fault::MaintainHidesMore) => false,
            Some(Fault::MaintainIsCapped) if done.grants >= 1_000 => false,
            Some(Fault::MaintainNeverEnds) => true,
            _ => {
                let rows = !self.sweeps.is_empty() || !self.due(before).is_empty();
                rows || self.revocation_log.is_due(before) || self.says_more()
            }
        };
        done
    }

    /// Whether a store that goes round its shards wants to be called a few times more.
    fn says_more(&mut self) -> bool {
        self.idle = (self.idle + 1) % 4;
        self.manners.more_for_a_while && self.idle != 0
    }

    /// Goes on with sweeps: with the one that is waited for before all else, with the others in half
    /// of what may be done. How many grants were flagged.
    fn sweep_on(&mut self, task: &Housekeeping, limit: usize) -> usize {
        let mut flagged = 0;
        if let Some(sweep) = self.sweeps.iter().find(|sweep| Some(sweep.entry) == task.sweep)
            && !self.has(Fault::AwaitedSweepWaitsItsTurn)
        {
            let sweep = sweep.clone();
            flagged = self.sweep(&sweep, limit);
            if flagged == limit {
                return flagged;
            }
            self.swept(sweep.bound);
        }
        self.turn = !self.turn;
        let half = match limit {
            _ if self.has(Fault::SweepsStarveDeletion) || task.sweep.is_some() => limit,
            1 => usize::from(self.turn),
            _ => limit / 2,
        };
        while let Some(sweep) = self.sweeps.first().cloned() {
            let left = half.saturating_sub(flagged);
            let more = self.sweep(&sweep, left);
            flagged += more;
            if more == left {
                break;
            }
            self.swept(sweep.bound);
        }
        flagged
    }

    /// Whatever has ended before `before`.
    pub(crate) fn due(&self, before: UnixTime) -> Vec<Due> {
        let due = self.slots.iter().map(|(id, slot)| match slot {
            Slot::Tombstone { until } => Due {
                id: *id,
                over: *until < before || self.has(Fault::PurgeTombstones),
                tokens: Vec::new(),
            },
            Slot::Grant(grant) => Due {
                id: *id,
                over: self.is_over(grant, before),
                tokens: self.ended_tokens(*id, before),
            },
        });
        due.filter(|due| due.over || !due.tokens.is_empty()).collect()
    }

    /// Deletes it, whatever it is by now; how many rows.
    fn delete(&mut self, due: &Due, limit: usize, done: &mut MaintenanceReport) -> usize {
        if due.over {
            match self.slots.remove(&due.id) {
                Some(Slot::Grant(_)) => done.grants += 1,
                Some(Slot::Tombstone { .. }) => done.revocations += 1,
                None => {}
            }
            self.tokens.retain(|(grant, _), _| *grant != due.id);
            return 1;
        }
        let mut deleted = 0;
        for digest in due.tokens.iter().take(limit) {
            self.tokens.remove(&(due.id, *digest));
            deleted += 1;
        }
        done.tokens += deleted as u64;
        deleted
    }

    fn is_over(&self, grant: &GrantRecord, before: UnixTime) -> bool {
        let early = match self.fault {
            Some(Fault::PurgeAtTheGrantsEnd) => grant.expires_at < before,
            Some(Fault::PurgeAtTheChainsEnd) => {
                grant.chain.as_ref().is_some_and(|chain| chain.expires_at < before)
            }
            Some(Fault::PurgeRevoked) => grant.revoked_at.is_some(),
            _ => false,
        };
        let tokens_ended = self.tokens_of(grant.id).all(|(_, expires_at)| expires_at < before);
        let whatever_hangs_off_it = self.manners.other_choices;
        early || (grant.row_expires_at < before && (tokens_ended || whatever_hangs_off_it))
    }

    fn ended_tokens(&self, id: GrantId, before: UnixTime) -> Vec<[u8; 32]> {
        if self.has(Fault::PurgeNoTokens) {
            return Vec::new();
        }
        let any = self.tokens_of(id).any(|(_, expires_at)| expires_at < before);
        self.tokens_of(id)
            .filter(|(_, end)| *end < before || (any && self.has(Fault::PurgeAllTokens)))
            .map(|(digest, _)| digest)
            .collect()
    }

    pub(crate) fn tokens_of(&self, id: GrantId) -> impl Iterator<Item = ([u8; 32], UnixTime)> {
        self.tokens
            .range((id, [0; 32])..=(id, [0xff; 32]))
            .map(|((_, digest), token)| (*digest, token.expires_at))
    }
}
