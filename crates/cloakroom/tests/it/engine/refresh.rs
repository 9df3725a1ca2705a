//! Refresh tokens (RFC 6749 §6, RFC 9700 §4.14).

use cloakroom::core::{Audience, Scope, TokenSecret};
use cloakroom::{
    Caller, ClientLifetimes, Event, Grant, GrantRefusal, Lifetimes, RefreshRequest, TokenError,
};

use super::support::*;

/// Rotates so often, and returns every refresh token so far, the oldest first.
async fn rotated(fixture: &Fixture, times: usize) -> Vec<TokenSecret> {
    let mut tokens = vec![fixture.session().await.refresh];
    for _ in 0..times {
        let next = fixture.refresh(tokens.last().unwrap()).await.unwrap();
        tokens.push(next.refresh_token.unwrap());
    }
    tokens
}

/// Alice is still signed in, or is no more.
#[track_caller]
fn died(refused: Result<cloakroom::TokenResponse, TokenError>) {
    assert_eq!(refusal(refused), GrantRefusal::Dead);
}

#[tokio::test]
async fn a_refresh_token_is_spent_and_has_a_successor() {
    let fixture = Fixture::new().await;
    let first = fixture.session().await;
    fixture.clock.advance(MINUTE);
    let response = fixture.refresh(&first.refresh).await.unwrap();
    assert_eq!(response.expires_in, 600);
    assert_eq!(response.scope.as_str(), "orders:read orders:write");
    let next = Session::of(response);
    assert_ne!(next.refresh.expose(), first.refresh.expose());
    assert_ne!(next.access.expose(), first.access.expose());
    assert!(fixture.is_active(&first.access).await, "until it expires");
    assert!(fixture.is_active(&next.access).await);
    assert_eq!(fixture.events.names(), ["Issued", "Refreshed"]);
    assert_eq!(fixture.sessions().await, 1);
}

#[tokio::test]
async fn a_lost_response_is_made_good() {
    let fixture = Fixture::new().await;
    let first = fixture.session().await;
    let lost = Session::of(fixture.refresh(&first.refresh).await.unwrap());
    fixture.clock.advance(WINDOW - secs(1));
    let again = Session::of(fixture.refresh(&first.refresh).await.unwrap());
    assert_eq!(again.refresh.expose(), lost.refresh.expose(), "one successor");
    assert_ne!(again.access.expose(), lost.access.expose(), "a fresh access token");
    assert!(fixture.is_active(&again.access).await);
    let chain = fixture.store.grant(grant_of(&first.refresh)).await.chain;
    assert_eq!(chain.unwrap().generation, 1, "the chain does not fork");
    assert_eq!(fixture.events.names(), ["Issued", "Refreshed", "Retried"]);
    fixture.refresh(&again.refresh).await.unwrap();
}

#[tokio::test]
async fn a_retry_asks_for_itself() {
    let fixture = Fixture::new().await;
    let first = fixture.session().await;
    let narrow = refreshing(&first.refresh).scope(Scope::parse("orders:read").unwrap());
    let one = fixture.issuer.refresh(narrow).await.unwrap();
    let two = fixture.refresh(&first.refresh).await.unwrap();
    let other = refreshing(&first.refresh).scope(Scope::parse("orders:write").unwrap());
    let three = fixture.issuer.refresh(other).await.unwrap();
    let scopes = [&one, &two, &three].map(|response| response.scope.as_str().to_owned());
    assert_eq!(scopes, ["orders:read", "orders:read orders:write", "orders:write"]);
    for response in [one, two, three] {
        let answer = fixture.issuer.introspect(&response.access_token, Caller::Internal);
        let answer = answer.await.unwrap();
        assert_eq!(answer.active().unwrap().scope, response.scope);
    }
}

#[tokio::test]
async fn while_the_window_of_the_last_rotation_is_open_a_slow_tab_does_no_harm() {
    let fixture = Fixture::new().await;
    let tokens = rotated(&fixture, 3).await;
    fixture.events.take();
    fixture.clock.advance(WINDOW - secs(1));
    for old in &tokens[..3] {
        let retried = fixture.refresh(old).await.unwrap().refresh_token;
        assert_eq!(retried.unwrap().expose(), tokens[3].expose());
    }
    fixture.refresh(&tokens[3]).await.unwrap();
    assert_eq!(fixture.events.names(), ["Retried", "Retried", "Retried", "Refreshed"]);
}

#[tokio::test]
async fn after_the_window_a_spent_token_ends_the_grant() {
    // The one right before the current one; an older one; the very first one.
    for presented in [2, 1, 0] {
        let fixture = Fixture::new().await;
        let tokens = rotated(&fixture, 3).await;
        let other = fixture.session().await;
        let access = fixture.refresh(&tokens[2]).await.unwrap().access_token;
        fixture.clock.advance(WINDOW);
        fixture.events.take();
        let refused = refusal(fixture.refresh(&tokens[presented]).await);
        assert_eq!(refused, GrantRefusal::Reused, "{presented}");
        let [
            Event::ReuseDetected {
                grant, client, presented: old, current: 3, revoked: true, ..
            },
        ] = &fixture.events.take()[..]
        else {
            panic!("no event");
        };
        assert_eq!(*grant, grant_of(&tokens[0]));
        assert_eq!(*client, client_id("web-app"));
        assert_eq!(usize::try_from(*old).unwrap(), presented);
        assert!(!fixture.is_active(&access).await);
        died(fixture.refresh(&tokens[3]).await);
        assert!(fixture.is_active(&other.access).await, "another session of hers");
    }
}

#[tokio::test]
async fn the_window_is_as_wide_as_it_is_set() {
    for (window, late) in [(0, 5), (300, 305)] {
        let lifetimes = Lifetimes::default().retry_window(secs(window));
        let fixture = Fixture::with(|builder| builder.lifetimes(lifetimes)).await;
        let tokens = rotated(&fixture, 1).await;
        fixture.clock.advance(secs(late - 1));
        fixture.refresh(&tokens[0]).await.unwrap();
        fixture.clock.advance(secs(1));
        let refused = refusal(fixture.refresh(&tokens[0]).await);
        assert_eq!(refused, GrantRefusal::Reused, "{window}");
    }
}

#[tokio::test]
async fn more_than_was_granted_is_refused_and_spends_nothing() {
    let fixture = Fixture::new().await;
    let grant = Grant::user("web-app", "alice").unwrap().scope("orders:read").unwrap();
    let session = Session::of(fixture.issuer.issue(grant).await.unwrap());
    let before = fixture.store.grant(grant_of(&session.refresh)).await;
    let wide =
        refreshing(&session.refresh).scope(Scope::parse("orders:read orders:write").unwrap());
    let refused = fixture.issuer.refresh(wide).await.unwrap_err();
    assert_eq!(refused.code(), Some("invalid_scope"));
    let elsewhere = refreshing(&session.refresh).resources(vec![ORDERS.into(), BILLING.into()]);
    let refused = fixture.issuer.refresh(elsewhere).await.unwrap_err();
    assert_eq!(refused.code(), Some("invalid_target"));
    assert_eq!(fixture.store.grant(grant_of(&session.refresh)).await, before);
    fixture.refresh(&session.refresh).await.unwrap();
}

#[tokio::test]
async fn narrowing_touches_the_access_token_alone() {
    let fixture = Fixture::new().await;
    let grant = Grant::user("web-app", "alice").unwrap();
    let grant = grant.audience(Audience::new([ORDERS, BILLING]).unwrap());
    let session = Session::of(fixture.issuer.issue(grant).await.unwrap());
    let narrow = refreshing(&session.refresh)
        .scope(Scope::parse("orders:read").unwrap())
        .resources(vec![BILLING.into()]);
    let narrow = Session::of(fixture.issuer.refresh(narrow).await.unwrap());
    let wide = Session::of(fixture.refresh(&narrow.refresh).await.unwrap());
    for (token, scopes, resources) in [(&narrow.access, 1, 1), (&wide.access, 2, 2)] {
        let answer = fixture.issuer.introspect(token, Caller::Internal).await.unwrap();
        let active = answer.active().unwrap();
        assert_eq!(active.scope.iter().count(), scopes);
        assert_eq!(active.audience.as_ref().unwrap().iter().len(), resources);
    }
}

#[tokio::test]
async fn another_client_gets_nothing_and_ends_nothing() {
    let fixture = Fixture::new().await;
    let tokens = rotated(&fixture, 2).await;
    fixture.clock.advance(HOUR);
    fixture.events.take();
    // The current one, and spent ones long after the window.
    for token in tokens.iter().rev() {
        let request = RefreshRequest::new(token.clone(), client_id("other-app"));
        let refused = refusal(fixture.issuer.refresh(request).await);
        assert_eq!(refused, GrantRefusal::OtherClient);
    }
    assert_eq!(fixture.events.names(), [""; 0]);
    fixture.refresh(&tokens[2]).await.unwrap();
}

#[tokio::test]
async fn an_unused_refresh_token_times_out_and_a_used_one_does_not() {
    let fixture = Fixture::new().await;
    let (used, unused) = (fixture.session().await, fixture.session().await);
    fixture.clock.advance(13 * DAY);
    let used = Session::of(fixture.refresh(&used.refresh).await.unwrap());
    fixture.clock.advance(DAY);
    died(fixture.refresh(&unused.refresh).await);
    fixture.clock.advance(13 * DAY - secs(1));
    fixture.refresh(&used.refresh).await.unwrap();
}

#[tokio::test]
async fn a_grant_ends_however_often_it_is_refreshed() {
    let fixture = Fixture::new().await;
    let mut session = fixture.session().await;
    for _ in 0..8 {
        fixture.clock.advance(10 * DAY);
        session = Session::of(fixture.refresh(&session.refresh).await.unwrap());
    }
    fixture.clock.advance(10 * DAY - secs(60));
    let last = fixture.refresh(&session.refresh).await.unwrap();
    assert_eq!(last.expires_in, 60, "not beyond its grant");
    fixture.clock.advance(secs(60));
    assert!(!fixture.is_active(&last.access_token).await);
    died(fixture.refresh(&last.refresh_token.unwrap()).await);
    assert_eq!(fixture.sessions().await, 0);
}

#[tokio::test]
async fn a_client_may_have_shorter_lives_and_never_longer_ones() {
    let own = |access, idle, grant| {
        ClientLifetimes::default().access_token(access).refresh_idle(idle).grant(grant)
    };
    for (lifetimes, access, idle, life) in [
        (own(MINUTE, HOUR, DAY), 60, HOUR, DAY),
        (own(DAY, 1000 * DAY, 1000 * DAY), 600, 14 * DAY, 90 * DAY),
    ] {
        let client = cloakroom::Client::public("web-app")
            .grant_types([cloakroom::GrantType::RefreshToken])
            .audience(ORDERS, cloakroom::Format::Opaque)
            .lifetimes(lifetimes)
            .build()
            .unwrap();
        let fixture = Fixture::with(|builder| builder.static_clients([client]).unwrap()).await;
        let response = fixture.sign_in("web-app").await;
        assert_eq!(response.expires_in, access);
        let session = Session::of(response);
        let grant = fixture.store.grant(grant_of(&session.refresh)).await;
        assert_eq!(grant.expires_at, START + life);
        fixture.clock.advance(idle - secs(1));
        let session = Session::of(fixture.refresh(&session.refresh).await.unwrap());
        fixture.clock.advance(idle);
        died(fixture.refresh(&session.refresh).await);
    }
}

#[tokio::test]
async fn a_shared_refresh_token_stays_as_it_is() {
    let fixture = Fixture::new().await;
    let session = Session::of(fixture.sign_in("workers").await);
    let request = || RefreshRequest::new(session.refresh.clone(), client_id("workers"));
    let before = fixture.store.grant(grant_of(&session.refresh)).await;
    for _ in 0..10 {
        fixture.clock.advance(5 * DAY);
        let response = fixture.issuer.refresh(request()).await.unwrap();
        let repeated = response.refresh_token.expect("the one that stays valid");
        assert_eq!(repeated.expose(), session.refresh.expose());
        assert!(fixture.is_active(&response.access_token).await);
    }
    assert_eq!(fixture.store.grant(grant_of(&session.refresh)).await, before);
    fixture.clock.advance(40 * DAY);
    died(fixture.issuer.refresh(request()).await);
}

#[tokio::test]
async fn a_client_that_acts_for_itself_has_nothing_to_refresh() {
    let fixture = Fixture::new().await;
    let grant = Grant::client("web-app").unwrap();
    let response = fixture.issuer.issue(grant).await.unwrap();
    assert!(response.refresh_token.is_none(), "RFC 6749 §4.4.3");
    assert!(fixture.is_active(&response.access_token).await);
}

#[tokio::test]
async fn a_clock_that_goes_back_ends_no_session() {
    let fixture = Fixture::new().await;
    let tokens = rotated(&fixture, 1).await;
    fixture.clock.set(START - HOUR);
    let again = fixture.refresh(&tokens[0]).await.unwrap();
    assert_eq!(again.refresh_token.unwrap().expose(), tokens[1].expose());
    let next = Session::of(fixture.refresh(&tokens[1]).await.unwrap());
    assert!(fixture.is_active(&next.access).await);
    fixture.clock.set(START);
    fixture.refresh(&next.refresh).await.unwrap();
}

#[tokio::test]
async fn a_successor_is_kept_only_while_its_window_is_open() {
    let fixture = Fixture::new().await;
    let tokens = rotated(&fixture, 2).await;
    let kept = async || {
        let chain = fixture.store.grant(grant_of(&tokens[0])).await.chain.unwrap();
        chain.successor.unwrap().earlier.len()
    };
    assert_eq!(kept().await, 1);
    fixture.clock.advance(WINDOW);
    fixture.refresh(&tokens[2]).await.unwrap();
    assert_eq!(kept().await, 0);
}
