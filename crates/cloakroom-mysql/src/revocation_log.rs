//! The revocation log: how entries get their positions, and how readers continue from a cursor.

use cloakroom_core::revocation::{
    Cursor, CursorPlace, EntryId, Epoch, LogEntry, LogEvent, Revocation, RevocationBatch, Target,
};
use cloakroom_core::time::UnixTime;
use mysql_async::{Row, Value};

use crate::connection::{Answer, Connection, Script};
use crate::error::Failure;
use crate::pool::{Lane, Operation};
use crate::rows::{binary, bytes, column, get, marks, time};
use crate::rules::not_prepared;

/// What is to be written to the log.
#[derive(Debug, Clone)]
pub(crate) enum Append {
    Revocation(EntryId, Box<Revocation>),
    Heartbeat { id: EntryId, at: UnixTime, until: UnixTime },
}

impl Append {
    const fn id(&self) -> EntryId {
        match self {
            Self::Revocation(id, _) | Self::Heartbeat { id, .. } => *id,
        }
    }

    /// Whether a sweep follows.
    pub(crate) fn sweeps(&self) -> bool {
        matches!(self, Self::Revocation(_, revocation) if revocation.target.has_bound())
    }

    /// The rows that the revocation changes by itself, in the order in which all transactions lock them.
    fn rows(&self) -> (Option<[u8; 16]>, Option<[u8; 32]>) {
        match self {
            Self::Revocation(_, revocation) => match &revocation.target {
                Target::Grant(grant) => (Some(*grant.as_bytes()), None),
                Target::Token { grant, digest } => {
                    (Some(*grant.as_bytes()), Some(*digest.as_bytes()))
                }
                _ => (None, None),
            },
            Self::Heartbeat { .. } => (None, None),
        }
    }
}

/// Appends entries, with what they revoke, in one transaction.
///
/// # Isolation
///
/// `FOR UPDATE` on the one row of `state` is the last lock but those on rows that only this transaction
/// inserts, and is held until the commit. So the transactions that append commit one after another, in the
/// order of the positions that they take: a reader that sees a position sees every lower one. The locking
/// read returns the newest committed version, whatever snapshot the transaction has.
///
/// Rows of grants are locked first, by id; then rows of tokens; then the row of `state`; then rules, which
/// nobody locks without the row of `state` but housekeeping, which skips what is locked. So no two of these
/// transactions wait for each other.
///
/// The unique id of an entry tells that the transaction was committed before, and its answer lost.
pub(crate) struct AppendAll {
    pub(crate) entries: Vec<Append>,
}

/// What [`AppendAll`] did.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Appended {
    /// The position of the newest entry.
    pub(crate) newest: u64,
}

impl Operation for AppendAll {
    type Answer = Appended;

    const CONTEXT: &'static str = "writing the revocation log";
    const LANE: Lane = Lane::Log;

    async fn run(&self, connection: &mut Connection) -> Result<Appended, Failure> {
        // The entries count as well, in case the row alone was restored from a copy.
        const STATE: &str = "SELECT GREATEST(position, \
            COALESCE((SELECT MAX(position) FROM ~log), 0)), newest_bound \
            FROM ~state WHERE id = 0 FOR UPDATE";
        // Never lower, whatever was read: a lower bound would be allotted a second time.
        const RAISE: &str = "UPDATE ~state SET position = GREATEST(position, ?), \
            newest_bound = GREATEST(newest_bound, ?) WHERE id = 0";
        let mut script = Script::transaction();
        let effects = self.effects();
        script.append(&effects).then(STATE, &[]);
        let answers = connection.script(&script).await?;
        let Some(mut state) =
            answers.into_iter().last().and_then(|state| state.rows.into_iter().next())
        else {
            return Err(not_prepared());
        };
        let position: i64 = get(&mut state, 0)?;
        let bound: i64 = get(&mut state, 1)?;

        let mut numbering = Numbering { position, bound: Epoch::new(time(bound)) };
        let (mut log, mut rules) = (Script::new(), Script::new());
        for append in &self.entries {
            let (entry, bound) = numbering.next(append);
            log_entry(&mut log, numbering.position, &entry);
            if let Append::Revocation(id, revocation) = append {
                leave(&mut rules, numbering.position, *id, revocation, bound);
            }
        }
        let mut script = Script::resumed();
        // The entries come first, since they tell whether the rest was done.
        script.append(&log).append(&rules);
        script.then(RAISE, &[Value::Int(numbering.position), column(numbering.bound.get())]);
        script.commit();
        match connection.script(&script).await {
            Ok(_) => Ok(Appended { newest: time(numbering.position) }),
            Err(failure) if failure.is_duplicate() => {
                connection.roll_back().await?;
                if !self.is_committed(connection).await? {
                    return Err(failure.overtaken());
                }
                // Should a node ever lose a transaction in the middle of that packet, the entries may be
                // there without what the first packet did. To do it twice changes nothing.
                if !effects.is_empty() {
                    connection.script(&effects).await?;
                }
                Ok(Appended { newest: newest(connection).await? })
            }
            Err(failure) => Err(failure),
        }
    }
}

impl AppendAll {
    /// What the entries do to the rows of grants and tokens, in the order in which all transactions lock them.
    fn effects(&self) -> Script {
        let mut appends: Vec<&Append> = self.entries.iter().collect();
        appends.sort_by_key(|append| {
            let (grant, token) = append.rows();
            (token.is_some(), grant, token)
        });
        let mut script = Script::new();
        for append in appends {
            if let Append::Revocation(_, revocation) = append {
                revoke(&mut script, revocation);
            }
        }
        script
    }

    /// Whether a transaction whose answer was lost has written the entries.
    async fn is_committed(&self, connection: &mut Connection) -> Result<bool, Failure> {
        let ids: Vec<Value> =
            self.entries.iter().map(|append| binary(append.id().as_bytes())).collect();
        let sql = format!("SELECT COUNT(*) FROM ~log WHERE id IN ({})", marks(ids.len()));
        let mut script = Script::new();
        script.then(&sql, &ids);
        let answers = connection.script(&script).await?;
        let count = answers.into_iter().next().and_then(|answer| answer.rows.into_iter().next());
        Ok(match count {
            Some(mut row) => get::<u64>(&mut row, 0)? == ids.len() as u64,
            None => false,
        })
    }
}

/// The position and the bound of the newest entry.
struct Numbering {
    position: i64,
    bound: Epoch,
}

impl Numbering {
    fn next(&mut self, append: &Append) -> (LogEntry, Option<Epoch>) {
        self.position += 1;
        match append {
            Append::Revocation(id, revocation) => {
                let Revocation { target, at, until, .. } = &**revocation;
                let bound = target.has_bound().then(|| self.bound.next_bound(*at));
                self.bound = bound.unwrap_or(self.bound);
                let event = revocation.event(bound);
                (LogEntry { id: *id, event, at: *at, until: *until }, bound)
            }
            Append::Heartbeat { id, at, until } => {
                self.bound = self.bound.max(Epoch::new(at.as_millis()));
                let event = LogEvent::Heartbeat {};
                (LogEntry { id: *id, event, at: *at, until: *until }, None)
            }
        }
    }
}

/// Adds what a revocation does to the row of its grant or token. A grant without a row gets a tombstone under
/// the same primary key, so that a create cannot overlook it.
fn revoke(script: &mut Script, revocation: &Revocation) {
    const GRANT: &str = "INSERT INTO ~grants (id, client, subject, epoch, expires_at, \
        row_expires_at, revoked_at, tombstone, body) VALUES (?, '', '', 0, 0, ?, ?, 1, '') \
        ON DUPLICATE KEY UPDATE revoked_at = COALESCE(revoked_at, ?), \
        row_expires_at = IF(tombstone = 1, GREATEST(row_expires_at, ?), row_expires_at)";
    const TOKEN: &str = "UPDATE ~tokens SET revoked_at = COALESCE(revoked_at, ?) \
        WHERE grant_id = ? AND digest = ?";
    let at = column(revocation.at.as_millis());
    match &revocation.target {
        Target::Grant(grant) => {
            let until = column(revocation.until.as_millis());
            let id = binary(grant.as_bytes());
            script.then(GRANT, &[id, until.clone(), at.clone(), at, until]);
        }
        Target::Token { grant, digest } => {
            let token = [binary(grant.as_bytes()), binary(digest.as_bytes())];
            let [grant, digest] = token;
            script.then(TOKEN, &[at, grant, digest]);
        }
        _ => {}
    }
}

/// Adds the rule of a revocation, and the record of its sweep.
fn leave(
    script: &mut Script,
    position: i64,
    entry: EntryId,
    revocation: &Revocation,
    bound: Option<Epoch>,
) {
    // A second rule on a key keeps the later bound and the later end. No bound covers every bound:
    // `GREATEST` of NULL is NULL.
    const RULE: &str = "INSERT INTO ~rules (rule_key, bound, ends_at) VALUES (?, ?, ?) \
        ON DUPLICATE KEY UPDATE bound = GREATEST(bound, ?), ends_at = GREATEST(ends_at, ?)";
    const SWEEP: &str = "INSERT INTO ~sweeps (position, entry, rule_key, bound, revoked_at, \
        last_id) VALUES (?, ?, ?, ?, ?, '')";
    let Some(rule) = revocation.rule(bound) else { return };
    let key = binary(&rule.key.to_bytes());
    let bound = rule.bound.map_or(Value::NULL, |bound| column(bound.get()));
    let until = column(rule.until.as_millis());
    script.then(RULE, &[key.clone(), bound.clone(), until.clone(), bound.clone(), until]);
    if revocation.target.has_bound() {
        let at = column(revocation.at.as_millis());
        let id = binary(entry.as_bytes());
        script.then(SWEEP, &[Value::Int(position), id, key, bound, at]);
    }
}

/// Adds an entry to the one statement that inserts all of them.
fn log_entry(log: &mut Script, position: i64, entry: &LogEntry) {
    let values = [
        Value::Int(position),
        binary(entry.id.as_bytes()),
        column(entry.until.as_millis()),
        binary(&entry.to_body()),
    ];
    if log.is_empty() {
        log.then("INSERT INTO ~log (position, id, ends_at, body) VALUES (?, ?, ?, ?)", &values);
    } else {
        log.more(", (?, ?, ?, ?)", &values);
    }
}

/// The position of the newest entry; 0 if there was none yet.
pub(crate) async fn newest(connection: &mut Connection) -> Result<u64, Failure> {
    const SQL: &str = "SELECT position FROM ~state WHERE id = 0";
    let mut row = connection.row(SQL, vec![]).await?.ok_or_else(not_prepared)?;
    Ok(time(get(&mut row, 0)?))
}

/// The position of the newest entry.
pub(crate) struct Newest;

impl Operation for Newest {
    type Answer = u64;

    const CONTEXT: &'static str = "reading the log's head";
    const LANE: Lane = Lane::Log;

    async fn run(&self, connection: &mut Connection) -> Result<u64, Failure> {
        newest(connection).await
    }
}

/// Reads entries after a cursor, in one packet. Each statement sees what was committed before it began. An
/// entry that is added or trimmed between them does no harm: positions only grow, an entry is trimmed only
/// after its end, and the bound is read last.
pub(crate) struct ReadLog {
    pub(crate) after: Cursor,
    pub(crate) limit: u32,
}

impl Operation for ReadLog {
    type Answer = RevocationBatch;

    const CONTEXT: &'static str = "reading the revocation log";
    const LANE: Lane = Lane::Log;

    async fn run(&self, connection: &mut Connection) -> Result<RevocationBatch, Failure> {
        const PLACE: &str = "SELECT s.incarnation, s.position, a.id, b.id FROM ~state s \
            LEFT JOIN ~log a ON a.position = ? LEFT JOIN ~log b ON b.position = ? WHERE s.id = 0";
        let place = CursorPlace::of(&self.after);
        if place.is_none() && !self.after.is_start() {
            return Ok(RevocationBatch::Gap);
        }
        let limit = self.limit.max(1);
        let position = place.map_or(0, |place| place.position);
        let revocation = place.and_then(|place| place.revocation).map_or(0, |(at, _)| at);
        let mut script = Script::new();
        script.then(PLACE, &[column(position), column(revocation)]);
        entries(&mut script, position, limit);
        let [state, found, bound] = three(connection.script(&script).await?)?;
        let mut state = state.rows.into_iter().next().ok_or_else(not_prepared)?;
        let log = Log {
            incarnation: bytes(&mut state, 0)?,
            newest: time(get(&mut state, 1)?),
            at_position: entry_id(&mut state, 2)?,
            at_revocation: entry_id(&mut state, 3)?,
        };
        let Some(start) = log.locate(place) else { return Ok(RevocationBatch::Gap) };
        if start.position == position {
            return self.batch(start, found.rows, bound, limit);
        }
        // Only heartbeats were trimmed: it goes on after the newest revocation that was read.
        let mut script = Script::new();
        script.then("DO 0", &[]);
        entries(&mut script, start.position, limit);
        let [_, found, bound] = three(connection.script(&script).await?)?;
        self.batch(start, found.rows, bound, limit)
    }
}

/// A page of the log.
pub(crate) const ENTRIES: &str =
    "SELECT position, body FROM ~log WHERE position > ? ORDER BY position LIMIT ?";

/// Adds the statements that read entries, and then the newest bound.
fn entries(script: &mut Script, after: u64, limit: u32) {
    const BOUND: &str = "SELECT newest_bound FROM ~state WHERE id = 0";
    let limit = Value::Int(i64::from(limit) + 1);
    script.then(ENTRIES, &[column(after), limit]).then(BOUND, &[]);
}

fn three(answers: Vec<Answer>) -> Result<[Answer; 3], Failure> {
    answers.try_into().map_err(|_| not_prepared())
}

fn entry_id(row: &mut Row, index: usize) -> Result<Option<EntryId>, Failure> {
    let id: Option<Vec<u8>> = get(row, index)?;
    // An id of another length is none that a cursor names.
    Ok(id.and_then(|id| id.try_into().ok()).map(EntryId::from_bytes))
}

impl ReadLog {
    fn batch(
        &self,
        mut place: CursorPlace,
        rows: Vec<Row>,
        bound: Answer,
        limit: u32,
    ) -> Result<RevocationBatch, Failure> {
        let more = rows.len() > limit as usize;
        let mut entries = Vec::new();
        for mut row in rows.into_iter().take(limit as usize) {
            let entry = LogEntry::from_body(&get::<Vec<u8>>(&mut row, 1)?)?;
            place = place.advanced(time(get(&mut row, 0)?), &entry);
            entries.push(entry);
        }
        let mut bound = bound.rows.into_iter().next().ok_or_else(not_prepared)?;
        let newest_bound = Epoch::new(time(get(&mut bound, 0)?));
        let next = if entries.is_empty() { self.after.clone() } else { Cursor::after(&place) };
        Ok(RevocationBatch::Entries { entries, next, more, newest_bound })
    }
}

/// What the log says about the place of a cursor.
struct Log {
    incarnation: [u8; 16],
    newest: u64,
    at_position: Option<EntryId>,
    at_revocation: Option<EntryId>,
}

impl Log {
    /// The place after which to read on; `None` is a gap.
    fn locate(&self, place: Option<CursorPlace>) -> Option<CursorPlace> {
        let start = CursorPlace {
            incarnation: self.incarnation,
            position: 0,
            entry: EntryId::from_bytes([0; 16]),
            revocation: None,
        };
        let Some(place) = place else { return Some(start) };
        if place.incarnation != self.incarnation {
            return None;
        }
        match self.at_position {
            Some(entry) => return (entry == place.entry).then_some(place),
            // The newest entry is never trimmed, so the log has lost entries.
            None if self.newest <= place.position => return None,
            None => {}
        }
        // It was trimmed. If the newest revocation is still there, only heartbeats were trimmed.
        let Some((position, entry)) = place.revocation else { return Some(start) };
        (self.at_revocation == Some(entry)).then_some(CursorPlace { position, entry, ..place })
    }
}

#[cfg(test)]
mod tests;
