//! The steps that send many requests, and what they measure.

use std::time::{Duration, Instant};

use cloakroom::core::time::Clock as _;
use cloakroom::jwt::KeyManagerError;
use cloakroom::{Grant, TokenError};
use reqwest::RequestBuilder;
use serde_json::Value;
use tokio::sync::mpsc::{self, UnboundedSender};
use tokio::task::JoinSet;

use crate::exchange::{LET_IN, REFUSED, Tokens, ensure, short};
use crate::{Demo, Outcome, WEB_APP};

impl Demo {
    pub(crate) async fn rotate_under_load(&self, tokens: &Tokens) -> Outcome<()> {
        note!("Four clients send one request after another through the gateway.");
        let (report, mut signed_by) = mpsc::unbounded_channel();
        let mut clients = JoinSet::new();
        for _ in 0..4 {
            let request = self.orders_at(&self.gateway, &tokens.access_token);
            clients.spawn(request_on_and_on(request, report.clone()));
        }
        let mut next = async || signed_by.recv().await.ok_or("the clients have stopped")?;

        let old = next().await?;
        for _ in 0..50 {
            ensure(next().await? == old, "one key signs before the rotation")?;
        }
        let before = self.published_keys().await?;
        self.rotate().await?;
        let (mut by_old, mut by_new, mut new) = (51, 0, String::new());
        while by_new < 50 {
            match next().await? {
                kid if kid == old => by_old += 1,
                kid => (by_new, new) = (by_new + 1, kid),
            }
            ensure(by_old < 10_000, "the next key takes over")?;
        }
        let after = self.published_keys().await?;
        signed_by.close();
        clients.join_all().await;

        let (old, new) = (short(&old), short(&new));
        note!("The key {old} signed {by_old} of the JWTs, then {new} signed {by_new}.");
        note!("JWK Set before: {}", before.join("  "));
        note!("JWK Set after:  {}", after.join("  "));
        note!(
            "A key is published before it signs, until its last token has expired: no request failed."
        );
        ensure(before.contains(&new), "a key is published before it signs")?;
        ensure(after.contains(&old), "the old key stays published")
    }

    async fn rotate(&self) -> Outcome<()> {
        match self.issuer.rotate_keys().await {
            // The store was used before, and the last run rotated the key moments ago.
            Err(TokenError::Keys(KeyManagerError::SuccessorNotKnown { ready_at })) => {
                self.clock.skip(ready_at.since(self.clock.now()) + Duration::from_millis(1));
                self.issuer.rotate_keys().await?;
            }
            other => drop(other?),
        }
        Ok(())
    }

    /// How long the gateways' clients wait, and how often the authorization server is asked.
    pub(crate) async fn compare_the_gateways(&self, tokens: &Tokens) -> Outcome<()> {
        let (asked, median) = self.many_requests(&self.gateway, tokens).await?;
        note!("gateway, without cache:  median {median:>7.0?}, calls of the store: {asked}");
        ensure(asked == 500, "the gateway asks at every request")?;
        let (asked, median) = self.many_requests(&self.edge, tokens).await?;
        note!("edge, with a cache:      median {median:>7.0?}, calls of the store: {asked}");
        ensure(asked == 1, "the edge asks once")
    }

    async fn many_requests(&self, gateway: &str, tokens: &Tokens) -> Outcome<(u64, Duration)> {
        let before = self.store.calls();
        let mut times = Vec::new();
        for _ in 0..500 {
            let began = Instant::now();
            self.orders_at(gateway, &tokens.access_token)
                .send()
                .await?
                .error_for_status()?
                .bytes()
                .await?;
            times.push(began.elapsed());
        }
        times.sort();
        Ok((self.store.calls() - before, times[times.len() / 2]))
    }

    /// The time from the answer of the authorization server, which acknowledges a revocation, to the
    /// first request that the edge refuses.
    pub(crate) async fn revoke_what_is_remembered(&self) -> Outcome<()> {
        let (mut times, mut let_in) = (Vec::new(), 0);
        for _ in 0..20 {
            let grant = Grant::user(WEB_APP[0], "bob")?.scope("orders:read")?;
            let token = self.issuer.issue(grant).await?.access_token;
            let token = token.expose();
            let answer = self.orders_at(&self.edge, token).send().await?;
            ensure(answer.status() == LET_IN, "the edge lets the token in")?;
            let revocation = self.post("/revoke", WEB_APP);
            let revocation = revocation.form(&[("token", token)]);
            revocation.send().await?.error_for_status()?;
            let (more, took) = self.until_refused_at_the_edge(token).await?;
            let_in += more;
            times.push(took);
        }
        times.sort();
        let [least, median, most] = [times[0], times[times.len() / 2], times[times.len() - 1]];
        note!(
            "20 tokens, each used at the edge, then revoked with POST /revoke. Time from that answer"
        );
        note!("to the refusal at the edge: from {least:.1?} to {most:.1?}, median {median:.1?}.");
        note!("Requests that passed in between: {let_in}.");
        Ok(())
    }

    /// How many requests passed before one was refused, and how long that took.
    pub(crate) async fn until_refused_at_the_edge(&self, token: &str) -> Outcome<(u32, Duration)> {
        let (began, mut let_in) = (Instant::now(), 0);
        loop {
            let status = self.orders_at(&self.edge, token).send().await?.status();
            if status == REFUSED {
                return Ok((let_in, began.elapsed()));
            }
            ensure(status == LET_IN, "the edge lets in or refuses")?;
            ensure(began.elapsed() < Duration::from_secs(10), "the edge keeps its promise")?;
            let_in += 1;
        }
    }
}

/// Sends a request again and again, and reports which key signed the JWT that arrived.
async fn request_on_and_on(request: RequestBuilder, report: UnboundedSender<Outcome<String>>) {
    let once = async || -> Outcome<String> {
        let again = request.try_clone().ok_or("it cannot be sent twice")?;
        let response = again.send().await?.error_for_status()?;
        let seen: Value = serde_json::from_str(&response.text().await?)?;
        let kid = seen["header"]["kid"].as_str().ok_or("the JWT has no kid")?;
        Ok(kid.to_owned())
    };
    while report.send(once().await).is_ok() {}
}
