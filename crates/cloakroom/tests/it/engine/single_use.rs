//! Nonces, and what else is good once.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use cloakroom::NonceError;
use cloakroom::core::store::*;
use cloakroom::memory::MemorySingleUse;

use super::support::*;

const LIFE: std::time::Duration = MINUTE;

async fn with(store: impl SingleUseStore) -> Fixture {
    Fixture::with(|builder| builder.single_use(Arc::new(store))).await
}

/// Remembers what it was asked for.
#[derive(Debug, Clone, Default)]
struct Asked(Arc<Mutex<Vec<Spend>>>);

#[async_trait]
impl SingleUseStore for Asked {
    async fn spend(&self, spend: Spend) -> Result<Spent, StoreError> {
        self.0.lock().unwrap().push(spend);
        Ok(Spent::First)
    }
}

#[derive(Debug)]
struct Down;

#[async_trait]
impl SingleUseStore for Down {
    async fn spend(&self, _: Spend) -> Result<Spent, StoreError> {
        Err(StoreError::unavailable("spending", "it is down"))
    }
}

#[tokio::test]
async fn a_nonce_is_good_once() {
    let Fixture { issuer, .. } = with(MemorySingleUse::new()).await;
    let nonce = issuer.nonce("consent", b"session 7", LIFE).unwrap();
    let other = issuer.nonce("consent", b"session 7", LIFE).unwrap();
    issuer.use_nonce("consent", b"session 7", &nonce).await.unwrap();
    for _ in 0..2 {
        let again = issuer.use_nonce("consent", b"session 7", &nonce).await;
        assert!(matches!(again, Err(NonceError::Used)), "{again:?}");
    }
    issuer.use_nonce("consent", b"session 7", &other).await.unwrap();
}

#[tokio::test]
async fn a_nonce_of_another_purpose_context_or_server_is_refused_and_not_used_up() {
    let Fixture { issuer, .. } = with(MemorySingleUse::new()).await;
    let nonce = issuer.nonce("consent", b"session 7", LIFE).unwrap();
    for (purpose, context, presented) in [
        ("sign-in", &b"session 7"[..], &*nonce),
        ("consent", b"session 8", &nonce),
        ("consent", b"session 7", &nonce[1..]),
        ("consent", b"session 7", ""),
    ] {
        let refused = issuer.use_nonce(purpose, context, presented).await;
        assert!(matches!(refused, Err(NonceError::Forged)), "{refused:?}");
    }
    issuer.use_nonce("consent", b"session 7", &nonce).await.unwrap();
}

#[tokio::test]
async fn a_nonce_ends_with_its_life() {
    let Fixture { issuer, clock, .. } = with(MemorySingleUse::new()).await;
    let (first, second) =
        (issuer.nonce("consent", b"", LIFE).unwrap(), issuer.nonce("consent", b"", LIFE).unwrap());
    clock.set(START + LIFE - std::time::Duration::from_millis(1));
    issuer.use_nonce("consent", b"", &first).await.unwrap();
    clock.set(START + LIFE);
    for nonce in [first, second] {
        let late = issuer.use_nonce("consent", b"", &nonce).await;
        assert!(matches!(late, Err(NonceError::Expired)), "{late:?}");
    }
}

/// The clocks of two nodes differ by as much as they may. For the one the nonce has expired, and the
/// store forgets what it can; for the other it is good still, and was used.
#[tokio::test]
async fn a_nonce_that_was_used_is_used_on_a_node_whose_clock_lags() {
    let store = MemorySingleUse::new();
    let (lagging, ahead) = (with(store.clone()).await, with(store.clone()).await);
    let skew = lagging.issuer.keys().policy().clock_skew;
    let nonce = lagging.issuer.nonce("consent", b"", LIFE).unwrap();
    ahead.issuer.use_nonce("consent", b"", &nonce).await.unwrap();

    let last = START + LIFE - std::time::Duration::from_millis(1);
    lagging.clock.set(last);
    ahead.clock.set(last + skew);
    for _ in 0..20 {
        let other = ahead.issuer.nonce("consent", b"", LIFE).unwrap();
        ahead.issuer.use_nonce("consent", b"", &other).await.unwrap();
    }
    let again = lagging.issuer.use_nonce("consent", b"", &nonce).await;
    assert!(matches!(again, Err(NonceError::Used)), "{again:?}");
    assert_eq!(store.len(), 21, "the store forgot it: the clocks differ by more than they may");
}

#[tokio::test]
async fn no_answer_of_the_store_is_a_refusal() {
    let Fixture { issuer, .. } = with(Down).await;
    let nonce = issuer.nonce("consent", b"", LIFE).unwrap();
    let refused = issuer.use_nonce("consent", b"", &nonce).await;
    assert!(matches!(&refused, Err(NonceError::Store(why)) if why.is_retryable()), "{refused:?}");

    // Nobody gave it a store.
    let Fixture { issuer, .. } = Fixture::new().await;
    let nonce = issuer.nonce("consent", b"", LIFE).unwrap();
    let refused = issuer.use_nonce("consent", b"", &nonce).await.unwrap_err();
    assert!(matches!(refused, NonceError::Store(StoreError::Misuse(_))), "{refused:?}");
    assert!(refused.to_string().contains("single_use"), "{refused}");
}

#[tokio::test]
async fn what_others_made_is_remembered_until_every_node_refuses_it() {
    let asked = Asked::default();
    let Fixture { issuer, .. } = with(asked.clone()).await;
    let skew = issuer.keys().policy().clock_skew;
    let item = SingleUse { purpose: "dpop", owner: "a thumbprint", value: b"a jti" };
    assert_eq!(issuer.spend_once(item, START + LIFE).await.unwrap(), Spent::First);
    let spend = Spend { id: item.id(), until: START + LIFE + skew, now: START };
    assert_eq!(asked.0.lock().unwrap().drain(..).collect::<Vec<_>>(), [spend]);

    // What has expired is no longer asked for.
    assert_eq!(issuer.spend_once(item, START).await.unwrap(), Spent::Again);
    assert!(asked.0.lock().unwrap().is_empty());
}
