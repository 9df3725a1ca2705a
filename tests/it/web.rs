//! Servers and clients on sockets of this machine.

use std::net::SocketAddr;

use axum::Router;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{Builder, Client};
use hyper_util::rt::TokioExecutor;
use tokio::net::TcpListener;
use tokio::task::AbortHandle;

/// Says for the oracle which token a request presents. Nobody else looks at it.
pub(crate) const TOKEN: &str = "x-token";

/// A server, for as long as this lives.
#[derive(Debug)]
pub(crate) struct Served {
    pub(crate) address: SocketAddr,
    task: AbortHandle,
}

impl Served {
    pub(crate) async fn new(app: Router) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { address, task: task.abort_handle() }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/", self.address)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A client. Clones share its connections.
#[derive(Debug, Clone)]
pub(crate) struct Web(Client<HttpConnector, Full<Bytes>>);

impl Web {
    pub(crate) fn new() -> Self {
        Self::with(&mut Client::builder(TokioExecutor::new()))
    }

    /// One that sends many requests at a time over one connection.
    pub(crate) fn http2() -> Self {
        Self::with(Client::builder(TokioExecutor::new()).http2_only(true))
    }

    fn with(builder: &mut Builder) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        Self(builder.build(connector))
    }

    /// Presents a token, and tells the status of the answer; `None` if there is none.
    pub(crate) async fn get(
        &self,
        url: &str,
        credentials: &HeaderValue,
        token: u32,
    ) -> Option<u16> {
        let mut request = Request::get(url).body(Full::default()).unwrap();
        request.headers_mut().insert(AUTHORIZATION, credentials.clone());
        request.headers_mut().insert(TOKEN, HeaderValue::from(token));
        self.send(request).await.map(|(status, _)| status)
    }

    /// Posts a form as a client of the authorization server.
    pub(crate) async fn post(
        &self,
        url: &str,
        (client, secret): (&str, &str),
        form: &[(&str, &str)],
    ) -> Option<(u16, Bytes)> {
        let form = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
        let mut request = Request::new(Full::from(form));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = url.parse().unwrap();
        let basic = format!("Basic {}", STANDARD.encode(format!("{client}:{secret}")));
        let headers = request.headers_mut();
        headers.insert(AUTHORIZATION, basic.parse().unwrap());
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        self.send(request).await
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> Option<(u16, Bytes)> {
        let response = self.0.request(request).await.ok()?;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.ok()?.to_bytes();
        Some((status, body))
    }
}

/// `Authorization: Bearer …`
pub(crate) fn bearer(token: &str) -> HeaderValue {
    HeaderValue::try_from(format!("Bearer {token}")).unwrap()
}
