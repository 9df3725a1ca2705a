//! How many registrations are kept, and which of them makes room for a new one.

use std::sync::Arc;
use std::time::Duration;

use cloakroom::core::time::ManualClock;
use cloakroom::http::Registration;
use cloakroom::{ClientDirectory as _, ClientId, RegisteredClients};
use serde_json::Value;

use super::registration::{CALLBACK, public, registered, registering, server_with, text, tokens};
use super::server::{CHALLENGE, START, Server};

/// With room for so many, and a clock for who makes room.
async fn crowded(at_most: usize) -> (Server, Arc<RegisteredClients>, Arc<ManualClock>) {
    let unbounded = |endpoint: Registration| endpoint.limit(u32::MAX, Duration::from_secs(60));
    let clock = Arc::new(ManualClock::at(START));
    let timed = clock.clone();
    let registry = move |registry: RegisteredClients| registry.at_most(at_most).clock(timed);
    let (server, clients) = server_with(registry, unbounded).await;
    (server, clients, clock)
}

async fn is_kept(clients: &RegisteredClients, client: &Value) -> bool {
    let id = ClientId::new(text(client, "client_id")).unwrap();
    clients.registration(&id).await.unwrap().is_some()
}

/// Lets time pass for the server and for its registry.
fn both_wait(server: &Server, registry: &ManualClock, seconds: u64) {
    for clock in [&*server.clock, registry] {
        clock.advance(Duration::from_secs(seconds));
    }
}

#[tokio::test]
async fn a_registry_has_room_for_so_many_only() {
    let (server, clients, clock) = crowded(2).await;
    let used = registered(&server, &public()).await;
    tokens(&server, &used).await;
    let unused = registered(&server, &public()).await;
    for wait in [0, 3_598] {
        clock.advance(Duration::from_secs(wait));
        let reply = server.send(registering(&public())).await;
        assert_eq!((reply.status, reply.header("retry-after")), (503, "3600"));
        assert!(format!("{clients:?}").contains("clients: 2"));
    }
    // Who only begins has not been let in: everybody can begin.
    let query = format!(
        "response_type=code&client_id={}&redirect_uri={CALLBACK}&code_challenge={CHALLENGE}\
         &code_challenge_method=S256",
        text(&unused, "client_id")
    );
    drop(server.issuer().authorization_request(query.as_bytes()).await.unwrap().deny());
    clock.advance(Duration::from_secs(2));
    registered(&server, &public()).await;
    assert!(format!("{clients:?}").contains("clients: 2"));
    assert!(!is_kept(&clients, &unused).await && is_kept(&clients, &used).await);
}

#[tokio::test]
async fn those_that_nobody_let_in_make_room_and_the_first_of_them_first() {
    let (server, clients, clock) = crowded(4).await;
    let wait = |seconds| both_wait(&server, &clock, seconds);
    let mut all = Vec::new();
    for has_user in [true, false, true, false] {
        let client = registered(&server, &public()).await;
        if has_user {
            tokens(&server, &client).await;
        }
        all.push(client);
        wait(60);
    }
    wait(3_600);
    for gone in [1, 3] {
        registered(&server, &public()).await;
        for (index, client) in all.iter().enumerate() {
            let is_gone = index % 2 == 1 && index <= gone;
            assert_eq!(is_kept(&clients, client).await, !is_gone, "{index}");
        }
    }
    assert_eq!(server.send(registering(&public())).await.status, 503);
}

#[tokio::test]
async fn a_registration_whose_grants_have_all_ended_makes_room() {
    const DAY: Duration = Duration::from_secs(86_400);
    let (server, clients, clock) = crowded(2).await;
    let [first, second] =
        [registered(&server, &public()).await, registered(&server, &public()).await];
    for (client, wait) in [(&first, 10), (&second, 20), (&first, 89)] {
        tokens(&server, client).await;
        clock.advance(wait * DAY);
    }
    // The second one was let in 109 days ago, the first one 89 days ago.
    let third = registered(&server, &public()).await;
    assert!(is_kept(&clients, &first).await && !is_kept(&clients, &second).await);
    tokens(&server, &third).await;
    assert_eq!(server.send(registering(&public())).await.status, 503);
    clock.advance(DAY);
    registered(&server, &public()).await;
    assert!(!is_kept(&clients, &first).await && is_kept(&clients, &third).await);
}

#[tokio::test]
async fn one_that_nobody_let_in_goes_before_one_whose_grants_have_long_ended() {
    let (server, clients, clock) = crowded(2).await;
    let wait = |seconds| both_wait(&server, &clock, seconds);
    let used = registered(&server, &public()).await;
    tokens(&server, &used).await;
    wait(91 * 86_400);
    let unused = registered(&server, &public()).await;
    wait(3_600);
    for gone in [&unused, &used] {
        assert!(is_kept(&clients, gone).await);
        let next = registered(&server, &public()).await;
        assert!(!is_kept(&clients, gone).await);
        // It stays.
        clients.count_grant(&ClientId::new(text(&next, "client_id")).unwrap()).await.unwrap();
    }
}
