//! Looking up grants and their tokens. Each operation on the path of a request is one statement
//! that commits by itself, so that nothing is left open when a future is dropped. `create` sends
//! two in one round trip.

use std::collections::HashMap;
use std::sync::Arc;

use cloakroom_core::record::TokenRecord;
use cloakroom_core::store::{Found, Lookup, StoreError};
use cloakroom_core::{GrantId, TokenDigest};
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use crate::pool::{Kind, Pool};
use crate::rows::{GRANT_COLUMNS, Stored, array, get, grant_columns, stored_grant, stored_token};
use crate::sql::Sql;

/// The snapshot of one statement shows a committed state of both rows. It is taken when the statement begins,
/// so everything that was acknowledged before is in it.
pub(crate) static FIND: Sql = Sql::new(
    concat!("SELECT ", grant_columns!(), " FROM cloakroom.grants g WHERE g.id = $1"),
    &[Type::BYTEA],
);

pub(crate) static FIND_TOKEN: Sql = Sql::new(
    concat!(
        "SELECT ",
        grant_columns!(),
        ", t.issued_at, t.expires_at, t.revoked_at, t.body FROM cloakroom.grants g \
         LEFT JOIN cloakroom.tokens t ON t.grant_id = g.id AND t.digest = $2 WHERE g.id = $1"
    ),
    &[Type::BYTEA, Type::BYTEA],
);

pub(crate) async fn find(
    pool: &Pool,
    id: GrantId,
    digest: Option<&TokenDigest>,
) -> Result<Lookup, StoreError> {
    let during = "finding a grant";
    let key = id.as_bytes().as_slice();
    let rows = match digest {
        None => pool.query(during, Kind::Read, (&FIND, 0), &[&key]).await?,
        Some(digest) => {
            let digest = digest.as_bytes().as_slice();
            pool.query(during, Kind::Read, (&FIND_TOKEN, 0), &[&key, &digest]).await?
        }
    };
    lookup(id, digest, rows.first())
}

/// The answer that a row holds.
pub(crate) fn lookup(
    id: GrantId,
    digest: Option<&TokenDigest>,
    row: Option<&Row>,
) -> Result<Lookup, StoreError> {
    let Some(row) = row else { return Ok(Lookup::Absent) };
    let grant = match stored_grant(id, row)? {
        Stored::Tombstone => return Ok(Lookup::Tombstone),
        Stored::Grant(grant) => grant,
    };
    let token = match digest {
        Some(digest) => stored_token(id, digest, row, GRANT_COLUMNS)?.map(Arc::new),
        None => None,
    };
    Ok(Lookup::Found(Found { grant, token }))
}

pub(crate) async fn stored(pool: &Pool, id: GrantId) -> Result<Option<Stored>, StoreError> {
    let key = id.as_bytes().as_slice();
    let rows = pool.query("reading a grant", Kind::Read, (&FIND, 0), &[&key]).await?;
    rows.first().map(|row| stored_grant(id, row)).transpose()
}

static FIND_TOKENS: Sql = Sql::new(
    "SELECT t.digest, t.issued_at, t.expires_at, t.revoked_at, t.body FROM cloakroom.tokens t \
     WHERE t.grant_id = $1 AND t.digest = ANY ($2)",
    &[Type::BYTEA, Type::BYTEA_ARRAY],
);

/// Those of the tokens whose digests are stored, as they are stored.
pub(crate) async fn stored_tokens(
    pool: &Pool,
    id: GrantId,
    tokens: &[TokenRecord],
) -> Result<HashMap<TokenDigest, TokenRecord>, StoreError> {
    if tokens.is_empty() {
        return Ok(HashMap::new());
    }
    let key = id.as_bytes().as_slice();
    let digests: Vec<&[u8]> =
        tokens.iter().map(|token| token.digest.as_bytes().as_slice()).collect();
    let rows =
        pool.query("reading tokens", Kind::Read, (&FIND_TOKENS, 0), &[&key, &digests]).await?;
    let mut found = HashMap::new();
    for row in &rows {
        let digest =
            TokenDigest::from_bytes(array("a token's row", get("a token's row", row, 0)?)?);
        if let Some(token) = stored_token(id, &digest, row, 1)? {
            found.insert(digest, token);
        }
    }
    Ok(found)
}

/// The number in the only row.
pub(crate) fn count(rows: &[Row]) -> Result<i64, StoreError> {
    match rows {
        [row] => get("a count", row, 0),
        _ => Err(StoreError::corrupt("a count", "there is not one row")),
    }
}

/// For a look at their plans.
#[cfg(test)]
pub(crate) const STATEMENTS: &[(&str, &Sql)] =
    &[("FIND", &FIND), ("FIND_TOKEN", &FIND_TOKEN), ("FIND_TOKENS", &FIND_TOKENS)];
