//! The HTTP exchanges, printed as they happen.

use std::sync::Arc;
use std::time::Duration;

use axum::http::{StatusCode, header};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cloakroom::core::Random;
use cloakroom::http::Endpoints;
use cloakroom::{ApprovedRequest, Grant, Pkce};
use reqwest::RequestBuilder;
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::services::{Ahead, authorization_server, edge, gateway, listen, orders_service, serve};
use crate::store::Store;
use crate::{CALLBACK, Demo, ORDERS_API, Outcome, WEB_APP};

/// What an API answers.
pub(crate) const LET_IN: StatusCode = StatusCode::OK;
pub(crate) const REFUSED: StatusCode = StatusCode::UNAUTHORIZED;

type Answer = (StatusCode, String);

/// The token response of RFC 6749 §5.1, as a client sees it.
#[derive(Clone, Deserialize)]
pub(crate) struct Tokens {
    pub(crate) access_token: String,
    pub(crate) refresh_token: String,
}

impl Demo {
    pub(crate) async fn start(store: &Store) -> Outcome<Self> {
        let clock = Arc::new(Ahead::default());
        let (socket, url) = listen().await?;
        let (issuer, store) = authorization_server(&url, store, clock.clone()).await?;
        serve(socket, Endpoints::new(issuer.clone()).router());
        let (socket, orders) = listen().await?;
        serve(socket, orders_service(&url).await?);
        let (socket, gateway_url) = listen().await?;
        serve(socket, gateway(&url, &orders).await?);
        let (socket, edge_url) = listen().await?;
        serve(socket, edge(&url, &orders).await?);

        note!("authorization server (AS)  {url}");
        note!("API gateway                {gateway_url}");
        note!("edge, a second gateway     {edge_url}");
        note!("orders service             {orders}");
        let http = reqwest::Client::builder().no_proxy();
        let http = http.timeout(Duration::from_secs(30)).build()?;
        let (gateway, edge) = (gateway_url, edge_url);
        Ok(Self { issuer, store, clock, gateway, edge, orders, http, step: "" })
    }

    pub(crate) fn step(&mut self, title: &'static str) {
        println!("\n{title}\n");
        self.step = title;
    }

    /// The login page creates a code in process; the client redeems it over HTTP.
    pub(crate) async fn sign_in(&self, who: &str) -> Outcome<Tokens> {
        let verifier = URL_SAFE_NO_PAD.encode(Random::system().array::<32>()?);
        let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(&verifier));
        let grant = Grant::user(WEB_APP[0], "alice")?.claim("tenant", json!("acme"))?;
        let pkce = Some(Pkce::s256(challenge)?);
        let code = self.issuer.authorize(ApprovedRequest::new(grant, CALLBACK).pkce(pkce)).await?;
        let form = [
            ("grant_type", "authorization_code"),
            ("code", code.expose()),
            ("redirect_uri", CALLBACK),
            ("code_verifier", &verifier),
        ];
        let tokens = self.token_request(who, &form).await?;
        Ok(tokens.ok_or("the code is refused")?)
    }

    pub(crate) async fn refresh(&self, who: &str, tokens: &Tokens) -> Outcome<Option<Tokens>> {
        let token = &tokens.refresh_token;
        let form = [("grant_type", "refresh_token"), ("refresh_token", token)];
        self.token_request(who, &form).await
    }

    /// `None` if the code or the refresh token is refused.
    pub(crate) async fn token_request(
        &self,
        who: &str,
        form: &[(&str, &str)],
    ) -> Outcome<Option<Tokens>> {
        let said = format!("POST /token  {}={}", form[1].0, short(form[1].1));
        let request = self.post("/token", WEB_APP).form(form);
        match self.ask([who, "AS"], &said, request).await? {
            (StatusCode::OK, body) => Ok(Some(serde_json::from_str(&body)?)),
            (StatusCode::BAD_REQUEST, body) if body == r#"{"error":"invalid_grant"}"# => Ok(None),
            (status, body) => Err(format!("{status} {body} for {}", form[0].1).into()),
        }
    }

    pub(crate) async fn introspect(&self, tokens: &Tokens) -> Outcome<String> {
        let said = format!("POST /introspect  token={}", short(&tokens.access_token));
        let request = self.post("/introspect", ORDERS_API);
        let request = request.form(&[("token", &tokens.access_token)]);
        let (status, body) = self.ask(["orders", "AS"], &said, request).await?;
        ensure(status == StatusCode::OK, "introspection answers 200")?;
        Ok(body)
    }

    pub(crate) fn post(&self, path: &str, [id, secret]: [&str; 2]) -> RequestBuilder {
        let request = self.http.post(format!("{}{path}", self.issuer.url()));
        request.basic_auth(id, Some(secret))
    }

    pub(crate) fn orders_at(&self, base: &str, token: &str) -> RequestBuilder {
        let request = self.http.get(format!("{base}/orders"));
        request.bearer_auth(token)
    }

    pub(crate) async fn get(
        &self,
        who: &str,
        at: &str,
        tokens: &Tokens,
        expected: StatusCode,
    ) -> Outcome<()> {
        let base = match at {
            "orders" => &self.orders,
            "edge" => &self.edge,
            _ => &self.gateway,
        };
        let said = format!("GET /orders  Bearer {}", short(&tokens.access_token));
        let answer = self.ask([who, at], &said, self.orders_at(base, &tokens.access_token));
        let what = format!("the {at} answers {who} {expected}");
        ensure(answer.await?.0 == expected, &what)
    }

    /// Sends a request, prints the exchange, and returns the answer.
    pub(crate) async fn ask(
        &self,
        [who, at]: [&str; 2],
        said: &str,
        it: RequestBuilder,
    ) -> Outcome<Answer> {
        note!("{who:>7} -> {at:<7}  {said}");
        let response = it.send().await?;
        let status = response.status();
        let challenge = response.headers().get(header::WWW_AUTHENTICATE).cloned();
        let body = response.text().await?;
        let answer = match challenge {
            Some(challenge) => challenge.to_str()?.to_owned(),
            None => shown(&body),
        };
        note!("{at:>7} -> {who:<7}  {status}  {answer}");
        Ok((status, body))
    }

    /// The key ids of the JWK Set, shortened.
    pub(crate) async fn published_keys(&self) -> Outcome<Vec<String>> {
        let url = format!("{}/.well-known/jwks.json", self.issuer.url());
        let set: Value = serde_json::from_str(&self.http.get(url).send().await?.text().await?)?;
        let keys = set["keys"].as_array().ok_or("the JWK Set has no keys")?;
        let kids = keys.iter().filter_map(|key| key["kid"].as_str());
        Ok(kids.map(short).collect())
    }
}

pub(crate) fn ensure(holds: bool, what: &str) -> Outcome<()> {
    let missed = || format!("it does not hold that {what}").into();
    holds.then_some(()).ok_or_else(missed)
}

/// A JSON text with its tokens shortened.
pub(crate) fn shown(json: &str) -> String {
    let text = json.split('"').map(short).collect::<Vec<_>>().join("\"");
    match text.char_indices().nth(160) {
        Some((end, _)) => format!("{} …", &text[..end]),
        None => text,
    }
}

/// Enough of a token to recognize it, and too little to use it.
pub(crate) fn short(token: &str) -> String {
    match (token.get(..12), token.get(token.len().saturating_sub(4)..)) {
        (Some(start), Some(end)) if token.len() > 40 => format!("{start}…{end}"),
        _ => token.to_owned(),
    }
}
