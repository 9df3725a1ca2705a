//! How long a token is still accepted on any of three nodes after its revocation on one was acknowledged.

use std::thread;
use std::time::{Duration, Instant};

use cloakroom::resource::TokenError;
use cloakroom_benches::{Aim, Delays, Row, Unit, quantile};
use cloakroom_core::TokenSecret;

use super::node::Node;
use super::{Bench, Server};

const NODES: usize = 3;

/// The pause before each revocation, in which all followers begin to wait again.
const QUIET: Duration = Duration::from_millis(2);

/// The aim is for the 99th percentile, in nanoseconds.
pub(crate) fn measure<S: Server>(bench: &Bench<S>, aim: Option<f64>) {
    let place = bench.place();
    let runtime = &bench.runtime;
    let start = |_| runtime.block_on(Node::start::<S>(&bench.url, &place.space));
    let nodes: Vec<Node> = (0..NODES).map(start).collect();
    let delays: Vec<f64> = (0..bench.count(1_000, 3))
        .map(|user| {
            let token = runtime.block_on(async {
                let token = nodes[0].issue(user).await;
                for node in &nodes {
                    node.layer.verify(&token, None).await.expect("it is accepted");
                }
                token
            });
            thread::sleep(QUIET);
            runtime.block_on(nodes[user % NODES].revoke(&token));
            let acknowledged = Instant::now();
            nodes.iter().for_each(|node| refuses(bench, node, &token));
            acknowledged.elapsed().as_nanos() as f64
        })
        .collect();
    let name = format!("from revoke to refusal on all of three nodes over {}", S::NAME);
    bench.suite.report(Delays::new(&name, &delays));
    bench.suite.report(Row {
        name: format!("{name}, p99"),
        unit: Unit::Nanoseconds,
        ours: quantile(&delays, 0.99),
        floor: None,
        aim: aim.map(Aim::AtMost),
        beside: Vec::new(),
    });
}

/// Presents the token again and again, until it is refused.
fn refuses<S>(bench: &Bench<S>, node: &Node, token: &TokenSecret) {
    loop {
        match bench.runtime.block_on(node.layer.verify(token, None)) {
            Ok(_) => thread::yield_now(),
            Err(TokenError::Invalid(_)) => return,
            Err(error) => panic!("{error}"),
        }
    }
}
