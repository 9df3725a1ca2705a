//! Reading the revocation log, its rules, and the sweeps of its entries.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use cloakroom_core::record::GrantRecord;
use cloakroom_core::revocation::{
    Cursor, CursorPlace, EntryId, Epoch, LogEntry, LogEvent, RevocationBatch, Rule, RuleKey, Rules,
    Target,
};
use cloakroom_core::store::StoreError;
use cloakroom_core::time::UnixTime;
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use crate::error::{damaged, failed};
use crate::pool::{Kind, Pool};
use crate::rows::{array, column, get, time};
use crate::sql::{Sql, rounded};

/// Rules, and the newest bound of the same snapshot: an append commits its rule and its bound together, so the
/// newest bound is no older than the bound of any rule.
pub(crate) static RULES: Sql = Sql::new(
    "SELECT s.newest_bound, r.key, r.bound, r.until FROM cloakroom.log_state s \
     LEFT JOIN cloakroom.rules r ON r.key = ANY ($1)",
    &[Type::BYTEA_ARRAY],
);

const RULE: &str = "a rule's row";
const ENTRY: &str = "an entry of the revocation log";
const STATE: &str = "the state of the revocation log";

pub(crate) async fn rules(pool: &Pool, keys: Vec<RuleKey>) -> Result<Rules, StoreError> {
    let during = "reading rules";
    let by_bytes: HashMap<Vec<u8>, RuleKey> =
        keys.into_iter().map(|key| (key.to_bytes(), key)).collect();
    let bytes: Vec<&[u8]> = by_bytes.keys().map(Vec::as_slice).collect();
    let rows = pool.query(during, Kind::Read, (&RULES, 0), &[&bytes]).await?;
    let newest_bound = rows
        .first()
        .ok_or_else(|| StoreError::corrupt(STATE, "it has no row"))
        .and_then(|row| bound(STATE, row, 0))?;
    let mut found = Vec::new();
    for row in &rows {
        let Some(key) = get::<Option<&[u8]>>(RULE, row, 1)? else { continue };
        let Some(key) = by_bytes.get(key) else { continue };
        let bound = get::<Option<i64>>(RULE, row, 2)?.map(|bound| Epoch::new(time(bound)));
        let until = UnixTime::from_millis(time(get(RULE, row, 3)?));
        found.push(Rule { key: key.clone(), bound, until });
    }
    Ok(Rules { rules: found, newest_bound })
}

fn bound(what: &'static str, row: &Row, index: usize) -> Result<Epoch, StoreError> {
    Ok(Epoch::new(time(get(what, row, index)?)))
}

/// Those of the grants that no rule denies.
pub(crate) async fn undenied(
    pool: &Pool,
    grants: Vec<Arc<GrantRecord>>,
) -> Result<Vec<Arc<GrantRecord>>, StoreError> {
    let keys: HashSet<RuleKey> = grants.iter().flat_map(|grant| grant.rule_keys()).collect();
    if keys.is_empty() {
        return Ok(grants);
    }
    let rules = rules(pool, keys.into_iter().collect()).await?.rules;
    let by_key: HashMap<&RuleKey, &Rule> = rules.iter().map(|rule| (&rule.key, rule)).collect();
    let is_denied = |grant: &GrantRecord| {
        grant
            .rule_keys()
            .iter()
            .any(|key| by_key.get(key).is_some_and(|rule| rule.denies(grant.epoch)))
    };
    Ok(grants.into_iter().filter(|grant| !is_denied(grant)).collect())
}

/// The head of the log, and the entries at the two places that a cursor names.
///
/// All of it is of one snapshot. Positions commit in order, so an entry that is not there was trimmed, or lost
/// if the head is lower.
static LOCATE: Sql = Sql::new(
    "SELECT s.incarnation, s.position, \
         (SELECT id FROM cloakroom.log WHERE position = $1), \
         (SELECT id FROM cloakroom.log WHERE position = $2) \
     FROM cloakroom.log_state s",
    &[Type::INT8, Type::INT8],
);

/// The entries after a position, and the newest bound of the same snapshot.
///
/// An append holds the lock of the one row of `log_state` from before it takes its positions until its commit.
/// So a snapshot that shows a position shows every lower one.
pub(crate) static ENTRIES: Sql = Sql::new(
    "SELECT s.newest_bound, l.position, l.bound, l.body FROM cloakroom.log_state s \
     LEFT JOIN LATERAL ( \
         SELECT position, bound, body FROM cloakroom.log WHERE position > $1 \
         ORDER BY position LIMIT $LIMIT) l ON true \
     ORDER BY l.position",
    &[Type::INT8],
);

/// The most entries of a batch. A batch may be shorter than the limit of its reader.
const LONGEST_BATCH: u32 = 4096;

/// Entries that are added or trimmed between the two statements do no harm: entries are read in order, and
/// trimmed only after their end.
pub(crate) async fn read(
    pool: &Pool,
    after: &Cursor,
    limit: u32,
) -> Result<RevocationBatch, StoreError> {
    let during = "reading the revocation log";
    let place = CursorPlace::of(after);
    if place.is_none() && !after.is_start() {
        return Ok(RevocationBatch::Gap);
    }
    let limit = rounded(limit, LONGEST_BATCH);
    let position = |position: Option<u64>| position.map_or(-1, column);
    let last = position(place.map(|place| place.position));
    let revocation = position(place.and_then(|place| Some(place.revocation?.0)));
    let (mut rows, located) = {
        // Both in one flight: the entry of the cursor is nearly always there.
        let session = pool.session(during).await?;
        let error = |error| failed(during, error);
        let locate = session.prepared(&LOCATE, 0).await.map_err(error)?;
        let entries = session.prepared(&ENTRIES, limit + 1).await.map_err(error)?;
        let after = last.max(0);
        let (located, rows) =
            session.run_both((&locate, &[&last, &revocation]), (&entries, &[&after])).await;
        (rows.map_err(error)?, located.map_err(error)?)
    };
    let Some(mut at) = resume(place, &located)? else { return Ok(RevocationBatch::Gap) };
    if column(at.position) != last.max(0) {
        let after = column(at.position);
        rows = pool.query(during, Kind::Read, (&ENTRIES, limit + 1), &[&after]).await?;
    }
    let newest_bound = rows
        .first()
        .ok_or_else(|| StoreError::corrupt(STATE, "it has no row"))
        .and_then(|row| bound(STATE, row, 0))?;
    let (mut entries, mut more) = (Vec::new(), false);
    for row in &rows {
        let Some(position) = get::<Option<i64>>(ENTRY, row, 1)? else { continue };
        more = entries.len() >= limit as usize;
        if more {
            break;
        }
        let entry = entry(row)?;
        at = at.advanced(time(position), &entry);
        entries.push(entry);
    }
    let next = if entries.is_empty() { after.clone() } else { Cursor::after(&at) };
    Ok(RevocationBatch::Entries { entries, next, more, newest_bound })
}

/// The entry of a row. Its bound is in a column, since it is known only when the body is written.
fn entry(row: &Row) -> Result<LogEntry, StoreError> {
    let mut entry = LogEntry::from_body(get(ENTRY, row, 3)?)?;
    if let (LogEvent::Revoked { bound, .. }, Some(column)) =
        (&mut entry.event, get::<Option<i64>>(ENTRY, row, 2)?)
    {
        *bound = Some(Epoch::new(time(column)));
    }
    Ok(entry)
}

/// The place after which to read on; `None` is a gap.
fn resume(cursor: Option<CursorPlace>, located: &[Row]) -> Result<Option<CursorPlace>, StoreError> {
    let row = located.first().ok_or_else(|| StoreError::corrupt(STATE, "it has no row"))?;
    let incarnation = array(STATE, get(STATE, row, 0)?)?;
    let newest = time(get(STATE, row, 1)?);
    let entry_at = |index| -> Result<Option<EntryId>, StoreError> {
        let Some(id) = get::<Option<&[u8]>>(ENTRY, row, index)? else { return Ok(None) };
        Ok(Some(EntryId::from_bytes(array(ENTRY, id)?)))
    };
    let start = CursorPlace {
        incarnation,
        position: 0,
        entry: EntryId::from_bytes([0; 16]),
        revocation: None,
    };
    let Some(place) = cursor else { return Ok(Some(start)) };
    if place.incarnation != incarnation {
        return Ok(None);
    }
    match entry_at(2)? {
        Some(entry) => return Ok((entry == place.entry).then_some(place)),
        // The log has lost entries.
        None if newest < place.position => return Ok(None),
        None => {}
    }
    // It was trimmed. If the newest revocation is still there, only heartbeats were trimmed.
    let Some((position, entry)) = place.revocation else { return Ok(Some(start)) };
    let is_there = entry_at(3)? == Some(entry);
    Ok(is_there.then_some(CursorPlace { position, entry, ..place }))
}

/// How many grants a step of a sweep looks at.
const SWEEP_BATCH: i64 = 512;

/// A step of a sweep: flags the grants of the next page whose epoch the bound covers, and notes how far it
/// came, or removes the record of the sweep if the page was the last one.
///
/// READ COMMITTED: it begins after the entry and the rule are committed, so its snapshot has every grant whose
/// `create` did not see the rule. Rows are locked in the order of their ids, as in every statement that locks
/// several, so two sweeps wait for each other but never in a circle. A row that a refresh changes meanwhile
/// is checked again, and flagged as the refresh left it. A second node that does the same step waits for
/// the record of the sweep; then it goes on where the first one stopped.
macro_rules! sweep {
    ($owner:literal, $filter:literal) => {
        concat!(
            "WITH sweep AS ( \
                 SELECT after, bound, at FROM cloakroom.sweeps WHERE position = $1 FOR UPDATE), \
             page AS ( \
                 SELECT g.id, g.epoch, g.client FROM sweep, LATERAL ( \
                     SELECT id, epoch, client FROM cloakroom.grants \
                     WHERE (",
            $owner,
            ", id) > ($2, sweep.after) AND ",
            $owner,
            " <= $2 AND revoked_at IS NULL ORDER BY ",
            $owner,
            ", id LIMIT 512) g), \
             held AS ( \
                 SELECT g.id FROM cloakroom.grants g \
                 WHERE g.id IN (SELECT page.id FROM page, sweep WHERE page.epoch <= sweep.bound ",
            $filter,
            ") AND g.revoked_at IS NULL ORDER BY g.id FOR NO KEY UPDATE), \
             flagged AS ( \
                 UPDATE cloakroom.grants g SET revoked_at = sweep.at FROM held, sweep \
                 WHERE g.id = held.id AND g.revoked_at IS NULL), \
             reached AS ( \
                 SELECT count(*) AS rows, (SELECT id FROM page ORDER BY id DESC LIMIT 1) AS last FROM page), \
             noted AS ( \
                 UPDATE cloakroom.sweeps s SET after = reached.last FROM reached \
                 WHERE s.position = $1 AND reached.rows >= 512), \
             ended AS ( \
                 DELETE FROM cloakroom.sweeps s USING reached, sweep \
                 WHERE s.position = $1 AND reached.rows < 512) \
             SELECT reached.rows FROM reached, sweep"
        )
    };
}

static SWEEP_SUBJECT: Sql = Sql::new(sweep!("subject", ""), &[Type::INT8, Type::BYTEA]);
static SWEEP_CLIENT: Sql = Sql::new(sweep!("client", ""), &[Type::INT8, Type::BYTEA]);
static SWEEP_BOTH: Sql =
    Sql::new(sweep!("subject", "AND page.client = $3"), &[Type::INT8, Type::BYTEA, Type::BYTEA]);

/// Whether a sweep is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Swept {
    All,
    More,
}

/// Takes the next step of the sweep at this position of the log, which revokes some grants. It reads only
/// columns, so that it also revokes a grant whose body is damaged. Another node may have finished the sweep.
pub(crate) async fn sweep(
    pool: &Pool,
    position: i64,
    target: &SweepTarget,
) -> Result<Swept, StoreError> {
    let during = "sweeping grants";
    let rows = match target {
        SweepTarget::Subject(subject) => {
            pool.query(during, Kind::Write, (&SWEEP_SUBJECT, 0), &[&position, subject]).await?
        }
        SweepTarget::Client(client) => {
            pool.query(during, Kind::Write, (&SWEEP_CLIENT, 0), &[&position, client]).await?
        }
        SweepTarget::Both(subject, client) => {
            pool.query(during, Kind::Write, (&SWEEP_BOTH, 0), &[&position, subject, client]).await?
        }
    };
    let Some(row) = rows.first() else { return Ok(Swept::All) };
    let rows: i64 = get("a count", row, 0)?;
    Ok(if rows >= SWEEP_BATCH { Swept::More } else { Swept::All })
}

/// The columns that a sweep compares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SweepTarget {
    Subject(Vec<u8>),
    Client(Vec<u8>),
    Both(Vec<u8>, Vec<u8>),
}

impl SweepTarget {
    /// `None` if the revocation sweeps nothing.
    pub(crate) fn of(target: &Target) -> Option<Self> {
        Self::of_key(&target.rule_key()?)
    }

    fn of_key(key: &RuleKey) -> Option<Self> {
        Some(match key {
            RuleKey::Subject(subject) => Self::Subject(subject.to_key().into_bytes()),
            RuleKey::Client(client) => Self::Client(client.as_str().as_bytes().to_vec()),
            RuleKey::SubjectAtClient(subject, client) => {
                Self::Both(subject.to_key().into_bytes(), client.as_str().as_bytes().to_vec())
            }
            RuleKey::Jti(_) | RuleKey::Key(_) => return None,
        })
    }
}

static END_SWEEP: Sql = Sql::new("DELETE FROM cloakroom.sweeps WHERE position = $1", &[Type::INT8]);

/// A sweep that is not finished.
#[derive(Debug)]
pub(crate) struct Unfinished {
    position: i64,
    /// What it sweeps; `None` if that cannot be read.
    target: Option<SweepTarget>,
}

impl Unfinished {
    pub(crate) fn new(position: i64, key: &[u8]) -> Self {
        let target = RuleKey::from_bytes(key).ok().and_then(|key| SweepTarget::of_key(&key));
        Self { position, target }
    }
}

/// Takes the next step of a sweep. One whose target cannot be read is removed, since it would stop all later
/// housekeeping. Returns whether it could be read.
pub(crate) async fn continue_sweep(pool: &Pool, sweep: &Unfinished) -> Result<bool, StoreError> {
    match &sweep.target {
        Some(target) => self::sweep(pool, sweep.position, target).await.map(|_| true),
        None => {
            let during = "ending a sweep";
            pool.query(during, Kind::Write, (&END_SWEEP, 0), &[&sweep.position]).await?;
            Ok(false)
        }
    }
}

/// The position of the newest entry.
pub(crate) static HEAD: Sql = Sql::new("SELECT position FROM cloakroom.log_state", &[]);

/// What the statement that appends returned.
pub(crate) fn appended(row: &Row) -> Result<i64, StoreError> {
    row.try_get(0).map_err(|error| damaged(STATE, error))
}

/// For a look at their plans.
#[cfg(test)]
pub(crate) const STATEMENTS: &[(&str, &Sql)] = &[
    ("RULES", &RULES),
    ("LOCATE", &LOCATE),
    ("ENTRIES", &ENTRIES),
    ("SWEEP_SUBJECT", &SWEEP_SUBJECT),
    ("SWEEP_CLIENT", &SWEEP_CLIENT),
    ("SWEEP_BOTH", &SWEEP_BOTH),
    ("END_SWEEP", &END_SWEEP),
    ("HEAD", &HEAD),
];
