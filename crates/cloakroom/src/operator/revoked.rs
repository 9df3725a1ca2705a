//! A walk over the revocation log, for grants that it revokes and that are live.

use std::collections::BTreeSet;

use cloakroom_core::GrantId;
use cloakroom_core::revocation::{Cursor, LogEvent, RevocationBatch, Target};
use cloakroom_core::store::{Lookup, StoreError, TokenStore};
use cloakroom_core::time::UnixTime;
use serde::Serialize;

use crate::operator::diagnosis::{LOST_PLACE, MAX_PAGES, PAGE, PATIENCE};
use crate::operator::rows::names;
use crate::operator::{Check, Finding, Outcome};

/// What [`scan_revoked_grants`] found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RevokedScan {
    /// How many revocations of a grant were looked at; `None` if the log was not read to its end.
    pub revoked: Option<u64>,
    /// When the oldest entry was written that the log still has; `None` if it has none. A revocation before
    /// that was not looked at.
    pub since: Option<UnixTime>,
    /// How many of these grants are live.
    pub live: u64,
    /// Some of these, at most [`MAX_NAMED`](Self::MAX_NAMED).
    pub named: Vec<GrantId>,
}

impl RevokedScan {
    /// How many live grants are named.
    pub const MAX_NAMED: usize = 100;

    /// The result as a finding of [`Check::Revocations`].
    #[must_use]
    pub fn finding(&self) -> Finding {
        let (outcome, text) = match (self.live, self.revoked) {
            (0, None) => (Outcome::Skipped, LOST_PLACE.to_owned()),
            (0, Some(0)) => {
                let text = "the log revokes no grant by its id that it has kept for ten minutes";
                (Outcome::Passed, text.to_owned())
            }
            (0, Some(revoked)) => {
                let since = self.since.map(|since| format!(" since {since}")).unwrap_or_default();
                let text = format!("no grant is live that the log revokes{since}: {revoked}");
                (Outcome::Passed, text)
            }
            (live, _) => {
                let text = format!(
                    "grants that the log revokes are live: {live}. Their rows were changed or \
                     restored by hand: revoke each by its id ({})",
                    names(&self.named)
                );
                (Outcome::Failed, text)
            }
        };
        Finding::new(Check::Revocations, outcome, text)
    }
}

/// Looks up every grant that the revocation log revokes by its id, and names those that are live all the
/// same at `now`. Entries of the last ten minutes are left out: a revocation writes the log first and the
/// grant after that, and maintenance makes up for a server that stopped between the two. The log forgets a
/// revocation when no token can outlive it, an hour later by default. `progress` is called with the number of
/// grants looked at so far. This sends one query for each such grant, and writes nothing. A row that cannot be
/// read is passed over: [`scan_rows`] names it, and also what a log-out should have revoked.
///
/// # Errors
///
/// If the store fails.
///
/// [`scan_rows`]: crate::operator::scan_rows
pub async fn scan_revoked_grants(
    store: &dyn TokenStore,
    now: UnixTime,
    mut progress: impl FnMut(u64) + Send,
) -> Result<RevokedScan, StoreError> {
    let mut scan = RevokedScan::default();
    // The log is read first: it forgets its oldest entries meanwhile. A grant may be revoked several times.
    let mut ids = BTreeSet::new();
    let (mut cursor, mut revoked) = (Cursor::start(), 0);
    for _ in 0..MAX_PAGES {
        let batch = store.revocations(cursor, PAGE).await?;
        let RevocationBatch::Entries { entries, next, more, .. } = batch else { break };
        scan.since = scan.since.or_else(|| Some(entries.first()?.at));
        for entry in entries.iter().filter(|entry| now.since(entry.at) > PATIENCE) {
            if let LogEvent::Revoked { target: Target::Grant(id), .. } = entry.event {
                revoked += 1;
                ids.insert(id);
            }
        }
        if !more {
            scan.revoked = Some(revoked);
            break;
        }
        cursor = next;
    }
    for (number, id) in (1..).zip(ids) {
        match store.find(id, None).await {
            Ok(Lookup::Found(found)) if found.grant.is_live(now) => {
                scan.live += 1;
                if scan.named.len() < RevokedScan::MAX_NAMED {
                    scan.named.push(id);
                }
            }
            Ok(_) | Err(StoreError::Corrupt { .. }) => {}
            Err(error) => return Err(error),
        }
        progress(number);
    }
    Ok(scan)
}
