//! Grants and their tokens. Functions that get the connection of the writer run inside a transaction. There
//! is one transaction at a time in all processes, so reading and then writing is one step.

use std::sync::Arc;

use cloakroom_core::record::{GrantRecord, TokenRecord};
use cloakroom_core::revocation::Epoch;
use cloakroom_core::store::{
    Advance, AdvanceOutcome, ChainUpdate, CreateOutcome, Found, Listing, Lookup, PageRequest,
    Selector, StoreError, fresh_tokens, tokens_of,
};
use cloakroom_core::time::UnixTime;
use cloakroom_core::{GrantId, TokenDigest};
use rusqlite::{Connection, OptionalExtension as _, Row};

use crate::error::failed;
use crate::revocation_log;
use crate::rows::{
    GRANT_COLUMNS, column, grant, grant_columns, insert_grant, insert_token, stored_grant,
    stored_token, time, token, update_grant,
};

/// A grant and a token of it.
pub(crate) const FIND: &str = concat!(
    "SELECT ",
    grant_columns!(),
    ", t.issued_at, t.expires_at, t.revoked_at, t.body FROM grants g \
     LEFT JOIN tokens t ON t.grant_id = g.id AND t.digest = ?2 WHERE g.id = ?1"
);

/// A page of the grants of a subject. An id of another length is damage. Sweeps still find it.
pub(crate) const LIST_SUBJECT: &str = concat!(
    "SELECT ",
    grant_columns!(),
    ", g.id FROM grants g WHERE g.subject = ?1 AND g.id > ?2 AND g.revoked_at IS NULL \
     AND length(g.id) = 16 ORDER BY g.id LIMIT ?3"
);

/// The same of a client.
pub(crate) const LIST_CLIENT: &str = concat!(
    "SELECT ",
    grant_columns!(),
    ", g.id FROM grants g WHERE g.client = ?1 AND g.id > ?2 AND g.revoked_at IS NULL \
     AND length(g.id) = 16 ORDER BY g.id LIMIT ?3"
);

pub(crate) fn find(
    connection: &Connection,
    id: GrantId,
    digest: Option<&TokenDigest>,
) -> Result<Lookup, StoreError> {
    let Some(digest) = digest else {
        return match stored_grant(connection, id)? {
            Some(grant) => Ok(Lookup::Found(Found { grant, token: None })),
            None => absent(connection, id),
        };
    };
    let rows = connection
        .prepare_cached(FIND)
        .and_then(|mut sql| {
            sql.query_row((id.as_bytes(), digest.as_bytes()), |row| {
                Ok((grant(id, row, 0)?, token(id, digest, row, GRANT_COLUMNS)?))
            })
            .optional()
        })
        .map_err(|error| failed("finding a token", error))?;
    let Some((grant, token)) = rows else { return absent(connection, id) };
    Ok(Lookup::Found(Found {
        grant: Arc::new(GrantRecord::from_row(&grant)?),
        token: token.map(|token| TokenRecord::from_row(&token).map(Arc::new)).transpose()?,
    }))
}

/// The answer for a grant without a row. It cannot get a row while there is a tombstone.
fn absent(connection: &Connection, id: GrantId) -> Result<Lookup, StoreError> {
    Ok(if has_tombstone(connection, id)? { Lookup::Tombstone } else { Lookup::Absent })
}

fn has_tombstone(connection: &Connection, id: GrantId) -> Result<bool, StoreError> {
    connection
        .prepare_cached("SELECT 1 FROM tombstones WHERE grant_id = ?1")
        .and_then(|mut sql| sql.exists([id.as_bytes()]))
        .map_err(|error| failed("looking for a tombstone", error))
}

pub(crate) fn create(
    connection: &Connection,
    grant: &GrantRecord,
    tokens: &[TokenRecord],
    now: UnixTime,
) -> Result<CreateOutcome, StoreError> {
    tokens_of(grant.id, tokens)?;
    // No other transaction can write a rule before this one has ended.
    if !is_free(connection, grant)? {
        return created_before(connection, grant, tokens, now);
    }
    insert_grant(connection, &grant.to_row())?;
    for token in fresh_tokens(tokens.to_vec(), |_| Ok(None::<TokenRecord>))? {
        insert_token(connection, &token.to_row())?;
    }
    Ok(CreateOutcome::Inserted)
}

/// Whether a grant can be inserted: there is no row with its id, no tombstone and no rule. This is one
/// statement, since every login waits for it.
fn is_free(connection: &Connection, grant: &GrantRecord) -> Result<bool, StoreError> {
    const SQL: &str = "SELECT NOT EXISTS (SELECT 1 FROM grants WHERE id = ?1) \
        AND NOT EXISTS (SELECT 1 FROM tombstones WHERE grant_id = ?1) \
        AND NOT EXISTS (SELECT 1 FROM rules WHERE key = ?3 AND coalesce(bound, ?2) >= ?2) \
        AND NOT EXISTS (SELECT 1 FROM rules WHERE key = ?4 AND coalesce(bound, ?2) >= ?2) \
        AND NOT EXISTS (SELECT 1 FROM rules WHERE key = ?5 AND coalesce(bound, ?2) >= ?2)";
    let [subject, owner, pair] = grant.rule_keys().map(|key| key.to_bytes());
    let epoch = column(grant.epoch.get());
    connection
        .prepare_cached(SQL)
        .and_then(|mut sql| {
            let key = (grant.id.as_bytes(), epoch, subject, owner, pair);
            sql.query_row(key, |row| row.get(0))
        })
        .map_err(|error| failed("looking for rules that cover a grant", error))
}

/// The answer if the grant cannot be inserted. This may be a retry of a call whose answer was lost.
fn created_before(
    connection: &Connection,
    grant: &GrantRecord,
    tokens: &[TokenRecord],
    now: UnixTime,
) -> Result<CreateOutcome, StoreError> {
    if has_tombstone(connection, grant.id)? {
        return Ok(CreateOutcome::Barred);
    }
    let Some(stored) = stored_grant(connection, grant.id)? else {
        return Ok(CreateOutcome::Barred);
    };
    let own = |token: &TokenRecord| stored_token(connection, token);
    let same = grant.is_stored_as(&stored)
        && match fresh_tokens(tokens.to_vec(), own) {
            Ok(fresh) => fresh.is_empty(),
            Err(StoreError::Misuse(_)) => false,
            Err(error) => return Err(error),
        };
    if !same {
        return Ok(CreateOutcome::Exists);
    }
    if stored.revoked_at.is_some() {
        return Ok(CreateOutcome::Barred);
    }
    if revocation_log::denies(connection, grant)? {
        revoke(connection, grant.id.as_bytes(), now)?;
        return Ok(CreateOutcome::Barred);
    }
    Ok(CreateOutcome::Inserted)
}

pub(crate) fn advance(
    connection: &Connection,
    step: &Advance,
) -> Result<AdvanceOutcome, StoreError> {
    tokens_of(step.grant, &step.tokens)?;
    let Some(stored) = stored_grant(connection, step.grant)? else {
        return Ok(match has_tombstone(connection, step.grant)? {
            true => AdvanceOutcome::Dead,
            false => AdvanceOutcome::Unknown,
        });
    };
    if let Some(refused) = step.judge(&stored)? {
        return Ok(refused);
    }
    let fresh = fresh_tokens(step.tokens.clone(), |token| stored_token(connection, token))?;
    if let ChainUpdate::Move(next) = &step.change {
        update_grant(connection, &stored, &next.to_row())?;
    }
    for token in fresh {
        insert_token(connection, &token.to_row())?;
    }
    Ok(AdvanceOutcome::Advanced)
}

/// Marks a grant as revoked; the first revocation counts. Returns whether the grant exists.
///
/// The id is the content of its column, which may be damaged.
pub(crate) fn revoke(connection: &Connection, id: &[u8], at: UnixTime) -> Result<bool, StoreError> {
    const SQL: &str = "UPDATE grants SET revoked_at = coalesce(revoked_at, ?2) WHERE id = ?1";
    let changed = connection
        .prepare_cached(SQL)
        .and_then(|mut sql| sql.execute((id, column(at.as_millis()))))
        .map_err(|error| failed("revoking a grant", error))?;
    Ok(changed > 0)
}

/// Writes a tombstone, so that a late `create` is barred.
pub(crate) fn bury(
    connection: &Connection,
    id: GrantId,
    until: UnixTime,
) -> Result<(), StoreError> {
    const SQL: &str = "INSERT INTO tombstones (grant_id, until) VALUES (?1, ?2) \
                       ON CONFLICT (grant_id) DO UPDATE SET until = max(until, excluded.until)";
    connection
        .prepare_cached(SQL)
        .and_then(|mut sql| sql.execute((id.as_bytes(), column(until.as_millis()))))
        .map_err(|error| failed("writing a tombstone", error))?;
    Ok(())
}

pub(crate) fn revoke_token(
    connection: &Connection,
    id: GrantId,
    digest: &TokenDigest,
    at: UnixTime,
) -> Result<(), StoreError> {
    const SQL: &str = "UPDATE tokens SET revoked_at = coalesce(revoked_at, ?3) \
                       WHERE grant_id = ?1 AND digest = ?2";
    connection
        .prepare_cached(SQL)
        .and_then(|mut sql| sql.execute((id.as_bytes(), digest.as_bytes(), column(at.as_millis()))))
        .map_err(|error| failed("revoking a token", error))?;
    Ok(())
}

/// One page of the selected grants that are not revoked, ordered by id: the content of the id column, and
/// the epoch.
pub(crate) fn sweepable(
    connection: &Connection,
    of: &Selector,
    after: &[u8],
    limit: u32,
) -> Result<Vec<(Vec<u8>, Epoch)>, StoreError> {
    const BY_SUBJECT: &str = "SELECT id, epoch FROM grants \
        WHERE subject = ?1 AND id > ?2 AND revoked_at IS NULL ORDER BY id LIMIT ?3";
    const BY_CLIENT: &str = "SELECT id, epoch FROM grants \
        WHERE client = ?1 AND id > ?2 AND revoked_at IS NULL ORDER BY id LIMIT ?3";
    const BY_BOTH: &str = "SELECT id, epoch FROM grants WHERE subject = ?1 AND client = ?4 \
        AND id > ?2 AND revoked_at IS NULL ORDER BY id LIMIT ?3";
    let during = |error| failed("looking for grants to revoke", error);
    let page = |row: &Row<'_>| Ok((row.get(0)?, Epoch::new(time(row.get(1)?))));
    let one = |sql, key: &[u8]| {
        connection.prepare_cached(sql)?.query_map((key, after, limit), page)?.collect()
    };
    match of {
        Selector::Subject(subject) => one(BY_SUBJECT, subject.to_key().as_bytes()),
        Selector::Client(client) => one(BY_CLIENT, client.as_str().as_bytes()),
        Selector::SubjectAtClient(subject, client) => {
            connection.prepare_cached(BY_BOTH).and_then(|mut sql| {
                let key = subject.to_key();
                let key = (key.as_bytes(), after, limit, client.as_str().as_bytes());
                sql.query_map(key, page)?.collect()
            })
        }
    }
    .map_err(during)
}

/// A row of a list: the grant, or an error if its row cannot be read.
type Listed = (GrantId, Result<GrantRecord, StoreError>);

/// One page of the selected grants that are not revoked, ordered by id.
fn unrevoked(
    connection: &Connection,
    of: &Selector,
    after: Option<GrantId>,
    limit: u32,
) -> Result<Vec<Listed>, StoreError> {
    let (sql, key) = match of {
        Selector::Subject(subject) | Selector::SubjectAtClient(subject, _) => {
            (LIST_SUBJECT, subject.to_key())
        }
        Selector::Client(client) => (LIST_CLIENT, client.as_str().to_owned()),
    };
    // The empty blob comes before every id.
    let after: &[u8] = after.as_ref().map_or(&[], |id| id.as_bytes());
    let during = |error| failed("listing grants", error);
    let mut statement = connection.prepare_cached(sql).map_err(during)?;
    let rows = statement
        .query_map((key.as_bytes(), after, limit), |row| {
            let id = GrantId::from_bytes(row.get(GRANT_COLUMNS)?);
            let record =
                grant(id, row, 0).map_err(during).and_then(|row| GrantRecord::from_row(&row));
            Ok((id, record))
        })
        .map_err(during)?;
    rows.map(|row| row.map_err(during)).collect()
}

pub(crate) fn list(
    connection: &Connection,
    of: &Selector,
    page: PageRequest,
    now: UnixTime,
) -> Result<Listing, StoreError> {
    let limit = page.limit.max(1);
    let rows = unrevoked(connection, of, page.after, limit)?;
    let is_full = rows.len() >= limit as usize;
    let next = rows.last().filter(|_| is_full).map(|(last, _)| *last);
    let (mut grants, mut unreadable) = (Vec::with_capacity(rows.len()), Vec::new());
    for (id, record) in rows {
        match record {
            // Checked after the grant was read, so that every rule that was in force then counts.
            Ok(grant) if of.selects(&grant) && grant.is_live(now) => {
                if !revocation_log::denies(connection, &grant)? {
                    grants.push(Arc::new(grant));
                }
            }
            Ok(_) => {}
            Err(StoreError::Corrupt { .. }) => unreadable.push(id),
            Err(error) => return Err(error),
        }
    }
    Ok(Listing { grants, unreadable, next })
}
