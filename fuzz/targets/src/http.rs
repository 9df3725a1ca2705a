//! What comes over HTTP.

use std::convert::Infallible;
use std::sync::{LazyLock, Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use cloakroom::http::{Endpoints, Form};
use cloakroom::jwt::JwkSet;
use cloakroom::resource::{BearerLayer, Verifier};
use cloakroom::{Client, Issuer, Serves};
use http::{HeaderValue, Request, Response, StatusCode};
use tower::{Layer, ServiceExt, service_fn};
use url::form_urlencoded;

const SECRET: &str = "orders-api-demo-secret-0123456789";

/// A form is read or refused; a form that was read has no empty parameter.
pub(crate) fn form(input: &[u8]) {
    let Ok(form) = Form::parse(input) else { return };
    for name in ["token", "resource", "grant_type", "client_id", ""] {
        assert_ne!(form.get(name), Some(""));
    }
    if let Ok(resources) = form.resources() {
        assert!(resources.iter().all(|resource| !resource.contains('#')));
    }
}

pub(crate) fn form_seeds() -> Vec<Vec<u8>> {
    [
        "grant_type=refresh_token&refresh_token=cr_rt_x",
        "token=a%20b&resource=https://a&resource=b:c",
    ]
    .map(|form| form.as_bytes().to_vec())
    .to_vec()
}

struct Server {
    runtime: tokio::runtime::Runtime,
    endpoints: Endpoints,
}

static SERVER: LazyLock<Mutex<Server>> = LazyLock::new(|| {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let endpoints = runtime.block_on(async {
        let api = Client::resource_server("orders-api", SECRET, Serves::Everything);
        let issuer = Issuer::dev().static_clients([api]).expect("one client");
        Endpoints::new(issuer.build().await.expect("an issuer"))
    });
    Mutex::new(Server { runtime, endpoints })
});

/// An `Authorization` header authenticates only the client that has the secret.
pub(crate) fn authorization(input: &[u8]) {
    let Ok(header) = HeaderValue::from_bytes(input) else { return };
    let server = SERVER.lock().unwrap_or_else(PoisonError::into_inner);
    let request = Request::post("/introspect")
        .header("content-type", "application/x-www-form-urlencoded")
        .header("authorization", header.clone())
        .body(Bytes::from_static(b"token=x"))
        .expect("a request");
    let status = server.runtime.block_on(server.endpoints.handle(request)).status();
    if status == StatusCode::OK {
        // Identifier and secret are form-encoded, which has many spellings; compare them decoded.
        let text = String::from_utf8_lossy(input);
        let (_, credentials) = text.split_once(' ').expect("a scheme");
        let decoded = STANDARD.decode(credentials.trim_start()).expect("base64");
        let form = [b"v=", &*decoded].concat();
        let (_, value) = form_urlencoded::parse(&form).next().expect("credentials");
        assert_eq!(value, format!("orders-api:{SECRET}"));
    } else {
        assert!(matches!(status.as_u16(), 400 | 401), "{status}");
    }

    let request = Request::get("/").header("authorization", header).body(()).expect("a request");
    let verifier = Verifier::with_keys("https://as.example", "https://a", &JwkSet::new(vec![]));
    let api = BearerLayer::new(verifier)
        .layer(service_fn(|_: Request<()>| async { Ok::<_, Infallible>(Response::new(())) }));
    let Ok(answer) = server.runtime.block_on(api.oneshot(request));
    assert!(matches!(answer.status().as_u16(), 400 | 401), "{}", answer.status());
}

pub(crate) fn authorization_seeds() -> Vec<Vec<u8>> {
    let credentials = |text: String| STANDARD.encode(text);
    vec![
        format!("Basic {}", credentials(format!("orders-api:{SECRET}"))).into_bytes(),
        // The same, form-encoded.
        format!("Basic {}", credentials(format!("orders%2Dapi:{SECRET}"))).into_bytes(),
        b"Bearer cr_at_AQDT_F2gbIrPA3RGYb7_OXvAeij8sXRo5gwupA4pRc8n-TWJ3Y3N8kPOEKYz".to_vec(),
        b"Bearer eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJ4In0.AAAA".to_vec(),
    ]
}
