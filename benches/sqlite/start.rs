//! How long a server takes to start on a file with many grants.

use std::time::{Duration, Instant};

use cloakroom_benches::{Aim, Row, Suite, Unit, quantile};
use cloakroom_core::Random;
use cloakroom_core::handle::{HandleKeys, HandleSecret};
use cloakroom_jwt::AesGcmSealer;
use cloakroom_sqlite::SqliteStore;

use crate::cleaning::issuer;
use crate::raw::Raw;
use crate::records::{HOUR, Records};
use crate::runtime;

pub(crate) fn measure(suite: &Suite) {
    let (grants, starts) = if suite.is_quick() { (1_000, 3) } else { (1_000_000, 15) };
    suite.say(format_args!("a start on {grants} grants"));
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("tokens.db");
    let mut records = Records::new(90);
    let end = records.now + 24 * HOUR;
    Raw::open(&path).fill((0..grants).map(|_| {
        let grant = records.grant(end);
        let token = records.token(&grant, end);
        (grant, vec![token])
    }));

    let secret = HandleSecret::random(1, &Random::system()).expect("random bytes");
    let keys = HandleKeys::new(&secret);
    let sealer = AesGcmSealer::random().expect("random bytes");
    let runtime = runtime();
    let start = || -> Duration {
        let start = Instant::now();
        let store = SqliteStore::open(&path).expect("it opens");
        let issuer = runtime.block_on(issuer(&store, keys.clone(), sealer.clone()));
        let took = start.elapsed();
        drop(issuer);
        took
    };
    // The first one makes the signing keys.
    start();
    let times: Vec<f64> = (0..starts).map(|_| start().as_nanos() as f64).collect();
    suite.report(Row {
        name: "start an authorization server on SQLite with a million grants".to_owned(),
        unit: Unit::Nanoseconds,
        ours: quantile(&times, 0.5),
        floor: None,
        aim: Some(Aim::AtMost(0.5e9)),
        beside: Vec::new(),
    });
}
