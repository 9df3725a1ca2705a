//! Measuring in pairs: floor and subject take turns in one process.

use std::fmt;
use std::hint::black_box;
use std::iter;
use std::time::{Duration, Instant};

use crate::row::{Aim, Beside, Floor, Row, Unit, quartiles};
use crate::suite::Suite;

/// Something to time: makes this many calls, and returns how long they took.
pub type Timed<'a> = Box<dyn FnMut(u64) -> Duration + 'a>;

/// Times calls of `call`.
pub fn per_call<'a, T>(mut call: impl FnMut() -> T + 'a) -> Timed<'a> {
    Box::new(move |calls| {
        let start = Instant::now();
        for _ in 0..calls {
            black_box(call());
        }
        start.elapsed()
    })
}

/// A subject beside its floor, and beside others.
///
/// They take turns in short rounds, so that whatever disturbs the machine disturbs them alike. The
/// ratio is the median of the rounds' ratios, not the ratio of two medians.
///
/// ```
/// use cloakroom_benches::{Pair, Suite, per_call};
///
/// let row = Pair::new("add", per_call(|| 1 + 1))
///     .floor("nothing", per_call(|| ()))
///     .measure(&Suite::from_args());
/// assert_eq!(row.name, "add");
/// ```
#[must_use = "a pair does nothing until it is measured"]
pub struct Pair<'a> {
    name: String,
    subject: Timed<'a>,
    floor: Option<(String, Timed<'a>)>,
    beside: Vec<(String, Timed<'a>)>,
    aim: Option<Aim>,
    unit: Unit,
}

impl<'a> Pair<'a> {
    /// A pair with this subject, and no floor yet.
    pub fn new(name: impl Into<String>, subject: Timed<'a>) -> Self {
        let (floor, beside, aim, unit) = (None, Vec::new(), None, Unit::Nanoseconds);
        Self { name: name.into(), subject, floor, beside, aim, unit }
    }

    /// Adds the floor.
    pub fn floor(mut self, name: impl Into<String>, floor: Timed<'a>) -> Self {
        self.floor = Some((name.into(), floor));
        self
    }

    /// Adds another way to do the same, which is reported beside it.
    pub fn beside(mut self, name: impl Into<String>, other: Timed<'a>) -> Self {
        self.beside.push((name.into(), other));
        self
    }

    /// The most that the ratio to the floor should be.
    pub const fn at_most(mut self, ratio: f64) -> Self {
        self.aim = Some(Aim::AtMost(ratio));
        self
    }

    /// The least that the ratio to the floor should be.
    pub const fn at_least(mut self, ratio: f64) -> Self {
        self.aim = Some(Aim::AtLeast(ratio));
        self
    }

    /// Reports calls per second instead of the time of one call.
    pub const fn per_second(mut self) -> Self {
        self.unit = Unit::PerSecond;
        self
    }

    /// Measures them in turns.
    pub fn measure(self, suite: &Suite) -> Row {
        let (rounds, turn) = if suite.is_quick() {
            (3, Duration::from_micros(50))
        } else {
            // A turn is shorter than a time slice of the scheduler, so that most are not interrupted.
            (2001, Duration::from_micros(250))
        };
        let contestant = |(name, timed)| Contestant::new(name, timed, self.unit, turn);
        let mut subject = contestant((self.name, self.subject));
        let mut floor = self.floor.map(contestant);
        let mut beside: Vec<_> = self.beside.into_iter().map(contestant).collect();
        for round in 0..rounds {
            let mut all: Vec<_> =
                iter::once(&mut subject).chain(&mut floor).chain(&mut beside).collect();
            // Rotate, so that none always runs after the same one and finds its data in the caches.
            let first = round % all.len();
            all.rotate_left(first);
            all.into_iter().for_each(Contestant::run);
        }

        Row {
            ours: subject.median(),
            unit: self.unit,
            floor: floor.map(|floor| {
                let ratios: Vec<f64> = iter::zip(&subject.turns, &floor.turns)
                    .map(|(ours, floor)| ours / floor)
                    .collect();
                Floor::new(&floor.name, floor.median(), &ratios)
            }),
            aim: self.aim,
            beside: beside
                .iter()
                .map(|other| Beside { name: other.name.clone(), value: other.median() })
                .collect(),
            name: subject.name,
        }
    }
}

impl fmt::Debug for Pair<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pair").field("name", &self.name).finish_non_exhaustive()
    }
}

/// The subject, its floor, or another way.
struct Contestant<'a> {
    name: String,
    timed: Timed<'a>,
    unit: Unit,
    /// Calls in a turn.
    calls: u64,
    /// One figure for each turn.
    turns: Vec<f64>,
}

impl<'a> Contestant<'a> {
    fn new(name: String, mut timed: Timed<'a>, unit: Unit, turn: Duration) -> Self {
        let mut to_fill_it = || {
            let mut calls = 1;
            while calls < 1 << 30 && timed(calls) < turn {
                calls *= 2;
            }
            calls
        };
        // The first calls are slow, and any may be interrupted. Short turns would show what the other
        // one left in the processor's caches, not the time of a call.
        let calls = (0..5).map(|_| to_fill_it()).max().unwrap_or(1);
        Self { name, timed, unit, calls, turns: Vec::new() }
    }

    fn run(&mut self) {
        let took = (self.timed)(self.calls).as_secs_f64() / self.calls as f64;
        self.turns.push(if self.unit == Unit::PerSecond { 1.0 / took } else { took * 1e9 });
    }

    fn median(&self) -> f64 {
        let [_, median, _] = quartiles(&self.turns);
        median
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pretends that each call takes this many nanoseconds.
    fn takes<'a>(nanoseconds: u64) -> Timed<'a> {
        Box::new(move |calls| Duration::from_nanos(calls * nanoseconds))
    }

    #[test]
    fn a_ratio_is_that_of_the_subject_to_its_floor() {
        let row = Pair::new("subject", takes(300))
            .floor("floor", takes(200))
            .beside("other", takes(700))
            .at_most(1.4)
            .measure(&Suite::from_args());
        let floor = row.floor.as_ref().expect("it has one");
        assert_eq!((row.ours, floor.value, floor.ratio), (300.0, 200.0, 1.5));
        assert_eq!(floor.quartiles, (1.5, 1.5));
        assert_eq!((row.beside[0].name.as_str(), row.beside[0].value), ("other", 700.0));
        assert_eq!(row.is_met(), Some(false));
    }

    #[test]
    fn a_slow_start_makes_no_short_turns() {
        let mut times = [Duration::from_millis(1), Duration::from_millis(1)].into_iter();
        let timed: Timed<'_> = Box::new(move |calls| {
            times.next().unwrap_or_else(|| Duration::from_nanos(calls * 1_000))
        });
        let turn = Duration::from_micros(250);
        let contestant = Contestant::new("subject".to_owned(), timed, Unit::Nanoseconds, turn);
        assert_eq!(contestant.calls, 256);
    }

    #[test]
    fn what_disturbs_a_few_rounds_does_not_count() {
        let mut turns = 0;
        let disturbed: Timed<'_> = Box::new(move |calls| {
            turns += 1;
            Duration::from_nanos(calls * if turns % 4 == 0 { 90_000 } else { 300 })
        });
        let row =
            Pair::new("subject", disturbed).floor("floor", takes(200)).measure(&Suite::from_args());
        assert_eq!(row.floor.expect("it has one").ratio, 1.5);
    }
}
