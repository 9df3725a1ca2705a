//! Grants and their tokens. Each operation is one statement that commits by itself, so that nothing is left
//! open when a future is dropped. `create` sends two in one flight.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cloakroom_core::record::{GrantRecord, TokenRecord};
use cloakroom_core::store::{
    Advance, AdvanceOutcome, ChainUpdate, CreateOutcome, Found, Listing, Lookup, PageRequest,
    Selector, StoreError, fresh_tokens, tokens_of,
};
use cloakroom_core::time::UnixTime;
use cloakroom_core::{GrantId, TokenDigest};
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use crate::error::failed;
use crate::pool::{Kind, Pool};
use crate::revocation_log;
use crate::rows::{
    GRANT_COLUMNS, GrantParams, Stored, TokenParams, array, column, get, grant_columns,
    stored_grant, stored_token,
};
use crate::sql::{Sql, rounded};

/// The snapshot of one statement shows a committed state of both rows. It is taken when the statement begins,
/// so everything that was acknowledged before is in it.
static FIND: Sql = Sql::new(
    concat!("SELECT ", grant_columns!(), " FROM cloakroom.grants g WHERE g.id = $1"),
    &[Type::BYTEA],
);

static FIND_TOKEN: Sql = Sql::new(
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
    let Some(row) = rows.first() else { return Ok(Lookup::Absent) };
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

async fn stored(pool: &Pool, id: GrantId) -> Result<Option<Stored>, StoreError> {
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
async fn stored_tokens(
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
            let params: crate::session::Params<'_> = &[
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
            let params: crate::session::Params<'_> = &[
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

/// The number in the only row.
fn count(rows: &[Row]) -> Result<i64, StoreError> {
    match rows {
        [row] => get("a count", row, 0),
        _ => Err(StoreError::corrupt("a count", "there is not one row")),
    }
}

/// A page of grants that are not revoked.
///
/// The comparison of both columns and the order by both make sure that only an index on them serves it: an
/// index on the id alone would read all grants of all others. An id of another length is damage. Sweeps still
/// find it.
macro_rules! page {
    ($owner:literal) => {
        concat!(
            "SELECT ",
            grant_columns!(),
            ", g.id FROM cloakroom.grants g WHERE (g.",
            $owner,
            ", g.id) > ($1, $2) AND g.",
            $owner,
            " <= $1 AND g.revoked_at IS NULL AND octet_length(g.id) = 16 ORDER BY g.",
            $owner,
            ", g.id LIMIT $LIMIT"
        )
    };
}

static LIST_SUBJECT: Sql = Sql::new(page!("subject"), &[Type::BYTEA, Type::BYTEA]);
static LIST_CLIENT: Sql = Sql::new(page!("client"), &[Type::BYTEA, Type::BYTEA]);

/// The most rows of a page. A page may be shorter than its limit.
const LONGEST_PAGE: u32 = 512;

pub(crate) async fn list(
    pool: &Pool,
    of: &Selector,
    page: PageRequest,
    now: UnixTime,
) -> Result<Listing, StoreError> {
    let during = "listing grants";
    let (sql, key) = match of {
        Selector::Subject(subject) | Selector::SubjectAtClient(subject, _) => {
            (&LIST_SUBJECT, subject.to_key())
        }
        Selector::Client(client) => (&LIST_CLIENT, client.as_str().to_owned()),
    };
    let key = key.as_bytes();
    let limit = rounded(page.limit, LONGEST_PAGE);
    // The empty string of bytes comes before every id.
    let after: &[u8] = page.after.as_ref().map_or(&[], |id| id.as_bytes());
    let rows = pool.query(during, Kind::Read, (sql, limit), &[&key, &after]).await?;
    let (mut readable, mut unreadable, mut last) = (Vec::new(), Vec::new(), None);
    for row in &rows {
        let id = GrantId::from_bytes(array(during, get(during, row, GRANT_COLUMNS)?)?);
        last = Some(id);
        match stored_grant(id, row) {
            Ok(Stored::Grant(grant)) if of.selects(&grant) && grant.is_live(now) => {
                readable.push(grant);
            }
            Ok(_) => {}
            Err(StoreError::Corrupt { .. }) => unreadable.push(id),
            Err(error) => return Err(error),
        }
    }
    // Read after the grants, so that every rule that was in force then counts.
    let grants = revocation_log::undenied(pool, readable).await?;
    let next = last.filter(|_| rows.len() >= limit as usize);
    Ok(Listing { grants, unreadable, next })
}

/// For a look at their plans.
#[cfg(test)]
pub(crate) const STATEMENTS: &[(&str, &Sql)] = &[
    ("FIND", &FIND),
    ("FIND_TOKEN", &FIND_TOKEN),
    ("INSERT", &INSERT),
    ("BAR", &BAR),
    ("REVOKE", &REVOKE),
    ("FIND_TOKENS", &FIND_TOKENS),
    ("MOVE", &MOVE),
    ("ATTACH", &ATTACH),
    ("LIST_SUBJECT", &LIST_SUBJECT),
    ("LIST_CLIENT", &LIST_CLIENT),
];
