//! A walk over all grants, for damaged rows.

use cloakroom_core::GrantId;
use cloakroom_core::store::{PageRequest, StoreError, TokenStore};
use serde::Serialize;

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
}

impl RowScan {
    /// How many damaged rows are named.
    pub const MAX_NAMED: usize = 100;

    /// The result as a finding of [`Check::Rows`].
    #[must_use]
    pub fn finding(&self) -> Finding {
        let (outcome, text) = match self.rows {
            None => (Outcome::Skipped, "the store cannot list all grants".to_owned()),
            Some(rows) if self.unreadable == 0 => {
                (Outcome::Passed, format!("every grant can be read: {rows}"))
            }
            Some(rows) => {
                let names: Vec<String> = self.named.iter().map(GrantId::to_string).collect();
                let text = format!(
                    "{} of {rows} grants cannot be read: revoke each by its id ({}). A revoked one is \
                     named until it ends and is deleted",
                    self.unreadable,
                    names.join(", ")
                );
                (Outcome::Failed, text)
            }
        };
        Finding::new(Check::Rows, outcome, text)
    }
}

/// Reads every grant of a store, and names those that cannot be read. `progress` is called with the
/// number of grants read so far, after each page. On a large store this takes minutes; it reads the
/// primary key and locks nothing.
///
/// # Errors
///
/// If the store fails.
pub async fn scan_rows(
    store: &dyn TokenStore,
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
        let room = RowScan::MAX_NAMED.saturating_sub(scan.named.len());
        scan.named.extend(listing.unreadable.into_iter().take(room));
        progress(rows);
        match listing.next {
            Some(after) => page.after = Some(after),
            None => return Ok(scan),
        }
    }
}
