//! How many commands the calls of the hot paths send.

use cloakroom_core::Random;
use cloakroom_core::store::{
    AdvanceOutcome, CreateOutcome, Lookup, SingleUseId, SingleUseStore as _, Spend, Spent,
    TokenStore as _,
};

use crate::proxy::Mode;
use crate::support::{DAY, NOW, grant, prefix, step, token, url};
use crate::with_redis::kit::open_behind_proxy;

#[tokio::test]
async fn a_lookup_is_one_command_and_a_login_two() {
    let (url, prefix) = (url(), prefix());
    let (proxy, store) = open_behind_proxy(&url, &prefix).await;
    let item = || Spend {
        id: SingleUseId::from_bytes(Random::system().array().unwrap()),
        until: NOW + DAY,
        now: NOW,
    };
    // The server knows the scripts from now on.
    let warm = grant(&store, "bob", "app").await;
    let _ = store.create(warm.clone(), vec![token(&warm)]).await.unwrap();
    let _ = store.advance(step(&warm).0).await.unwrap();
    let _ = store.spend(item()).await.unwrap();

    let record = grant(&store, "alice", "app").await;
    let held = token(&record);
    proxy.set(Mode::After(2));
    let created = store.create(record.clone(), vec![held.clone()]).await.unwrap();
    assert_eq!(created, CreateOutcome::Inserted);
    assert!(store.find(record.id, None).await.is_err(), "these were the two");
    proxy.set(Mode::After(1));
    let found = store.find(record.id, Some(held.digest)).await.unwrap();
    assert!(matches!(found, Lookup::Found(found) if found.token.is_some()));
    proxy.set(Mode::After(1));
    assert_eq!(store.advance(step(&record).0).await.unwrap(), AdvanceOutcome::Advanced);
    // One flight of two commands.
    proxy.set(Mode::After(2));
    assert_eq!(store.spend(item()).await.unwrap(), Spent::First);
}
