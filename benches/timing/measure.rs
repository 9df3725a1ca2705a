//! Measuring calls of two classes of inputs.

use std::hint::black_box;
use std::time::{Duration, Instant};

use cloakroom_benches::timing::{Moments, Round, evidence};
use cloakroom_core::Random;

/// What two classes took.
pub(crate) struct Outcome {
    /// How many measurements, of both classes together.
    pub(crate) measurements: usize,
    /// Nanoseconds.
    pub(crate) per_call: f64,
    /// See [`evidence`].
    pub(crate) t: f64,
}

/// How much is measured.
#[derive(Clone, Copy)]
pub(crate) struct Effort {
    rounds: usize,
    /// How many times a round prepares inputs and measures them.
    batches: usize,
}

impl Effort {
    /// Some seconds for each check.
    pub(crate) const FULL: Self = Self { rounds: 11, batches: 60 };
    /// As little as shows that everything runs.
    pub(crate) const QUICK: Self = Self { rounds: 1, batches: 1 };
}

/// Few enough to stay in the cache.
const BATCH: usize = 1000;

/// A measurement is at least this long: many times what the clock can tell apart.
const SPAN: Duration = Duration::from_micros(1);

/// Compares calls of `call` with inputs of the first class, `prepare(false)`, and of the second.
///
/// Inputs are made before a batch is timed, in the order in which they are used: whether one is of
/// the first or the second class says nothing of where it lies in memory.
pub(crate) fn compare<I>(
    effort: Effort,
    mut prepare: impl FnMut(bool) -> I,
    call: impl Fn(&I) -> bool,
) -> Outcome {
    let random = Random::system();
    let mut batch = || -> Vec<(bool, I)> {
        let mut coins = [0; BATCH];
        random.fill(&mut coins).expect("random bytes");
        coins.iter().map(|coin| coin & 1 == 1).map(|second| (second, prepare(second))).collect()
    };
    let calls = calls_for(SPAN, &batch(), &call);
    let time = |input: &I| {
        let start = Instant::now();
        for _ in 0..calls {
            black_box(call(black_box(input)));
        }
        start.elapsed().as_nanos() as f64
    };
    let mut all = Moments::default();
    let rounds: Vec<Round> = (0..effort.rounds)
        .map(|_| {
            let trial: Vec<f64> = batch().iter().map(|(_, input)| time(input)).collect();
            let mut round = Round::after(&trial);
            for _ in 0..effort.batches {
                for (second, input) in &batch() {
                    let took = time(input);
                    round.add(*second, took);
                    all.add(took);
                }
            }
            round
        })
        .collect();
    Outcome {
        measurements: effort.rounds * effort.batches * BATCH,
        per_call: all.mean() / f64::from(calls),
        t: evidence(&rounds),
    }
}

/// How many calls take as long as `span`.
fn calls_for<I>(span: Duration, inputs: &[(bool, I)], call: impl Fn(&I) -> bool) -> u32 {
    let mut calls = 1;
    loop {
        let fastest = inputs.iter().take(100).map(|(_, input)| {
            let start = Instant::now();
            for _ in 0..calls {
                black_box(call(black_box(input)));
            }
            start.elapsed()
        });
        if fastest.min().is_some_and(|took| took >= span) {
            return calls;
        }
        calls *= 2;
    }
}

/// The shortest time that the clock tells apart, in nanoseconds.
pub(crate) fn resolution() -> f64 {
    let step = || {
        let start = Instant::now();
        loop {
            let took = start.elapsed();
            if !took.is_zero() {
                return took;
            }
        }
    };
    let shortest = (0..1000).map(|_| step()).min().unwrap_or_default();
    shortest.as_nanos() as f64
}
