use std::convert::Infallible;
use std::future::{Ready, ready};
use std::task::{Context, Poll};

use cloakroom_resource::{BearerLayer, PhantomLayer};
use http::{Request, Response};
use tower::{Layer, Service, ServiceExt};

use crate::introspection::client;
use crate::support::{AUDIENCE, Key, Peer, manual_clock, respond};

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

async fn call_twice<S>(mut service: S, token: &str)
where
    S: Service<Request<()>, Response = Response<String>, Error = Infallible>,
{
    for _ in 0..2 {
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
    let bearer = BearerLayer::new(key.verifier(&manual_clock()));
    call_twice(bearer.layer(Exacting::default()), &token).await;

    let jwt = token.clone();
    let peer = Peer::start(move |_| respond(200, "application/jwt", &jwt)).await;
    let phantom = PhantomLayer::new(client(&peer), AUDIENCE);
    call_twice(phantom.layer(Exacting::default()), "cr_at_x").await;
}
