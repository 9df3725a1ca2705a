//! The ring of signing keys.

use std::error::Error as _;

use async_trait::async_trait;
use cloakroom_core::keys::{KeyInserted, KeyRecord, KeyStore, KeyUpdated};
use cloakroom_core::store::StoreError;
use rusqlite::Connection;

use crate::error::failed;
use crate::rows::{column, time};
use crate::store::SqliteStore;

#[async_trait]
impl KeyStore for SqliteStore {
    async fn load(&self) -> Result<Vec<KeyRecord>, StoreError> {
        self.read(load).await
    }

    async fn insert(&self, record: KeyRecord) -> Result<KeyInserted, StoreError> {
        self.write(move |connection| insert(connection, &record)).await
    }

    async fn update(&self, record: KeyRecord, expected: u64) -> Result<KeyUpdated, StoreError> {
        if record.version == expected {
            return Err(StoreError::Misuse("the new record keeps its version"));
        }
        self.write(move |connection| {
            const SQL: &str = "UPDATE signing_keys SET version = ?3, body = ?4 \
                               WHERE generation = ?1 AND version = ?2";
            connection
                .prepare_cached(SQL)
                .and_then(|mut sql| {
                    sql.execute((
                        column(record.generation),
                        column(expected),
                        column(record.version),
                        record.to_body(),
                    ))
                })
                .map(updated)
                .map_err(|error| failed("updating a signing key", error))
        })
        .await
    }

    async fn delete(&self, generation: u64, expected: u64) -> Result<KeyUpdated, StoreError> {
        self.write(move |connection| {
            connection
                .prepare_cached("DELETE FROM signing_keys WHERE generation = ?1 AND version = ?2")
                .and_then(|mut sql| sql.execute((column(generation), column(expected))))
                .map(updated)
                .map_err(|error| failed("deleting a signing key", error))
        })
        .await
    }
}

fn load(connection: &Connection) -> Result<Vec<KeyRecord>, StoreError> {
    let during = |error| failed("loading the signing keys", error);
    let mut statement = connection
        .prepare_cached("SELECT generation, body FROM signing_keys ORDER BY generation")
        .map_err(during)?;
    let rows = statement
        .query_map([], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, Vec<u8>>(1)?)))
        .map_err(during)?;
    rows.map(|row| {
        let (generation, body) = row.map_err(during)?;
        // Without this key, all that it signed would look forged. So the ring is complete, or an error.
        KeyRecord::from_body(&body).map_err(|error| {
            let how = error.source().map(ToString::to_string).unwrap_or_default();
            StoreError::corrupt("a signing key's row", format!("generation {generation}: {how}"))
        })
    })
    .collect()
}

fn insert(connection: &Connection, record: &KeyRecord) -> Result<KeyInserted, StoreError> {
    let during = |error| failed("inserting a signing key", error);
    let highest: i64 = connection
        .prepare_cached("SELECT highest_generation FROM state")
        .and_then(|mut sql| sql.query_row([], |row| row.get(0)))
        .map_err(during)?;
    if record.generation <= time(highest) {
        return Ok(KeyInserted::Taken);
    }
    let generation = column(record.generation);
    connection
        .prepare_cached("INSERT INTO signing_keys (generation, version, body) VALUES (?1, ?2, ?3)")
        .and_then(|mut sql| sql.execute((generation, column(record.version), record.to_body())))
        .map_err(during)?;
    connection
        .prepare_cached("UPDATE state SET highest_generation = ?1")
        .and_then(|mut sql| sql.execute([generation]))
        .map_err(during)?;
    Ok(KeyInserted::Inserted)
}

const fn updated(rows: usize) -> KeyUpdated {
    if rows > 0 { KeyUpdated::Updated } else { KeyUpdated::Stale }
}
