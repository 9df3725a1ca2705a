//! What a gateway asks with, and what it is told.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::task::{Context, Poll};

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use cloakroom_resource::{
    ClientCredentials, HttpClient, HttpError, IntrospectionClient, Introspector, PhantomLayer,
    TokenSecret,
};
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use http::{Request, Response, StatusCode};
use tower_layer::Layer as _;
use tower_service::Service;
use zeroize::Zeroizing;

use crate::requests::basic;
use crate::secrets::{Secrets, assert_wiped, in_a_task};

const ENDPOINT: &str = "https://as.example/x";
const SECRET: &str = "gateway-client-secret/Zq8:71+x";
/// Spelled like a handle, with some characters that a form spells differently.
const TOKEN: &str = "cr_at_Xw93/kLpQz+Yb7Vd~Ht2MnRs5Jf8CgUa0EeIoWqZ";
const IN_A_FORM: &str = "cr_at_Xw93%2FkLpQz%2BYb7Vd%7EHt2MnRs5Jf8CgUa0EeIoWqZ";

/// Answers every request with one body, wiped with its last copy.
#[derive(Debug)]
struct Answering {
    body: fn() -> Zeroizing<String>,
    media_type: &'static str,
}

#[async_trait]
impl HttpClient for Answering {
    async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        assert!(request.headers().contains_key(AUTHORIZATION));
        let mut response = Response::new(Bytes::from_owner((self.body)()));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(self.media_type));
        Ok(response)
    }
}

fn jwt() -> Zeroizing<String> {
    let mut jwt = Zeroizing::new(String::with_capacity(1024));
    for part in [&br#"{"alg":"ES256","typ":"at+jwt"}"#[..], br#"{"exp":4000000000}"#, &[0xA7; 64]] {
        if !jwt.is_empty() {
            jwt.push('.');
        }
        URL_SAFE_NO_PAD.encode_string(part, &mut jwt);
    }
    jwt
}

fn add_credentials(secrets: &mut Secrets) {
    secrets.add("the client's secret", SECRET);
    let header = basic("gateway", SECRET);
    let value = header.as_bytes().strip_prefix(b"Basic ").expect("Basic");
    let plain = Zeroizing::new(STANDARD.decode(value).expect("base64"));
    secrets.add("the client's secret as a form spells it", &plain["gateway:".len()..]);
    // From a group of three bytes on that holds nothing of the name.
    secrets.add("the client's secret as a header spells it", &value[12..]);
}

fn credentials() -> ClientCredentials {
    let mut secret = String::with_capacity(SECRET.len());
    secret.push_str(SECRET);
    ClientCredentials::new("gateway", secret)
}

fn client() -> IntrospectionClient {
    let client = Answering { body: jwt, media_type: "application/jwt" };
    IntrospectionClient::new(ENDPOINT, credentials(), client).expect("it is a URL")
}

#[test]
fn what_is_asked_and_answered_is_wiped() {
    assert_wiped(|secrets| {
        add_credentials(secrets);
        secrets.add("the token", TOKEN);
        secrets.add("the token as a form spells it", IN_A_FORM);
        secrets.add_token("the JWT", &jwt());
        let client = client();
        in_a_task(async move {
            let swapped = client.swap(&TokenSecret::new(TOKEN), "https://orders.example").await;
            assert!(swapped.expect("it is a JWT").is_some());
            client.introspect(&TokenSecret::new(TOKEN)).await.expect_err("that is no JSON");
        });
    });
}

/// A form spells each character by three, so the buffer of the credentials has no room to spare: if it had to grow, what
/// it held would stay behind.
#[test]
fn credentials_that_a_form_spells_at_length_are_wiped() {
    const SPELLED: &str = "+/&=%:?#!$@+&/%=?:!#$@";
    assert_wiped(|secrets| {
        secrets.add("the client's secret", SPELLED);
        let header = basic("/", SPELLED);
        let value = header.as_bytes().strip_prefix(b"Basic ").expect("Basic");
        let plain = Zeroizing::new(STANDARD.decode(value).expect("base64"));
        secrets.add("the client's secret as a form spells it", &plain["%2F:".len()..]);
        let client = Answering { body: jwt, media_type: "application/jwt" };
        let mut secret = String::with_capacity(SPELLED.len());
        secret.push_str(SPELLED);
        let credentials = ClientCredentials::new("/", secret);
        let client = IntrospectionClient::new(ENDPOINT, credentials, client).expect("it is a URL");
        in_a_task(async move {
            client.introspect(&TokenSecret::new(TOKEN)).await.expect_err("that is no JSON");
        });
    });
}

#[test]
fn what_goes_through_a_gateway_is_wiped() {
    assert_wiped(|secrets| {
        add_credentials(secrets);
        secrets.add("the token", TOKEN);
        secrets.add("the token as a form spells it", IN_A_FORM);
        secrets.add_token("the JWT", &jwt());
        let layer = PhantomLayer::new(client(), "https://orders.example").cache(10);
        let mut service = layer.layer(Behind);
        in_a_task(async move {
            for _ in 0..2 {
                let mut bearer = Zeroizing::new(String::with_capacity(1024));
                bearer.push_str("Bearer ");
                bearer.push_str(TOKEN);
                let bearer = HeaderValue::from_maybe_shared(Bytes::from_owner(bearer));
                let mut request = Request::new(());
                request.headers_mut().insert(AUTHORIZATION, bearer.expect("visible characters"));
                let response = service.call(request).await.expect("it always answers");
                assert_eq!(response.status(), StatusCode::OK);
            }
        });
    });
}

/// The service behind the gateway.
#[derive(Clone)]
struct Behind;

impl Service<Request<()>> for Behind {
    type Response = Response<String>;
    type Error = Infallible;
    type Future = Ready<Result<Response<String>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<()>) -> Self::Future {
        let bearer = request.headers().get(AUTHORIZATION).expect("the gateway sets it");
        assert!(bearer.as_bytes().starts_with(b"Bearer eyJ"));
        ready(Ok(Response::new(String::new())))
    }
}
