//! The least that an axum handler can do: read the request, and answer with prepared bytes.

use std::sync::Arc;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Form, Router};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde::Deserialize;

use super::Prepared;
use crate::Failure;

pub(super) fn prepare(body: &str, tokens: usize) -> Prepared {
    let body: Arc<str> = body.into();
    let router = Router::new()
        .route("/introspect", post(answer))
        .route("/token", post(answer))
        .with_state(body);
    // As long as those of ours.
    let tokens = (0..tokens).map(|token| format!("cr_at_{token:067}")).collect();
    Prepared { router, tokens }
}

pub(super) fn prepare_signing(body: &str) -> Result<Prepared, Failure> {
    let router =
        Router::new().route("/token", post(answer_signed)).with_state(Arc::new(Jwt::of(body)?));
    Ok(Prepared { router, tokens: Vec::new() })
}

/// The parameters that the requests have.
#[derive(Deserialize)]
struct Parameters {
    token: Option<String>,
    grant_type: Option<String>,
    scope: Option<String>,
}

impl Parameters {
    fn are_known(&self) -> bool {
        self.token.is_some() || self.grant_type.is_some() && self.scope.is_some()
    }
}

async fn answer(
    State(body): State<Arc<str>>,
    headers: HeaderMap,
    Form(parameters): Form<Parameters>,
) -> Response {
    if !(parameters.are_known() && has_credentials(&headers)) {
        return StatusCode::BAD_REQUEST.into_response();
    }
    json(body.to_string())
}

async fn answer_signed(
    State(jwt): State<Arc<Jwt>>,
    headers: HeaderMap,
    Form(parameters): Form<Parameters>,
) -> Response {
    if !(parameters.are_known() && has_credentials(&headers)) {
        return StatusCode::BAD_REQUEST.into_response();
    }
    match jwt.sign() {
        Some(body) => json(body),
        None => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// With the headers that RFC 6749 §5.1 asks for.
fn json(body: String) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "application/json"),
        (header::CACHE_CONTROL, "no-store"),
        (header::PRAGMA, "no-cache"),
    ];
    (headers, body).into_response()
}

fn has_credentials(headers: &HeaderMap) -> bool {
    headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("Basic "))
        .and_then(|value| STANDARD.decode(value).ok())
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .is_some_and(|credentials| credentials.contains(':'))
}

/// An answer with a JWT, in its pieces.
struct Jwt {
    key: EcdsaKeyPair,
    random: SystemRandom,
    before: String,
    /// Header and claims, as they are signed.
    input: String,
    after: String,
}

impl Jwt {
    fn of(body: &str) -> Result<Self, Failure> {
        const MEMBER: &str = "\"access_token\":\"";
        let start = body.find(MEMBER).ok_or("the body has no JWT")? + MEMBER.len();
        let (before, rest) = body.split_at(start);
        let (jwt, after) = rest.split_at(rest.find('"').ok_or("the body has no JWT")?);
        let (input, _) = jwt.rsplit_once('.').ok_or("the body has no JWT")?;
        Ok(Self {
            key: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING)?,
            random: SystemRandom::new(),
            before: before.to_owned(),
            input: input.to_owned(),
            after: after.to_owned(),
        })
    }

    fn sign(&self) -> Option<String> {
        let signature = self.key.sign(&self.random, self.input.as_bytes()).ok()?;
        let signature = URL_SAFE_NO_PAD.encode(signature);
        Some([&*self.before, &*self.input, ".", &*signature, &*self.after].concat())
    }
}
