//! The results of checks.

use std::fmt;
use std::pin::Pin;
use std::time::Duration;

use crate::Ran;
use crate::promises::Promise;
use crate::story::Story;

/// What went wrong inside a check: any error or text.
pub(crate) type Broken = Box<dyn std::error::Error + Send + Sync>;

pub(crate) type CheckFuture = Pin<Box<dyn Future<Output = Result<(), Broken>> + Send>>;

/// An error with its sources: the error of the driver says more than "unavailable".
pub(crate) fn with_sources(error: &(dyn std::error::Error + 'static)) -> String {
    std::iter::successors(Some(error), |error| error.source())
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}

/// The longest time that a check may take. The contract sets no time limits, so a check that takes this
/// long hangs.
const TIME_LIMIT: Duration = Duration::from_secs(120);

/// Runs a check, and returns its result.
pub(crate) async fn tried(
    check: &'static str,
    promise: Promise,
    story: &Story,
    run: CheckFuture,
) -> Result<Ran, Failure> {
    // It runs in its own task, which contains panics and hangs of the store.
    let mut task = tokio::spawn(run);
    let happened = match tokio::time::timeout(TIME_LIMIT, &mut task).await {
        Ok(Ok(Ok(()))) => return Ok(Ran::Passed),
        Ok(Ok(Err(what))) => match what.downcast_ref() {
            Some(NotOffered(what)) => return Ok(Ran::NotOffered(what)),
            None => with_sources(&*what),
        },
        Ok(Err(panic)) => format!("it panicked: {panic}"),
        Err(_) => {
            task.abort();
            format!("it did not come to its end in {TIME_LIMIT:?}")
        }
    };
    Err(Failure { check, promise, happened, story: story.told() })
}

/// Ends a check that needs something which the factory does not offer.
#[derive(Debug, thiserror::Error)]
#[error("the factory does not support {0}")]
pub(crate) struct NotOffered(pub(crate) &'static str);

/// The results of a run.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Report {
    /// How many checks passed.
    pub passed: usize,
    /// The checks that were not run.
    pub not_run: Vec<NotRun>,
    /// The checks that failed.
    pub failures: Vec<Failure>,
}

impl Report {
    /// Asserts that no check failed.
    ///
    /// # Panics
    ///
    /// If a check failed. The message lists every failure.
    pub fn assert_ok(&self) {
        assert!(self.failures.is_empty(), "{self}");
    }

    /// Adds the result of a check.
    pub(crate) fn enter(&mut self, check: &'static str, ran: Result<Ran, Failure>) {
        match ran {
            Ok(Ran::Passed) => self.passed += 1,
            Ok(Ran::NotOffered(needs)) => self.not_run.push(NotRun { check, needs }),
            Err(failure) => self.failures.push(failure),
        }
    }

    /// Whether a check of this promise failed.
    #[must_use]
    pub fn convicts(&self, promise: Promise) -> bool {
        self.failures.iter().any(|failure| failure.promise == promise)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} checks passed, {} failed", self.passed, self.failures.len())?;
        for NotRun { check, needs } in &self.not_run {
            writeln!(f, "not run: {check}, which needs {needs}")?;
        }
        self.failures.iter().try_for_each(|failure| write!(f, "\n{failure}"))
    }
}

/// A check that was not run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct NotRun {
    /// Its name.
    pub check: &'static str,
    /// The feature that it needs and the factory does not support.
    pub needs: &'static str,
}

/// A promise that a store broke.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Failure {
    /// The check that failed.
    pub check: &'static str,
    /// The promise.
    pub promise: Promise,
    /// What happened.
    pub happened: String,
    /// The operations that led to it, with their answers.
    pub story: Vec<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "broken promise: {} (check {})", self.promise, self.check)?;
        writeln!(f, "  the contract requires: {}", self.promise.contract())?;
        writeln!(f, "  what happened:         {}", self.happened)?;
        writeln!(f, "  the operations before:")?;
        self.story.iter().try_for_each(|line| writeln!(f, "    {line}"))
    }
}

impl std::error::Error for Failure {}
