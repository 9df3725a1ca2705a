//! The tables of the benchmarks, and the part of their page that a run renews.

use std::fmt::Write as _;
use std::process::Command;
use std::{fs, thread};

use cloakroom_benches::{Aim, Delays, Floor, Line, Point, Row, Unit};

use crate::command::Failure;

const BEGIN: &str = "<!-- `cargo xtask bench` writes what is between these two marks. -->\n";
const END: &str = "<!-- end -->\n";

/// What the benchmarks reported.
#[derive(Debug, Default)]
pub(crate) struct Results {
    pub(crate) rows: Vec<Row>,
    pub(crate) points: Vec<Point>,
    pub(crate) delays: Vec<Delays>,
}

impl Extend<Line> for Results {
    fn extend<I: IntoIterator<Item = Line>>(&mut self, lines: I) {
        for line in lines {
            match line {
                Line::Row(row) => self.rows.push(row),
                Line::Point(point) => self.points.push(point),
                Line::Delays(delays) => self.delays.push(delays),
            }
        }
    }
}

impl Results {
    /// All of it, in Markdown.
    pub(crate) fn tables(&self) -> String {
        let rows = table(
            ["what", "ours", "floor", "ratio", "aim", "met", "the floor is", "beside"],
            self.rows.iter().map(row),
        );
        let mut tables = vec![rows];
        if !self.points.is_empty() {
            let mut points: Vec<&Point> = self.points.iter().collect();
            points.sort_by_key(|point| &point.series);
            let head = ["call", "grants", "ours", "floor"];
            tables.push(table(head, points.into_iter().map(point)));
        }
        if !self.delays.is_empty() {
            tables.push(self.delays());
        }
        tables.join("\n")
    }

    fn delays(&self) -> String {
        let bounds = Delays::BOUNDS.map(|bound| format!("≤ {bound} ms"));
        let head = ["delay", "p50", "p90", "p99", "longest"].map(ToOwned::to_owned);
        let head: [String; 14] = array(head.into_iter().chain(bounds));
        table(head.each_ref().map(String::as_str), self.delays.iter().map(delay))
    }
}

/// A table with its columns aligned.
fn table<const N: usize>(head: [&str; N], rows: impl Iterator<Item = [String; N]>) -> String {
    let mut cells = vec![head.map(ToOwned::to_owned)];
    cells.extend(rows);
    let widths: [usize; N] = std::array::from_fn(|column| {
        cells.iter().map(|row| row[column].chars().count()).max().unwrap_or_default()
    });
    let mut table = String::new();
    for (number, row) in cells.iter().enumerate() {
        line(&mut table, widths, |column| &row[column]);
        if number == 0 {
            let rule = widths.map(|width| "-".repeat(width));
            line(&mut table, widths, |column| &rule[column]);
        }
    }
    table
}

fn line<'a, const N: usize>(
    table: &mut String,
    widths: [usize; N],
    cell: impl Fn(usize) -> &'a String,
) {
    for (column, width) in widths.into_iter().enumerate() {
        // Writing into a string cannot fail.
        let _ = write!(table, "| {:width$} ", cell(column));
    }
    table.push_str("|\n");
}

fn point(point: &Point) -> [String; 4] {
    let [ours, floor] = [point.ours, point.floor].map(|took| figure(took, Unit::Nanoseconds));
    [point.series.clone(), point.grants.to_string(), ours, floor]
}

fn delay(delays: &Delays) -> [String; 14] {
    let times = delays.quantiles.map(|took| figure(took, Unit::Nanoseconds));
    let shares = delays.within.map(|share| format!("{:.1} %", share * 100.0));
    array([delays.name.clone()].into_iter().chain(times).chain(shares))
}

/// As many cells as a row has; missing ones are empty.
fn array<const N: usize>(mut cells: impl Iterator<Item = String>) -> [String; N] {
    std::array::from_fn(|_| cells.next().unwrap_or_default())
}

fn row(row: &Row) -> [String; 8] {
    let floor = row.floor.as_ref();
    let of_floor = |text: fn(&Floor, Unit) -> String| {
        floor.map(|floor| text(floor, row.unit)).unwrap_or_default()
    };
    let beside: Vec<String> = row
        .beside
        .iter()
        .map(|other| format!("{}: {}", other.name, figure(other.value, row.unit)))
        .collect();
    [
        row.name.clone(),
        figure(row.ours, row.unit),
        of_floor(|floor, unit| figure(floor.value, unit)),
        of_floor(|floor, _| {
            let (low, high) = floor.quartiles;
            format!("{:.2} ({low:.2}–{high:.2})", floor.ratio)
        }),
        row.aim.map(|aim| aim_of(row, aim)).unwrap_or_default(),
        row.is_met().map_or("", |met| if met { "yes" } else { "**no**" }).to_owned(),
        of_floor(|floor, _| floor.name.clone()),
        beside.join("; "),
    ]
}

/// The aim for the ratio or, without a floor, for the figure.
fn aim_of(row: &Row, aim: Aim) -> String {
    match (aim, &row.floor) {
        (aim, Some(_)) => aim.to_string(),
        (Aim::AtMost(most), None) => format!("≤ {}", figure(most, row.unit)),
        (Aim::AtLeast(least), None) => format!("≥ {}", figure(least, row.unit)),
    }
}

/// Three digits, and a unit that suits them.
fn figure(value: f64, unit: Unit) -> String {
    let (value, unit) = match unit {
        Unit::Nanoseconds if value >= 1e6 => (value / 1e6, " ms"),
        Unit::Nanoseconds if value >= 1e3 => (value / 1e3, " µs"),
        Unit::Nanoseconds => (value, " ns"),
        Unit::PerSecond if value >= 1e6 => (value / 1e6, " M/s"),
        Unit::PerSecond if value >= 1e3 => (value / 1e3, " k/s"),
        Unit::PerSecond => (value, " /s"),
        Unit::Bytes if value >= 1e6 => (value / 1e6, " MB"),
        Unit::Bytes | Unit::Rows | Unit::Connections => return format!("{value:.0} {unit}"),
    };
    let digits = if value >= 99.95 {
        0
    } else if value >= 9.995 {
        1
    } else {
        2
    };
    format!("{value:.digits$}{unit}")
}

/// The section that a run writes: where and when it ran, and its tables.
pub(crate) fn section(results: &Results) -> String {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    format!(
        "Made by `cargo xtask bench` on {}, with {}, on {cores} cores of {}.\n\n{}",
        said("date", &["-u", "+%F"]),
        said("rustc", &["--version"]),
        processor(),
        results.tables()
    )
}

/// What a program prints, if it is installed.
fn said(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output();
    let said = output.ok().and_then(|output| String::from_utf8(output.stdout).ok());
    said.map_or_else(|| format!("unknown ({program})"), |said| said.trim().to_owned())
}

fn processor() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name"));
    model
        .map_or("an unknown processor", |model| model.trim_start_matches([' ', '\t', ':']))
        .to_owned()
}

/// The page with another section between its marks.
pub(crate) fn renew(page: &str, section: &str) -> Result<String, Failure> {
    let parts = page.split_once(BEGIN).and_then(|(before, rest)| {
        let (_, after) = rest.split_once(END)?;
        Some((before, after))
    });
    let (before, after) = parts.ok_or_else(|| {
        Failure::new("the page of the benchmarks has lost the marks around its table")
    })?;
    Ok(format!("{before}{BEGIN}\n{section}\n{END}{after}"))
}

#[cfg(test)]
mod tests {
    use cloakroom_benches::{Aim, Beside};

    use super::*;

    fn sign() -> Row {
        Row {
            name: "sign".into(),
            unit: Unit::Nanoseconds,
            ours: 16_100.0,
            floor: Some(Floor::new("raw", 15_000.0, &[1.0, 1.05, 1.0734, 1.2, 1.25])),
            aim: Some(Aim::AtMost(1.08)),
            beside: vec![Beside { name: "other".into(), value: 950.0 }],
        }
    }

    #[test]
    fn a_row_says_all_of_it() {
        let slow = Row { floor: None, aim: Some(Aim::AtMost(2e4)), ..sign() };
        let rows = vec![sign(), Row { aim: Some(Aim::AtMost(1.05)), ..sign() }, slow];
        let table = Results { rows, ..Results::default() }.tables();
        let rows: Vec<Vec<&str>> =
            table.lines().map(|line| line.split('|').map(str::trim).collect()).collect();
        let cells = ["sign", "16.1 µs", "15.0 µs", "1.07 (1.05–1.20)", "≤ 1.08", "yes"];
        assert_eq!(rows[2][1..7], cells);
        assert_eq!(rows[2][7..9], ["raw", "other: 950 ns"]);
        assert_eq!(rows[3][5..7], ["≤ 1.05", "**no**"]);
        assert_eq!(rows[4][2..7], ["16.1 µs", "", "", "≤ 20.0 µs", "yes"]);
        let widths: Vec<usize> = table.lines().map(|line| line.chars().count()).collect();
        assert!(widths.iter().all(|width| *width == widths[0]), "{table}");
    }

    #[test]
    fn growth_has_a_table_of_its_own_in_which_each_call_stays_together() {
        let at = |series: &str, grants| Point {
            series: series.into(),
            grants,
            ours: 700.0,
            floor: 2_000.0,
        };
        let points = vec![at("issue", 10), at("refresh", 10), at("issue", 100)];
        let tables = Results { points, ..Results::default() }.tables();
        let (_, table) = tables.split_once("\n\n").expect("two of them");
        let rows: Vec<Vec<&str>> =
            table.lines().map(|line| line.split('|').map(str::trim).collect()).collect();
        assert_eq!(rows[2][1..5], ["issue", "10", "700 ns", "2.00 µs"]);
        assert_eq!(rows[3][1..3], ["issue", "100"]);
        assert_eq!(rows[4][1..3], ["refresh", "10"]);
    }

    #[test]
    fn delays_have_a_table_of_their_own() {
        let took: Vec<f64> = (1..=100).map(|millis| f64::from(millis) * 1e6).collect();
        let delays = vec![Delays::new("revoke", &took)];
        let tables = Results { delays, ..Results::default() }.tables();
        let (_, table) = tables.split_once("\n\n").expect("two of them");
        let rows: Vec<Vec<&str>> =
            table.lines().map(|line| line.split('|').map(str::trim).collect()).collect();
        assert_eq!(rows[0][1..7], ["delay", "p50", "p90", "p99", "longest", "≤ 0.2 ms"]);
        assert_eq!(rows[2][1..7], ["revoke", "51.0 ms", "90.0 ms", "99.0 ms", "100 ms", "0.0 %"]);
        assert_eq!(rows[2][12..15], ["25.0 %", "50.0 %", "100.0 %"]);
    }

    #[test]
    fn figures_have_three_digits() {
        for (value, unit, text) in [
            (9.876, Unit::Nanoseconds, "9.88 ns"),
            (999.6, Unit::Nanoseconds, "1000 ns"),
            (240_100.0, Unit::Nanoseconds, "240 µs"),
            (391_290.1, Unit::PerSecond, "391 k/s"),
            (1_234.5, Unit::Bytes, "1234 bytes"),
            (18_972_672.0, Unit::Bytes, "19.0 MB"),
        ] {
            assert_eq!(figure(value, unit), text);
        }
    }

    #[test]
    fn only_what_is_between_the_marks_is_renewed() {
        let page = format!("# Title\n\n{BEGIN}old\n{END}\nWhy.\n");
        let renewed = renew(&page, "new\n").expect("it has its marks");
        assert_eq!(renewed, format!("# Title\n\n{BEGIN}\nnew\n\n{END}\nWhy.\n"));
        assert_eq!(renew(&renewed, "new\n").expect("it has its marks"), renewed);
        assert!(renew("# Title\n", "new\n").is_err());
    }
}
