//! Ages that neither a set clock nor a suspended machine can shorten.

use std::time::Duration;

use cloakroom_core::time::{Clock, UnixTime};

/// A point in time by both clocks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    wall: UnixTime,
    monotonic: Duration,
}

impl Moment {
    pub(crate) fn now(clock: &dyn Clock) -> Self {
        Self { wall: clock.now(), monotonic: clock.monotonic() }
    }

    pub(crate) const fn at(wall: UnixTime, monotonic: Duration) -> Self {
        Self { wall, monotonic }
    }

    /// As milliseconds and nanoseconds.
    pub(crate) fn to_numbers(self) -> [u64; 2] {
        [self.wall.as_millis(), nanos(self.monotonic)]
    }

    pub(crate) const fn from_numbers([wall, monotonic]: [u64; 2]) -> Self {
        Self::at(UnixTime::from_millis(wall), Duration::from_nanos(monotonic))
    }

    /// What the wall clock says.
    pub(crate) const fn wall(self) -> UnixTime {
        self.wall
    }

    /// What the monotonic clock says.
    pub(crate) const fn monotonic(self) -> Duration {
        self.monotonic
    }

    /// The time since `earlier`: the larger of what the clocks say. Monotonic time stands still
    /// while a machine sleeps; wall time can be set back.
    pub(crate) fn since(self, earlier: Self) -> Duration {
        self.wall.since(earlier.wall).max(self.monotonic.saturating_sub(earlier.monotonic))
    }
}

/// 584 years at most.
pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use cloakroom_core::time::ManualClock;

    use super::*;

    #[test]
    fn the_larger_of_both_clocks_counts() {
        let clock = ManualClock::at(UnixTime::from_secs(1000));
        let start = Moment::now(&clock);
        clock.advance(Duration::from_secs(10));
        clock.set(UnixTime::from_secs(500));
        assert_eq!(Moment::now(&clock).since(start), Duration::from_secs(10));
        clock.set(UnixTime::from_secs(1100));
        assert_eq!(Moment::now(&clock).since(start), Duration::from_secs(100));
    }
}
