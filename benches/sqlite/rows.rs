//! What a grant leaves in the file, and what it costs to revoke one.

use std::path::Path;
use std::time::{Duration, Instant};

use cloakroom_benches::{Aim, Row, Suite, Unit};
use cloakroom_core::GrantId;
use cloakroom_core::revocation::{Epoch, Revocation, Target};
use cloakroom_core::store::{
    AdvanceOutcome, CreateOutcome, Housekeeping, RevokeOutcome, TokenStore as _,
};
use cloakroom_sqlite::{SqliteStore, Synchronous};

use crate::raw::Raw;
use crate::records::{HOUR, Records};
use crate::rounds::Comparison;
use crate::runtime;

pub(crate) fn measure(suite: &Suite) {
    let folder = tempfile::tempdir().expect("a folder");
    suite.report(refreshed(suite, &folder.path().join("refreshed.db")));
    suite.report(revoke(suite, &folder.path().join("revoked.db")));
}

fn open(path: &Path) -> SqliteStore {
    // The cost of a commit would hide the difference.
    SqliteStore::builder(path).synchronous(Synchronous::Normal).open().expect("it opens")
}

/// One refresh a second, and housekeeping at the end.
fn refreshed(suite: &Suite, path: &Path) -> Row {
    let refreshes = if suite.is_quick() { 1_000 } else { 10_000 };
    let (store, mut records) = (open(path), Records::new(40));
    let mut grant = records.grant(records.now + 24 * HOUR);
    grant.epoch = Epoch::new(u64::MAX);
    let chain = grant.chain.as_mut().expect("it has one");
    chain.expires_at = grant.expires_at;
    let mut now = records.now;
    runtime().block_on(async {
        let created = store.create(grant.clone(), Vec::new()).await.expect("an answer");
        assert_eq!(created, CreateOutcome::Inserted);
        for _ in 0..refreshes {
            now = now + Duration::from_secs(1);
            let step = records.refresh(&mut grant, now);
            let advanced = store.advance(step).await.expect("an answer");
            assert_eq!(advanced, AdvanceOutcome::Advanced);
        }
        let task = Housekeeping { now, before: now, limit: 1_000, sweep: None };
        while store.maintain(task).await.expect("it works").more {}
    });
    let raw = Raw::open(path);
    let live =
        raw.count(&format!("SELECT count(*) FROM tokens WHERE expires_at >= {}", now.as_millis()));
    assert!(live > 0, "no token lives");
    let all = raw.count(
        "SELECT (SELECT count(*) FROM grants) + (SELECT count(*) FROM tokens) \
              + (SELECT count(*) FROM tombstones) + (SELECT count(*) FROM rules) \
              + (SELECT count(*) FROM log)",
    );
    Row {
        name: format!("rows of a grant in SQLite after {refreshes} refreshes, beside live tokens"),
        unit: Unit::Rows,
        ours: (all - live) as f64,
        floor: None,
        aim: Some(Aim::AtMost(1.0)),
        beside: Vec::new(),
    }
}

fn revoke(suite: &Suite, path: &Path) -> Row {
    let (tokens, each) = if suite.is_quick() { (1_000, 2) } else { (100_000, 400) };
    let mut records = Records::new(50);
    let end = records.now + 24 * HOUR;
    let raw = Raw::open(path);
    let [many, one] = [tokens, 1].map(|tokens| {
        let grant = records.grant(end);
        let tokens = (0..tokens).map(|_| records.token(&grant, end)).collect();
        (grant, tokens)
    });
    let [all, single] = [many.0.id, one.0.id];
    raw.fill([many, one]);
    let (store, runtime) = (open(path), runtime());
    let turn = |grant: GrantId| {
        let mut took = Duration::ZERO;
        for _ in 0..each {
            let revocation = Revocation::new(Target::Grant(grant), records.now, end);
            let start = Instant::now();
            let revoked = runtime.block_on(store.revoke(revocation)).expect("an answer");
            took += start.elapsed();
            assert_eq!(revoked, RevokeOutcome::Done);
            raw.execute("UPDATE grants SET revoked_at = NULL WHERE revoked_at IS NOT NULL");
        }
        took.as_nanos() as f64 / f64::from(each)
    };
    Comparison {
        name: "revoke a grant with 100,000 access tokens in SQLite",
        floor: "the same with one access token",
        unit: Unit::Nanoseconds,
        // Equal, but for noise.
        aim: Some(Aim::AtMost(1.1)),
    }
    .run(suite, || turn(all), || turn(single))
}
