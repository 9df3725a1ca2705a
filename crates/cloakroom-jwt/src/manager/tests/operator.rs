//! What an operator sees of the keys, and ends.

use cloakroom_core::keys::schedule::KeyState;

use super::*;
use crate::manager::status::KeyStatus;
use crate::{ACCESS_TOKEN_TYP, sign_jwt};

async fn states(manager: &KeyManager) -> Vec<KeyStatus> {
    manager.states().await.unwrap()
}

#[tokio::test]
async fn the_list_shows_each_key_with_its_times_and_its_state() {
    let (store, clock) = (RingStore::new(), clock());
    let manager = manager(&store, &clock).await;
    let policy = KeyPolicy::default();
    let [now, next] = <[_; 2]>::try_from(states(&manager).await).unwrap();
    assert_eq!((now.generation, next.generation), (1, 2));
    assert_eq!((now.state, next.state), (KeyState::Signing, KeyState::Published));
    assert_eq!((now.signs_now, next.signs_now), (true, false));
    assert_eq!(&*now.algorithm, "ES256");
    assert_eq!((now.published, now.signs_from), (START, Some(START)));
    assert_eq!(now.signs_until, Some(START + policy.rotation));
    assert_eq!(now.published_until, Some(START + policy.rotation + policy.retention));
    assert_eq!(next.signs_from, now.signs_until);
    assert_eq!(now.sealed_under.as_deref(), Some("1"));
    assert_eq!(now.compromised_at, None);

    clock.advance(secs(7200));
    manager.rotate().await.unwrap();
    let all = states(&manager).await;
    assert_eq!((all[0].state, all[0].signs_now), (KeyState::Retired, false));
    assert_eq!((all[1].state, all[1].signs_now), (KeyState::Signing, true));
    clock.advance(secs(7200));
    let _ = manager.compromise(&all[1].kid).await.unwrap();
    let all = states(&manager).await;
    assert_eq!((all[1].state, all[1].compromised_at), (KeyState::Gone, Some(clock.now())));
    assert_eq!(all.iter().filter(|key| key.signs_now).count(), 1);

    let json = serde_json::to_value(&all[1]).unwrap();
    assert_eq!(json["state"], "gone");
    assert_eq!(json["compromised_at"], clock.now().as_millis());
    assert_eq!(json["kid"], all[1].kid.as_str());
}

#[tokio::test]
async fn the_list_shows_what_the_store_holds_and_what_this_node_knows() {
    let (store, clock) = (RingStore::new(), clock());
    let (one, other) = (manager(&store, &clock).await, manager(&store, &clock).await);
    assert_eq!(one.loaded_states(), states(&one).await);
    clock.advance(secs(7200));
    other.rotate().await.unwrap();
    assert_eq!(states(&one).await[0].state, KeyState::Retired, "no old copy is shown");
    assert_eq!(one.loaded_states()[0].state, KeyState::Signing, "unless that is asked for");
    let heard = states(&one).await[1].kid.clone();
    one.note_compromised(&heard, clock.now()).unwrap();
    assert_eq!(states(&one).await[1].state, KeyState::Gone);
    store.down(true);
    assert!(matches!(one.states().await, Err(KeyManagerError::Store(_))));
}

#[tokio::test]
async fn the_last_use_is_remembered_by_the_process_that_signed() {
    let (store, clock) = (RingStore::new(), clock());
    let (one, other) = (manager(&store, &clock).await, manager(&store, &clock).await);
    assert!(states(&one).await.iter().all(|key| key.last_used.is_none()));
    clock.advance(secs(7200));
    let key = one.signer().await.unwrap();
    sign_jwt(&*key, ACCESS_TOKEN_TYP, &serde_json::json!({})).await.unwrap();
    let signed = UnixTime::from_secs(clock.now().as_secs());
    let used = |all: &[KeyStatus]| all.iter().map(|key| key.last_used).collect::<Vec<_>>();
    assert_eq!(used(&states(&one).await), [Some(signed), None]);
    // It survives loads, a rotation, and a clock that went back.
    clock.advance(secs(7200));
    one.rotate().await.unwrap();
    assert_eq!(used(&states(&one).await)[..2], [Some(signed), None]);
    one.signer().await.unwrap();
    let later = UnixTime::from_secs(clock.now().as_secs());
    clock.set(signed);
    one.signer().await.unwrap();
    assert_eq!(used(&states(&one).await)[..2], [Some(signed), Some(later)]);
    assert!(states(&other).await.iter().all(|key| key.last_used.is_none()), "nobody noted it");
}

/// Operators ask another process than those that sign. So nodes note their last use when they maintain the
/// ring: together once an hour, and each once more when the key has ended.
#[tokio::test]
async fn the_last_use_is_noted_once_an_hour_for_other_processes() {
    let (store, clock) = (RingStore::new(), clock());
    let (one, two) = (manager(&store, &clock).await, manager(&store, &clock).await);
    let asked = manager(&store, &clock).await;
    let shown = async || states(&asked).await[0].last_used;
    let version = async || store.load().await.unwrap()[0].version;
    one.maintain().await.unwrap();
    let unused = version().await;
    let use_and_maintain = async |node: &KeyManager| {
        node.signer().await.unwrap();
        node.maintain().await.unwrap();
        UnixTime::from_secs(clock.now().as_secs())
    };
    let first = use_and_maintain(&one).await;
    assert_eq!((shown().await, version().await), (Some(first), unused + 1));
    // Soon after that, nobody writes again.
    clock.advance(secs(3_599));
    for node in [&one, &two] {
        use_and_maintain(node).await;
    }
    assert_eq!((shown().await, version().await), (Some(first), unused + 1));
    clock.advance(secs(1));
    let second = use_and_maintain(&two).await;
    use_and_maintain(&one).await;
    assert_eq!((shown().await, version().await), (Some(second), unused + 2));
    // When the key has ended, its last use is exact.
    clock.advance(secs(600));
    let last = UnixTime::from_secs(clock.now().as_secs());
    one.signer().await.unwrap();
    clock.advance(secs(60));
    one.rotate().await.unwrap();
    one.maintain().await.unwrap();
    assert_eq!(shown().await, Some(last));
    let ended = version().await;
    for node in [&one, &two, &one] {
        use_and_maintain(node).await;
    }
    assert_eq!((shown().await, version().await), (Some(last), ended));
}

/// A node that writes back what it has seen, and a store that refuses the write, change nothing else.
#[tokio::test]
async fn a_use_that_cannot_be_noted_stops_nothing() {
    let (store, clock) = (RingStore::new(), clock());
    let (one, other) = (manager(&store, &clock).await, manager(&store, &clock).await);
    one.signer().await.unwrap();
    // Another node ends the key between the load and the write.
    clock.advance(secs(7200));
    other.maintain().await.unwrap();
    let kid = states(&other).await[0].kid.clone();
    one.signer().await.unwrap();
    let _ = other.compromise(&kid).await.unwrap();
    one.maintain().await.unwrap();
    let stored = store.load().await.unwrap();
    assert!(stored[0].compromised_at.is_some(), "it stays compromised");
}

#[tokio::test]
async fn a_retired_signer_gives_way_and_what_it_signed_stays_valid() {
    let (store, clock) = (RingStore::new(), clock());
    let manager = manager(&store, &clock).await;
    clock.advance(secs(7200));
    let [first, second] = <[_; 2]>::try_from(kids(&manager.jwks().await.unwrap())).unwrap();
    let event = manager.retire(&first).await.unwrap();
    assert_eq!(event, KeyEvent::Rotated { from: first.clone(), to: second.clone() });
    assert_eq!(signer(&manager).await, second);
    assert!(kids(&manager.jwks().await.unwrap()).contains(&first));
    // It is done, however often it is ordered.
    let writes = store.writes.load(Ordering::SeqCst);
    let again = manager.retire(&first).await.unwrap();
    assert_eq!(again, KeyEvent::Retired { kid: first.clone() });
    assert_eq!(store.writes.load(Ordering::SeqCst), writes);
    // Nobody knows a successor of the second yet.
    let error = manager.retire(&second).await.unwrap_err();
    assert!(matches!(error, KeyManagerError::SuccessorNotKnown { .. }), "{error:?}");
    assert_eq!(signer(&manager).await, second);
    let unknown = Kid::new("unknown").unwrap();
    let error = manager.retire(&unknown).await.unwrap_err();
    assert!(matches!(error, KeyManagerError::UnknownKid(_)), "{error:?}");
}

#[tokio::test]
async fn a_key_that_is_retired_before_its_turn_never_signs() {
    let (store, clock) = (RingStore::new(), clock());
    let manager = manager(&store, &clock).await;
    clock.advance(secs(7200));
    let policy = KeyPolicy::default();
    let [first, second] = <[_; 2]>::try_from(kids(&manager.jwks().await.unwrap())).unwrap();
    let event = manager.retire(&second).await.unwrap();
    assert_eq!(event, KeyEvent::Retired { kid: second.clone() });
    assert_eq!(signer(&manager).await, first);
    let ended = clock.now();
    let status = |all: Vec<KeyStatus>| all.into_iter().find(|key| key.kid == second);
    let of_second = status(states(&manager).await).unwrap();
    assert_eq!(of_second.state, KeyState::Retired);
    // A node with an older copy may sign with it, so it stays published.
    assert_eq!(of_second.published_until, Some(ended + policy.retention));
    assert!(kids(&manager.jwks().await.unwrap()).contains(&second));
    let mut signers = std::collections::BTreeSet::new();
    for _ in 0..2 * 70 * 24 {
        clock.advance(secs(1800));
        manager.maintain().await.unwrap();
        signers.insert(signer(&manager).await);
    }
    assert!(signers.len() >= 2 && !signers.contains(&second), "{signers:?}");
}

/// Generating an RSA key takes tens of milliseconds, in which the thread would serve no request.
#[test]
fn keys_are_generated_beside_the_threads_that_serve_requests() {
    let runtime =
        tokio::runtime::Builder::new_current_thread().max_blocking_threads(1).build().unwrap();
    runtime.block_on(async {
        // The only thread for long work is busy.
        let (open, gate) = std::sync::mpsc::channel::<()>();
        let busy = tokio::task::spawn_blocking(move || gate.recv());
        let building = KeyManager::builder(RingStore::new(), sealer())
            .algorithm(Algorithm::Rs256)
            .clock(clock());
        let building = tokio::spawn(async { building.build().await.unwrap().signer().await });
        for _ in 0..1000 {
            tokio::task::yield_now().await;
        }
        assert!(!building.is_finished(), "a thread that serves requests made the keys");
        open.send(()).unwrap();
        busy.await.unwrap().unwrap();
        building.await.unwrap().unwrap();
    });
}
