//! One step of a chain.

use std::sync::Arc;

use cloakroom_core::record::{GrantRecord, GrantRow, TokenRecord};
use cloakroom_core::store::{Advance, AdvanceOutcome, ChainUpdate, StoreError};
use mysql_async::Value;

use crate::connection::{Connection, Script};
use crate::error::Failure;
use crate::grants::{Locking, fresh, insert_tokens, stored_grant, stored_tokens};
use crate::pool::Operation;
use crate::rows::{Stored, TOKEN_COLUMNS, binary, column, token_values};

/// Takes the step by one conditional `UPDATE`, with its tokens in the same transaction and the same packet.
///
/// # Isolation
///
/// The `UPDATE` finds the row by its primary key, locks it, and compares its newest committed version; at
/// `READ COMMITTED` no older snapshot takes part. Of any number of steps from one position, the first to lock
/// the row matches. Each of the others waits until that transaction ends, compares the row as it is then,
/// and matches nothing. The same holds for a `revoke` of the grant: it locks the same row, so it comes
/// before the step, which then matches nothing, or after it, and then the row is revoked.
///
/// The tokens are inserted only if the `UPDATE` matched (`ROW_COUNT()`). Until the commit, the lock keeps
/// housekeeping from deleting the grant between the two. If the connection is lost, the server has run the
/// whole packet or rolls the transaction back; the same step, sent again, finds out by the digest.
pub(crate) struct Step {
    pub(crate) step: Advance,
    /// Each digest once.
    pub(crate) tokens: Vec<TokenRecord>,
}

/// What the conditional write did.
pub(crate) enum Taken {
    Advanced,
    /// Nothing was written, and the grant shows why.
    Refused(AdvanceOutcome),
    /// The grant does not show why: a token is already there, the step is misuse, or the grant was changed
    /// in between. The decision needs a lock.
    Undecided,
}

impl Operation for Step {
    type Answer = Taken;

    const CONTEXT: &'static str = "advancing a chain";

    async fn run(&self, connection: &mut Connection) -> Result<Taken, Failure> {
        let Some((update, values)) = conditional_update(&self.step) else {
            return Ok(Taken::Undecided);
        };
        let matched = if self.tokens.is_empty() {
            connection.execute(update, values).await?
        } else {
            let mut script = Script::new();
            script.then("START TRANSACTION", &[]).then(update, &values);
            insert_if_updated(&mut script, &self.tokens);
            script.then("COMMIT", &[]);
            match connection.script(&script).await {
                Ok(answers) => answers.get(1).map_or(0, |update| update.matched),
                Err(failure) if failure.is_duplicate() => {
                    connection.roll_back().await?;
                    return Ok(Taken::Undecided);
                }
                Err(failure) => return Err(failure),
            }
        };
        if matched > 0 {
            return Ok(Taken::Advanced);
        }
        // A new statement, which sees what the winner committed.
        match stored_grant(connection, self.step.grant, Locking::None).await? {
            None => Ok(Taken::Refused(AdvanceOutcome::Unknown)),
            Some(Stored::Tombstone) => Ok(Taken::Refused(AdvanceOutcome::Dead)),
            Some(Stored::Grant(row)) => match judge(&self.step, &row)?.1 {
                Some(refused) => Ok(Taken::Refused(refused)),
                None => Ok(Taken::Undecided),
            },
        }
    }
}

fn judge(
    step: &Advance,
    row: &GrantRow,
) -> Result<(Arc<GrantRecord>, Option<AdvanceOutcome>), StoreError> {
    let stored = Arc::new(GrantRecord::from_row(row)?);
    let refused = step.judge(&stored)?;
    Ok((stored, refused))
}

/// The `UPDATE` that matches only if [`Advance::judge`] would allow the step; `None` if only the stored
/// record tells that the step is misuse.
fn conditional_update(step: &Advance) -> Option<(&'static str, Vec<Value>)> {
    macro_rules! update {
        ($set:literal, $more:literal) => {
            concat!(
                "UPDATE ~grants SET ",
                $set,
                " WHERE id = ? AND generation = ? AND digest = ? AND revoked_at IS NULL \
                 AND expires_at > ? AND row_expires_at > ? AND chain_expires_at > ?",
                $more
            )
        };
    }
    const MOVE: &str = update!(
        "generation = ?, digest = ?, chain_expires_at = ?, expires_at = ?, row_expires_at = ?, \
         revoked_at = ?, body = ?",
        " AND expires_at >= ? AND client = ? AND subject = ? AND epoch = ?"
    );
    // It changes nothing, and locks the row.
    const ATTACH: &str = update!("epoch = epoch", "");
    let now = column(step.now.as_millis());
    let condition = [
        binary(step.grant.as_bytes()),
        Value::Int(step.expected.generation.into()),
        binary(step.expected.digest.as_bytes()),
        now.clone(),
        now.clone(),
        now,
    ];
    match &step.change {
        ChainUpdate::Attach => Some((ATTACH, condition.to_vec())),
        ChainUpdate::Move(next) => {
            let chain = next.chain.as_ref()?;
            if chain.position() == step.expected || next.id != step.grant {
                return None;
            }
            let row = next.to_row();
            let mut values = written(&row);
            values.extend(condition);
            values.extend([
                column(row.expires_at),
                binary(row.client.as_bytes()),
                binary(row.subject.as_bytes()),
                column(row.epoch),
            ]);
            Some((MOVE, values))
        }
    }
}

/// The columns that a step writes. Client, subject and epoch never change.
fn written(row: &GrantRow) -> Vec<Value> {
    vec![
        row.chain.map_or(Value::NULL, |(generation, _)| Value::Int(generation.into())),
        row.chain.map_or(Value::NULL, |(_, digest)| binary(&digest)),
        row.chain_expires_at.map_or(Value::NULL, column),
        column(row.expires_at),
        column(row.row_expires_at),
        row.revoked_at.map_or(Value::NULL, column),
        binary(&row.body),
    ]
}

/// Adds one statement that inserts these tokens if the statement before it matched a row.
fn insert_if_updated(script: &mut Script, tokens: &[TokenRecord]) {
    for (number, token) in tokens.iter().enumerate() {
        let row = token_values(&token.to_row());
        const SELECT: &str = "SELECT ?, ?, ?, ?, ?, ? FROM DUAL WHERE ROW_COUNT() = 1";
        if number == 0 {
            script.then(&format!("INSERT INTO ~tokens {TOKEN_COLUMNS} {SELECT}"), &row);
        } else {
            script.more(&format!(" UNION ALL {SELECT}"), &row);
        }
    }
}

/// Decides under a lock on the grant, where [`Step`] could not: `FOR UPDATE` reads the newest committed
/// version of the row, and keeps everyone else from writing it until the commit.
pub(crate) struct LockedStep {
    pub(crate) step: Advance,
}

impl Operation for LockedStep {
    type Answer = AdvanceOutcome;

    const CONTEXT: &'static str = "advancing a chain";

    async fn run(&self, connection: &mut Connection) -> Result<AdvanceOutcome, Failure> {
        const UPDATE: &str = "UPDATE ~grants SET generation = ?, digest = ?, \
            chain_expires_at = ?, expires_at = ?, row_expires_at = ?, revoked_at = ?, body = ? \
            WHERE id = ?";
        let step = &self.step;
        connection.script(&Script::transaction()).await?;
        let refused = match stored_grant(connection, step.grant, Locking::ForUpdate).await? {
            None => Some(AdvanceOutcome::Unknown),
            Some(Stored::Tombstone) => Some(AdvanceOutcome::Dead),
            Some(Stored::Grant(row)) => judge(step, &row)?.1,
        };
        if let Some(refused) = refused {
            connection.roll_back().await?;
            return Ok(refused);
        }
        let stored = stored_tokens(connection, step.grant, &step.tokens).await?;
        let fresh = fresh(&step.tokens, &stored)?;
        let mut script = Script::resumed();
        if let ChainUpdate::Move(next) = &step.change {
            let mut values = written(&next.to_row());
            values.push(binary(step.grant.as_bytes()));
            script.then(UPDATE, &values);
        }
        if !fresh.is_empty() {
            insert_tokens(&mut script, &fresh);
        }
        script.commit();
        connection.script(&script).await?;
        Ok(AdvanceOutcome::Advanced)
    }
}
