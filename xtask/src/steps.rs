//! Steps in order, timed and summed up in a table.

use std::fmt::{self, Display};
use std::time::{Duration, Instant};

use crate::command::Failure;

/// The steps that have run so far.
#[derive(Debug, Default)]
pub(crate) struct Steps {
    done: Vec<Done>,
}

#[derive(Debug)]
struct Done {
    name: &'static str,
    took: Duration,
    result: String,
}

impl Steps {
    pub(crate) fn run(
        &mut self,
        name: &'static str,
        work: impl FnOnce() -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        self.run_and_note(name, || work().map(|()| "ok".to_owned()))
    }

    /// Runs a step that returns the note for the table.
    pub(crate) fn run_and_note(
        &mut self,
        name: &'static str,
        work: impl FnOnce() -> Result<String, Failure>,
    ) -> Result<(), Failure> {
        println!("\n==> {name}");
        let start = Instant::now();
        let result = work();
        let (shown, result) = match result {
            Ok(note) => (note, Ok(())),
            Err(failure) => ("FAILED".to_owned(), Err(failure)),
        };
        self.done.push(Done { name, took: start.elapsed(), result: shown });
        result
    }

    /// Records why a step was skipped.
    pub(crate) fn skip(&mut self, name: &'static str, why: &Failure) {
        println!("\n==> {name}\nskipped: {why}");
        self.done.push(Done { name, took: Duration::ZERO, result: "skipped".to_owned() });
    }
}

impl Display for Steps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<16} {:>8}  result", "step", "time")?;
        for Done { name, took, result } in &self.done {
            writeln!(f, "{name:<16} {:>6.1} s  {result}", took.as_secs_f64())?;
        }
        let total: Duration = self.done.iter().map(|step| step.took).sum();
        write!(f, "{:<16} {:>6.1} s", "total", total.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_names_every_step_and_its_result() {
        let mut steps = Steps::default();
        steps.run("good", || Ok(())).expect("the step passes");
        steps.skip("other", &Failure::new("why"));
        steps.run_and_note("some", || Ok("3 of 4".to_owned())).expect("the step passes");
        steps.run("bad", || Err(Failure::new("why"))).expect_err("the step fails");

        let table = steps.to_string();
        let rows: Vec<Vec<&str>> =
            table.lines().map(|line| line.split_whitespace().collect()).collect();
        assert!(matches!(rows[1][..], ["good", _, "s", "ok"]), "{table}");
        assert!(matches!(rows[2][..], ["other", "0.0", "s", "skipped"]), "{table}");
        assert!(matches!(rows[3][..], ["some", _, "s", "3", "of", "4"]), "{table}");
        assert!(matches!(rows[4][..], ["bad", _, "s", "FAILED"]), "{table}");
        assert_eq!(rows[5][0], "total");
    }
}
