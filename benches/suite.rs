//! One run of one benchmark binary.

use std::env;
use std::fmt::Display;

use crate::row::{Line, Row};

/// One run of one benchmark binary: its options, and where its results go.
///
/// `--quick` measures only enough to show that everything runs. With `--json` each result is also
/// printed on a line of standard output, for `cargo xtask bench`; the text for people goes to standard
/// error.
#[derive(Debug, Clone, Copy)]
pub struct Suite {
    quick: bool,
    json: bool,
}

impl Suite {
    /// Reads the arguments of the process, and ignores those that cargo adds.
    #[must_use]
    pub fn from_args() -> Self {
        let has = |name: &str| env::args().skip(1).any(|arg| arg == name);
        Self { quick: has("--quick"), json: has("--json") }
    }

    /// Whether this run only shows that everything runs.
    #[must_use]
    pub const fn is_quick(&self) -> bool {
        self.quick
    }

    /// Reports a result.
    pub fn report(&self, line: impl Into<Line>) {
        let line = line.into();
        match &line {
            Line::Row(row) => self.say(summary(row)),
            Line::Point(point) => self.say(format_args!(
                "{} at {} grants: {:.0} ns, floor {:.0} ns",
                point.series, point.grants, point.ours, point.floor
            )),
            Line::Delays(delays) => {
                let [half, most, nearly_all, all] = delays.quantiles.map(|it| it / 1e6);
                self.say(format_args!(
                    "{}: p50 {half:.2} ms, p90 {most:.2} ms, p99 {nearly_all:.2} ms, at most \
                     {all:.2} ms",
                    delays.name
                ));
            }
        }
        if self.json {
            println!("{}", line.to_json());
        }
    }

    /// Prints a message for people.
    pub fn say(&self, what: impl Display) {
        eprintln!("{what}");
    }
}

fn summary(row: &Row) -> String {
    let Row { name, unit, ours, .. } = row;
    let mut text = format!("{name}: {ours:.1} {unit}");
    if let Some(floor) = &row.floor {
        let (low, high) = floor.quartiles;
        text += &format!(
            ", {:.3} times {:.1} {unit} ({}), quartiles {low:.3} to {high:.3}",
            floor.ratio, floor.value, floor.name
        );
    }
    if let (Some(aim), Some(met)) = (row.aim, row.is_met()) {
        text += &format!(", aim {aim}: {}", if met { "met" } else { "MISSED" });
    }
    for beside in &row.beside {
        text += &format!("; {}: {:.1} {unit}", beside.name, beside.value);
    }
    text
}
