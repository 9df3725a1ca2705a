//! Appending to the revocation log. Waiting appends share a statement, which has one commit.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use cloakroom_core::revocation::{EntryId, LogEntry, LogEvent, Revocation, Rule, Target};
use cloakroom_core::store::StoreError;
use cloakroom_core::time::UnixTime;
use tokio::sync::{mpsc, oneshot};
use tokio_postgres::types::Type;

use crate::error::{BatchFailed, Failed, failed};
use crate::pool::{Kind, Pool};
use crate::revocation_log::appended;
use crate::rows::column;
use crate::settings::Settings;
use crate::sql::Sql;
use crate::watch::Growth;

/// The most appends that share a statement: enough to spread the cost of its commit, and few enough that none
/// waits long for the others.
const BATCH: usize = 256;

/// How many appends may wait. Beyond that, a revocation is an outage.
const QUEUE: usize = 8_192;

/// The room for heartbeats beyond that: a flood of revocations must not make the log look dead.
const RESERVE: usize = 1_024;

/// Appends entries, allots their bounds, writes their rules and the records of their sweeps, and revokes the
/// grants and tokens that they name: all or nothing.
///
/// READ COMMITTED: `head` waits for the lock of the one row and reads what the append before it committed. It
/// holds the lock until its own commit, so positions and bounds become visible in their order. Everything
/// else depends on `head`, so that all appends take that lock first. Grants are locked in the order of their
/// ids, as sweeps lock them, so nobody waits in a circle.
///
/// The upsert of a grant finds any row with its id, also one that another transaction is inserting and that
/// this one waits for. If there is none, it leaves a tombstone, with which a later insert collides.
static APPEND: Sql = Sql::new(
    "WITH head AS ( \
         UPDATE cloakroom.log_state SET position = position + cardinality($1), \
             newest_bound = CASE \
                 WHEN $5 = 0 THEN greatest(newest_bound, $6) \
                 ELSE least(greatest(newest_bound::numeric + 1, $6) + $5 - 1, \
                     9223372036854775807)::bigint END \
         RETURNING position - cardinality($1) AS before, newest_bound - $5 + 1 AS first_bound), \
     entries AS ( \
         INSERT INTO cloakroom.log (position, id, body, until, bound) \
         SELECT head.before + e.number, e.id, e.body, e.until, head.first_bound + e.bound FROM head, \
             unnest($1, $2, $3, $4) WITH ORDINALITY AS e (id, body, until, bound, number)), \
     ruled AS ( \
         INSERT INTO cloakroom.rules AS r (key, bound, until) \
         SELECT e.key, head.first_bound + e.bound, e.until FROM head, \
             unnest($7, $8, $9) AS e (key, bound, until) \
         ON CONFLICT (key) DO UPDATE SET until = greatest(r.until, excluded.until), \
             bound = CASE WHEN r.bound IS NULL OR excluded.bound IS NULL THEN NULL \
                 ELSE greatest(r.bound, excluded.bound) END), \
     begun AS ( \
         INSERT INTO cloakroom.sweeps (position, entry, key, bound, at, after) \
         SELECT head.before + e.number, e.entry, e.key, head.first_bound + e.bound, e.at, '' FROM head, \
             unnest($10, $11, $12, $13, $14) AS e (number, entry, key, bound, at)), \
     revoked AS ( \
         INSERT INTO cloakroom.grants AS g \
             (id, revoked_at, row_expires_at, expires_at, due, epoch, client, subject) \
         SELECT e.id, e.at, e.until, e.until, e.until, 0, '', '' FROM head, \
             unnest($15, $16, $17) AS e (id, at, until) ORDER BY e.id \
         ON CONFLICT (id) DO UPDATE SET revoked_at = coalesce(g.revoked_at, excluded.revoked_at), \
             row_expires_at = CASE WHEN g.body IS NULL \
                 THEN greatest(g.row_expires_at, excluded.row_expires_at) ELSE g.row_expires_at END \
         WHERE g.revoked_at IS NULL OR g.body IS NULL), \
     tokens AS ( \
         UPDATE cloakroom.tokens t SET revoked_at = e.at FROM head, \
             unnest($18, $19, $20) AS e (grant_id, digest, at) \
         WHERE t.grant_id = e.grant_id AND t.digest = e.digest AND t.revoked_at IS NULL) \
     SELECT before, pg_notify($21, '') FROM head",
    &[
        Type::BYTEA_ARRAY,
        Type::BYTEA_ARRAY,
        Type::INT8_ARRAY,
        Type::INT8_ARRAY,
        Type::INT8,
        Type::INT8,
        Type::BYTEA_ARRAY,
        Type::INT8_ARRAY,
        Type::INT8_ARRAY,
        Type::INT8_ARRAY,
        Type::BYTEA_ARRAY,
        Type::BYTEA_ARRAY,
        Type::INT8_ARRAY,
        Type::INT8_ARRAY,
        Type::BYTEA_ARRAY,
        Type::INT8_ARRAY,
        Type::INT8_ARRAY,
        Type::BYTEA_ARRAY,
        Type::BYTEA_ARRAY,
        Type::INT8_ARRAY,
        Type::TEXT,
    ],
);

/// What is appended.
#[derive(Debug)]
pub(crate) enum Append {
    Revocation(EntryId, Box<Revocation>),
    Heartbeat { id: EntryId, at: UnixTime, until: UnixTime },
}

#[derive(Debug)]
struct Job {
    append: Append,
    reply: oneshot::Sender<Result<i64, StoreError>>,
}

/// A handle of the task that appends. The task ends when the last handle is dropped and the queue is empty.
#[derive(Debug, Clone)]
pub(crate) struct LogWriter {
    queue: mpsc::UnboundedSender<Job>,
    waiting: Arc<AtomicUsize>,
}

impl LogWriter {
    pub(crate) fn start(settings: &Arc<Settings>, pool: Pool, growth: Growth) -> Self {
        let (queue, jobs) = mpsc::unbounded_channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        let task =
            Task { pool, growth, channel: settings.names.channel(), waiting: Arc::clone(&waiting) };
        settings.runtime.spawn(task.run(jobs));
        Self { queue, waiting }
    }

    /// Appends, and returns the position of the entry when it is committed. Dropping the future does not stop
    /// it.
    pub(crate) async fn append(&self, append: Append) -> Result<i64, StoreError> {
        let during = "writing the revocation log";
        let most = match append {
            Append::Revocation(..) => QUEUE,
            Append::Heartbeat { .. } => QUEUE + RESERVE,
        };
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= most {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            return Err(StoreError::unavailable(during, "too many revocations are waiting"));
        }
        let (reply, answer) = oneshot::channel();
        if self.queue.send(Job { append, reply }).is_err() {
            return Err(failed(during, Failed::Ended));
        }
        answer.await.unwrap_or_else(|_| Err(failed(during, Failed::Ended)))
    }
}

struct Task {
    pool: Pool,
    growth: Growth,
    channel: String,
    waiting: Arc<AtomicUsize>,
}

impl Task {
    async fn run(self, mut jobs: mpsc::UnboundedReceiver<Job>) {
        let mut batch = Vec::with_capacity(BATCH);
        while jobs.recv_many(&mut batch, BATCH).await > 0 {
            self.waiting.fetch_sub(batch.len(), Ordering::Relaxed);
            self.append(std::mem::take(&mut batch)).await;
        }
    }

    /// Appends all of them together. If the server refuses that, one of them may be the reason, so that they
    /// are appended one by one.
    async fn append(&self, jobs: Vec<Job>) {
        let appends: Vec<&Append> = jobs.iter().map(|job| &job.append).collect();
        match self.write(&appends).await {
            Ok(before) => {
                self.growth.tell();
                for (number, job) in (1..).zip(jobs) {
                    let _ = job.reply.send(Ok(before + number));
                }
            }
            Err(Written::Refused(_)) if jobs.len() > 1 => {
                for job in jobs {
                    let written = self.write(&[&job.append]).await;
                    if written.is_ok() {
                        self.growth.tell();
                    }
                    let answer = written.map(|before| before + 1).map_err(Written::into_error);
                    let _ = job.reply.send(answer);
                }
            }
            Err(error) => {
                let error = Arc::new(error);
                for job in jobs {
                    let _ = job.reply.send(Err(Written::shared(&error)));
                }
            }
        }
    }

    async fn write(&self, appends: &[&Append]) -> Result<i64, Written> {
        let params = Batch::new(appends);
        let during = "writing the revocation log";
        let rows = self
            .pool
            .try_query(
                during,
                Kind::Write,
                (&APPEND, 0),
                &[
                    &params.ids,
                    &params.bodies,
                    &params.untils,
                    &params.bounds,
                    &params.bound_count,
                    &params.at,
                    &params.rule_keys,
                    &params.rule_bounds,
                    &params.rule_untils,
                    &params.sweep_numbers,
                    &params.sweep_entries,
                    &params.sweep_keys,
                    &params.sweep_bounds,
                    &params.sweep_ats,
                    &params.grants,
                    &params.grant_ats,
                    &params.grant_untils,
                    &params.token_grants,
                    &params.token_digests,
                    &params.token_ats,
                    &self.channel,
                ],
            )
            .await
            .map_err(Written::Unavailable)?;
        match rows {
            Ok(rows) => match rows.first() {
                Some(row) => appended(row).map_err(Written::Unavailable),
                None => Err(Written::Unavailable(StoreError::corrupt(
                    "the state of the revocation log",
                    "it has no row",
                ))),
            },
            Err(error) if error.code().is_some() && !error.is_final() => {
                Err(Written::Refused(error))
            }
            Err(error) => Err(Written::Unavailable(failed(during, error))),
        }
    }
}

/// Why a batch was not written, or may not have been.
#[derive(Debug, thiserror::Error)]
enum Written {
    /// The server rolled it back.
    #[error(transparent)]
    Refused(Failed),
    #[error(transparent)]
    Unavailable(StoreError),
}

impl Written {
    const DURING: &str = "writing the revocation log";

    fn into_error(self) -> StoreError {
        match self {
            Self::Refused(error) => failed(Self::DURING, error),
            Self::Unavailable(error) => error,
        }
    }

    /// The error for one of several callers.
    fn shared(error: &Arc<Self>) -> StoreError {
        match &**error {
            Self::Unavailable(StoreError::Corrupt { what, .. }) => {
                StoreError::corrupt(what, BatchFailed(Arc::clone(error) as _))
            }
            _ => StoreError::unavailable(Self::DURING, BatchFailed(Arc::clone(error) as _)),
        }
    }
}

/// The parameters of the statement.
#[derive(Debug, Default)]
struct Batch {
    ids: Vec<Vec<u8>>,
    bodies: Vec<Vec<u8>>,
    untils: Vec<i64>,
    /// The number of its bound among those of the batch, from 0.
    bounds: Vec<Option<i64>>,
    bound_count: i64,
    /// The latest time of all entries that have a bound or raise it.
    at: i64,
    rule_keys: Vec<Vec<u8>>,
    rule_bounds: Vec<Option<i64>>,
    rule_untils: Vec<i64>,
    /// The number of its entry in the batch, from 1.
    sweep_numbers: Vec<i64>,
    sweep_entries: Vec<Vec<u8>>,
    sweep_keys: Vec<Vec<u8>>,
    sweep_bounds: Vec<i64>,
    sweep_ats: Vec<i64>,
    grants: Vec<Vec<u8>>,
    grant_ats: Vec<i64>,
    grant_untils: Vec<i64>,
    token_grants: Vec<Vec<u8>>,
    token_digests: Vec<Vec<u8>>,
    token_ats: Vec<i64>,
}

impl Batch {
    fn new(appends: &[&Append]) -> Self {
        let mut batch = Self::default();
        // A statement must not write a row twice.
        let mut rules = BTreeMap::<Vec<u8>, (Option<i64>, i64)>::new();
        let mut grants = BTreeMap::<[u8; 16], (i64, i64)>::new();
        for (number, append) in (1..).zip(appends) {
            match append {
                Append::Heartbeat { id, at, until } => {
                    batch.at = batch.at.max(column(at.as_millis()));
                    let event = LogEvent::Heartbeat {};
                    batch.entry(&LogEntry { id: *id, event, at: *at, until: *until }, None);
                }
                Append::Revocation(id, revocation) => {
                    batch.revocation(number, *id, revocation, &mut rules, &mut grants);
                }
            }
        }
        for (key, (bound, until)) in rules {
            batch.rule_keys.push(key);
            batch.rule_bounds.push(bound);
            batch.rule_untils.push(until);
        }
        for (grant, (at, until)) in grants {
            batch.grants.push(grant.to_vec());
            batch.grant_ats.push(at);
            batch.grant_untils.push(until);
        }
        batch
    }

    fn entry(&mut self, entry: &LogEntry, bound: Option<i64>) {
        self.ids.push(entry.id.as_bytes().to_vec());
        self.bodies.push(entry.to_body());
        self.untils.push(column(entry.until.as_millis()));
        self.bounds.push(bound);
    }

    fn revocation(
        &mut self,
        number: i64,
        id: EntryId,
        revocation: &Revocation,
        rules: &mut BTreeMap<Vec<u8>, (Option<i64>, i64)>,
        grants: &mut BTreeMap<[u8; 16], (i64, i64)>,
    ) {
        let Revocation { target, at, until, .. } = revocation;
        let bound = target.has_bound().then_some(self.bound_count);
        let event = revocation.event(None);
        self.entry(&LogEntry { id, event, at: *at, until: *until }, bound);
        let (at, until) = (column(at.as_millis()), column(until.as_millis()));
        if let Some(Rule { key, until, .. }) = revocation.rule(None) {
            let until = column(until.as_millis());
            // Bounds of a batch grow, so the later one counts. A key has bounds always or never.
            rules
                .entry(key.to_bytes())
                .and_modify(|rule| *rule = (bound, rule.1.max(until)))
                .or_insert((bound, until));
        }
        if let Some(bound) = bound {
            self.bound_count += 1;
            self.at = self.at.max(at);
            self.sweep_numbers.push(number);
            self.sweep_entries.push(id.as_bytes().to_vec());
            self.sweep_keys.extend(target.rule_key().map(|key| key.to_bytes()));
            self.sweep_bounds.push(bound);
            self.sweep_ats.push(at);
        }
        match target {
            Target::Grant(grant) => {
                grants
                    .entry(*grant.as_bytes())
                    .and_modify(|(_, end)| *end = (*end).max(until))
                    .or_insert((at, until));
            }
            Target::Token { grant, digest } => {
                self.token_grants.push(grant.as_bytes().to_vec());
                self.token_digests.push(digest.as_bytes().to_vec());
                self.token_ats.push(at);
            }
            Target::Jti(_)
            | Target::Key(_)
            | Target::Subject(_)
            | Target::Client(_)
            | Target::SubjectAtClient(..) => {}
        }
    }
}

/// For a look at their plans.
#[cfg(test)]
pub(crate) const STATEMENTS: &[(&str, &Sql)] = &[("APPEND", &APPEND)];
