//! Keys that are not in the JWK Set. Anyone can invent key ids, so the fetches for them are
//! limited, and the result of a fetch is remembered.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

use cloakroom_core::Random;
use cloakroom_core::time::ClockReading;
use cloakroom_jwt::VerifyError;

/// How many fetches may follow each other at once.
const BURST: u32 = 3;
/// How long it takes until one more is allowed: a random time between these, so that verifiers which
/// saw the same tokens do not ask together.
const PERIOD: (Duration, Duration) = (Duration::from_millis(7500), Duration::from_millis(12_500));

/// How long a key counts as absent after a fetch has shown that it is.
const ABSENT: Duration = Duration::from_secs(30);
/// How many absent keys are remembered.
const MAX_ABSENT: usize = 4096;

/// A token bucket.
#[derive(Debug)]
pub(super) struct Allowance {
    left: u32,
    /// Since when the next one is waited for, and how long that takes.
    since: Option<ClockReading>,
    period: Duration,
}

impl Default for Allowance {
    fn default() -> Self {
        Self { left: BURST, since: None, period: period() }
    }
}

impl Allowance {
    /// Takes one fetch; `false` if none is left.
    pub(super) fn take(&mut self, now: ClockReading) -> bool {
        if let Some(since) = self.since {
            let passed = now.since(since);
            if passed >= self.period {
                let gained = passed.as_millis() / self.period.as_millis();
                self.left = u32::try_from(gained).unwrap_or(BURST).saturating_add(self.left);
                self.left = self.left.min(BURST);
                (self.since, self.period) = (Some(now), period());
            }
        }
        if self.left == BURST {
            self.since = Some(now);
        }
        match self.left.checked_sub(1) {
            Some(rest) => {
                self.left = rest;
                true
            }
            None => false,
        }
    }
}

fn period() -> Duration {
    let random = Random::system().array().map_or(u16::MAX, u16::from_ne_bytes);
    PERIOD.0 + (PERIOD.1 - PERIOD.0).mul_f64(f64::from(random) / f64::from(u16::MAX))
}

/// A key that could not be found, as a hash that outsiders cannot predict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Unknown(u64);

/// The keys that were absent from a fetched set. When it is full, the oldest is dropped.
#[derive(Debug, Default)]
pub(super) struct Absent {
    hasher: RandomState,
    /// When each was shown, and the number of that.
    seen: HashMap<Unknown, (u64, ClockReading)>,
    order: VecDeque<(Unknown, u64, ClockReading)>,
    shown: u64,
}

impl Absent {
    /// The key that a token names, or the token itself if it names none.
    pub(super) fn name(&self, error: &VerifyError, token: &str) -> Unknown {
        Unknown(match error.unknown_key() {
            Some(kid) => self.hasher.hash_one((0, kid.as_str())),
            None => self.hasher.hash_one((1, token)),
        })
    }

    /// Whether it was absent from a set that was fetched less than 30 s before `now`.
    pub(super) fn contains(&self, unknown: Unknown, now: ClockReading) -> bool {
        self.seen.get(&unknown).is_some_and(|(_, shown)| now.since(*shown) < ABSENT)
    }

    /// Notes that it was absent from the set that was requested at this time.
    pub(super) fn insert(&mut self, unknown: Unknown, sent: ClockReading) {
        // Requests that waited for the same fetch are noted once.
        if self.seen.get(&unknown).is_some_and(|(_, shown)| sent.since(*shown).is_zero()) {
            return;
        }
        while let Some((oldest, number, shown)) = self.order.front().copied()
            && (self.order.len() >= MAX_ABSENT || sent.since(shown) >= ABSENT)
        {
            self.order.pop_front();
            // It may have been shown again since.
            if self.seen.get(&oldest).is_some_and(|(newest, _)| *newest == number) {
                self.seen.remove(&oldest);
            }
        }
        self.shown += 1;
        self.seen.insert(unknown, (self.shown, sent));
        self.order.push_back((unknown, self.shown, sent));
    }
}

#[cfg(test)]
mod tests {
    use cloakroom_core::Kid;
    use cloakroom_core::time::UnixTime;

    use super::*;

    fn at(millis: u64) -> ClockReading {
        ClockReading::at(UnixTime::from_millis(millis), Duration::from_millis(millis))
    }

    #[test]
    fn fetches_come_back_one_by_one_up_to_the_burst() {
        let mut allowance = Allowance::default();
        let taken = |allowance: &mut Allowance, now| (0..9).filter(|_| allowance.take(now)).count();
        assert_eq!(taken(&mut allowance, at(1_000_000)), 3);
        assert_eq!(taken(&mut allowance, at(1_007_499)), 0);
        assert_eq!(taken(&mut allowance, at(1_012_500)), 1);
        assert_eq!(taken(&mut allowance, at(1_012_500)), 0);
        // Time that goes back gives nothing, and takes nothing away.
        assert_eq!(taken(&mut allowance, at(0)), 0);
        assert_eq!(taken(&mut allowance, at(1_025_000)), 1);
        assert_eq!(taken(&mut allowance, at(9_000_000)), 3);
        // An hour of flood.
        let mut all = 0;
        for second in 0..3600 {
            all += taken(&mut allowance, at(9_000_000 + second * 1000));
        }
        assert!((3600 / 13..=3600 / 7).contains(&all), "{all}");
    }

    #[test]
    fn periods_are_random_and_bounded() {
        let all: Vec<Duration> = (0..64).map(|_| period()).collect();
        assert!(all.iter().all(|one| (PERIOD.0..=PERIOD.1).contains(one)), "{all:?}");
        assert!(all.iter().any(|one| *one != all[0]), "{all:?}");
    }

    #[test]
    fn what_is_absent_is_remembered_for_a_while_and_bounded() {
        let mut absent = Absent::default();
        let unknown = |kid: u64| VerifyError::UnknownKey(Kid::new(kid.to_string()).unwrap());
        let name = |absent: &Absent, kid| absent.name(&unknown(kid), "a token");
        let (one, two) = (name(&absent, 1), name(&absent, 2));
        assert_ne!(one, two);
        assert_eq!(one, absent.name(&unknown(1), "another token"), "the key counts");
        let unnamed = absent.name(&VerifyError::Unnamed, "a token");
        assert_ne!(unnamed, absent.name(&VerifyError::Unnamed, "another token"));
        assert_ne!(absent.name(&VerifyError::Unnamed, "1"), one);

        absent.insert(one, at(1000));
        assert!(absent.contains(one, at(30_999)) && !absent.contains(one, at(31_000)));
        assert!(!absent.contains(two, at(1000)));
        // Shown again, it counts from then on, whatever its first entry says.
        absent.insert(one, at(20_000));
        absent.insert(two, at(31_000));
        assert!(absent.contains(one, at(49_999)));
        for kid in 3..20_000 {
            let unknown = name(&absent, kid);
            absent.insert(unknown, at(40_000));
            absent.insert(unknown, at(40_000));
        }
        assert!(absent.seen.len() <= MAX_ABSENT && absent.order.len() <= MAX_ABSENT);
        assert!(absent.contains(name(&absent, 19_999), at(40_000)));
        assert!(!absent.contains(name(&absent, 3), at(40_000)));
    }
}
