//! Single-use items.
//!
//! A call sends two statements in one round trip. The first spends the item: the unique index
//! decides between calls for one id, and the row decides between a call and the end of the item.
//! The second forgets some items that are over.
//!
//! The latest forgotten end is read after the row has been inserted, with a snapshot of that
//! moment. An earlier row of the item would have blocked the insert; so if there was one, its
//! deletion has been committed, and the latest end with it. Reading before the insert could miss a
//! row that another call spends and a third one forgets in between. Reading after the commit could
//! see an end that was forgotten later, and then no call would get `First`.

use async_trait::async_trait;
use cloakroom_core::store::{SingleUseStore, Spend, Spent, StoreError};
use tokio_postgres::types::Type;

use crate::error::failed;
use crate::rows::{column, get};
use crate::sql::Sql;
use crate::store::PostgresStore;

/// Spends the item if it is not held, and otherwise keeps its later end.
///
/// READ COMMITTED: a row that stands in the way is locked, and compared as it is then. A row that is being
/// deleted is waited for.
pub(crate) static SPEND: Sql = Sql::new(
    "WITH held AS ( \
         UPDATE cloakroom.single_use SET until = $2, first = false \
         WHERE id = $1 AND until > $3 AND until < $2 RETURNING first), \
     spent AS ( \
         INSERT INTO cloakroom.single_use AS item (id, until, first) \
         SELECT $1, $2, true \
         WHERE $2 > (SELECT until FROM cloakroom.single_use_forgotten) \
             AND NOT EXISTS (SELECT FROM held) \
         ON CONFLICT (id) DO UPDATE SET until = excluded.until, first = item.until <= $3 \
         WHERE item.until < excluded.until \
         RETURNING first AND until > cloakroom.latest_forgotten() AS first) \
     SELECT first FROM held UNION ALL SELECT first FROM spent",
    &[Type::BYTEA, Type::INT8, Type::INT8],
);

/// Forgets at most 16 items that are over, and keeps the latest end among them in the same step.
///
/// READ COMMITTED: each call deletes other rows, since it skips those that another one has locked, and it
/// waits for nothing but the one row that it locks last. So nobody waits in a circle.
pub(crate) static FORGET: Sql = Sql::new(
    "WITH over AS ( \
         SELECT id, until FROM cloakroom.single_use WHERE until <= $1 ORDER BY until LIMIT 16 \
         FOR UPDATE SKIP LOCKED), \
     gone AS ( \
         DELETE FROM cloakroom.single_use item USING over WHERE item.id = over.id), \
     latest AS (SELECT max(until) AS until FROM over), \
     kept AS ( \
         UPDATE cloakroom.single_use_forgotten f SET until = latest.until FROM latest \
         WHERE f.until < latest.until) \
     SELECT count(*) FROM over",
    &[Type::INT8],
);

#[async_trait]
impl SingleUseStore for PostgresStore {
    async fn spend(&self, spend: Spend) -> Result<Spent, StoreError> {
        let during = "spending a single-use item";
        let Spend { id, until, now } = spend;
        if until <= now {
            return Ok(Spent::Again);
        }
        let id = id.as_bytes().as_slice();
        let (until, now) = (column(until.as_millis()), column(now.as_millis()));
        let session = self.writes().session(during).await?;
        let error = |error| failed(during, error);
        let spending = session.prepared(&SPEND, 0).await.map_err(error)?;
        let forgetting = session.prepared(&FORGET, 0).await.map_err(error)?;
        let (spent, forgotten) =
            session.run_both((&spending, &[&id, &until, &now]), (&forgetting, &[&now])).await;
        let spent = spent.map_err(error)?;
        // An item that was spent stays spent, whatever becomes of the others.
        forgotten.map_err(error)?;
        let is_first = match spent.first() {
            Some(row) => get("a single-use item's row", row, 0)?,
            None => false,
        };
        Ok(if is_first { Spent::First } else { Spent::Again })
    }
}

/// For a look at their plans.
#[cfg(test)]
pub(crate) const STATEMENTS: &[(&str, &Sql)] = &[("SPEND", &SPEND), ("FORGET", &FORGET)];
