//! Time as a value, and the clock it comes from.

use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// A point in time: milliseconds since 1970-01-01T00:00:00Z.
///
/// The seconds of JWTs and introspection answers (RFC 7519 §2, `NumericDate`) are converted at
/// the edge, with [`UnixTime::from_secs`] and [`UnixTime::as_secs`]. Arithmetic saturates.
///
/// ```
/// use std::time::Duration;
/// use cloakroom_core::UnixTime;
///
/// let issued = UnixTime::from_secs(1_700_000_000);
/// let expires = issued + Duration::from_secs(600);
/// assert_eq!(expires.as_secs(), 1_700_000_600);
/// assert_eq!(expires.since(issued), Duration::from_secs(600));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UnixTime(u64);

impl UnixTime {
    /// The latest time that can be expressed: later than every expiry.
    pub const MAX: Self = Self(u64::MAX);

    /// A time from milliseconds since the epoch.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// A time from whole seconds since the epoch (a JWT's `NumericDate`).
    #[must_use]
    pub const fn from_secs(secs: u64) -> Self {
        Self(secs.saturating_mul(1000))
    }

    /// Milliseconds since the epoch.
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// Whole seconds since the epoch, rounded down: an expiry on the wire is never later than the
    /// one that is enforced.
    #[must_use]
    pub const fn as_secs(self) -> u64 {
        self.0 / 1000
    }

    /// How long after `earlier` this is; zero if it is not later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl std::ops::Add<Duration> for UnixTime {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(millis(duration)))
    }
}

impl std::ops::Sub<Duration> for UnixTime {
    type Output = Self;

    fn sub(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(millis(duration)))
    }
}

impl fmt::Debug for UnixTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03}s", self.0 / 1000, self.0 % 1000)
    }
}

/// Where the time comes from. Everything that depends on time asks a `Clock`, so that tests
/// advance a [`ManualClock`] instead of sleeping.
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// The wall time.
    fn now(&self) -> UnixTime;

    /// Time passed since some fixed point of this process; never goes back.
    fn monotonic(&self) -> Duration;
}

/// The operating system's clocks.
#[derive(Debug, Clone)]
pub struct SystemClock {
    origin: Instant,
}

impl SystemClock {
    /// The system's clock; its monotonic time counts from now.
    #[must_use]
    pub fn new() -> Self {
        Self {
            origin: Instant::now(),
        }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> UnixTime {
        // A machine set before 1970 counts as 1970: every key and token is then "not yet valid".
        UnixTime(
            SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, millis),
        )
    }

    fn monotonic(&self) -> Duration {
        self.origin.elapsed()
    }
}

/// A clock that moves only when told to, for tests.
///
/// ```
/// use std::time::Duration;
/// use cloakroom_core::{Clock, ManualClock, UnixTime};
///
/// let clock = ManualClock::at(UnixTime::from_secs(1_000));
/// clock.advance(Duration::from_secs(5));
/// assert_eq!(clock.now(), UnixTime::from_secs(1_005));
/// ```
#[derive(Debug)]
pub struct ManualClock {
    now: AtomicU64,
    monotonic: Mutex<Duration>,
}

impl ManualClock {
    /// A clock that shows `now`.
    #[must_use]
    pub fn at(now: UnixTime) -> Self {
        Self {
            now: AtomicU64::new(now.as_millis()),
            monotonic: Mutex::default(),
        }
    }

    /// Moves wall time and monotonic time on together.
    pub fn advance(&self, by: Duration) {
        self.now.fetch_add(millis(by), Ordering::SeqCst);
        *self
            .monotonic
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner) += by;
    }

    /// Sets the wall time alone, forwards or back, as an operator or NTP would.
    pub fn set(&self, now: UnixTime) {
        self.now.store(now.as_millis(), Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> UnixTime {
        UnixTime(self.now.load(Ordering::SeqCst))
    }

    fn monotonic(&self) -> Duration {
        *self
            .monotonic
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_saturates() {
        assert_eq!(UnixTime::MAX + Duration::from_secs(1), UnixTime::MAX);
        assert_eq!(
            UnixTime::from_millis(5) - Duration::MAX,
            UnixTime::from_millis(0)
        );
        assert_eq!(UnixTime::from_secs(u64::MAX), UnixTime::MAX);
        assert_eq!(
            UnixTime::from_secs(1).since(UnixTime::from_secs(2)),
            Duration::ZERO
        );
    }

    #[test]
    fn setting_the_wall_clock_leaves_monotonic_time_alone() {
        let clock = ManualClock::at(UnixTime::from_secs(10));
        clock.advance(Duration::from_secs(3));
        clock.set(UnixTime::from_secs(1));
        assert_eq!(clock.now(), UnixTime::from_secs(1));
        assert_eq!(clock.monotonic(), Duration::from_secs(3));
    }
}
