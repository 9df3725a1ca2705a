//! Authenticators of the app: each endpoint asks them, and shows them the whole request.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use cloakroom::core::ClientId;
use cloakroom::http::{ClientAuthenticator, Form, SecretAuthenticator};
use cloakroom::{
    AuthenticationFailure, Client, ClientDirectory, Event, Format, GrantType, Role, Serves,
    TokenError,
};
use http::{Method, Request};
use tower::ServiceExt as _;

use super::request::{Reply, With as _, get, post};
use super::server::{ORDERS, SECRET, Server};
use crate::engine::support::Recorder;

/// What the app's TLS listener found out.
#[derive(Debug, Clone)]
struct Certificate(&'static str);

/// By certificate, by assertion (here the name of the client, "signed"), or else by secret.
#[derive(Debug)]
struct AppAuthenticator;

#[async_trait]
impl ClientAuthenticator for AppAuthenticator {
    async fn authenticate(
        &self,
        request: &Request<Bytes>,
        form: &Form,
        clients: &dyn ClientDirectory,
    ) -> Result<Arc<Client>, TokenError> {
        let wrong = AuthenticationFailure::WrongCredentials;
        let id = match (request.extensions().get(), form.get("client_assertion")) {
            (Some(Certificate(name)), None) => {
                let id = form.get("client_id").ok_or(AuthenticationFailure::Malformed)?;
                Some(id).filter(|id| id == name).ok_or(wrong)?
            }
            (None, Some(assertion)) => assertion.strip_prefix("signed:").ok_or(wrong)?,
            (None, None) => {
                return SecretAuthenticator.authenticate(request, form, clients).await;
            }
            _ => return Err(TokenError::InvalidRequest("the client authenticates twice")),
        };
        let id = ClientId::new(id).map_err(|_| AuthenticationFailure::UnknownClient)?;
        clients.client(&id).await?.ok_or(AuthenticationFailure::UnknownClient.into())
    }

    fn methods(&self) -> Vec<&'static str> {
        vec!["tls_client_auth", "private_key_jwt", "client_secret_basic"]
    }
}

async fn server() -> (Server, Arc<Recorder>) {
    let edge = Client::authenticated_by_app("edge")
        .grant_types([GrantType::ClientCredentials])
        .audience(ORDERS, Format::Opaque)
        .role(Role::Introspect)
        .serves(Serves::Everything)
        .role(Role::RevocationLog)
        .role(Role::HandleKeys);
    let by_secret = Client::confidential("follower", SECRET).role(Role::RevocationLog);
    let recorder = Arc::new(Recorder::default());
    let events = recorder.clone();
    let server =
        Server::with(|issuer| issuer.static_clients([edge, by_secret]).unwrap().events(events));
    let server = server.await.mounted(|e| e.authenticator(Arc::new(AppAuthenticator)));
    (server, recorder)
}

const ENDPOINTS: [(&str, &[(&str, &str)]); 5] = [
    ("/token", &[("grant_type", "client_credentials")]),
    ("/introspect", &[("token", "x")]),
    ("/revoke", &[("token", "x")]),
    ("/revocations", &[("limit", "5")]),
    ("/handle-keys", &[]),
];

trait Certified {
    fn certified(self, name: &'static str) -> Self;
}

impl Certified for Request<Bytes> {
    fn certified(mut self, name: &'static str) -> Self {
        self.extensions_mut().insert(Certificate(name));
        self
    }
}

#[tokio::test]
async fn each_endpoint_takes_certificates_and_assertions() {
    let (server, _) = server().await;
    // An app's middleware sets the extensions before the router.
    let router = server.endpoints.clone().router();
    let mut requests = Vec::new();
    for (path, form) in ENDPOINTS {
        let with = |more: &[(&str, &str)]| post(path, &[form, more].concat());
        requests.push((path, with(&[("client_id", "edge")]).certified("edge")));
        requests.push((path, with(&[("client_assertion", "signed:edge")])));
    }
    for path in ["/revocations?limit=5&client_id=edge", "/handle-keys?client_id=edge"] {
        requests.push((path, get(path).certified("edge")));
    }
    for (path, request) in requests {
        let through = router.clone().oneshot(request.clone().map(axum::body::Body::from)).await;
        assert_eq!(through.unwrap().status(), 200, "{path}");
        assert_eq!(server.send(request).await.status, 200, "{path}");
    }
}

#[tokio::test]
async fn each_endpoint_refuses_wrong_ones() {
    let (server, _) = server().await;
    for (path, form) in ENDPOINTS {
        let with = |more: &[(&str, &str)]| post(path, &[form, more].concat());
        for wrong in [
            with(&[("client_id", "edge")]).certified("other"),
            with(&[]).certified("edge"),
            with(&[("client_id", "edge")]),
            with(&[("client_assertion", "edge")]),
            with(&[("client_assertion", "signed:nobody")]),
        ] {
            server.send(wrong).await.refused(401, "invalid_client");
        }
        let twice = with(&[("client_id", "edge"), ("client_assertion", "signed:edge")]);
        server.send(twice.certified("edge")).await.refused(400, "invalid_request");
    }
    for path in ["/revocations", "/handle-keys"] {
        let at = |query: &str| get(&format!("{path}?{query}"));
        for wrong in [
            at("client_id=edge").certified("other"),
            at("client_id=edge"),
            at("").certified("edge"),
            at("client_id=edge&client_id=edge").certified("edge"),
            // URLs are logged: no credential in one is read.
            at("client_assertion=signed:edge"),
            at(&format!("client_id=follower&client_secret={SECRET}")),
        ] {
            server.send(wrong).await.refused(401, "invalid_client");
        }
    }
}

#[tokio::test]
async fn the_event_names_whom_a_get_claims_to_come_from() {
    let (server, recorder) = server().await;
    let wrong = get("/revocations?client_id=edge").certified("other");
    server.send(wrong).await.refused(401, "invalid_client");
    let events = recorder.refused();
    let [Event::AuthenticationFailed { claimed, client, .. }] = &events[..] else {
        panic!("{events:?}")
    };
    assert_eq!(claimed.as_deref(), Some("edge"));
    assert_eq!(client.as_ref().map(AsRef::as_ref), Some("edge"));
}

#[tokio::test]
async fn the_event_names_the_method_that_was_tried() {
    for (form, tried) in [
        (&[("client_assertion", "signed:nobody")][..], "other"),
        (&[("client_id", "follower"), ("client_secret", "wrong")], "client_secret_post"),
        (&[("client_id", "follower")], "none"),
    ] {
        let (server, recorder) = server().await;
        server.send(post("/handle-keys", form)).await.refused(401, "invalid_client");
        let events = recorder.refused();
        let [Event::AuthenticationFailed { method, .. }] = &events[..] else {
            panic!("{events:?}")
        };
        assert_eq!(*method, tried);
    }
}

#[tokio::test]
async fn the_log_and_the_keys_may_be_asked_for_with_a_form() {
    let (server, _) = server().await;
    let credentials = [("client_id", "follower"), ("client_secret", SECRET)];
    let form = |more: &[(&str, &str)]| post("/revocations", &[&credentials, more].concat());
    server.send(form(&[])).await.page();
    server.send(form(&[("after", ""), ("wait", "0"), ("limit", "7")])).await.page();
    server.send(post("/revocations", &[]).basic("follower", SECRET)).await.page();
    for bad in [("after", "j.nk"), ("wait", "-1"), ("limit", "0")] {
        server.send(form(&[bad])).await.refused(400, "invalid_request");
    }
    server.send(form(&[("limit", "1"), ("limit", "1")])).await.refused(400, "invalid_request");
    let json = Request::post("/revocations").body(Bytes::from_static(b"{}")).unwrap();
    let json = json.with("content-type", "application/json").basic("follower", SECRET);
    server.send(json).await.refused(400, "invalid_request");
    // The parameters of a form stand in its body alone, and those of a GET in its URL.
    let mut elsewhere = form(&[]);
    *elsewhere.uri_mut() = "/revocations?limit=0".parse().unwrap();
    server.send(elsewhere).await.page();
    let mut bodily = form(&[("limit", "0")]).basic("follower", SECRET);
    *bodily.method_mut() = Method::GET;
    server.send(bodily).await.page();
    // The role is needed all the same.
    let reply: Reply = server.send(post("/handle-keys", &credentials)).await;
    reply.refused(403, "unauthorized_client");
}
