//! A sink of events that panics.

use std::sync::{Arc, Mutex};

use cloakroom::core::TokenSecret;
use cloakroom::core::revocation::RuleKey;
use cloakroom::core::store::TokenStore as _;
use cloakroom::{Event, EventSink};

use super::support::*;

/// Panics over every event, after it took note.
#[derive(Debug, Default)]
struct Nervous(Mutex<Vec<&'static str>>);

impl EventSink for Nervous {
    fn record(&self, event: &Event) {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(event.name());
        panic!("for the test");
    }
}

impl Nervous {
    fn take(&self) -> Vec<&'static str> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }
}

#[tokio::test]
async fn a_sink_that_panics_stops_no_operation_and_hides_no_other_event() {
    let sink = Arc::new(Nervous::default());
    let fixture = Fixture::with(|builder| builder.events(sink.clone())).await;
    sink.take();
    // The key is marked; its rule and its successor's successor are still to come.
    let kid = fixture.issuer.keys().signer().await.unwrap().kid().clone();
    fixture.issuer.compromise_key(&kid).await.unwrap();
    let told = sink.take();
    assert!(told.starts_with(&["key"]) && told.contains(&"revoked"), "{told:?}");
    let rules = fixture.store.memory().rules(vec![RuleKey::Key(kid)]).await.unwrap();
    assert_eq!(rules.rules.len(), 1);

    let session = fixture.session().await;
    fixture.refresh(&session.refresh).await.unwrap();
    fixture.issuer.revoke_subject(&alice()).await.unwrap();
    assert_eq!(sink.take(), ["issued", "refreshed", "revoked"]);
    assert_eq!(fixture.sessions().await, 0);
}

#[tokio::test]
async fn every_sink_gets_every_event_even_after_one_that_panics() {
    let (first, last) = (Arc::new(Nervous::default()), Arc::new(Nervous::default()));
    let fixture = Fixture::with(|builder| builder.events(first.clone()).events(last.clone())).await;
    first.take();
    last.take();
    fixture.session().await;
    fixture.refresh(&TokenSecret::new("cr_rt_unknown")).await.unwrap_err();
    let told = ["issued", "grant_refused"];
    assert_eq!((first.take(), last.take()), (told.into(), told.into()));
    // The sink of the fixture was there before them.
    assert_eq!(fixture.events.names(), ["Issued"]);
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_panics_ends_no_maintenance() {
    let sink = Arc::new(Nervous::default());
    let fixture = Fixture::with(|builder| builder.events(sink.clone())).await;
    // What is refused is reported by maintenance.
    let unknown = TokenSecret::new("cr_rt_unknown");
    for _ in 0..2 {
        let _ = fixture.refresh(&unknown).await;
    }
    fixture.clock.advance(2 * MINUTE);
    let issuer = fixture.issuer.clone();
    let running = tokio::spawn(async move { issuer.run_maintenance().await });
    tokio::time::sleep(10 * secs(1)).await;
    assert!(!running.is_finished(), "heartbeats have ended");
    running.abort();
}
