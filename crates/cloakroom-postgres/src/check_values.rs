//! The check values in the database.

use async_trait::async_trait;
use cloakroom_core::store::{CheckValue, CheckValues, StoreError};
use tokio_postgres::types::Type;

use crate::error::damaged;
use crate::pool::Kind;
use crate::rows::get;
use crate::sql::Sql;
use crate::store::PostgresStore;

static LOAD: Sql = Sql::new("SELECT name, value FROM cloakroom.check_values ORDER BY name", &[]);

static READ: Sql =
    Sql::new("SELECT value FROM cloakroom.check_values WHERE name = $1", &[Type::BYTEA]);

// READ COMMITTED, for all three: the unique index or the lock of the row decides between this and another
// writer, and the value is compared again with what that one wrote.
static INSERT: Sql = Sql::new(
    "INSERT INTO cloakroom.check_values (name, value) VALUES ($1, $2) \
     ON CONFLICT (name) DO NOTHING RETURNING 1",
    &[Type::BYTEA, Type::BYTEA],
);

static UPDATE: Sql = Sql::new(
    "UPDATE cloakroom.check_values SET value = $2 WHERE name = $1 AND value = $3 RETURNING 1",
    &[Type::BYTEA, Type::BYTEA, Type::BYTEA],
);

static DELETE: Sql = Sql::new(
    "DELETE FROM cloakroom.check_values WHERE name = $1 AND value = $2 RETURNING 1",
    &[Type::BYTEA, Type::BYTEA],
);

#[async_trait]
impl CheckValues for PostgresStore {
    async fn check_values(&self) -> Result<Vec<CheckValue>, StoreError> {
        const ROW: &str = "a check value's row";
        let rows = self.long().query("loading check values", Kind::Read, (&LOAD, 0), &[]).await?;
        rows.iter()
            .map(|row| {
                let name = String::from_utf8(get(ROW, row, 0)?)
                    .map_err(|error| damaged("the name of a check value", error))?;
                Ok(CheckValue { name, value: get(ROW, row, 1)? })
            })
            .collect()
    }

    async fn set_check_value(
        &self,
        name: &str,
        expected: Option<&[u8]>,
        value: Option<&[u8]>,
    ) -> Result<bool, StoreError> {
        let (during, name, pool) = ("writing a check value", name.as_bytes(), self.long());
        let changed = match (expected, value) {
            (None, None) => Vec::new(),
            (None, Some(value)) => {
                pool.query(during, Kind::Write, (&INSERT, 0), &[&name, &value]).await?
            }
            (Some(old), Some(value)) => {
                pool.query(during, Kind::Write, (&UPDATE, 0), &[&name, &value, &old]).await?
            }
            (Some(old), None) => {
                pool.query(during, Kind::Write, (&DELETE, 0), &[&name, &old]).await?
            }
        };
        if !changed.is_empty() {
            return Ok(true);
        }
        // It has another value, or the right one already.
        let rows = pool.query(during, Kind::Read, (&READ, 0), &[&name]).await?;
        let stored: Option<&[u8]> =
            rows.first().map(|row| get("a check value's row", row, 0)).transpose()?;
        Ok(stored == value)
    }
}

/// For a look at their plans.
#[cfg(test)]
pub(crate) const STATEMENTS: &[(&str, &Sql)] = &[
    ("LOAD", &LOAD),
    ("READ", &READ),
    ("INSERT", &INSERT),
    ("UPDATE", &UPDATE),
    ("DELETE", &DELETE),
];
