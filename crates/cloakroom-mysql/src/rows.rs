//! Rows of grants and tokens in the database.

use cloakroom_core::record::{GrantRow, TokenRow};
use cloakroom_core::store::StoreError;
use cloakroom_core::{GrantId, TokenDigest};
use mysql_async::prelude::FromValue;
use mysql_async::{Row, Value};

/// The columns of a grant, in the order that [`grant`] reads.
macro_rules! grant_columns {
    () => {
        "g.id, g.client, g.subject, g.epoch, g.generation, g.digest, g.chain_expires_at, \
         g.expires_at, g.row_expires_at, g.revoked_at, g.body, g.tombstone"
    };
}
pub(crate) use grant_columns;

/// The number of columns of a grant.
pub(crate) const GRANT_COLUMNS: usize = 12;

/// A row of the table of grants.
pub(crate) enum Stored {
    Grant(GrantRow),
    /// The mark of a grant that was revoked before it was created.
    Tombstone,
}

/// The value of a column.
pub(crate) fn get<T: FromValue>(row: &mut Row, index: usize) -> Result<T, StoreError> {
    let value = row.take::<Value, _>(index).unwrap_or(Value::NULL);
    mysql_async::from_value_opt(value)
        .map_err(|_| StoreError::corrupt("a row", "a column has another type"))
}

/// A binary column of fixed length.
pub(crate) fn bytes<const N: usize>(row: &mut Row, index: usize) -> Result<[u8; N], StoreError> {
    let bytes: Vec<u8> = get(row, index)?;
    bytes
        .try_into()
        .map_err(|_| StoreError::corrupt("a row", "a binary column has the wrong length"))
}

fn text(row: &mut Row, index: usize) -> Result<String, StoreError> {
    let bytes: Vec<u8> = get(row, index)?;
    String::from_utf8(bytes).map_err(|error| StoreError::corrupt("a row", error))
}

/// The id of a grant: the column at `index`.
pub(crate) fn grant_id(row: &mut Row, index: usize) -> Result<GrantId, StoreError> {
    bytes(row, index).map(GrantId::from_bytes)
}

/// The row of a grant, without its body being read.
pub(crate) fn grant(row: &mut Row) -> Result<Stored, StoreError> {
    let is_tombstone: i64 = get(row, 11)?;
    if is_tombstone != 0 {
        return Ok(Stored::Tombstone);
    }
    let generation: Option<u32> = get(row, 4)?;
    let digest: Option<Vec<u8>> = get(row, 5)?;
    let digest: Option<[u8; 32]> = digest
        .map(|digest| {
            digest.try_into().map_err(|_| StoreError::corrupt("a row", "a digest is cut off"))
        })
        .transpose()?;
    Ok(Stored::Grant(GrantRow {
        id: grant_id(row, 0)?,
        client: text(row, 1)?,
        subject: text(row, 2)?,
        epoch: time(get(row, 3)?),
        chain: generation.zip(digest),
        chain_expires_at: get::<Option<i64>>(row, 6)?.map(time),
        expires_at: time(get(row, 7)?),
        row_expires_at: time(get(row, 8)?),
        revoked_at: get::<Option<i64>>(row, 9)?.map(time),
        body: get(row, 10)?,
    }))
}

/// The token whose columns `issued_at, expires_at, revoked_at, body` begin at `first`; `None` if an outer
/// join found none.
pub(crate) fn token(
    grant: GrantId,
    digest: &TokenDigest,
    row: &mut Row,
    first: usize,
) -> Result<Option<TokenRow>, StoreError> {
    let Some(issued_at) = get::<Option<i64>>(row, first)? else { return Ok(None) };
    Ok(Some(TokenRow {
        digest: *digest.as_bytes(),
        grant,
        issued_at: time(issued_at),
        expires_at: time(get(row, first + 1)?),
        revoked_at: get::<Option<i64>>(row, first + 2)?.map(time),
        body: get(row, first + 3)?,
    }))
}

/// A time or an epoch. This program never writes a negative number.
pub(crate) fn time(column: i64) -> u64 {
    u64::try_from(column).unwrap_or(0)
}

/// A time or an epoch as a column. It fits, since core keeps it within 63 bits.
pub(crate) fn column(value: u64) -> Value {
    Value::Int(i64::try_from(value).unwrap_or(i64::MAX))
}

pub(crate) fn binary(bytes: &[u8]) -> Value {
    Value::Bytes(bytes.to_vec())
}

/// The values of a grant's row, in the order of `insert_grant!`.
pub(crate) fn grant_values(grant: &GrantRow) -> Vec<Value> {
    vec![
        binary(grant.id.as_bytes()),
        binary(grant.client.as_bytes()),
        binary(grant.subject.as_bytes()),
        column(grant.epoch),
        grant.chain.map_or(Value::NULL, |(generation, _)| Value::Int(generation.into())),
        grant.chain.map_or(Value::NULL, |(_, digest)| binary(&digest)),
        grant.chain_expires_at.map_or(Value::NULL, column),
        column(grant.expires_at),
        column(grant.row_expires_at),
        grant.revoked_at.map_or(Value::NULL, column),
        binary(&grant.body),
    ]
}

pub(crate) const INSERT_GRANT: &str = "INSERT INTO ~grants (id, client, subject, epoch, generation, \
    digest, chain_expires_at, expires_at, row_expires_at, revoked_at, body) \
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";

/// The values of a token's row, in the order of [`TOKEN_COLUMNS`].
pub(crate) fn token_values(token: &TokenRow) -> [Value; 6] {
    [
        binary(token.grant.as_bytes()),
        binary(&token.digest),
        column(token.issued_at),
        column(token.expires_at),
        token.revoked_at.map_or(Value::NULL, column),
        binary(&token.body),
    ]
}

pub(crate) const TOKEN_COLUMNS: &str =
    "(grant_id, digest, issued_at, expires_at, revoked_at, body)";

/// `?` for each of so many values.
pub(crate) fn marks(count: usize) -> String {
    let mut marks = "?, ".repeat(count);
    marks.truncate(marks.len().saturating_sub(2));
    marks
}
