//! The thread that writes. Waiting writes share a commit.

use std::iter;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use cloakroom_core::store::StoreError;
use futures_channel::oneshot;
use rusqlite::Connection;

use crate::error::{GroupFailed, failed};

/// The most writes that share a commit: enough to spread its cost, and few enough that none waits long for
/// the others.
const GROUP: usize = 256;

/// How many writes of a group may fail before the others run one by one.
const PATIENCE: usize = 8;

/// The most writes that may wait. Beyond that, a store that cannot keep up fails instead of using more and
/// more memory.
const QUEUE: usize = 16_384;

/// How many more writes may wait that must not be refused when clients send many requests.
const RESERVE: usize = 1_024;

/// How full the queue may be for a write. A flood of requests must not make the store refuse a revocation,
/// and a flood of revocations, which clients can also cause, must not make it refuse a heartbeat.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Room {
    Usual,
    Revocation,
    Heartbeat,
}

impl Room {
    const fn most(self) -> usize {
        match self {
            Self::Usual => QUEUE,
            Self::Revocation => QUEUE + RESERVE,
            Self::Heartbeat => QUEUE + 2 * RESERVE,
        }
    }
}

/// A handle of the thread. The thread ends when the last handle is dropped.
#[derive(Debug, Clone)]
pub(crate) struct Writer {
    queue: Sender<Box<dyn Work>>,
    waiting: Arc<AtomicUsize>,
}

/// What the thread does between groups and after failures.
pub(crate) trait Keeper: Send + 'static {
    /// Runs before a transaction. Returns whether the file is still the one that was opened.
    fn before(&mut self, connection: &mut Connection) -> Result<(), StoreError>;

    /// Runs after a commit.
    fn after(&mut self, connection: &Connection);
}

impl Writer {
    pub(crate) fn start(
        name: &str,
        connection: Connection,
        keeper: impl Keeper,
    ) -> Result<Self, std::io::Error> {
        let (queue, jobs) = channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&waiting);
        thread::Builder::new()
            .name(name.into())
            .spawn(move || write(connection, &jobs, &counter, keeper))?;
        Ok(Self { queue, waiting })
    }

    /// Checks the connection, as before any write.
    pub(crate) fn poke(&self) {
        let (reply, _) = oneshot::channel();
        let work = |_: &Connection| Ok(());
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let _ = self.queue.send(Box::new(Job { work, done: None, reply }));
    }

    /// Runs `work` in a transaction on the writer thread, and returns when it is committed. If `work` fails,
    /// none of its writes stays. It may run more than once, and the last run counts. Dropping the future
    /// does not stop it.
    pub(crate) async fn run<T, F>(&self, room: Room, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Fn(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= room.most() {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            return Err(StoreError::unavailable("writing", "too many writes are waiting"));
        }
        let job = Job { work, done: None, reply };
        if self.queue.send(Box::new(job)).is_err() {
            return Err(ended());
        }
        answer.await.unwrap_or_else(|_| Err(ended()))
    }
}

fn ended() -> StoreError {
    StoreError::unavailable("writing", "the writer's thread has ended")
}

trait Work: Send {
    /// Runs the job and keeps its answer. Returns whether its writes may stay.
    fn run(&mut self, connection: &Connection) -> bool;

    /// Replaces the answer by the error of the transaction.
    fn fail(&mut self, why: &GroupFailed);

    /// Sends the answer.
    fn settle(self: Box<Self>);
}

struct Job<T, F> {
    work: F,
    done: Option<Result<T, StoreError>>,
    reply: oneshot::Sender<Result<T, StoreError>>,
}

impl<T, F> Work for Job<T, F>
where
    T: Send,
    F: Fn(&Connection) -> Result<T, StoreError> + Send,
{
    fn run(&mut self, connection: &Connection) -> bool {
        self.done = Some((self.work)(connection));
        matches!(self.done, Some(Ok(_)))
    }

    fn fail(&mut self, why: &GroupFailed) {
        self.done = Some(Err(StoreError::unavailable("writing", why.clone())));
    }

    fn settle(self: Box<Self>) {
        // Nobody waits for the answer if the future was dropped.
        let _ = self.reply.send(self.done.unwrap_or_else(|| Err(ended())));
    }
}

type Group = Vec<Box<dyn Work>>;

fn write(
    mut connection: Connection,
    jobs: &Receiver<Box<dyn Work>>,
    waiting: &AtomicUsize,
    mut keeper: impl Keeper,
) {
    while let Ok(first) = jobs.recv() {
        let mut group: Group = iter::once(first).chain(jobs.try_iter().take(GROUP - 1)).collect();
        waiting.fetch_sub(group.len(), Ordering::Relaxed);
        match keeper.before(&mut connection) {
            Ok(()) => {
                group = commit(&connection, group);
                // Readers of the log are woken before the answers are sent, so that callers can rely on it.
                keeper.after(&connection);
            }
            Err(error) => fail(&mut group, error),
        }
        group.into_iter().for_each(Work::settle);
    }
}

/// Runs all jobs in one transaction. A job that fails is left out, and the others run once more, so that it
/// does not affect them. (Savepoints would also do this, but each costs a copy of every page that is
/// written after it, and they do not help if SQLite rolls the transaction back.)
///
/// Returns all jobs with their answers.
fn commit(connection: &Connection, mut group: Group) -> Group {
    let (mut done, mut failures) = (Group::new(), 0);
    while !group.is_empty() {
        let together = if failures < PATIENCE { group.len() } else { 1 };
        match transaction(connection, &mut group[..together]) {
            Ok(None) => done.extend(group.drain(..together)),
            Ok(Some(failed)) => {
                done.push(group.remove(failed));
                failures += 1;
            }
            Err(error) => {
                fail(&mut group[..together], error);
                done.extend(group.drain(..together));
            }
        }
    }
    done
}

/// Runs the jobs and commits. If a job fails, everything is undone, and its index is returned.
fn transaction(
    connection: &Connection,
    jobs: &mut [Box<dyn Work>],
) -> Result<Option<usize>, StoreError> {
    let execute = |sql: &str| -> Result<(), StoreError> {
        let during = |error| failed("writing", error);
        connection.prepare_cached(sql).and_then(|mut sql| sql.execute([])).map_err(during)?;
        Ok(())
    };
    let mut all = || -> Result<Option<usize>, StoreError> {
        execute("BEGIN IMMEDIATE")?;
        for (number, job) in jobs.iter_mut().enumerate() {
            if !job.run(connection) {
                return Ok(Some(number));
            }
            if connection.is_autocommit() {
                return Err(StoreError::unavailable("writing", "SQLite gave the transaction up"));
            }
        }
        execute("COMMIT")?;
        Ok(None)
    };
    let result = all();
    if !matches!(result, Ok(None)) {
        if !connection.is_autocommit() {
            // If this also fails, the next BEGIN fails and tells why.
            let _ = connection.execute_batch("ROLLBACK");
        }
        // Damaged pages must not stay cached after they are gone from the file.
        let _ = connection.release_memory();
    }
    result
}

fn fail(jobs: &mut [Box<dyn Work>], error: StoreError) {
    tracing::warn!(error = &error as &dyn std::error::Error, "a transaction failed");
    let why = GroupFailed(Arc::new(error));
    jobs.iter_mut().for_each(|job| job.fail(&why));
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Idle;

    impl Keeper for Idle {
        fn before(&mut self, _: &mut Connection) -> Result<(), StoreError> {
            Ok(())
        }

        fn after(&mut self, _: &Connection) {}
    }

    #[test]
    fn there_is_room_for_what_must_not_be_refused() {
        let rooms = [Room::Usual, Room::Revocation, Room::Heartbeat];
        assert_eq!(rooms.map(Room::most), [16_384, 17_408, 18_432]);
    }

    #[tokio::test]
    async fn a_write_that_is_not_committed_has_failed() {
        let connection = Connection::open_in_memory().unwrap();
        connection
            .execute_batch(
                "PRAGMA foreign_keys = ON; CREATE TABLE parents (id INTEGER PRIMARY KEY); \
                 CREATE TABLE children (parent REFERENCES parents DEFERRABLE INITIALLY DEFERRED)",
            )
            .unwrap();
        let writer = Writer::start("test", connection, Idle).unwrap();
        // Only the commit looks for the parent.
        let insert = |connection: &Connection| {
            let inserted = connection.execute("INSERT INTO children VALUES (1)", []);
            inserted.map_err(|error| failed("inserting", error))
        };
        let answer = writer.run(Room::Usual, insert).await;
        assert!(matches!(answer, Err(StoreError::Unavailable { .. })), "{answer:?}");
        let count = |connection: &Connection| {
            let count = "SELECT count(*) FROM children";
            let rows = connection.query_row(count, [], |row| row.get::<_, i64>(0));
            rows.map_err(|error| failed("counting", error))
        };
        assert_eq!(writer.run(Room::Usual, count).await.unwrap(), 0);
    }

    /// Writes that fail do not make the others run again without end.
    #[test]
    fn after_eight_failures_the_rest_of_a_group_runs_one_by_one() {
        let connection = Connection::open_in_memory().unwrap();
        let runs = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&runs);
        let job = |work: Box<dyn Fn() -> Result<(), StoreError> + Send>| -> Box<dyn Work> {
            let (reply, _) = oneshot::channel();
            Box::new(Job { work: move |_: &Connection| work(), done: None, reply })
        };
        let mut group = vec![job(Box::new(move || {
            counted.fetch_add(1, Ordering::Relaxed);
            Ok(())
        }))];
        group.extend((0..20).map(|_| job(Box::new(|| Err(StoreError::Misuse("it fails"))))));
        assert_eq!(commit(&connection, group).len(), 21);
        assert_eq!(runs.load(Ordering::Relaxed), 1 + PATIENCE);
    }
}
