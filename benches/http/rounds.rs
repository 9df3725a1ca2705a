//! The servers take turns.

use std::iter;
use std::time::Duration;

use cloakroom_benches::{Aim, Delays, Floor, Row, Suite, Unit};

use crate::Failure;
use crate::case::Case;
use crate::load::Load;
use crate::process::Server;
use crate::servers::Kind;

/// Measures one case with every server that supports it, and reports the results.
pub(crate) fn measure(case: Case, suite: &Suite) -> Result<(), Failure> {
    let plan = Plan::of(case, suite);
    let around = match case {
        Case::Gateway => Some(Server::start_beside(Kind::Surroundings, case, plan.tokens)?),
        _ => None,
    };
    let folder = tempfile::tempdir()?;
    let place = match &around {
        Some(around) => around.origin(),
        None => folder.path().display().to_string(),
    };
    let around = around.as_ref();
    let mut ours = Contestant::start(Kind::Ours, case, &plan, around, &place)?;
    let body = if around.is_some() { place } else { ours.load.ask()? };
    let mut others = Vec::new();
    for kind in Kind::others(case) {
        let file = folder.path().display().to_string();
        let body = if *kind == Kind::Sqlite { &file } else { &body };
        others.push(Contestant::start(*kind, case, &plan, around, body)?);
    }
    for round in 0..plan.rounds {
        let mut all: Vec<_> = iter::once(&mut ours).chain(&mut others).collect();
        // None always runs after the same one.
        let first = round % all.len();
        all.rotate_left(first);
        all.into_iter().try_for_each(|contestant| contestant.run(plan.requests))?;
    }
    for contestant in iter::once(&ours).chain(&others) {
        suite.say(contestant.summary(case));
    }
    // How long a request takes without a queue.
    for contestant in iter::once(&mut ours).chain(&mut others) {
        let times = contestant.load.one_by_one(plan.requests)?;
        let times: Vec<f64> = times.iter().map(|took| took.as_nanos() as f64).collect();
        let name = format!("{case}, {}", contestant.kind.describe(case));
        suite.report(Delays::new(name, &times));
    }
    for other in &others {
        let ratios: Vec<f64> =
            iter::zip(&ours.rates, &other.rates).map(|(ours, other)| ours / other).collect();
        suite.report(Row {
            name: case.to_string(),
            unit: Unit::PerSecond,
            ours: median(&ours.rates),
            floor: Some(Floor::new(other.kind.describe(case), median(&other.rates), &ratios)),
            aim: other.kind.aim(case).map(Aim::AtLeast),
            beside: Vec::new(),
        });
    }
    Ok(())
}

/// How much is measured.
struct Plan {
    rounds: usize,
    /// Requests a round.
    requests: usize,
    /// Tokens that are live before the first request.
    tokens: usize,
}

impl Plan {
    fn of(case: Case, suite: &Suite) -> Self {
        let tokens = match case {
            Case::Introspect | Case::IntrospectSqlite | Case::IntrospectPostgres => 100_000,
            Case::IssueOpaque | Case::IssueEs256 => 0,
            Case::Api => 5_000,
            Case::Refresh | Case::RefreshSqlite | Case::Gateway => 10_000,
        };
        if suite.is_quick() {
            // Of refresh tokens, one for each request that is under way.
            return Self { rounds: 2, requests: 64, tokens: tokens.min(100) };
        }
        Self {
            rounds: 15,
            // About a quarter of a second: long beside a hiccup, short beside what else changes.
            requests: if case == Case::IssueEs256 { 4_000 } else { 12_000 },
            tokens,
        }
    }
}

/// A measured server, with the client's connections to it.
struct Contestant {
    kind: Kind,
    server: Server,
    load: Load,
    /// Requests a second of the server's core, round by round.
    rates: Vec<f64>,
    /// The same by wall time.
    by_the_wall: Vec<f64>,
}

impl Contestant {
    /// The tokens are the server's own, or those of what is around it.
    fn start(
        kind: Kind,
        case: Case,
        plan: &Plan,
        around: Option<&Server>,
        body: &str,
    ) -> Result<Self, Failure> {
        let tokens = if around.is_some() { 0 } else { plan.tokens };
        let server = Server::start(kind, case, tokens, body)?;
        let tokens = &around.unwrap_or(&server).tokens;
        let mut load = Load::connect(server.address, case.requests(tokens), case.next())?;
        let answer = load.ask()?;
        if !answer.contains(case.expects()) {
            return Err(format!("{} answers {answer}", kind.describe(case)).into());
        }
        // Warm caches, every token known, and a store with as much room as it needs.
        load.run(plan.requests)?;
        Ok(Self { kind, server, load, rates: Vec::new(), by_the_wall: Vec::new() })
    }

    /// One round. What counts is how long the server was on its core: while it has requests to
    /// answer, that is the clock on the wall, unless something else was on that core, too.
    fn run(&mut self, requests: usize) -> Result<(), Failure> {
        let before = self.server.on_core();
        let (requests, took) = self.load.run(requests)?;
        let on_core = self.server.on_core().zip(before).map(|(after, before)| after - before);
        let rate = |took: Duration| requests as f64 / took.as_secs_f64();
        self.rates.push(rate(on_core.unwrap_or(took)));
        self.by_the_wall.push(rate(took));
        Ok(())
    }

    fn summary(&self, case: Case) -> String {
        let (rate, by_the_wall) = (median(&self.rates), median(&self.by_the_wall));
        let kind = self.kind.describe(case);
        format!("{case}, {kind}: {rate:.0}/s of its core, {by_the_wall:.0}/s by the wall")
    }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}
