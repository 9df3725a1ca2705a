use std::sync::RwLock;
use std::sync::atomic::{AtomicBool, Ordering};

use cloakroom_core::time::{Clock as _, ManualClock};

use super::super::*;
use crate::key::jwk_set::JwkSet;
use crate::test_support::*;
use crate::{ACCESS_TOKEN_TYP, Verifier, sign_jwt};

/// Nodes that start, maintain, rotate and compromise at the same time end with one ring.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_nodes_make_one_ring() {
    for _ in 0..20 {
        let (store, clock) = (RingStore::new(), clock());
        let nodes: Vec<_> = (0..8)
            .map(|_| {
                let (store, clock) = (Arc::clone(&store), Arc::clone(&clock));
                tokio::spawn(async move { manager(&store, &clock).await })
            })
            .collect();
        let mut managers = Vec::new();
        for node in nodes {
            managers.push(node.await.unwrap());
        }
        assert_eq!(store.records().len(), 2, "eight nodes made two keys");
        assert_agreed(&managers).await;

        clock.advance(secs(61));
        let from = signer(&managers[0]).await;
        let rotations: Vec<_> = managers
            .iter()
            .cloned()
            .map(|manager| tokio::spawn(async move { manager.rotate().await }))
            .collect();
        let mut rotated = 0;
        for rotation in rotations {
            match rotation.await.unwrap() {
                Ok(KeyEvent::Rotated { from: own, .. }) => {
                    assert_eq!(own, from);
                    rotated += 1;
                }
                Err(KeyManagerError::SuccessorNotKnown { .. }) => {}
                other => panic!("{other:?}"),
            }
        }
        assert!(rotated >= 1);
        clock.advance(secs(61));
        assert_agreed(&managers).await;
        assert_eq!(store.records().len(), 3, "one order, however many gave it");

        let bad = signer(&managers[0]).await;
        let orders: Vec<_> = managers
            .iter()
            .cloned()
            .map(|manager| {
                let bad = bad.clone();
                tokio::spawn(async move { manager.compromise(&bad).await })
            })
            .collect();
        let mut ends = Vec::new();
        for order in orders {
            ends.push(order.await.unwrap().unwrap());
        }
        assert!(ends.iter().all(|end| *end == ends[0]));
        clock.advance(secs(61));
        assert_agreed(&managers).await;
        assert!(!managers[7].keys().unwrap().contains(&bad));

        let generations = store.generations.lock().unwrap().clone();
        assert!(generations.is_sorted_by(|a, b| a < b), "{generations:?}");
    }
}

async fn assert_agreed(managers: &[KeyManager]) {
    let (kid, jwks) = (signer(&managers[0]).await, managers[0].jwks().await.unwrap());
    for manager in managers {
        manager.maintain().await.unwrap();
        assert_eq!(signer(manager).await, kid);
        assert_eq!(manager.jwks().await.unwrap().etag, jwks.etag);
    }
}

/// Two orders at the same moment are one, even where the key after the next is known already.
#[tokio::test]
async fn two_orders_at_once_rotate_once() {
    let (store, clock) = (RingStore::new(), clock());
    let policy = KeyPolicy::default();
    let (a, b) = (manager(&store, &clock).await, manager(&store, &clock).await);
    let until = store.records()[0].times.signing.as_ref().unwrap().until;
    clock.set(until - policy.publish_ahead);
    a.maintain().await.unwrap();
    clock.advance(policy.known_after());
    let third = store.records()[2].kid.clone();
    let first = signer(&a).await;
    let (one, other) = tokio::join!(a.rotate(), b.rotate());
    let (one, other) = (one.unwrap(), other.unwrap());
    assert_eq!(one, other);
    let KeyEvent::Rotated { from, to } = one else { panic!("{one:?}") };
    assert_eq!(from, first);
    assert_ne!(to, third);
    assert_eq!(signer(&a).await, to);
    assert_eq!(signer(&b).await, to);
}

/// While one caller waits for the store, the others sign with what there is.
#[tokio::test]
async fn nobody_waits_for_another_callers_load() {
    let clock = clock();
    let manager = manager(&RingStore::new(), &clock).await;
    let flight = manager.inner.flight.lock().await;
    clock.advance(secs(61));
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    let signing = std::pin::pin!(manager.signer());
    assert!(signing.poll(&mut context).is_ready());
    let serving = std::pin::pin!(manager.jwks());
    assert!(serving.poll(&mut context).is_pending(), "it must be fresh");
    drop(flight);
}

/// Two nodes sign without pause while keys are rotated; a verifier that fetches the JWK Set as
/// rarely as `max-age` allows knows every key it meets.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn rotation_while_requests_go_on() {
    let (store, clock) = (RingStore::new(), clock());
    let policy = KeyPolicy::default();
    let nodes = [manager(&store, &clock).await, manager(&store, &clock).await];
    let fetched = Arc::new(RwLock::new((clock.now(), fetch(&nodes[0]).await)));
    let stop = Arc::new(AtomicBool::new(false));
    let workers: Vec<_> = nodes
        .iter()
        .cloned()
        .map(|node| {
            let (clock, fetched) = (Arc::clone(&clock), Arc::clone(&fetched));
            let stop = Arc::clone(&stop);
            tokio::spawn(async move { serve(&node, clock, &fetched, &stop).await })
        })
        .collect();

    let mut signers = vec![signer(&nodes[0]).await];
    for _ in 0..6 {
        nodes[0].rotate().await.unwrap();
        signers.push(signer(&nodes[0]).await);
        tokio::task::yield_now().await;
        let ready = clock.now() + policy.known_after();
        while clock.now() < ready {
            clock.advance(policy.jwks_max_age / 4);
            nodes[1].maintain().await.unwrap();
            let copy = (clock.now(), fetch(&nodes[1]).await);
            *fetched.write().unwrap() = copy;
        }
    }
    stop.store(true, Ordering::SeqCst);
    for worker in workers {
        assert!(worker.await.unwrap() > 0);
    }
    signers.sort();
    signers.dedup();
    assert_eq!(signers.len(), 7);
}

async fn fetch(node: &KeyManager) -> KeySet {
    let json = node.jwks().await.unwrap().json.clone();
    KeySet::prepare(&JwkSet::from_json(json.as_bytes()).unwrap())
}

async fn serve(
    node: &KeyManager,
    clock: Arc<ManualClock>,
    fetched: &RwLock<(UnixTime, KeySet)>,
    stop: &AtomicBool,
) -> usize {
    let verifier = Verifier::new(ISSUER, ORDERS).clock(Arc::clone(&clock) as _);
    let mut served = 0;
    while served == 0 || !stop.load(Ordering::SeqCst) {
        // A verifier's copy is from before the request.
        let (fetched_at, keys) = fetched.read().unwrap().clone();
        let signer = node.signer().await.unwrap();
        // Since then the test's clock may have leapt: the verifier would fetch another copy.
        if clock.now() > fetched_at + KeyPolicy::default().jwks_max_age {
            tokio::task::yield_now().await;
            continue;
        }
        // A token lives through every leap.
        let now = clock.now().as_secs();
        let claims = serde_json::json!({
            "iss": ISSUER, "aud": ORDERS, "sub": "alice", "client_id": "web-app", "jti": "1",
            "iat": now, "exp": now + 86_400,
        });
        let jwt = sign_jwt(&*signer, ACCESS_TOKEN_TYP, &claims).await.unwrap();
        verifier.verify(&keys, jwt.expose()).unwrap();
        served += 1;
        tokio::task::yield_now().await;
    }
    served
}

/// What is too old for the purpose does not become good because somebody else is loading it.
#[tokio::test]
async fn while_one_loads_nobody_is_given_what_is_too_old() {
    let (store, clock) = (RingStore::new(), clock());
    let (manager, policy) = (manager(&store, &clock).await, KeyPolicy::default());
    store.down(true);
    clock.advance(policy.reload + secs(1));
    let (one, other) = tokio::join!(manager.jwks(), manager.jwks());
    assert!(one.is_err() && other.is_err());
    clock.advance(policy.max_blind);
    let (one, other) = tokio::join!(manager.signer(), manager.signer());
    assert!(one.is_err() && other.is_err());
}
