//! Calls to a store with the only answers that are allowed.

use std::fmt::Debug;
use std::sync::Arc;

use cloakroom_core::record::{GrantRecord, TokenRecord};
use cloakroom_core::revocation::{
    Cursor, Epoch, LogEntry, LogEvent, Revocation, RevocationBatch, Rule, RuleKey, Target,
};
use cloakroom_core::store::{
    Advance, AdvanceOutcome, ChainUpdate, CreateOutcome, Found, Housekeeping, Lookup,
    MaintenanceReport, PageRequest, RevokeOutcome, Selector, StoreError, TokenStore,
};
use cloakroom_core::time::UnixTime;
use cloakroom_core::{GrantId, TokenDigest};

use crate::fixtures::{DAY, NOW, revocation};
use crate::report::Broken;

/// Ends the check unless the condition holds. The rest describes what happened.
macro_rules! ensure {
    ($holds:expr, $($happened:tt)+) => {
        if !$holds {
            return Err(format!($($happened)+).into());
        }
    };
}
pub(crate) use ensure;

/// The most calls in a loop over a store.
const MAX_CALLS: usize = 10_000;

/// Calls to a token store that allow only one answer. Any other answer ends the check.
pub(crate) trait Ask {
    /// Creates a grant that nothing stands against.
    async fn inserted(&self, grant: &GrantRecord, tokens: &[TokenRecord]) -> Result<(), Broken>;

    /// The grant, which must be there.
    async fn grant(&self, id: GrantId) -> Result<GrantRecord, Broken>;

    /// The grant, which must be there, and the token, which need not.
    async fn found(&self, id: GrantId, token: TokenDigest) -> Result<Found, Broken>;

    /// Whether anything unrevoked is there.
    async fn is_unrevoked(&self, id: GrantId) -> Result<bool, Broken>;

    /// Revokes at [`NOW`], and finishes the sweep if that was left open.
    async fn revoked(&self, target: Target) -> Result<(), Broken>;

    /// Revokes, and finishes the sweep if that was left open.
    async fn revoked_as(&self, revocation: Revocation) -> Result<(), Broken>;

    /// The newest bound that a revocation of this target was allotted, by the log.
    async fn bound_of(&self, target: &Target) -> Result<Epoch, Broken>;

    /// The log from its beginning, each entry once, however often it was delivered.
    async fn log(&self) -> Result<Vec<LogEntry>, Broken>;

    /// The rule for this key.
    async fn rule(&self, key: RuleKey) -> Result<Option<Rule>, Broken>;

    /// The log's newest bound.
    async fn newest_bound(&self) -> Result<Epoch, Broken>;

    /// All that `list` returns, page by page.
    async fn listed(
        &self,
        of: Selector,
        limit: u32,
        now: UnixTime,
    ) -> Result<Vec<Arc<GrantRecord>>, Broken>;

    /// The ids of all that `list` returns.
    async fn listed_ids(&self, of: Selector, now: UnixTime) -> Result<Vec<GrantId>, Broken>;

    /// Waits for the end of a revocation whose sweep may have been left open.
    async fn swept(&self, revoked: RevokeOutcome) -> Result<(), Broken>;

    /// Calls `maintain` until nothing is left to do; the sum of what it did.
    async fn housekept(&self, before: UnixTime) -> Result<MaintenanceReport, Broken>;

    /// Advances the chain from the position in the record, at [`NOW`]. This must succeed.
    async fn advanced(
        &self,
        from: &GrantRecord,
        change: ChainUpdate,
        tokens: &[TokenRecord],
    ) -> Result<(), Broken>;

    /// Tries a step from where the record's chain stands, at [`NOW`].
    async fn step(
        &self,
        from: &GrantRecord,
        change: ChainUpdate,
        tokens: &[TokenRecord],
    ) -> Result<AdvanceOutcome, Broken>;
}

impl Ask for dyn TokenStore {
    async fn inserted(&self, grant: &GrantRecord, tokens: &[TokenRecord]) -> Result<(), Broken> {
        same(
            "the answer to the first `create`",
            &self.create(grant.clone(), tokens.to_vec()).await?,
            &CreateOutcome::Inserted,
        )
    }

    async fn grant(&self, id: GrantId) -> Result<GrantRecord, Broken> {
        match self.find(id, None).await? {
            Lookup::Found(found) => Ok(GrantRecord::clone(&found.grant)),
            other => Err(format!("`find` of a grant that is there answered {other:?}").into()),
        }
    }

    async fn found(&self, id: GrantId, token: TokenDigest) -> Result<Found, Broken> {
        match self.find(id, Some(token)).await? {
            Lookup::Found(found) => Ok(found),
            other => Err(format!("`find` of a grant that is there answered {other:?}").into()),
        }
    }

    async fn is_unrevoked(&self, id: GrantId) -> Result<bool, Broken> {
        Ok(match self.find(id, None).await? {
            Lookup::Found(found) => found.grant.revoked_at.is_none(),
            Lookup::Tombstone | Lookup::Absent => false,
        })
    }

    async fn revoked(&self, target: Target) -> Result<(), Broken> {
        self.revoked_as(revocation(target)).await
    }

    async fn revoked_as(&self, revocation: Revocation) -> Result<(), Broken> {
        let revoked = self.revoke(revocation).await?;
        self.swept(revoked).await
    }

    async fn bound_of(&self, target: &Target) -> Result<Epoch, Broken> {
        let log = self.log().await?;
        let bounds = log.iter().filter_map(|entry| match &entry.event {
            LogEvent::Revoked { target: own, bound, .. } if own == target => Some(*bound),
            _ => None,
        });
        let bound = bounds.max();
        match bound {
            Some(Some(bound)) => Ok(bound),
            Some(None) => Err(format!("the entry of {target:?} has no bound").into()),
            None => Err(format!("the log holds no entry of {target:?}").into()),
        }
    }

    async fn log(&self) -> Result<Vec<LogEntry>, Broken> {
        let mut log: Vec<LogEntry> = Vec::new();
        let mut cursor = Cursor::start();
        for _ in 0..MAX_CALLS {
            let batch = self.revocations(cursor, 100).await?;
            let RevocationBatch::Entries { entries, next, more, .. } = batch else {
                return Err("reading the log from its beginning met a gap".into());
            };
            for entry in entries {
                if !log.contains(&entry) {
                    log.push(entry);
                }
            }
            if !more {
                return Ok(log);
            }
            cursor = next;
        }
        Err(format!("the log said \"more\" {MAX_CALLS} times").into())
    }

    async fn rule(&self, key: RuleKey) -> Result<Option<Rule>, Broken> {
        let answer = self.rules(vec![key.clone()]).await?;
        ensure!(
            answer.rules.len() <= 1 && answer.rules.iter().all(|rule| rule.key == key),
            "`rules` for {key:?} alone returned {:?}",
            answer.rules
        );
        Ok(answer.rules.into_iter().next())
    }

    async fn newest_bound(&self) -> Result<Epoch, Broken> {
        Ok(self.rules(Vec::new()).await?.newest_bound)
    }

    async fn listed(
        &self,
        of: Selector,
        limit: u32,
        now: UnixTime,
    ) -> Result<Vec<Arc<GrantRecord>>, Broken> {
        let mut listed = Vec::new();
        let mut after = None;
        for _ in 0..MAX_CALLS {
            let listing = self.list(of.clone(), PageRequest { after, limit }, now).await?;
            ensure!(
                listing.grants.len() <= limit as usize,
                "a page of at most {limit} held {} grants",
                listing.grants.len()
            );
            ensure!(
                listing.unreadable.is_empty(),
                "no row is damaged, and `list` calls {:?} unreadable",
                listing.unreadable
            );
            listed.extend(listing.grants);
            match listing.next {
                None => return Ok(listed),
                Some(next) => {
                    ensure!(
                        Some(next) > after,
                        "the page after {after:?} says that {next:?} comes next"
                    );
                    after = Some(next);
                }
            }
        }
        Err(format!("the listing of {of:?} went on for {MAX_CALLS} pages").into())
    }

    async fn listed_ids(&self, of: Selector, now: UnixTime) -> Result<Vec<GrantId>, Broken> {
        let listed = self.listed(of, 100, now).await?;
        Ok(listed.iter().map(|grant| grant.id).collect())
    }

    async fn swept(&self, revoked: RevokeOutcome) -> Result<(), Broken> {
        let RevokeOutcome::Sweeping(sweep) = revoked else { return Ok(()) };
        // Nothing ended before the beginning of time: only sweeps are left to do.
        let before = UnixTime::from_millis(0);
        for _ in 0..MAX_CALLS {
            let task = Housekeeping { now: NOW, before, limit: 1_000, sweep: Some(sweep) };
            if !self.maintain(task).await?.sweeping {
                return Ok(());
            }
        }
        Err(format!("a sweep still went on after {MAX_CALLS} calls of `maintain`").into())
    }

    async fn housekept(&self, before: UnixTime) -> Result<MaintenanceReport, Broken> {
        let mut sum = MaintenanceReport::default();
        for _ in 0..MAX_CALLS {
            // The time is ahead of what may be deleted: a store that goes by it deletes too much.
            let now = NOW.max(before + 30 * DAY);
            let task = Housekeeping { now, before, limit: 1_000, sweep: None };
            let done = self.maintain(task).await?;
            sum.grants += done.grants;
            sum.tokens += done.tokens;
            sum.revocations += done.revocations;
            sum.unreadable += done.unreadable;
            if !done.more {
                return Ok(sum);
            }
        }
        Err(format!("`maintain` said \"more\" {MAX_CALLS} times").into())
    }

    async fn advanced(
        &self,
        from: &GrantRecord,
        change: ChainUpdate,
        tokens: &[TokenRecord],
    ) -> Result<(), Broken> {
        same("the step", &self.step(from, change, tokens).await?, &AdvanceOutcome::Advanced)
    }

    async fn step(
        &self,
        from: &GrantRecord,
        change: ChainUpdate,
        tokens: &[TokenRecord],
    ) -> Result<AdvanceOutcome, Broken> {
        Ok(self.advance(step_from(from, change, tokens)?).await?)
    }
}

/// A step from where the record's chain stands, at [`NOW`].
pub(crate) fn step_from(
    from: &GrantRecord,
    change: ChainUpdate,
    tokens: &[TokenRecord],
) -> Result<Advance, Broken> {
    let chain = from.chain.as_ref().ok_or("a grant without a chain")?;
    Ok(Advance {
        grant: from.id,
        expected: chain.position(),
        now: NOW,
        change,
        tokens: tokens.to_vec(),
    })
}

/// That two values are the same, and if they are not, where they differ.
pub(crate) fn same<T: PartialEq + Debug>(what: &str, is: &T, should: &T) -> Result<(), Broken> {
    if is == should {
        return Ok(());
    }
    let (short_is, short_should) = (format!("{is:?}"), format!("{should:?}"));
    if short_is.len() + short_should.len() < 160 && short_is != short_should {
        return Err(format!("{what} is {short_is}; it should be {short_should}").into());
    }
    let (is, should) = (format!("{is:#?}"), format!("{should:#?}"));
    let difference = is.lines().zip(should.lines()).find(|(is, should)| is != should);
    Err(match difference {
        Some((is, should)) => format!(
            "{what} differs from what it should be: `{}` in the place of `{}`",
            is.trim(),
            should.trim()
        ),
        // Digests and keys do not show all of themselves.
        None => format!("{what} differs from what it should be, in a part that is not shown"),
    }
    .into())
}

/// That the newest bound is no older than it was. It may be raised at any time.
pub(crate) fn not_lowered(was: Epoch, is: Epoch) -> Result<(), Broken> {
    ensure!(is >= was, "the newest bound was {was:?}, and is {is:?}");
    Ok(())
}

/// That a revocation at this time was allotted a bound that is newer than every bound before it.
pub(crate) fn grown(before: Epoch, at: UnixTime, bound: Option<Epoch>) -> Result<Epoch, Broken> {
    let bound = bound.ok_or("the entry of a revocation that has a bound says none")?;
    ensure!(bound > before, "the bound {bound:?} came after {before:?}, and is no newer");
    ensure!(bound.get() >= at.as_millis(), "the bound {bound:?} is older than its time, {at:?}");
    Ok(bound)
}

/// That the store refused the call as misuse.
pub(crate) fn misused<T: Debug>(what: &str, answer: Result<T, StoreError>) -> Result<(), Broken> {
    match answer {
        Err(StoreError::Misuse(_)) => Ok(()),
        Err(error) => Err(error.into()),
        Ok(answer) => Err(format!("{what} was not `Misuse`, but {answer:?}").into()),
    }
}

/// That `create` answers `Barred`, and that nothing of the grant is live.
pub(crate) async fn barred_and_dead(
    store: &dyn TokenStore,
    grant: &GrantRecord,
    tokens: &[TokenRecord],
) -> Result<(), Broken> {
    let answer = store.create(grant.clone(), tokens.to_vec()).await?;
    same("the answer", &answer, &CreateOutcome::Barred)?;
    ensure!(!store.is_unrevoked(grant.id).await?, "it was barred, but an unrevoked grant is there");
    for of in [Selector::Subject(grant.subject.clone()), Selector::Client(grant.client.clone())] {
        let listed = store.listed_ids(of.clone(), NOW).await?;
        ensure!(!listed.contains(&grant.id), "it was barred, but {of:?} lists it");
    }
    Ok(())
}
