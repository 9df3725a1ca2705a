use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use cloakroom_resource::{
    ClientCredentials, HttpClient, HttpError, HttpTimeouts, IntrospectionClient, Introspector,
    MAX_BODY_BYTES, ReqwestClient, TokenSecret, async_trait,
};
use http::{Request, Response};
use http_body::Frame;

use crate::support::{Peer, chain, respond, serve, with_header};

fn get(url: &str) -> Request<Bytes> {
    Request::get(url).body(Bytes::new()).unwrap()
}

#[tokio::test]
async fn a_body_is_read_up_to_the_bound() {
    let client = ReqwestClient::new().unwrap();
    let full = "x".repeat(MAX_BODY_BYTES);
    let peer = Peer::start(move |request| {
        let more = if request.path == "/more" { "x" } else { "" };
        respond(200, "text/plain", &format!("{full}{more}"))
    })
    .await;
    let response = client.send(get(&format!("{}/full", peer.url))).await.unwrap();
    assert_eq!(response.body().len(), MAX_BODY_BYTES);
    let error = client.send(get(&format!("{}/more", peer.url))).await.unwrap_err();
    assert!(matches!(error, HttpError::TooLarge), "{error}");
}

/// Returns a body of so many bytes, and does not care whether that is too many.
#[derive(Debug)]
struct Careless(usize);

#[async_trait]
impl HttpClient for Careless {
    async fn send(&self, _: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let mut body = r#"{"active":false}"#.to_owned();
        body.extend(std::iter::repeat_n(' ', self.0 - body.len()));
        let response = Response::builder().header("content-type", "application/json");
        Ok(response.body(body.into()).unwrap())
    }
}

#[tokio::test]
async fn the_bound_of_a_body_does_not_rely_on_the_client() {
    let ask = async |bytes: usize| {
        let credentials = ClientCredentials::new("api", "secret");
        let endpoint = "https://as.example/introspect";
        let client = IntrospectionClient::new(endpoint, credentials, Careless(bytes)).unwrap();
        client.introspect(&TokenSecret::new("cr_at_x")).await
    };
    assert!(!ask(MAX_BODY_BYTES).await.unwrap().is_active());
    for more in [1, 2] {
        let error = chain(&ask(MAX_BODY_BYTES + more).await.unwrap_err());
        assert!(error.contains("has more than 262144 bytes"), "{error}");
    }
}

/// Goes on for ever, without a length.
struct Endless(Arc<AtomicUsize>);

impl http_body::Body for Endless {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let chunk = Bytes::from_static(&[b'x'; 16 * 1024]);
        self.0.fetch_add(chunk.len(), Ordering::SeqCst);
        Poll::Ready(Some(Ok(Frame::data(chunk))))
    }
}

#[tokio::test]
async fn an_endless_body_is_given_up() {
    let sent = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&sent);
    let app = Router::new().fallback(move || async move { Body::new(Endless(counter)) });
    let (url, server) = serve(app).await;
    let error = ReqwestClient::new().unwrap().send(get(&url)).await.unwrap_err();
    assert!(matches!(error, HttpError::TooLarge), "{error}");
    server.abort();
    assert!(sent.load(Ordering::SeqCst) > MAX_BODY_BYTES);
}

#[tokio::test]
async fn redirects_are_handed_back() {
    let peer =
        Peer::start(|_| with_header(respond(307, "text/plain", ""), "location", "/elsewhere"))
            .await;
    let request = Request::post(&peer.url)
        .header("authorization", "Basic c2VjcmV0")
        .body(Bytes::from("token=secret"))
        .unwrap();
    let response = ReqwestClient::new().unwrap().send(request).await.unwrap();
    assert_eq!(response.status(), 307);
    assert_eq!(peer.count(), 1);
}

#[tokio::test]
async fn a_server_that_never_answers_is_given_up() {
    let peer = Peer::start(|_| respond(200, "text/plain", "late")).await;
    peer.close();
    let time_out = Duration::from_millis(20);
    let client =
        ReqwestClient::with_timeouts(HttpTimeouts::default().connect(time_out).total(time_out))
            .unwrap();
    let error = client.send(get(&peer.url)).await.unwrap_err();
    assert!(matches!(error, HttpError::Failed(_)), "{error}");
}
