//! PostgreSQL: a streaming standby takes over.

use cloakroom::core::Subject;
use cloakroom::core::revocation::{Cursor, RevocationBatch};
use cloakroom::core::store::TokenStore as _;
use cloakroom::postgres::{ConnectError, PostgresStore};
use cloakroom::{Grant, TokenError};

use crate::failover::load;
use crate::failover::patroni::open;
use crate::standby::servers::Pair;
use crate::standby::{is_active, log_in, patiently, server};

/// The end of the log.
async fn end_of_log(store: &PostgresStore) -> Cursor {
    match store.revocations(Cursor::start(), 4_000).await.unwrap() {
        RevocationBatch::Entries { next, more: false, .. } => next,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_asynchronous_standby_lacks_is_noticed_and_revoked_again() {
    let mut pair = Pair::start(false).await;
    let (one, events) = server(open(&pair.url()).await).await;
    let alice = log_in(&one, "alice").await;
    let bob = log_in(&one, "bob").await;
    let carol = log_in(&one, "carol").await;
    pair.until_replayed().await;

    // The stream stops, and nobody knows.
    pair.stream.cut(true);
    patiently(|| one.revoke_grant(alice.grant)).await;
    let subject = Subject::user("bob").unwrap();
    patiently(|| one.revoke_subject(&subject)).await;
    let lost = log_in(&one, "dora").await;
    let store = PostgresStore::connect(&pair.url()).await.unwrap();
    let read = end_of_log(&store).await;
    pair.fail_over().await;

    events.until_regressed().await;
    for revoked in [&alice, &bob, &lost] {
        assert!(!is_active(&one, revoked).await);
    }
    assert!(is_active(&one, &carol).await);
    let store = PostgresStore::connect(&pair.url()).await.unwrap();
    let after = store.revocations(read, 10).await.unwrap();
    assert!(matches!(after, RevocationBatch::Gap), "{after:?}");
    // The database itself has the revocations again: another server knows nothing else.
    let (other, _) = server(open(&pair.url()).await).await;
    assert!(!is_active(&other, &alice).await);
    assert!(!is_active(&other, &bob).await);
    assert!(is_active(&other, &carol).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_synchronous_standby_lacks_nothing() {
    let mut pair = Pair::start(true).await;
    let (one, events) = server(open(&pair.url()).await).await;
    let alice = log_in(&one, "alice").await;
    let bob = log_in(&one, "bob").await;
    patiently(|| one.revoke_grant(alice.grant)).await;
    // What the standby does not get is not acknowledged.
    pair.stream.cut(true);
    let unheard = one.issue(Grant::user(load::APP, "dora").unwrap()).await;
    assert!(
        matches!(unheard, Err(TokenError::Store(_) | TokenError::Unavailable(_))),
        "{unheard:?}"
    );
    pair.fail_over().await;

    let (other, _) = server(open(&pair.standby.url()).await).await;
    for issuer in [&one, &other] {
        assert!(!is_active(issuer, &alice).await);
        assert!(is_active(issuer, &bob).await);
        log_in(issuer, "carol").await;
    }
    // Each has read the log by now, or it would not vouch.
    assert_eq!(events.regressions(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_that_is_given_by_mistake_is_refused() {
    let pair = Pair::start(false).await;
    let builder = PostgresStore::builder(&pair.standby.url());
    for error in [
        builder.clone().connect().await.unwrap_err(),
        builder.clone().migrate().await.unwrap_err(),
        builder.transaction_pooler(true).connect().await.unwrap_err(),
    ] {
        assert!(matches!(error, ConnectError::ReadOnly), "{error:?}");
    }
    let (issuer, _) = server(open(&pair.url()).await).await;
    log_in(&issuer, "alice").await;
}
