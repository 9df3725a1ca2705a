//! Client secrets: registered, and presented.

use std::sync::Arc;

use bytes::Bytes;
use cloakroom::http::{ClientAuthenticator, Form, SecretAuthenticator};
use cloakroom::{Client, SecretHash, StaticClients};
use http::header::AUTHORIZATION;
use http::{HeaderMap, Request};

use crate::requests::{basic, encoded};
use crate::secrets::{assert_wiped, in_a_task};

/// Each character that a form or a header spells differently.
const SECRET: &str = "c2VjcmV0+/c2Vjc:mV0&x=%3D Ümlaut-0123456789";

#[test]
fn a_registered_secret_is_wiped() {
    assert_wiped(|secrets| {
        secrets.add("a client secret", SECRET);
        let client = Client::confidential("app", SECRET);
        assert!(client.clone().build().expect("it is long enough").has_secret(SECRET));
        assert!(Client::confidential("app", "short").build().is_err());
        let hash = SecretHash::of(SECRET).expect("it is long enough");
        let both = client.secret(SECRET).secret_hash(hash).build().expect("a client");
        let directory = StaticClients::new([both.clone(), both]);
        assert!(directory.is_err(), "one client, twice");
    });
}

#[test]
fn a_secret_in_a_form_is_wiped() {
    assert_wiped(|secrets| {
        secrets.add("a client secret", SECRET);
        let body = encoded(&[("client_id", "app"), ("client_secret", SECRET), ("scope", "a")]);
        secrets.add("a client secret as a form spells it", &body[28..70]);
        let form = Form::parse(&body).expect("a form");
        assert_eq!(form.get("client_secret"), Some(SECRET));
        authenticate(HeaderMap::new(), form);
    });
}

#[test]
fn a_secret_in_a_header_is_wiped() {
    assert_wiped(|secrets| {
        secrets.add("a client secret", SECRET);
        let header = basic("app", SECRET);
        secrets.add("a client secret as a header spells it", &header.as_bytes()[20..]);
        let headers = HeaderMap::from_iter([(AUTHORIZATION, header)]);
        authenticate(headers, Form::parse(b"").expect("a form"));
    });
}

#[test]
fn what_is_refused_is_wiped_as_well() {
    assert_wiped(|secrets| {
        secrets.add("a client secret", SECRET);
        let mut body = encoded(&[("client_secret", SECRET), ("client_secret", SECRET)]);
        assert!(Form::parse(&body).is_err(), "repeated");
        let end = body.len() - 2;
        body.truncate(end);
        body.extend_from_slice(b"%ff");
        assert!(Form::parse(&body).is_err(), "no UTF-8");
    });
}

fn authenticate(headers: HeaderMap, form: Form) {
    let known = Client::confidential("app", SECRET).build().expect("it is long enough");
    let other =
        Client::confidential("other", "another secret, as long").build().expect("it is long");
    let directory = Arc::new(StaticClients::new([known, other]).expect("two clients"));
    let mut request = Request::new(Bytes::new());
    *request.headers_mut() = headers;
    in_a_task(async move {
        let client = SecretAuthenticator.authenticate(&request, &form, &*directory).await;
        assert_eq!(client.expect("it is the one").id().as_str(), "app");
    });
}
