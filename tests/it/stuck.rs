//! Followers of the log that read nothing are in nobody's way.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cloakroom::resource::Freshness;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::authority::{EDGES, SECRET};
use crate::edge::{Wires, gateway};
use crate::people::How;
use crate::tape::Place;
use crate::web::{Web, bearer};
use crate::{HANGS, people};

const STUCK: usize = 100;
const REVOCATIONS: u32 = 300;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn followers_hold_up_nobody() {
    let people = people().await;
    let mut edges = Vec::new();
    for name in &EDGES[..3] {
        let wires = Wires::new(name, &people.authority).await;
        let replica = wires.replica(wires.http_log()).follow().await.unwrap();
        let layer = wires.gateway().cache(1_000).freshness(Freshness::every_request()).unwrap();
        let place = Place { name, bound: Duration::ZERO };
        let edge = gateway(place, &people.tape, &layer, None).await;
        edges.push((wires, replica, edge));
    }
    for user in 0..REVOCATIONS {
        let token = people.sign_in(user, 0).await.unwrap();
        assert!(people.revoke(How::Grant, &token).await);
    }

    // More than fits on the way from there to here, and none of it is ever read. Every second one
    // waits at the end of the log instead, and does not take what it is told.
    let address = people.authority.address().borrow().unwrap();
    let basic = STANDARD.encode(format!("{}:{SECRET}", EDGES[3]));
    let ask = |query| {
        format!(
            "GET /revocations?{query} HTTP/1.1\r\nHost: as\r\nAuthorization: Basic {basic}\r\n\r\n"
        )
    };
    let mut stuck = Vec::new();
    for number in 0..STUCK {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let (query, times) = if number % 2 == 0 { ("wait=30", 100) } else { ("wait=30", 2) };
        stream.write_all(ask(query).repeat(times).as_bytes()).await.unwrap();
        stuck.push(stream);
    }
    people.authority.asked.until("/revocations", EDGES[3], STUCK).await;

    let web = Web::new();
    for user in 0..REVOCATIONS {
        let token = people.sign_in(user, 2).await.unwrap();
        let (_, _, edge) = &edges[user as usize % edges.len()];
        let get = || async { web.get(&edge.url(), &bearer(&token.secret), token.number).await };
        assert_eq!(get().await, Some(200));
        assert!(people.revoke(How::Grant, &token).await);
        assert_eq!(get().await, Some(401));
    }
    let known = async {
        while edges.iter().any(|(_, replica, _)| replica.rules() < 2 * REVOCATIONS as usize) {
            tokio::task::yield_now().await;
        }
    };
    timeout(HANGS, known).await.expect("the others hear of everything");
    let asked = &people.authority.asked;
    assert!(asked.count("/revocations", EDGES[3]) >= STUCK);
    drop(stuck);
}
