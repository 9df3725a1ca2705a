//! Rows of grants and tokens in SQLite.

use std::sync::Arc;

use cloakroom_core::record::{GrantRecord, GrantRow, TokenRecord, TokenRow};
use cloakroom_core::store::StoreError;
use cloakroom_core::time::UnixTime;
use cloakroom_core::{GrantId, TokenDigest};
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use crate::error::failed;

/// The columns of a grant, in the order that [`grant`] reads.
macro_rules! grant_columns {
    () => {
        "g.client, g.subject, g.epoch, g.generation, g.digest, g.chain_expires_at, g.expires_at, \
         g.row_expires_at, g.revoked_at, g.body"
    };
}
pub(crate) use grant_columns;

/// The number of columns of a grant.
pub(crate) const GRANT_COLUMNS: usize = 10;

/// The grant whose columns begin at `first`.
pub(crate) fn grant(id: GrantId, row: &Row<'_>, first: usize) -> rusqlite::Result<GrantRow> {
    let generation: Option<u32> = row.get(first + 3)?;
    let digest: Option<[u8; 32]> = row.get(first + 4)?;
    Ok(GrantRow {
        id,
        client: text(row, first)?,
        subject: text(row, first + 1)?,
        epoch: time(row.get(first + 2)?),
        chain: generation.zip(digest),
        chain_expires_at: row.get::<_, Option<i64>>(first + 5)?.map(time),
        expires_at: time(row.get(first + 6)?),
        row_expires_at: time(row.get(first + 7)?),
        revoked_at: row.get::<_, Option<i64>>(first + 8)?.map(time),
        body: row.get(first + 9)?,
    })
}

/// The token whose columns `issued_at, expires_at, revoked_at, body` begin at `first`; `None` if an outer
/// join found none.
pub(crate) fn token(
    grant: GrantId,
    digest: &TokenDigest,
    row: &Row<'_>,
    first: usize,
) -> rusqlite::Result<Option<TokenRow>> {
    let Some(issued_at) = row.get::<_, Option<i64>>(first)? else { return Ok(None) };
    Ok(Some(TokenRow {
        digest: *digest.as_bytes(),
        grant,
        issued_at: time(issued_at),
        expires_at: time(row.get(first + 1)?),
        revoked_at: row.get::<_, Option<i64>>(first + 2)?.map(time),
        body: row.get(first + 3)?,
    }))
}

fn text(row: &Row<'_>, index: usize) -> rusqlite::Result<String> {
    let bytes = row.get_ref(index)?.as_blob()?;
    let text = std::str::from_utf8(bytes);
    text.map(str::to_owned).map_err(|error| rusqlite::Error::Utf8Error(index, error))
}

/// A time or an epoch. This program never writes a negative number.
pub(crate) fn time(column: i64) -> u64 {
    u64::try_from(column).unwrap_or(0)
}

/// A time or an epoch as a column. It fits, since core keeps it within 63 bits.
pub(crate) fn column(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

pub(crate) fn stored_grant(
    connection: &Connection,
    id: GrantId,
) -> Result<Option<Arc<GrantRecord>>, StoreError> {
    const SQL: &str = concat!("SELECT ", grant_columns!(), " FROM grants g WHERE g.id = ?1");
    let row = connection
        .prepare_cached(SQL)
        .and_then(|mut sql| sql.query_row([id.as_bytes()], |row| grant(id, row, 0)).optional())
        .map_err(|error| failed("reading a grant", error))?;
    row.map(|row| GrantRecord::from_row(&row).map(Arc::new)).transpose()
}

pub(crate) fn stored_token(
    connection: &Connection,
    token: &TokenRecord,
) -> Result<Option<TokenRecord>, StoreError> {
    const SQL: &str = "SELECT issued_at, expires_at, revoked_at, body FROM tokens \
                       WHERE grant_id = ?1 AND digest = ?2";
    let key = (token.grant.as_bytes(), token.digest.as_bytes());
    let row = connection
        .prepare_cached(SQL)
        .and_then(|mut sql| {
            sql.query_row(key, |row| self::token(token.grant, &token.digest, row, 0)).optional()
        })
        .map_err(|error| failed("reading a token", error))?;
    row.flatten().map(|row| TokenRecord::from_row(&row)).transpose()
}

pub(crate) fn insert_grant(connection: &Connection, grant: &GrantRow) -> Result<(), StoreError> {
    const SQL: &str = "INSERT INTO grants (id, client, subject, epoch, generation, digest, \
                       chain_expires_at, expires_at, row_expires_at, revoked_at, body) \
                       VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)";
    write_grant(connection, SQL, grant).map(drop)
}

/// Replaces the record with the next one. Client, subject and epoch never change.
pub(crate) fn update_grant(
    connection: &Connection,
    stored: &GrantRecord,
    next: &GrantRow,
) -> Result<(), StoreError> {
    // SQLite rewrites the index entries of every column that is set, changed or not, and each is one more
    // page to commit.
    macro_rules! update {
        ($indexed:literal, $same:literal) => {
            concat!(
                "UPDATE grants SET generation = ?5, digest = ?6, chain_expires_at = ?7, ",
                "expires_at = ?8, body = ?11",
                $indexed,
                " WHERE id = ?1 AND client = ?2 AND subject = ?3 AND epoch = ?4",
                $same
            )
        };
    }
    let end_stays = stored.row_expires_at.as_millis() == next.row_expires_at;
    let sql = match stored.revoked_at.map(UnixTime::as_millis) == next.revoked_at {
        true if end_stays => update!("", " AND row_expires_at = ?9 AND revoked_at IS ?10"),
        true => update!(", row_expires_at = ?9", " AND revoked_at IS ?10"),
        false => update!(", row_expires_at = ?9, revoked_at = ?10", ""),
    };
    match write_grant(connection, sql, next)? {
        1 => Ok(()),
        _ => Err(StoreError::corrupt("a grant", "its row is not as it was read")),
    }
}

fn write_grant(
    connection: &Connection,
    sql: &'static str,
    grant: &GrantRow,
) -> Result<usize, StoreError> {
    let parameters = params![
        grant.id.as_bytes(),
        grant.client.as_bytes(),
        grant.subject.as_bytes(),
        column(grant.epoch),
        grant.chain.map(|(generation, _)| generation),
        grant.chain.map(|(_, digest)| digest),
        grant.chain_expires_at.map(column),
        column(grant.expires_at),
        column(grant.row_expires_at),
        grant.revoked_at.map(column),
        grant.body,
    ];
    connection
        .prepare_cached(sql)
        .and_then(|mut sql| sql.execute(parameters))
        .map_err(|error| failed("writing a grant", error))
}

pub(crate) fn insert_token(connection: &Connection, token: &TokenRow) -> Result<(), StoreError> {
    const SQL: &str = "INSERT INTO tokens (grant_id, digest, issued_at, expires_at, revoked_at, \
                       body) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    let parameters = params![
        token.grant.as_bytes(),
        token.digest,
        column(token.issued_at),
        column(token.expires_at),
        token.revoked_at.map(column),
        token.body,
    ];
    connection
        .prepare_cached(SQL)
        .and_then(|mut sql| sql.execute(parameters))
        .map_err(|error| failed("writing a token", error))?;
    Ok(())
}
