//! An API, three times: with a layer of cloakroom, with `jsonwebtoken`, and open to everyone.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::{self, HeaderValue};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use cloakroom::jwt::{Algorithm, JwkSet};
use cloakroom::memory::MemoryStore;
use cloakroom::resource::{BearerLayer, RevocationReplica, StoreLog, Verifier};
use cloakroom::{Client, Format, Grant, Issuer};
use jsonwebtoken::{DecodingKey, Validation, decode};
use serde::Deserialize;

use super::{Kind, Prepared};
use crate::Failure;
use crate::case::{APP, ORDERS, RESOURCE, SCOPE};

/// All of them give the same answer, to the same kind of JWTs.
pub(super) async fn prepare(kind: Kind, tokens: usize) -> Result<Prepared, Failure> {
    let store = Arc::new(MemoryStore::new());
    let issuer = Issuer::dev()
        .store(Arc::clone(&store))
        .algorithm(Algorithm::Rs256)
        .static_clients([Client::public(APP).scope(SCOPE).audience(RESOURCE, Format::Jwt)])?
        .build()
        .await?;
    let mut issued = Vec::with_capacity(tokens);
    for user in 0..tokens {
        let grant = Grant::user(APP, format!("user-{user}"))?.scope(SCOPE)?;
        issued.push(issuer.issue(grant).await?.access_token.expose().to_owned());
    }
    let keys = issuer.jwks().await?;
    let router = orders();
    let router = match kind {
        Kind::Ours => {
            let maintained = issuer.clone();
            tokio::spawn(async move { maintained.run_maintenance().await });
            let replica = RevocationReplica::follow(StoreLog::new(store)).await?;
            let keys = JwkSet::from_json(keys.json.as_bytes())?;
            let verifier = Verifier::with_keys(issuer.url(), RESOURCE, &keys);
            let verifier = verifier.cache(100_000).replica(replica);
            router.route_layer(BearerLayer::new(verifier).require_scope(SCOPE)?)
        }
        Kind::JsonWebToken => {
            let check = Arc::new(Check::new(issuer.url(), &keys.json)?);
            router.route_layer(from_fn_with_state(check, by_jsonwebtoken))
        }
        _ => router,
    };
    Ok(Prepared { router, tokens: issued })
}

/// The API itself.
pub(super) fn orders() -> Router {
    let json = HeaderValue::from_static("application/json");
    Router::new().route("/orders", get(async move || ([(header::CONTENT_TYPE, json)], ORDERS)))
}

struct Check {
    key: DecodingKey,
    validation: Validation,
}

/// What a handler would want of a token.
#[derive(Debug, Clone, Deserialize)]
#[expect(dead_code, reason = "the handler reads no token")]
struct Claims {
    sub: String,
    client_id: String,
    scope: String,
}

impl Check {
    fn new(issuer: &str, keys: &str) -> Result<Self, Failure> {
        let keys: jsonwebtoken::jwk::JwkSet = serde_json::from_str(keys)?;
        let key = DecodingKey::from_jwk(keys.keys.first().ok_or("no key is published")?)?;
        let mut validation = Validation::new(jsonwebtoken::Algorithm::RS256);
        validation.set_audience(&[RESOURCE]);
        validation.set_issuer(&[issuer]);
        Ok(Self { key, validation })
    }

    fn claims(&self, headers: &HeaderMap) -> Option<Claims> {
        let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
        let token = value.strip_prefix("Bearer ")?;
        decode(token, &self.key, &self.validation).ok().map(|token| token.claims)
    }
}

/// As the documentation of the crate has it, in a middleware.
async fn by_jsonwebtoken(
    State(check): State<Arc<Check>>,
    mut request: Request,
    next: Next,
) -> Response {
    match check.claims(request.headers()) {
        Some(claims) if claims.scope.split(' ').any(|value| value == SCOPE) => {
            request.extensions_mut().insert(claims);
            next.run(request).await
        }
        Some(_) => StatusCode::FORBIDDEN.into_response(),
        None => StatusCode::UNAUTHORIZED.into_response(),
    }
}
