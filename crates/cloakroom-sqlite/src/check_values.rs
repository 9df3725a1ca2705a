//! The check values in the database.

use async_trait::async_trait;
use cloakroom_core::store::{CheckValue, CheckValues, StoreError};
use rusqlite::{Connection, OptionalExtension as _};

use crate::error::failed;
use crate::store::SqliteStore;

#[async_trait]
impl CheckValues for SqliteStore {
    async fn check_values(&self) -> Result<Vec<CheckValue>, StoreError> {
        self.read(load).await
    }

    async fn set_check_value(
        &self,
        name: &str,
        expected: Option<&[u8]>,
        value: Option<&[u8]>,
    ) -> Result<bool, StoreError> {
        let name = name.to_owned();
        let (expected, value) = (expected.map(<[u8]>::to_vec), value.map(<[u8]>::to_vec));
        self.write(move |connection| set(connection, &name, expected.as_deref(), value.as_deref()))
            .await
    }
}

fn load(connection: &Connection) -> Result<Vec<CheckValue>, StoreError> {
    let during = |error| failed("loading check values", error);
    let mut statement = connection
        .prepare_cached("SELECT name, value FROM check_values ORDER BY name")
        .map_err(during)?;
    let rows = statement
        .query_map([], |row| Ok((row.get::<_, Vec<u8>>(0)?, row.get::<_, Vec<u8>>(1)?)))
        .map_err(during)?;
    rows.map(|row| {
        let (name, value) = row.map_err(during)?;
        let name = String::from_utf8(name)
            .map_err(|error| StoreError::corrupt("the name of a check value", error))?;
        Ok(CheckValue { name, value })
    })
    .collect()
}

fn set(
    connection: &Connection,
    name: &str,
    expected: Option<&[u8]>,
    value: Option<&[u8]>,
) -> Result<bool, StoreError> {
    let during = |error| failed("writing a check value", error);
    let stored: Option<Vec<u8>> = connection
        .prepare_cached("SELECT value FROM check_values WHERE name = ?1")
        .and_then(|mut sql| sql.query_row([name.as_bytes()], |row| row.get(0)).optional())
        .map_err(during)?;
    if stored.as_deref() == value {
        return Ok(true);
    }
    if stored.as_deref() != expected {
        return Ok(false);
    }
    match value {
        Some(value) => connection
            .prepare_cached("INSERT OR REPLACE INTO check_values (name, value) VALUES (?1, ?2)")
            .and_then(|mut sql| sql.execute((name.as_bytes(), value))),
        None => connection
            .prepare_cached("DELETE FROM check_values WHERE name = ?1")
            .and_then(|mut sql| sql.execute([name.as_bytes()])),
    }
    .map_err(during)?;
    Ok(true)
}
