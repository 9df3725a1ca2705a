//! The queue of the log: waiting revocations and heartbeats share a transaction.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use cloakroom_core::store::StoreError;
use tokio::sync::oneshot;

use crate::error::Failure;
use crate::pool::{Operation as _, Pool};
use crate::revocation_log::{Append, AppendAll, Appended};
use crate::wakeups::LogGrowth;

/// The most entries that share a transaction: enough to spread the cost of a commit, and few enough that none
/// waits long for the others.
const BATCH: usize = 256;

/// The most revocations that may wait. Beyond that, a store that cannot keep up fails instead of using more
/// and more memory.
const QUEUE: usize = 16_384;

/// How many more may wait if they are heartbeats: a flood of revocations, which clients can cause, must not
/// make the store refuse them.
const RESERVE: usize = 1_024;

#[derive(Debug)]
pub(crate) struct Appender {
    pool: Arc<Pool>,
    growth: Arc<LogGrowth>,
    queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Waiting>,
    /// Whether a task is writing.
    is_writing: bool,
}

#[derive(Debug)]
struct Waiting {
    append: Append,
    reply: oneshot::Sender<Result<(), StoreError>>,
}

impl Appender {
    pub(crate) fn new(pool: Arc<Pool>, growth: Arc<LogGrowth>) -> Self {
        Self { pool, growth, queue: Mutex::default() }
    }

    /// Appends an entry, and returns when it is committed. Dropping the future does not stop it.
    pub(crate) async fn append(self: &Arc<Self>, append: Append) -> Result<(), StoreError> {
        let (reply, answer) = oneshot::channel();
        let most = match append {
            Append::Revocation(..) => QUEUE,
            Append::Heartbeat { .. } => QUEUE + RESERVE,
        };
        {
            let mut queue = self.lock();
            if queue.waiting.len() >= most {
                return Err(failed("too many revocations are waiting"));
            }
            queue.waiting.push_back(Waiting { append, reply });
            if !queue.is_writing {
                queue.is_writing = true;
                let writer = Writer(Arc::clone(self));
                self.pool.handle().spawn(async move { writer.0.write().await });
            }
        }
        answer.await.unwrap_or_else(|_| Err(failed("the task that writes the log has ended")))
    }

    /// Writes until nothing waits.
    async fn write(&self) {
        loop {
            let batch: Vec<Waiting> = {
                let mut queue = self.lock();
                let count = queue.waiting.len().min(BATCH);
                if count == 0 {
                    queue.is_writing = false;
                    return;
                }
                queue.waiting.drain(..count).collect()
            };
            self.write_batch(batch).await;
        }
    }

    async fn write_batch(&self, batch: Vec<Waiting>) {
        let entries = batch.iter().map(|waiting| waiting.append.clone()).collect();
        match self.commit(entries).await {
            Err(failure) if batch.len() > 1 && failure.is_lock_timeout() => {
                // A row that somebody else keeps locked must not stop the others.
                for Waiting { append, reply } in batch {
                    let result = self.commit(vec![append]).await;
                    let _ = reply.send(result.map_err(unavailable));
                }
            }
            Ok(()) => {
                for waiting in batch {
                    // Nobody waits for the answer if the future was dropped.
                    let _ = waiting.reply.send(Ok(()));
                }
            }
            Err(failure) => {
                let error = Arc::new(unavailable(failure));
                tracing::warn!(
                    error = &*error as &dyn std::error::Error,
                    "the revocation log could not be written"
                );
                for waiting in batch {
                    let shared = BatchFailed(Arc::clone(&error));
                    let _ = waiting.reply.send(Err(failed(shared)));
                }
            }
        }
    }

    /// Readers of the log are woken before the answers are sent, so that callers can rely on it.
    async fn commit(&self, entries: Vec<Append>) -> Result<(), Failure> {
        let Appended { newest } = self.pool.run(&AppendAll { entries }).await?;
        self.growth.grow_to(newest);
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The task that writes. If it ends early, as when its runtime shuts down, the next append starts another.
struct Writer(Arc<Appender>);

impl Drop for Writer {
    fn drop(&mut self) {
        let mut queue = self.0.lock();
        // An append that came after the task found nothing has started another one.
        if queue.waiting.is_empty() || tokio::runtime::Handle::try_current().is_err() {
            return;
        }
        queue.waiting.clear();
        queue.is_writing = false;
    }
}

/// The error of the transaction that several entries shared.
#[derive(Debug, thiserror::Error)]
#[error("the transaction failed")]
struct BatchFailed(#[source] Arc<StoreError>);

fn failed(why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> StoreError {
    StoreError::unavailable(AppendAll::CONTEXT, why)
}

fn unavailable(failure: Failure) -> StoreError {
    failure.into_store_error(AppendAll::CONTEXT)
}
