//! What happens at once, half, or in a store that forgot.

use std::sync::Arc;

use cloakroom::core::time::ManualClock;
use cloakroom::core::{Confirmation, TokenSecret};
use cloakroom::{
    ApprovedRequest, Client, Event, Format, Grant, GrantRefusal, GrantType, RefreshRequest,
    Regression, TokenError,
};
use tokio::task::JoinSet;

use super::store::When;
use super::support::*;

/// Refreshes the same token from many tasks at once.
async fn refresh_at_once(fixture: &Fixture, token: &TokenSecret, number: usize) -> Vec<Session> {
    let mut tasks = JoinSet::new();
    for _ in 0..number {
        let (issuer, request) = (fixture.issuer.clone(), refreshing(token));
        tasks.spawn(async move { Session::of(issuer.refresh(request).await.unwrap()) });
    }
    tasks.join_all().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_refreshes_at_once_each_brings_the_one_successor() {
    let fixture = Fixture::new().await;
    let mut token = fixture.session().await.refresh;
    // All see the token unspent, and one wins; then with luck alone.
    for (round, meet) in (1..=20).map(|round| (round, round % 2 == 0)) {
        fixture.events.take();
        if meet {
            fixture.store.meet_after("find", 64);
        }
        let sessions = refresh_at_once(&fixture, &token, 64).await;
        fixture.store.no_meeting();
        let successor = &sessions[0].refresh;
        for session in &sessions {
            assert_eq!(session.refresh.expose(), successor.expose());
            assert!(fixture.is_active(&session.access).await);
        }
        let chain = fixture.store.grant(grant_of(&token)).await.chain.unwrap();
        assert_eq!(chain.generation, round, "the chain moved once");
        let events = fixture.events.names();
        let refreshed = events.iter().filter(|name| *name == "Refreshed");
        assert_eq!((refreshed.count(), events.len()), (1, 64));
        token = successor.clone();
    }
}

#[tokio::test]
async fn whoever_lost_the_race_is_a_retry_whatever_its_clock_says() {
    let fixture = Fixture::new().await;
    let token = fixture.session().await.refresh;
    // This node's clock is so far ahead that every retry window has long ended.
    let ahead = fixture.node(&Arc::new(ManualClock::at(START + HOUR))).await;
    let won = Arc::new(std::sync::Mutex::new(None));
    fixture.store.before_next("advance", {
        let (issuer, request, won) = (fixture.issuer.clone(), refreshing(&token), won.clone());
        async move {
            let session = Session::of(issuer.refresh(request).await.unwrap());
            *won.lock().unwrap() = Some(session);
        }
    });
    fixture.store.calls();
    let lost = Session::of(ahead.refresh(refreshing(&token)).await.unwrap());
    let won = won.lock().unwrap().take().unwrap();
    assert_eq!(lost.refresh.expose(), won.refresh.expose());
    assert!(fixture.is_active(&won.access).await && fixture.is_active(&lost.access).await);
    assert_eq!(fixture.events.names(), ["Issued", "Refreshed", "Retried"]);
}

#[tokio::test]
async fn whoever_lost_the_race_by_two_gets_the_current_token() {
    let fixture = Fixture::new().await;
    let token = fixture.session().await.refresh;
    let won = Arc::new(std::sync::Mutex::new(None));
    fixture.store.before_next("advance", {
        let (issuer, request, won) = (fixture.issuer.clone(), refreshing(&token), won.clone());
        async move {
            let next = Session::of(issuer.refresh(request).await.unwrap());
            let next = issuer.refresh(refreshing(&next.refresh)).await.unwrap();
            *won.lock().unwrap() = next.refresh_token;
        }
    });
    fixture.clock.advance(MINUTE);
    let lost = Session::of(fixture.refresh(&token).await.unwrap());
    let won = won.lock().unwrap().take().unwrap();
    assert_eq!(lost.refresh.expose(), won.expose());
    assert_eq!(fixture.events.names(), ["Issued", "Refreshed", "Refreshed", "Retried"]);
    assert_eq!(fixture.sessions().await, 1);
}

#[tokio::test]
async fn a_revocation_in_the_middle_of_a_refresh_wins() {
    // Of a rotation, of a retry, and of a refresh without rotation.
    for (client, before) in [("web-app", 0), ("web-app", 1), ("workers", 0)] {
        let fixture = Fixture::new().await;
        let session = Session::of(fixture.sign_in(client).await);
        let request = || RefreshRequest::new(session.refresh.clone(), client_id(client));
        for _ in 0..before {
            fixture.issuer.refresh(request()).await.unwrap();
        }
        fixture.store.before_next("advance", {
            let (issuer, grant) = (fixture.issuer.clone(), grant_of(&session.refresh));
            async move { issuer.revoke_grant(grant).await.unwrap() }
        });
        let refused = refusal(fixture.issuer.refresh(request()).await);
        assert_eq!(refused, GrantRefusal::Dead);
        assert!(!fixture.is_active(&session.access).await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_a_refresh_brought_beside_a_revocation_is_dead_after_it() {
    let fixture = Fixture::new().await;
    for round in 0..100 {
        let session = fixture.session().await;
        let mut refreshes = JoinSet::new();
        for _ in 0..4 {
            let (issuer, request) = (fixture.issuer.clone(), refreshing(&session.refresh));
            refreshes.spawn(async move { issuer.refresh(request).await });
        }
        let (issuer, grant) = (fixture.issuer.clone(), grant_of(&session.refresh));
        let revoked = tokio::spawn(async move {
            // The grant, or all of hers.
            match round % 2 {
                0 => issuer.revoke_grant(grant).await.unwrap(),
                _ => issuer.revoke_subject(&alice()).await.unwrap(),
            }
        });
        let answers = refreshes.join_all().await;
        revoked.await.unwrap();
        assert!(!fixture.is_active(&session.access).await);
        for answer in answers {
            match answer {
                Ok(response) => {
                    let late = Session::of(response);
                    assert!(!fixture.is_active(&late.access).await);
                    assert_eq!(refusal(fixture.refresh(&late.refresh).await), GrantRefusal::Dead);
                }
                Err(error) => assert_eq!(error.code(), Some("invalid_grant")),
            }
        }
        assert_eq!(fixture.sessions().await, 0);
    }
}

#[tokio::test]
async fn a_store_that_fails_during_a_refresh_costs_no_session() {
    for (method, when) in [
        ("find", When::Before),
        ("find", When::After),
        ("advance", When::Before),
        ("advance", When::After),
    ] {
        let fixture = Fixture::new().await;
        let first = fixture.session().await;
        // Once in a rotation, and once in the retry of it.
        for _ in 0..2 {
            fixture.store.fail_next(method, when);
            let failed = fixture.refresh(&first.refresh).await.unwrap_err();
            assert!(matches!(failed, TokenError::Store(_)), "{failed:?}");
            assert_eq!(failed.code(), None, "no client is told that its token is bad");
        }
        // The client still has the old token, and sends it again.
        fixture.clock.advance(WINDOW - secs(1));
        let next = Session::of(fixture.refresh(&first.refresh).await.unwrap());
        assert!(fixture.is_active(&next.access).await);
        fixture.refresh(&next.refresh).await.unwrap();
        let chain = fixture.store.grant(grant_of(&first.refresh)).await.chain;
        assert_eq!(chain.unwrap().generation, 2, "{method}");
    }
}

#[tokio::test]
async fn a_store_that_fails_before_a_redemption_took_effect_spends_no_code() {
    for (method, when) in [("find", When::Before), ("find", When::After), ("advance", When::Before)]
    {
        let fixture = Fixture::new().await;
        let code = fixture.code().await;
        fixture.store.fail_next(method, when);
        assert!(matches!(fixture.redeem(&code).await, Err(TokenError::Store(_))));
        fixture.redeem(&code).await.unwrap();
    }
}

#[tokio::test]
async fn a_reuse_that_could_not_be_punished_is_an_outage_and_is_punished_later() {
    let fixture = Fixture::new().await;
    let first = fixture.session().await;
    let next = Session::of(fixture.refresh(&first.refresh).await.unwrap());
    fixture.clock.advance(HOUR);
    fixture.store.fail_next("revoke", When::Before);
    let failed = fixture.refresh(&first.refresh).await;
    assert!(matches!(failed, Err(TokenError::Store(_))));
    let events = fixture.events.take();
    let [.., Event::ReuseDetected { revoked: false, .. }] = &events[..] else {
        panic!("the alarm does not wait for the store: {events:?}");
    };
    let refused = refusal(fixture.refresh(&first.refresh).await);
    assert_eq!(refused, GrantRefusal::Reused);
    assert_eq!(refusal(fixture.refresh(&next.refresh).await), GrantRefusal::Dead);
}

/// A session whose store then loses what happened since this many refreshes.
async fn set_back(refreshes: usize, kept: usize) -> (Fixture, Vec<TokenSecret>) {
    let fixture = Fixture::new().await;
    let mut tokens = vec![fixture.session().await.refresh];
    let mut old = None;
    for done in 0..refreshes {
        if done == kept {
            old = Some(fixture.store.grant(grant_of(&tokens[0])).await);
        }
        let next = fixture.refresh(&tokens[done]).await.unwrap();
        tokens.push(next.refresh_token.unwrap());
    }
    fixture.store.fail_over(old.unwrap()).await;
    fixture.events.take();
    (fixture, tokens)
}

#[tokio::test]
async fn a_token_newer_than_its_store_ends_the_grant() {
    for (refreshes, kept) in [(1, 0), (3, 1), (3, 2)] {
        let (fixture, tokens) = set_back(refreshes, kept).await;
        let refused = refusal(fixture.refresh(tokens.last().unwrap()).await);
        assert_eq!(refused, GrantRefusal::Regressed);
        let events = fixture.events.take();
        let [Event::StoreRegressed { noticed: Regression::Credential { presented, current, .. } }] =
            &events[..]
        else {
            panic!("{events:?}");
        };
        let positions = [*presented, *current].map(|position| position as usize);
        assert_eq!(positions, [refreshes, kept]);
        for token in &tokens {
            assert_eq!(refusal(fixture.refresh(token).await), GrantRefusal::Dead);
        }
    }
}

#[tokio::test]
async fn two_histories_of_one_chain_are_noticed() {
    let (fixture, tokens) = set_back(1, 0).await;
    // Whoever still holds the older token makes another history of it.
    let other = Session::of(fixture.refresh(&tokens[0]).await.unwrap());
    assert_ne!(other.refresh.expose(), tokens[1].expose());
    let refused = refusal(fixture.refresh(&tokens[1]).await);
    assert_eq!(refused, GrantRefusal::Regressed, "equal generation, other digest");
    assert_eq!(fixture.events.names(), ["Refreshed", "StoreRegressed"]);
    assert!(!fixture.is_active(&other.access).await);
}

#[tokio::test]
async fn a_refresh_token_of_a_code_that_the_store_thinks_unspent_is_newer_as_well() {
    let fixture = Fixture::new().await;
    let code = fixture.code().await;
    let old = fixture.store.grant(grant_of(&code)).await;
    let session = Session::of(fixture.redeem(&code).await.unwrap());
    fixture.store.fail_over(old).await;
    let refused = refusal(fixture.refresh(&session.refresh).await);
    assert_eq!(refused, GrantRefusal::Regressed);
    assert_eq!(refusal(fixture.redeem(&code).await), GrantRefusal::Dead);
}

#[tokio::test]
async fn a_forged_generation_ends_nothing() {
    use cloakroom::core::Random;
    use cloakroom::core::handle::ChainKind;
    use cloakroom::core::record::ChainKey;
    let fixture = Fixture::new().await;
    let session = fixture.session().await;
    let next = Session::of(fixture.refresh(&session.refresh).await.unwrap());
    fixture.clock.advance(HOUR);
    // Whoever has the handle keys, but not the chain's own key, is told nothing and can do nothing.
    let (random, grant) = (Random::system(), grant_of(&session.refresh));
    let key = ChainKey::random(&random).unwrap();
    for generation in [0, 1, 2, u32::MAX] {
        let forged = handles().mint_chain(ChainKind::Refresh, grant, generation, &key, &random);
        let refused = fixture.refresh(&forged.unwrap().0).await;
        assert_eq!(refusal(refused), GrantRefusal::Forged);
    }
    fixture.refresh(&next.refresh).await.unwrap();
}

/// A client without refresh tokens: whoever redeems its code shortens the grant, by its own clock, to
/// the end of the access token. Another node, whose clock is behind, does so right before the first.
async fn redeemed_by_two(
    first: Option<Confirmation>,
    second: Option<Confirmation>,
    is_revoked_between: bool,
) -> (Fixture, GrantRefusal) {
    let kiosk = || {
        [Client::public("kiosk")
            .grant_types([GrantType::AuthorizationCode])
            .redirect_uri(CALLBACK)
            .audience(ORDERS, Format::Opaque)]
    };
    let fixture = Fixture::with(|builder| builder.static_clients(kiosk()).unwrap()).await;
    let behind = Arc::new(ManualClock::at(START - secs(1)));
    let other = builder(&fixture.store, &behind).static_clients(kiosk()).unwrap();
    let other = other.build().await.unwrap();
    let grant = Grant::user("kiosk", "alice").unwrap();
    let request = ApprovedRequest::new(grant, CALLBACK).pkce(challenge());
    let code = fixture.issuer.authorize(request).await.unwrap();
    fixture.store.before_next("advance", {
        let request = redemption_by("kiosk", &code).confirmation(first);
        async move {
            let tokens = other.redeem(request).await.unwrap();
            if is_revoked_between {
                other.revoke_grant(tokens.grant).await.unwrap();
            }
        }
    });
    fixture.events.take();
    let request = redemption_by("kiosk", &code).confirmation(second);
    let refused = refusal(fixture.issuer.redeem(request).await);
    (fixture, refused)
}

#[tokio::test]
async fn a_code_that_another_node_redeems_first_is_spent_or_reused_whatever_the_clocks() {
    let key = |byte| Some(Confirmation::JwkThumbprint([byte; 32]));
    for (first, second) in [(None, None), (key(1), key(1))] {
        let (_, refused) = redeemed_by_two(first, second, false).await;
        assert_eq!(refused, GrantRefusal::Spent);
    }
    for (first, second) in [(key(2), None), (None, key(1)), (key(2), key(1))] {
        let (fixture, refused) = redeemed_by_two(first, second, false).await;
        assert_eq!(refused, GrantRefusal::Reused);
        assert_eq!(fixture.events.names(), ["ReuseDetected"]);
    }
    let (_, refused) = redeemed_by_two(None, None, true).await;
    assert_eq!(refused, GrantRefusal::Dead);
}
