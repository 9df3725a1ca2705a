//! When the revocation log grows: one reader of the store's wake-ups for all who wait.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use cloakroom_core::revocation::LogNotifications;
use futures_core::Stream;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::write::Store;

/// After which a stream of wake-ups that ended is asked for anew.
const PAUSE: Duration = Duration::from_secs(1);

/// Counts how often the log may have grown. The task that counts is started by the first who waits,
/// and ends with this.
pub(crate) struct LogNotifier {
    store: Store,
    changes: watch::Sender<u64>,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl LogNotifier {
    pub(crate) fn new(store: Store) -> Self {
        Self { store, changes: watch::Sender::new(0), task: Mutex::new(None) }
    }

    /// The count. Whoever looks at it first, reads the log then, and waits for the count to change
    /// misses nothing.
    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        let mut task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        // It has finished if the runtime that ran it is gone.
        if task.as_ref().is_none_or(JoinHandle::is_finished) {
            // Asked for here, not in the task: what comes from now on is counted.
            let wakeups = self.store.wakeups();
            *task = Some(tokio::spawn(count(self.store.clone(), wakeups, self.changes.clone())));
        }
        self.changes.subscribe()
    }
}

impl Drop for LogNotifier {
    fn drop(&mut self) {
        let task = self.task.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(task) = task {
            task.abort();
        }
    }
}

async fn count(store: Store, mut wakeups: LogNotifications, changes: watch::Sender<u64>) {
    loop {
        match wakeups {
            LogNotifications::Stream(mut stream) => {
                while next(&mut stream).await.is_some() {
                    changes.send_modify(|count| *count += 1);
                }
                tracing::warn!("the store's wake-ups ended; they are asked for anew");
                tokio::time::sleep(PAUSE).await;
            }
            LogNotifications::Poll(interval) => tokio::time::sleep(interval).await,
        }
        wakeups = store.wakeups();
        // Whatever came while nobody listened.
        changes.send_modify(|count| *count += 1);
    }
}

async fn next(stream: &mut Pin<Box<dyn Stream<Item = ()> + Send>>) -> Option<()> {
    poll_fn(|cx| stream.as_mut().poll_next(cx)).await
}
