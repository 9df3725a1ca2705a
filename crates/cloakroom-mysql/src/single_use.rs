//! Single-use items.

use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use cloakroom_core::store::{SingleUseStore, Spend, Spent, StoreError};
use cloakroom_core::time::UnixTime;
use mysql_async::{Row, Value};

use crate::connection::{Connection, Script};
use crate::error::Failure;
use crate::pool::Operation;
use crate::rows::{binary, column, get, marks, time};
use crate::store::MysqlStore;

/// The most items that a call forgets. It is more than one, so that the table shrinks.
const FORGOTTEN_A_CALL: u32 = 32;

pub(crate) const WRITE: &str = "UPDATE ~single_use SET ends_at = ? WHERE id = ?";

/// Items that are over.
pub(crate) const OVER: &str =
    "SELECT id, ends_at FROM ~single_use WHERE ends_at <= ? ORDER BY ends_at LIMIT ?";

#[async_trait]
impl SingleUseStore for MysqlStore {
    async fn spend(&self, spend: Spend) -> Result<Spent, StoreError> {
        if spend.until <= spend.now {
            return Ok(Spent::Again);
        }
        let answer = loop {
            if self.pool().once(SpendNew(spend)).await? {
                break Spent::First;
            }
            // The next round finds what another call inserted, or inserts the item itself.
            if let Some(answer) = self.pool().steps(SpendKnown(spend)).await? {
                break answer;
            }
        };
        if answer == Spent::First {
            self.forget(spend.now).await;
        }
        Ok(answer)
    }
}

impl MysqlStore {
    /// Forgets a few items that are over. The item is spent, whatever becomes of this.
    async fn forget(&self, now: UnixTime) {
        // Another call of this process is at it, and forgets more than two.
        if self.is_forgetting().swap(true, Ordering::AcqRel) {
            return;
        }
        let _guard = Forgetting(self.is_forgetting());
        if let Err(error) = self.pool().steps(Forget(now)).await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "expired items could not be deleted"
            );
        }
    }
}

struct Forgetting<'a>(&'a AtomicBool);

impl Drop for Forgetting<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// Inserts an item that is not there. Returns whether that was so.
///
/// # Isolation
///
/// One statement. It locks the row of the latest forgotten end, shared, and reads its newest version. So it
/// comes before a call that forgets, or after it: that call locks the row alone before it deletes, and raises
/// it in the same transaction. Without the lock, this statement could wait for the deletion of this very
/// item, insert it again, and not know that it was forgotten. The primary key decides between two inserts.
struct SpendNew(Spend);

impl Operation for SpendNew {
    type Answer = bool;

    const CONTEXT: &'static str = "spending a single-use item";
    // A second run answers `Again` for what the first one spent: the user tries once more.
    const IS_REPEATABLE: bool = true;

    async fn run(&self, connection: &mut Connection) -> Result<bool, Failure> {
        const SQL: &str = "INSERT INTO ~single_use (id, ends_at) \
            SELECT ?, ? FROM ~single_use_forgotten f WHERE f.id = 0 AND f.ends_at < ? \
            LOCK IN SHARE MODE";
        let Spend { id, until, .. } = self.0;
        let until = column(until.as_millis());
        let parameters = vec![binary(id.as_bytes()), until.clone(), until];
        match connection.execute(SQL, parameters).await {
            Ok(inserted) => Ok(inserted > 0),
            Err(failure) if failure.is_duplicate() => Ok(false),
            Err(failure) => Err(failure),
        }
    }
}

/// Decides about an item that is held, over or forgotten. Answers nothing if it is none of these.
///
/// The latest forgotten end is locked first, as everywhere, and then the item. Both reads see the newest
/// versions, and nobody else can write either until the commit.
///
/// An item that is gone has no row to lock: it was deleted after [`SpendNew`] found it. Several calls may see
/// that at the same time, so none of them may insert it here: only [`SpendNew`] does, where the primary key
/// decides.
struct SpendKnown(Spend);

impl Operation for SpendKnown {
    type Answer = Option<Spent>;

    const CONTEXT: &'static str = "spending a single-use item";

    async fn run(&self, connection: &mut Connection) -> Result<Option<Spent>, Failure> {
        const FORGOTTEN: &str =
            "SELECT ends_at FROM ~single_use_forgotten WHERE id = 0 LOCK IN SHARE MODE";
        const STORED: &str = "SELECT ends_at FROM ~single_use WHERE id = ? FOR UPDATE";
        let spend = &self.0;
        let id = binary(spend.id.as_bytes());
        let mut script = Script::transaction();
        script.then(FORGOTTEN, &[]).then(STORED, std::slice::from_ref(&id));
        let mut answers = connection.script(&script).await?;
        let stored = end(answers.pop().and_then(|answer| answer.rows.into_iter().next()))?;
        let forgotten = end(answers.pop().and_then(|answer| answer.rows.into_iter().next()))?;
        let Some(forgotten) = forgotten else {
            return Err(StoreError::corrupt("a table", "the latest forgotten end is gone").into());
        };
        let (answer, until) = spend.judge(stored, forgotten);
        let mut script = Script::resumed();
        if let Some(until) = until.filter(|_| stored.is_some()) {
            script.then(WRITE, &[column(until.as_millis()), id]);
        }
        script.commit();
        connection.script(&script).await?;
        Ok((stored.is_some() || answer == Spent::Again).then_some(answer))
    }
}

fn end(row: Option<Row>) -> Result<Option<UnixTime>, Failure> {
    let Some(mut row) = row else { return Ok(None) };
    Ok(Some(UnixTime::from_millis(time(get(&mut row, 0)?))))
}

/// Deletes a few of the items that are over, and raises the latest forgotten end to the latest among them.
///
/// The candidates are read without locks. The row of the latest end is locked first; then the items are
/// deleted by their primary keys, in its order, and only if they still have ended. An item that was spent
/// again in between has a later end, and stays.
struct Forget(UnixTime);

impl Operation for Forget {
    type Answer = ();

    const CONTEXT: &'static str = "deleting single-use items that are over";

    async fn run(&self, connection: &mut Connection) -> Result<(), Failure> {
        const REMEMBER: &str =
            "UPDATE ~single_use_forgotten SET ends_at = GREATEST(ends_at, ?) WHERE id = 0";
        let now = column(self.0.as_millis());
        let rows = connection.rows(OVER, vec![now, Value::UInt(FORGOTTEN_A_CALL.into())]).await?;
        let (mut ids, mut latest) = (Vec::new(), 0);
        for mut row in rows {
            ids.push(binary(&get::<Vec<u8>>(&mut row, 0)?));
            latest = get::<i64>(&mut row, 1)?.max(latest);
        }
        if ids.is_empty() {
            return Ok(());
        }
        let delete =
            format!("DELETE FROM ~single_use WHERE id IN ({}) AND ends_at <= ?", marks(ids.len()));
        ids.push(Value::Int(latest));
        let mut script = Script::new();
        script
            .then("START TRANSACTION", &[])
            .then(REMEMBER, &[Value::Int(latest)])
            .then(&delete, &ids)
            .then("COMMIT", &[]);
        connection.script(&script).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    mod with_mysql {
        use cloakroom_core::store::SingleUseId;

        use super::super::*;

        /// Two calls that both missed the row may both be here, and no lock keeps them apart.
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn an_item_without_a_row_is_left_to_the_insert() {
            let store = crate::test_store::open().await;
            let (id, now) = (SingleUseId::from_bytes([7; 32]), UnixTime::from_secs(1_000));
            let spend = Spend { id, until: UnixTime::from_secs(1_060), now };
            assert_eq!(store.pool().steps(SpendKnown(spend)).await.unwrap(), None);
            assert_eq!(store.spend(spend).await.unwrap(), Spent::First);
            assert_eq!(store.spend(spend).await.unwrap(), Spent::Again);
            assert_eq!(store.pool().steps(SpendKnown(spend)).await.unwrap(), Some(Spent::Again));
        }
    }
}
