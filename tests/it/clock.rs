//! One clock for all that takes part.

use std::time::{Duration, Instant};

use cloakroom::core::time::{Clock, SystemClock, UnixTime};

/// Real time, as one clock shows it: the wall time is what it was at the beginning, and what has
/// passed since. Nobody sets it while a test runs, so that what the servers do and what the oracle
/// wrote down can be compared.
#[derive(Debug)]
pub(crate) struct OneClock {
    start: Instant,
    wall: UnixTime,
}

impl OneClock {
    pub(crate) fn new() -> Self {
        Self { start: Instant::now(), wall: SystemClock::new().now() }
    }
}

impl Clock for OneClock {
    fn now(&self) -> UnixTime {
        self.wall + self.monotonic()
    }

    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }
}
