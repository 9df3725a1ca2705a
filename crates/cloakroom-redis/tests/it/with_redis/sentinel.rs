//! Sentinels: the kit over them, and a fail-over.

use std::sync::{Arc, Mutex};

use cloakroom_conformance::run_all;
use cloakroom_core::revocation::{LogNotifications, Target};
use cloakroom_core::store::{Housekeeping, TokenStore as _};
use cloakroom_redis::{OpenError, RedisStore};
use futures_util::StreamExt as _;

use crate::support::{DAY, NOW, grant, revocation, token};
use crate::topology::Watched;
use crate::with_redis::cluster::{Stores, only_the_last_is_lost, worked};
use crate::with_redis::kit::open;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn it_passes() {
    let watched = Watched::start();
    run_all(Stores { url: watched.url() }).await.assert_ok();
}

/// The login in the URL is that of the master.
#[tokio::test]
async fn a_sentinel_may_have_a_login_of_its_own() {
    let watched = Watched::start();
    let user = ["ACL", "SETUSER", "default", "resetpass", ">hunter2"];
    assert_eq!(watched.sentinels[0].says(&user).trim(), "OK");
    let url = format!("redis+sentinel://{}/main", watched.sentinels[0].address());
    let error = RedisStore::connect(&url).await.unwrap_err();
    assert!(matches!(error, OpenError::Store(_)), "{error}");
    let builder = RedisStore::builder(&url).sentinel_login("default", "hunter2");
    let store = builder.connect().await.unwrap();
    store.heartbeat(NOW, NOW + DAY).await.unwrap();
}

/// The driver asks each server whether it is a master.
#[tokio::test]
async fn a_user_with_the_documented_rights_suffices_and_needs_info() {
    let watched = Watched::start();
    let rights = "ACL SETUSER shop on >hunter2 ~{shop}* ~{shop.* +@all -@admin -@dangerous";
    let rights: Vec<&str> = rights.split(' ').collect();
    assert_eq!(watched.master.says(&rights).trim(), "OK");
    let open =
        || RedisStore::builder(&watched.url()).login("shop", "hunter2").prefix("shop").connect();
    let error = open().await.unwrap_err();
    assert!(matches!(error, OpenError::Store(_)), "{error}");
    assert_eq!(watched.master.says(&["ACL", "SETUSER", "shop", "+info"]).trim(), "OK");
    let store = open().await.unwrap();
    let record = grant(&store, "alice", "app").await;
    let held = token(&record);
    let _ = store.create(record.clone(), vec![held]).await.unwrap();
    store.revoke(revocation(Target::Subject(record.subject.clone()))).await.unwrap();
    let task = Housekeeping { now: NOW, before: NOW, limit: 10, sweep: None };
    store.maintain(task).await.unwrap();
}

/// The stores find the new master by themselves, and the streams of their readers go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_promoted_replica_is_found() {
    let watched = Watched::start();
    let url = watched.url();
    // The sentinels are needed until the end.
    let watched = Arc::new(Mutex::new(watched));
    let ended = Arc::clone(&watched);
    let reader = open(&url, "a").await;
    let LogNotifications::Stream(mut woken) = reader.wakeups() else { panic!("there is a stream") };
    woken.next().await.unwrap();
    let (store, works) = worked(&url, move || {
        let mut watched = ended.lock().unwrap();
        watched.master.replicate("b");
        watched.master.kill();
        watched.until_promoted();
    })
    .await;
    only_the_last_is_lost(&store, works).await;
    while reader.heartbeat(NOW, NOW + DAY).await.is_err() {
        tokio::task::yield_now().await;
    }
    woken.next().await.unwrap();
}
