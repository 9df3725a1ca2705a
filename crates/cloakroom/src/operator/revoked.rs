//! A walk over the revocation log, for grants that it revokes and that are live.

use std::time::Duration;

use cloakroom_core::GrantId;
use cloakroom_core::revocation::{Cursor, LogEvent, RevocationBatch, Target};
use cloakroom_core::store::{Lookup, StoreError, TokenStore};
use cloakroom_core::time::UnixTime;
use serde::Serialize;

use crate::operator::{Check, Finding, Outcome};

/// How old an entry must be: a revocation writes the log first and the grant after that, and maintenance
/// makes up for a server that was stopped between the two.
const PATIENCE: Duration = Duration::from_secs(600);

/// The entries of one page.
const PAGE: u32 = 1_000;

/// What [`scan_revoked_grants`] found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RevokedScan {
    /// How many revocations of a grant were looked at.
    pub revoked: u64,
    /// How many of these grants are live.
    pub live: u64,
    /// The first of these, at most [`MAX_NAMED`](Self::MAX_NAMED).
    pub named: Vec<GrantId>,
}

impl RevokedScan {
    /// How many live grants are named.
    pub const MAX_NAMED: usize = 100;

    /// The result as a finding of [`Check::Revocations`].
    #[must_use]
    pub fn finding(&self) -> Finding {
        if self.live == 0 {
            let text = format!("no grant that the log revokes is live: {}", self.revoked);
            return Finding::new(Check::Revocations, Outcome::Passed, text);
        }
        let names: Vec<String> = self.named.iter().map(GrantId::to_string).collect();
        let text = format!(
            "{} of {} grants that the log revokes are live: their rows were changed or restored by \
             hand. Revoke each by its id ({})",
            self.live,
            self.revoked,
            names.join(", ")
        );
        Finding::new(Check::Revocations, Outcome::Failed, text)
    }
}

/// Looks up every grant that the revocation log revokes by its id, and names those that are live all the
/// same at `now`. Entries of the last ten minutes are left out: a server may still be at them. `progress`
/// is called with the number of grants looked at so far, after each page. This sends one query for each
/// such entry, and writes nothing.
///
/// # Errors
///
/// If the store fails, or a row cannot be read.
pub async fn scan_revoked_grants(
    store: &dyn TokenStore,
    now: UnixTime,
    mut progress: impl FnMut(u64) + Send,
) -> Result<RevokedScan, StoreError> {
    let mut scan = RevokedScan::default();
    let mut cursor = Cursor::start();
    loop {
        let (entries, next, more) = match store.revocations(cursor, PAGE).await? {
            RevocationBatch::Entries { entries, next, more, .. } => (entries, next, more),
            // Housekeeping has trimmed the log meanwhile: what it trimmed has ended.
            RevocationBatch::Gap => return Ok(scan),
        };
        for entry in entries.iter().filter(|entry| now.since(entry.at) > PATIENCE) {
            let LogEvent::Revoked { target: Target::Grant(id), .. } = entry.event else { continue };
            scan.revoked += 1;
            match store.find(id, None).await {
                Ok(Lookup::Found(found)) if found.grant.is_live(now) => {
                    scan.live += 1;
                    if scan.named.len() < RevokedScan::MAX_NAMED {
                        scan.named.push(id);
                    }
                }
                // `scan_rows` names it.
                Ok(_) | Err(StoreError::Corrupt { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        progress(scan.revoked);
        if !more {
            return Ok(scan);
        }
        cursor = next;
    }
}
