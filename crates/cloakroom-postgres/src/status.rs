//! What the store reports about itself, and a walk over all grants, for operators. Nothing here is on the path of a
//! request.

use std::collections::BTreeSet;

use cloakroom_core::GrantId;
use cloakroom_core::store::{Listing, PageRequest, StoreError, StoreStatus};
use cloakroom_core::time::UnixTime;
use tokio_postgres::types::Type;

use crate::plans;
use crate::pool::{Kind, Pool};
use crate::rows::{GRANT_COLUMNS, Stored, array, column, get, grant_columns, stored_grant, time};
use crate::schema;
use crate::sql::{Names, Sql, rounded};

/// The rows that housekeeping may delete are counted up to `$2` in each table.
static STATUS: Sql = Sql::new(
    "WITH ended AS ( \
         (SELECT until FROM cloakroom.log WHERE until < $1 \
             AND position < (SELECT position FROM cloakroom.log_state) ORDER BY until LIMIT $2) \
         UNION ALL (SELECT until FROM cloakroom.rules WHERE until < $1 ORDER BY until LIMIT $2) \
         UNION ALL (SELECT expires_at FROM cloakroom.tokens WHERE expires_at < $1 \
             ORDER BY expires_at LIMIT $2) \
         UNION ALL (SELECT row_expires_at FROM ( \
             SELECT id, row_expires_at FROM cloakroom.grants WHERE due < $1 ORDER BY due LIMIT $2) g \
             WHERE row_expires_at < $1 AND NOT EXISTS ( \
                 SELECT FROM cloakroom.tokens t WHERE t.grant_id = g.id AND t.expires_at >= $1))) \
     SELECT current_setting('server_version'), \
         (extract(epoch FROM clock_timestamp()) * 1000)::bigint, \
         (SELECT max(version) FROM cloakroom.version), \
         (SELECT count(*) FROM ended), (SELECT min(until) FROM ended), \
         (SELECT count(*) FROM cloakroom.sweeps)",
    &[Type::INT8, Type::INT8],
);

/// The indexes that the planner may use.
static INDEXES: Sql = Sql::new(
    "SELECT c.relname::text FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid \
         JOIN pg_namespace n ON n.oid = c.relnamespace \
     WHERE n.nspname = $1 AND i.indisvalid AND i.indisready",
    &[Type::TEXT],
);

static SCAN: Sql = Sql::new(
    concat!(
        "SELECT ",
        grant_columns!(),
        ", g.id FROM cloakroom.grants g WHERE g.id > $1 AND octet_length(g.id) = 16 \
         ORDER BY g.id LIMIT $LIMIT"
    ),
    &[Type::BYTEA],
);

/// The most rows of a page.
const LONGEST_PAGE: u32 = 512;

pub(crate) async fn status(
    pool: &Pool,
    names: &Names,
    before: UnixTime,
) -> Result<StoreStatus, StoreError> {
    let during = "reading the status of the database";
    let (before, most) = (column(before.as_millis()), column(StoreStatus::MAX_COUNTED));
    let rows = pool.query(during, Kind::Read, (&STATUS, 0), &[&before, &most]).await?;
    let row = rows.first().ok_or_else(|| StoreError::corrupt(during, "there is no row"))?;
    let instant = |millis| UnixTime::from_millis(time(millis));
    let mut status = StoreStatus::default();
    status.server = Some(format!("PostgreSQL {}", get::<&str>(during, row, 0)?));
    status.time = Some(instant(get(during, row, 1)?));
    status.schema = get::<Option<i32>>(during, row, 2)?.and_then(|found| found.try_into().ok());
    status.ended_rows = Some(time(get(during, row, 3)?).min(StoreStatus::MAX_COUNTED));
    status.oldest_ended = get::<Option<i64>>(during, row, 4)?.map(instant);
    status.open_sweeps = Some(time(get(during, row, 5)?));
    let rows = pool.query(during, Kind::Read, (&INDEXES, 0), &[&names.schema()]).await?;
    let found: BTreeSet<String> =
        rows.iter().map(|row| get(during, row, 0)).collect::<Result<_, _>>()?;
    let known = schema::indexes().map(|index| format!("{}{index}", names.prefix()));
    status.problems = known
        .filter(|index| !found.contains(index))
        .map(|index| {
            format!("the index `{index}` is missing or invalid: create it as the migration does")
        })
        .collect();
    status.plans = Some(plans::look(pool, names).await?);
    Ok(status)
}

/// One page of all grants, by id.
pub(crate) async fn scan(pool: &Pool, page: PageRequest) -> Result<Listing, StoreError> {
    let during = "reading all grants";
    let limit = rounded(page.limit, LONGEST_PAGE);
    let after: &[u8] = page.after.as_ref().map_or(&[], |id| id.as_bytes());
    let rows = pool.query(during, Kind::Read, (&SCAN, limit), &[&after]).await?;
    let (mut grants, mut unreadable, mut last) = (Vec::new(), Vec::new(), None);
    for row in &rows {
        let id = GrantId::from_bytes(array(during, get(during, row, GRANT_COLUMNS)?)?);
        last = Some(id);
        match stored_grant(id, row) {
            Ok(Stored::Grant(grant)) => grants.push(grant),
            Ok(Stored::Tombstone) => {}
            Err(StoreError::Corrupt { .. }) => unreadable.push(id),
            Err(error) => return Err(error),
        }
    }
    let next = last.filter(|_| rows.len() >= limit as usize);
    Ok(Listing { grants, unreadable, next })
}

/// For a look at their plans.
#[cfg(test)]
pub(crate) const STATEMENTS: &[(&str, &Sql)] =
    &[("STATUS", &STATUS), ("INDEXES", &INDEXES), ("SCAN", &SCAN)];
