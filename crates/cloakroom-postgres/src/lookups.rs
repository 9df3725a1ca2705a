//! Lookups of many callers. Those that arrive while others are under way are sent together in one
//! statement.
//!
//! A lookup joins only a statement that is not yet sent. So what was acknowledged before the lookup began is in
//! the snapshot of its statement.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use cloakroom_core::store::{Lookup, StoreError};
use cloakroom_core::{GrantId, TokenDigest};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::time::timeout;
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use crate::error::{BatchFailed, Failed, failed};
use crate::grants;
use crate::pool::{Kind, Pool};
use crate::rows::{get, grant_columns};
use crate::settings::Settings;
use crate::sql::Sql;

/// The most lookups in one statement.
const BATCH: usize = 128;

/// The most lookups that may wait. Beyond that, a store whose server does not answer fails instead of using more
/// and more memory.
const QUEUE: usize = 16_384;

/// As [`grants::find`] does it, for several grants: one snapshot of all rows.
pub(crate) static FIND_MANY: Sql = Sql::new(
    concat!(
        "SELECT ",
        grant_columns!(),
        ", t.issued_at, t.expires_at, t.revoked_at, t.body, k.number \
         FROM unnest($1, $2) WITH ORDINALITY AS k (id, digest, number) \
         JOIN cloakroom.grants g ON g.id = k.id \
         LEFT JOIN cloakroom.tokens t ON t.grant_id = k.id AND t.digest = k.digest"
    ),
    &[Type::BYTEA_ARRAY, Type::BYTEA_ARRAY],
);

/// The column with the number of the lookup, from 1.
const NUMBER: usize = 14;

struct Job {
    id: GrantId,
    digest: Option<TokenDigest>,
    reply: oneshot::Sender<Result<Lookup, StoreError>>,
}

/// Where lookups are made. Its tasks end when it is dropped.
pub(crate) struct Lookups {
    pool: Pool,
    /// How many lookups go out by themselves at the same time: one for each connection.
    most: usize,
    alone: AtomicUsize,
    queue: mpsc::Sender<Job>,
    /// The longest that a lookup waits for its answer.
    limit: Duration,
}

impl Lookups {
    pub(crate) fn start(settings: &Arc<Settings>, connections: usize) -> Self {
        let most = connections.max(1);
        let pool = Pool::new(settings, most);
        let (queue, jobs) = mpsc::channel(QUEUE);
        let jobs = Arc::new(Mutex::new(jobs));
        for _ in 0..most {
            settings.runtime.spawn(work(pool.clone(), Arc::clone(&jobs)));
        }
        let limit = settings.connect_timeout + settings.patience();
        Self { pool, most, alone: AtomicUsize::new(0), queue, limit }
    }

    pub(crate) fn pool(&self) -> &Pool {
        &self.pool
    }

    pub(crate) async fn find(
        &self,
        id: GrantId,
        digest: Option<TokenDigest>,
    ) -> Result<Lookup, StoreError> {
        {
            let _alone = Alone(&self.alone);
            if self.alone.fetch_add(1, Ordering::Relaxed) < self.most {
                return grants::find(&self.pool, id, digest.as_ref()).await;
            }
        }
        let during = "finding a grant";
        let (reply, answer) = oneshot::channel();
        match self.queue.try_send(Job { id, digest, reply }) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => {
                return Err(StoreError::unavailable(during, "too many lookups are waiting"));
            }
            Err(TrySendError::Closed(_)) => return Err(failed(during, Failed::Ended)),
        }
        // It may wait for statements that get no answer, and then for its own.
        match timeout(self.limit, answer).await {
            Ok(answer) => answer.unwrap_or_else(|_| Err(failed(during, Failed::Ended))),
            Err(_) => Err(failed(during, Failed::TimedOut)),
        }
    }
}

/// Counts a lookup that goes out by itself, until it ends or is dropped.
struct Alone<'a>(&'a AtomicUsize);

impl Drop for Alone<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Sends one statement after the other. What arrives meanwhile is in the next one.
async fn work(pool: Pool, jobs: Arc<Mutex<mpsc::Receiver<Job>>>) {
    let mut batch = Vec::with_capacity(BATCH);
    loop {
        if jobs.lock().await.recv_many(&mut batch, BATCH).await == 0 {
            return;
        }
        // No statement is sent for callers that have gone away.
        batch.retain(|job| !job.reply.is_closed());
        if !batch.is_empty() {
            find_many(&pool, std::mem::take(&mut batch)).await;
        }
    }
}

async fn find_many(pool: &Pool, jobs: Vec<Job>) {
    let during = "finding grants";
    let ids: Vec<&[u8]> = jobs.iter().map(|job| job.id.as_bytes().as_slice()).collect();
    let digests: Vec<Option<&[u8]>> = jobs
        .iter()
        .map(|job| job.digest.as_ref().map(|digest| digest.as_bytes().as_slice()))
        .collect();
    let rows = match pool.query(during, Kind::Read, (&FIND_MANY, 0), &[&ids, &digests]).await {
        Ok(rows) => rows,
        Err(error) => return fail(during, jobs, error),
    };
    let found = match in_order(during, &rows, jobs.len()) {
        Ok(found) => found,
        Err(error) => return fail(during, jobs, error),
    };
    for (job, row) in jobs.into_iter().zip(found) {
        let _ = job.reply.send(grants::lookup(job.id, job.digest.as_ref(), row));
    }
}

/// The row of each lookup, if it has one. A row that belongs to none is an error: it must not look as if its
/// grant were absent.
fn in_order<'a>(
    during: &'static str,
    rows: &'a [Row],
    lookups: usize,
) -> Result<Vec<Option<&'a Row>>, StoreError> {
    let mut found = vec![None; lookups];
    for row in rows {
        let number: i64 = get(during, row, NUMBER)?;
        let place = usize::try_from(number).ok().and_then(|number| number.checked_sub(1));
        match place.and_then(|place| found.get_mut(place)) {
            Some(place) => *place = Some(row),
            None => return Err(StoreError::corrupt(during, "a row belongs to no lookup")),
        }
    }
    Ok(found)
}

fn fail(during: &'static str, jobs: Vec<Job>, error: StoreError) {
    let error = Arc::new(error);
    for job in jobs {
        let _ = job.reply.send(Err(shared(during, &error)));
    }
}

/// The error for one of several callers.
fn shared(during: &'static str, error: &Arc<StoreError>) -> StoreError {
    let source = BatchFailed(Arc::clone(error) as _);
    match &**error {
        StoreError::Corrupt { what, .. } => StoreError::corrupt(what, source),
        _ => StoreError::unavailable(during, source),
    }
}

/// For a look at their plans.
#[cfg(test)]
pub(crate) const STATEMENTS: &[(&str, &Sql)] = &[("FIND_MANY", &FIND_MANY)];
