//! Deletes rows that have ended, by the indexes on expiry, a few at a time. Any number of nodes may
//! do so at once: each skips the rows that another one has locked, so none of them waits.

use cloakroom_core::store::{Housekeeping, MaintenanceReport, StoreError};
use tokio_postgres::types::Type;

use crate::pool::{Kind, Pool};
use crate::revocation_log::{self, Unfinished};
use crate::rows::{column, get};
use crate::sql::{Sql, rounded};

/// The most rows that one statement deletes: few enough that nobody notices its locks.
const BATCH: u32 = 512;

// Each statement locks the rows that it deletes, and READ COMMITTED checks their ends again on what it locks: a
// row whose end another transaction moved meanwhile stays.

/// The newest entry stays, so that a cursor that names it is still known.
pub(crate) static LOG: Sql = Sql::new(
    "WITH gone AS ( \
         DELETE FROM cloakroom.log WHERE position = ANY (ARRAY( \
             SELECT position FROM cloakroom.log \
             WHERE until < $1 AND position < (SELECT position FROM cloakroom.log_state) \
             ORDER BY until LIMIT $LIMIT FOR UPDATE SKIP LOCKED)) RETURNING 1) \
     SELECT count(*) FROM gone",
    &[Type::INT8],
);

pub(crate) static RULES: Sql = Sql::new(
    "WITH gone AS ( \
         DELETE FROM cloakroom.rules WHERE key = ANY (ARRAY( \
             SELECT key FROM cloakroom.rules WHERE until < $1 \
             ORDER BY until LIMIT $LIMIT FOR UPDATE SKIP LOCKED)) RETURNING 1) \
     SELECT count(*) FROM gone",
    &[Type::INT8],
);

pub(crate) static TOKENS: Sql = Sql::new(
    "WITH gone AS ( \
         DELETE FROM cloakroom.tokens WHERE ctid = ANY (ARRAY( \
             SELECT ctid FROM cloakroom.tokens WHERE expires_at < $1 \
             ORDER BY expires_at LIMIT $LIMIT FOR UPDATE SKIP LOCKED)) RETURNING 1) \
     SELECT count(*) FROM gone",
    &[Type::INT8],
);

/// Looks at the grants that are due, and deletes those that have ended, with their tokens, when all of the
/// tokens have ended. The others are due again at their exact end, or at that of their last token.
///
/// A grant with more ended tokens than fit stays due, and the tokens that fit are deleted.
///
/// READ COMMITTED: the rows of the grants are locked, so no token can be added meanwhile.
pub(crate) static GRANTS: Sql = Sql::new(
    "WITH due AS ( \
         SELECT id, row_expires_at FROM cloakroom.grants WHERE due < $1 \
         ORDER BY due LIMIT $LIMIT FOR UPDATE SKIP LOCKED), \
     looked AS ( \
         SELECT due.id, due.row_expires_at, t.last, t.ended FROM due, LATERAL ( \
             SELECT max(expires_at) AS last, count(*) AS ended FROM cloakroom.tokens t \
             WHERE t.grant_id = due.id) t), \
     ended AS (SELECT id, ended FROM looked WHERE row_expires_at < $1 AND coalesce(last < $1, true)), \
     fits AS ( \
         SELECT id FROM ( \
             SELECT id, ended, sum(ended) OVER (ORDER BY ended, id) AS total FROM ended) e \
         WHERE total <= 512), \
     tokens AS ( \
         DELETE FROM cloakroom.tokens t USING fits WHERE t.grant_id = fits.id RETURNING 1), \
     some_tokens AS ( \
         DELETE FROM cloakroom.tokens WHERE ctid = ANY (ARRAY( \
             SELECT t.ctid FROM cloakroom.tokens t \
             WHERE NOT EXISTS (SELECT FROM fits) \
                 AND t.grant_id = (SELECT id FROM ended ORDER BY ended LIMIT 1) \
             LIMIT 512 FOR UPDATE SKIP LOCKED)) RETURNING 1), \
     gone AS ( \
         DELETE FROM cloakroom.grants g USING fits WHERE g.id = fits.id \
         RETURNING g.body IS NULL AS is_tombstone), \
     later AS ( \
         UPDATE cloakroom.grants g SET due = greatest(looked.row_expires_at, looked.last) FROM looked \
         WHERE g.id = looked.id AND (looked.row_expires_at >= $1 OR looked.last >= $1) RETURNING 1) \
     SELECT (SELECT count(*) FROM due), (SELECT count(*) FROM tokens), \
         (SELECT count(*) FROM some_tokens), (SELECT count(*) FILTER (WHERE is_tombstone) FROM gone), \
         (SELECT count(*) FILTER (WHERE NOT is_tombstone) FROM gone)",
    &[Type::INT8],
);

/// What can be done now: the first sweep that is not finished, or the one that the caller waits for, and
/// whether rows of each table have ended. The first row of each index tells; a question whether any row has
/// ended could be answered by a scan.
static DUE: Sql = Sql::new(
    "SELECT s.position, s.key, coalesce(s.entry = $2, false), \
         coalesce((SELECT until FROM cloakroom.log \
             WHERE position < (SELECT position FROM cloakroom.log_state) \
             ORDER BY until LIMIT 1) < $1, false), \
         coalesce((SELECT until FROM cloakroom.rules ORDER BY until LIMIT 1) < $1, false), \
         coalesce((SELECT due FROM cloakroom.grants ORDER BY due LIMIT 1) < $1, false), \
         coalesce((SELECT expires_at FROM cloakroom.tokens ORDER BY expires_at LIMIT 1) < $1, false) \
     FROM (VALUES (1)) one LEFT JOIN LATERAL ( \
         SELECT position, key, entry FROM cloakroom.sweeps \
         ORDER BY (entry <> $2), position LIMIT 1) s ON true",
    &[Type::INT8, Type::BYTEA],
);

#[derive(Debug)]
struct Due {
    sweep: Option<Unfinished>,
    /// Whether the sweep is the one that the caller waits for.
    is_awaited: bool,
    log: bool,
    rules: bool,
    grants: bool,
    tokens: bool,
}

impl Due {
    async fn look(pool: &Pool, task: &Housekeeping) -> Result<Self, StoreError> {
        let during = "looking for expired rows";
        let before = column(task.before.as_millis());
        let awaited: &[u8] = task.sweep.as_ref().map_or(&[], |entry| entry.as_bytes());
        let rows = pool.query(during, Kind::Read, (&DUE, 0), &[&before, &awaited]).await?;
        let row = rows.first().ok_or_else(|| StoreError::corrupt(during, "there is no row"))?;
        let position: Option<i64> = get(during, row, 0)?;
        Ok(Self {
            sweep: match position {
                Some(position) => Some(Unfinished::new(position, get(during, row, 1)?)),
                None => None,
            },
            is_awaited: get(during, row, 2)?,
            log: get(during, row, 3)?,
            rules: get(during, row, 4)?,
            grants: get(during, row, 5)?,
            tokens: get(during, row, 6)?,
        })
    }

    fn anything(&self) -> bool {
        self.sweep.is_some() || self.log || self.rules || self.grants || self.tokens
    }
}

/// One round of housekeeping, which touches about `task.limit` rows. Where nothing has ended, it is one
/// statement.
pub(crate) async fn maintain(
    pool: &Pool,
    task: &Housekeeping,
) -> Result<MaintenanceReport, StoreError> {
    let mut done = MaintenanceReport::default();
    let mut left = task.limit.max(1);
    let mut due = Due::look(pool, task).await?;
    while due.anything() && left > 0 {
        let rows = step(pool, task, &due, left, &mut done).await?;
        left = left.saturating_sub(rows);
        due = Due::look(pool, task).await?;
        if rows == 0 {
            // Other nodes have locked what is due.
            break;
        }
    }
    done.sweeping = due.is_awaited;
    done.more = due.anything();
    Ok(done)
}

/// A few statements. Adds what they did to `done`, and returns how many rows they touched.
async fn step(
    pool: &Pool,
    task: &Housekeeping,
    due: &Due,
    limit: u32,
    done: &mut MaintenanceReport,
) -> Result<u32, StoreError> {
    if let Some(sweep) = &due.sweep {
        done.unreadable += u64::from(!revocation_log::continue_sweep(pool, sweep).await?);
    }
    let before = column(task.before.as_millis());
    let mut left = rounded(limit, BATCH);
    let half = left.div_ceil(2);
    // At most half for each: a flood of revocations must not stop the deletion of grants.
    let mut trimmed = 0;
    for (sql, is_due) in [(&LOG, due.log), (&RULES, due.rules)] {
        if is_due && trimmed < half {
            trimmed += delete(pool, sql, before, half - trimmed).await?;
        }
    }
    done.revocations += u64::from(trimmed);
    left = left.saturating_sub(trimmed);
    let mut touched = u32::from(due.sweep.is_some()) + trimmed;
    if due.grants && left > 0 {
        let grants = delete_grants(pool, before, left, done).await?;
        left = left.saturating_sub(grants);
        touched += grants;
    }
    if due.tokens && left > 0 {
        let tokens = delete(pool, &TOKENS, before, left).await?;
        done.tokens += u64::from(tokens);
        touched += tokens;
    }
    Ok(touched)
}

async fn delete(
    pool: &Pool,
    sql: &'static Sql,
    before: i64,
    limit: u32,
) -> Result<u32, StoreError> {
    let during = "deleting what has ended";
    let limit = rounded(limit, BATCH);
    let rows = pool.query(during, Kind::Write, (sql, limit), &[&before]).await?;
    let deleted: i64 =
        rows.first().map(|row| get("a count", row, 0)).transpose()?.unwrap_or_default();
    Ok(u32::try_from(deleted).unwrap_or(u32::MAX))
}

/// Deletes grants and tombstones that have ended. Returns how many rows it touched.
async fn delete_grants(
    pool: &Pool,
    before: i64,
    limit: u32,
    done: &mut MaintenanceReport,
) -> Result<u32, StoreError> {
    let during = "deleting grants that have ended";
    let limit = rounded(limit, BATCH);
    let rows = pool.query(during, Kind::Write, (&GRANTS, limit), &[&before]).await?;
    let Some(row) = rows.first() else { return Ok(0) };
    let count = |index| -> Result<u64, StoreError> {
        Ok(u64::try_from(get::<i64>("a count", row, index)?).unwrap_or_default())
    };
    let (looked, with_grants, alone) = (count(0)?, count(1)?, count(2)?);
    done.tokens += alone;
    done.revocations += count(3)?;
    done.grants += count(4)?;
    Ok(u32::try_from(looked + with_grants + alone).unwrap_or(u32::MAX))
}

/// For a look at their plans.
#[cfg(test)]
pub(crate) const STATEMENTS: &[(&str, &Sql)] =
    &[("LOG", &LOG), ("RULES", &RULES), ("TOKENS", &TOKENS), ("GRANTS", &GRANTS), ("DUE", &DUE)];
