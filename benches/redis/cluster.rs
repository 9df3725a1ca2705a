//! A cluster of three, beside one server.

use std::process::{Command, Stdio};
use std::thread;

use cloakroom_benches::Unit;

use crate::server::calls::{Load, Shares, creates, finds, revokes};
use crate::server::rounds::Comparison;
use crate::started::{Server, program};
use crate::{Bench, place_over};

pub(crate) fn measure(bench: &Bench) {
    let nodes = start();
    let addresses: Vec<String> = nodes.iter().map(Server::address).collect();
    let url = format!("redis+cluster://{}", addresses.join(","));
    let (many, one) = (place_over(bench, &url, |builder| builder), bench.place());
    let grants = bench.count(100_000, 200);
    let (its_keys, keys) = (many.fill(grants, 0), one.fill(grants, 0));
    let (its, own) = (Shares::new(&many), Shares::new(&one));
    let load = Load::many(bench.count(1_000, 2));
    let compare = |name, ours: &mut dyn FnMut() -> f64, floor: &mut dyn FnMut() -> f64| {
        let (unit, aim, beside) = (Unit::PerSecond, None, "one server");
        let comparison = Comparison { name, floor: beside, unit, aim };
        bench.suite.report(comparison.run(&bench.suite, ours, floor));
    };
    compare(
        "find tokens in a Redis Cluster of three, 64 tasks",
        &mut finds(&many, &many.ours, &its_keys, load),
        &mut finds(&one, &one.ours, &keys, load),
    );
    compare(
        "advance grants in a Redis Cluster of three, 64 tasks",
        &mut its.advances(&many, &many.ours, load),
        &mut own.advances(&one, &one.ours, load),
    );
    compare(
        "create grants in a Redis Cluster of three, 64 tasks",
        &mut creates(&many, &many.ours, load),
        &mut creates(&one, &one.ours, load),
    );
    compare(
        "revoke grants in a Redis Cluster of three, 64 tasks",
        &mut revokes(&many, load),
        &mut revokes(&one, load),
    );
}

fn start() -> Vec<Server> {
    let settings = ["--cluster-enabled", "yes", "--cluster-config-file", "nodes.conf"];
    let nodes: Vec<Server> = (0..3).map(|_| Server::start(&settings)).collect();
    let mut create = Command::new(program("redis-cli"));
    create.args(["--cluster", "create"]).args(nodes.iter().map(Server::address));
    let created = create.arg("--cluster-yes").stdin(Stdio::null()).output().expect("redis-cli");
    assert!(created.status.success(), "{}", String::from_utf8_lossy(&created.stdout));
    for node in &nodes {
        while !node.says(&["CLUSTER", "INFO"]).contains("cluster_state:ok") {
            thread::yield_now();
        }
    }
    nodes
}
