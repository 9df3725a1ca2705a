//! Listing the grants of a subject or a client.

use cloakroom_core::GrantId;
use cloakroom_core::store::{Listing, PageRequest, Selector, StoreError};
use cloakroom_core::time::UnixTime;
use tokio_postgres::types::Type;

use crate::pool::{Kind, Pool};
use crate::revocation_log;
use crate::rows::{GRANT_COLUMNS, Stored, array, get, grant_columns, stored_grant};
use crate::sql::{Sql, rounded};

/// A page of grants that are not revoked.
///
/// The comparison of both columns and the order by both make sure that only an index on them serves it: an
/// index on the id alone would read all grants of all others. An id of another length is damage. Sweeps still
/// find it.
macro_rules! page {
    ($owner:literal) => {
        concat!(
            "SELECT ",
            grant_columns!(),
            ", g.id FROM cloakroom.grants g WHERE (g.",
            $owner,
            ", g.id) > ($1, $2) AND g.",
            $owner,
            " <= $1 AND g.revoked_at IS NULL AND octet_length(g.id) = 16 ORDER BY g.",
            $owner,
            ", g.id LIMIT $LIMIT"
        )
    };
}

pub(crate) static LIST_SUBJECT: Sql = Sql::new(page!("subject"), &[Type::BYTEA, Type::BYTEA]);
pub(crate) static LIST_CLIENT: Sql = Sql::new(page!("client"), &[Type::BYTEA, Type::BYTEA]);

/// The most rows of a page. A page may be shorter than its limit.
const LONGEST_PAGE: u32 = 512;

pub(crate) async fn list(
    pool: &Pool,
    of: &Selector,
    page: PageRequest,
    now: UnixTime,
) -> Result<Listing, StoreError> {
    let during = "listing grants";
    let (sql, key) = match of {
        Selector::Subject(subject) | Selector::SubjectAtClient(subject, _) => {
            (&LIST_SUBJECT, subject.to_key())
        }
        Selector::Client(client) => (&LIST_CLIENT, client.as_str().to_owned()),
    };
    let key = key.as_bytes();
    let limit = rounded(page.limit, LONGEST_PAGE);
    // The empty string of bytes comes before every id.
    let after: &[u8] = page.after.as_ref().map_or(&[], |id| id.as_bytes());
    let rows = pool.query(during, Kind::Read, (sql, limit), &[&key, &after]).await?;
    let (mut readable, mut unreadable, mut last) = (Vec::new(), Vec::new(), None);
    for row in &rows {
        let id = GrantId::from_bytes(array(during, get(during, row, GRANT_COLUMNS)?)?);
        last = Some(id);
        match stored_grant(id, row) {
            Ok(Stored::Grant(grant)) if of.selects(&grant) && grant.is_live(now) => {
                readable.push(grant);
            }
            Ok(_) => {}
            Err(StoreError::Corrupt { .. }) => unreadable.push(id),
            Err(error) => return Err(error),
        }
    }
    // Read after the grants, so that every rule that was in force then counts.
    let grants = revocation_log::undenied(pool, readable).await?;
    let next = last.filter(|_| rows.len() >= limit as usize);
    Ok(Listing { grants, unreadable, next })
}

/// For a look at their plans.
#[cfg(test)]
pub(crate) const STATEMENTS: &[(&str, &Sql)] =
    &[("LIST_SUBJECT", &LIST_SUBJECT), ("LIST_CLIENT", &LIST_CLIENT)];
