//! How much the authorization server is asked.

use std::num::NonZeroU32;
use std::time::Duration;

use cloakroom_core::time::ClockReading;

/// How much one layer may ask of the authorization server. Beyond a limit, requests whose tokens
/// would have to be asked about are refused with 503 and `Retry-After`; those that can be answered
/// from memory are not touched.
///
/// ```
/// use cloakroom_resource::IntrospectionLimits;
///
/// let limits = IntrospectionLimits::default().at_once(64).max_requests_per_second(500);
/// ```
///
/// **Junk is what these are for.** A token that nobody knows has to be asked about, once for each
/// invented spelling. With [`GatewayKeys`](crate::GatewayKeys) most junk is refused without asking;
/// without them, give [`max_requests_per_second`](Self::max_requests_per_second) a value well above
/// the good tokens that come up new in a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IntrospectionLimits {
    pub(crate) at_once: usize,
    pub(crate) waiting: usize,
    per_second: Option<NonZeroU32>,
}

impl Default for IntrospectionLimits {
    /// 256 questions at once, 4,096 that wait for their turn, any number a second.
    fn default() -> Self {
        Self { at_once: 256, waiting: 4096, per_second: None }
    }
}

impl IntrospectionLimits {
    /// How many questions may be with the authorization server at a time; at least 1.
    #[must_use]
    pub const fn at_once(mut self, questions: usize) -> Self {
        self.at_once = match questions {
            0 => 1,
            n if n > MAX_AT_ONCE => MAX_AT_ONCE,
            n => n,
        };
        self
    }

    /// How many questions may wait to be sent, each about another token; at least 1. A question
    /// that waits takes some KiB of memory, and all requests with the same token share one.
    #[must_use]
    pub const fn waiting(mut self, questions: usize) -> Self {
        self.waiting = if questions == 0 { 1 } else { questions };
        self
    }

    /// How many questions may be sent a second, on average; as many may come in one burst. Zero is
    /// no limit.
    #[must_use]
    pub const fn max_requests_per_second(mut self, requests: u32) -> Self {
        self.per_second = NonZeroU32::new(requests);
        self
    }
}

/// What a semaphore of tokio's can count.
const MAX_AT_ONCE: usize = tokio::sync::Semaphore::MAX_PERMITS;

/// What is left of the questions of a second: a bucket that holds one second's worth.
#[derive(Debug)]
pub(crate) struct Allowance {
    /// A question costs a second; a second brings `per_second` of them.
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

    /// Whether one more question may be sent.
    pub(crate) fn take(&mut self, limits: &IntrospectionLimits, now: ClockReading) -> bool {
        let Some(rate) = limits.per_second else {
            return true;
        };
        let passed = self.counted.map_or(Duration::ZERO, |counted| now.since(counted));
        // A request that began before the last one that was counted takes nothing back.
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
