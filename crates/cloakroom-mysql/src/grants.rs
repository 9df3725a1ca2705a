//! Grants and their tokens: looking them up, creating and listing them.
//!
//! Every session runs at `READ COMMITTED`. A statement that only reads sees what was committed before the
//! statement began.

use std::sync::Arc;
use std::time::Duration;

use cloakroom_core::record::{GrantRecord, TokenRecord};
use cloakroom_core::store::{
    CreateOutcome, Found, Listing, Lookup, PageRequest, Selector, StoreError, fresh_tokens,
};
use cloakroom_core::time::{Clock, UnixTime};
use cloakroom_core::{GrantId, TokenDigest};
use mysql_async::{Row, Value};

use crate::connection::{Connection, Script};
use crate::error::Failure;
use crate::pool::Operation;
use crate::rows::{
    GRANT_COLUMNS, INSERT_GRANT, Stored, TOKEN_COLUMNS, binary, column, grant, grant_columns,
    grant_id, grant_values, marks, token, token_values,
};
use crate::rules;

/// The longest time of a create, from its first write to its last look at the rules. A sweep that is not
/// finished keeps its rule for longer than that.
const MAX_CREATE: Duration = Duration::from_secs(60);

pub(crate) const FIND: &str =
    concat!("SELECT ", grant_columns!(), " FROM ~grants g WHERE g.id = ?");

/// A grant and a token of it.
pub(crate) const FIND_TOKEN: &str = concat!(
    "SELECT ",
    grant_columns!(),
    ", t.issued_at, t.expires_at, t.revoked_at, t.body FROM ~grants g \
     LEFT JOIN ~tokens t ON t.grant_id = g.id AND t.digest = ? WHERE g.id = ?"
);

/// A page of the grants of a subject.
pub(crate) const LIST_SUBJECT: &str = concat!(
    "SELECT ",
    grant_columns!(),
    " FROM ~grants g WHERE g.subject = ? AND g.revoked_at IS NULL AND g.id > ? \
     ORDER BY g.id LIMIT ?"
);

/// The same of a client.
pub(crate) const LIST_CLIENT: &str = concat!(
    "SELECT ",
    grant_columns!(),
    " FROM ~grants g WHERE g.client = ? AND g.revoked_at IS NULL AND g.id > ? \
     ORDER BY g.id LIMIT ?"
);

/// One statement, which takes no locks. Grant and token are from one moment.
pub(crate) struct Find {
    pub(crate) id: GrantId,
    pub(crate) digest: Option<TokenDigest>,
}

impl Operation for Find {
    type Answer = Lookup;

    const CONTEXT: &'static str = "finding a grant";

    async fn run(&self, connection: &mut Connection) -> Result<Lookup, Failure> {
        let id = binary(self.id.as_bytes());
        let row = match &self.digest {
            None => connection.row(FIND, vec![id]).await?,
            Some(digest) => connection.row(FIND_TOKEN, vec![binary(digest.as_bytes()), id]).await?,
        };
        let Some(mut row) = row else { return Ok(Lookup::Absent) };
        let found = match grant(&mut row)? {
            Stored::Tombstone => return Ok(Lookup::Tombstone),
            Stored::Grant(found) => Arc::new(GrantRecord::from_row(&found)?),
        };
        let token = match &self.digest {
            None => None,
            Some(digest) => token(self.id, digest, &mut row, GRANT_COLUMNS)?
                .map(|token| TokenRecord::from_row(&token).map(Arc::new))
                .transpose()?,
        };
        Ok(Lookup::Found(Found { grant: found, token }))
    }
}

/// Inserts a grant with its tokens, commits, and then looks for rules: all in one packet.
///
/// # Isolation
///
/// The look at the rules comes after the commit, in a statement of its own, which therefore sees every rule
/// that was committed before it began. A revocation commits its rule, and then selects the grants that it
/// sweeps, in a later statement. There are two orders:
///
/// 1. The rule is committed before the look begins: the look finds it, and the grant is revoked.
/// 2. The look begins before the rule is committed. The grant was committed before the look, so before the
///    rule, and so before the sweep selects: the sweep finds the grant.
///
/// A primary key decides between two creates of one id, and between a create and a tombstone: the second
/// insert waits for the first transaction, and is then a duplicate.
#[derive(Debug)]
pub(crate) struct Create {
    pub(crate) grant: GrantRecord,
    /// Each digest once.
    pub(crate) tokens: Vec<TokenRecord>,
    pub(crate) clock: Arc<dyn Clock>,
}

/// What [`Create`] found.
pub(crate) enum Created {
    Inserted,
    /// The id is taken. Nothing was written.
    Taken,
    /// A rule covers the grant, which is still live.
    Denied,
    /// It took too long: a sweep may have passed by.
    TooLate,
}

impl Operation for Create {
    type Answer = Created;

    const CONTEXT: &'static str = "creating a grant";

    async fn run(&self, connection: &mut Connection) -> Result<Created, Failure> {
        let begun = self.clock.monotonic();
        let answers = match connection.script(&self.script()).await {
            Ok(answers) => answers,
            Err(failure) if failure.is_duplicate() => {
                connection.roll_back().await?;
                return Ok(Created::Taken);
            }
            Err(failure) => return Err(failure),
        };
        if answers.last().is_some_and(|look| !look.rows.is_empty()) {
            return Ok(Created::Denied);
        }
        if self.clock.monotonic().saturating_sub(begun) > MAX_CREATE {
            return Ok(Created::TooLate);
        }
        Ok(Created::Inserted)
    }
}

impl Create {
    fn script(&self) -> Script {
        let mut script = Script::new();
        let row = grant_values(&self.grant.to_row());
        if self.tokens.is_empty() {
            script.then(INSERT_GRANT, &row);
        } else {
            script.then("START TRANSACTION", &[]).then(INSERT_GRANT, &row);
            insert_tokens(&mut script, &self.tokens);
            script.then("COMMIT", &[]);
        }
        rules::look(&mut script, &self.grant);
        script
    }
}

/// Adds one statement that inserts all of these tokens.
pub(crate) fn insert_tokens(script: &mut Script, tokens: &[TokenRecord]) {
    let values = format!("({})", marks(6));
    for (number, token) in tokens.iter().enumerate() {
        let row = token_values(&token.to_row());
        if number == 0 {
            script.then(&format!("INSERT INTO ~tokens {TOKEN_COLUMNS} VALUES {values}"), &row);
        } else {
            script.more(&format!(", {values}"), &row);
        }
    }
}

/// The answer to a create whose id is taken. It may be the retry of a call whose answer was lost.
pub(crate) struct CreatedBefore {
    pub(crate) grant: GrantRecord,
    pub(crate) tokens: Vec<TokenRecord>,
}

/// What [`CreatedBefore`] found.
pub(crate) enum Before {
    Answer(CreateOutcome),
    /// It is the retry, and a rule covers the grant, which is still live.
    Denied,
    /// The row is gone: housekeeping deleted it in between.
    Gone,
}

impl Operation for CreatedBefore {
    type Answer = Before;

    const CONTEXT: &'static str = "comparing a grant";

    /// The statements only read. Nothing but revocation changes what they compare: a grant that has moved on
    /// is another record. The rules are looked at last, as after an insert.
    async fn run(&self, connection: &mut Connection) -> Result<Before, Failure> {
        let stored = match stored_grant(connection, self.grant.id, Locking::None).await? {
            None => return Ok(Before::Gone),
            Some(Stored::Tombstone) => return Ok(Before::Answer(CreateOutcome::Barred)),
            Some(Stored::Grant(row)) => GrantRecord::from_row(&row)?,
        };
        if !self.grant.is_stored_as(&stored) {
            return Ok(Before::Answer(CreateOutcome::Exists));
        }
        let own = stored_tokens(connection, self.grant.id, &self.tokens).await?;
        let same = match fresh(&self.tokens, &own) {
            Ok(fresh) => fresh.is_empty(),
            Err(StoreError::Misuse(_)) => false,
            Err(error) => return Err(error.into()),
        };
        if !same {
            return Ok(Before::Answer(CreateOutcome::Exists));
        }
        if stored.revoked_at.is_some() {
            return Ok(Before::Answer(CreateOutcome::Barred));
        }
        let mut script = Script::new();
        rules::look(&mut script, &self.grant);
        let answers = connection.script(&script).await?;
        if answers.last().is_some_and(|look| !look.rows.is_empty()) {
            return Ok(Before::Denied);
        }
        Ok(Before::Answer(CreateOutcome::Inserted))
    }
}

/// The tokens that are not among those stored.
pub(crate) fn fresh(
    tokens: &[TokenRecord],
    stored: &[TokenRecord],
) -> Result<Vec<TokenRecord>, StoreError> {
    fresh_tokens(tokens.to_vec(), |token| {
        Ok(stored.iter().find(|stored| stored.digest == token.digest))
    })
}

/// How a read locks what it reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Locking {
    None,
    /// Nobody else can write the row until the transaction ends. It reads the newest version.
    ForUpdate,
}

pub(crate) async fn stored_grant(
    connection: &mut Connection,
    id: GrantId,
    locking: Locking,
) -> Result<Option<Stored>, Failure> {
    const READ: &str = concat!("SELECT ", grant_columns!(), " FROM ~grants g WHERE g.id = ?");
    const LOCK: &str =
        concat!("SELECT ", grant_columns!(), " FROM ~grants g WHERE g.id = ? FOR UPDATE");
    let sql = match locking {
        Locking::None => READ,
        Locking::ForUpdate => LOCK,
    };
    let row = connection.row(sql, vec![binary(id.as_bytes())]).await?;
    Ok(row.map(|mut row| grant(&mut row)).transpose()?)
}

/// Those of these tokens that are stored.
pub(crate) async fn stored_tokens(
    connection: &mut Connection,
    id: GrantId,
    tokens: &[TokenRecord],
) -> Result<Vec<TokenRecord>, Failure> {
    let mut stored = Vec::new();
    for some in tokens.chunks(500) {
        let sql = format!(
            "SELECT issued_at, expires_at, revoked_at, body, digest FROM ~tokens \
             WHERE grant_id = ? AND digest IN ({})",
            marks(some.len())
        );
        let digests = some.iter().map(|token| binary(token.digest.as_bytes()));
        let values: Vec<Value> = std::iter::once(binary(id.as_bytes())).chain(digests).collect();
        let mut script = Script::new();
        script.then(&sql, &values);
        for mut row in connection.script(&script).await?.into_iter().flat_map(|answer| answer.rows)
        {
            let digest = TokenDigest::from_bytes(crate::rows::bytes(&mut row, 4)?);
            if let Some(row) = token(id, &digest, &mut row, 0)? {
                stored.push(TokenRecord::from_row(&row)?);
            }
        }
    }
    Ok(stored)
}

/// Revokes one grant; the first revocation counts. One statement, on a row that only this statement locks.
pub(crate) struct Revoke {
    pub(crate) id: GrantId,
    pub(crate) at: UnixTime,
}

impl Operation for Revoke {
    type Answer = ();

    const CONTEXT: &'static str = "revoking a grant";

    async fn run(&self, connection: &mut Connection) -> Result<(), Failure> {
        const SQL: &str = "UPDATE ~grants SET revoked_at = COALESCE(revoked_at, ?) WHERE id = ?";
        let parameters = vec![column(self.at.as_millis()), binary(self.id.as_bytes())];
        connection.execute(SQL, parameters).await.map(drop)
    }
}

/// One page of grants that are not revoked, by id, and then the rules on them. Neither statement locks. The
/// rules are read after the grants, so that every rule that was in force then counts.
pub(crate) struct List {
    pub(crate) of: Selector,
    pub(crate) page: PageRequest,
    pub(crate) now: UnixTime,
}

impl Operation for List {
    type Answer = Listing;

    const CONTEXT: &'static str = "listing grants";

    async fn run(&self, connection: &mut Connection) -> Result<Listing, Failure> {
        let (sql, key) = match &self.of {
            Selector::Subject(subject) | Selector::SubjectAtClient(subject, _) => {
                (LIST_SUBJECT, subject.to_key())
            }
            Selector::Client(client) => (LIST_CLIENT, client.as_str().to_owned()),
        };
        let limit = self.page.limit.max(1);
        // The empty string comes before every id.
        let after = self.page.after.as_ref().map_or(&[][..], |id| id.as_bytes());
        let parameters = vec![binary(key.as_bytes()), binary(after), Value::UInt(limit.into())];
        let rows = connection.rows(sql, parameters).await?;
        let is_full = rows.len() >= limit as usize;
        let (mut grants, mut unreadable, mut last) = (Vec::new(), Vec::new(), None);
        for mut row in rows {
            let id = first_id(&row)?;
            last = Some(id);
            let read = grant(&mut row).and_then(|stored| match stored {
                Stored::Grant(row) => GrantRecord::from_row(&row).map(Some),
                Stored::Tombstone => Ok(None),
            });
            match read {
                Ok(Some(grant)) if self.of.selects(&grant) && grant.is_live(self.now) => {
                    grants.push(Arc::new(grant));
                }
                Ok(_) => {}
                Err(StoreError::Corrupt { .. }) => unreadable.push(id),
                Err(error) => return Err(error.into()),
            }
        }
        let keys = grants.iter().flat_map(|grant| grant.rule_keys()).collect();
        let rules = rules::read(connection, keys).await?.rules;
        grants.retain(|grant| {
            let keys = grant.rule_keys();
            !rules.iter().any(|rule| keys.contains(&rule.key) && rule.denies(grant.epoch))
        });
        Ok(Listing { grants, unreadable, next: last.filter(|_| is_full) })
    }
}

/// The id of a row, which stays in the row.
fn first_id(row: &Row) -> Result<GrantId, StoreError> {
    grant_id(&mut row.clone(), 0)
}

#[cfg(test)]
mod tests {
    use cloakroom_core::time::SystemClock;
    use cloakroom_core::{Audience, ClientId, Subject};

    use super::*;

    /// A server cannot be stopped between two statements of one packet, so no race shows their order.
    #[test]
    fn the_rules_are_looked_at_after_the_commit() {
        let now = UnixTime::from_secs(1);
        let grant = GrantRecord::new(
            GrantId::from_bytes([1; 16]),
            ClientId::new("app").unwrap(),
            Subject::user("alice").unwrap(),
            Audience::one("https://orders.example").unwrap(),
            now,
            now,
        );
        let token = TokenRecord::new(TokenDigest::from_bytes([2; 32]), &grant, now, now);
        for (tokens, kinds) in [
            (vec![], &["INSERT INTO ~grants", "SELECT 1 FROM ~rules"][..]),
            (
                vec![token],
                &[
                    "START TRANSACTION",
                    "INSERT INTO ~grants",
                    "INSERT INTO ~tokens",
                    "COMMIT",
                    "SELECT 1 FROM ~rules",
                ],
            ),
        ] {
            let clock = Arc::new(SystemClock::new());
            let script = Create { grant: grant.clone(), tokens, clock }.script();
            let statements: Vec<&str> = script.statements().collect();
            assert_eq!(statements.len(), kinds.len());
            for (statement, kind) in statements.iter().zip(kinds) {
                assert!(statement.starts_with(kind), "{statement}");
            }
        }
    }
}
