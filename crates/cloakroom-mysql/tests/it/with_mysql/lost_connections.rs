//! Connections that are killed by the server, cut, or silent.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cloakroom_core::keys::KeyStore as _;
use cloakroom_core::record::GrantRecord;
use cloakroom_core::revocation::{Cursor, Epoch, LogEntry, RevocationBatch, Target};
use cloakroom_core::store::{
    AdvanceOutcome, CreateOutcome, Housekeeping, Lookup, StoreError, TokenStore as _,
};
use cloakroom_core::{GrantId, TokenDigest};
use cloakroom_mysql::MysqlStore;
use futures_util::future::join_all;
use futures_util::poll;

use crate::proxy::Mode;
use crate::server::{Admin, Tables};
use crate::support::{DAY, NOW, grant, revocation, step, token};

/// An outage has a source, and nothing else happens.
fn is_outage(error: &StoreError) {
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error:?}");
    assert!(std::error::Error::source(error).is_some(), "{error:?}");
}

/// The server kills sessions at random, in the middle of everything. What was acknowledged stays, each step has
/// one winner, and a call that failed can be made again.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sessions_are_killed_at_any_statement() {
    let (tables, proxy) = Tables::behind_proxy().await;
    let store = tables.open().await;
    let ended = Arc::new(AtomicBool::new(false));
    let killer = tokio::spawn({
        let (proxy, ended) = (Arc::clone(&proxy), Arc::clone(&ended));
        async move {
            let mut admin = Admin::connect().await;
            let mut killed = 0;
            while !ended.load(Ordering::Acquire) {
                // The newest are those in use.
                let sessions = proxy.sessions();
                for session in sessions.iter().rev().take(3) {
                    use cloakroom_mysql::mysql_async::prelude::Queryable as _;
                    killed +=
                        u32::from(admin.0.query_drop(format!("KILL {session}")).await.is_ok());
                }
                tokio::time::sleep(Duration::from_millis(4)).await;
            }
            killed
        }
    });
    let tasks = (0..6).map(|_| tokio::spawn(live(store.clone())));
    let lives = join_all(tasks).await;
    ended.store(true, Ordering::Release);
    assert!(killer.await.unwrap() > 50);
    let mut failed = 0;
    for life in lives {
        let life = life.unwrap();
        failed += life.failed;
        for (id, generation) in life.generations {
            let Lookup::Found(found) = store.find(id, None).await.unwrap() else { panic!("gone") };
            assert_eq!(found.grant.chain.as_ref().unwrap().generation, generation);
            assert!(found.grant.revoked_at.is_some(), "an acknowledged revocation is lost");
        }
    }
    assert!(failed > 0, "nothing was killed in the middle");
}

struct Life {
    generations: BTreeMap<GrantId, u32>,
    failed: u32,
}

/// Grants from their creation to their revocation. Each call is made until it is acknowledged.
async fn live(store: MysqlStore) -> Life {
    let mut life = Life { generations: BTreeMap::new(), failed: 0 };
    for number in 0..12 {
        let mut current = loop {
            match crate::support::try_grant(&store, &format!("user {number}"), "app").await {
                Ok(grant) => break grant,
                Err(error) => is_outage(&error),
            }
        };
        let first = token(&current);
        loop {
            match store.create(current.clone(), vec![first.clone()]).await {
                Ok(created) => break assert_eq!(created, CreateOutcome::Inserted),
                Err(error) => is_outage(&error),
            }
            life.failed += 1;
        }
        for _ in 0..4 {
            let (step, next) = step(&current);
            loop {
                match store.advance(step.clone()).await {
                    Ok(advanced) => break assert_eq!(advanced, AdvanceOutcome::Advanced),
                    Err(error) => is_outage(&error),
                }
                life.failed += 1;
            }
            current = next;
        }
        loop {
            match store.revoke(revocation(Target::Grant(current.id))).await {
                Ok(_) => break,
                Err(error) => is_outage(&error),
            }
            life.failed += 1;
        }
        life.generations.insert(current.id, current.chain.as_ref().unwrap().generation);
    }
    life
}

/// A server that is restarted, or a failover: all idle connections are dead. The next calls use new ones.
#[tokio::test]
async fn connections_that_died_while_they_were_idle_are_replaced() {
    let (tables, proxy) = Tables::behind_proxy().await;
    let store = tables.open().await;
    let grant = grant(&store, "alice", "app").await;
    let held = token(&grant);
    assert_eq!(
        store.create(grant.clone(), vec![held.clone()]).await.unwrap(),
        CreateOutcome::Inserted
    );
    let (next, after) = step(&grant);
    let mut admin = Admin::connect().await;
    let task = Housekeeping { now: NOW, before: NOW, limit: 10, sweep: None };
    let mut calls = 0;
    loop {
        // Several, so that there are several idle connections.
        join_all((0..4).map(|_| store.find(grant.id, None))).await;
        for session in proxy.sessions() {
            use cloakroom_mysql::mysql_async::prelude::Queryable as _;
            let _ = admin.0.query_drop(format!("KILL {session}")).await;
        }
        match calls {
            0 => drop(store.find(grant.id, Some(held.digest)).await.unwrap()),
            1 => assert_eq!(store.advance(next.clone()).await.unwrap(), AdvanceOutcome::Advanced),
            2 => store.heartbeat(NOW, NOW + DAY).await.unwrap(),
            3 => drop(
                store.revoke(revocation(Target::Subject(after.subject.clone()))).await.unwrap(),
            ),
            4 => drop(store.maintain(task).await.unwrap()),
            5 => drop(store.load().await.unwrap()),
            6 => drop(store.delete(1, 1).await.unwrap()),
            _ => break,
        }
        calls += 1;
    }
}

/// The answer to one command of a call is lost, whichever it is. The call runs again on another connection, and finds
/// what it did before.
#[tokio::test]
async fn a_call_whose_answer_was_lost_is_done_once() {
    let (tables, proxy) = Tables::behind_proxy().await;
    let store = tables.builder().connections(1).connect().await.unwrap();
    for lost in 0..3 {
        let lose = || proxy.set(Mode::OneAnswerLost(lost));
        let mut grant = grant(&store, "alice", "app").await;
        grant.epoch = Epoch::new(u64::MAX);
        let held = token(&grant);
        lose();
        let created = store.create(grant.clone(), vec![held]).await.unwrap();
        assert_eq!(created, CreateOutcome::Inserted, "{lost}");
        let (step, next) = step(&grant);
        lose();
        assert_eq!(store.advance(step).await.unwrap(), AdvanceOutcome::Advanced, "{lost}");
        let before = log(&store).await;
        for target in [
            Target::Grant(grant.id),
            Target::Subject(grant.subject.clone()),
            Target::Jti(cloakroom_core::Jti::new("jti").unwrap()),
        ] {
            lose();
            store.revoke(revocation(target)).await.unwrap();
        }
        lose();
        store.heartbeat(NOW, NOW + DAY).await.unwrap();
        proxy.set(Mode::Normal);
        let entries = log(&store).await;
        assert_eq!(entries.len(), before.len() + 4, "{lost}: an entry is there twice, or not");
        let ids: BTreeSet<_> = entries.iter().map(|entry| *entry.id.as_bytes()).collect();
        assert_eq!(ids.len(), entries.len(), "{lost}");
        let Lookup::Found(found) = store.find(grant.id, Some(next_token(&next))).await.unwrap()
        else {
            panic!("{lost}: gone");
        };
        assert_eq!(found.grant.chain, next.chain, "{lost}");
        assert!(found.grant.revoked_at.is_some(), "{lost}");
        let sweeps = tables.sql("SELECT COUNT(*) FROM ~sweeps");
        assert_eq!(Admin::connect().await.number(sweeps).await, 0, "{lost}");
    }
}

fn next_token(grant: &GrantRecord) -> TokenDigest {
    grant.chain.as_ref().unwrap().digest
}

async fn log(store: &MysqlStore) -> Vec<LogEntry> {
    match store.revocations(Cursor::start(), 1_000).await.unwrap() {
        RevocationBatch::Entries { entries, more: false, .. } => entries,
        other => panic!("{other:?}"),
    }
}

/// The network swallows everything, and no connection is closed.
#[tokio::test]
async fn a_server_that_is_silent_is_an_outage() {
    let (tables, proxy) = Tables::behind_proxy().await;
    let timeout = Duration::from_secs(1);
    let builder = tables.builder().statement_timeout(timeout).connect_timeout(timeout);
    let store = builder.connect().await.unwrap();
    let grant = grant(&store, "alice", "app").await;
    assert_eq!(store.create(grant.clone(), vec![]).await.unwrap(), CreateOutcome::Inserted);
    // With idle connections, in the middle of a call, and without any connection.
    for after in [0, 1, 0] {
        proxy.set(Mode::Stalled(after));
        let calls = (
            store.find(grant.id, None),
            store.heartbeat(NOW, NOW + DAY),
            store.delete(1, 1),
            store.revoke(revocation(Target::Grant(grant.id))),
        );
        let (found, beat, deleted, revoked) =
            futures_util::join!(calls.0, calls.1, calls.2, calls.3);
        let errors = [found.err(), beat.err(), deleted.err(), revoked.err()];
        let errors: Vec<_> = errors.into_iter().flatten().collect();
        assert!(errors.len() > 2, "{errors:?}");
        errors.iter().for_each(is_outage);
        proxy.set(Mode::Normal);
        assert!(matches!(store.find(grant.id, None).await.unwrap(), Lookup::Found(_)));
        store.heartbeat(NOW, NOW + DAY).await.unwrap();
    }
}

/// Clients hang up in the middle of requests. Their connections are not lost with them.
#[tokio::test]
async fn dropped_futures_do_not_use_connections_up() {
    let (tables, proxy) = Tables::behind_proxy().await;
    let store = tables.builder().connections(2).connect().await.unwrap();
    let grant = grant(&store, "alice", "app").await;
    assert_eq!(store.create(grant.clone(), vec![]).await.unwrap(), CreateOutcome::Inserted);
    for round in 0..100 {
        let mut find = store.find(grant.id, None);
        let mut list = store.rules(grant.rule_keys().to_vec());
        assert!(poll!(find.as_mut()).is_pending());
        for _ in 0..round % 4 {
            let _ = poll!(list.as_mut());
            tokio::task::yield_now().await;
        }
    }
    assert!(matches!(store.find(grant.id, None).await.unwrap(), Lookup::Found(_)));
    let opened = proxy.sessions().len();
    assert!(opened <= 4, "{opened} connections were opened");
}

/// A future that is kept and not polled, as in a `select!` that waits for something else. The server has refused
/// its transaction, which must not keep the row of the grant locked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_future_that_nobody_polls_holds_no_lock() {
    let tables = Tables::new();
    let store = tables.builder().statement_timeout(Duration::from_secs(2)).connect().await.unwrap();
    let grant = grant(&store, "alice", "app").await;
    let held = token(&grant);
    assert_eq!(
        store.create(grant.clone(), vec![held.clone()]).await.unwrap(),
        CreateOutcome::Inserted
    );
    // Of an id that is taken, and with a token that is there.
    let mut create = store.create(grant.clone(), vec![token(&grant)]);
    let (mut taken, _) = step(&grant);
    taken.tokens = vec![held];
    let mut advance = store.advance(taken);
    let (next, _) = step(&grant);
    assert!(poll!(create.as_mut()).is_pending());
    assert!(poll!(advance.as_mut()).is_pending());
    let blocked = |sql: &str| {
        let lock = tables.sql(sql) + &crate::server::hex(grant.id.as_bytes()) + " FOR UPDATE";
        async move { Admin::connect().await.rows(lock).await.len() }
    };
    assert_eq!(blocked("SELECT * FROM ~grants WHERE id = ").await, 1);
    assert_eq!(blocked("SELECT * FROM ~tokens WHERE grant_id = ").await, 1);
    let _ = store.advance(next).await.unwrap();
    assert_eq!(create.await.unwrap(), CreateOutcome::Exists);
    let _ = advance.await;
}
