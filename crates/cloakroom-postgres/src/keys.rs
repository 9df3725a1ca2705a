//! The ring of signing keys.

use std::error::Error as _;

use async_trait::async_trait;
use cloakroom_core::keys::{KeyInserted, KeyRecord, KeyStore, KeyUpdated};
use cloakroom_core::store::StoreError;
use tokio_postgres::types::Type;

use crate::pool::Kind;
use crate::rows::{column, get, time};
use crate::sql::Sql;
use crate::store::PostgresStore;

static LOAD: Sql =
    Sql::new("SELECT generation, body FROM cloakroom.signing_keys ORDER BY generation", &[]);

/// READ COMMITTED: of several inserts, one raises the highest generation, and the others wait for its row and
/// compare again.
static INSERT: Sql = Sql::new(
    "WITH raised AS ( \
         UPDATE cloakroom.signing_keys_state SET highest_generation = $1 \
         WHERE highest_generation < $1 RETURNING 1), \
     inserted AS ( \
         INSERT INTO cloakroom.signing_keys (generation, version, body) SELECT $1, $2, $3 FROM raised) \
     SELECT 1 FROM raised",
    &[Type::INT8, Type::INT8, Type::BYTEA],
);

/// READ COMMITTED: this waits for another writer of the row, and compares the version again.
static UPDATE: Sql = Sql::new(
    "UPDATE cloakroom.signing_keys SET version = $3, body = $4 \
     WHERE generation = $1 AND version = $2 RETURNING 1",
    &[Type::INT8, Type::INT8, Type::INT8, Type::BYTEA],
);

static DELETE: Sql = Sql::new(
    "DELETE FROM cloakroom.signing_keys WHERE generation = $1 AND version = $2 RETURNING 1",
    &[Type::INT8, Type::INT8],
);

#[async_trait]
impl KeyStore for PostgresStore {
    async fn load(&self) -> Result<Vec<KeyRecord>, StoreError> {
        const ROW: &str = "a signing key's row";
        let rows =
            self.long().query("loading the signing keys", Kind::Read, (&LOAD, 0), &[]).await?;
        rows.iter()
            .map(|row| {
                let generation = time(get(ROW, row, 0)?);
                // Without this key, all that it signed would look forged. So the ring is complete, or an
                // error.
                KeyRecord::from_body(get(ROW, row, 1)?).map_err(|error| {
                    let how = error.source().map(ToString::to_string).unwrap_or_default();
                    StoreError::corrupt(ROW, format!("generation {generation}: {how}"))
                })
            })
            .collect()
    }

    async fn insert(&self, record: KeyRecord) -> Result<KeyInserted, StoreError> {
        let (generation, version) = (column(record.generation), column(record.version));
        let body = record.to_body();
        let inserted = self
            .long()
            .query(
                "inserting a signing key",
                Kind::Write,
                (&INSERT, 0),
                &[&generation, &version, &body],
            )
            .await?;
        Ok(if inserted.is_empty() { KeyInserted::Taken } else { KeyInserted::Inserted })
    }

    async fn update(&self, record: KeyRecord, expected: u64) -> Result<KeyUpdated, StoreError> {
        if record.version == expected {
            return Err(StoreError::Misuse("the new record keeps its version"));
        }
        let (generation, expected) = (column(record.generation), column(expected));
        let (version, body) = (column(record.version), record.to_body());
        let updated = self
            .long()
            .query(
                "updating a signing key",
                Kind::Write,
                (&UPDATE, 0),
                &[&generation, &expected, &version, &body],
            )
            .await?;
        Ok(if updated.is_empty() { KeyUpdated::Stale } else { KeyUpdated::Updated })
    }

    async fn delete(&self, generation: u64, expected: u64) -> Result<KeyUpdated, StoreError> {
        let (generation, expected) = (column(generation), column(expected));
        let deleted = self
            .long()
            .query("deleting a signing key", Kind::Write, (&DELETE, 0), &[&generation, &expected])
            .await?;
        Ok(if deleted.is_empty() { KeyUpdated::Stale } else { KeyUpdated::Updated })
    }
}

/// For a look at their plans.
#[cfg(test)]
pub(crate) const STATEMENTS: &[(&str, &Sql)] =
    &[("LOAD", &LOAD), ("INSERT", &INSERT), ("UPDATE", &UPDATE), ("DELETE", &DELETE)];
