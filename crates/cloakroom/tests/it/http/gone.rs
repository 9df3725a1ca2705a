//! Clients that go away in the middle: their alarms stay.

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use cloakroom::core::TokenSecret;
use cloakroom::http::Endpoints;
use cloakroom::{Event, RefreshRequest};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::engine::store::When;
use crate::engine::support::{Fixture, HOUR, client_id, grant_of};

/// Says when it is dropped.
struct Gone(Arc<Semaphore>);

impl Drop for Gone {
    fn drop(&mut self) {
        self.0.add_permits(1);
    }
}

#[tokio::test]
async fn two_hundred_thieves_hang_up_and_every_grant_that_ends_is_reported() {
    const THIEVES: u32 = 200;
    let fixture = Fixture::new().await;
    let mut spent: Vec<TokenSecret> = Vec::new();
    for _ in 0..THIEVES {
        let token = fixture.sign_in("spa-app").await.refresh_token.unwrap();
        let request = RefreshRequest::new(token.clone(), client_id("spa-app"));
        fixture.issuer.refresh(request).await.unwrap();
        spent.push(token);
    }
    fixture.clock.advance(HOUR);
    fixture.events.take();

    let gone = Arc::new(Semaphore::new(0));
    let leaving = gone.clone();
    let app = Endpoints::new(fixture.issuer.clone()).router();
    let app = app.layer(from_fn(move |request: Request, next: Next| {
        let leaving = Gone(leaving.clone());
        async move {
            let _leaving = leaving;
            next.run(request).await
        }
    }));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move { axum::serve(listener, app).await });

    let gate = fixture.store.hold("revoke", When::After);
    let mut connections = Vec::new();
    for token in &spent {
        let form =
            format!("grant_type=refresh_token&client_id=spa-app&refresh_token={}", token.expose());
        let request = format!(
            "POST /token HTTP/1.1\r\nhost: as.example\r\n\
             content-type: application/x-www-form-urlencoded\r\ncontent-length: {}\r\n\r\n{form}",
            form.len()
        );
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        connections.push(stream);
    }
    // Every grant has ended, and nobody has been told yet.
    gate.holds(THIEVES).await;
    drop(connections);
    gone.acquire_many(THIEVES).await.unwrap().forget();
    assert!(fixture.events.take().is_empty(), "the store has not answered yet");
    gate.open();
    server.abort();
    while tokio::runtime::Handle::current().metrics().num_alive_tasks() > 0 {
        tokio::task::yield_now().await;
    }

    let mut reported = HashMap::new();
    for event in fixture.events.take() {
        let Event::ReuseDetected { grant, revoked: true, .. } = event else { panic!("{event:?}") };
        *reported.entry(grant).or_insert(0) += 1;
    }
    for token in &spent {
        let grant = grant_of(token);
        assert!(fixture.store.grant(grant).await.revoked_at.is_some());
        assert_eq!(reported.get(&grant), Some(&1), "one event for each grant");
    }
}
