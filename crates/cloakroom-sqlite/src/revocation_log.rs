//! The revocation log, and the rules and sweeps of its entries.

use std::collections::HashMap;

use cloakroom_core::record::GrantRecord;
use cloakroom_core::revocation::{
    Cursor, CursorPlace, EntryId, Epoch, LogEntry, LogEvent, Revocation, RevocationBatch, Rule,
    RuleKey, Rules, Target,
};
use cloakroom_core::store::{Selector, StoreError};
use cloakroom_core::time::UnixTime;
use rusqlite::{Connection, OptionalExtension as _, params};

use crate::error::failed;
use crate::grants;
use crate::rows::{column, time};
use crate::schema;

/// How many grants a sweep reads in one transaction. Other writes wait for it.
const SWEEP_BATCH: u32 = 200;

pub(crate) const RULE: &str = "SELECT bound, until FROM rules WHERE key = ?1";

/// A page of the log.
pub(crate) const ENTRIES: &str =
    "SELECT position, body FROM log WHERE position > ?1 ORDER BY position LIMIT ?2";

/// Whether a sweep is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Swept {
    All,
    /// The sweep at this position of the log is not done.
    More(i64),
    /// Its target cannot be read. It was removed, since it would stop all later housekeeping.
    Unreadable,
}

/// Writes a revocation: its entry, its bound, its rule, and what it revokes, or the record of a sweep.
pub(crate) fn record(
    connection: &Connection,
    id: EntryId,
    revocation: &Revocation,
) -> Result<Swept, StoreError> {
    let Revocation { target, at, until, .. } = revocation;
    let bound = target.has_bound().then(|| allot(connection, *at)).transpose()?;
    let entry = LogEntry { id, event: revocation.event(bound), at: *at, until: *until };
    let position = append(connection, &entry)?;
    if let Some(rule) = &revocation.rule(bound) {
        write_rule(connection, rule)?;
    }
    match target {
        Target::Grant(grant) => {
            if !grants::revoke(connection, grant.as_bytes(), *at)? {
                grants::bury(connection, *grant, *until)?;
            }
        }
        Target::Token { grant, digest } => grants::revoke_token(connection, *grant, digest, *at)?,
        Target::Jti(_) | Target::Key(_) => {}
        Target::Subject(_) | Target::Client(_) | Target::SubjectAtClient(..) => {
            const SQL: &str = "INSERT INTO sweeps (position, key, bound, at, after) \
                               VALUES (?1, ?2, ?3, ?4, x'')";
            let key = target.rule_key().map(|key| key.to_bytes());
            let bound = bound.map(|bound| column(bound.get()));
            connection
                .prepare_cached(SQL)
                .and_then(|mut sql| {
                    sql.execute(params![position, key, bound, column(at.as_millis())])
                })
                .map_err(|error| failed("beginning a sweep", error))?;
            return Ok(Swept::More(position));
        }
    }
    Ok(Swept::All)
}

/// Takes the next step of a sweep, which revokes some grants. It reads only columns, so that it also
/// revokes a grant whose body is damaged. Another process may have finished the sweep.
pub(crate) fn sweep(connection: &Connection, position: i64) -> Result<Swept, StoreError> {
    let during = |error| failed("sweeping grants", error);
    let found = connection
        .prepare_cached("SELECT key, bound, at, after FROM sweeps WHERE position = ?1")
        .and_then(|mut sql| {
            sql.query_row([position], |row| {
                let key: Vec<u8> = row.get(0)?;
                Ok((key, time(row.get(1)?), time(row.get(2)?), row.get::<_, Vec<u8>>(3)?))
            })
            .optional()
        })
        .map_err(during)?;
    let Some((key, bound, at, after)) = found else { return Ok(Swept::All) };
    let (bound, at) = (Epoch::new(bound), UnixTime::from_millis(at));
    let of = match RuleKey::from_bytes(&key) {
        Ok(RuleKey::Subject(subject)) => Selector::Subject(subject),
        Ok(RuleKey::Client(client)) => Selector::Client(client),
        Ok(RuleKey::SubjectAtClient(subject, client)) => Selector::SubjectAtClient(subject, client),
        Ok(RuleKey::Jti(_) | RuleKey::Key(_)) | Err(_) => {
            end_sweep(connection, position)?;
            return Ok(Swept::Unreadable);
        }
    };
    let page = grants::sweepable(connection, &of, &after, SWEEP_BATCH)?;
    for (id, _) in page.iter().filter(|(_, epoch)| *epoch <= bound) {
        grants::revoke(connection, id, at)?;
    }
    match page.last() {
        Some((last, _)) if page.len() >= SWEEP_BATCH as usize => {
            connection
                .prepare_cached("UPDATE sweeps SET after = ?2 WHERE position = ?1")
                .and_then(|mut sql| sql.execute((position, last)))
                .map_err(during)?;
            Ok(Swept::More(position))
        }
        _ => {
            end_sweep(connection, position)?;
            Ok(Swept::All)
        }
    }
}

/// Removes a sweep that is finished or whose target cannot be read.
fn end_sweep(connection: &Connection, position: i64) -> Result<(), StoreError> {
    connection
        .prepare_cached("DELETE FROM sweeps WHERE position = ?1")
        .and_then(|mut sql| sql.execute([position]))
        .map_err(|error| failed("ending a sweep", error))?;
    Ok(())
}

/// The sweep of this log entry, if it is not finished.
pub(crate) fn sweep_of(connection: &Connection, entry: EntryId) -> Result<Option<i64>, StoreError> {
    const SQL: &str = "SELECT s.position FROM sweeps s JOIN log l ON l.position = s.position \
                       WHERE l.id = ?1";
    connection
        .prepare_cached(SQL)
        .and_then(|mut sql| sql.query_row([entry.as_bytes()], |row| row.get(0)).optional())
        .map_err(|error| failed("looking for a sweep", error))
}

/// The first sweep that is not finished.
pub(crate) fn unfinished(connection: &Connection) -> Result<Option<i64>, StoreError> {
    connection
        .prepare_cached("SELECT position FROM sweeps ORDER BY position LIMIT 1")
        .and_then(|mut sql| sql.query_row([], |row| row.get(0)).optional())
        .map_err(|error| failed("looking for sweeps", error))
}

pub(crate) fn heartbeat(
    connection: &Connection,
    id: EntryId,
    at: UnixTime,
    until: UnixTime,
) -> Result<(), StoreError> {
    schema::raise_bound(connection, at)?;
    append(connection, &LogEntry { id, event: LogEvent::Heartbeat {}, at, until }).map(|_| ())
}

/// Transactions commit one after another, and so in the order of positions: no reader can skip an entry
/// that commits late.
fn append(connection: &Connection, entry: &LogEntry) -> Result<i64, StoreError> {
    let until = column(entry.until.as_millis());
    connection
        .prepare_cached("INSERT INTO log (id, until, body) VALUES (?1, ?2, ?3)")
        .and_then(|mut sql| sql.insert((entry.id.as_bytes(), until, entry.to_body())))
        .map_err(|error| failed("writing the log", error))
}

fn allot(connection: &Connection, at: UnixTime) -> Result<Epoch, StoreError> {
    let bound = newest_bound(connection)?.next_bound(at);
    connection
        .prepare_cached("UPDATE state SET newest_bound = ?1")
        .and_then(|mut sql| sql.execute([column(bound.get())]))
        .map_err(|error| failed("allotting a bound", error))?;
    Ok(bound)
}

fn newest_bound(connection: &Connection) -> Result<Epoch, StoreError> {
    connection
        .prepare_cached("SELECT newest_bound FROM state")
        .and_then(|mut sql| sql.query_row([], |row| row.get(0)))
        .map(|bound| Epoch::new(time(bound)))
        .map_err(|error| failed("reading the newest bound", error))
}

/// A second rule on one key keeps the later bound and the later end.
fn write_rule(connection: &Connection, rule: &Rule) -> Result<(), StoreError> {
    const SQL: &str = "INSERT INTO rules (key, bound, until) VALUES (?1, ?2, ?3) \
                       ON CONFLICT (key) DO UPDATE SET \
                       bound = max(bound, excluded.bound), until = max(until, excluded.until)";
    let bound = rule.bound.map(|bound| column(bound.get()));
    let parameters = params![rule.key.to_bytes(), bound, column(rule.until.as_millis())];
    connection
        .prepare_cached(SQL)
        .and_then(|mut sql| sql.execute(parameters))
        .map_err(|error| failed("writing a rule", error))?;
    Ok(())
}

fn stored_rule(connection: &Connection, key: &RuleKey) -> Result<Option<Rule>, StoreError> {
    connection
        .prepare_cached(RULE)
        .and_then(|mut sql| {
            sql.query_row([key.to_bytes()], |row| {
                let bound = row.get::<_, Option<i64>>(0)?.map(|bound| Epoch::new(time(bound)));
                let until = UnixTime::from_millis(time(row.get(1)?));
                Ok(Rule { key: key.clone(), bound, until })
            })
            .optional()
        })
        .map_err(|error| failed("reading a rule", error))
}

/// Whether a rule of its subject, its client or the pair denies the grant.
pub(crate) fn denies(connection: &Connection, grant: &GrantRecord) -> Result<bool, StoreError> {
    for key in grant.rule_keys() {
        if stored_rule(connection, &key)?.is_some_and(|rule| rule.denies(grant.epoch)) {
            return Ok(true);
        }
    }
    Ok(false)
}

pub(crate) fn rules(connection: &Connection, keys: Vec<RuleKey>) -> Result<Rules, StoreError> {
    let mut found = HashMap::new();
    for key in keys {
        if let Some(rule) = stored_rule(connection, &key)? {
            found.insert(key, rule);
        }
    }
    // Read after the rules, so that the newest bound is no older than the bound of any of them.
    let newest_bound = newest_bound(connection)?;
    Ok(Rules { rules: found.into_values().collect(), newest_bound })
}

/// Entries that are added or trimmed between the statements do no harm: entries are read in order.
pub(crate) fn read(
    connection: &Connection,
    after: &Cursor,
    limit: u32,
) -> Result<RevocationBatch, StoreError> {
    let during = |error| failed("reading the log", error);
    let incarnation: [u8; 16] = connection
        .prepare_cached("SELECT incarnation FROM state")
        .and_then(|mut sql| sql.query_row([], |row| row.get(0)))
        .map_err(during)?;
    let Some(mut place) = locate(connection, after, incarnation)? else {
        return Ok(RevocationBatch::Gap);
    };
    let limit = limit.max(1);
    let mut statement = connection.prepare_cached(ENTRIES).map_err(during)?;
    let rows = statement
        .query_map((column(place.position), i64::from(limit) + 1), |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, Vec<u8>>(1)?))
        })
        .map_err(during)?;
    let (mut entries, mut more) = (Vec::new(), false);
    for row in rows {
        let (position, body) = row.map_err(during)?;
        more = entries.len() >= limit as usize;
        if more {
            break;
        }
        let entry = LogEntry::from_body(&body)?;
        place = place.advanced(time(position), &entry);
        entries.push(entry);
    }
    drop(statement);
    let newest_bound = newest_bound(connection)?;
    let next = if entries.is_empty() { after.clone() } else { Cursor::after(&place) };
    Ok(RevocationBatch::Entries { entries, next, more, newest_bound })
}

/// The place after which to read on; `None` is a gap.
fn locate(
    connection: &Connection,
    cursor: &Cursor,
    incarnation: [u8; 16],
) -> Result<Option<CursorPlace>, StoreError> {
    let start = CursorPlace {
        incarnation,
        position: 0,
        entry: EntryId::from_bytes([0; 16]),
        revocation: None,
    };
    if cursor.is_start() {
        return Ok(Some(start));
    }
    let Some(place) = CursorPlace::of(cursor).filter(|place| place.incarnation == incarnation)
    else {
        return Ok(None);
    };
    match entry_at(connection, place.position)? {
        Some(entry) => return Ok((entry == place.entry).then_some(place)),
        // The newest entry is never trimmed, so the log has lost entries.
        None if newest(connection)? < place.position => return Ok(None),
        None => {}
    }
    // It was trimmed. If the newest revocation is still there, only heartbeats were trimmed.
    let Some((position, entry)) = place.revocation else { return Ok(Some(start)) };
    let is_there = entry_at(connection, position)? == Some(entry);
    Ok(is_there.then_some(CursorPlace { position, entry, ..place }))
}

fn entry_at(connection: &Connection, position: u64) -> Result<Option<EntryId>, StoreError> {
    connection
        .prepare_cached("SELECT id FROM log WHERE position = ?1")
        .and_then(|mut sql| sql.query_row([column(position)], |row| row.get(0)).optional())
        .map(|id| id.map(EntryId::from_bytes))
        .map_err(|error| failed("reading the log", error))
}

/// The position of the newest entry; 0 if there was none yet.
pub(crate) fn newest(connection: &Connection) -> Result<u64, StoreError> {
    connection
        .prepare_cached("SELECT max(position) FROM log")
        .and_then(|mut sql| sql.query_row([], |row| row.get::<_, Option<i64>>(0)))
        .map(|position| position.map_or(0, time))
        .map_err(|error| failed("reading the log's head", error))
}
