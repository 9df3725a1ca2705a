//! The limits on requests to the authorization server.

use std::num::NonZeroU32;
use std::time::Duration;

use cloakroom_core::time::ClockReading;

/// How many introspections and swaps one layer may send. Beyond a limit, requests that need one are
/// refused with 503 and `Retry-After`; requests that are answered from memory are not affected.
///
/// ```
/// use cloakroom_resource::IntrospectionLimits;
///
/// let limits = IntrospectionLimits::default().at_once(64).max_requests_per_second(500);
/// ```
///
/// **These limits protect the authorization server from invented tokens.** Each such token needs an
/// introspection. [`GatewayKeys`](crate::GatewayKeys) refuse most of them without one. If you do
/// not use them, set [`max_requests_per_second`](Self::max_requests_per_second) well above the
/// number of new valid tokens that you expect per second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IntrospectionLimits {
    pub(crate) at_once: usize,
    pub(crate) waiting: usize,
    per_second: Option<NonZeroU32>,
}

impl Default for IntrospectionLimits {
    /// 256 requests at once, 4,096 that wait, and no limit per second.
    fn default() -> Self {
        Self { at_once: 256, waiting: 4096, per_second: None }
    }
}

impl IntrospectionLimits {
    /// How many requests may be in progress at the same time; at least 1.
    #[must_use]
    pub const fn at_once(mut self, requests: usize) -> Self {
        self.at_once = match requests {
            0 => 1,
            n if n > MAX_AT_ONCE => MAX_AT_ONCE,
            n => n,
        };
        self
    }

    /// How many requests may wait to be sent, each for a different token; at least 1. A waiting
    /// request takes a few KiB of memory.
    #[must_use]
    pub const fn waiting(mut self, requests: usize) -> Self {
        self.waiting = if requests == 0 { 1 } else { requests };
        self
    }

    /// How many requests may be sent per second on average; one burst may be as large. Zero means no
    /// limit.
    #[must_use]
    pub const fn max_requests_per_second(mut self, requests: u32) -> Self {
        self.per_second = NonZeroU32::new(requests);
        self
    }
}

/// The largest number that tokio's semaphore can count.
const MAX_AT_ONCE: usize = tokio::sync::Semaphore::MAX_PERMITS;

/// A token bucket that holds the requests of one second.
#[derive(Debug)]
pub(crate) struct Allowance {
    /// A request costs one second of credit, and each second adds `per_second` of them.
    credit: Duration,
    counted: Option<ClockReading>,
}

const COST: Duration = Duration::from_secs(1);

impl Allowance {
    pub(crate) const fn full(limits: &IntrospectionLimits) -> Self {
        Self { credit: Self::most(limits), counted: None }
    }

    const fn most(limits: &IntrospectionLimits) -> Duration {
        match limits.per_second {
            Some(rate) => Duration::from_secs(rate.get() as u64),
            None => Duration::MAX,
        }
    }

    /// Takes one request from the bucket; `false` if it is empty.
    pub(crate) fn take(&mut self, limits: &IntrospectionLimits, now: ClockReading) -> bool {
        let Some(rate) = limits.per_second else {
            return true;
        };
        let passed = self.counted.map_or(Duration::ZERO, |counted| now.since(counted));
        // A request that began before the last counted one does not set the time back.
        if self.counted.is_none() || !passed.is_zero() {
            self.counted = Some(now);
        }
        let refill = passed.checked_mul(rate.get()).unwrap_or(Duration::MAX);
        self.credit = self.credit.saturating_add(refill).min(Self::most(limits));
        match self.credit.checked_sub(COST) {
            Some(rest) => {
                self.credit = rest;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use cloakroom_core::time::{ManualClock, UnixTime};

    use super::*;

    #[test]
    fn a_second_brings_what_may_be_asked_in_it() {
        let clock = ManualClock::at(UnixTime::from_secs(1000));
        let limits = IntrospectionLimits::default().max_requests_per_second(4);
        let mut allowance = Allowance::full(&limits);
        let mut burst =
            || (0..100).take_while(|_| allowance.take(&limits, ClockReading::now(&clock))).count();
        assert_eq!(burst(), 4);
        assert_eq!(burst(), 0);
        clock.advance(Duration::from_millis(499));
        assert_eq!(burst(), 1);
        clock.advance(Duration::from_millis(1));
        assert_eq!(burst(), 1);
        // A clock that is set back takes nothing away, and brings nothing.
        clock.set(UnixTime::from_secs(1));
        assert_eq!(burst(), 0);
        clock.advance(Duration::from_secs(3600));
        assert_eq!(burst(), 4, "nothing is saved up beyond a second");

        let unlimited = IntrospectionLimits::default().max_requests_per_second(0);
        let mut allowance = Allowance::full(&unlimited);
        assert!((0..10_000).all(|_| allowance.take(&unlimited, ClockReading::now(&clock))));
    }

    #[test]
    fn nothing_can_be_limited_to_nothing() {
        let limits = IntrospectionLimits::default().at_once(0).waiting(0);
        assert_eq!((limits.at_once, limits.waiting), (1, 1));
        assert_eq!(IntrospectionLimits::default().at_once(usize::MAX).at_once, MAX_AT_ONCE);
    }
}
