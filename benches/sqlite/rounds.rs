//! Turns that are too long to be taken two thousand times: five of each, or a few more.

use std::time::Duration;

use cloakroom_benches::{Aim, Floor, Row, Suite, Unit};

/// How many turns each takes.
pub(crate) const ROUNDS: usize = 5;

/// A comparison, and its aim.
pub(crate) struct Comparison<'a> {
    pub(crate) name: &'a str,
    pub(crate) floor: &'a str,
    pub(crate) unit: Unit,
    pub(crate) aim: Option<Aim>,
}

impl Comparison<'_> {
    /// Subject and floor take turns, each of which returns its figure.
    pub(crate) fn run(
        self,
        suite: &Suite,
        ours: impl FnMut() -> f64,
        floor: impl FnMut() -> f64,
    ) -> Row {
        self.turns(suite, ROUNDS, ours, floor)
    }

    /// The same, with so many turns each.
    pub(crate) fn turns(
        self,
        suite: &Suite,
        rounds: usize,
        mut ours: impl FnMut() -> f64,
        mut floor: impl FnMut() -> f64,
    ) -> Row {
        let rounds = if suite.is_quick() { 2 } else { rounds };
        // Caches are cold once, and not in a turn that counts.
        let _ = (ours(), floor());
        let (mut our, mut its) = (Vec::new(), Vec::new());
        for round in 0..rounds {
            // Neither always comes first.
            if round % 2 == 0 {
                our.push(ours());
                its.push(floor());
            } else {
                its.push(floor());
                our.push(ours());
            }
        }
        let ratios: Vec<f64> = our.iter().zip(&its).map(|(ours, floor)| ours / floor).collect();
        Row {
            name: self.name.into(),
            unit: self.unit,
            ours: median(our),
            floor: Some(Floor::new(self.floor, median(its), &ratios)),
            aim: self.aim,
            beside: Vec::new(),
        }
    }
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// How many a second.
pub(crate) fn rate(calls: usize, took: Duration) -> f64 {
    calls as f64 / took.as_secs_f64()
}
