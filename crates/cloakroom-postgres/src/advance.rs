//! The steps of a chain.

use cloakroom_core::record::TokenRecord;
use cloakroom_core::store::{
    Advance, AdvanceOutcome, ChainUpdate, StoreError, fresh_tokens, tokens_of,
};
use tokio_postgres::types::Type;

use crate::error::failed;
use crate::grants::{count, stored, stored_tokens};
use crate::pool::{Kind, Pool};
use crate::rows::{GrantParams, Stored, TokenParams, column};
use crate::session::Params;
use crate::sql::Sql;

/// Moves the chain on, and inserts the tokens, or does nothing.
///
/// READ COMMITTED: if another transaction is writing the row, this waits for it and checks all conditions
/// again on what it wrote. So of several moves one finds the chain where it expects it. A `revoke` that comes
/// first leaves `revoked_at`; one that comes later finds the row as the move left it.
static MOVE: Sql = Sql::new(
    "WITH moved AS ( \
         UPDATE cloakroom.grants SET generation = $7, digest = $8, chain_expires_at = $9, \
             expires_at = $10, row_expires_at = $11, due = $12, revoked_at = $13, body = $14 \
         WHERE id = $1 AND generation = $2 AND digest = $3 AND revoked_at IS NULL \
             AND expires_at > $4 AND chain_expires_at > $4 AND body IS NOT NULL \
             AND client = $5 AND subject = $6 AND epoch = $15 AND expires_at >= $10 \
         RETURNING id), \
     attached AS ( \
         INSERT INTO cloakroom.tokens (grant_id, digest, issued_at, expires_at, revoked_at, body) \
         SELECT moved.id, t.* FROM moved, \
             unnest($16::bytea[], $17::bigint[], $18::bigint[], $19::bigint[], $20::bytea[]) t) \
     SELECT count(*) FROM moved",
    &[
        Type::BYTEA,
        Type::INT8,
        Type::BYTEA,
        Type::INT8,
        Type::BYTEA,
        Type::BYTEA,
        Type::INT8,
        Type::BYTEA,
        Type::INT8,
        Type::INT8,
        Type::INT8,
        Type::INT8,
        Type::INT8,
        Type::BYTEA,
        Type::INT8,
        Type::BYTEA_ARRAY,
        Type::INT8_ARRAY,
        Type::INT8_ARRAY,
        Type::INT8_ARRAY,
        Type::BYTEA_ARRAY,
    ],
);

/// Inserts tokens of a grant whose chain is where the step expects it.
///
/// READ COMMITTED: `FOR KEY SHARE` does not wait for a refresh, and keeps the row from being deleted. If a
/// refresh is committed meanwhile, the conditions are checked again on what it wrote.
static ATTACH: Sql = Sql::new(
    "WITH held AS ( \
         SELECT id FROM cloakroom.grants \
         WHERE id = $1 AND generation = $2 AND digest = $3 AND revoked_at IS NULL \
             AND expires_at > $4 AND chain_expires_at > $4 AND body IS NOT NULL \
         FOR KEY SHARE), \
     attached AS ( \
         INSERT INTO cloakroom.tokens (grant_id, digest, issued_at, expires_at, revoked_at, body) \
         SELECT held.id, t.* FROM held, \
             unnest($5::bytea[], $6::bigint[], $7::bigint[], $8::bigint[], $9::bytea[]) t) \
     SELECT count(*) FROM held",
    &[
        Type::BYTEA,
        Type::INT8,
        Type::BYTEA,
        Type::INT8,
        Type::BYTEA_ARRAY,
        Type::INT8_ARRAY,
        Type::INT8_ARRAY,
        Type::INT8_ARRAY,
        Type::BYTEA_ARRAY,
    ],
);

/// How often a step is tried whose conditions seem to hold whenever its grant is read.
const ATTEMPTS: usize = 8;

pub(crate) async fn advance(pool: &Pool, step: &Advance) -> Result<AdvanceOutcome, StoreError> {
    tokens_of(step.grant, &step.tokens)?;
    let mut fresh = fresh_tokens(step.tokens.clone(), |_| Ok(None::<TokenRecord>));
    for _ in 0..ATTEMPTS {
        if let Ok(fresh) = &fresh
            && try_step(pool, step, fresh).await?
        {
            return Ok(AdvanceOutcome::Advanced);
        }
        // It was not taken. The statement saw the row as it was when it began, so it is read again.
        let stored = match stored(pool, step.grant).await? {
            Some(Stored::Grant(stored)) => stored,
            Some(Stored::Tombstone) => return Ok(AdvanceOutcome::Dead),
            None => return Ok(AdvanceOutcome::Unknown),
        };
        if let Some(refused) = step.judge(&stored)? {
            return Ok(refused);
        }
        let known = stored_tokens(pool, step.grant, &step.tokens).await?;
        fresh = Ok(fresh_tokens(step.tokens.clone(), |token| Ok(known.get(&token.digest)))?);
    }
    Err(StoreError::unavailable("advancing a grant", "the grant keeps changing"))
}

/// Takes the step if its conditions hold, in one statement. `false` if they do not, or if one of the tokens is
/// there already.
async fn try_step(pool: &Pool, step: &Advance, fresh: &[TokenRecord]) -> Result<bool, StoreError> {
    let during = "advancing a grant";
    let t = TokenParams::new(fresh);
    let id = step.grant.as_bytes().as_slice();
    let generation = i64::from(step.expected.generation);
    let digest = step.expected.digest.as_bytes().as_slice();
    let now = column(step.now.as_millis());
    let taken = match &step.change {
        ChainUpdate::Move(next) => {
            let is_move = next.id == step.grant
                && next.chain.as_ref().is_some_and(|chain| chain.position() != step.expected);
            if !is_move {
                return Ok(false);
            }
            let g = GrantParams::new(next, step.now);
            let params: Params<'_> = &[
                &id,
                &generation,
                &digest,
                &now,
                &g.client,
                &g.subject,
                &g.generation,
                &g.digest,
                &g.chain_expires_at,
                &g.expires_at,
                &g.row_expires_at,
                &g.due,
                &g.revoked_at,
                &g.body,
                &g.epoch,
                &t.digests,
                &t.issued_at,
                &t.expires_at,
                &t.revoked_at,
                &t.bodies,
            ];
            pool.try_query(during, Kind::Write, (&MOVE, 0), params).await?
        }
        ChainUpdate::Attach => {
            let params: Params<'_> = &[
                &id,
                &generation,
                &digest,
                &now,
                &t.digests,
                &t.issued_at,
                &t.expires_at,
                &t.revoked_at,
                &t.bodies,
            ];
            pool.try_query(during, Kind::Write, (&ATTACH, 0), params).await?
        }
    };
    match taken {
        Ok(rows) => Ok(count(&rows)? > 0),
        Err(error) if error.is_duplicate() => Ok(false),
        Err(error) => Err(failed(during, error)),
    }
}

/// For a look at their plans.
#[cfg(test)]
pub(crate) const STATEMENTS: &[(&str, &Sql)] = &[("MOVE", &MOVE), ("ATTACH", &ATTACH)];
