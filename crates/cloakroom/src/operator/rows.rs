//! A walk over all grants, for damaged rows and for rows that a log-out should have revoked.

use std::collections::{BTreeSet, HashMap};

use cloakroom_core::GrantId;
use cloakroom_core::record::GrantRecord;
use cloakroom_core::revocation::{Rule, RuleKey};
use cloakroom_core::store::{PageRequest, StoreError, TokenStore};
use cloakroom_core::time::UnixTime;
use serde::Serialize;

use crate::operator::diagnosis::PATIENCE;
use crate::operator::{Check, Finding, Outcome};

/// What [`scan_rows`] found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RowScan {
    /// How many grants were read; `None` if the store cannot list all of them.
    pub rows: Option<u64>,
    /// How many of them cannot be read.
    pub unreadable: u64,
    /// The first of these, at most [`MAX_NAMED`](Self::MAX_NAMED).
    pub named: Vec<GrantId>,
    /// How many of them are live, although their user, their client, or their user at their client was logged
    /// out.
    pub logged_out: u64,
    /// The first of these, at most [`MAX_NAMED`](Self::MAX_NAMED).
    pub named_logged_out: Vec<GrantId>,
}

impl RowScan {
    /// How many rows of each kind are named.
    pub const MAX_NAMED: usize = 100;

    /// The result as a finding of [`Check::Rows`].
    #[must_use]
    pub fn finding(&self) -> Finding {
        let Some(rows) = self.rows else {
            return Finding::new(Check::Rows, Outcome::Skipped, "the store cannot list all grants");
        };
        let mut wrong = Vec::new();
        if self.unreadable > 0 {
            wrong.push(format!(
                "{} of {rows} grants cannot be read: revoke each by its id ({}). A revoked one is named \
                 until it ends and is deleted",
                self.unreadable,
                names(&self.named)
            ));
        }
        if self.logged_out > 0 {
            wrong.push(format!(
                "{} of {rows} grants are live although they were logged out. Their rows were changed or \
                 restored by hand: revoke each by its id ({})",
                self.logged_out,
                names(&self.named_logged_out)
            ));
        }
        match wrong.is_empty() {
            true => {
                let text = format!("every grant can be read: {rows}");
                Finding::new(Check::Rows, Outcome::Passed, text)
            }
            false => Finding::new(Check::Rows, Outcome::Failed, wrong.join("; ")),
        }
    }
}

/// A list for a person.
pub(super) fn names(ids: &[GrantId]) -> String {
    let ids: Vec<String> = ids.iter().map(GrantId::to_string).collect();
    ids.join(", ")
}

/// Reads every grant of a store, and names those that cannot be read, and those that are live at `now` although
/// a rule denies them. A rule of the last ten minutes is left out: its sweep may not have come to the grant.
/// `progress` is called with the number of grants read so far, after each page. On a large store this takes
/// minutes; it reads grants by the primary key and the rules of each page, and locks nothing.
///
/// # Errors
///
/// If the store fails.
pub async fn scan_rows(
    store: &dyn TokenStore,
    now: UnixTime,
    mut progress: impl FnMut(u64) + Send,
) -> Result<RowScan, StoreError> {
    let mut scan = RowScan::default();
    let mut page = PageRequest { after: None, limit: 1_000 };
    let mut rows = 0;
    loop {
        let Some(listing) = store.scan(page).await? else { return Ok(scan) };
        rows += (listing.grants.len() + listing.unreadable.len()) as u64;
        scan.rows = Some(rows);
        scan.unreadable += listing.unreadable.len() as u64;
        name(&mut scan.named, listing.unreadable);
        let live = listing.grants.iter().map(AsRef::as_ref).filter(|grant| grant.is_live(now));
        let logged_out = logged_out(store, now, live.collect()).await?;
        scan.logged_out += logged_out.len() as u64;
        name(&mut scan.named_logged_out, logged_out);
        progress(rows);
        match listing.next {
            Some(after) => page.after = Some(after),
            None => return Ok(scan),
        }
    }
}

fn name(named: &mut Vec<GrantId>, more: Vec<GrantId>) {
    let room = RowScan::MAX_NAMED.saturating_sub(named.len());
    named.extend(more.into_iter().take(room));
}

/// Those that a rule denies, unless it is young.
async fn logged_out(
    store: &dyn TokenStore,
    now: UnixTime,
    live: Vec<&GrantRecord>,
) -> Result<Vec<GrantId>, StoreError> {
    let keys: BTreeSet<RuleKey> = live.iter().flat_map(|grant| grant.rule_keys()).collect();
    if keys.is_empty() {
        return Ok(Vec::new());
    }
    let rules = store.rules(keys.into_iter().collect()).await?.rules;
    let is_old = |rule: &Rule| {
        // The bound is about the time of the revocation.
        rule.bound.is_none_or(|bound| now.since(UnixTime::from_millis(bound.get())) > PATIENCE)
    };
    let rules: HashMap<RuleKey, Rule> = rules
        .into_iter()
        .filter(|rule| rule.until > now && is_old(rule))
        .map(|rule| (rule.key.clone(), rule))
        .collect();
    let denied = |grant: &&GrantRecord| {
        let keys = grant.rule_keys();
        keys.iter().filter_map(|key| rules.get(key)).any(|rule| rule.denies(grant.epoch))
    };
    Ok(live.into_iter().filter(denied).map(|grant| grant.id).collect())
}
