//! How often the authorization server is asked.

use std::sync::Arc;
use std::time::Duration;

use cloakroom::resource::Freshness;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::authority::{EDGES, Hold};
use crate::edge::{Wires, gateway};
use crate::people::{People, Token};
use crate::tape::Place;
use crate::web::{Served, Web, bearer};
use crate::{HANGS, TURN, people};

const HOUR: Duration = Duration::from_secs(3600);
const EDGE: &str = EDGES[0];
const INTROSPECT: &str = "/introspect";

/// A gateway with a memory.
async fn served(people: &People, wires: &Wires, freshness: Freshness) -> Served {
    let layer = wires.gateway().cache(20_000).freshness(freshness).unwrap();
    gateway(Place { name: EDGE, bound: HOUR }, &people.tape, &layer, None).await
}

async fn handles(people: &Arc<People>, count: u32) -> Vec<Arc<Token>> {
    let mut tasks = JoinSet::new();
    for part in 0..32 {
        let people = Arc::clone(people);
        tasks.spawn(async move {
            for user in (part..count).step_by(32) {
                people.sign_in(user, 2 * (user % 20)).await.unwrap();
            }
        });
    }
    tasks.join_all().await;
    people.tokens()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_tokens_are_one_question_each() {
    const TOKENS: u32 = 10_000;
    const GROUPS: usize = 16;
    let _turn = TURN.lock().await;
    let people = Arc::new(people().await);
    let wires = Wires::new(EDGE, &people.authority).await;
    let edge = served(&people, &wires, Freshness::within(HOUR)).await;
    let tokens = Arc::new(handles(&people, TOKENS).await);
    let (web, mut clients) = (Web::new(), JoinSet::new());
    // Four clients each go through the same tokens, at the same time.
    for client in 0..64 {
        let (web, url, tokens) = (web.clone(), edge.url(), Arc::clone(&tokens));
        clients.spawn(async move {
            for token in tokens.iter().skip(client % GROUPS).step_by(GROUPS) {
                let status = web.get(&url, &bearer(&token.secret), token.number).await;
                assert_eq!(status, Some(200));
            }
        });
    }
    timeout(HANGS, clients.join_all()).await.expect("it goes on");
    assert_eq!(people.tape.visits(), 4 * TOKENS as usize);
    assert_eq!(people.authority.asked.count(INTROSPECT, EDGE), TOKENS as usize);
}

/// Begins a request.
fn begin(edge: &Served, token: &Token, web: &Web, requests: &mut JoinSet<Option<u16>>) {
    let (web, url, token, number) = (web.clone(), edge.url(), bearer(&token.secret), token.number);
    requests.spawn(async move { web.get(&url, &token, number).await });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_first_requests_are_one_question() {
    let people = Arc::new(people().await);
    let wires = Wires::new(EDGE, &people.authority).await;
    let edge = served(&people, &wires, Freshness::within(HOUR)).await;
    let tokens = handles(&people, 1).await;
    let (asked, mut requests) = (&people.authority.asked, JoinSet::new());
    asked.hold(Hold::Questions);
    for _ in 0..5 {
        let web = Web::http2();
        for _ in 0..100 {
            begin(&edge, &tokens[0], &web, &mut requests);
        }
    }
    let all = async {
        people.tape.until_begun(500).await;
        asked.until(INTROSPECT, EDGE, 1).await;
        asked.hold(Hold::None);
        requests.join_all().await
    };
    let statuses = timeout(HANGS, all).await.expect("it goes on");
    assert!(statuses.iter().all(|status| *status == Some(200)), "{statuses:?}");
    assert_eq!(asked.count(INTROSPECT, EDGE), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_request_joins_nothing_that_was_sent() {
    const REQUESTS: usize = 20;
    let people = Arc::new(people().await);
    let wires = Wires::new(EDGE, &people.authority).await;
    let edge = served(&people, &wires, Freshness::every_request()).await;
    let (tokens, web) = (handles(&people, 1).await, Web::new());
    let (asked, mut requests) = (&people.authority.asked, JoinSet::new());
    asked.hold(Hold::Questions);
    let all = async {
        for number in 1..=REQUESTS {
            begin(&edge, &tokens[0], &web, &mut requests);
            // The questions before this one are with the server, and have no answer.
            asked.until(INTROSPECT, EDGE, number).await;
        }
        asked.hold(Hold::None);
        requests.join_all().await
    };
    let statuses = timeout(HANGS, all).await.expect("it goes on");
    assert!(statuses.iter().all(|status| *status == Some(200)), "{statuses:?}");
    assert_eq!(asked.count(INTROSPECT, EDGE), REQUESTS);
}
