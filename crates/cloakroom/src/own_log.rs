//! What the server hears of its own revocation log: a part of a store that was cut off from the rest
//! goes on answering, and knows nothing of what is revoked elsewhere.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use cloakroom_core::{
    Clock, Cursor, EntryId, LogEntry, LogEvent, RevocationBatch, StoreError, UnixTime,
};

use crate::error::TokenError;
use crate::issuer::Inner;

/// The entries of one read.
const BATCH: u32 = 1_000;

/// The newest heartbeat that was read.
#[derive(Debug)]
pub(crate) struct OwnLog {
    most_stale: Duration,
    /// The largest difference between any two clocks: a heartbeat's time is by its writer's.
    clock_skew: Duration,
    heard: Mutex<Option<Heard>>,
}

/// A heartbeat, with the time at which the read that brought it was sent, by both clocks: what was
/// acknowledged before it was written is known.
#[derive(Debug, Clone, Copy)]
struct Heard {
    id: EntryId,
    wall: UnixTime,
    monotonic: Duration,
    /// How old it was then.
    age: Duration,
}

impl OwnLog {
    pub(crate) const fn new(most_stale: Duration, clock_skew: Duration) -> Self {
        Self { most_stale, clock_skew, heard: Mutex::new(None) }
    }

    fn check(&self, clock: &dyn Clock) -> Result<(), TokenError> {
        let heard = *self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let staleness = heard.map(|heard| {
            // The larger of both: a machine sleeps, a clock is set back.
            let passed = clock.monotonic().saturating_sub(heard.monotonic);
            passed.max(clock.now().since(heard.wall)) + heard.age + self.clock_skew
        });
        if staleness.is_some_and(|staleness| staleness <= self.most_stale) {
            return Ok(());
        }
        Err(TokenError::Unavailable("what is known of the revocation log is too old"))
    }

    /// Takes in what a read brought that was sent at `wall` and `monotonic`, and answered at `now`. A
    /// heartbeat from further ahead than clocks may differ proves nothing: nobody can say how old it
    /// is.
    fn hear(&self, entries: &[LogEntry], wall: UnixTime, monotonic: Duration, now: UnixTime) {
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
            *heard = Some(Heard { id: *id, wall, monotonic, age: wall.since(*at) });
        }
    }

    fn forget(&self) {
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl Inner {
    /// Whether this server may vouch for tokens, and issue any.
    ///
    /// # Errors
    ///
    /// [`TokenError::Unavailable`] if it has not heard of the log for too long.
    pub(crate) fn check_own_log(&self) -> Result<(), TokenError> {
        self.own_log.as_ref().map_or(Ok(()), |own_log| own_log.check(&*self.clock))
    }

    /// Reads what is new in the log, if that is wanted. `after` is where it stopped the last time.
    ///
    /// # Errors
    ///
    /// If the store fails.
    pub(crate) async fn read_own_log(&self, after: &mut Cursor) -> Result<(), StoreError> {
        let Some(own_log) = &self.own_log else { return Ok(()) };
        loop {
            let (wall, monotonic) = (self.clock.now(), self.clock.monotonic());
            match self.store.revocations(after.clone(), BATCH).await? {
                RevocationBatch::Entries { entries, next, more, .. } => {
                    own_log.hear(&entries, wall, monotonic, self.clock.now());
                    *after = next;
                    if !more {
                        return Ok(());
                    }
                }
                // From the beginning, with the next heartbeat.
                RevocationBatch::Gap => {
                    own_log.forget();
                    *after = Cursor::start();
                    return Ok(());
                }
            }
        }
    }
}
