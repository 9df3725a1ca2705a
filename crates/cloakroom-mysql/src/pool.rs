//! The connections, and how operations run on them.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use cloakroom_core::store::StoreError;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::connection::Connection;
use crate::error::{Failure, Verdict};
use crate::session;
use crate::settings::Settings;

/// What to do with a connection. It may run more than once, and the last run counts.
pub(crate) trait Operation: Send + Sync + 'static {
    type Answer: Send + 'static;

    /// What it does, for errors.
    const CONTEXT: &'static str;

    /// Whether it may run again if a connection was lost in the middle: a second run does nothing new, and
    /// has the same answer.
    const IS_REPEATABLE: bool = true;

    /// The connections that it may use.
    const LANE: Lane = Lane::Requests;

    fn run(
        &self,
        connection: &mut Connection,
    ) -> impl Future<Output = Result<Self::Answer, Failure>> + Send;
}

/// A share of the connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lane {
    /// What requests need.
    Requests,
    /// Revocations, heartbeats, and reading the log. However many requests come, these do not wait for them.
    Log,
}

/// How many connections serve the log alone: one writes, and one reads.
pub(crate) const LOG_CONNECTIONS: usize = 2;

/// How often an operation runs again because the server gave it up.
const MAX_RUNS: u32 = 20;

/// A connection that was idle for longer is tested before it is used: a firewall may have dropped it without
/// a word.
const TEST_AFTER: Duration = Duration::from_secs(30);

/// How long the end of a connection may take.
const FAREWELL: Duration = Duration::from_secs(1);

pub(crate) struct Pool {
    pub(crate) settings: Settings,
    prefix: Arc<str>,
    requests: Arc<Semaphore>,
    log: Arc<Semaphore>,
    idle: Mutex<Vec<Idle>>,
    /// Raised when a connection was lost: others of the same age are probably lost as well.
    age: AtomicU64,
    handle: Handle,
}

struct Idle {
    connection: Connection,
    age: u64,
    since: Instant,
}

/// A connection in use.
struct Used {
    connection: Connection,
    age: u64,
    is_reused: bool,
}

impl Pool {
    pub(crate) fn new(settings: Settings, handle: Handle) -> Self {
        Self {
            prefix: settings.prefix.as_str().into(),
            requests: Arc::new(Semaphore::new(settings.connections)),
            log: Arc::new(Semaphore::new(LOG_CONNECTIONS)),
            idle: Mutex::default(),
            age: AtomicU64::new(0),
            handle,
            settings,
        }
    }

    pub(crate) fn prefix(&self) -> Arc<str> {
        Arc::clone(&self.prefix)
    }

    pub(crate) const fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Runs an operation that leaves nothing open on the server between two packets, most often since it sends
    /// only one. It is polled in place, which saves a switch of tasks. If the future is dropped, a task reads
    /// the answer, so that the connection can be used again.
    pub(crate) async fn once<O: Operation>(
        self: &Arc<Self>,
        operation: O,
    ) -> Result<O::Answer, StoreError> {
        let pool = Arc::clone(self);
        let future = Box::pin(async move { pool.run(&operation).await });
        let answer = Detached { future: Some(future), handle: self.handle.clone() }.await;
        answer.map_err(|failure| failure.into_store_error(O::CONTEXT))
    }

    /// Runs an operation that has transactions, on a task: a future that is dropped, or not polled for a while,
    /// must not keep a transaction and its locks open, for more statements or for a rollback.
    pub(crate) async fn steps<O: Operation>(
        self: &Arc<Self>,
        operation: O,
    ) -> Result<O::Answer, StoreError> {
        let pool = Arc::clone(self);
        let task = self.handle.spawn(async move { pool.run(&operation).await });
        match task.await {
            Ok(answer) => answer.map_err(|failure| failure.into_store_error(O::CONTEXT)),
            Err(ended) => Err(StoreError::unavailable(O::CONTEXT, ended)),
        }
    }

    pub(crate) async fn run<O: Operation>(&self, operation: &O) -> Result<O::Answer, Failure> {
        let _permit = self.permit(O::LANE).await?;
        let mut runs = 0;
        let mut may_reconnect = true;
        loop {
            let mut used = self.take(!O::IS_REPEATABLE).await?;
            let result = operation.run(&mut used.connection).await;
            let failure = match result {
                Ok(answer) => {
                    self.put_back(used);
                    return Ok(answer);
                }
                Err(failure) => failure,
            };
            match failure.verdict() {
                verdict @ (Verdict::Failed | Verdict::RunAgain) => {
                    // Whether or not there is a transaction.
                    match used.connection.roll_back().await {
                        Ok(()) => self.put_back(used),
                        Err(_) => self.discard(used),
                    }
                    runs += 1;
                    if verdict == Verdict::Failed || runs >= MAX_RUNS {
                        return Err(failure);
                    }
                    self.pause(runs).await;
                }
                Verdict::Broken => {
                    // A server that was too slow once is not asked twice.
                    let is_lost = used.is_reused && !matches!(failure, Failure::Timeout(_));
                    self.discard_all(used);
                    if !(is_lost && O::IS_REPEATABLE && may_reconnect) {
                        return Err(failure);
                    }
                    may_reconnect = false;
                }
                Verdict::Demoted => {
                    self.discard_all(used);
                    return Err(failure);
                }
            }
        }
    }

    async fn permit(&self, lane: Lane) -> Result<OwnedSemaphorePermit, Failure> {
        let semaphore = match lane {
            Lane::Requests => &self.requests,
            Lane::Log => &self.log,
        };
        let after = self.settings.statement_timeout;
        let permit = tokio::time::timeout(after, Arc::clone(semaphore).acquire_owned());
        // The semaphore is never closed.
        permit.await.ok().and_then(Result::ok).ok_or(Failure::Exhausted(after))
    }

    /// A connection: an idle one, or a new one.
    async fn take(&self, must_be_alive: bool) -> Result<Used, Failure> {
        loop {
            let Some(Idle { mut connection, age, since }) = self.pop() else { break };
            if !must_be_alive && since.elapsed() < TEST_AFTER {
                return Ok(Used { connection, age, is_reused: true });
            }
            if connection.ping().await.is_ok() {
                return Ok(Used { connection, age, is_reused: true });
            }
            self.discard_all(Used { connection, age, is_reused: true });
        }
        let age = self.age.load(Ordering::Acquire);
        let (connection, server) = session::open(&self.settings, self.prefix()).await?;
        if server.is_read_only {
            self.discard(Used { connection, age, is_reused: false });
            return Err(Failure::Refused("the server does not accept writes"));
        }
        Ok(Used { connection, age, is_reused: false })
    }

    fn pop(&self) -> Option<Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    /// Keeps a connection that is in order.
    pub(crate) fn keep(&self, connection: Connection) {
        let age = self.age.load(Ordering::Acquire);
        self.put_back(Used { connection, age, is_reused: false });
    }

    fn put_back(&self, used: Used) {
        if used.age < self.age.load(Ordering::Acquire) {
            return self.discard(used);
        }
        let Used { connection, age, .. } = used;
        let idle = Idle { connection, age, since: Instant::now() };
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(idle);
    }

    /// Ends a connection, without waiting for a server that may not answer.
    fn discard(&self, used: Used) {
        let conn = used.connection.into_inner();
        self.handle.spawn(async move {
            let _ = tokio::time::timeout(FAREWELL, conn.disconnect()).await;
        });
    }

    /// Ends this connection and all idle ones.
    fn discard_all(&self, used: Used) {
        self.age.fetch_max(used.age + 1, Ordering::AcqRel);
        self.discard(used);
        let idle = std::mem::take(&mut *self.idle.lock().unwrap_or_else(PoisonError::into_inner));
        for Idle { connection, age, .. } in idle {
            self.discard(Used { connection, age, is_reused: true });
        }
    }

    /// Nodes that got in each other's way do not start again in step.
    async fn pause(&self, runs: u32) {
        let [jitter] = self.settings.random.array().unwrap_or([128]);
        let most = 1_000 << runs.min(6);
        let micros = u64::from(jitter) * most / 256;
        tokio::time::sleep(Duration::from_micros(micros)).await;
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("settings", &self.settings).finish_non_exhaustive()
    }
}

type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A future that a task finishes if it is dropped after it began.
struct Detached<T: Send + 'static> {
    future: Option<BoxFuture<T>>,
    handle: Handle,
}

impl<T: Send + 'static> Future for Detached<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let this = &mut *self;
        let Some(future) = &mut this.future else { return Poll::Pending };
        // Connections and timers belong to this runtime, whoever polls.
        let guard = this.handle.enter();
        let polled = future.as_mut().poll(context);
        drop(guard);
        if polled.is_ready() {
            this.future = None;
        }
        polled
    }
}

impl<T: Send + 'static> Drop for Detached<T> {
    fn drop(&mut self) {
        if let Some(future) = self.future.take()
            && !std::thread::panicking()
        {
            self.handle.spawn(future);
        }
    }
}
