//! The ring of signing keys.

use std::error::Error as _;

use async_trait::async_trait;
use cloakroom_core::keys::{KeyInserted, KeyRecord, KeyStore, KeyUpdated};
use cloakroom_core::store::StoreError;

use crate::connection::{Connection, Script};
use crate::error::Failure;
use crate::pool::Operation;
use crate::rows::{binary, column, get};
use crate::store::MysqlStore;

#[async_trait]
impl KeyStore for MysqlStore {
    async fn load(&self) -> Result<Vec<KeyRecord>, StoreError> {
        self.pool().once(Load).await
    }

    async fn insert(&self, record: KeyRecord) -> Result<KeyInserted, StoreError> {
        self.pool().steps(Insert(record)).await
    }

    async fn update(&self, record: KeyRecord, expected: u64) -> Result<KeyUpdated, StoreError> {
        if record.version == expected {
            return Err(StoreError::Misuse("the new record keeps its version"));
        }
        self.pool().once(Update { record, expected }).await
    }

    async fn delete(&self, generation: u64, expected: u64) -> Result<KeyUpdated, StoreError> {
        self.pool().once(Delete { generation, expected }).await
    }
}

struct Load;

impl Operation for Load {
    type Answer = Vec<KeyRecord>;

    const CONTEXT: &'static str = "loading the signing keys";

    async fn run(&self, connection: &mut Connection) -> Result<Vec<KeyRecord>, Failure> {
        const SQL: &str = "SELECT generation, body FROM ~signing_keys ORDER BY generation";
        let rows = connection.rows(SQL, vec![]).await?;
        let record = |mut row| {
            let generation: i64 = get(&mut row, 0)?;
            let body: Vec<u8> = get(&mut row, 1)?;
            // Without this key, all that it signed would look forged. So the ring is complete, or an error.
            KeyRecord::from_body(&body).map_err(|error| {
                let how = error.source().map(ToString::to_string).unwrap_or_default();
                let what = format!("generation {generation}: {how}");
                Failure::Store(StoreError::corrupt("a signing key's row", what))
            })
        };
        rows.into_iter().map(record).collect()
    }
}

/// Raises the highest generation, if this one is above it, and inserts the record: one packet.
///
/// The `UPDATE` locks the one row of `key_generations` and compares its newest committed version. Of two
/// nodes that insert one generation, the second waits for the first, and then matches nothing.
struct Insert(KeyRecord);

impl Operation for Insert {
    type Answer = KeyInserted;

    const CONTEXT: &'static str = "inserting a signing key";
    // A second run would take the first one for another node's.
    const IS_REPEATABLE: bool = false;

    async fn run(&self, connection: &mut Connection) -> Result<KeyInserted, Failure> {
        const RAISE: &str = "UPDATE ~key_generations SET highest = ? WHERE id = 0 AND highest < ?";
        const INSERT: &str = "INSERT INTO ~signing_keys (generation, version, body) \
                              SELECT ?, ?, ? FROM DUAL WHERE ROW_COUNT() = 1";
        let generation = column(self.0.generation);
        let record = [generation.clone(), column(self.0.version), binary(&self.0.to_body())];
        let mut script = Script::new();
        script
            .then("START TRANSACTION", &[])
            .then(RAISE, &[generation.clone(), generation])
            .then(INSERT, &record)
            .then("COMMIT", &[]);
        let answers = connection.script(&script).await?;
        let is_raised = answers.get(1).is_some_and(|raise| raise.matched > 0);
        Ok(if is_raised { KeyInserted::Inserted } else { KeyInserted::Taken })
    }
}

/// One conditional statement, which locks the row by its primary key and compares its newest version.
struct Update {
    record: KeyRecord,
    expected: u64,
}

impl Operation for Update {
    type Answer = KeyUpdated;

    const CONTEXT: &'static str = "updating a signing key";
    const IS_REPEATABLE: bool = false;

    async fn run(&self, connection: &mut Connection) -> Result<KeyUpdated, Failure> {
        const SQL: &str = "UPDATE ~signing_keys SET version = ?, body = ? \
                           WHERE generation = ? AND version = ?";
        let parameters = vec![
            column(self.record.version),
            binary(&self.record.to_body()),
            column(self.record.generation),
            column(self.expected),
        ];
        Ok(updated(connection.execute(SQL, parameters).await?))
    }
}

/// One conditional statement, like [`Update`].
struct Delete {
    generation: u64,
    expected: u64,
}

impl Operation for Delete {
    type Answer = KeyUpdated;

    const CONTEXT: &'static str = "deleting a signing key";
    const IS_REPEATABLE: bool = false;

    async fn run(&self, connection: &mut Connection) -> Result<KeyUpdated, Failure> {
        const SQL: &str = "DELETE FROM ~signing_keys WHERE generation = ? AND version = ?";
        let parameters = vec![column(self.generation), column(self.expected)];
        Ok(updated(connection.execute(SQL, parameters).await?))
    }
}

const fn updated(rows: u64) -> KeyUpdated {
    if rows > 0 { KeyUpdated::Updated } else { KeyUpdated::Stale }
}
