//! What a [`Plain`](super::Plain) store tells an operator.

use std::sync::Arc;

use cloakroom_core::record::GrantRecord;
use cloakroom_core::store::{Listing, PageRequest, StoreError, StoreStatus};
use cloakroom_core::time::UnixTime;

use super::state::{Slot, State};
use crate::mutants::fault::Fault;

impl State {
    pub(crate) fn status(&mut self, before: UnixTime) -> StoreStatus {
        let is_over = |end: UnixTime| match self.fault {
            Some(Fault::StatusCountsTheLiving) => true,
            Some(Fault::StatusCountsAtTheBorder) => end <= before,
            _ => end < before,
        };
        let rows = self.slots.values().map(|slot| match slot {
            Slot::Tombstone { until } => *until,
            Slot::Grant(grant) if self.has(Fault::StatusCountsByTheGrantsEnd) => grant.expires_at,
            Slot::Grant(grant) => grant.row_expires_at,
        });
        let tokens = self.tokens.values().map(|token| token.expires_at);
        let log = self.revocation_log.ends(self.has(Fault::StatusCountsTheNewestEntry));
        let ends: Vec<UnixTime> =
            rows.chain(tokens).chain(log).filter(|end| is_over(*end)).collect();
        let mut status = StoreStatus::default();
        status.oldest_ended = match self.fault {
            Some(Fault::StatusTellsTheNewestEnd) => ends.iter().max(),
            _ => ends.iter().min(),
        }
        .copied();
        let most = if self.has(Fault::StatusIsCapped) { 10 } else { StoreStatus::MAX_COUNTED };
        status.ended_rows = Some((ends.len() as u64).min(most));
        status.open_sweeps = Some(match self.fault {
            Some(Fault::StatusHidesSweeps) => 0,
            Some(Fault::StatusKeepsSweeps) => self.revocation_log.bounds(),
            _ => self.sweeps.len() as u64,
        });
        if self.has(Fault::StatusDeletes) {
            let gone =
                |slot: &Slot| matches!(slot, Slot::Grant(grant) if grant.row_expires_at < before);
            self.slots.retain(|_, slot| !gone(slot));
        }
        status
    }

    pub(crate) fn scan(&self, page: PageRequest) -> Result<Listing, StoreError> {
        let fits = |grant: &GrantRecord| match self.fault {
            Some(Fault::ScanHidesRevoked) => grant.revoked_at.is_none(),
            Some(Fault::ScanHidesExpired) => self.seen < grant.expires_at,
            _ => true,
        };
        let mut found: Vec<&GrantRecord> = self.grants().filter(|grant| fits(grant)).collect();
        if let Some(after) = page.after {
            let is_there = found.iter().any(|grant| grant.id == after);
            if is_there || !self.has(Fault::ScanBeginsAnew) {
                let again = self.has(Fault::ScanRepeatsAtBorders);
                found.retain(|grant| grant.id > after || again && grant.id == after);
            }
        }
        let limit = match page.limit as usize {
            _ if self.has(Fault::ScanIsUnpaged) => usize::MAX,
            _ if self.manners.short_pages => 1,
            limit => limit.max(1),
        };
        let mut next = (found.len() > limit).then(|| found[limit - 1].id);
        if next.is_some() && self.has(Fault::ScanSkipsAtBorders) {
            next = Some(found[limit].id);
        }
        found.truncate(limit);
        let (damaged, found): (Vec<_>, Vec<_>) =
            found.into_iter().partition(|grant| self.damaged.contains(&grant.id));
        let mut unreadable: Vec<_> = damaged.iter().map(|grant| grant.id).collect();
        match self.fault {
            Some(Fault::ScanFailsOnDamage) if !unreadable.is_empty() => {
                return Err(StoreError::corrupt("a grant", "it is damaged"));
            }
            Some(Fault::ScanEndsAtDamage) if !unreadable.is_empty() => next = None,
            Some(Fault::ScanHidesDamage) => unreadable.clear(),
            _ => {}
        }
        let grants = found.into_iter().cloned().map(Arc::new).collect();
        Ok(Listing { grants, unreadable, next })
    }
}
