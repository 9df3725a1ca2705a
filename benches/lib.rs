//! What all benchmarks share: how they measure beside a floor, and how they report the results.
//!
//! A benchmark is a binary that makes one [`Suite`] and reports [`Row`]s, [`Point`]s and [`Delays`]
//! through it. `cargo xtask bench` runs them all, and makes tables of what they report.
//!
//! ```
//! use cloakroom_benches::{Aim, Floor, Line, Row, Unit};
//!
//! let row = Row {
//!     name: "introspect over HTTP".into(),
//!     unit: Unit::PerSecond,
//!     ours: 90_000.0,
//!     floor: Some(Floor::new("a bare axum handler", 100_000.0, &[0.88, 0.9, 0.93])),
//!     aim: Some(Aim::AtLeast(0.85)),
//!     beside: vec![],
//! };
//! assert_eq!(row.is_met(), Some(true));
//! let line = Line::from(row);
//! assert_eq!(Line::parse(&line.to_json()), Some(line));
//! ```

mod pair;
mod row;
mod suite;
#[path = "timing/statistics.rs"]
pub mod timing;
mod turns;

pub use pair::{Pair, Timed, per_call};
pub use row::{Aim, Beside, Delays, Floor, Line, Point, Row, Unit, quantile};
pub use suite::Suite;
pub use turns::{Dice, Team, now, timed};
