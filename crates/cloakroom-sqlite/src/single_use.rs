//! Single-use items.

use async_trait::async_trait;
use cloakroom_core::store::{SingleUseStore, Spend, Spent, StoreError};
use cloakroom_core::time::UnixTime;
use rusqlite::Connection;

use crate::error::failed;
use crate::rows::{column, time};
use crate::store::SqliteStore;

/// The most items that a call forgets. It is more than one, so that the table shrinks.
const FORGOTTEN_A_CALL: u32 = 16;

pub(crate) const STORED: &str = "SELECT (SELECT until FROM single_use WHERE id = ?1), until \
                                 FROM single_use_forgotten WHERE id = 0";

/// Forgets what is over.
pub(crate) const OVER: &str = "DELETE FROM single_use WHERE id IN (\
    SELECT id FROM single_use WHERE until <= ?1 ORDER BY until LIMIT ?2)";

#[async_trait]
impl SingleUseStore for SqliteStore {
    async fn spend(&self, spend: Spend) -> Result<Spent, StoreError> {
        if spend.until <= spend.now {
            return Ok(Spent::Again);
        }
        self.write(move |connection| self::spend(connection, &spend)).await
    }
}

/// Runs in a transaction that excludes the transactions of all other processes.
pub(crate) fn spend(connection: &Connection, spend: &Spend) -> Result<Spent, StoreError> {
    const WRITE: &str = "INSERT INTO single_use (id, until) VALUES (?1, ?2) \
                         ON CONFLICT (id) DO UPDATE SET until = excluded.until";
    let during = |error| failed("spending a single-use item", error);
    let id = spend.id.as_bytes();
    let (stored, forgotten) = connection
        .prepare_cached(STORED)
        .and_then(|mut sql| sql.query_row([id], |row| Ok((row.get(0)?, row.get(1)?))))
        .map_err(during)?;
    let end = |stored| UnixTime::from_millis(time(stored));
    let (answer, until) = spend.judge(Option::<i64>::map(stored, end), end(forgotten));
    if let Some(until) = until {
        connection
            .prepare_cached(WRITE)
            .and_then(|mut sql| sql.execute((id, column(until.as_millis()))))
            .map_err(during)?;
    }
    if answer == Spent::First {
        forget(connection, column(spend.now.as_millis())).map_err(during)?;
    }
    Ok(answer)
}

/// Forgets a few of the items that are over, and remembers the latest end among them.
fn forget(connection: &Connection, now: i64) -> rusqlite::Result<()> {
    const LATEST: &str = "SELECT max(until) FROM (\
        SELECT until FROM single_use WHERE until <= ?1 ORDER BY until LIMIT ?2)";
    const REMEMBER: &str = "UPDATE single_use_forgotten SET until = max(until, ?1) WHERE id = 0";
    let latest: Option<i64> =
        connection.prepare_cached(LATEST)?.query_row((now, FORGOTTEN_A_CALL), |row| row.get(0))?;
    if let Some(latest) = latest {
        connection.prepare_cached(REMEMBER)?.execute([latest])?;
        connection.prepare_cached(OVER)?.execute((now, FORGOTTEN_A_CALL))?;
    }
    Ok(())
}
