//! What it costs to wait for a replica, and to have the server refuse writes without one.

use std::thread;
use std::time::Duration;

use cloakroom_benches::Unit;

use crate::Setting;
use crate::rounds::Comparison;
use crate::server::Server;
use crate::writes::{Shares, revokes};

pub(crate) fn measure(setting: &Setting) {
    let master = Server::start(&["--repl-diskless-sync-delay", "0"]);
    let of = format!("127.0.0.1 {}", master.port());
    let replica = Server::start(&["--replicaof", &of]);
    while !replica.says(&["INFO", "replication"]).contains("master_link_status:up") {
        thread::yield_now();
    }
    let url = master.url();
    let waits =
        |it: cloakroom_redis::RedisStoreBuilder| it.wait_for_replicas(1, Duration::from_secs(5));
    let (waiting, other) =
        (setting.place_over(&url, waits), setting.place_over(&url, |builder| builder));
    let (its, own) = (Shares::new(&waiting, 2_700), Shares::new(&other, 2_800));
    let each = setting.count(500, 2);
    let compare = |name, floor, ours: &mut dyn FnMut() -> f64, its: &mut dyn FnMut() -> f64| {
        let comparison = Comparison { name, floor, unit: Unit::PerSecond, aim: None };
        setting.suite.report(comparison.run(&setting.suite, ours, its));
    };
    let without = "without waiting";
    compare(
        "advance grants in Redis, waiting for a replica, 64 tasks",
        without,
        &mut its.advances(&waiting, each),
        &mut own.advances(&other, each),
    );
    compare(
        "revoke grants in Redis, waiting for a replica, 64 tasks",
        without,
        &mut revokes(&waiting, each),
        &mut revokes(&other, each),
    );
    compare(
        "advance a grant in Redis, waiting for a replica, one task",
        without,
        &mut its.one(&waiting, each),
        &mut own.one(&other, each),
    );
    let needs = |count: &str| master.says(&["CONFIG", "SET", "min-replicas-to-write", count]);
    let (mut with, mut free) = (own.advances(&other, each), own.advances(&other, each));
    compare(
        "advance grants in Redis, min-replicas-to-write 1, 64 tasks",
        "min-replicas-to-write 0",
        &mut || {
            needs("1");
            with()
        },
        &mut || {
            needs("0");
            free()
        },
    );
    needs("0");
}
