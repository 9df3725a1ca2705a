//! Inserting a grant, and looking for rules that cover it.

use std::time::{Duration, Instant};

use cloakroom_core::record::{GrantRecord, TokenRecord};
use cloakroom_core::store::{CreateOutcome, StoreError, fresh_tokens, tokens_of};
use cloakroom_core::time::UnixTime;
use tokio_postgres::types::Type;

use crate::error::failed;
use crate::grants::{count, stored, stored_tokens};
use crate::pool::{Kind, Pool};
use crate::rows::{GrantParams, Stored, TokenParams, column};
use crate::sql::Sql;

/// Inserts a grant with its tokens, or nothing.
///
/// READ COMMITTED: the unique index decides between this and every other insert of the id, also one that is
/// not committed yet, which this waits for. A tombstone is such a row.
static INSERT: Sql = Sql::new(
    "WITH inserted AS ( \
         INSERT INTO cloakroom.grants (id, client, subject, epoch, generation, digest, \
             chain_expires_at, expires_at, row_expires_at, due, revoked_at, body) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) \
         ON CONFLICT (id) DO NOTHING RETURNING id), \
     attached AS ( \
         INSERT INTO cloakroom.tokens (grant_id, digest, issued_at, expires_at, revoked_at, body) \
         SELECT inserted.id, t.* FROM inserted, \
             unnest($13::bytea[], $14::bigint[], $15::bigint[], $16::bigint[], $17::bytea[]) t) \
     SELECT count(*) FROM inserted",
    &[
        Type::BYTEA,
        Type::BYTEA,
        Type::BYTEA,
        Type::INT8,
        Type::INT8,
        Type::BYTEA,
        Type::INT8,
        Type::INT8,
        Type::INT8,
        Type::INT8,
        Type::INT8,
        Type::BYTEA,
        Type::BYTEA_ARRAY,
        Type::INT8_ARRAY,
        Type::INT8_ARRAY,
        Type::INT8_ARRAY,
        Type::BYTEA_ARRAY,
    ],
);

/// Looks for rules that bar a grant, and revokes it if there is one.
///
/// READ COMMITTED: this begins after the insert is committed and takes a snapshot then. A rule that is not in
/// the snapshot is committed later, and its sweep, which begins after that, sees the grant. A rule that is
/// committed earlier is in the snapshot. So one of the two sees the other.
///
/// It revokes nothing but a grant of this client, subject and epoch, which the rule covers whoever made it.
static BAR: Sql = Sql::new(
    "WITH rule AS ( \
         SELECT 1 FROM cloakroom.rules WHERE key = ANY ($5) AND coalesce(bound, $4) >= $4 LIMIT 1), \
     barred AS ( \
         UPDATE cloakroom.grants SET revoked_at = $6 \
         WHERE id = $1 AND client = $2 AND subject = $3 AND epoch = $4 AND revoked_at IS NULL \
             AND EXISTS (SELECT FROM rule)) \
     SELECT count(*) FROM rule",
    &[Type::BYTEA, Type::BYTEA, Type::BYTEA, Type::INT8, Type::BYTEA_ARRAY, Type::INT8],
);

static REVOKE: Sql = Sql::new(
    "UPDATE cloakroom.grants SET revoked_at = $2 WHERE id = $1 AND revoked_at IS NULL",
    &[Type::BYTEA, Type::INT8],
);

/// The longest time that a `create` may take. It is far longer than its statements may run.
const LONGEST_CREATE: Duration = Duration::from_secs(60);

pub(crate) async fn create(
    pool: &Pool,
    grant: &GrantRecord,
    tokens: Vec<TokenRecord>,
    now: UnixTime,
) -> Result<CreateOutcome, StoreError> {
    let during = "creating a grant";
    tokens_of(grant.id, &tokens)?;
    let begun = Instant::now();
    let fresh = fresh_tokens(tokens.clone(), |_| Ok(None::<TokenRecord>))?;
    let (g, t) = (GrantParams::new(grant, now), TokenParams::new(&fresh));
    let keys = grant.rule_keys().map(|key| key.to_bytes());
    let (id, at, keys) = (g.id.as_slice(), column(now.as_millis()), keys.as_slice());
    let session = pool.session(during).await?;
    let error = |error| failed(during, error);
    let insert = session.prepared(&INSERT, 0).await.map_err(error)?;
    let bar = session.prepared(&BAR, 0).await.map_err(error)?;
    let (inserted, barred) = session
        .run_both(
            (
                &insert,
                &[
                    &id,
                    &g.client,
                    &g.subject,
                    &g.epoch,
                    &g.generation,
                    &g.digest,
                    &g.chain_expires_at,
                    &g.expires_at,
                    &g.row_expires_at,
                    &g.due,
                    &g.revoked_at,
                    &g.body,
                    &t.digests,
                    &t.issued_at,
                    &t.expires_at,
                    &t.revoked_at,
                    &t.bodies,
                ],
            ),
            (&bar, &[&id, &g.client, &g.subject, &g.epoch, &keys, &at]),
        )
        .await;
    let is_inserted = match inserted {
        Ok(rows) => count(&rows)? > 0,
        // Tokens of a grant with this id that was deleted before them.
        Err(taken) if taken.is_duplicate() => return Ok(CreateOutcome::Exists),
        Err(other) => return Err(error(other)),
    };
    let is_barred = count(&barred.map_err(error)?)? > 0;
    if begun.elapsed() > LONGEST_CREATE {
        if is_inserted {
            pool.query(during, Kind::Write, (&REVOKE, 0), &[&id, &at]).await?;
        }
        return Err(StoreError::unavailable(during, "it took too long"));
    }
    match (is_inserted, is_barred) {
        (true, false) => Ok(CreateOutcome::Inserted),
        (true, true) => Ok(CreateOutcome::Barred),
        (false, _) => created_before(pool, grant, tokens, is_barred).await,
    }
}

/// The answer if there is a row with this id. This may be a retry of a call whose answer was lost.
async fn created_before(
    pool: &Pool,
    grant: &GrantRecord,
    tokens: Vec<TokenRecord>,
    is_barred: bool,
) -> Result<CreateOutcome, StoreError> {
    let stored = match stored(pool, grant.id).await? {
        Some(Stored::Grant(stored)) => stored,
        // A tombstone that was deleted meanwhile stands for a revocation all the same.
        Some(Stored::Tombstone) | None => return Ok(CreateOutcome::Barred),
    };
    let known = stored_tokens(pool, grant.id, &tokens).await?;
    let is_same = grant.is_stored_as(&stored)
        && match fresh_tokens(tokens, |token| Ok(known.get(&token.digest))) {
            Ok(fresh) => fresh.is_empty(),
            Err(StoreError::Misuse(_)) => false,
            Err(error) => return Err(error),
        };
    Ok(match is_same {
        false => CreateOutcome::Exists,
        true if is_barred || stored.revoked_at.is_some() => CreateOutcome::Barred,
        true => CreateOutcome::Inserted,
    })
}

/// For a look at their plans.
#[cfg(test)]
pub(crate) const STATEMENTS: &[(&str, &Sql)] =
    &[("INSERT", &INSERT), ("BAR", &BAR), ("REVOKE", &REVOKE)];
