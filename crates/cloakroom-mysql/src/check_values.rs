//! The check values in the database.

use async_trait::async_trait;
use cloakroom_core::store::{CheckValue, CheckValues, StoreError};

use crate::connection::Connection;
use crate::error::Failure;
use crate::pool::Operation;
use crate::rows::{binary, get};
use crate::store::MysqlStore;

#[async_trait]
impl CheckValues for MysqlStore {
    async fn check_values(&self) -> Result<Vec<CheckValue>, StoreError> {
        self.pool().once(Load).await
    }

    async fn set_check_value(
        &self,
        name: &str,
        expected: Option<&[u8]>,
        value: Option<&[u8]>,
    ) -> Result<bool, StoreError> {
        let name = name.as_bytes().to_vec();
        let (expected, value) = (expected.map(<[u8]>::to_vec), value.map(<[u8]>::to_vec));
        self.pool().once(Set { name, expected, value }).await
    }
}

struct Load;

impl Operation for Load {
    type Answer = Vec<CheckValue>;

    const CONTEXT: &'static str = "loading check values";

    async fn run(&self, connection: &mut Connection) -> Result<Vec<CheckValue>, Failure> {
        const SQL: &str = "SELECT name, value FROM ~check_values ORDER BY name";
        let rows = connection.rows(SQL, vec![]).await?;
        let value = |mut row| {
            let name = String::from_utf8(get(&mut row, 0)?)
                .map_err(|error| StoreError::corrupt("the name of a check value", error))?;
            Ok(CheckValue { name, value: get(&mut row, 1)? })
        };
        rows.into_iter().map(value).collect()
    }
}

/// One conditional statement by the primary key, which compares the newest committed version of the row. If
/// it matches nothing, the answer is whether the value is there already.
///
/// It can run again: the second run finds its own value.
struct Set {
    name: Vec<u8>,
    expected: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
}

impl Operation for Set {
    type Answer = bool;

    const CONTEXT: &'static str = "writing a check value";

    async fn run(&self, connection: &mut Connection) -> Result<bool, Failure> {
        const INSERT: &str = "INSERT INTO ~check_values (name, value) VALUES (?, ?)";
        const UPDATE: &str = "UPDATE ~check_values SET value = ? WHERE name = ? AND value = ?";
        const DELETE: &str = "DELETE FROM ~check_values WHERE name = ? AND value = ?";
        const READ: &str = "SELECT value FROM ~check_values WHERE name = ?";
        let name = binary(&self.name);
        let written = match (&self.expected, &self.value) {
            (None, None) => 0,
            (None, Some(value)) => {
                match connection.execute(INSERT, vec![name.clone(), binary(value)]).await {
                    Err(failure) if failure.is_duplicate() => 0,
                    result => result?,
                }
            }
            (Some(expected), Some(value)) => {
                let parameters = vec![binary(value), name.clone(), binary(expected)];
                connection.execute(UPDATE, parameters).await?
            }
            (Some(expected), None) => {
                connection.execute(DELETE, vec![name.clone(), binary(expected)]).await?
            }
        };
        if written > 0 {
            return Ok(true);
        }
        let stored = match connection.row(READ, vec![name]).await? {
            Some(mut row) => Some(get::<Vec<u8>>(&mut row, 0)?),
            None => None,
        };
        Ok(stored == self.value)
    }
}
