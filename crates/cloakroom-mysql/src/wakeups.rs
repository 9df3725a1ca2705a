//! How readers of the log learn that it has grown.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use cloakroom_core::revocation::LogNotifications;
use event_listener::Event;
use futures_util::StreamExt as _;
use futures_util::stream::unfold;

use crate::pool::Pool;
use crate::revocation_log::Newest;

/// The position of the newest entry that this process knows.
#[derive(Debug, Default)]
pub(crate) struct LogGrowth {
    newest: AtomicU64,
    grown: Event,
    has_ended: AtomicBool,
}

impl LogGrowth {
    /// Wakes the readers if the position is another one. After a restore it may be lower.
    pub(crate) fn grow_to(&self, newest: u64) {
        if self.newest.swap(newest, Ordering::AcqRel) != newest {
            self.grown.notify(usize::MAX);
        }
    }

    /// Ends the streams, when the store is dropped.
    pub(crate) fn end(&self) {
        self.has_ended.store(true, Ordering::Release);
        self.grown.notify(usize::MAX);
    }

    /// An item at the start, and whenever the log has grown since the last item. The stream does not keep
    /// the store alive, and ends with it.
    pub(crate) fn notifications(self: &Arc<Self>) -> LogNotifications {
        let start = (Arc::clone(self), None);
        let next = |(growth, seen): (Arc<Self>, Option<u64>)| async move {
            loop {
                // Listen before looking, so that an entry between the two is not missed.
                let listener = growth.grown.listen();
                if growth.has_ended.load(Ordering::Acquire) {
                    return None;
                }
                let newest = growth.newest.load(Ordering::Acquire);
                if seen != Some(newest) {
                    return Some(((), (growth, Some(newest))));
                }
                listener.await;
            }
        };
        LogNotifications::Stream(Box::pin(unfold(start, next).fuse()))
    }
}

/// Asks for the newest position at intervals, until the store is dropped. MySQL and MariaDB cannot notify a
/// client.
pub(crate) async fn watch(pool: std::sync::Weak<Pool>, growth: Arc<LogGrowth>) {
    let Some(interval) = pool.upgrade().map(|pool| pool.settings.poll) else { return };
    loop {
        tokio::time::sleep(interval).await;
        let Some(pool) = pool.upgrade() else { return };
        if growth.has_ended.load(Ordering::Acquire) {
            return;
        }
        // Nobody listens while there is no stream. Its first item makes a reader read.
        if Arc::strong_count(&growth) <= STORE_AND_WATCH {
            continue;
        }
        // The calls of the store report an outage. After it, the position differs or it does not.
        if let Ok(newest) = pool.run(&Newest).await {
            growth.grow_to(newest);
        }
    }
}

/// How many parts of a store without streams hold a [`LogGrowth`]: the store, the appender, and the watch.
const STORE_AND_WATCH: usize = 3;
