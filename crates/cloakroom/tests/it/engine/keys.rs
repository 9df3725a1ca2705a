//! Keys that clients prove: what they bind, and that no key hides a reuse.

use std::sync::{Arc, Mutex};

use cloakroom::core::record::*;
use cloakroom::core::time::*;
use cloakroom::core::*;
use cloakroom::{
    ApprovedRequest, Caller, Client, Grant, GrantRefusal, RefreshRequest, TokenError, TokenResponse,
};

use super::attacks::{app, changing, confidential};
use super::support::*;

const SPA: &str = "spa-app";
const OWNERS: Option<u8> = Some(1);
const THIEFS: Option<u8> = Some(2);

fn key(key: Option<u8>) -> Option<Confirmation> {
    key.map(|key| Confirmation::JwkThumbprint([key; 32]))
}

/// A refresh token of a client, with the proof of a key, or without.
fn request(client: &str, token: &TokenSecret, proved: Option<u8>) -> RefreshRequest {
    let confirmation = key(proved);
    RefreshRequest::new(token.clone(), client_id(client)).confirmation(confirmation)
}

impl Fixture {
    async fn refresh_as(
        &self,
        client: &str,
        token: &TokenSecret,
        proved: Option<u8>,
    ) -> Result<TokenResponse, TokenError> {
        self.issuer.refresh(request(client, token, proved)).await
    }

    /// The same, by the public client, to which it is granted.
    async fn next(&self, token: &TokenSecret, proved: Option<u8>) -> TokenSecret {
        let response = self.refresh_as(SPA, token, proved).await.unwrap();
        response.refresh_token.unwrap()
    }

    async fn refused(&self, token: &TokenSecret, proved: Option<u8>) -> GrantRefusal {
        refusal(self.refresh_as(SPA, token, proved).await)
    }

    /// The refresh token of a new session at the public client, bound or not.
    async fn public(&self, proved: Option<u8>) -> TokenSecret {
        let mut grant = Grant::user(SPA, "alice").unwrap();
        if let Some(key) = key(proved) {
            grant = grant.confirmation(key);
        }
        self.issuer.issue(grant).await.unwrap().refresh_token.unwrap()
    }

    /// A code of this client, for the holder of a key or for anybody.
    async fn code_of(&self, client: &str, proved: Option<u8>) -> TokenSecret {
        let mut grant = Grant::user(client, "alice").unwrap();
        if let Some(key) = key(proved) {
            grant = grant.confirmation(key);
        }
        self.issuer
            .authorize(ApprovedRequest::new(grant, CALLBACK).pkce(challenge()))
            .await
            .unwrap()
    }

    async fn redeem_as(
        &self,
        client: &str,
        code: &TokenSecret,
        proved: Option<u8>,
    ) -> Result<TokenResponse, TokenError> {
        self.issuer.redeem(redemption_by(client, code).confirmation(key(proved))).await
    }

    async fn key_of(&self, access: &TokenSecret) -> Option<Confirmation> {
        let answer = self.issuer.introspect(access, Caller::Internal).await.unwrap();
        answer.active().unwrap().confirmation.clone()
    }

    async fn is_alive(&self, token: &TokenSecret) -> bool {
        self.store.grant(grant_of(token)).await.is_live(self.clock.now())
    }

    /// This happens right before the next step of a chain.
    fn overtaken_by(&self, request: RefreshRequest) -> Arc<Mutex<Option<TokenResponse>>> {
        let won = Arc::new(Mutex::new(None));
        self.store.before_next("advance", {
            let (issuer, won) = (self.issuer.clone(), Arc::clone(&won));
            async move {
                let response = issuer.refresh(request).await.unwrap();
                *won.lock().unwrap() = Some(response);
            }
        });
        won
    }
}

#[tokio::test]
async fn a_key_that_a_public_client_proves_binds_its_refresh_tokens_from_then_on() {
    let fixture = Fixture::new().await;
    let by_code = fixture.code_of(SPA, None).await;
    let by_code = fixture.redeem_as(SPA, &by_code, OWNERS).await.unwrap();
    let by_refresh = fixture.public(None).await;
    let by_refresh = fixture.refresh_as(SPA, &by_refresh, OWNERS).await.unwrap();
    for response in [by_code, by_refresh] {
        assert_eq!(response.token_type, "DPoP");
        assert_eq!(fixture.key_of(&response.access_token).await, key(OWNERS));
        let token = response.refresh_token.unwrap();
        for other in [None, THIEFS] {
            assert_eq!(fixture.refused(&token, other).await, GrantRefusal::OtherKey);
        }
        let next = fixture.next(&token, OWNERS).await;
        assert_eq!(fixture.refused(&next, None).await, GrantRefusal::OtherKey);
        assert!(fixture.is_alive(&next).await);
    }
}

#[tokio::test]
async fn a_thief_with_a_key_of_his_own_is_noticed_whatever_the_owner_proves() {
    // In the window and after it; with the key of the thief's chain, nobody is a stranger.
    for (proved, wait) in [(None, 0), (OWNERS, 0), (None, 36), (OWNERS, 36), (THIEFS, 36)] {
        let fixture = Fixture::new().await;
        let owners = fixture.public(None).await;
        let thiefs = fixture.next(&owners, THIEFS).await;
        fixture.clock.advance(secs(wait));
        fixture.events.take();
        let refused = fixture.refused(&owners, proved).await;
        assert_eq!(refused, GrantRefusal::Reused, "{proved:?} after {wait} s");
        assert_eq!(fixture.events.names(), ["ReuseDetected"]);
        assert_eq!(fixture.refused(&thiefs, THIEFS).await, GrantRefusal::Dead);
    }
}

#[tokio::test]
async fn a_thief_who_goes_on_with_his_key_is_noticed_as_well() {
    for wait in [0, 36] {
        let fixture = Fixture::new().await;
        let owners = fixture.public(None).await;
        let mut thiefs = fixture.next(&owners, THIEFS).await;
        for _ in 0..3 {
            thiefs = fixture.next(&thiefs, THIEFS).await;
        }
        fixture.clock.advance(secs(wait));
        assert_eq!(fixture.refused(&owners, None).await, GrantRefusal::Reused);
        assert!(!fixture.is_alive(&thiefs).await);
    }
}

#[tokio::test]
async fn who_lacks_the_key_of_a_spent_token_ends_nothing_with_it() {
    for wait in [0, 36] {
        let fixture = Fixture::new().await;
        // Bound by a refresh: the first one was handed out for no proof.
        let unbound = fixture.public(None).await;
        let first = fixture.next(&unbound, OWNERS).await;
        let second = fixture.next(&first, OWNERS).await;
        let third = fixture.next(&second, OWNERS).await;
        fixture.clock.advance(secs(wait));
        fixture.events.take();
        for token in [&first, &second, &third] {
            for other in [None, THIEFS] {
                assert_eq!(fixture.refused(token, other).await, GrantRefusal::OtherKey);
            }
        }
        assert_eq!(fixture.events.names(), [""; 0]);
        assert!(fixture.is_alive(&third).await);
        // The one of before is nobody's alone.
        assert_eq!(fixture.refused(&unbound, THIEFS).await, GrantRefusal::Reused);
        assert!(!fixture.is_alive(&third).await);
    }
}

#[tokio::test]
async fn who_has_the_key_of_a_spent_token_is_judged_as_ever() {
    let fixture = Fixture::new().await;
    let first = fixture.public(OWNERS).await;
    let second = fixture.next(&first, OWNERS).await;
    assert_eq!(fixture.next(&first, OWNERS).await.expose(), second.expose());
    let third = fixture.next(&second, OWNERS).await;
    assert_eq!(fixture.next(&first, OWNERS).await.expose(), third.expose());
    fixture.clock.advance(WINDOW);
    assert_eq!(fixture.refused(&first, OWNERS).await, GrantRefusal::Reused);
    assert!(!fixture.is_alive(&third).await);
}

#[tokio::test]
async fn a_retry_shows_what_the_request_showed_that_spent_the_token() {
    for spent in [None, OWNERS] {
        for again in [None, OWNERS, THIEFS] {
            let fixture = Fixture::new().await;
            let token = fixture.public(None).await;
            let next = fixture.next(&token, spent).await;
            fixture.events.take();
            let retried = fixture.refresh_as(SPA, &token, again).await;
            if spent == again {
                let retried = retried.unwrap();
                assert_eq!(fixture.key_of(&retried.access_token).await, key(again));
                assert_eq!(retried.refresh_token.unwrap().expose(), next.expose());
            } else {
                assert_eq!(refusal(retried), GrantRefusal::Reused, "{spent:?}, then {again:?}");
                assert_eq!(fixture.events.names(), ["ReuseDetected"]);
            }
            assert_eq!(fixture.is_alive(&next).await, spent == again);
        }
    }
}

#[tokio::test]
async fn a_slow_tab_shows_it_as_well() {
    // The chain is bound by the second step, or not at all.
    for bound in [None, OWNERS] {
        for (late, expected) in [
            // The current one is of no use without its key, if it has one.
            (None, bound.map(|_| GrantRefusal::Spent)),
            (THIEFS, Some(GrantRefusal::Reused)),
            // The chain's own key: its holder is no stranger.
            (OWNERS, if bound.is_some() { None } else { Some(GrantRefusal::Reused) }),
        ] {
            let fixture = Fixture::new().await;
            let token = fixture.public(None).await;
            let next = fixture.next(&token, None).await;
            let last = fixture.next(&next, bound).await;
            match (fixture.refresh_as(SPA, &token, late).await, expected) {
                (Ok(response), None) => {
                    assert_eq!(response.refresh_token.unwrap().expose(), last.expose());
                }
                (answer, expected) => {
                    assert_eq!(Some(refusal(answer)), expected, "{bound:?}, {late:?}");
                }
            }
            let ends = expected == Some(GrantRefusal::Reused);
            assert_eq!(fixture.is_alive(&last).await, !ends);
        }
    }
}

#[tokio::test]
async fn a_race_that_is_lost_to_another_key_ends_the_session() {
    for (winner, loser) in [(THIEFS, None), (THIEFS, OWNERS), (None, OWNERS)] {
        let fixture = Fixture::new().await;
        let token = fixture.public(None).await;
        let won = fixture.overtaken_by(request(SPA, &token, winner));
        fixture.events.take();
        assert_eq!(fixture.refused(&token, loser).await, GrantRefusal::Reused);
        assert_eq!(fixture.events.names(), ["Refreshed", "ReuseDetected"]);
        let won = won.lock().unwrap().take().unwrap();
        assert!(!fixture.is_active(&won.access_token).await);
    }
    // Both prove the same: a retry.
    let fixture = Fixture::new().await;
    let token = fixture.public(None).await;
    let won = fixture.overtaken_by(request(SPA, &token, OWNERS));
    let lost = fixture.next(&token, OWNERS).await;
    let won = won.lock().unwrap().take().unwrap();
    assert_eq!(lost.expose(), won.refresh_token.unwrap().expose());
    // A confidential client is one holder, whatever it proves.
    let token = Session::of(fixture.sign_in("web-app").await).refresh;
    let won = fixture.overtaken_by(request("web-app", &token, THIEFS));
    let lost = fixture.refresh_as("web-app", &token, OWNERS).await.unwrap();
    assert_eq!(fixture.key_of(&lost.access_token).await, key(OWNERS));
    let won = won.lock().unwrap().take().unwrap();
    assert_eq!(lost.refresh_token.unwrap().expose(), won.refresh_token.unwrap().expose());
}

#[tokio::test]
async fn a_replay_of_a_code_ends_the_grant_whatever_it_proves() {
    for client in [SPA, "web-app"] {
        for first in [None, OWNERS, THIEFS] {
            for again in [None, OWNERS, THIEFS] {
                let fixture = Fixture::new().await;
                let code = fixture.code_of(client, None).await;
                let tokens = fixture.redeem_as(client, &code, first).await.unwrap();
                fixture.events.take();
                let replayed = fixture.redeem_as(client, &code, again).await;
                assert_eq!(refusal(replayed), GrantRefusal::Reused);
                assert_eq!(fixture.events.names(), ["ReuseDetected"]);
                assert!(!fixture.is_active(&tokens.access_token).await);
            }
        }
    }
}

#[tokio::test]
async fn a_code_for_one_key_is_redeemed_with_that_key_alone() {
    for client in [SPA, "web-app"] {
        let fixture = Fixture::new().await;
        let code = fixture.code_of(client, OWNERS).await;
        for other in [None, THIEFS] {
            let refused = fixture.redeem_as(client, &code, other).await;
            assert_eq!(refusal(refused), GrantRefusal::OtherKey);
        }
        let tokens = fixture.redeem_as(client, &code, OWNERS).await.unwrap();
        assert_eq!(fixture.key_of(&tokens.access_token).await, key(OWNERS));
        // Only a public client's refresh token needs the key as well.
        let refreshed = fixture.refresh_as(client, &tokens.refresh_token.unwrap(), None).await;
        assert_eq!(refreshed.is_ok(), client != SPA);
        let replayed = fixture.redeem_as(client, &code, THIEFS).await;
        assert_eq!(refusal(replayed), GrantRefusal::Reused);
    }
}

#[tokio::test]
async fn a_code_that_is_lost_to_another_key_ends_the_grant() {
    for (client, loser, expected) in [
        (SPA, OWNERS, GrantRefusal::Reused),
        (SPA, THIEFS, GrantRefusal::Spent),
        ("web-app", OWNERS, GrantRefusal::Spent),
    ] {
        let fixture = Fixture::new().await;
        let code = fixture.code_of(client, None).await;
        fixture.store.before_next("advance", {
            let issuer = fixture.issuer.clone();
            let request = redemption_by(client, &code).confirmation(key(THIEFS));
            async move { drop(issuer.redeem(request).await.unwrap()) }
        });
        let lost = fixture.redeem_as(client, &code, loser).await;
        assert_eq!(refusal(lost), expected, "{client}");
        assert_eq!(fixture.is_alive(&code).await, expected == GrantRefusal::Spent);
    }
}

#[tokio::test]
async fn a_confidential_client_proves_another_key_whenever_it_likes() {
    let fixture = Fixture::new().await;
    let web = "web-app";
    let grant = Grant::user(web, "alice").unwrap().confirmation(key(OWNERS).unwrap());
    let issued = fixture.issuer.issue(grant).await.unwrap();
    let code = fixture.code_of(web, None).await;
    let redeemed = fixture.redeem_as(web, &code, OWNERS).await.unwrap();
    for response in [issued, redeemed] {
        assert_eq!(fixture.key_of(&response.access_token).await, key(OWNERS));
        assert_eq!(fixture.store.grant(response.grant).await.confirmation, None);
        let mut token = response.refresh_token.unwrap();
        for proved in [THIEFS, None, OWNERS] {
            let next = fixture.refresh_as(web, &token, proved).await.unwrap();
            assert_eq!(fixture.key_of(&next.access_token).await, key(proved));
            assert_eq!(fixture.store.grant(next.grant).await.confirmation, None);
            // Its answer was lost, and it was started again with a new key.
            let retried = fixture.refresh_as(web, &token, Some(9)).await.unwrap();
            assert_eq!(fixture.key_of(&retried.access_token).await, key(Some(9)));
            token = next.refresh_token.unwrap();
            assert_eq!(retried.refresh_token.unwrap().expose(), token.expose());
        }
    }
    // Workers that share a refresh token have a key each.
    let shared = Session::of(fixture.sign_in("workers").await).refresh;
    for proved in [OWNERS, THIEFS, None] {
        let response = fixture.refresh_as("workers", &shared, proved).await.unwrap();
        assert_eq!(fixture.key_of(&response.access_token).await, key(proved));
    }
}

#[tokio::test]
async fn a_key_without_its_first_generation_ends_no_session_and_hides_no_thief() {
    // A key, and not from when on it counts.
    let forget = async |fixture: &Fixture, token: &TokenSecret| {
        let mut record = fixture.store.grant(grant_of(token)).await;
        record.confirmation = key(OWNERS);
        record.chain.as_mut().unwrap().bound_from = None;
        fixture.store.fail_over(record).await;
    };
    // A confidential client was bound to its first key.
    let fixture = Fixture::new().await;
    let token = fixture.session().await.refresh;
    forget(&fixture, &token).await;
    let next = fixture.refresh_as("web-app", &token, THIEFS).await.unwrap();
    assert_eq!(fixture.store.grant(next.grant).await.confirmation, None);
    fixture.refresh_as("web-app", &next.refresh_token.unwrap(), None).await.unwrap();

    // A public one still needs its key, and may send again what it sent before.
    for wait in [0, 36] {
        let fixture = Fixture::new().await;
        let stolen = fixture.public(None).await;
        let spent = fixture.next(&stolen, OWNERS).await;
        let current = fixture.next(&spent, OWNERS).await;
        forget(&fixture, &current).await;
        assert_eq!(fixture.next(&spent, OWNERS).await.expose(), current.expose());
        assert_eq!(fixture.refused(&current, None).await, GrantRefusal::OtherKey);
        let last = fixture.next(&current, OWNERS).await;
        assert_eq!(fixture.refused(&current, THIEFS).await, GrantRefusal::OtherKey);
        // A slow tab.
        assert_eq!(fixture.next(&spent, OWNERS).await.expose(), last.expose());
        fixture.clock.advance(secs(wait));
        if wait > 0 {
            assert_eq!(fixture.refused(&stolen, None).await, GrantRefusal::Reused);
            assert!(!fixture.is_alive(&last).await);
        }
    }
}

#[tokio::test]
async fn a_client_that_becomes_public_or_confidential_keeps_its_sessions() {
    let public = || app(Client::public("web-app"), "orders:read");
    let (fixture, directory) = changing(public()).await;
    let session = fixture.session().await.refresh;
    let bound = fixture.refresh_as("web-app", &session, OWNERS).await.unwrap();
    let bound = bound.refresh_token.unwrap();
    // It authenticates from now on: its key is its own affair.
    directory.change_to(app(confidential(), "orders:read"));
    let unbound = fixture.refresh_as("web-app", &bound, THIEFS).await.unwrap();
    assert_eq!(fixture.store.grant(unbound.grant).await.confirmation, None);
    // It no longer does: what it got before is bound once it proves a key.
    directory.change_to(public());
    let unbound = unbound.refresh_token.unwrap();
    let next = fixture.refresh_as("web-app", &unbound, None).await.unwrap().refresh_token.unwrap();
    let next = fixture.refresh_as("web-app", &next, OWNERS).await.unwrap().refresh_token.unwrap();
    let refused = fixture.refresh_as("web-app", &next, None).await;
    assert_eq!(refusal(refused), GrantRefusal::OtherKey);
    fixture.clock.advance(WINDOW);
    // What was bound before is reuse like everything older than the binding.
    let refused = fixture.refresh_as("web-app", &bound, OWNERS).await;
    assert_eq!(refusal(refused), GrantRefusal::Reused);
}

#[tokio::test]
async fn a_token_without_a_chain_is_bound_by_itself() {
    let fixture = Fixture::with(cloakroom::IssuerBuilder::stateless_jwt).await;
    for resource in [ORDERS, REPORTS, JOBS] {
        let grant = Grant::client("web-app").unwrap();
        let grant = grant.audience(Audience::one(resource).unwrap());
        let grant = grant.confirmation(key(OWNERS).unwrap());
        let issued = fixture.issuer.issue(grant).await.unwrap();
        assert_eq!(issued.token_type, "DPoP");
        assert_eq!(fixture.key_of(&issued.access_token).await, key(OWNERS));
    }
}
