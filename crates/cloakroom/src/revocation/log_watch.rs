//! What the server hears of its own revocation log: a part of a store that was cut off from the rest
//! goes on answering, and knows nothing of what is revoked elsewhere.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use cloakroom_core::revocation::{EntryId, LogEntry, LogEvent};
use cloakroom_core::time::{Clock, ClockReading, UnixTime};

use crate::error::TokenError;

/// The newest heartbeat that was read.
#[derive(Debug)]
pub(crate) struct LogWatch {
    /// Beyond which staleness the server stops answering, if it is to.
    max_staleness: Option<Duration>,
    /// The largest difference between any two clocks: a heartbeat's time is by its writer's.
    clock_skew: Duration,
    heard: Mutex<Option<Heard>>,
}

/// A heartbeat, with the time at which the read that brought it was sent: what was
/// acknowledged before it was written is known.
#[derive(Debug, Clone, Copy)]
struct Heard {
    id: EntryId,
    sent: ClockReading,
    /// How old it was then.
    age: Duration,
}

impl LogWatch {
    pub(crate) const fn new(max_staleness: Option<Duration>, clock_skew: Duration) -> Self {
        Self { max_staleness, clock_skew, heard: Mutex::new(None) }
    }

    /// # Errors
    ///
    /// [`TokenError::Unavailable`] if the server has not heard of the log for too long.
    pub(crate) fn check(&self, clock: &dyn Clock) -> Result<(), TokenError> {
        let Some(max_staleness) = self.max_staleness else { return Ok(()) };
        let heard = *self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let staleness = heard
            .map(|heard| ClockReading::now(clock).since(heard.sent) + heard.age + self.clock_skew);
        if staleness.is_some_and(|staleness| staleness <= max_staleness) {
            return Ok(());
        }
        Err(TokenError::Unavailable("what is known of the revocation log is too old"))
    }

    /// Takes in what a read brought that was sent at `sent`, and answered at `now`. A
    /// heartbeat from further ahead than clocks may differ proves nothing: nobody can say how old it
    /// is.
    pub(crate) fn hear(&self, entries: &[LogEntry], sent: ClockReading, now: UnixTime) {
        let counts = |entry: &&LogEntry| {
            let is_heartbeat = matches!(entry.event, LogEvent::Heartbeat {});
            let is_ahead = is_heartbeat && entry.at > now + self.clock_skew;
            if is_ahead {
                let ahead = entry.at.since(now);
                tracing::warn!(
                    ?ahead,
                    "a heartbeat is ahead by more than clocks may differ: ignored"
                );
            }
            is_heartbeat && !is_ahead
        };
        let Some(LogEntry { id, at, .. }) = entries.iter().rev().find(counts) else { return };
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        // An entry may be delivered twice; it says nothing new.
        if heard.is_none_or(|heard| heard.id != *id) {
            *heard = Some(Heard { id: *id, sent, age: sent.wall().since(*at) });
        }
    }

    pub(crate) fn forget(&self) {
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}
