//! How far a replica may be behind: written by its follower, read on every request.

use std::time::Duration;

use crate::double_buffer::DoubleBuffer;
use crate::double_buffer::{from_numbers, nanos, to_numbers};
use cloakroom_core::time::ClockReading;

/// What a heartbeat proves: whatever was acknowledged longer than `behind` before `sent` is known.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StalenessReading {
    /// When the request was sent that brought the heartbeat.
    pub(crate) sent: ClockReading,
    /// How old the heartbeat may have been then.
    pub(crate) behind: Duration,
}

impl StalenessReading {
    pub(crate) fn staleness(&self, now: ClockReading) -> Duration {
        now.since(self.sent).saturating_add(self.behind)
    }
}

/// The newest reading.
#[derive(Debug)]
pub(crate) struct SharedStaleness(DoubleBuffer<3>);

/// In place of how far behind a reading is.
const NOTHING: u64 = u64::MAX;

impl SharedStaleness {
    /// Nothing, so far.
    pub(crate) fn new() -> Self {
        Self(DoubleBuffer::new([0, 0, NOTHING]))
    }

    /// Publishes. The follower's task is the only one that does.
    pub(crate) fn set(&self, reading: Option<StalenessReading>) {
        self.0.set(reading.map_or([0, 0, NOTHING], |StalenessReading { sent, behind }| {
            let [wall, monotonic] = to_numbers(sent);
            [wall, monotonic, nanos(behind).min(NOTHING - 1)]
        }));
    }

    /// The newest reading. A reader that sees it also sees the rules that it takes account of.
    pub(crate) fn get(&self) -> Option<StalenessReading> {
        let [wall, monotonic, behind] = self.0.get();
        (behind != NOTHING).then(|| StalenessReading {
            sent: from_numbers([wall, monotonic]),
            behind: Duration::from_nanos(behind),
        })
    }
}

#[cfg(test)]
mod tests;
