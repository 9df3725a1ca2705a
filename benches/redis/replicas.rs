//! What it costs to wait for a replica, and to have the server refuse writes without one.

use std::thread;
use std::time::Duration;

use cloakroom_benches::Unit;

use crate::server::calls::{Load, Shares, revokes};
use crate::server::rounds::Comparison;
use crate::started::Server;
use crate::{Bench, place_over};

pub(crate) fn measure(bench: &Bench) {
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
        (place_over(bench, &url, waits), place_over(bench, &url, |builder| builder));
    let (its, own) = (Shares::new(&waiting), Shares::new(&other));
    let each = bench.count(500, 2);
    let (one, load) = (Load::one(each), Load::many(each));
    let compare = |name, floor, ours: &mut dyn FnMut() -> f64, its: &mut dyn FnMut() -> f64| {
        let comparison = Comparison { name, floor, unit: Unit::PerSecond, aim: None };
        bench.suite.report(comparison.run(&bench.suite, ours, its));
    };
    let without = "without waiting";
    compare(
        "advance grants in Redis, waiting for a replica, 64 tasks",
        without,
        &mut its.advances(&waiting, &waiting.ours, load),
        &mut own.advances(&other, &other.ours, load),
    );
    compare(
        "revoke grants in Redis, waiting for a replica, 64 tasks",
        without,
        &mut revokes(&waiting, load),
        &mut revokes(&other, load),
    );
    compare(
        "advance a grant in Redis, waiting for a replica, one task",
        without,
        &mut its.advances(&waiting, &waiting.ours, one),
        &mut own.advances(&other, &other.ours, one),
    );
    let needs = |count: &str| master.says(&["CONFIG", "SET", "min-replicas-to-write", count]);
    let (mut with, mut free) =
        (own.advances(&other, &other.ours, load), own.advances(&other, &other.ours, load));
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
