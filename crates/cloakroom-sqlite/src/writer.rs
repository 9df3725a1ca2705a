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
        let work = Some(|_: &Connection| Ok(()));
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let _ = self.queue.send(Box::new(Job { work, done: None, reply }));
    }

    /// Runs `work` in a transaction on the writer's thread, and answers once it is committed. If it
    /// fails, none of its writes stays. Dropping the future does not stop it.
    pub(crate) async fn run<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= QUEUE {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            return Err(StoreError::unavailable("writing", "too many writes are waiting"));
        }
        let job = Job { work: Some(work), done: None, reply };
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
    work: Option<F>,
    done: Option<Result<T, StoreError>>,
    reply: oneshot::Sender<Result<T, StoreError>>,
}

impl<T, F> Work for Job<T, F>
where
    T: Send,
    F: FnOnce(&Connection) -> Result<T, StoreError> + Send,
{
    fn run(&mut self, connection: &Connection) -> bool {
        self.done = self.work.take().map(|work| work(connection));
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

/// One transaction. Each job has a savepoint: one that fails takes nothing with it.
fn commit(connection: &Connection, group: &mut [Box<dyn Work>]) -> Result<(), StoreError> {
    let execute = |sql: &str| -> Result<(), StoreError> {
        let during = |error| failed("writing", error);
        connection.prepare_cached(sql).and_then(|mut sql| sql.execute([])).map_err(during)?;
        Ok(())
    };
    let mut all_succeed = true;
    let mut run = |group: &mut [Box<dyn Work>]| -> Result<(), StoreError> {
        execute("BEGIN IMMEDIATE")?;
        for job in group {
            execute("SAVEPOINT job")?;
            if !job.run(connection) {
                all_succeed = false;
                // A full disk, or an error of its own: SQLite may have undone everything.
                if connection.is_autocommit() {
                    return Err(StoreError::unavailable(
                        "writing",
                        "SQLite gave the transaction up",
                    ));
                }
                execute("ROLLBACK TO job")?;
            }
            execute("RELEASE job")?;
        }
        execute("COMMIT")
    };
    let result = run(group);
    if result.is_err() && !connection.is_autocommit() {
        // If even this fails, the next BEGIN does, and says why.
        let _ = connection.execute_batch("ROLLBACK");
    }
    if result.is_err() || !all_succeed {
        // Damaged pages must not be remembered for longer than they are in the file.
        let _ = connection.release_memory();
    }
    result
}
