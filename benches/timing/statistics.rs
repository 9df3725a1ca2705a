//! Telling two classes of measurements apart: Welch's t-test, as `dudect` uses it (Reparaz, Balasch
//! and Verbauwhede, "Dude, is my code constant time?").

use std::fmt;

/// Shares of the measurements that are looked at, the fastest first. An interrupt only ever adds
/// time: without the slowest measurements a small difference shows, and with them a rare one.
const KEPT: [f64; 6] = [0.25, 0.5, 0.75, 0.9, 0.99, 1.0];

/// Mean and variance of numbers that come one after another, by Welford's method.
#[derive(Debug, Clone, Copy, Default)]
pub struct Moments {
    count: u64,
    mean: f64,
    /// The sum of the squared distances from the mean.
    squares: f64,
}

impl Moments {
    /// Takes one more.
    pub fn add(&mut self, value: f64) {
        self.count += 1;
        let before = value - self.mean;
        self.mean += before / self.count as f64;
        self.squares += before * (value - self.mean);
    }

    /// Their mean; 0 of none.
    #[must_use]
    pub const fn mean(&self) -> f64 {
        self.mean
    }

    /// The variance of what they are a sample of; 0 of fewer than two.
    #[must_use]
    pub fn variance(&self) -> f64 {
        if self.count < 2 { 0.0 } else { self.squares / (self.count - 1) as f64 }
    }

    /// Welch's t: how far the means are apart, in standard errors of their difference. 0 of fewer
    /// than two on a side, where nothing can be said.
    #[must_use]
    pub fn welch(&self, other: &Self) -> f64 {
        if self.count < 2 || other.count < 2 || self.mean == other.mean {
            return 0.0;
        }
        let error = self.variance() / self.count as f64 + other.variance() / other.count as f64;
        (self.mean - other.mean) / error.sqrt()
    }
}

/// The measurements of one round, in two classes: all of them, and without the slowest ones.
#[derive(Debug, Clone)]
pub struct Round {
    /// The most that is kept, and what was.
    crops: Vec<(f64, [Moments; 2])>,
}

impl Round {
    /// A round that is cropped where measurements like these are.
    ///
    /// ```
    /// use cloakroom_benches::timing::Round;
    ///
    /// let mut round = Round::after(&[5.0, 6.0, 5.0, 7.0]);
    /// for (second, took) in [(false, 5.0), (true, 6.0), (false, 5.1), (true, 6.1)] {
    ///     round.add(second, took);
    /// }
    /// assert!(round.ts().last().is_some_and(|t| *t < -10.0));
    /// ```
    #[must_use]
    pub fn after(trial: &[f64]) -> Self {
        let mut sorted = trial.to_vec();
        sorted.sort_by(f64::total_cmp);
        let limit = |kept: f64| match sorted.len().checked_sub(1) {
            Some(last) if kept < 1.0 => sorted[(last as f64 * kept) as usize],
            _ => f64::INFINITY,
        };
        Self { crops: KEPT.map(|kept| (limit(kept), Default::default())).to_vec() }
    }

    /// Takes a measurement of the first or the second class.
    pub fn add(&mut self, second: bool, took: f64) {
        for (limit, classes) in &mut self.crops {
            if took <= *limit {
                classes[usize::from(second)].add(took);
            }
        }
    }

    /// Welch's t of the first class against the second, for each crop.
    #[must_use]
    pub fn ts(&self) -> Vec<f64> {
        self.crops.iter().map(|(_, [first, second])| first.welch(second)).collect()
    }
}

/// The strongest evidence of several rounds: for each crop the median of its t, and of these the
/// one farthest from 0. What disturbs a round or two does not count, and what comes now for one
/// class and now for the other cancels.
#[must_use]
pub fn evidence(rounds: &[Round]) -> f64 {
    let ts: Vec<Vec<f64>> = rounds.iter().map(Round::ts).collect();
    (0..KEPT.len())
        .map(|crop| median(ts.iter().map(|ts| ts[crop]).collect()).abs())
        .fold(0.0, f64::max)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => 0.0,
        length if length % 2 == 1 => values[length / 2],
        length => f64::midpoint(values[length / 2 - 1], values[length / 2]),
    }
}

/// What a t says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// No difference was seen.
    Alike,
    /// Beyond 4.5: run it again.
    Suspicious,
    /// Beyond 10: the time depends on the class.
    Different,
}

impl Verdict {
    /// By the thresholds of `dudect`.
    #[must_use]
    pub fn of(t: f64) -> Self {
        match t.abs() {
            t if t > 10.0 => Self::Different,
            t if t > 4.5 => Self::Suspicious,
            _ => Self::Alike,
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Alike => "alike",
            Self::Suspicious => "SUSPICIOUS",
            Self::Different => "DIFFERENT",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moments(values: &[f64]) -> Moments {
        let mut moments = Moments::default();
        values.iter().for_each(|value| moments.add(*value));
        moments
    }

    fn close(found: f64, expected: f64) {
        assert!((found - expected).abs() < 1e-9, "{found}, not {expected}");
    }

    #[test]
    fn mean_and_variance_are_those_of_the_sample() {
        let sample = moments(&[2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0]);
        close(sample.mean(), 5.0);
        close(sample.variance(), 32.0 / 7.0);
        // A naive sum of squares loses these to rounding.
        let far = moments(&[1e9 + 4.0, 1e9 + 7.0, 1e9 + 13.0, 1e9 + 16.0]);
        close(far.variance(), 30.0);
    }

    #[test]
    fn t_is_the_difference_in_standard_errors() {
        // Means 3 and 6, variances 2.5 and 10, five each: -3 / sqrt(0.5 + 2).
        let (a, b) = (moments(&[1.0, 2.0, 3.0, 4.0, 5.0]), moments(&[2.0, 4.0, 6.0, 8.0, 10.0]));
        close(a.welch(&b), -3.0 / 2.5_f64.sqrt());
        close(b.welch(&a), 3.0 / 2.5_f64.sqrt());
        // Of different sizes: means 2 and 5, variances 1 and 20/3.
        let (a, b) = (moments(&[1.0, 2.0, 3.0]), moments(&[2.0, 4.0, 6.0, 8.0]));
        close(a.welch(&b), -3.0 / (1.0 / 3.0 + 20.0 / 12.0_f64).sqrt());
    }

    #[test]
    fn where_nothing_can_be_said_t_is_0() {
        let (none, one, same) = (moments(&[]), moments(&[1.0]), moments(&[2.0, 2.0]));
        for (a, b) in [(none, same), (one, same), (same, one), (same, same)] {
            close(a.welch(&b), 0.0);
        }
        assert_eq!(Verdict::of(moments(&[1.0, 1.0]).welch(&same)), Verdict::Different);
    }

    /// 1000 measurements of around 100, in turns of one class and the other, each tenth of which an
    /// interrupt makes slow; the second class takes `more`.
    fn round(more: f64, disturb: impl Fn(usize) -> f64) -> Round {
        let at = |index: usize| {
            let second = index % 2 == 1;
            let noise = (index * 7 % 13) as f64 / 10.0;
            let slow = if index % 10 < 2 { disturb(index) } else { 0.0 };
            (second, 100.0 + noise + slow + if second { more } else { 0.0 })
        };
        let trial: Vec<f64> = (0..1000).map(|index| at(index).1).collect();
        let mut round = Round::after(&trial);
        (0..1000).for_each(|index| round.add(at(index).0, at(index).1));
        round
    }

    #[test]
    fn a_difference_below_the_noise_is_seen_without_the_slowest() {
        let round = round(0.2, |index| 3000.0 * (index % 7) as f64);
        let ts = round.ts();
        assert_eq!(Verdict::of(*ts.last().expect("all of them")), Verdict::Alike, "{ts:?}");
        assert_eq!(Verdict::of(evidence(&[round])), Verdict::Suspicious, "{ts:?}");
    }

    #[test]
    fn without_a_difference_none_is_seen() {
        let round = round(0.0, |index| 3000.0 * (index % 7) as f64);
        assert_eq!(Verdict::of(evidence(&[round])), Verdict::Alike);
    }

    #[test]
    fn what_happens_in_one_round_or_changes_its_side_is_no_evidence() {
        let (quiet, left, right) =
            (|| round(0.0, |_| 0.0), round(9.0, |_| 0.0), round(-9.0, |_| 0.0));
        assert_eq!(Verdict::of(evidence(std::slice::from_ref(&left))), Verdict::Different);
        assert_eq!(Verdict::of(evidence(&[quiet(), left.clone(), quiet()])), Verdict::Alike);
        let sides = [left.clone(), right.clone(), quiet(), right.clone(), left.clone()];
        assert_eq!(Verdict::of(evidence(&sides)), Verdict::Alike);
        assert_eq!(Verdict::of(evidence(&[left.clone(), right, left])), Verdict::Different);
    }

    #[test]
    fn a_median_stands_in_the_middle() {
        close(median(vec![]), 0.0);
        close(median(vec![9.0, 1.0, 2.0]), 2.0);
        close(median(vec![4.0, 1.0, 2.0, 9.0]), 3.0);
    }

    #[test]
    fn the_thresholds_are_those_of_dudect() {
        let verdicts = [4.4, -4.6, 9.9, -10.1].map(Verdict::of);
        use Verdict::{Alike, Different, Suspicious};
        assert_eq!(verdicts, [Alike, Suspicious, Suspicious, Different]);
    }
}
