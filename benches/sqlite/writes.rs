//! Writes of many tasks, which share commits, beside one commit each.

use std::path::Path;
use std::time::Instant;

use cloakroom_benches::{Aim, Row, Suite, Unit};
use cloakroom_core::record::GrantRecord;
use cloakroom_core::store::{AdvanceOutcome, CreateOutcome, TokenStore as _};
use cloakroom_sqlite::SqliteStore;
use tokio::runtime::Runtime;

use crate::raw::Raw;
use crate::records::{HOUR, Records};
use crate::rounds::{Comparison, rate};
use crate::{TASKS, runtime};

/// How many times what one commit each brings.
const AIM: Aim = Aim::AtLeast(3.0);

pub(crate) fn measure(suite: &Suite) {
    let plan = match suite.is_quick() {
        true => Plan { grants: TASKS, each: 1, commits: 4 },
        false => Plan { grants: 100 * TASKS, each: 25, commits: 100 },
    };
    let folder = tempfile::tempdir().expect("a folder");
    let runtime = runtime();
    suite.report(plan.advance(suite, &runtime, folder.path()));
    suite.report(plan.create(suite, &runtime, folder.path()));
}

struct Plan {
    /// How many grants there are before.
    grants: usize,
    /// How many writes a task makes in a turn.
    each: usize,
    /// How many writes the floor makes in a turn.
    commits: usize,
}

impl Plan {
    fn fill(&self, path: &Path, records: &mut Records) -> (Raw, Vec<GrantRecord>) {
        let raw = Raw::open(path);
        let end = records.now + 24 * HOUR;
        let grants: Vec<_> = (0..self.grants).map(|_| records.grant(end)).collect();
        raw.fill(grants.iter().map(|grant| (grant.clone(), Vec::new())));
        (raw, grants)
    }

    fn advance(&self, suite: &Suite, runtime: &Runtime, folder: &Path) -> Row {
        let mut records = Records::new(20);
        let now = records.now;
        let path = folder.join("advance.db");
        let (_, grants) = self.fill(&path, &mut records);
        let store = SqliteStore::open(&path).expect("it opens");
        // Each task has grants of its own, and takes them in turn.
        let mut shares: Vec<(Records, Vec<GrantRecord>)> = grants
            .chunks(grants.len() / TASKS)
            .enumerate()
            .map(|(task, share)| (Records::new(1_000 + task as u64), share.to_vec()))
            .collect();
        let each = self.each;
        let ours = || {
            let start = Instant::now();
            let tasks: Vec<_> = shares
                .drain(..)
                .map(|(mut records, mut share)| {
                    let store = store.clone();
                    runtime.spawn(async move {
                        for turn in 0..each {
                            let place = turn % share.len();
                            let step = records.refresh(&mut share[place], now);
                            let advanced = store.advance(step).await.expect("an answer");
                            assert_eq!(advanced, AdvanceOutcome::Advanced);
                        }
                        let done = each % share.len();
                        share.rotate_left(done);
                        (records, share)
                    })
                })
                .collect();
            let all = tasks.into_iter().map(|task| runtime.block_on(task).expect("no panic"));
            shares = all.collect();
            rate(TASKS * each, start.elapsed())
        };
        let (raw, mut theirs) = self.fill(&folder.join("advance-raw.db"), &mut records);
        let mut turn = 0;
        let floor = || {
            let start = Instant::now();
            for _ in 0..self.commits {
                turn = (turn + 1) % theirs.len();
                raw.advance(&records.refresh(&mut theirs[turn], now));
            }
            rate(self.commits, start.elapsed())
        };
        Comparison {
            name: "advance grants in SQLite, durably, 64 tasks",
            floor: "raw rusqlite, a commit each",
            unit: Unit::PerSecond,
            aim: Some(AIM),
        }
        .run(suite, ours, floor)
    }

    fn create(&self, suite: &Suite, runtime: &Runtime, folder: &Path) -> Row {
        let mut records = Records::new(30);
        let end = records.now + 24 * HOUR;
        let path = folder.join("create.db");
        self.fill(&path, &mut records);
        let store = SqliteStore::open(&path).expect("it opens");
        let (mut seed, each) = (0, self.each);
        let ours = || {
            let start = Instant::now();
            let tasks: Vec<_> = (0..TASKS)
                .map(|_| {
                    seed += 1;
                    let (store, mut records) = (store.clone(), Records::new(2_000 + seed));
                    runtime.spawn(async move {
                        for _ in 0..each {
                            let mut grant = records.grant(end);
                            // That of a login that began just now.
                            grant.epoch = cloakroom_core::revocation::Epoch::new(u64::MAX);
                            let token = records.token(&grant, end);
                            let created =
                                store.create(grant, vec![token]).await.expect("an answer");
                            assert_eq!(created, CreateOutcome::Inserted);
                        }
                    })
                })
                .collect();
            for task in tasks {
                runtime.block_on(task).expect("no panic");
            }
            rate(TASKS * each, start.elapsed())
        };
        let (raw, _) = self.fill(&folder.join("create-raw.db"), &mut records);
        let floor = || {
            let start = Instant::now();
            for _ in 0..self.commits {
                let grant = records.grant(end);
                let token = records.token(&grant, end);
                raw.create(&grant, &[token]);
            }
            rate(self.commits, start.elapsed())
        };
        Comparison {
            name: "create grants in SQLite, durably, 64 tasks",
            floor: "raw rusqlite, a commit each",
            unit: Unit::PerSecond,
            aim: Some(AIM),
        }
        .run(suite, ours, floor)
    }
}
