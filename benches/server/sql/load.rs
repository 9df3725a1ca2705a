//! The memory and the connections of a node that 64 tasks keep busy. It is a process of its own: this program, started
//! once more.

use std::io::{self, BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{env, fs, process, thread};

use cloakroom_benches::{Row, Unit};

use super::{Database, RawSql as _};
use crate::server::node::Node;
use crate::server::{Bench, TASKS, runtime};

/// The first argument of the node. The second names its tables.
pub(super) const ROLE: &str = "be-a-node";

const READY: &str = "ready";

/// The pause between two looks at the node.
const PAUSE: Duration = Duration::from_millis(50);

pub(super) fn measure<S: Database>(bench: &Bench<S>) {
    let time = Duration::from_millis(if bench.suite.is_quick() { 200 } else { 10_000 });
    let place = bench.place();
    let connections = || bench.runtime.block_on(place.raw.connections());
    let before = connections();
    let mut node = start(&place.space);
    let (start, mut memory, mut most) = (Instant::now(), 0.0_f64, 0);
    while start.elapsed() < time {
        thread::sleep(PAUSE);
        memory = memory.max(resident(&node));
        most = most.max(connections().saturating_sub(before));
    }
    drop(node.stdin.take());
    assert!(node.wait().expect("it ends").success(), "the node failed");
    for (what, unit, ours) in
        [("memory", Unit::Bytes, memory), ("connections", Unit::Connections, most as f64)]
    {
        bench.suite.report(Row {
            name: format!("{what} of a node on {}, 64 tasks", S::NAME),
            unit,
            ours,
            floor: None,
            aim: None,
            beside: Vec::new(),
        });
    }
}

/// A node, when its tasks are at work. It ends with its standard input.
fn start(space: &str) -> Child {
    let mut command = Command::new(env::current_exe().expect("this program"));
    command.args([ROLE, space]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut node = command.spawn().expect("it starts");
    let said = BufReader::new(node.stdout.take().expect("its output")).lines().next();
    assert_eq!(said.expect("a line").expect("text"), READY);
    node
}

/// All memory of a process that is in use, in bytes; 0 where the system does not say it.
fn resident(process: &Child) -> f64 {
    let status = fs::read_to_string(format!("/proc/{}/status", process.id())).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
    kilobytes.unwrap_or_default() * 1024.0
}

/// The role of the node.
pub(super) fn serve<S: Database>(space: &str) {
    let url = env::var(S::VARIABLE).expect("a URL");
    let runtime = runtime();
    let node = Arc::new(runtime.block_on(Node::start::<S>(&url, space)));
    let work = |task| {
        let node = Arc::clone(&node);
        async move {
            for turn in 0.. {
                let token = node.issue(turn * TASKS + task).await;
                node.layer.verify(&token, None).await.expect("it is accepted");
                node.revoke(&token).await;
            }
        }
    };
    let tasks: Vec<_> = (0..TASKS).map(|task| runtime.spawn(work(task))).collect();
    println!("{READY}");
    let _ = io::copy(&mut io::stdin(), &mut io::sink());
    let has_failed = tasks.iter().any(|task| task.is_finished());
    process::exit(i32::from(has_failed));
}
