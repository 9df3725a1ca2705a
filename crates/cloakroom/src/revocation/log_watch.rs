//! Checks that the server still reads new heartbeats from its own revocation log. A database node
//! that is cut off from the others keeps answering, but does not know what is revoked elsewhere.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use cloakroom_core::revocation::{EntryId, LogEntry, LogEvent};
use cloakroom_core::time::{Clock, ClockReading, UnixTime};

use crate::error::TokenError;

/// The newest heartbeat that was read.
#[derive(Debug)]
pub(crate) struct LogWatch {
    /// The staleness beyond which the server stops answering; `None` for no limit.
    max_staleness: Option<Duration>,
    /// The largest difference between any two clocks: the writer's clock dates a heartbeat.
    clock_skew: Duration,
    newest: Mutex<Option<NewestHeartbeat>>,
}

/// A heartbeat, and when the read that returned it was sent. The server knows every revocation that
/// was acknowledged before the heartbeat was written.
#[derive(Debug, Clone, Copy)]
struct NewestHeartbeat {
    id: EntryId,
    sent: ClockReading,
    /// The age of the heartbeat when the read was sent.
    age: Duration,
}

impl LogWatch {
    pub(crate) const fn new(max_staleness: Option<Duration>, clock_skew: Duration) -> Self {
        Self { max_staleness, clock_skew, newest: Mutex::new(None) }
    }

    /// Whether the newest heartbeat is recent enough to answer requests.
    ///
    /// # Errors
    ///
    /// [`TokenError::Unavailable`] if it is too old.
    pub(crate) fn check(&self, clock: &dyn Clock) -> Result<(), TokenError> {
        let Some(max_staleness) = self.max_staleness else { return Ok(()) };
        let staleness = self.age(clock).map(|age| age + self.clock_skew);
        if staleness.is_some_and(|staleness| staleness <= max_staleness) {
            return Ok(());
        }
        Err(TokenError::Unavailable("the newest heartbeat in the revocation log is too old"))
    }

    /// How old the newest heartbeat is that was read; `None` if there is none.
    pub(crate) fn age(&self, clock: &dyn Clock) -> Option<Duration> {
        let newest = *self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        newest.map(|newest| ClockReading::now(clock).since(newest.sent) + newest.age)
    }

    /// Notes the heartbeats among the entries of a read that was sent at `sent` and answered at
    /// `now`. Ignores a heartbeat that is ahead by more than clocks may differ, since its age is
    /// unknown.
    pub(crate) fn observe(&self, entries: &[LogEntry], sent: ClockReading, now: UnixTime) {
        let counts = |entry: &&LogEntry| {
            let is_heartbeat = matches!(entry.event, LogEvent::Heartbeat {});
            let is_ahead = is_heartbeat && entry.at > now + self.clock_skew;
            if is_ahead {
                let ahead = entry.at.since(now);
                tracing::warn!(
                    ?ahead,
                    "ignored a heartbeat that is ahead of the local clock by more than the skew"
                );
            }
            is_heartbeat && !is_ahead
        };
        let Some(LogEntry { id, at, .. }) = entries.iter().rev().find(counts) else { return };
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        // The store may deliver an entry twice.
        if newest.is_none_or(|newest| newest.id != *id) {
            *newest = Some(NewestHeartbeat { id: *id, sent, age: sent.wall().since(*at) });
        }
    }

    /// Forgets the newest heartbeat.
    pub(crate) fn reset(&self) {
        *self.newest.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}
