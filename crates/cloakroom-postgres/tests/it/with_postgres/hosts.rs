//! Several hosts in the URL: the store finds the one that accepts writes.

use std::time::Duration;

use cloakroom_core::store::TokenStore as _;
use cloakroom_postgres::{ConnectError, PostgresStore};
use tokio::net::TcpListener;

use crate::proxy::{Mode, Proxy};
use crate::server::schema;
use crate::support::{DAY, NOW};

/// The URL with more hosts before and after its own.
fn among(url: &str, before: &[u16], after: &[u16]) -> String {
    let (user, rest) = url.rsplit_once('@').unwrap();
    let (host, rest) = rest.split_once('/').unwrap();
    let local = |port: &u16| format!("127.0.0.1:{port}");
    let all: Vec<String> =
        before.iter().map(local).chain([host.to_owned()]).chain(after.iter().map(local)).collect();
    format!("{user}@{}/{rest}", all.join(","))
}

/// A host that accepts connections and says nothing, like a server that was stopped.
async fn mute() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

/// A port at which nobody listens.
async fn nobody() -> u16 {
    mute().await.1
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_does_not_answer_holds_nobody_up() {
    let proxy = Proxy::start().await;
    let (mute, nobody) = (mute().await, nobody().await);
    for (before, after) in [
        (vec![mute.1], vec![]),
        (vec![], vec![mute.1]),
        (vec![nobody, mute.1], vec![nobody]),
        (vec![mute.1, nobody, mute.1], vec![mute.1]),
    ] {
        let url = among(proxy.url(), &before, &after);
        // Until its end, an attempt would wait for the host that says nothing.
        let builder = PostgresStore::builder(&url).schema(schema());
        let store = builder.connect_timeout(Duration::from_secs(30)).connect().await.unwrap();
        store.heartbeat(NOW, NOW + DAY).await.unwrap();
        proxy.cut().await;
        // It may have been sent on the connection that ended.
        let _ = store.heartbeat(NOW, NOW + DAY).await;
        store.heartbeat(NOW, NOW + DAY).await.unwrap();
    }
}

/// Two ways to the server, the first of which ends: all go on over the other one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_store_follows_the_primary_to_another_host() {
    let (one, other) = (Proxy::start().await, Proxy::start().await);
    let (_, rest) = other.url().rsplit_once("127.0.0.1:").unwrap();
    let port = rest.split_once('/').unwrap().0.parse().unwrap();
    let url = among(one.url(), &[], &[port]);
    let store = PostgresStore::builder(&url).schema(schema()).connect().await.unwrap();
    for (dead, alive) in [(&one, &other), (&other, &one), (&one, &other)] {
        alive.set(Mode::Works).await;
        dead.set(Mode::After(0)).await;
        while store.heartbeat(NOW, NOW + DAY).await.is_err() {}
        store.heartbeat(NOW, NOW + DAY).await.unwrap();
    }
}

/// All hosts are standbys, or one of them cannot be reached and may be the primary.
#[tokio::test]
async fn only_if_all_hosts_are_standbys_the_store_says_so() {
    let proxy = Proxy::start().await;
    let nobody = nobody().await;
    let connect = async |before: &[u16], after: &[u16]| {
        let url = among(proxy.url(), before, after);
        let url = format!("{url}&options=-c%20default_transaction_read_only%3Don");
        PostgresStore::builder(&url).schema(schema()).connect().await.unwrap_err()
    };
    let (_, rest) = proxy.url().rsplit_once("127.0.0.1:").unwrap();
    let same = rest.split_once('/').unwrap().0.parse().unwrap();
    for (before, after) in [(vec![], vec![]), (vec![same], vec![same])] {
        let error = connect(&before, &after).await;
        assert!(matches!(error, ConnectError::ReadOnly), "{error:?}");
    }
    for (before, after) in [(vec![nobody], vec![]), (vec![], vec![nobody])] {
        let error = connect(&before, &after).await;
        assert!(matches!(error, ConnectError::Store(_)), "{error:?}");
    }
}
