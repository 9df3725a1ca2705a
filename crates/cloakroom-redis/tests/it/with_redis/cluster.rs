//! A cluster: the kit, slots that move while their keys are used, and a master that dies.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use async_trait::async_trait;
use cloakroom_conformance::processes::{Outcome, Plan, contend, judge};
use cloakroom_conformance::{Database, Factory, Instance, run_all, single_use};
use cloakroom_core::keys::KeyStore;
use cloakroom_core::record::{GrantRecord, TokenRecord};
use cloakroom_core::revocation::{Cursor, LogEvent, RevocationBatch, Target};
use cloakroom_core::store::{
    AdvanceOutcome, CreateOutcome, Lookup, TokenStore, TokenStoreExt as _,
};
use cloakroom_core::{GrantId, TokenDigest};
use cloakroom_redis::RedisStore;

use crate::support::{grant_of, prefix, revocation, step, token};
use crate::topology::Cluster;
use crate::with_redis::kit::open;
use crate::with_redis::processes::{inherited_race, race, report};
use crate::with_redis::single_use::Items;

#[derive(Debug)]
pub(crate) struct Stores {
    pub(crate) url: String,
}

#[async_trait]
impl Factory for Stores {
    async fn tokens(&self) -> Arc<dyn TokenStore> {
        Arc::new(open(&self.url, &prefix()).await)
    }

    async fn keys(&self) -> Arc<dyn KeyStore> {
        Arc::new(open(&self.url, &prefix()).await)
    }

    async fn database(&self) -> Option<Arc<dyn Database>> {
        Some(Arc::new(Keys { url: self.url.clone(), prefix: prefix() }))
    }
}

#[derive(Debug)]
struct Keys {
    url: String,
    prefix: String,
}

#[async_trait]
impl Database for Keys {
    async fn open(&self) -> Instance {
        let store = open(&self.url, &self.prefix).await;
        Instance::new(Arc::new(store.clone()), Arc::new(store))
    }

    async fn another(&self) -> Option<Instance> {
        Some(self.open().await)
    }

    async fn restart(&self) -> Option<Instance> {
        Some(self.open().await)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn it_passes() {
    let cluster = Cluster::start(3, 0);
    run_all(Stores { url: cluster.url() }).await.assert_ok();
    single_use::run_all(Items { url: cluster.url() }).await.assert_ok();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_race() {
    if let Some((store, plan)) = inherited_race().await {
        return report(contend(&store, &plan).await);
    }
    let cluster = Cluster::start(3, 0);
    let (url, prefix) = (cluster.url(), prefix());
    let plan = Plan::new(42, 4);
    let outcomes: Vec<Outcome> = race("with_redis::cluster::processes_race", &url, &prefix, &plan);
    judge(&open(&url, &prefix).await, &plan, &outcomes).await.unwrap();
}

/// What a task was told that it did.
#[derive(Debug, Default)]
struct Told {
    /// The newest generation that was acknowledged, with its token, of grants that nobody revoked. Here and below, the
    /// number of the step comes first; all tasks count together.
    live: Vec<(usize, GrantRecord, TokenRecord)>,
    revoked: Vec<(usize, GrantId, TokenDigest)>,
    errors: usize,
}

/// Logs users in, refreshes, and logs half of them out, until it is told to stop.
async fn work(
    store: RedisStore,
    user: String,
    ends: Arc<AtomicBool>,
    steps: Arc<AtomicUsize>,
) -> Work {
    let mut told = Told::default();
    while !ends.load(Ordering::Relaxed) {
        let Ok(epoch) = store.epoch().await else {
            told.errors += 1;
            continue;
        };
        let record = grant_of(epoch, &user, "app");
        let held = token(&record);
        match store.create(record.clone(), vec![held.clone()]).await {
            Ok(created) => assert_eq!(created, CreateOutcome::Inserted),
            Err(_) => {
                told.errors += 1;
                continue;
            }
        }
        let (advance, next) = step(&record);
        let newest = advance.tokens[0].clone();
        let mut answer = store.advance(advance.clone()).await;
        while answer.is_err() && !ends.load(Ordering::Relaxed) {
            told.errors += 1;
            answer = store.advance(advance.clone()).await;
        }
        match answer {
            Ok(AdvanceOutcome::Advanced) => {}
            // The shard has lost the grant, or is out of reach.
            _ => continue,
        }
        if told.live.len() > told.revoked.len() {
            let mut revoked = store.revoke(revocation(Target::Grant(next.id))).await;
            while revoked.is_err() && !ends.load(Ordering::Relaxed) {
                told.errors += 1;
                revoked = store.revoke(revocation(Target::Grant(next.id))).await;
            }
            if revoked.is_ok() {
                let number = steps.fetch_add(1, Ordering::Relaxed);
                told.revoked.push((number, next.id, newest.digest));
            }
        } else {
            let number = steps.fetch_add(1, Ordering::Relaxed);
            told.live.push((number, next, newest));
        }
    }
    Work(told)
}

/// What [`work`] was told.
pub(crate) struct Work(Told);

impl Work {
    pub(crate) fn count(&self) -> usize {
        self.0.live.len().min(self.0.revoked.len())
    }

    /// The numbers of the steps that were acknowledged, and are not there.
    pub(crate) async fn lost(&self, store: &RedisStore) -> Vec<usize> {
        let mut lost = Vec::new();
        let logged = logged(store).await;
        for (number, record, held) in &self.0.live {
            let is_there = match store.find(record.id, Some(held.digest)).await.unwrap() {
                Lookup::Found(found) if found.token.is_some() => {
                    assert_eq!(found.grant.revoked_at, None, "a stranger's revocation");
                    *found.grant == *record
                }
                _ => false,
            };
            lost.extend((!is_there).then_some(*number));
        }
        for (number, id, digest) in &self.0.revoked {
            let is_there = match store.find(*id, Some(*digest)).await.unwrap() {
                Lookup::Found(found) => found.grant.revoked_at.is_some(),
                Lookup::Tombstone => true,
                Lookup::Absent => false,
            };
            lost.extend((!is_there || !logged.contains(id)).then_some(*number));
        }
        lost
    }
}

/// That what the replica had before its master died is there.
pub(crate) async fn only_the_last_is_lost(store: &RedisStore, works: Vec<Work>) {
    let mut done = 0;
    for work in works {
        let lost = work.lost(store).await;
        assert!(lost.iter().all(|number| *number >= BEFORE), "{lost:?}");
        done += work.count();
    }
    assert!(done > 8, "{done}");
}

async fn logged(store: &RedisStore) -> Vec<GrantId> {
    let (mut cursor, mut ids) = (Cursor::start(), Vec::new());
    loop {
        let RevocationBatch::Entries { entries, next, more, .. } =
            store.revocations(cursor, 1_000).await.unwrap()
        else {
            panic!("a gap")
        };
        ids.extend(entries.into_iter().filter_map(|entry| match entry.event {
            LogEvent::Revoked { target: Target::Grant(id), .. } => Some(id),
            _ => None,
        }));
        cursor = next;
        if !more {
            return ids;
        }
    }
}

/// How many steps the tasks of [`worked`] take before and after what is done meanwhile.
pub(crate) const BEFORE: usize = 100;

/// Runs `during` while tasks use the store, after they have begun.
pub(crate) async fn worked(
    url: &str,
    during: impl FnOnce() + Send + 'static,
) -> (RedisStore, Vec<Work>) {
    worked_over(async |prefix| open(url, prefix).await, during).await
}

/// The same over stores that are opened so, each with this prefix.
pub(crate) async fn worked_over(
    open: impl AsyncFn(&str) -> RedisStore,
    during: impl FnOnce() + Send + 'static,
) -> (RedisStore, Vec<Work>) {
    let prefix = prefix();
    let last = open(&prefix).await;
    let (ends, steps) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let mut tasks = Vec::new();
    for number in 0..8 {
        let store = open(&prefix).await;
        let (ends, steps) = (Arc::clone(&ends), Arc::clone(&steps));
        tasks.push(tokio::spawn(work(store, format!("user {number}"), ends, steps)));
    }
    let begun = steps.clone();
    let wait = move |count: usize| {
        let goal = begun.load(Ordering::Relaxed) + count;
        while begun.load(Ordering::Relaxed) < goal {
            std::thread::yield_now();
        }
    };
    tokio::task::spawn_blocking(move || {
        wait(BEFORE);
        during();
        wait(BEFORE);
    })
    .await
    .unwrap();
    ends.store(true, Ordering::Relaxed);
    let mut works = Vec::new();
    for task in tasks {
        works.push(task.await.unwrap());
    }
    (last, works)
}

/// Half of a node's slots go to another node, key by key, while these keys are read and written: scripts
/// meet MOVED, ASK and TRYAGAIN.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn slots_move_while_their_keys_are_used() {
    let cluster = Arc::new(Cluster::start(3, 0));
    let moving = Arc::clone(&cluster);
    let (store, works) = worked(&cluster.url(), move || {
        for (from, to) in [(0, 1), (1, 2), (2, 0)] {
            moving.reshard(from, to, 3_000);
        }
    })
    .await;
    for work in works {
        assert!(work.count() > 5, "{}", work.count());
        assert_eq!(work.lost(&store).await, [0; 0]);
    }
}

/// A master dies, and its replica takes over. Replication is asynchronous, so the last writes may be lost, and
/// nothing else.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_master_dies_and_its_replica_takes_over() {
    let mut cluster = Cluster::start(3, 1);
    let url = cluster.url();
    let mut victim = cluster.nodes.remove(0);
    let observer = Arc::new(cluster);
    let observed = Arc::clone(&observer);
    let (store, works) = worked(&url, move || {
        // A key in one of its slots.
        victim.replicate("b");
        victim.kill();
        observed.until(0, |info| info.contains("cluster_state:fail"));
        observed.until(0, |info| info.contains("cluster_state:ok"));
    })
    .await;
    only_the_last_is_lost(&store, works).await;
}
