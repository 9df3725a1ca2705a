//! The parts that measure every store in an SQL database.

mod churn;
mod cleaning;
mod finds;
mod growth;
mod load;
mod one;
mod several;
mod sizes;
mod writes;

use std::env;

use cloakroom_core::Subject;

use crate::server::records::Key;
use crate::server::{Bench, Raw, Server, delay};

/// A database, and what is expected of its store.
pub(crate) trait Database: Server<Raw: RawSql> {
    const PLAN: Plan;

    /// A store whose commits do not wait for the disk, where a store alone can choose that.
    fn open_quick(url: &str, space: &str) -> impl Future<Output = Self::Store> {
        Self::open(url, space)
    }
}

/// What calls are held against, and the aims.
pub(crate) struct Plan {
    /// The floors of one task: what the raw driver does for each call.
    pub(crate) find: &'static str,
    pub(crate) advance: &'static str,
    pub(crate) create: &'static str,
    /// The floor of many lookups, and how many callers it has.
    pub(crate) pool: (&'static str, usize),
    /// How many connections the store has for writes, and so the raw driver beside it.
    pub(crate) writers: usize,
    /// The most that a call of one task may take, as a multiple of its floor.
    pub(crate) most: Multiples,
    /// The least that many tasks must do, as a multiple of their floor: lookups of that pool, and writes of one
    /// after the other.
    pub(crate) least: Option<f64>,
    /// The most that the 99th percentile of a revocation's delay may be, in nanoseconds.
    pub(crate) delay: Option<f64>,
}

pub(crate) struct Multiples {
    pub(crate) find: f64,
    pub(crate) advance: f64,
    pub(crate) create: Option<f64>,
}

/// What else the raw driver does in an SQL database.
pub(crate) trait RawSql: Raw {
    /// Reads a page of the grants of a subject.
    fn list(&self, subject: &Subject) -> impl Future<Output = ()> + Send;

    /// Marks a grant as revoked, and writes no log.
    fn mark(&self, key: &Key) -> impl Future<Output = ()> + Send;

    /// The tables of grants, tokens and the log.
    fn tables(&self) -> impl Future<Output = Vec<Table>>;

    /// How many connections the server has to this database.
    fn connections(&self) -> impl Future<Output = usize>;

    /// The settings that decide how durable a commit is.
    fn durability(&self) -> impl Future<Output = String>;
}

/// A table, with its indexes.
pub(crate) struct Table {
    pub(crate) name: &'static str,
    pub(crate) bytes: f64,
    pub(crate) rows: f64,
}

/// Runs the benchmark, or the node that it starts.
pub(crate) fn run<S: Database>() {
    let args: Vec<String> = env::args().skip(1).collect();
    if let [role, space] = &args[..]
        && role == load::ROLE
    {
        return load::serve::<S>(space);
    }
    let Some(bench) = Bench::<S>::from_env() else { return };
    bench.run(
        &[
            ("one", one::measure),
            ("finds", finds::measure),
            ("writes", writes::measure),
            ("sizes", sizes::measure),
            ("growth", growth::measure),
            ("delay", |bench| delay::measure(bench, S::PLAN.delay)),
            ("cleaning", cleaning::measure),
            ("churn", churn::measure),
            ("load", load::measure),
        ],
        &[("growth-10m", growth::ten_million)],
    );
}
