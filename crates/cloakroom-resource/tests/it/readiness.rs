use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use cloakroom_resource::{BearerLayer, Freshness, PhantomLayer};
use http::{Request, Response};
use tower::{Layer, Service, ServiceExt};

use crate::introspection::client;
use crate::support::{AUDIENCE, ISSUER, Key, Peer, manual_clock, respond};

/// A service whose readiness is its own: a clone of a ready one is not ready.
#[derive(Debug, Default)]
struct Exacting {
    ready: bool,
}

impl Clone for Exacting {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl<B> Service<Request<B>> for Exacting {
    type Response = Response<String>;
    type Error = Infallible;
    type Future = Ready<Result<Response<String>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<B>) -> Self::Future {
        assert!(std::mem::take(&mut self.ready), "called without being ready");
        ready(Ok(Response::new(String::new())))
    }
}

async fn call_often<S>(mut service: S, token: &str)
where
    S: Service<Request<()>, Response = Response<String>, Error = Infallible>,
{
    for _ in 0..3 {
        let request = Request::get("/").header("authorization", format!("Bearer {token}"));
        let response =
            service.ready().await.unwrap().call(request.body(()).unwrap()).await.unwrap();
        assert_eq!(response.status(), 200);
    }
}

#[tokio::test]
async fn the_service_that_was_ready_is_the_one_called() {
    let key = Key::new();
    let token = key.token().await;
    let verifier = key.verifier(&manual_clock());
    let remembering = BearerLayer::new(verifier.clone().cache(10));
    for bearer in [BearerLayer::new(verifier), remembering] {
        call_often(bearer.layer(Exacting::default()), &token).await;
    }

    let jwt = token.clone();
    let peer = Peer::start(move |_| respond(200, "application/jwt", &jwt)).await;
    let phantom = PhantomLayer::new(client(&peer), AUDIENCE);
    let day = Freshness::within(Duration::from_secs(86_400));
    let remembering = phantom.clone().clock(manual_clock()).cache(10).freshness(day).unwrap();
    for phantom in [phantom, remembering] {
        call_often(phantom.layer(Exacting::default()), "cr_at_x").await;
    }
    assert_eq!(peer.count(), 3 + 1, "what is remembered is not asked about");
}

/// A service that reserves a seat while it is ready.
#[derive(Debug, Default)]
struct Seated {
    seats: Arc<()>,
    own: Option<Arc<()>>,
}

impl Clone for Seated {
    fn clone(&self) -> Self {
        Self { seats: Arc::clone(&self.seats), own: None }
    }
}

impl Service<Request<()>> for Seated {
    type Response = Response<String>;
    type Error = Infallible;
    type Future = Ready<Result<Response<String>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.own = Some(Arc::clone(&self.seats));
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<()>) -> Self::Future {
        self.own = None;
        ready(Ok(Response::new(String::new())))
    }
}

/// Asks twice with what is refused, the second time from memory.
async fn is_refused_without_a_seat<S>(mut service: S, seats: &Arc<()>)
where
    S: Service<Request<()>, Response = Response<String>, Error = Infallible>,
{
    let idle = Arc::strong_count(seats);
    for _ in 0..2 {
        let request = Request::get("/").header("authorization", "Bearer cr_at_junk");
        let service = service.ready().await.unwrap();
        assert_eq!(Arc::strong_count(seats), idle + 1);
        let response = service.call(request.body(()).unwrap()).await.unwrap();
        assert_eq!(response.status(), 401);
        assert_eq!(Arc::strong_count(seats), idle, "it is free for others");
    }
}

#[tokio::test]
async fn what_is_refused_gives_up_what_was_reserved() {
    let peer = Peer::start(|_| respond(204, "", "")).await;
    let day = Freshness::within(Duration::from_secs(86_400));
    let phantom = PhantomLayer::new(client(&peer), AUDIENCE).cache(10).freshness(day).unwrap();
    let inner = Seated::default();
    let seats = Arc::clone(&inner.seats);
    is_refused_without_a_seat(phantom.layer(inner), &seats).await;
    assert_eq!(peer.count(), 1, "once from memory");

    let peer = Peer::start(|_| respond(200, "application/json", r#"{"active":false}"#)).await;
    let bearer = BearerLayer::introspecting(client(&peer), ISSUER, AUDIENCE).cache(10);
    let inner = Seated::default();
    let seats = Arc::clone(&inner.seats);
    is_refused_without_a_seat(bearer.freshness(day).unwrap().layer(inner), &seats).await;
    assert_eq!(peer.count(), 1, "once from memory");
}
