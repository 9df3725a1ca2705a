//! Rows of grants and tokens.

use std::sync::Arc;

use cloakroom_core::record::{GrantRecord, GrantRow, TokenRecord, TokenRow};
use cloakroom_core::store::StoreError;
use cloakroom_core::time::UnixTime;
use cloakroom_core::{GrantId, TokenDigest};
use tokio_postgres::Row;
use tokio_postgres::types::FromSql;

use crate::error::damaged;

/// The columns of a grant, in the order that [`stored_grant`] reads. The first is NULL for a tombstone.
macro_rules! grant_columns {
    () => {
        "g.body, g.client, g.subject, g.epoch, g.generation, g.digest, g.chain_expires_at, \
         g.expires_at, g.row_expires_at, g.revoked_at"
    };
}
pub(crate) use grant_columns;

/// The number of columns of a grant.
pub(crate) const GRANT_COLUMNS: usize = 10;

/// What a row of the table of grants is.
#[derive(Debug)]
pub(crate) enum Stored {
    Grant(Arc<GrantRecord>),
    Tombstone,
}

/// A time or an epoch. This program never writes a negative number.
pub(crate) fn time(column: i64) -> u64 {
    u64::try_from(column).unwrap_or(0)
}

/// A time or an epoch as a column. It fits, since core keeps it within 63 bits.
pub(crate) fn column(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// The value of a column of a grant or a token.
pub(crate) fn get<'a, T: FromSql<'a>>(
    what: &'static str,
    row: &'a Row,
    index: usize,
) -> Result<T, StoreError> {
    row.try_get(index).map_err(|error| damaged(what, error))
}

/// Bytes of a fixed length.
pub(crate) fn array<const N: usize>(
    what: &'static str,
    bytes: &[u8],
) -> Result<[u8; N], StoreError> {
    bytes.try_into().map_err(|error| damaged(what, error))
}

const GRANT: &str = "a grant's row";
const TOKEN: &str = "a token's row";

/// The grant in the columns of a row.
pub(crate) fn stored_grant(id: GrantId, row: &Row) -> Result<Stored, StoreError> {
    let Some(body) = get::<Option<&[u8]>>(GRANT, row, 0)? else { return Ok(Stored::Tombstone) };
    let text = |index| -> Result<String, StoreError> {
        let bytes: &[u8] = get(GRANT, row, index)?;
        let text = std::str::from_utf8(bytes).map_err(|error| damaged(GRANT, error))?;
        Ok(text.to_owned())
    };
    let number = |index| get::<i64>(GRANT, row, index).map(time);
    let optional = |index| Ok(get::<Option<i64>>(GRANT, row, index)?.map(time));
    let generation = get::<Option<i64>>(GRANT, row, 4)?
        .map(|generation| u32::try_from(generation).map_err(|error| damaged(GRANT, error)))
        .transpose()?;
    let digest =
        get::<Option<&[u8]>>(GRANT, row, 5)?.map(|bytes| array(GRANT, bytes)).transpose()?;
    let row = GrantRow {
        id,
        client: text(1)?,
        subject: text(2)?,
        epoch: number(3)?,
        chain: generation.zip(digest),
        chain_expires_at: optional(6)?,
        expires_at: number(7)?,
        row_expires_at: number(8)?,
        revoked_at: optional(9)?,
        body: body.to_vec(),
    };
    Ok(Stored::Grant(Arc::new(GrantRecord::from_row(&row)?)))
}

/// The token whose columns `issued_at, expires_at, revoked_at, body` begin at `first`; `None` if an outer
/// join found none.
pub(crate) fn stored_token(
    grant: GrantId,
    digest: &TokenDigest,
    row: &Row,
    first: usize,
) -> Result<Option<TokenRecord>, StoreError> {
    let Some(issued_at) = get::<Option<i64>>(TOKEN, row, first)? else { return Ok(None) };
    TokenRecord::from_row(&TokenRow {
        digest: *digest.as_bytes(),
        grant,
        issued_at: time(issued_at),
        expires_at: time(get(TOKEN, row, first + 1)?),
        revoked_at: get::<Option<i64>>(TOKEN, row, first + 2)?.map(time),
        body: get(TOKEN, row, first + 3)?,
    })
    .map(Some)
}

/// The columns of a grant as parameters.
#[derive(Debug)]
pub(crate) struct GrantParams {
    pub(crate) id: [u8; 16],
    pub(crate) client: Vec<u8>,
    pub(crate) subject: Vec<u8>,
    pub(crate) epoch: i64,
    pub(crate) generation: Option<i64>,
    pub(crate) digest: Option<Vec<u8>>,
    pub(crate) chain_expires_at: Option<i64>,
    pub(crate) expires_at: i64,
    pub(crate) row_expires_at: i64,
    pub(crate) due: i64,
    pub(crate) revoked_at: Option<i64>,
    pub(crate) body: Vec<u8>,
}

const DAY: u64 = 86_400_000;

impl GrantParams {
    pub(crate) fn new(grant: &GrantRecord, now: UnixTime) -> Self {
        let row = grant.to_row();
        Self {
            id: *row.id.as_bytes(),
            client: row.client.into_bytes(),
            subject: row.subject.into_bytes(),
            epoch: column(row.epoch),
            generation: row.chain.map(|(generation, _)| i64::from(generation)),
            digest: row.chain.map(|(_, digest)| digest.to_vec()),
            chain_expires_at: row.chain_expires_at.map(column),
            expires_at: column(row.expires_at),
            row_expires_at: column(row.row_expires_at),
            due: column(due(row.row_expires_at, now.as_millis())),
            revoked_at: row.revoked_at.map(column),
            body: row.body,
        }
    }
}

/// When housekeeping looks at a grant that ends at `end`: never later. An end that is far away moves with each
/// refresh, so it is rounded down to a day. Housekeeping writes the exact end when it finds the row too early.
fn due(end: u64, now: u64) -> u64 {
    if end > now.saturating_add(DAY) { end - end % DAY } else { end }
}

/// The columns of some tokens of one grant, as parameters.
#[derive(Debug, Default)]
pub(crate) struct TokenParams {
    pub(crate) digests: Vec<Vec<u8>>,
    pub(crate) issued_at: Vec<i64>,
    pub(crate) expires_at: Vec<i64>,
    pub(crate) revoked_at: Vec<Option<i64>>,
    pub(crate) bodies: Vec<Vec<u8>>,
}

impl TokenParams {
    pub(crate) fn new(tokens: &[TokenRecord]) -> Self {
        let mut params = Self::default();
        for token in tokens {
            let row = token.to_row();
            params.digests.push(row.digest.to_vec());
            params.issued_at.push(column(row.issued_at));
            params.expires_at.push(column(row.expires_at));
            params.revoked_at.push(row.revoked_at.map(column));
            params.bodies.push(row.body);
        }
        params
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn housekeeping_never_looks_too_late() {
        for (end, now, looked) in [
            (0, 0, 0),
            (DAY, 0, DAY),
            (DAY + 1, 0, DAY),
            (10 * DAY + 7, 0, 10 * DAY),
            (10 * DAY + 7, 9 * DAY + 7, 10 * DAY + 7),
            (10 * DAY + 7, 20 * DAY, 10 * DAY + 7),
            (u64::MAX, u64::MAX, u64::MAX),
        ] {
            assert_eq!(due(end, now), looked, "{end} {now}");
            assert!(due(end, now) <= end);
        }
        // Refreshes of one day leave it as it is.
        assert_eq!(due(14 * DAY + 1, 1), due(15 * DAY - 1, DAY - 1));
    }
}
