//! The contract's methods of a [`Plain`] store: what it answers, and what it says if its driver fails.

use async_trait::async_trait;
use cloakroom_core::record::{GrantRecord, TokenRecord};
use cloakroom_core::revocation::{
    Cursor, Epoch, LogNotifications, Revocation, RevocationBatch, RuleKey, Rules,
};
use cloakroom_core::store::{
    Advance, AdvanceOutcome, CheckValue, CheckValues, CreateOutcome, Housekeeping, Listing, Lookup,
    MaintenanceReport, PageRequest, RevokeOutcome, Selector, StoreError, StoreStatus, TokenStore,
};
use cloakroom_core::time::UnixTime;
use cloakroom_core::{GrantId, TokenDigest};

use super::{Plain, pause, set_value};
use crate::mutants::fault::Fault;

#[async_trait]
impl CheckValues for Plain {
    async fn check_values(&self) -> Result<Vec<CheckValue>, StoreError> {
        pause().await;
        let values = self.driver.run(|| self.values.all(self.fault));
        self.or_lie(Fault::ValuesFailAsNone, values, Vec::new)
    }

    async fn set_check_value(
        &self,
        name: &str,
        expected: Option<&[u8]>,
        value: Option<&[u8]>,
    ) -> Result<bool, StoreError> {
        pause().await;
        set_value(&self.values, &self.driver, self.fault, name, expected, value).await
    }
}

#[async_trait]
impl TokenStore for Plain {
    async fn create(
        &self,
        grant: GrantRecord,
        tokens: Vec<TokenRecord>,
    ) -> Result<CreateOutcome, StoreError> {
        let created = self.run(self.clone().created(grant, tokens)).await;
        self.local().forget();
        self.or_lie(Fault::CreateFailsAsExists, created, || CreateOutcome::Exists)
    }

    async fn find(&self, grant: GrantId, token: Option<TokenDigest>) -> Result<Lookup, StoreError> {
        let found = self.run(self.clone().found(grant, token)).await;
        self.or_lie(Fault::FindFailsAsAbsent, found, || Lookup::Absent)
    }

    async fn advance(&self, step: Advance) -> Result<AdvanceOutcome, StoreError> {
        let advanced = self.run(self.clone().advanced(step)).await;
        self.local().forget();
        let advanced =
            self.or_lie(Fault::AdvanceFailsAsUnknown, advanced, || AdvanceOutcome::Unknown);
        self.or_lie(Fault::AdvanceFailsAsDead, advanced, || AdvanceOutcome::Dead)
    }

    async fn revoke(&self, revocation: Revocation) -> Result<RevokeOutcome, StoreError> {
        let revoked = self.run(self.clone().revoked(revocation)).await;
        self.local().forget();
        self.local().grown.send_modify(|count| *count += 1);
        self.or_lie(Fault::RevokeFailsAsDone, revoked, || RevokeOutcome::Done)
    }

    async fn rules(&self, keys: Vec<RuleKey>) -> Result<Rules, StoreError> {
        pause().await;
        let rules = self.ruled(keys).await;
        pause().await;
        self.or_lie(Fault::RulesFailAsNone, rules, Rules::default)
    }

    async fn list(
        &self,
        of: Selector,
        mut page: PageRequest,
        now: UnixTime,
    ) -> Result<Listing, StoreError> {
        pause().await;
        if self.manners.short_pages {
            page.limit = 1;
        }
        let asked = format!("{of:?} {page:?} {now:?}");
        let known = self.local().listed.get(&asked).cloned();
        if let Some(known) = known.filter(|_| self.has(Fault::ListIsCached)) {
            return Ok(known);
        }
        let listing = self.request(|state| {
            state.see(now);
            state.catch_up();
            let listing = state.list(&of, page, now);
            if self.has(Fault::ListFailsOnDamage) && !listing.unreadable.is_empty() {
                return Err(StoreError::corrupt("a grant", "it is damaged"));
            }
            Ok(listing)
        });
        let listing = match listing {
            Ok(Ok(listing)) if self.has(Fault::ListEndsShort) => {
                let (count, mut next) = (listing.grants.len(), listing.next);
                let grants = listing.grants.into_iter();
                let grants: Vec<_> =
                    grants.map_while(|grant| self.request(|_| grant).ok()).collect();
                next = next.filter(|_| grants.len() == count);
                Ok(Ok(Listing { grants, next, unreadable: listing.unreadable }))
            }
            listing => listing,
        };
        let nobody = || Listing { grants: Vec::new(), unreadable: Vec::new(), next: None };
        let listing = self.or_lie(Fault::ListFailsAsEmpty, listing, || Ok(nobody()))??;
        self.local().listed.insert(asked, listing.clone());
        pause().await;
        Ok(listing)
    }

    async fn revocations(&self, after: Cursor, limit: u32) -> Result<RevocationBatch, StoreError> {
        pause().await;
        let batch = self.read(after.clone(), limit).await;
        pause().await;
        let batch = self.or_lie(Fault::LogFailsAsGap, batch, || RevocationBatch::Gap);
        self.or_lie(Fault::LogFailsAsEmpty, batch, || RevocationBatch::Entries {
            entries: Vec::new(),
            next: after,
            more: false,
            newest_bound: Epoch::default(),
        })
    }

    fn wakeups(&self) -> LogNotifications {
        self.wakes()
    }

    async fn heartbeat(&self, now: UnixTime, until: UnixTime) -> Result<(), StoreError> {
        pause().await;
        let done = self.request(|state| state.revocation_log.heartbeat(now, until));
        self.local().grown.send_modify(|count| *count += 1);
        pause().await;
        self.or_lie(Fault::HeartbeatFailsInSilence, done, || ())
    }

    async fn maintain(&self, task: Housekeeping) -> Result<MaintenanceReport, StoreError> {
        let done = self.run(self.clone().maintained(task)).await;
        self.local().forget();
        self.or_lie(Fault::MaintainFailsAsDone, done, MaintenanceReport::default)
    }

    async fn status(&self, before: UnixTime) -> Result<StoreStatus, StoreError> {
        pause().await;
        let status = self.request(|state| state.status(before));
        pause().await;
        self.or_lie(Fault::StatusFailsAsEmpty, status, || {
            let mut nothing = StoreStatus::default();
            nothing.ended_rows = Some(0);
            nothing
        })
    }

    async fn scan(&self, page: PageRequest) -> Result<Option<Listing>, StoreError> {
        pause().await;
        let listing = self.request(|state| state.scan(page));
        pause().await;
        let nobody = || Ok(Listing { grants: Vec::new(), unreadable: Vec::new(), next: None });
        self.or_lie(Fault::ScanFailsAsEmpty, listing, nobody)?.map(Some)
    }
}
