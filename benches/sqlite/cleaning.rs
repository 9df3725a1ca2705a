//! Lookups while a backlog of expired rows is cleaned away.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cloakroom::Issuer;
use cloakroom_benches::{Aim, Dice, Suite, Unit};
use cloakroom_core::Random;
use cloakroom_core::handle::{HandleKeys, HandleSecret};
use cloakroom_jwt::AesGcmSealer;
use cloakroom_sqlite::SqliteStore;

use crate::finds::find;
use crate::raw::Raw;
use crate::records::{HOUR, Key, Records};
use crate::rounds::Comparison;
use crate::runtime;

pub(crate) fn measure(suite: &Suite) {
    let (rows, turn) = match suite.is_quick() {
        true => (10_000, Duration::from_millis(50)),
        // Long enough for two rounds of housekeeping and the pause between them.
        false => (1_000_000, Duration::from_secs(4)),
    };
    suite.say(format_args!("lookups beside {rows} expired rows"));
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("tokens.db");
    let keys = fill(&path, rows);
    let store = SqliteStore::open(&path).expect("it opens");
    let (raw, runtime) = (Raw::open(&path), runtime());
    let secret = HandleSecret::random(1, &Random::system()).expect("random bytes");
    let sealer = AesGcmSealer::random().expect("random bytes");
    let issuer = runtime.block_on(issuer(&store, HandleKeys::new(&secret), sealer));
    let lookups = |seed| {
        let (mut dice, mut times) = (Dice::new(seed), Vec::new());
        let start = Instant::now();
        while start.elapsed() < turn {
            let key = &keys[dice.below(keys.len())];
            let before = Instant::now();
            find(&store, key);
            times.push(before.elapsed().as_nanos() as u64);
        }
        ninety_ninth(times)
    };
    let expired = || raw.count("SELECT count(*) FROM tokens") - keys.len() as i64;
    let mut left = expired();
    let row = Comparison {
        name: "find a token in SQLite, 99th percentile, while a million expired rows are cleaned \
               away",
        floor: "the same while nothing is cleaned away",
        unit: Unit::Nanoseconds,
        aim: Some(Aim::AtMost(3.0)),
    }
    .run(
        suite,
        || {
            let maintained = issuer.clone();
            let task = runtime.spawn(async move { maintained.run_maintenance().await });
            let figure = lookups(1);
            task.abort();
            let _ = runtime.block_on(task);
            let before = std::mem::replace(&mut left, expired());
            let goes_on = 0 < left && left < before;
            assert!(goes_on || suite.is_quick(), "{before} expired tokens became {left}");
            figure
        },
        || lookups(2),
    );
    suite.report(row);
}

/// Half of the expired rows are grants, half are their tokens; as many grants live on as a tenth of
/// those.
fn fill(path: &Path, expired: usize) -> Vec<Key> {
    let mut records = Records::new(70);
    let (now, mut keys) = (records.now, Vec::new());
    let rows = (0..expired / 2).flat_map(|number| {
        let end = now - HOUR;
        let ended = records.grant(end);
        let token = records.token(&ended, end);
        let mut rows = vec![(ended, vec![token])];
        if number % 10 == 0 {
            let grant = records.grant(now + 24 * HOUR);
            let token = records.token(&grant, now + 24 * HOUR);
            keys.push(Key { grant: grant.id, digest: token.digest });
            rows.push((grant, vec![token]));
        }
        rows
    });
    Raw::open(path).fill(rows);
    keys
}

/// An issuer with the default pace of housekeeping.
pub(crate) async fn issuer(store: &SqliteStore, keys: HandleKeys, sealer: AesGcmSealer) -> Issuer {
    Issuer::builder("https://as.example")
        .store(Arc::new(store.clone()))
        .handle_keys(keys)
        .sealer(Arc::new(sealer))
        .static_clients([] as [cloakroom::Client; 0])
        .expect("no client is wrong")
        .build()
        .await
        .expect("an issuer")
}

fn ninety_ninth(mut times: Vec<u64>) -> f64 {
    let place = times.len() * 99 / 100;
    let (_, time, _) = times.select_nth_unstable(place);
    *time as f64
}
