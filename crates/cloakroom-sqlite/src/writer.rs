//! The one thread that writes. Writes that wait together share a commit.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use cloakroom_core::StoreError;
use futures_channel::oneshot;
use rusqlite::Connection;

use crate::error::{GroupFailed, failed};

/// The most writes that share a commit: so many that its cost is spread, so few that none of them
/// waits long for the others.
const GROUP: usize = 256;

/// The most writes that may wait. Beyond it a store that cannot keep up says so, instead of
/// remembering everything that was ever asked of it.
const QUEUE: usize = 16_384;

/// A handle of the thread. The thread ends when the last handle is gone.
#[derive(Debug, Clone)]
pub(crate) struct Writer {
    queue: Sender<Box<dyn Work>>,
    waiting: Arc<AtomicUsize>,
}

/// What the thread does between groups, and when it has failed.
pub(crate) trait Keeper: Send + 'static {
    /// Before a transaction: whether the file is still the one that was opened.
    fn before(&mut self, connection: &mut Connection) -> Result<(), StoreError>;

    /// After a commit.
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

    /// Has the keeper look after the connection, as before any write.
    pub(crate) fn poke(&self) {
        let (reply, _) = oneshot::channel();
        let work = |_: &Connection| Ok(());
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let _ = self.queue.send(Box::new(Job { work, done: None, reply }));
    }

    /// Runs `work` in a transaction on the writer's thread, and answers once it is committed. If it
    /// fails, none of its writes stays. It may be done twice: what counts is the last time. Dropping
    /// the future does not stop it.
    pub(crate) async fn run<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Fn(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= QUEUE {
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
    /// Does it, and remembers the answer. Whether its writes may stay.
    fn run(&mut self, connection: &Connection) -> bool;

    /// Answers: what it remembers, or that the transaction failed.
    fn settle(self: Box<Self>, group: Option<&GroupFailed>);
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

    fn settle(self: Box<Self>, group: Option<&GroupFailed>) {
        let answer = match (self.done, group) {
            // What failed by itself says why; it wrote nothing either way.
            (Some(Err(own)), _) => Err(own),
            (_, Some(group)) => Err(StoreError::unavailable("writing", group.clone())),
            (Some(done), None) => done,
            (None, None) => Err(ended()),
        };
        // Nobody waits for the answer if its future was dropped.
        let _ = self.reply.send(answer);
    }
}

fn write(
    mut connection: Connection,
    jobs: &Receiver<Box<dyn Work>>,
    waiting: &AtomicUsize,
    mut keeper: impl Keeper,
) {
    let mut group: Vec<Box<dyn Work>> = Vec::new();
    while let Ok(first) = jobs.recv() {
        group.push(first);
        group.extend(jobs.try_iter().take(GROUP - 1));
        waiting.fetch_sub(group.len(), Ordering::Relaxed);
        let result = keeper
            .before(&mut connection)
            .and_then(|()| commit(&connection, &mut group))
            .map_err(|error| {
                tracing::warn!(error = &error as &dyn std::error::Error, "a transaction failed");
                GroupFailed(Arc::new(error))
            });
        if result.is_ok() {
            // Readers of the log are woken before the answers: who saw the answer can rely on it.
            keeper.after(&connection);
        }
        for job in group.drain(..) {
            job.settle(result.as_ref().err());
        }
    }
}

/// One transaction. A job that fails takes nothing with it.
fn commit(connection: &Connection, group: &mut [Box<dyn Work>]) -> Result<(), StoreError> {
    // Hardly a job fails, and a savepoint costs a copy of each page that is written after it: only where
    // one did are all done once more, each behind its own.
    let mut result = transaction(connection, group, Savepoints::No);
    if group.len() > 1 && matches!(result, Ok(Jobs::SomeFailed)) {
        result = transaction(connection, group, Savepoints::ForEach);
    }
    if result.is_err() && !connection.is_autocommit() {
        // If even this fails, the next BEGIN does, and says why.
        let _ = connection.execute_batch("ROLLBACK");
    }
    if !matches!(result, Ok(Jobs::Succeeded)) {
        // Damaged pages must not be remembered for longer than they are in the file.
        let _ = connection.release_memory();
    }
    result.map(|_| ())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Savepoints {
    No,
    ForEach,
}

enum Jobs {
    Succeeded,
    /// What they wrote is undone: of all of them, if they had no savepoints.
    SomeFailed,
}

fn transaction(
    connection: &Connection,
    group: &mut [Box<dyn Work>],
    savepoints: Savepoints,
) -> Result<Jobs, StoreError> {
    let execute = |sql: &str| -> Result<(), StoreError> {
        let during = |error| failed("writing", error);
        connection.prepare_cached(sql).and_then(|mut sql| sql.execute([])).map_err(during)?;
        Ok(())
    };
    let guarded = savepoints == Savepoints::ForEach;
    let mut jobs = Jobs::Succeeded;
    execute("BEGIN IMMEDIATE")?;
    for job in group {
        if guarded {
            execute("SAVEPOINT job")?;
        }
        if !job.run(connection) {
            jobs = Jobs::SomeFailed;
            // A full disk, or an error of its own: SQLite may have undone everything.
            if connection.is_autocommit() {
                return Err(StoreError::unavailable("writing", "SQLite gave the transaction up"));
            }
            if !guarded {
                execute("ROLLBACK")?;
                return Ok(jobs);
            }
            execute("ROLLBACK TO job")?;
        }
        if guarded {
            execute("RELEASE job")?;
        }
    }
    execute("COMMIT")?;
    Ok(jobs)
}
