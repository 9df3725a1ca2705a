//! Deletes rows that have ended, by the indexes on expiry, a few at a time.
//!
//! # Isolation
//!
//! Candidates are selected by an index, without locks. Then they are locked by primary key, in key
//! order, and checked again; rows that another transaction has locked are skipped (`SKIP LOCKED`).
//! Only locked rows are deleted. So housekeeping never waits for a row, and others wait for it no
//! longer than one short transaction. No statement locks along a secondary index: a writer locks
//! the row first and the entry in the index afterwards, and the other order would be a deadlock.

use cloakroom_core::store::{Housekeeping, MaintenanceReport};
use mysql_async::{Row, Value};

use crate::connection::{Connection, Script};
use crate::error::Failure;
use crate::pool::Operation;
use crate::rows::{column, get, marks};
use crate::sweeps::{Sweep, Swept, Which};

/// How many rows one transaction deletes.
const BATCH: u32 = 200;

/// One call of `maintain`.
pub(crate) struct Maintain(pub(crate) Housekeeping);

impl Operation for Maintain {
    type Answer = MaintenanceReport;

    const CONTEXT: &'static str = "housekeeping";

    async fn run(&self, connection: &mut Connection) -> Result<MaintenanceReport, Failure> {
        let task = &self.0;
        let mut done = MaintenanceReport::default();
        let mut left = task.limit.max(1);
        while left > 0 {
            let rows = step(connection, task, left, &mut done).await?;
            if rows == 0 {
                break;
            }
            left -= rows.min(left);
        }
        (done.more, done.sweeping) = is_due(connection, task).await?;
        Ok(done)
    }
}

/// A table whose rows stand for themselves.
pub(crate) struct Table {
    has_number_as_key: bool,
    pub(crate) candidates: &'static str,
    lock: &'static str,
    delete: &'static str,
}

macro_rules! table {
    ($name:literal, $key:literal, $is_number:literal, $and:literal) => {
        Table {
            has_number_as_key: $is_number,
            candidates: concat!(
                "SELECT ",
                $key,
                " FROM ",
                $name,
                " WHERE ends_at < ?",
                $and,
                " ORDER BY ends_at LIMIT ?"
            ),
            lock: concat!(
                "SELECT ",
                $key,
                " FROM ",
                $name,
                " FORCE INDEX (PRIMARY) WHERE ends_at < ? AND ",
                $key,
                " IN"
            ),
            delete: concat!("DELETE FROM ", $name, " WHERE ", $key, " IN"),
        }
    };
}

/// The newest entry of the log stays.
pub(crate) const LOG: Table =
    table!("~log", "position", true, " AND position < (SELECT position FROM ~state WHERE id = 0)");
pub(crate) const RULES: Table = table!("~rules", "rule_key", false, "");

/// Grants that wait for a token are skipped: otherwise the same page would come again and again.
pub(crate) const GRANTS: &str = "SELECT g.id FROM ~grants g WHERE g.row_expires_at < ? AND NOT EXISTS \
    (SELECT 1 FROM ~tokens t WHERE t.grant_id = g.id AND t.expires_at >= ?) \
    ORDER BY g.row_expires_at LIMIT ?";

pub(crate) const TOKENS: &str =
    "SELECT grant_id, digest FROM ~tokens WHERE expires_at < ? ORDER BY expires_at LIMIT ?";

/// A few short transactions. Adds what they did to `done`, and returns how many rows they touched.
async fn step(
    connection: &mut Connection,
    task: &Housekeeping,
    limit: u32,
    done: &mut MaintenanceReport,
) -> Result<u32, Failure> {
    let is_sweeping = match Sweep(Which::Preferably(task.sweep)).run(connection).await? {
        Swept::None => false,
        Swept::Unreadable => {
            done.unreadable += 1;
            true
        }
        Swept::Last | Swept::More => true,
    };
    let before = column(task.before.as_millis());
    let mut left = limit.min(BATCH);
    // At most half for each: a flood of revocations must not stop the deletion of grants.
    let half = left.div_ceil(2);
    let mut trimmed = 0;
    for table in [&LOG, &RULES] {
        trimmed += delete(connection, table, &before, half - trimmed).await?;
    }
    done.revocations += u64::from(trimmed);
    left -= trimmed;
    let grants = delete_grants(connection, &before, left, done).await?;
    left -= grants;
    let tokens = delete_tokens(connection, &before, left).await?;
    done.tokens += u64::from(tokens);
    Ok(u32::from(is_sweeping) + trimmed + grants + tokens)
}

async fn delete(
    connection: &mut Connection,
    table: &Table,
    before: &Value,
    limit: u32,
) -> Result<u32, Failure> {
    if limit == 0 {
        return Ok(0);
    }
    let parameters = vec![before.clone(), Value::UInt(limit.into())];
    let keys = keys_of(table, connection.rows(table.candidates, parameters).await?)?;
    if keys.is_empty() {
        return Ok(0);
    }
    let list = format!("({})", marks(keys.len()));
    let values: Vec<Value> = std::iter::once(before.clone()).chain(keys).collect();
    let mut script = Script::transaction();
    script.then(&format!("{} {list} FOR UPDATE SKIP LOCKED", table.lock), &values);
    let keys = keys_of(table, last_rows(connection, &script).await?)?;
    if keys.is_empty() {
        connection.roll_back().await?;
        return Ok(0);
    }
    let mut script = Script::resumed();
    script.then(&format!("{} ({})", table.delete, marks(keys.len())), &keys);
    script.commit();
    let answers = connection.script(&script).await?;
    Ok(count(answers.get(1).map_or(0, |delete| delete.matched)))
}

fn keys_of(table: &Table, rows: Vec<Row>) -> Result<Vec<Value>, Failure> {
    let key = |mut row| match table.has_number_as_key {
        // A script answers with the digits of a number.
        true => Ok(Value::Int(get(&mut row, 0)?)),
        false => Ok(first(&mut row)),
    };
    rows.into_iter().map(key).collect()
}

fn first(row: &mut Row) -> Value {
    row.take::<Value, _>(0).unwrap_or(Value::NULL)
}

async fn last_rows(connection: &mut Connection, script: &Script) -> Result<Vec<Row>, Failure> {
    let answers = connection.script(script).await?;
    Ok(answers.into_iter().next_back().map(|answer| answer.rows).unwrap_or_default())
}

fn count(rows: u64) -> u32 {
    u32::try_from(rows).unwrap_or(u32::MAX)
}

/// Deletes grants that have ended, with their tokens, when all of the tokens have ended; and tombstones.
///
/// While a grant is locked, nobody can attach a token to it. A token that was attached before is seen: the
/// statements that look for tokens begin after the lock.
async fn delete_grants(
    connection: &mut Connection,
    before: &Value,
    limit: u32,
    done: &mut MaintenanceReport,
) -> Result<u32, Failure> {
    if limit == 0 {
        return Ok(0);
    }
    let parameters = vec![before.clone(), before.clone(), Value::UInt(limit.into())];
    let mut due = connection.rows(GRANTS, parameters).await?;
    if due.is_empty() {
        return Ok(0);
    }
    let ids: Vec<Value> = due.iter_mut().map(first).collect();
    let mut script = Script::transaction();
    let lock = format!(
        "SELECT id, tombstone FROM ~grants FORCE INDEX (PRIMARY) WHERE row_expires_at < ? \
         AND id IN ({}) FOR UPDATE SKIP LOCKED",
        marks(ids.len())
    );
    let values: Vec<Value> = std::iter::once(before.clone()).chain(ids).collect();
    script.then(&lock, &values);
    let (mut ids, mut tombstones) = (Vec::new(), Vec::new());
    for mut row in last_rows(connection, &script).await? {
        let is_tombstone = get::<i64>(&mut row, 1)? != 0;
        if is_tombstone { &mut tombstones } else { &mut ids }.push(first(&mut row));
    }
    let mut script = Script::resumed();
    if !ids.is_empty() {
        let list = marks(ids.len());
        let tokens = format!(
            "DELETE FROM ~tokens WHERE grant_id IN ({list}) AND expires_at < ? \
             ORDER BY grant_id, digest LIMIT ?"
        );
        let mut values = ids.clone();
        values.extend([before.clone(), Value::UInt(limit.into())]);
        script.then(&tokens, &values);
        let grants = format!(
            "DELETE FROM ~grants WHERE id IN ({list}) AND NOT EXISTS \
             (SELECT 1 FROM ~tokens t WHERE t.grant_id = ~grants.id)"
        );
        script.then(&grants, &ids);
    }
    if !tombstones.is_empty() {
        let list = marks(tombstones.len());
        script.then(&format!("DELETE FROM ~grants WHERE id IN ({list})"), &tombstones);
    }
    script.commit();
    let matched: Vec<u64> =
        connection.script(&script).await?.into_iter().map(|answer| answer.matched).collect();
    let (tokens, grants, buried) = match (ids.is_empty(), tombstones.is_empty()) {
        (false, false) => (matched[1], matched[2], matched[3]),
        (false, true) => (matched[1], matched[2], 0),
        (true, false) => (0, 0, matched[1]),
        (true, true) => (0, 0, 0),
    };
    done.grants += grants;
    done.revocations += buried;
    // Tokens that are deleted with their grants are not counted, unless their grant still has others.
    if grants < ids.len() as u64 {
        done.tokens += tokens;
    }
    Ok(count(tokens + grants + buried).min(limit))
}

/// Deletes tokens of grants that stay. The others are deleted with their grants.
async fn delete_tokens(
    connection: &mut Connection,
    before: &Value,
    limit: u32,
) -> Result<u32, Failure> {
    if limit == 0 {
        return Ok(0);
    }
    let parameters = vec![before.clone(), Value::UInt(limit.into())];
    let due = connection.rows(TOKENS, parameters).await?;
    if due.is_empty() {
        return Ok(0);
    }
    let mut script = Script::transaction();
    let lock = format!(
        "SELECT grant_id, digest FROM ~tokens FORCE INDEX (PRIMARY) WHERE {} \
         FOR UPDATE SKIP LOCKED",
        token_condition(due.len())
    );
    script.then(&lock, &token_keys(due, before));
    let locked = last_rows(connection, &script).await?;
    if locked.is_empty() {
        connection.roll_back().await?;
        return Ok(0);
    }
    let mut script = Script::resumed();
    let delete = format!("DELETE FROM ~tokens WHERE {}", token_condition(locked.len()));
    script.then(&delete, &token_keys(locked, before)).commit();
    let answers = connection.script(&script).await?;
    Ok(count(answers.get(1).map_or(0, |delete| delete.matched)))
}

/// Names tokens one by one, in a form that both servers read from the primary key.
fn token_condition(tokens: usize) -> String {
    let one = "(grant_id = ? AND digest = ?)";
    let all = vec![one; tokens].join(" OR ");
    format!("({all}) AND expires_at < ?")
}

fn token_keys(rows: Vec<Row>, before: &Value) -> Vec<Value> {
    let keys = rows.into_iter().flat_map(|mut row| {
        let digest = row.take::<Value, _>(1).unwrap_or(Value::NULL);
        [first(&mut row), digest]
    });
    keys.chain([before.clone()]).collect()
}

/// Whether more can be done now, and whether the awaited sweep is not finished.
async fn is_due(connection: &mut Connection, task: &Housekeeping) -> Result<(bool, bool), Failure> {
    const DUE: &str = "SELECT EXISTS (SELECT 1 FROM ~sweeps) \
        OR EXISTS (SELECT 1 FROM ~log WHERE ends_at < ? \
                   AND position < (SELECT position FROM ~state WHERE id = 0)) \
        OR EXISTS (SELECT 1 FROM ~rules WHERE ends_at < ?) \
        OR EXISTS (SELECT 1 FROM ~tokens WHERE expires_at < ?) \
        OR EXISTS (SELECT 1 FROM ~grants g WHERE g.row_expires_at < ? \
                   AND NOT EXISTS (SELECT 1 FROM ~tokens t WHERE t.grant_id = g.id))";
    const SWEEPING: &str = "SELECT 1 FROM ~sweeps WHERE entry = ?";
    let before = column(task.before.as_millis());
    let parameters = vec![before.clone(), before.clone(), before.clone(), before];
    let is_due = match connection.row(DUE, parameters).await? {
        Some(mut row) => get::<i64>(&mut row, 0)? != 0,
        None => false,
    };
    let is_sweeping = match task.sweep {
        Some(entry) => {
            let entry = Value::Bytes(entry.as_bytes().to_vec());
            connection.row(SWEEPING, vec![entry]).await?.is_some()
        }
        None => false,
    };
    Ok((is_due, is_sweeping))
}
