//! What each call costs, counted.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use cloakroom::core::{Audience, Random, TokenSecret};
use cloakroom::{Caller, CodeRequest, Grant, IssuerBuilder, RefreshRequest};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{SeedableRng, TryCryptoRng, TryRng};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use super::support::*;

#[tokio::test]
async fn a_new_grant_takes_two_calls() {
    let fixture = Fixture::new().await;
    for resource in [ORDERS, REPORTS, JOBS] {
        fixture.token_for(resource).await;
        assert_eq!(fixture.store.calls(), ["rules", "create"], "{resource}");
    }
    fixture.code().await;
    assert_eq!(fixture.store.calls(), ["rules", "create"]);

    let epoch = fixture.issuer.epoch().await.unwrap();
    assert_eq!(fixture.store.calls(), ["rules"], "read when the login began");
    let grant = Grant::user("web-app", "alice").unwrap().epoch(epoch);
    fixture.issuer.issue(grant).await.unwrap();
    assert_eq!(fixture.store.calls(), ["rules", "create"], "an epoch from the future is not taken");
}

#[tokio::test]
async fn a_stateless_jwt_is_never_written() {
    let fixture = Fixture::with(IssuerBuilder::stateless_jwt).await;
    let grant = Grant::client("web-app").unwrap();
    let grant = grant.audience(Audience::one(JOBS).unwrap());
    fixture.issuer.issue(grant).await.unwrap();
    assert_eq!(fixture.store.calls(), ["rules", "rules"]);
}

#[tokio::test]
async fn redeeming_refreshing_and_retrying_take_two_calls() {
    let fixture = Fixture::new().await;
    let code = fixture.code().await;
    fixture.store.calls();
    let first = Session::of(fixture.redeem(&code).await.unwrap());
    assert_eq!(fixture.store.calls(), ["find", "advance"]);
    for what in ["rotating", "retried"] {
        fixture.refresh(&first.refresh).await.unwrap();
        assert_eq!(fixture.store.calls(), ["find", "advance"], "{what}");
    }

    let shared = Session::of(fixture.sign_in("workers").await);
    fixture.store.calls();
    let request = RefreshRequest::new(shared.refresh.clone(), client_id("workers"));
    fixture.issuer.refresh(request).await.unwrap();
    assert_eq!(fixture.store.calls(), ["find", "advance"], "not rotating");
}

#[tokio::test]
async fn a_handle_is_introspected_and_swapped_with_one_call() {
    let fixture = Fixture::new().await;
    let api = fixture.client("orders-api").await;
    for resource in [ORDERS, REPORTS] {
        let token = fixture.token_for(resource).await.access_token;
        fixture.store.calls();
        assert!(fixture.is_active(&token).await);
        assert_eq!(fixture.store.calls(), ["find"], "{resource}");
    }
    let Session { access, refresh } = fixture.session().await;
    fixture.store.calls();
    let swapped = fixture.issuer.swap(&access, None, Caller::Client(&api));
    assert!(swapped.await.unwrap().is_some());
    assert_eq!(fixture.store.calls(), ["find"]);
    let own = fixture.client("web-app").await;
    let answer = fixture.issuer.introspect(&refresh, Caller::Client(&own));
    assert!(answer.await.unwrap().is_active());
    assert_eq!(fixture.store.calls(), ["find"]);

    let jwt = fixture.token_for(JOBS).await.access_token;
    fixture.store.calls();
    assert!(fixture.is_active(&jwt).await);
    assert_eq!(fixture.store.calls(), ["find", "rules"], "a JWT");
}

#[tokio::test]
async fn revoking_by_name_takes_one_call_whatever_hangs_off_it() {
    let fixture = Fixture::new().await;
    let (mut session, issuer) = (fixture.session().await, &fixture.issuer);
    for _ in 0..20 {
        session = Session::of(fixture.refresh(&session.refresh).await.unwrap());
    }
    fixture.store.calls();
    let (subject, client) = (alice(), client_id("web-app"));
    issuer.revoke_grant(grant_of(&session.access)).await.unwrap();
    assert_eq!(fixture.store.calls(), ["revoke"]);
    issuer.revoke_subject(&subject).await.unwrap();
    issuer.revoke_client(&client).await.unwrap();
    let pair = issuer.revoke_subject_at_client(&subject, &client);
    pair.await.unwrap();
    assert_eq!(fixture.store.calls(), ["revoke"; 3]);
}

#[tokio::test]
async fn a_presented_token_is_revoked_with_at_most_two_calls() {
    let fixture = Fixture::new().await;
    let (Session { access, refresh }, client) = (fixture.session().await, client_id("web-app"));
    let jwt = fixture.token_for(JOBS).await.access_token;
    fixture.store.calls();
    for handle in [&access, &refresh] {
        fixture.issuer.revoke(handle, &client).await.unwrap();
        assert_eq!(fixture.store.calls(), ["find", "revoke"]);
    }
    fixture.issuer.revoke(&jwt, &client).await.unwrap();
    assert_eq!(fixture.store.calls(), ["rules", "revoke"]);
}

/// Damaged, cut, lengthened, misspelled: everything that an attacker sends for nothing.
fn forgeries(token: &TokenSecret) -> Vec<TokenSecret> {
    let text = token.expose();
    let mut all: Vec<_> = (0..text.len()).map(|at| tampered(token, at)).collect();
    let of = |text: String| TokenSecret::new(text);
    all.push(of(format!("{text}A")));
    all.push(of(format!("{text}=")));
    all.push(of(text[..text.len() - 1].to_owned()));
    all.push(of(text.to_uppercase()));
    all.push(of(format!(" {text}")));
    all
}

#[tokio::test]
async fn a_forged_handle_never_reaches_the_store() {
    let fixture = Fixture::new().await;
    let issuer = &fixture.issuer;
    let (Session { access, refresh }, code) = (fixture.session().await, fixture.code().await);
    let jwt = fixture.token_for(JOBS).await.access_token;
    let (gateway, client) = (fixture.client("gateway").await, client_id("web-app"));
    fixture.store.calls();
    let mut tried = 0;
    for token in [&access, &refresh, &code, &jwt] {
        for forged in forgeries(token) {
            for caller in [Caller::Internal, Caller::Client(&gateway)] {
                let answer = issuer.introspect(&forged, caller).await.unwrap();
                assert!(!answer.is_active());
                let swapped = issuer.swap(&forged, Some(ORDERS), caller).await;
                assert!(swapped.unwrap().is_none());
            }
            issuer.revoke(&forged, &client).await.unwrap();
            refusal(issuer.refresh(RefreshRequest::new(forged.clone(), client.clone())).await);
            refusal(issuer.redeem(CodeRequest::new(forged, client.clone())).await);
            tried += 1;
        }
    }
    assert!(tried > 300);
    assert_eq!(fixture.store.calls(), [""; 0]);

    assert!(fixture.is_active(&access).await && fixture.is_active(&jwt).await);
    fixture.refresh(&refresh).await.unwrap();
    fixture.redeem(&code).await.unwrap();
}

#[tokio::test]
async fn one_kind_of_handle_is_never_looked_up_as_another() {
    let fixture = Fixture::new().await;
    let (Session { access, refresh }, code) = (fixture.session().await, fixture.code().await);
    fixture.store.calls();
    for (token, prefix) in [(&access, "cr_rt_"), (&refresh, "cr_ac_"), (&code, "cr_rt_")] {
        let misnamed = TokenSecret::new(format!("{prefix}{}", &token.expose()[6..]));
        refusal(fixture.refresh(&misnamed).await);
        refusal(fixture.redeem(&misnamed).await);
        assert!(!fixture.is_active(&misnamed).await);
    }
    for token in [&access, &code] {
        refusal(fixture.refresh(token).await);
    }
    for token in [&access, &refresh] {
        refusal(fixture.redeem(token).await);
    }
    assert_eq!(fixture.store.calls(), [""; 0]);
}

#[tokio::test]
async fn who_may_not_ask_costs_no_call_either() {
    let fixture = Fixture::new().await;
    let (Session { refresh, .. }, code) = (fixture.session().await, fixture.code().await);
    fixture.store.calls();
    for client in ["nobody", "orders-api"] {
        let request = RefreshRequest::new(refresh.clone(), client_id(client));
        fixture.issuer.refresh(request).await.unwrap_err();
        let request = CodeRequest::new(code.clone(), client_id(client));
        fixture.issuer.redeem(request).await.unwrap_err();
    }
    assert_eq!(fixture.store.calls(), [""; 0]);
}

/// Counts the digests that are computed on this thread.
#[derive(Clone, Default)]
struct Digests(Arc<AtomicU64>);

impl Digests {
    fn take(&self) -> u64 {
        self.0.swap(0, Ordering::SeqCst)
    }
}

impl Subscriber for Digests {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "cloakroom::digest"
    }
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, event: &Event<'_>) {
        if self.enabled(event.metadata()) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

#[tokio::test]
async fn a_presented_token_is_hashed_once() {
    let digests = Digests::default();
    let _guard = tracing::subscriber::set_default(digests.clone());
    let fixture = Fixture::new().await;
    let (Session { access, refresh }, code) = (fixture.session().await, fixture.code().await);
    let jwt = fixture.token_for(JOBS).await.access_token;
    let gateway = fixture.client("gateway").await;
    digests.take();
    for token in [&access, &refresh, &jwt] {
        fixture.is_active(token).await;
        assert_eq!(digests.take(), 1);
    }
    let swapped = fixture.issuer.swap(&access, Some(ORDERS), Caller::Client(&gateway));
    assert!(swapped.await.unwrap().is_some());
    assert_eq!(digests.take(), 1);
    // Once for what is presented, and once for each of the two tokens that are made.
    fixture.redeem(&code).await.unwrap();
    assert_eq!(digests.take(), 3);
    fixture.refresh(&refresh).await.unwrap();
    assert_eq!(digests.take(), 3);
    // The successor is not hashed again.
    fixture.refresh(&refresh).await.unwrap();
    assert_eq!(digests.take(), 2);
    for token in [&access, &refresh, &jwt] {
        fixture.issuer.revoke(token, &client_id("web-app")).await.unwrap();
        assert_eq!(digests.take(), 1);
    }
    assert!(!fixture.is_active(&tampered(&access, 40)).await);
    assert_eq!(digests.take(), 0, "forged");
}

/// A generator that writes down how many bytes are drawn at once.
#[derive(Clone)]
struct Draws(Arc<Mutex<(ChaCha20Rng, Vec<usize>)>>);

impl Draws {
    fn take(&self) -> Vec<usize> {
        std::mem::take(&mut self.0.lock().unwrap().1)
    }
}

impl TryRng for Draws {
    type Error = std::convert::Infallible;
    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        self.0.lock().unwrap().0.try_next_u32()
    }
    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        self.0.lock().unwrap().0.try_next_u64()
    }
    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Self::Error> {
        let mut inner = self.0.lock().unwrap();
        inner.1.push(bytes.len());
        inner.0.try_fill_bytes(bytes)
    }
}

impl TryCryptoRng for Draws {}

/// Every JWT draws a `jti` of 16 bytes from the issuer's generator, and is signed once (which the
/// tests of `sign_jwt` prove): whoever draws one `jti` makes one signature.
#[tokio::test]
async fn one_jwt_is_made_where_one_is_needed_and_none_elsewhere() {
    const GRANT: usize = 16;
    const JTI: usize = 16;
    const CHAIN_KEY: usize = 16;
    const SECRET: usize = 24;
    const NONCE: usize = 12;
    let draws = Draws(Arc::new(Mutex::new((ChaCha20Rng::from_seed([5; 32]), Vec::new()))));
    let fixture = Fixture::with(|builder| builder.random(Random::from_rng(draws.clone()))).await;
    draws.take();

    let grant = Grant::client("web-app").unwrap();
    let grant = grant.audience(Audience::one(JOBS).unwrap());
    let jwt = fixture.issuer.issue(grant).await.unwrap().access_token;
    assert_eq!(draws.take(), [GRANT, JTI]);
    let for_jobs = Session::of(fixture.token_for(JOBS).await);
    assert_eq!(draws.take(), [GRANT, CHAIN_KEY, SECRET, JTI]);
    fixture.refresh(&for_jobs.refresh).await.unwrap();
    assert_eq!(draws.take(), [SECRET, NONCE, JTI]);
    fixture.refresh(&for_jobs.refresh).await.unwrap();
    assert_eq!(draws.take(), [JTI], "a retry makes its own access token");
    assert!(fixture.is_active(&jwt).await);
    assert_eq!(draws.take(), [0; 0]);

    let session = fixture.session().await;
    assert_eq!(draws.take(), [GRANT, CHAIN_KEY, SECRET, SECRET], "a phantom: no JWT yet");
    let swap = || fixture.issuer.swap(&session.access, Some(ORDERS), Caller::Internal);
    swap().await.unwrap().unwrap();
    assert_eq!(draws.take(), [JTI]);
    fixture.issuer.revoke_grant(grant_of(&session.access)).await.unwrap();
    assert!(swap().await.unwrap().is_none());
    assert_eq!(draws.take(), [0; 0], "nothing is signed for a dead handle");
}
