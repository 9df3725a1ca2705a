//! What the store reports about itself, and a walk over all grants, for operators.

use std::collections::BTreeSet;
use std::sync::Arc;

use cloakroom_core::GrantId;
use cloakroom_core::record::GrantRecord;
use cloakroom_core::store::{Listing, PageRequest, StoreError, StoreStatus};
use cloakroom_core::time::UnixTime;
use rusqlite::Connection;

use crate::error::failed;
use crate::plans;
use crate::rows::{GRANT_COLUMNS, column, grant, grant_columns, time};
use crate::schema;

/// The rows that housekeeping may delete: how many, counted up to a limit, and when the first ended.
const ENDED: &str = "SELECT count(*), min(until) FROM (\
    SELECT until FROM (SELECT until FROM log WHERE until < ?1 \
        AND position < (SELECT max(position) FROM log) LIMIT ?2) \
    UNION ALL SELECT until FROM (SELECT until FROM rules WHERE until < ?1 ORDER BY until LIMIT ?2) \
    UNION ALL SELECT until FROM (SELECT until FROM tombstones WHERE until < ?1 ORDER BY until LIMIT ?2) \
    UNION ALL SELECT until FROM (SELECT expires_at AS until FROM tokens WHERE expires_at < ?1 \
        ORDER BY expires_at LIMIT ?2) \
    UNION ALL SELECT until FROM (SELECT row_expires_at AS until FROM grants WHERE row_expires_at < ?1 \
        AND NOT EXISTS (SELECT 1 FROM tokens WHERE grant_id = id AND expires_at >= ?1) \
        ORDER BY row_expires_at LIMIT ?2))";

pub(crate) fn status(connection: &Connection, before: UnixTime) -> Result<StoreStatus, StoreError> {
    let during = |error| failed("reading the status of the database", error);
    let (ended, oldest): (u64, Option<i64>) = connection
        .query_row(ENDED, (column(before.as_millis()), column(StoreStatus::MAX_COUNTED)), |row| {
            Ok((row.get::<_, i64>(0).map(time)?, row.get(1)?))
        })
        .map_err(during)?;
    let sweeps: i64 = connection
        .query_row("SELECT count(*) FROM sweeps", [], |row| row.get(0))
        .map_err(during)?;
    let mut status = StoreStatus::default();
    status.server = Some(format!("SQLite {}", rusqlite::version()));
    status.schema = u32::try_from(schema::version_of(connection)?).ok();
    status.ended_rows = Some(ended.min(StoreStatus::MAX_COUNTED));
    status.oldest_ended = oldest.map(|oldest| UnixTime::from_millis(time(oldest)));
    status.open_sweeps = Some(time(sweeps));
    status.problems = problems(connection)?;
    status.plans = Some(plans::look(connection)?);
    Ok(status)
}

/// The indexes that are missing.
fn problems(connection: &Connection) -> Result<Vec<String>, StoreError> {
    let during = |error| failed("checking the database", error);
    let mut statement = connection
        .prepare("SELECT name FROM sqlite_schema WHERE type = 'index' AND sql IS NOT NULL")
        .map_err(during)?;
    let found: BTreeSet<String> =
        statement.query_map([], |row| row.get(0)).and_then(Iterator::collect).map_err(during)?;
    Ok(schema::indexes()
        .filter(|index| !found.contains(*index))
        .map(|index| format!("the index `{index}` is missing: create it as the schema does"))
        .collect())
}

/// One page of all grants, by id.
pub(crate) fn scan(connection: &Connection, page: PageRequest) -> Result<Listing, StoreError> {
    // An id of another length is damage, but nobody can name the grant.
    const SQL: &str = concat!(
        "SELECT ",
        grant_columns!(),
        ", g.id FROM grants g WHERE g.id > ?1 AND length(g.id) = 16 ORDER BY g.id LIMIT ?2"
    );
    let during = |error| failed("reading all grants", error);
    let limit = page.limit.max(1);
    let after: &[u8] = page.after.as_ref().map_or(&[], |id| id.as_bytes());
    let mut statement = connection.prepare_cached(SQL).map_err(during)?;
    let rows = statement
        .query_map((after, limit), |row| {
            let id = GrantId::from_bytes(row.get(GRANT_COLUMNS)?);
            let record =
                grant(id, row, 0).map_err(during).and_then(|row| GrantRecord::from_row(&row));
            Ok((id, record))
        })
        .map_err(during)?;
    let (mut grants, mut unreadable, mut last) = (Vec::new(), Vec::new(), None);
    for row in rows {
        let (id, record) = row.map_err(during)?;
        last = Some(id);
        match record {
            Ok(grant) => grants.push(Arc::new(grant)),
            Err(StoreError::Corrupt { .. }) => unreadable.push(id),
            Err(error) => return Err(error),
        }
    }
    let is_full = grants.len() + unreadable.len() >= limit as usize;
    Ok(Listing { grants, unreadable, next: last.filter(|_| is_full) })
}
