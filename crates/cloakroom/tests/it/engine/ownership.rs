//! Whose store it is, and what `build` says to whoever it is not.

use std::sync::Arc;

use cloakroom::core::handle::*;
use cloakroom::core::store::*;
use cloakroom::core::time::*;
use cloakroom::core::*;
use cloakroom::jwt::AesGcmSealer;
use cloakroom::memory::MemoryStore;
use cloakroom::{ApprovedRequest, BuildError, Caller, Client, Issuer, IssuerBuilder, TokenError};

use super::store::ProbeStore;
use super::support::*;

const RENAMED: &str = "https://id.example";

fn secret(id: u8) -> HandleSecret {
    HandleSecret::new(id, [id; 32])
}

/// An issuer of this URL with secret 1, over this store.
fn over(store: &Arc<ProbeStore>, url: &str, keys: HandleKeys) -> IssuerBuilder {
    builder(store, &Arc::new(ManualClock::at(START))).url(url).handle_keys(keys)
}

async fn refused(builder: IssuerBuilder) -> (&'static str, String) {
    match builder.build().await.unwrap_err() {
        BuildError::Setting { setting, why } => (setting, why),
        other => panic!("{other:?}"),
    }
}

async fn values(store: &ProbeStore) -> Vec<CheckValue> {
    store.check_values().await.unwrap()
}

async fn signed_in(issuer: &Issuer) -> Session {
    let grant = cloakroom::Grant::user("web-app", "alice").unwrap();
    Session::of(issuer.issue(grant).await.unwrap())
}

async fn is_active(issuer: &Issuer, token: &TokenSecret) -> bool {
    issuer.introspect(token, Caller::Internal).await.unwrap().is_active()
}

#[tokio::test]
async fn an_issuer_is_not_built_over_the_store_of_another() {
    let fixture = Fixture::new().await;
    let session = fixture.session().await;
    let before = values(&fixture.store).await;
    let (setting, why) = refused(over(&fixture.store, RENAMED, handles())).await;
    assert_eq!(setting, "issuer");
    for part in [ISSUER, RENAMED, "former_issuer", "TenantStore", "the token store"] {
        assert!(why.contains(part), "{why}");
    }
    assert_eq!(values(&fixture.store).await, before, "nothing was written");
    // The key store of its own does not help.
    let stores = over(&fixture.store, RENAMED, handles()).key_store(Arc::new(MemoryStore::new()));
    assert_eq!(refused(stores).await.0, "issuer");
    let tokens = over(&fixture.store, RENAMED, handles()).token_store(Arc::new(MemoryStore::new()));
    assert!(refused(tokens).await.1.contains("the key store"));
    // A key store of one's own has its issuer as well.
    let keys = Arc::new(MemoryStore::new());
    let apart = |url| {
        let builder = over(&ProbeStore::new(fixture.clock.clone()), url, handles());
        builder.key_store(keys.clone())
    };
    apart(ISSUER).build().await.unwrap();
    assert!(refused(apart(RENAMED)).await.1.contains("the key store"));
    // The store's own issuer goes on.
    over(&fixture.store, ISSUER, handles()).build().await.unwrap();
    assert!(fixture.is_active(&session.access).await);
}

#[tokio::test]
async fn a_renamed_issuer_keeps_its_sessions() {
    let fixture = Fixture::new().await;
    let session = fixture.session().await;
    let jwt = fixture.token_for(JOBS).await.access_token;
    let spent = fixture.refresh(&session.refresh).await.unwrap();
    let renamed = over(&fixture.store, RENAMED, handles()).former_issuer(ISSUER);
    let renamed = renamed.build().await.unwrap();
    for token in [&session.access, &spent.access_token, &jwt] {
        assert!(is_active(&renamed, token).await);
    }
    // The answer of before the change was lost: the same successor again.
    let again = renamed.refresh(refreshing(&session.refresh)).await.unwrap();
    let successor = again.refresh_token.unwrap();
    assert_eq!(successor.expose(), spent.refresh_token.unwrap().expose());
    let next = renamed.refresh(refreshing(&successor)).await.unwrap();
    assert!(is_active(&renamed, &next.access_token).await);
    // The old name has lost its store.
    let (setting, why) = refused(over(&fixture.store, ISSUER, handles())).await;
    assert!(setting == "issuer" && why.contains(RENAMED), "{why}");
    // Without the former name what it signed does not open.
    let forgot = over(&fixture.store, RENAMED, handles()).build().await;
    assert!(matches!(forgot, Err(BuildError::Keys(_))), "{forgot:?}");
    let bad = over(&fixture.store, RENAMED, handles()).former_issuer("as.example");
    assert_eq!(refused(bad).await.0, "issuer");
}

#[tokio::test]
async fn a_mistyped_handle_secret_is_noticed() {
    let fixture = Fixture::new().await;
    let before = values(&fixture.store).await;
    let mistyped = HandleKeys::new(&HandleSecret::new(1, [0xab; 32]));
    let (setting, why) = refused(over(&fixture.store, ISSUER, mistyped.clone())).await;
    assert_eq!(setting, "handle_keys");
    assert!(why.contains("the handle secret 1") && why.contains("`with_former`"), "{why}");
    // A former one is compared as well, and one that was forgotten is missed.
    let typo = HandleKeys::new(&secret(2)).with_former(&HandleSecret::new(1, [9; 32])).unwrap();
    assert!(refused(over(&fixture.store, ISSUER, typo)).await.1.contains("the handle secret 1"));
    let (_, why) = refused(over(&fixture.store, ISSUER, HandleKeys::new(&secret(2)))).await;
    assert!(why.contains("missing here") && why.contains("with_retired(1)"), "{why}");
    assert_eq!(values(&fixture.store).await, before, "nothing was written");
    let shown: String = before.iter().map(|value| format!("{value:?}")).collect();
    assert!(!shown.contains("1, 1, 1, 1") && !why.contains("ab"), "{shown}");
    // A store of its own remembers nothing of it.
    let fresh = ProbeStore::new(fixture.clock.clone());
    over(&fresh, ISSUER, mistyped).build().await.unwrap();
}

#[tokio::test]
async fn a_secret_that_was_given_up_says_so() {
    let fixture = Fixture::new().await;
    let session = fixture.session().await;
    let renewed = || HandleKeys::new(&secret(2));
    let retired = renewed().with_retired(1).unwrap();
    let issuer = over(&fixture.store, ISSUER, retired).build().await.unwrap();
    assert!(!is_active(&issuer, &session.access).await, "it is refused, and no outage");
    refusal(issuer.refresh(refreshing(&session.refresh)).await);
    // It is remembered, and its id is not used again.
    over(&fixture.store, ISSUER, renewed()).build().await.unwrap();
    let again = renewed().with_former(&secret(1)).unwrap();
    let (_, why) = refused(over(&fixture.store, ISSUER, again)).await;
    assert!(why.contains("must not be used again"), "{why}");
}

#[tokio::test]
async fn nodes_that_start_at_once_agree_or_are_told() {
    for (other, agree) in
        [(handles(), true), (HandleKeys::new(&HandleSecret::new(1, [2; 32])), false)]
    {
        let store = ProbeStore::new(Arc::new(ManualClock::at(START)));
        let (first, second) = tokio::join!(
            over(&store, ISSUER, handles()).build(),
            over(&store, ISSUER, other).build(),
        );
        assert!(first.is_ok() || second.is_ok(), "{first:?} {second:?}");
        assert_eq!(first.is_ok() && second.is_ok(), agree);
    }
}

/// Secret 2 replaces secret 1, on one node after the other, in whatever order: no good token is ever
/// called invalid.
#[tokio::test]
async fn a_new_handle_secret_reaches_one_node_after_the_other() {
    let fixture = Fixture::new().await;
    let old_node = &fixture.issuer;
    let keys_of =
        |issuer: &Issuer, token: &TokenSecret| issuer.access_handle_keys().check(token.expose());
    let old = fixture.session().await;
    let keys = || HandleKeys::new(&secret(2)).with_former(&secret(1)).unwrap();

    // In one step: the other node does not know the secret yet.
    let new_node = over(&fixture.store, ISSUER, keys()).build().await.unwrap();
    let new = signed_in(&new_node).await;
    let code = {
        let grant = cloakroom::Grant::user("web-app", "alice").unwrap();
        new_node.authorize(ApprovedRequest::new(grant, CALLBACK).pkce(challenge())).await.unwrap()
    };
    let unsure = |result: Result<(), TokenError>| {
        assert!(matches!(result, Err(TokenError::Unavailable(_))), "{result:?}");
    };
    unsure(old_node.introspect(&new.access, Caller::Internal).await.map(drop));
    unsure(old_node.introspect(&new.refresh, Caller::Internal).await.map(drop));
    unsure(old_node.swap(&new.access, Some(ORDERS), Caller::Internal).await.map(drop));
    unsure(old_node.refresh(refreshing(&new.refresh)).await.map(drop));
    unsure(old_node.redeem(redemption(&code)).await.map(drop));
    unsure(old_node.revoke(&new.access, &client_id("web-app")).await);
    unsure(old_node.revoke(&new.refresh, &client_id("web-app")).await);
    // A gateway learns from the keys that it has whom to ask.
    assert_eq!(keys_of(old_node, &new.access), HandleCheck::UnknownKey);
    assert!(matches!(keys_of(&new_node, &new.access), HandleCheck::Genuine(_)));
    // Junk of a secret that nobody has is junk, and what a node has itself it judges itself.
    let junk = HandleKeys::new(&secret(3)).for_issuer(ISSUER, &[]);
    let junk = junk.mint_access(GrantId::from_bytes([1; 16]), &Random::system()).unwrap().0;
    assert!(!is_active(old_node, &junk).await && !is_active(&new_node, &junk).await);
    for node in [old_node, &new_node] {
        assert!(is_active(node, &old.access).await);
    }
    // It restarts with its old settings: it is told what it lacks.
    let (_, why) = refused(over(&fixture.store, ISSUER, handles())).await;
    assert!(why.contains("other nodes have the handle secret 2"), "{why}");
    // Then with the new ones.
    let old_node = over(&fixture.store, ISSUER, keys()).build().await.unwrap();
    assert!(is_active(&old_node, &new.access).await && is_active(&old_node, &old.access).await);
    old_node.redeem(redemption(&code)).await.unwrap();

    // In two steps nobody is ever unsure.
    let fixture = Fixture::new().await;
    let known = || handles().with_former(&secret(2)).unwrap();
    let node = over(&fixture.store, ISSUER, known()).build().await.unwrap();
    let other = over(&fixture.store, ISSUER, known()).build().await.unwrap();
    assert!(is_active(&fixture.issuer, &signed_in(&node).await.access).await);
    let node = {
        drop(node);
        over(&fixture.store, ISSUER, keys()).build().await.unwrap()
    };
    let (new, old) = (signed_in(&node).await, signed_in(&other).await);
    assert!(is_active(&other, &new.access).await && is_active(&node, &old.access).await);
}

/// Junk under an invented key costs one read at a time, and none where it is no handle.
#[tokio::test]
async fn junk_of_an_unknown_secret_is_told_apart_in_shared_reads() {
    let fixture = Fixture::new().await;
    let stranger = HandleKeys::new(&secret(9)).for_issuer(ISSUER, &[]);
    let junk: Vec<_> = (0..50)
        .map(|n| stranger.mint_access(GrantId::from_bytes([n; 16]), &Random::system()).unwrap().0)
        .collect();
    let asked = junk.iter().map(|token| fixture.issuer.introspect(token, Caller::Internal));
    fixture.store.value_reads();
    for answer in futures_util::future::join_all(asked).await {
        assert!(!answer.unwrap().is_active());
    }
    assert_eq!(fixture.store.value_reads(), 2, "one that had begun, and one for all that waited");
    let foreign = TokenSecret::new("cr_at_short");
    assert!(!fixture.is_active(&foreign).await);
    assert_eq!(fixture.store.value_reads(), 0);
}

#[tokio::test]
async fn a_store_of_tenants_is_no_store_of_one_issuer() {
    let store = Arc::new(MemoryStore::new());
    let tenant = Arc::new(TenantStore::new(Arc::clone(&store), "acme").unwrap());
    let build = |builder: IssuerBuilder| {
        let sealer = Arc::new(AesGcmSealer::new(1, [2; 32]));
        builder.handle_keys(handles()).sealer(sealer).static_clients([] as [Client; 0]).unwrap()
    };
    build(Issuer::builder(ISSUER).store(tenant)).build().await.unwrap();
    let (setting, why) = refused(build(Issuer::builder(ISSUER).store(Arc::clone(&store)))).await;
    assert_eq!(setting, "store");
    assert!(why.contains(r#"TenantStore::new(store, "acme")"#), "{why}");
    // Nor the other way round.
    let store = Arc::new(MemoryStore::new());
    build(Issuer::builder(ISSUER).store(Arc::clone(&store))).build().await.unwrap();
    let tenant = Arc::new(TenantStore::new(store, "acme").unwrap());
    let refused = build(Issuer::builder(RENAMED).store(tenant)).build().await;
    assert!(matches!(refused, Err(BuildError::Store(_))), "{refused:?}");
}
