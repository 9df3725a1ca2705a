//! Points in time, and clocks.

use std::fmt;
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{LazyLock, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// A point in time: milliseconds since 1970-01-01T00:00:00Z.
///
/// The seconds of JWTs and introspection answers (RFC 7519 §2, `NumericDate`) are converted at
/// the edge, with [`UnixTime::from_secs`] and [`UnixTime::as_secs`]. Arithmetic saturates.
///
/// ```
/// use std::time::Duration;
/// use cloakroom_core::time::UnixTime;
///
/// let issued = UnixTime::from_secs(1_700_000_000);
/// let expires = issued + Duration::from_secs(600);
/// assert_eq!(expires.as_secs(), 1_700_000_600);
/// assert_eq!(expires.since(issued), Duration::from_secs(600));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "u64", into = "u64")]
pub struct UnixTime(
    // One more than the milliseconds: records have many times that may be missing, and a number that is
    // never zero keeps an `Option` as small as the time.
    NonZeroU64,
);

impl UnixTime {
    /// The latest time that can be expressed. It is later than every expiry, and fits into a signed
    /// 64-bit column.
    pub const MAX: Self = Self::saturating(i64::MAX.cast_unsigned());

    /// A time from milliseconds since the epoch.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        if millis > Self::MAX.as_millis() { Self::MAX } else { Self::saturating(millis) }
    }

    const fn saturating(millis: u64) -> Self {
        Self(NonZeroU64::MIN.saturating_add(millis))
    }

    /// A time from whole seconds since the epoch (a JWT's `NumericDate`).
    #[must_use]
    pub const fn from_secs(secs: u64) -> Self {
        Self::from_millis(secs.saturating_mul(1000))
    }

    /// Milliseconds since the epoch.
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.0.get() - 1
    }

    /// Whole seconds since the epoch, rounded down, so that an expiry on the wire is never later than
    /// the expiry that is enforced.
    #[must_use]
    pub const fn as_secs(self) -> u64 {
        self.as_millis() / 1000
    }

    /// The time that passed since `earlier`; zero if this is not later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.as_millis().saturating_sub(earlier.as_millis()))
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Default for UnixTime {
    fn default() -> Self {
        Self::from_millis(0)
    }
}

impl From<u64> for UnixTime {
    fn from(millis: u64) -> Self {
        Self::from_millis(millis)
    }
}

impl From<UnixTime> for u64 {
    fn from(time: UnixTime) -> Self {
        time.as_millis()
    }
}

impl std::ops::Add<Duration> for UnixTime {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self::from_millis(self.as_millis().saturating_add(millis(duration)))
    }
}

impl std::ops::Sub<Duration> for UnixTime {
    type Output = Self;

    fn sub(self, duration: Duration) -> Self {
        Self::from_millis(self.as_millis().saturating_sub(millis(duration)))
    }
}

/// As RFC 3339 writes it, in UTC: `2026-11-20T10:17:31.000Z`.
impl fmt::Display for UnixTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const DAY: u64 = 86_400_000;
        // Days since 0000-03-01: years that begin in March have their leap day at their end.
        let (days, millis) = (self.as_millis() / DAY + 719_468, self.as_millis() % DAY);
        let (era, day_of_era) = (days / 146_097, days % 146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let march_month = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * march_month + 2) / 5 + 1;
        let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
        let year = era * 400 + year_of_era + u64::from(month <= 2);
        let (seconds, millis) = (millis / 1000, millis % 1000);
        let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
    }
}

impl fmt::Debug for UnixTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03}s", self.as_secs(), self.as_millis() % 1000)
    }
}

/// The source of time. Everything that depends on time reads a `Clock`, so that tests can advance a
/// [`ManualClock`] instead of sleeping.
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// The wall time.
    fn now(&self) -> UnixTime;

    /// The time since a fixed point in this process. It never goes back.
    fn monotonic(&self) -> Duration;
}

/// The clocks of the operating system. All instances in a process show the same time.
#[derive(Debug, Clone, Default)]
pub struct SystemClock(());

/// The start of monotonic time. There is one for the whole process, so that two parts of an app can
/// compare readings of their own clocks.
static ORIGIN: LazyLock<Instant> = LazyLock::new(Instant::now);

impl SystemClock {
    /// The system's clock.
    #[must_use]
    pub fn new() -> Self {
        // Set it now: the first reading would be zero otherwise.
        LazyLock::force(&ORIGIN);
        Self(())
    }
}

impl Clock for SystemClock {
    fn now(&self) -> UnixTime {
        // A clock before 1970 reads as 1970. No key or token is valid yet at that time.
        UnixTime::from_millis(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, millis))
    }

    fn monotonic(&self) -> Duration {
        ORIGIN.elapsed()
    }
}

/// A clock that moves only when told to, for tests.
///
/// ```
/// use std::time::Duration;
/// use cloakroom_core::time::{Clock, ManualClock, UnixTime};
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
        Self { now: AtomicU64::new(now.as_millis()), monotonic: Mutex::default() }
    }

    /// Moves wall time and monotonic time forward by the same amount.
    pub fn advance(&self, by: Duration) {
        self.now.fetch_add(millis(by), Ordering::SeqCst);
        *self.monotonic.lock().unwrap_or_else(std::sync::PoisonError::into_inner) += by;
    }

    /// Sets only the wall time, forwards or back, as an operator or NTP would.
    pub fn set(&self, now: UnixTime) {
        self.now.store(now.as_millis(), Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> UnixTime {
        UnixTime::from_millis(self.now.load(Ordering::SeqCst))
    }

    fn monotonic(&self) -> Duration {
        *self.monotonic.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// A reading of both clocks at one moment. An age that is measured with it does not become smaller
/// when the wall clock is set back or the machine sleeps.
///
/// ```
/// use std::time::Duration;
/// use cloakroom_core::time::{ClockReading, ManualClock, UnixTime};
///
/// let clock = ManualClock::at(UnixTime::from_secs(1_000));
/// let start = ClockReading::now(&clock);
/// clock.advance(Duration::from_secs(10));
/// clock.set(UnixTime::from_secs(500));
/// assert_eq!(ClockReading::now(&clock).since(start), Duration::from_secs(10));
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct ClockReading {
    wall: UnixTime,
    monotonic: Duration,
}

impl ClockReading {
    /// Reads both clocks.
    #[must_use]
    pub fn now(clock: &(impl Clock + ?Sized)) -> Self {
        Self { wall: clock.now(), monotonic: clock.monotonic() }
    }

    /// A reading of these two values.
    #[inline]
    #[must_use]
    pub const fn at(wall: UnixTime, monotonic: Duration) -> Self {
        Self { wall, monotonic }
    }

    /// The wall time.
    #[inline]
    #[must_use]
    pub const fn wall(self) -> UnixTime {
        self.wall
    }

    /// The monotonic time.
    #[inline]
    #[must_use]
    pub const fn monotonic(self) -> Duration {
        self.monotonic
    }

    /// The time since `earlier`: the larger of the two clocks' differences. Monotonic time stops
    /// while a machine sleeps, and wall time can be set back.
    #[inline]
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        self.wall.since(earlier.wall).max(self.monotonic.saturating_sub(earlier.monotonic))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn system_clocks_count_from_one_point() {
        let first = SystemClock::new();
        let mut earlier = first.monotonic();
        while earlier < Duration::from_millis(1) {
            earlier = first.monotonic();
        }
        assert!(SystemClock::new().monotonic() >= earlier);
    }

    #[test]
    fn arithmetic_saturates() {
        assert_eq!(UnixTime::MAX + Duration::from_secs(1), UnixTime::MAX);
        assert_eq!(UnixTime::from_millis(5) - Duration::MAX, UnixTime::from_millis(0));
        assert_eq!(UnixTime::from_secs(u64::MAX), UnixTime::MAX);
        assert_eq!(UnixTime::from_secs(1).since(UnixTime::from_secs(2)), Duration::ZERO);
    }

    #[test]
    fn every_millisecond_is_kept_and_a_missing_time_takes_no_space() {
        for millis in [0, 1, 999, 1_700_000_000_000, i64::MAX.cast_unsigned()] {
            let time = UnixTime::from_millis(millis);
            assert_eq!((time.as_millis(), time.as_secs()), (millis, millis / 1000));
            assert_eq!(serde_json::to_string(&time).unwrap(), millis.to_string());
            assert_eq!(serde_json::from_str::<UnixTime>(&millis.to_string()).unwrap(), time);
        }
        assert_eq!(UnixTime::from_millis(u64::MAX), UnixTime::MAX);
        assert_eq!(UnixTime::default().as_millis(), 0);
        assert!(UnixTime::default() < UnixTime::from_millis(1));
        assert_eq!(size_of::<Option<UnixTime>>(), size_of::<u64>());
    }

    #[test]
    fn times_are_shown_as_rfc_3339() {
        for (secs, shown) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400, "2000-02-29T00:00:00.000Z"),
            (951_868_800, "2000-03-01T00:00:00.000Z"),
            (1_709_251_199, "2024-02-29T23:59:59.000Z"),
            (1_735_689_599, "2024-12-31T23:59:59.000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(UnixTime::from_secs(secs).to_string(), shown);
        }
        let _ = UnixTime::MAX.to_string();
    }

    #[test]
    fn setting_the_wall_clock_leaves_monotonic_time_alone() {
        let clock = ManualClock::at(UnixTime::from_secs(10));
        clock.advance(Duration::from_secs(3));
        clock.set(UnixTime::from_secs(1));
        assert_eq!(clock.now(), UnixTime::from_secs(1));
        assert_eq!(clock.monotonic(), Duration::from_secs(3));
    }

    #[test]
    fn the_larger_of_both_clocks_counts() {
        let clock = ManualClock::at(UnixTime::from_secs(1000));
        let start = ClockReading::now(&clock);
        clock.advance(Duration::from_secs(10));
        clock.set(UnixTime::from_secs(500));
        assert_eq!(ClockReading::now(&clock).since(start), Duration::from_secs(10));
        clock.set(UnixTime::from_secs(1100));
        assert_eq!(ClockReading::now(&clock).since(start), Duration::from_secs(100));
    }
}
