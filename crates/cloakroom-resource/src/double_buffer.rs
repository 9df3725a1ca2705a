//! A small value that one thread updates and every request reads.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cloakroom_core::time::{ClockReading, UnixTime};

/// The newest of some numbers that belong together, without a lock and without writing by those who
/// read: a lock's counter would wander from core to core with every request.
///
/// Of two slots, the even turns are in one and the odd turns in the other. Turn n + 2 overwrites
/// turn n, and does so only after turn n + 1 was announced: who finds the turn unchanged after
/// reading its slot has read one turn's numbers, not parts of two.
#[derive(Debug)]
pub(crate) struct DoubleBuffer<const N: usize> {
    turn: AtomicU64,
    slots: [[AtomicU64; N]; 2],
}

impl<const N: usize> DoubleBuffer<N> {
    pub(crate) fn new(numbers: [u64; N]) -> Self {
        let slot = || numbers.map(AtomicU64::new);
        Self { turn: AtomicU64::new(0), slots: [slot(), slot()] }
    }

    /// Renews the numbers. The caller sees to it that only one thread at a time does.
    pub(crate) fn set(&self, numbers: [u64; N]) {
        let turn = self.turn.load(Ordering::Relaxed).wrapping_add(1);
        for (place, number) in self.slot(turn).iter().zip(numbers) {
            // Release, so that who sees one of these has seen the turn before it.
            place.store(number, Ordering::Release);
        }
        // Release: what was done before is seen by who sees the numbers.
        self.turn.store(turn, Ordering::Release);
    }

    /// The newest numbers.
    pub(crate) fn get(&self) -> [u64; N] {
        loop {
            let turn = self.turn.load(Ordering::Acquire);
            let numbers = self.slot(turn).each_ref().map(|place| place.load(Ordering::Acquire));
            if self.turn.load(Ordering::Relaxed) == turn {
                return numbers;
            }
        }
    }

    fn slot(&self, turn: u64) -> &[AtomicU64; N] {
        &self.slots[usize::from(turn % 2 == 1)]
    }
}

/// A reading as milliseconds of the wall clock and nanoseconds of the monotonic one.
pub(crate) fn to_numbers(reading: ClockReading) -> [u64; 2] {
    [reading.wall().as_millis(), nanos(reading.monotonic())]
}

pub(crate) const fn from_numbers([wall, monotonic]: [u64; 2]) -> ClockReading {
    ClockReading::at(UnixTime::from_millis(wall), Duration::from_nanos(monotonic))
}

/// 584 years at most.
pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_is_written_where_nobody_reads_the_one_before() {
        let newest = DoubleBuffer::new([0]);
        for turn in [0, 1, 2, 3, 4, u64::MAX - 1] {
            let slot = |turn| std::ptr::from_ref(newest.slot(turn));
            assert_ne!(slot(turn), slot(turn + 1), "{turn}");
            assert_eq!(slot(turn), slot(turn.wrapping_add(2)), "{turn}");
        }
    }

    #[test]
    fn the_last_numbers_are_read() {
        let newest = DoubleBuffer::new([1, 2]);
        assert_eq!(newest.get(), [1, 2]);
        for turn in 0..5 {
            newest.set([turn, turn + 7]);
            assert_eq!(newest.get(), [turn, turn + 7]);
        }
    }
}
