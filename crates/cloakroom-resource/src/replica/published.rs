//! How old what is known is: written by one, read on every request.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cloakroom_core::UnixTime;

use crate::moment::Moment;

/// What a heartbeat proves: whatever was acknowledged longer than `behind` before `sent` is known.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reading {
    /// When the request was sent that brought the heartbeat.
    pub(crate) sent: Moment,
    /// How old the heartbeat may have been then.
    pub(crate) behind: Duration,
}

impl Reading {
    pub(crate) fn staleness(&self, now: Moment) -> Duration {
        now.since(self.sent).saturating_add(self.behind)
    }
}

/// A reading that one thread publishes and all read, without a lock and without writing: a lock's
/// counter would wander from core to core with every request.
///
/// Of two slots, the even turns are in one and the odd turns in the other. Turn n + 2 overwrites
/// turn n, and does so only after turn n + 1 was announced: who finds the turn unchanged after
/// reading its slot has read one reading, not parts of two.
#[derive(Debug)]
pub(crate) struct Published {
    turn: AtomicU64,
    slots: [Slot; 2],
}

#[derive(Debug)]
struct Slot {
    wall: AtomicU64,
    monotonic: AtomicU64,
    /// [`NOTHING`], or how far behind.
    behind: AtomicU64,
}

impl Slot {
    const fn new() -> Self {
        Self {
            wall: AtomicU64::new(0),
            monotonic: AtomicU64::new(0),
            behind: AtomicU64::new(NOTHING),
        }
    }
}

const NOTHING: u64 = u64::MAX;

impl Published {
    /// Nothing, so far.
    pub(crate) const fn new() -> Self {
        Self { turn: AtomicU64::new(0), slots: [Slot::new(), Slot::new()] }
    }

    /// Publishes. Only one thread at a time may: the follower's task is the only one that does.
    pub(crate) fn set(&self, reading: Option<Reading>) {
        let turn = self.turn.load(Ordering::Relaxed).wrapping_add(1);
        let slot = self.slot(turn);
        // Release, so that who sees one of these has seen the turn before it.
        if let Some(Reading { sent, behind }) = reading {
            slot.wall.store(sent.wall().as_millis(), Ordering::Release);
            slot.monotonic.store(nanos(sent.monotonic()), Ordering::Release);
            slot.behind.store(nanos(behind).min(NOTHING - 1), Ordering::Release);
        } else {
            slot.behind.store(NOTHING, Ordering::Release);
        }
        // Release: the rules that count into the reading are seen by who sees the reading.
        self.turn.store(turn, Ordering::Release);
    }

    /// The newest reading.
    pub(crate) fn get(&self) -> Option<Reading> {
        loop {
            let turn = self.turn.load(Ordering::Acquire);
            let slot = self.slot(turn);
            let wall = slot.wall.load(Ordering::Acquire);
            let monotonic = slot.monotonic.load(Ordering::Acquire);
            let behind = slot.behind.load(Ordering::Acquire);
            if self.turn.load(Ordering::Relaxed) == turn {
                return (behind != NOTHING).then(|| Reading {
                    sent: Moment::at(UnixTime::from_millis(wall), Duration::from_nanos(monotonic)),
                    behind: Duration::from_nanos(behind),
                });
            }
        }
    }

    fn slot(&self, turn: u64) -> &Slot {
        &self.slots[usize::from(turn % 2 == 1)]
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[path = "published_tests.rs"]
mod tests;
