//! A master is cut off with the authorization server on its side, while the other side promotes its replica.

use std::sync::Arc;
use std::time::Duration;

use cloakroom::core::revocation::{Cursor, LogEvent, RevocationBatch};
use cloakroom::core::store::TokenStore as _;
use cloakroom::core::{Subject, TokenSecret};
use cloakroom::redis::RedisStore;
use cloakroom::{Caller, Event, EventSink, Grant, Introspection, Issuer};
use tokio::task::yield_now;

use crate::failover::load::{APP, HEARTBEAT, STALENESS, server};
use crate::failover::redis_node::{Node, patiently};

#[derive(Debug)]
struct Nowhere;

impl EventSink for Nowhere {
    fn record(&self, _: &Event) {}
}

/// Two halves of a network, each with a Redis server and an authorization server.
struct Halves {
    master: Node,
    replica: Node,
    /// On the side of the master.
    here: Issuer,
    store: RedisStore,
    /// Of a user who logged in before.
    token: TokenSecret,
    alice: Subject,
}

async fn open(url: &str) -> RedisStore {
    let builder = RedisStore::builder(url).connect_timeout(Duration::from_secs(2));
    builder.response_timeout(Duration::from_secs(1)).connect().await.unwrap()
}

async fn issuer(store: RedisStore) -> Issuer {
    let issuer = server(store, Arc::new(Nowhere)).await;
    let maintained = issuer.clone();
    tokio::spawn(async move { maintained.run_maintenance().await });
    issuer
}

impl Halves {
    /// Alice logs in and is replicated. Then the network breaks, and the other side logs her out everywhere. The
    /// master has these settings.
    async fn new(settings: &[[&str; 2]]) -> Self {
        let quick = "--repl-diskless-sync-delay 0".to_owned();
        let master = Node::start(async |_, _| vec![quick]).await;
        let of = format!("--replicaof 127.0.0.1 {}", master.front.port);
        let replica = Node::start(async |_, _| vec![of]).await;
        patiently("a replica", || {
            master.says(&["INFO", "replication"]).contains("state=online").then_some(())
        })
        .await;
        let here = issuer(open(&master.url()).await).await;
        let store = open(&master.url()).await;
        let login = loop {
            // It vouches for nothing before its first heartbeat.
            if let Ok(login) = here.issue(Grant::user(APP, "alice").unwrap()).await {
                break login;
            }
        };
        let alice = Subject::user("alice").unwrap();
        let copied = || {
            let offset = |node: &Node| {
                let info = node.says(&["INFO", "replication"]);
                let mut lines = info.lines();
                lines.find_map(|line| line.strip_prefix("master_repl_offset:")).map(str::to_owned)
            };
            (offset(&replica) >= offset(&master)).then_some(())
        };
        let token = login.access_token;
        patiently("her login on the replica", copied).await;
        for [name, value] in settings {
            assert_eq!(master.says(&["CONFIG", "SET", name, value]), "OK");
        }
        master.front.cut(true);
        assert_eq!(replica.says(&["REPLICAOF", "NO", "ONE"]), "OK");
        let there = issuer(open(&replica.url()).await).await;
        there.revoke_subject(&alice).await.unwrap();
        while !matches!(
            there.introspect(&token, Caller::Internal).await,
            Ok(Introspection::Inactive)
        ) {
            yield_now().await;
        }
        Self { master, replica, here, store, token, alice }
    }

    /// Whether the server on the master's side calls the token active.
    async fn is_open(&self) -> bool {
        let answer = self.here.introspect(&self.token, Caller::Internal).await;
        matches!(answer, Ok(Introspection::Active(_)))
    }

    /// Waits until the master has taken so many heartbeats more.
    async fn beats(&self, count: usize) {
        let (mut cursor, mut seen) = (Cursor::start(), None);
        loop {
            let RevocationBatch::Entries { entries, next, more, .. } =
                self.store.revocations(cursor, 1_000).await.unwrap()
            else {
                panic!("a gap")
            };
            let beats = entries.iter().filter(|it| it.event == LogEvent::Heartbeat {}).count();
            // Those of before do not count.
            seen = match seen {
                None if more => None,
                None => Some(0),
                Some(before) => Some(before + beats),
            };
            if seen.is_some_and(|seen| seen >= count) {
                return;
            }
            cursor = next;
            yield_now().await;
        }
    }

    /// The network is mended, and the former master follows the new one.
    async fn mend(&self) {
        self.master.front.cut(false);
        let port = self.replica.url().rsplit_once(':').unwrap().1.to_owned();
        assert_eq!(self.master.says(&["REPLICAOF", "127.0.0.1", &port]), "OK");
        while self.is_open().await {
            yield_now().await;
        }
    }
}

/// Its master takes heartbeats as before, so the server on its side cannot know better: what the other side has
/// revoked stays open until the network is mended.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_master_that_writes_alone_keeps_everything_open() {
    let halves = Halves::new(&[]).await;
    let beats = STALENESS.as_millis() / HEARTBEAT.as_millis() + 2;
    halves.beats(beats as usize).await;
    assert!(halves.is_open().await);
    // What it acknowledges meanwhile is lost.
    halves.here.revoke_subject(&halves.alice).await.unwrap();
    assert!(!halves.is_open().await);
    halves.mend().await;
}

/// With `min-replicas-to-write` it takes no heartbeat, and with `max_log_staleness` the server then stops.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_master_that_needs_its_replica_closes() {
    let settings = [["min-replicas-to-write", "1"], ["min-replicas-max-lag", "1"]];
    let halves = Halves::new(&settings).await;
    while halves.is_open().await {
        yield_now().await;
    }
    for _ in 0..100 {
        assert!(!halves.is_open().await);
    }
    assert!(halves.here.revoke_subject(&halves.alice).await.is_err());
    halves.mend().await;
}
