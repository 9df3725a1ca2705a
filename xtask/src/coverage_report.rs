//! How many lines of each crate the tests reach, and which they do not.

use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::fs;
use std::path::Path;

use crate::command::{Failure, root};

/// The least that must be reached, in percent, of the crates on which everything else depends.
const AIM: f64 = 90.0;
const AIMED_AT: [&str; 3] = ["cloakroom", "cloakroom-core", "cloakroom-jwt"];

/// The files of each crate, without tests.
#[derive(Debug, Default)]
pub(crate) struct Report {
    crates: BTreeMap<String, BTreeMap<String, Lines>>,
}

/// Whether a line was reached, by its number. Lines without code are not here.
type Lines = BTreeMap<usize, bool>;

impl Report {
    /// Reads the format of lcov: `SF:<file>`, then `DA:<line>,<count>` for each line of it.
    pub(crate) fn read(lcov: &str) -> Result<Self, Failure> {
        let mut report = Self::default();
        for record in lcov.split("end_of_record") {
            let Some(path) = record.lines().find_map(|line| line.strip_prefix("SF:")) else {
                continue;
            };
            let lines = record.lines().filter_map(line).collect();
            let source = fs::read_to_string(path)
                .map_err(|error| Failure::new(format!("cannot read {path}: {error}")))?;
            let path = Path::new(path).strip_prefix(root()).unwrap_or(Path::new(path));
            report.add(&path.to_string_lossy().replace('\\', "/"), &source, lines);
        }
        Ok(report)
    }

    /// Adds a file, without its test code.
    fn add(&mut self, path: &str, source: &str, mut lines: Lines) {
        let mut parts = path.split('/');
        let (Some("crates"), Some(name), Some("src")) = (parts.next(), parts.next(), parts.next())
        else {
            return;
        };
        let file = path.rsplit('/').next().unwrap_or(path);
        if file.starts_with("test_") || file.ends_with("tests.rs") {
            return;
        }
        if let Some(tests) = source.lines().position(|line| line == "mod tests {") {
            lines.retain(|number, _| *number <= tests);
        }
        self.crates.entry(name.to_owned()).or_default().insert(path.to_owned(), lines);
    }

    /// The lines that are never reached: a line for each file, the worst first.
    pub(crate) fn unreached(&self) -> String {
        let mut files: Vec<(usize, String)> = self
            .crates
            .values()
            .flatten()
            .map(|(path, lines)| (missed(lines), format!("{path}: {}\n", gaps(lines))))
            .filter(|(missed, _)| *missed > 0)
            .collect();
        files.sort_by(|(one, path), (other, than)| other.cmp(one).then(path.cmp(than)));
        files.into_iter().map(|(_, file)| file).collect()
    }

    /// # Errors
    ///
    /// A crate is below the aim, or missing.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        let below: Vec<&str> =
            AIMED_AT.into_iter().filter(|name| self.percent(name) < AIM).collect();
        if below.is_empty() {
            return Ok(());
        }
        Err(Failure::new(format!(
            "the tests reach less than {AIM} % of {}\n\
             show which lines they miss with: cargo xtask coverage",
            below.join(", ")
        )))
    }

    fn percent(&self, name: &str) -> f64 {
        let files = self.crates.get(name).into_iter().flat_map(BTreeMap::values);
        let (all, missed) =
            files.fold((0, 0), |(all, misses), lines| (all + lines.len(), misses + missed(lines)));
        #[expect(clippy::cast_precision_loss, reason = "a crate has far fewer lines")]
        let percent = 100.0 * (all - missed) as f64 / (all.max(1)) as f64;
        percent
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<24} {:>6} {:>9}", "crate", "lines", "reached")?;
        for (name, files) in &self.crates {
            let lines: usize = files.values().map(BTreeMap::len).sum();
            write!(f, "\n{name:<24} {lines:>6} {:>7.1} %", self.percent(name))?;
        }
        Ok(())
    }
}

/// Reads `DA:<line>,<count>`.
fn line(record: &str) -> Option<(usize, bool)> {
    let (number, count) = record.strip_prefix("DA:")?.split_once(',')?;
    Some((number.parse().ok()?, count != "0"))
}

fn missed(lines: &Lines) -> usize {
    lines.values().filter(|reached| !**reached).count()
}

/// Runs of lines that are not reached, such as `7 12-15`. A line without code ends none.
fn gaps(lines: &Lines) -> String {
    let lines: Vec<(&usize, &bool)> = lines.iter().collect();
    lines
        .chunk_by(|(_, one), (_, other)| one == other)
        .filter(|run| !*run[0].1)
        .map(|run| match (run[0].0, run[run.len() - 1].0) {
            (first, last) if first == last => first.to_string(),
            (first, last) => format!("{first}-{last}"),
        })
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(reached: &[(usize, bool)]) -> Lines {
        reached.iter().copied().collect()
    }

    fn report(path: &str, source: &str, reached: &[(usize, bool)]) -> Report {
        let mut report = Report::default();
        report.add(path, source, lines(reached));
        report
    }

    #[test]
    fn a_line_is_reached_if_it_was_counted() {
        assert_eq!(line("DA:12,0"), Some((12, false)));
        assert_eq!(line("DA:12,18446744073709551615"), Some((12, true)));
        assert_eq!(line("LF:12"), None);
    }

    #[test]
    fn tests_are_not_counted() {
        let reached = [(1, true), (2, false), (4, true)];
        for path in ["crates/a/tests/it/main.rs", "crates/a/src/b_tests.rs", "xtask/src/main.rs"] {
            assert!(report(path, "", &reached).crates.is_empty(), "{path}");
        }
        let source = "fn a() {}\nfn b() {}\nmod tests {\n    fn c() {}\n}\n";
        let report = report("crates/a/src/b/c.rs", source, &reached);
        assert_eq!(report.crates["a"]["crates/a/src/b/c.rs"], lines(&reached[..2]));
        assert!((report.percent("a") - 50.0).abs() < f64::EPSILON);
    }

    #[test]
    fn what_is_missed_is_named() {
        let reached = [(1, true), (3, false), (4, true), (5, false), (7, false), (9, false)];
        let report = report("crates/a/src/b.rs", "", &reached);
        assert_eq!(report.unreached(), "crates/a/src/b.rs: 3 5-9\n");
        let table = report.to_string();
        let row: Vec<&str> = table.lines().last().expect("a row").split_whitespace().collect();
        assert_eq!(row, ["a", "6", "33.3", "%"]);
    }

    #[test]
    fn a_crate_below_the_aim_or_not_measured_is_an_error() {
        let mut report = Report::default();
        for name in AIMED_AT {
            report.add(&format!("crates/{name}/src/lib.rs"), "", lines(&[(1, true)]));
        }
        report.check().expect("all is reached");
        report.add("crates/cloakroom-jwt/src/a.rs", "", lines(&[(1, false)]));
        let error = report.check().expect_err("half is not reached").to_string();
        assert!(error.contains(&format!("{AIM} % of cloakroom-jwt\n")), "{error}");
        report.crates.clear();
        report.check().expect_err("nothing was measured");
    }
}
