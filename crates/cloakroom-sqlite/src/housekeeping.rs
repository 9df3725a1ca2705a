//! Deletes rows that have ended, by the indexes on expiry, a few at a time.

use cloakroom_core::store::{Housekeeping, MaintenanceReport, StoreError};
use rusqlite::Connection;

use crate::error::failed;
use crate::revocation_log::{self, Swept};
use crate::rows::column;

/// How many rows one transaction deletes. Other writes wait for it, so it is short. It is not shorter, since
/// each commit makes readers drop their cached pages.
const BATCH: u32 = 500;

/// One short transaction of housekeeping. It adds what it did to `done`, and returns how many rows it
/// touched.
pub(crate) fn step(
    connection: &Connection,
    task: &Housekeeping,
    limit: u32,
    done: &mut MaintenanceReport,
) -> Result<u32, StoreError> {
    let swept = sweep(connection, task, done)?;
    let before = column(task.before.as_millis());
    let mut left = limit.min(BATCH);
    let half = left.div_ceil(2);
    // At most half for each: a flood of revocations must not stop the deletion of grants.
    let mut trimmed = 0;
    for sql in [LOG, RULES, TOMBSTONES] {
        trimmed += delete(connection, sql, before, half - trimmed)?;
    }
    done.revocations += u64::from(trimmed);
    left -= trimmed;
    let grants = delete_grants(connection, before, left, done)?;
    left -= grants;
    let tokens = delete(connection, TOKENS, before, left)?;
    done.tokens += u64::from(tokens);
    Ok(u32::from(swept) + trimmed + grants + tokens)
}

/// Continues a sweep that is not finished, and returns whether there was one. The grants that it revokes
/// do not count as deleted.
fn sweep(
    connection: &Connection,
    task: &Housekeeping,
    done: &mut MaintenanceReport,
) -> Result<bool, StoreError> {
    let awaited = match task.sweep {
        Some(entry) => revocation_log::sweep_of(connection, entry)?,
        None => None,
    };
    let position = match awaited {
        Some(position) => Some(position),
        None => revocation_log::unfinished(connection)?,
    };
    let Some(position) = position else { return Ok(false) };
    match revocation_log::sweep(connection, position) {
        Ok(Swept::Unreadable) => done.unreadable += 1,
        Ok(Swept::All | Swept::More(_)) => {}
        // A damaged page stops the sweep. The sweep stays, and deletion continues.
        Err(StoreError::Corrupt { .. }) => {
            done.unreadable += 1;
            return Ok(false);
        }
        Err(error) => return Err(error),
    }
    Ok(true)
}

/// The newest entry of the log stays, so that its position is not used again.
pub(crate) const LOG: &str = "DELETE FROM log WHERE position IN (\
    SELECT position FROM log WHERE until < ?1 AND position < (SELECT max(position) FROM log) \
    ORDER BY until LIMIT ?2)";
pub(crate) const RULES: &str = "DELETE FROM rules WHERE key IN (\
    SELECT key FROM rules WHERE until < ?1 ORDER BY until LIMIT ?2)";
pub(crate) const TOMBSTONES: &str = "DELETE FROM tombstones WHERE grant_id IN (\
    SELECT grant_id FROM tombstones WHERE until < ?1 ORDER BY until LIMIT ?2)";
/// Deletes tokens of grants that stay. The others are deleted with their grants.
pub(crate) const TOKENS: &str = "DELETE FROM tokens WHERE (grant_id, digest) IN (\
    SELECT grant_id, digest FROM tokens WHERE expires_at < ?1 ORDER BY expires_at LIMIT ?2)";

/// Grants that wait for a token are skipped: otherwise the same page would come again and again.
pub(crate) const GRANTS: &str = "SELECT id FROM grants WHERE row_expires_at < ?1 \
    AND NOT EXISTS (SELECT 1 FROM tokens WHERE grant_id = id AND expires_at >= ?1) \
    ORDER BY row_expires_at LIMIT ?2";

fn delete(
    connection: &Connection,
    sql: &'static str,
    before: i64,
    limit: u32,
) -> Result<u32, StoreError> {
    let deleted = connection
        .prepare_cached(sql)
        .and_then(|mut sql| sql.execute((before, limit)))
        .map_err(|error| failed("deleting what has ended", error))?;
    Ok(u32::try_from(deleted).unwrap_or(u32::MAX))
}

/// Deletes grants that have ended, with their tokens, when all of the tokens have ended.
fn delete_grants(
    connection: &Connection,
    before: i64,
    limit: u32,
    done: &mut MaintenanceReport,
) -> Result<u32, StoreError> {
    const LAST_TOKENS: &str = "DELETE FROM tokens WHERE grant_id = ?1 AND digest IN (\
        SELECT digest FROM tokens WHERE grant_id = ?1 AND expires_at < ?2 LIMIT ?3)";
    const GRANT: &str = "DELETE FROM grants WHERE id = ?1 AND row_expires_at < ?2 \
                         AND NOT EXISTS (SELECT 1 FROM tokens WHERE grant_id = ?1)";
    let during = |error| failed("deleting grants that have ended", error);
    // An id of another length is damage, and is deleted like the others.
    let due: Vec<Vec<u8>> = connection
        .prepare_cached(GRANTS)
        .and_then(|mut sql| sql.query_map((before, limit), |row| row.get(0))?.collect())
        .map_err(during)?;
    let mut rows = 0;
    for id in due {
        if rows >= limit {
            break;
        }
        let tokens = connection
            .prepare_cached(LAST_TOKENS)
            .and_then(|mut sql| sql.execute((&id, before, limit - rows)))
            .map_err(during)?;
        let grants = connection
            .prepare_cached(GRANT)
            .and_then(|mut sql| sql.execute((&id, before)))
            .map_err(during)?;
        done.grants += grants as u64;
        if grants == 0 {
            done.tokens += tokens as u64;
        }
        rows = rows.saturating_add(u32::try_from(tokens + grants).unwrap_or(u32::MAX));
    }
    Ok(rows.min(limit))
}

/// Whether more can be done now.
pub(crate) fn is_due(connection: &Connection, task: &Housekeeping) -> Result<bool, StoreError> {
    const DUE: &str = "SELECT EXISTS (SELECT 1 FROM sweeps) \
        OR EXISTS (SELECT 1 FROM log WHERE until < ?1 \
                   AND position < (SELECT max(position) FROM log)) \
        OR EXISTS (SELECT 1 FROM rules WHERE until < ?1) \
        OR EXISTS (SELECT 1 FROM tombstones WHERE until < ?1) \
        OR EXISTS (SELECT 1 FROM tokens WHERE expires_at < ?1) \
        OR EXISTS (SELECT 1 FROM grants WHERE row_expires_at < ?1 \
                   AND NOT EXISTS (SELECT 1 FROM tokens WHERE grant_id = id))";
    connection
        .prepare_cached(DUE)
        .and_then(|mut sql| sql.query_row([column(task.before.as_millis())], |row| row.get(0)))
        .map_err(|error| failed("looking for expired rows", error))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use cloakroom_core::Random;
    use cloakroom_core::time::{SystemClock, UnixTime};

    use super::*;
    use crate::schema::{self, Synchronous};

    #[test]
    fn a_sweep_that_cannot_be_read_is_reported_and_stops_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let mut connection = Connection::open(folder.path().join("tokens.db")).unwrap();
        schema::configure(&connection, Synchronous::Normal, Duration::ZERO).unwrap();
        schema::migrate(&mut connection, &SystemClock::new(), &Random::system()).unwrap();
        // The types of a strict table cannot be wrong, unless the file is damaged.
        connection
            .execute_batch(
                "DROP TABLE sweeps; CREATE TABLE sweeps (position, key, bound, at, after); \
                 INSERT INTO sweeps VALUES (7, 'no key', 0, 0, x''); \
                 INSERT INTO tombstones VALUES (x'00112233445566778899aabbccddeeff', 0)",
            )
            .unwrap();
        let at = UnixTime::from_secs(2_000_000_000);
        let task = Housekeeping { now: at, before: at, limit: 10, sweep: None };
        let mut done = MaintenanceReport::default();
        assert_eq!(step(&connection, &task, 10, &mut done).unwrap(), 1);
        assert_eq!((done.unreadable, done.revocations), (1, 1));
    }
}
