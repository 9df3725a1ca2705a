//! Refusals are counted: an operator hears of them, and nobody fills a disk with them.

use std::collections::HashSet;

use cloakroom::core::*;
use cloakroom::{CodeRequest, Event, GrantRefusal, RefreshRequest};
use serde_json::json;
use tracing_subscriber::filter::LevelFilter;

use super::maintenance::listen;
use super::support::*;

/// The client, the credential, the reason and the count of a refusal.
fn parts(event: &Event) -> (Option<&str>, TokenKind, GrantRefusal, u64) {
    let Event::GrantRefused { client, credential, reason, count, .. } = event else {
        panic!("{event:?}")
    };
    (client.as_ref().map(ClientId::as_str), *credential, *reason, *count)
}

fn junk() -> TokenSecret {
    TokenSecret::new("cr_rt_junk")
}

#[tokio::test]
async fn a_flood_is_one_event_at_once_and_one_a_minute() {
    let fixture = Fixture::new().await;
    let forged = |count| (Some("web-app"), TokenKind::Refresh, GrantRefusal::Forged, count);
    for _ in 0..1_000 {
        assert_eq!(refusal(fixture.refresh(&junk()).await), GrantRefusal::Forged);
    }
    let events = fixture.events.refused();
    assert_eq!(events.iter().map(parts).collect::<Vec<_>>(), [forged(1)]);

    fixture.clock.advance(MINUTE - secs(1));
    fixture.issuer.maintain().await.unwrap();
    assert_eq!(fixture.events.refused(), [], "the minute is not over");
    fixture.clock.advance(secs(1));
    fixture.issuer.maintain().await.unwrap();
    let events = fixture.events.refused();
    assert_eq!(events.iter().map(parts).collect::<Vec<_>>(), [forged(999)]);
    let counted = json!({
        "event": "grant_refused",
        "client": "web-app",
        "credential": "refresh",
        "reason": "forged",
        "count": 999,
        "since": START.as_millis(),
    });
    assert_eq!(serde_json::to_value(&events[0]).unwrap(), counted);

    // It goes on: still one a minute, also where nobody runs maintenance.
    fixture.refresh(&junk()).await.unwrap_err();
    assert_eq!(fixture.events.refused(), []);
    fixture.clock.advance(MINUTE);
    fixture.refresh(&junk()).await.unwrap_err();
    let events = fixture.events.refused();
    assert_eq!(events.iter().map(parts).collect::<Vec<_>>(), [forged(1)]);

    // A count begins with its first refusal.
    fixture.clock.advance(secs(10));
    fixture.refresh(&junk()).await.unwrap_err();
    fixture.clock.advance(secs(10));
    fixture.refresh(&junk()).await.unwrap_err();
    fixture.clock.advance(secs(40));
    fixture.issuer.maintain().await.unwrap();
    let [Event::GrantRefused { count: 3, since, .. }] = fixture.events.refused()[..] else {
        panic!("no count")
    };
    assert_eq!(since, START + 2 * MINUTE);

    // It was quiet for a minute: the next one is news.
    fixture.clock.advance(MINUTE);
    fixture.issuer.maintain().await.unwrap();
    fixture.events.refused();
    fixture.clock.advance(MINUTE);
    fixture.issuer.maintain().await.unwrap();
    assert_eq!(fixture.events.refused(), []);
    fixture.refresh(&junk()).await.unwrap_err();
    let events = fixture.events.refused();
    assert_eq!(events.iter().map(parts).collect::<Vec<_>>(), [forged(1)]);
}

#[tokio::test]
async fn refusals_are_told_apart_by_client_credential_and_reason() {
    let fixture = Fixture::new().await;
    let session = fixture.session().await;
    let code = fixture.code().await;
    fixture.refresh(&junk()).await.unwrap_err();
    fixture.issuer.redeem(CodeRequest::new(junk(), client_id("web-app"))).await.unwrap_err();
    let stolen = RefreshRequest::new(session.refresh.clone(), client_id("other-app"));
    fixture.issuer.refresh(stolen).await.unwrap_err();
    let elsewhere = redemption(&code).redirect_uri(format!("{CALLBACK}/"));
    fixture.issuer.redeem(elsewhere).await.unwrap_err();
    fixture.issuer.revoke_grant(grant_of(&session.refresh)).await.unwrap();
    fixture.refresh(&session.refresh).await.unwrap_err();
    let events = fixture.events.refused();
    let (code, refresh) = (TokenKind::Code, TokenKind::Refresh);
    assert_eq!(
        events.iter().map(parts).collect::<Vec<_>>(),
        [
            (Some("web-app"), refresh, GrantRefusal::Forged, 1),
            (Some("web-app"), code, GrantRefusal::Forged, 1),
            (Some("other-app"), refresh, GrantRefusal::OtherClient, 1),
            (Some("web-app"), code, GrantRefusal::RedirectUri, 1),
            (Some("web-app"), refresh, GrantRefusal::Dead, 1),
        ]
    );
}

#[tokio::test]
async fn reuse_is_an_alarm_and_no_mere_refusal() {
    let fixture = Fixture::new().await;
    let session = fixture.session().await;
    fixture.refresh(&session.refresh).await.unwrap();
    fixture.clock.advance(HOUR);
    fixture.events.take();
    assert_eq!(refusal(fixture.refresh(&session.refresh).await), GrantRefusal::Reused);
    assert!(fixture.events.take()[0].is_alarm());
    assert_eq!(fixture.events.refused(), []);
}

#[tokio::test]
async fn made_up_clients_are_bounded_and_every_refusal_is_in_some_count() {
    let fixture = Fixture::new().await;
    for number in 0..5_000 {
        let request = RefreshRequest::new(junk(), client_id(&format!("made-up-{number}")));
        fixture.issuer.refresh(request).await.unwrap_err();
    }
    let recorder = fixture.events.clone();
    drop(fixture);
    let events = recorder.refused();
    let clients: HashSet<_> = events.iter().map(|event| parts(event).0).collect();
    assert_eq!((clients.len(), events.len()), (1_025, 1_026));
    let total: u64 = events.iter().map(|event| parts(event).3).sum();
    assert_eq!(total, 5_000);
}

#[tokio::test]
async fn the_trace_says_which_credential_was_refused() {
    let fixture = Fixture::new().await;
    let (lines, _guard) = listen(LevelFilter::INFO);
    fixture.refresh(&junk()).await.unwrap_err();
    fixture.issuer.redeem(CodeRequest::new(junk(), client_id("web-app"))).await.unwrap_err();
    let lines = lines.lock().unwrap();
    let told = |what: &str| lines.iter().filter(|line| line.contains(what)).count();
    assert_eq!((told("a refresh token was refused"), told("a code was refused")), (1, 1));
}
