//! Calls that wait until replicas have what must not be lost.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cloakroom_core::GrantId;
use cloakroom_core::record::GrantRecord;
use cloakroom_core::revocation::{Cursor, LogEvent, RevocationBatch, Target};
use cloakroom_core::store::{
    AdvanceOutcome, CheckValues as _, CreateOutcome, Housekeeping, Lookup, TokenStore as _,
};
use cloakroom_redis::redis::Client;
use cloakroom_redis::{OpenError, RedisStore};

use crate::proxy::{Mode, Proxy};
use crate::support::{DAY, NOW, grant, prefix, revocation, step};
use crate::topology::{Cluster, Pair, Watched};
use crate::with_redis::cluster::{worked, worked_over};

/// Longer than a replica takes to answer, even on a busy machine.
const LONG: Duration = Duration::from_secs(30);
const SHORT: Duration = Duration::from_millis(100);

/// A store that waits for one replica.
async fn open(url: &str, prefix: &str, within: Duration) -> RedisStore {
    RedisStore::builder(url)
        .prefix(prefix)
        .connect_timeout(LONG)
        .response_timeout(LONG)
        .wait_for_replicas(1, within)
        .connect()
        .await
        .unwrap()
}

async fn stored(store: &RedisStore, id: GrantId) -> Arc<GrantRecord> {
    match store.find(id, None).await.unwrap() {
        Lookup::Found(found) => found.grant,
        other => panic!("{other:?}"),
    }
}

fn why(error: &dyn std::error::Error) -> String {
    error.source().unwrap().to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_no_replica_has_is_an_error_and_stays_with_the_master() {
    let pair = Pair::start().await;
    let store = open(&pair.master.url(), "a", SHORT).await;
    let record = grant(&store, "alice", "app").await;
    let created = store.create(record.clone(), vec![]).await.unwrap();
    assert_eq!(created, CreateOutcome::Inserted);
    pair.link.set(Mode::After(0));

    // What may be lost waits for nobody.
    store.heartbeat(NOW, NOW + DAY).await.unwrap();
    let other = grant(&store, "bob", "app").await;
    let created = store.create(other.clone(), vec![]).await.unwrap();
    assert_eq!(created, CreateOutcome::Inserted);

    let (advance, next) = step(&record);
    let error = store.advance(advance.clone()).await.unwrap_err();
    assert!(error.is_retryable() && why(&error).contains("0 of 1 within 100 ms"), "{error:?}");
    assert_eq!(stored(&store, record.id).await.chain, next.chain);
    let error = store.set_check_value("issuer", None, Some(b"one")).await.unwrap_err();
    assert!(error.is_retryable(), "{error:?}");
    let error = store.revoke(revocation(Target::Grant(record.id))).await.unwrap_err();
    assert!(error.is_retryable(), "{error:?}");
    // The log has it, so that every reader knows. Housekeeping does the rest, without a replica.
    let RevocationBatch::Entries { entries, .. } =
        store.revocations(Cursor::start(), 10).await.unwrap()
    else {
        panic!("a gap")
    };
    let target = Target::Grant(record.id);
    let is_it =
        |event: &LogEvent| matches!(event, LogEvent::Revoked { target: it, .. } if *it == target);
    assert!(entries.iter().any(|entry| is_it(&entry.event)), "{entries:?}");
    let task = Housekeeping { now: NOW, before: NOW - DAY, limit: 100, sweep: None };
    store.maintain(task).await.unwrap();
    assert!(stored(&store, record.id).await.revoked_at.is_some());

    // When the replica is back, what is sent again is as if it came for the first time.
    pair.link.set(Mode::Through);
    let (advance_other, _) = step(&other);
    let patient = open(&pair.master.url(), "a", LONG).await;
    let advanced = patient.advance(advance_other).await.unwrap();
    assert_eq!(advanced, AdvanceOutcome::Advanced);
    assert!(patient.set_check_value("issuer", None, Some(b"one")).await.unwrap());
    patient.revoke(revocation(Target::Grant(record.id))).await.unwrap();
    let _ = patient.advance(advance).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_calls_do_not_wait_for_those_that_do() {
    let pair = Pair::start().await;
    let store = open(&pair.master.url(), "a", LONG).await;
    let record = grant(&store, "alice", "app").await;
    let _ = store.create(record.clone(), vec![]).await.unwrap();
    pair.link.set(Mode::After(0));
    let mut revoking = std::pin::pin!(store.revoke(revocation(Target::Grant(record.id))));
    // Until it is in the log, and waits.
    loop {
        let looked = tokio::select! {
            biased;
            revoked = &mut revoking => panic!("nobody has it: {revoked:?}"),
            looked = store.revocations(Cursor::start(), 10) => looked.unwrap(),
        };
        if matches!(looked, RevocationBatch::Entries { entries, .. } if !entries.is_empty()) {
            break;
        }
    }
    for _ in 0..100 {
        tokio::select! {
            biased;
            revoked = &mut revoking => panic!("nobody has it: {revoked:?}"),
            found = stored(&store, record.id) => assert_eq!(found.revoked_at, None),
        }
    }
    pair.link.set(Mode::Through);
    revoking.await.unwrap();
    assert!(stored(&store, record.id).await.revoked_at.is_some());
}

/// A command is executed, its answer is lost, and the driver sends it again: this time it changes nothing. The
/// replica still lacks what the first one wrote.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_is_sent_twice_counts_when_the_replica_has_the_first() {
    for lost in 0..4 {
        let pair = Pair::start().await;
        let front = Proxy::start(pair.master.address()).await;
        let url = format!("redis://127.0.0.1:{}", front.port());
        let direct = open(&pair.master.url(), "a", LONG).await;
        let store = open(&url, "a", SHORT).await;
        let record = grant(&store, "alice", "app").await;
        let _ = store.create(record.clone(), vec![]).await.unwrap();
        // The connection is there, and the script known.
        let warm = grant(&store, "bob", "app").await;
        let _ = store.create(warm.clone(), vec![]).await.unwrap();
        let (advance, warm) = step(&warm);
        let _ = direct.advance(advance).await.unwrap();
        // A replica without a link would not be counted at all.
        let process = pair.process();
        pair.freeze(&process, true);
        front.set(Mode::OneAnswerLost(lost));
        let (advance, next) = step(&record);
        assert!(store.advance(advance.clone()).await.is_err(), "{lost}");
        let target = Target::Grant(warm.id);
        front.set(Mode::OneAnswerLost(lost));
        assert!(store.revoke(revocation(target)).await.is_err(), "{lost}");
        front.set(Mode::Through);
        pair.freeze(&process, false);
        assert_eq!(direct.advance(advance).await.unwrap(), AdvanceOutcome::Advanced);
        assert_eq!(stored(&direct, record.id).await.chain, next.chain);
    }
}

/// Tasks refresh and revoke until no replica answers any more. Everything that they were told is on the replica.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_that_was_acknowledged_is_lost() {
    let mut pair = Pair::start().await;
    let store = open(&pair.master.url(), "a", Duration::from_secs(2)).await;
    let (told, steps) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicUsize::new(0)));
    let mut tasks = Vec::new();
    for task in 0..32 {
        let (store, told, steps) = (store.clone(), Arc::clone(&told), Arc::clone(&steps));
        tasks.push(tokio::spawn(async move {
            loop {
                let mut record = grant(&store, &format!("user {task}"), "app").await;
                let _ = store.create(record.clone(), vec![]).await.unwrap();
                for _ in 0..3 {
                    let (advance, next) = step(&record);
                    if store.advance(advance).await.is_err() {
                        return;
                    }
                    record = next;
                    told.lock().unwrap().push((record.clone(), false));
                    steps.fetch_add(1, Ordering::Relaxed);
                }
                if store.revoke(revocation(Target::Grant(record.id))).await.is_err() {
                    return;
                }
                told.lock().unwrap().push((record, true));
            }
        }));
    }
    while steps.load(Ordering::Relaxed) < 500 {
        tokio::task::yield_now().await;
    }
    pair.link.set(Mode::After(0));
    for task in tasks {
        task.await.unwrap();
    }
    pair.fail_over();
    let promoted = crate::with_redis::kit::open(&pair.replica.url(), "a").await;
    let told = std::mem::take(&mut *told.lock().unwrap());
    for (record, is_revoked) in &told {
        let found = stored(&promoted, record.id).await;
        let generation = |grant: &GrantRecord| grant.chain.as_ref().unwrap().generation;
        assert!(generation(&found) >= generation(record));
        assert!(found.revoked_at.is_some() || !is_revoked, "{record:?}");
    }
}

/// As without waiting, but nothing at all is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_cluster_whose_master_dies_loses_nothing() {
    let mut cluster = Cluster::start(3, 1);
    let url = cluster.url();
    let mut victim = cluster.nodes.remove(0);
    let observer = Arc::new(cluster);
    let observed = Arc::clone(&observer);
    let victims = Arc::new(Mutex::new(None));
    let kept = Arc::clone(&victims);
    let (store, works) = worked_over(
        async |prefix| open(&url, prefix, Duration::from_secs(1)).await,
        move || {
            victim.kill();
            observed.until(0, |info| info.contains("cluster_state:fail"));
            observed.until(0, |info| info.contains("cluster_state:ok"));
            // The new master needs a replica.
            victim.resume();
            *kept.lock().unwrap() = Some(victim);
        },
    )
    .await;
    let mut done = 0;
    for work in works {
        assert_eq!(work.lost(&store).await, [0; 0]);
        done += work.count();
    }
    assert!(done > 8, "{done}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn slots_may_move_meanwhile() {
    let cluster = Arc::new(Cluster::start(3, 1));
    let url = cluster.url();
    let moving = Arc::clone(&cluster);
    let masters: Vec<usize> = (0..cluster.nodes.len())
        .filter(|node| cluster.nodes[*node].says(&["ROLE"]).starts_with("master"))
        .collect();
    let (store, works) = worked_over(
        async |prefix| open(&url, prefix, LONG).await,
        move || {
            for turn in 0..3 {
                moving.reshard(masters[turn], masters[(turn + 1) % 3], 1_500);
            }
        },
    )
    .await;
    for work in works {
        assert!(work.count() > 5, "{}", work.count());
        assert_eq!(work.lost(&store).await, [0; 0]);
    }
}

/// The connection of these writes finds the promoted replica, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sentinels_name_the_master_for_these_writes_too() {
    let watched = Watched::start();
    let url = watched.url();
    let store = open(&url, "a", LONG).await;
    let record = grant(&store, "alice", "app").await;
    let _ = store.create(record.clone(), vec![]).await.unwrap();
    let advanced = store.advance(step(&record).0).await.unwrap();
    assert_eq!(advanced, AdvanceOutcome::Advanced);
    store.revoke(revocation(Target::Grant(record.id))).await.unwrap();
    let watched = Arc::new(Mutex::new(watched));
    let ended = Arc::clone(&watched);
    let (last, _) = worked(&url, move || {
        let mut watched = ended.lock().unwrap();
        watched.master.kill();
        watched.until_promoted();
    })
    .await;
    // The new master has no replica: each of its writes is an error now, and is there.
    let short = open(&url, &prefix(), SHORT).await;
    let alone = grant(&short, "alice", "app").await;
    let _ = short.create(alone.clone(), vec![]).await.unwrap();
    let error = short.advance(step(&alone).0).await.unwrap_err();
    assert!(why(&error).contains("0 of 1"), "{error:?}");
    assert!(stored(&store, record.id).await.revoked_at.is_some());
    drop(last);
}

#[tokio::test]
async fn a_shared_connection_cannot_wait() {
    let client = Client::open(crate::support::url()).unwrap();
    let shared = client.get_multiplexed_async_connection().await.unwrap();
    let builder = RedisStore::over(shared).wait_for_replicas(1, SHORT);
    let error = builder.connect().await.unwrap_err();
    assert!(matches!(error, OpenError::SharedConnection), "{error:?}");
}
