//! How a reader learns that the log has grown.

use std::sync::{Arc, Weak};

use cloakroom_core::revocation::LogNotifications;
use futures_util::StreamExt;
use futures_util::stream::unfold;

use crate::revocation_log::RevocationLog;

/// An item whenever the log has grown since the last item, and one at the start if the log is not empty. So a
/// reader can read first and listen later, or the other way round. The stream does not keep the store
/// alive, and ends with it.
pub(crate) fn wakeups(log: &Arc<RevocationLog>) -> LogNotifications {
    let start = (Arc::downgrade(log), 0);
    LogNotifications::Stream(Box::pin(unfold(start, next).fuse()))
}

async fn next((log, seen): (Weak<RevocationLog>, u64)) -> Option<((), (Weak<RevocationLog>, u64))> {
    loop {
        let listener = {
            let log_now = log.upgrade()?;
            // Listen before looking, so that an entry between the two is not missed.
            let listener = log_now.listen();
            let newest = log_now.newest();
            if newest > seen {
                return Some(((), (log, newest)));
            }
            listener
        };
        listener.await;
    }
}
