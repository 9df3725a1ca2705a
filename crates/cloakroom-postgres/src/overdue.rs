//! Ends a connection whose server does not answer.
//!
//! A timer for each statement would cost more than the statement's other work in this process: to set the only
//! timer of an idle runtime wakes a thread. So statements are counted by the tick in which they began, and one
//! task of the store counts the ticks.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

use crate::session::Session;

/// How many ticks a statement may take. The question whether the server is silent takes one more.
const TICKS: usize = 16;

/// The open connections of a store. Their statements are no longer awaited when it is dropped.
pub(crate) struct Overdue {
    sessions: Arc<Mutex<Vec<Weak<Session>>>>,
    task: AbortHandle,
}

impl Overdue {
    /// Ends each connection whose server has not answered a statement for so long, or a little shorter.
    pub(crate) fn start(runtime: &Handle, patience: Duration) -> Self {
        let sessions = Arc::<Mutex<Vec<Weak<Session>>>>::default();
        let period = (patience / (TICKS as u32 + 2)).max(Duration::from_millis(1));
        let task = runtime.spawn(count(Arc::clone(&sessions), period)).abort_handle();
        Self { sessions, task }
    }

    pub(crate) fn add(&self, session: &Arc<Session>) {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.push(Arc::downgrade(session));
    }
}

impl Drop for Overdue {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Waits for one period after the other: a process that stood still has not waited meanwhile.
async fn count(sessions: Arc<Mutex<Vec<Weak<Session>>>>, period: Duration) {
    loop {
        sleep(period).await;
        let open: Vec<Arc<Session>> = {
            let mut sessions = sessions.lock().unwrap_or_else(PoisonError::into_inner);
            sessions.retain(|session| session.strong_count() > 0);
            sessions.iter().filter_map(Weak::upgrade).collect()
        };
        for session in open {
            if session.calls().tick() {
                tokio::spawn(end_if_silent(session, period));
            }
        }
    }
}

/// The server answers in order. If it answers this, it has answered everything before, and it is a caller who
/// has not looked at the answer.
async fn end_if_silent(session: Arc<Session>, patience: Duration) {
    let answer = timeout(patience, session.client().batch_execute(""));
    if !matches!(answer.await, Ok(Ok(()))) {
        session.calls().is_overdue.store(true, Ordering::Relaxed);
        session.kill();
    }
}

/// The statements that are under way on a connection.
#[derive(Default)]
pub(crate) struct Calls {
    /// The current tick, counted around.
    now: AtomicUsize,
    /// How many of those that began in each of the last ticks have no answer yet.
    began: [AtomicUsize; TICKS + 1],
    is_overdue: AtomicBool,
}

impl Calls {
    /// A statement begins. It ends when the result is dropped.
    pub(crate) fn begin(&self) -> Call<'_> {
        let count = &self.began[self.now.load(Ordering::Relaxed)];
        count.fetch_add(1, Ordering::Relaxed);
        Call(count)
    }

    /// Whether the connection was ended since the server did not answer.
    pub(crate) fn are_overdue(&self) -> bool {
        self.is_overdue.load(Ordering::Relaxed)
    }

    /// Begins the next tick. `true` if a statement of the oldest one has not ended yet.
    fn tick(&self) -> bool {
        let next = (self.now.load(Ordering::Relaxed) + 1) % self.began.len();
        self.now.store(next, Ordering::Relaxed);
        self.began[next].load(Ordering::Relaxed) > 0
    }
}

/// A statement that is under way.
pub(crate) struct Call<'a>(&'a AtomicUsize);

impl Drop for Call<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_is_overdue_after_all_ticks() {
        for before in 0..2 * TICKS {
            let calls = Calls::default();
            assert!((0..before).all(|_| !calls.tick()));
            let call = calls.begin();
            assert!((0..TICKS).all(|_| !calls.tick()));
            assert!(calls.tick());
            drop(call);
            assert!((0..2 * TICKS).all(|_| !calls.tick()));
        }
    }

    #[test]
    fn a_statement_with_an_answer_is_never_overdue() {
        let calls = Calls::default();
        for _ in 0..5 * TICKS {
            let (first, second) = (calls.begin(), calls.begin());
            drop(first);
            assert!(!calls.tick());
            drop(second);
        }
    }
}
