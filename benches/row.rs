//! The results of benchmarks, each one line of JSON.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A measurement beside its floor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// What was measured: `sign ES256`.
    pub name: String,
    /// What the figures count.
    pub unit: Unit,
    /// Our figure.
    pub ours: f64,
    /// Its floor; `None` if only the figure itself counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub floor: Option<Floor>,
    /// What the ratio, or without a floor the figure, should be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aim: Option<Aim>,
    /// Others, measured in the same rounds, to compare with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub beside: Vec<Beside>,
}

/// The least work that the operation needs, measured in the same rounds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Floor {
    /// What it does.
    pub name: String,
    /// Its figure.
    pub value: f64,
    /// The median of the rounds' ratios, ours to the floor's.
    pub ratio: f64,
    /// The first and the third quartile of the rounds' ratios.
    pub quartiles: (f64, f64),
}

/// Another way to do the same.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Beside {
    /// What it is.
    pub name: String,
    /// Its figure.
    pub value: f64,
}

/// How one figure grows with the number of grants.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// What is called, such as `introspect`.
    pub series: String,
    /// How many grants there were.
    pub grants: u64,
    /// Nanoseconds.
    pub ours: f64,
    /// Nanoseconds of the floor.
    pub floor: f64,
}

/// The delays of something that was measured many times.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Delays {
    /// What was measured.
    pub name: String,
    /// Half of them, nine tenths and ninety-nine hundredths took no longer than this, and all of
    /// them no longer than the last; in nanoseconds.
    pub quantiles: [f64; 4],
    /// The share of them, of 1, that took no longer than each of [`Delays::BOUNDS`].
    pub within: [f64; 9],
}

/// What a figure counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Nanoseconds for each call.
    Nanoseconds,
    /// Calls a second.
    PerSecond,
    /// Bytes.
    Bytes,
    /// Rows of a store.
    Rows,
    /// Connections to a server.
    Connections,
}

/// The aim.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Aim {
    /// This or less.
    AtMost(f64),
    /// This or more.
    AtLeast(f64),
}

/// One reported line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Line {
    /// A row of the table.
    Row(Row),
    /// A row of the table of growth.
    Point(Point),
    /// A row of the table of delays.
    Delays(Delays),
}

impl Row {
    /// Whether the aim is met; `None` without one.
    #[must_use]
    pub fn is_met(&self) -> Option<bool> {
        let found = self.floor.as_ref().map_or(self.ours, |floor| floor.ratio);
        self.aim.map(|aim| match aim {
            Aim::AtMost(most) => found <= most,
            Aim::AtLeast(least) => found >= least,
        })
    }
}

impl Delays {
    /// The upper bounds of the histogram, in milliseconds.
    pub const BOUNDS: [f64; 9] = [0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 25.0, 50.0, 100.0];

    /// The quantiles and shares of these nanoseconds.
    #[must_use]
    pub fn new(name: impl Into<String>, nanoseconds: &[f64]) -> Self {
        let count = nanoseconds.len() as f64;
        let share = |bound: f64| {
            nanoseconds.iter().filter(|took| **took <= bound * 1e6).count() as f64 / count
        };
        Self {
            name: name.into(),
            quantiles: [0.5, 0.9, 0.99, 1.0].map(|part| quantile(nanoseconds, part)),
            within: Self::BOUNDS.map(share),
        }
    }
}

impl Floor {
    /// A floor, with the ratio of each round: ours to the floor's.
    #[must_use]
    pub fn new(name: impl Into<String>, value: f64, ratios: &[f64]) -> Self {
        let [low, ratio, high] = quartiles(ratios);
        Self { name: name.into(), value, ratio, quartiles: (low, high) }
    }
}

impl Line {
    /// The line as it is printed: one line, for [`Line::parse`].
    ///
    /// # Panics
    ///
    /// Never: figures and names can always be written as JSON.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("figures and names are JSON")
    }

    /// Reads a printed line; `None` for one that is something else.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        serde_json::from_str(line).ok()
    }
}

impl From<Row> for Line {
    fn from(row: Row) -> Self {
        Self::Row(row)
    }
}

impl From<Point> for Line {
    fn from(point: Point) -> Self {
        Self::Point(point)
    }
}

impl From<Delays> for Line {
    fn from(delays: Delays) -> Self {
        Self::Delays(delays)
    }
}

/// First quartile, median and third quartile; NaN for no values.
pub(crate) fn quartiles(values: &[f64]) -> [f64; 3] {
    [0.25, 0.5, 0.75].map(|part| quantile(values, part))
}

/// The quantile of the values, with `part` from 0 to 1; NaN for no values.
#[must_use]
pub fn quantile(values: &[f64], part: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = (sorted.len().saturating_sub(1)) as f64 * part;
    sorted.get(at.round() as usize).copied().unwrap_or(f64::NAN)
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nanoseconds => "ns",
            Self::PerSecond => "/s",
            Self::Bytes => "bytes",
            Self::Rows => "rows",
            Self::Connections => "connections",
        })
    }
}

impl fmt::Display for Aim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtMost(most) => write!(f, "≤ {most}"),
            Self::AtLeast(least) => write!(f, "≥ {least}"),
        }
    }
}
