//! A cluster of three, beside one server.

use std::process::{Command, Stdio};
use std::thread;

use cloakroom_benches::Unit;

use crate::Setting;
use crate::finds::finds;
use crate::rounds::Comparison;
use crate::server::{Server, program};
use crate::writes::{Shares, creates, revokes};

pub(crate) fn measure(setting: &Setting) {
    let nodes = start();
    let addresses: Vec<String> = nodes.iter().map(Server::address).collect();
    let url = format!("redis+cluster://{}", addresses.join(","));
    let (many, one) = (setting.place_over(&url, |builder| builder), setting.place());
    let grants = setting.count(100_000, 200);
    let (its_keys, keys) = (many.fill(grants), one.fill(grants));
    let (its, own) = (Shares::new(&many, 2_500), Shares::new(&one, 2_600));
    let each = setting.count(1_000, 2);
    let compare = |name, ours: &mut dyn FnMut() -> f64, floor: &mut dyn FnMut() -> f64| {
        let (unit, aim, beside) = (Unit::PerSecond, None, "one server");
        let comparison = Comparison { name, floor: beside, unit, aim };
        setting.suite.report(comparison.run(&setting.suite, ours, floor));
    };
    compare(
        "find tokens in a Redis Cluster of three, 64 tasks",
        &mut finds(&many, &its_keys, each),
        &mut finds(&one, &keys, each),
    );
    compare(
        "advance grants in a Redis Cluster of three, 64 tasks",
        &mut its.advances(&many, each),
        &mut own.advances(&one, each),
    );
    compare(
        "create grants in a Redis Cluster of three, 64 tasks",
        &mut creates(&many, each, 80_000_000),
        &mut creates(&one, each, 90_000_000),
    );
    compare(
        "revoke grants in a Redis Cluster of three, 64 tasks",
        &mut revokes(&many, each),
        &mut revokes(&one, each),
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
