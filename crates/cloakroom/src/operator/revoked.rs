//! A walk over the revocation log, for grants that it revokes and that are live.

use std::collections::BTreeSet;

use cloakroom_core::GrantId;
use cloakroom_core::revocation::{Cursor, LogEvent, RevocationBatch, Target};
use cloakroom_core::store::{Lookup, StoreError, TokenStore};
use cloakroom_core::time::UnixTime;
use serde::Serialize;

use crate::operator::diagnosis::{LOST_PLACE, MAX_PAGES, PAGE, PATIENCE};
use crate::operator::{Check, Finding, Outcome};

/// What [`scan_revoked_grants`] found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RevokedScan {
    /// How many revocations of a grant were looked at; `None` if the log was not read to its end.
    pub revoked: Option<u64>,
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
            (0, Some(revoked)) => {
                (Outcome::Passed, format!("no grant of {revoked} revocations is live"))
            }
            (live, _) => {
                let names: Vec<String> = self.named.iter().map(GrantId::to_string).collect();
                let text = format!(
                    "grants that the log revokes are live: {live}. Their rows were changed or \
                     restored by hand: revoke each by its id ({})",
                    names.join(", ")
                );
                (Outcome::Failed, text)
            }
        };
        Finding::new(Check::Revocations, outcome, text)
    }
}

/// Looks up every grant that the revocation log revokes by its id, and names those that are live all the
/// same at `now`. Entries of the last ten minutes are left out: a revocation writes the log first and the
/// grant after that, and maintenance makes up for a server that stopped between the two. `progress` is
/// called with the number of grants looked at so far, after each page. This sends one query for each such
/// entry, and writes nothing. A row that cannot be read is passed over: [`scan_rows`] names it.
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
    // A grant may be revoked several times.
    let mut live = BTreeSet::new();
    let (mut cursor, mut revoked) = (Cursor::start(), 0);
    for _ in 0..MAX_PAGES {
        let batch = store.revocations(cursor, PAGE).await?;
        let RevocationBatch::Entries { entries, next, more, .. } = batch else { break };
        for entry in entries.iter().filter(|entry| now.since(entry.at) > PATIENCE) {
            let LogEvent::Revoked { target: Target::Grant(id), .. } = entry.event else { continue };
            revoked += 1;
            match store.find(id, None).await {
                Ok(Lookup::Found(found)) if found.grant.is_live(now) => {
                    live.insert(id);
                }
                Ok(_) | Err(StoreError::Corrupt { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        progress(revoked);
        if !more {
            scan.revoked = Some(revoked);
            break;
        }
        cursor = next;
    }
    scan.live = live.len() as u64;
    scan.named = live.into_iter().take(RevokedScan::MAX_NAMED).collect();
    Ok(scan)
}
