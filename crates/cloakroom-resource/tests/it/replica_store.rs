//! A replica that follows the log of a store in reach.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use cloakroom_core::record::{GrantRecord, TokenRecord};
use cloakroom_core::revocation::{LogNotifications, Revocation, RuleKey, Rules};
use cloakroom_core::store::{
    Advance, AdvanceOutcome, CheckValue, CheckValues, CreateOutcome, Housekeeping, Listing, Lookup,
    MaintenanceReport, PageRequest, RevokeOutcome, Selector, StoreError,
};
use cloakroom_core::time::UnixTime;
use cloakroom_core::{GrantId, Subject, TokenDigest};
use cloakroom_memory::MemoryStore;
use cloakroom_resource::{
    Cursor, RevocationBatch, RevocationLog, RevocationReplica, StoreLog, Target, TokenStore,
    UnavailableError, async_trait,
};
use futures_core::Stream;
use tokio::time::Instant;

use crate::replica_log::{HOUR, Told, beat, entries, grant, revoke, said, store};
use crate::support::{START, manual_clock};

const LONG: Duration = Duration::from_secs(60);

#[tokio::test(start_paused = true)]
async fn revocations_and_heartbeats_come_in_their_order() {
    let store = store();
    let log = StoreLog::new(store.clone()).heartbeat(LONG).clock_skew(HOUR);
    let alice = Target::Subject(Subject::user("alice").unwrap());
    revoke(&store, grant(1)).await;
    beat(&store, START).await.unwrap();
    revoke(&store, alice.clone()).await;

    let page = log.read(Cursor::start(), LONG).await.unwrap();
    assert_eq!((page.heartbeat, page.clock_skew), (LONG, HOUR));
    let (first, next) = entries(page);
    assert_eq!(said(&first), [Ok(grant(1)), Err(START), Ok(alice)]);

    beat(&store, START + LONG).await.unwrap();
    let (second, next) = entries(log.read(next, LONG).await.unwrap());
    assert_eq!(said(&second), [Err(START + LONG)]);
    let (nothing, last) = entries(log.read(next.clone(), Duration::ZERO).await.unwrap());
    assert_eq!((nothing.len(), last), (0, next.clone()));

    // A place that another log does not have is no reason to wait.
    let (other, start) = (StoreLog::new(crate::replica_log::store()), Instant::now());
    assert_eq!(other.read(next, LONG).await.unwrap().batch, RevocationBatch::Gap);
    assert_eq!(start.elapsed(), Duration::ZERO);
}

/// Whatever a duration is set to: nothing overflows, and no follower dies of it.
#[tokio::test(start_paused = true)]
async fn no_duration_makes_a_replica_panic() {
    for extreme in
        [Duration::ZERO, Duration::from_nanos(1), Duration::from_secs(1 << 40), Duration::MAX]
    {
        let store = store();
        beat(&store, START).await.unwrap();
        let log = StoreLog::new(store.clone()).heartbeat(extreme).clock_skew(extreme);
        let replica = RevocationReplica::builder(log)
            .clock(manual_clock())
            .clock_skew(extreme)
            .wait(extreme)
            .first_back_off(extreme)
            .max_back_off(extreme)
            .follow()
            .await
            .unwrap();
        for _ in 0..3 {
            revoke(&store, grant(1)).await;
            tokio::time::sleep(LONG).await;
        }
        // Where it is counted, five centuries are as good as for ever.
        let least = extreme.min(Duration::from_secs(1 << 33));
        assert!(replica.staleness().is_none_or(|staleness| staleness >= least), "{extreme:?}");
        // In milliseconds.
        assert!(replica.steady_staleness() + Duration::from_millis(1) >= least);
        assert_eq!(replica.rules(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn an_empty_log_is_waited_for() {
    let store = store();
    let log = StoreLog::new(store.clone());
    let start = Instant::now();
    let (nothing, place) = entries(log.read(Cursor::start(), LONG).await.unwrap());
    assert_eq!((nothing.len(), place.clone(), start.elapsed()), (0, Cursor::start(), LONG));
    // However long: it is no time that a clock could not reach.
    let reading = tokio::spawn(async move { log.read(place, Duration::MAX).await });
    revoke(&store, grant(1)).await;
    assert_eq!(said(&entries(reading.await.unwrap().unwrap()).0), [Ok(grant(1))]);
}

#[tokio::test(start_paused = true)]
async fn a_revocation_wakes_who_waits() {
    let store = store();
    let log = Arc::new(StoreLog::new(store.clone()));
    let (start, mut place) = (Instant::now(), Cursor::start());
    for number in 1..200 {
        let reading = tokio::spawn({
            let log = log.clone();
            let place = place.clone();
            async move { log.read(place, LONG).await }
        });
        // Before it looks, while it waits, or after somebody went away while it waited.
        for _ in 0..number % 3 {
            tokio::task::yield_now().await;
        }
        if number % 5 == 0 {
            reading.abort();
            let _ = reading.await;
            revoke(&store, grant(number)).await;
            let (found, next) = entries(log.read(place, LONG).await.unwrap());
            assert_eq!(said(&found), [Ok(grant(number))]);
            place = next;
        } else {
            revoke(&store, grant(number)).await;
            let (found, next) = entries(reading.await.unwrap().unwrap());
            assert_eq!(said(&found), [Ok(grant(number))]);
            place = next;
        }
    }
    assert_eq!(start.elapsed(), Duration::ZERO, "nobody waited until the end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_wake_up_is_lost_between_threads() {
    let store = store();
    let log = StoreLog::new(store.clone());
    let writer = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            for number in 0..2_000_u32 {
                revoke(&store, grant(number.to_be_bytes()[3])).await;
                std::thread::yield_now();
            }
        });
        store
    });
    let (mut seen, mut place) = (0, Cursor::start());
    while seen < 2_000 {
        let (found, next) = entries(log.read(place, LONG).await.unwrap());
        assert!(!found.is_empty(), "a wake-up was lost after {seen}");
        (seen, place) = (seen + found.len(), next);
    }
    drop(writer.join().unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_replica_follows_a_store() {
    let (store, clock) = (store(), manual_clock());
    revoke(&store, grant(1)).await;
    beat(&store, START).await.unwrap();
    let of_store = StoreLog::new(store.clone()).clock_skew(Duration::ZERO);
    let of_store: Arc<dyn RevocationLog> = Arc::new(of_store);
    let (log, mut questions) = Told::new(of_store);
    let replica = RevocationReplica::builder(log).clock(clock.clone()).follow().await.unwrap();
    assert_eq!((replica.rules(), replica.staleness()), (1, Some(Duration::ZERO)));
    assert_eq!(replica.steady_staleness(), Duration::from_secs(2));

    clock.advance(Duration::from_secs(1));
    revoke(&store, grant(2)).await;
    questions.until("the revocation", || replica.rules() == 2).await;
    assert_eq!(replica.staleness(), Some(Duration::from_secs(1)));
    beat(&store, START + Duration::from_secs(1)).await.unwrap();
    let fresh = || replica.staleness() < Some(Duration::from_secs(1));
    // Asked at once after the revocation, at the time that it is still.
    questions.until("the heartbeat", fresh).await;
    assert_eq!(replica.staleness(), Some(Duration::ZERO));

    // What has ended is trimmed from the store, and dropped here.
    clock.advance(HOUR);
    let at = START + HOUR + Duration::from_secs(1);
    let task = Housekeeping { now: at, before: at, limit: 100, sweep: None };
    let _ = store.maintain(task).await.unwrap();
    beat(&store, at).await.unwrap();
    questions.until("the ends", || replica.rules() == 0).await;
}

#[tokio::test(start_paused = true)]
async fn an_emptied_store_is_noticed() {
    let (one, other) = (store(), store());
    revoke(&one, grant(1)).await;
    beat(&one, START).await.unwrap();
    let stores = Arc::new(Faulty::over(one));
    let (log, mut questions) = Told::new(StoreLog::new(stores.clone()));
    let builder = RevocationReplica::builder(log).clock(manual_clock());
    let replica = builder.follow().await.unwrap();
    assert!(replica.staleness().is_some());

    revoke(&other, grant(2)).await;
    *stores.store.lock().unwrap() = other.clone();
    questions.until("the gap", || replica.staleness().is_none()).await;
    questions.until("both", || replica.rules() == 2).await;
    beat(&other, START).await.unwrap();
    questions.until("a heartbeat of the other", || replica.staleness().is_some()).await;
    assert_eq!(replica.rules(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_cannot_wake_is_looked_at_in_its_interval() {
    let (interval, start) = (Duration::from_secs(2), Instant::now());
    let memory = store();
    let faulty = Arc::new(Faulty { poll: Some(interval), ..Faulty::over(memory.clone()) });
    let log = StoreLog::new(faulty.clone());
    let reading = tokio::spawn(async move { log.read(Cursor::start(), LONG).await });
    tokio::time::sleep(Duration::from_secs(5)).await;
    revoke(&memory, grant(1)).await;
    assert_eq!(said(&entries(reading.await.unwrap().unwrap()).0), [Ok(grant(1))]);
    assert_eq!(start.elapsed(), Duration::from_secs(6));

    // Not longer than it may wait, and not without a pause.
    let faulty = Arc::new(Faulty { poll: Some(interval), ..Faulty::over(store()) });
    let (log, start) = (StoreLog::new(faulty), Instant::now());
    let (nothing, _) = entries(log.read(Cursor::start(), Duration::from_secs(1)).await.unwrap());
    assert_eq!((nothing.len(), start.elapsed()), (0, Duration::from_secs(1)));
    let faulty = Arc::new(Faulty { poll: Some(Duration::ZERO), ..Faulty::over(store()) });
    let (log, start) = (StoreLog::new(faulty.clone()), Instant::now());
    let (nothing, _) = entries(log.read(Cursor::start(), Duration::from_secs(1)).await.unwrap());
    assert_eq!((nothing.len(), start.elapsed()), (0, Duration::from_secs(1)));
    assert!(faulty.reads.load(Ordering::SeqCst) <= 202);
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_an_error_and_passes() {
    let memory = store();
    let faulty = Arc::new(Faulty::over(memory.clone()));
    let log = StoreLog::new(faulty.clone());
    faulty.is_down.store(true, Ordering::SeqCst);
    let error = log.read(Cursor::start(), LONG).await.unwrap_err();
    assert!(matches!(error, UnavailableError::Other(_)), "{error}");
    faulty.is_down.store(false, Ordering::SeqCst);
    revoke(&memory, grant(1)).await;
    assert_eq!(said(&entries(log.read(Cursor::start(), LONG).await.unwrap()).0), [Ok(grant(1))]);

    // Wake-ups that end are no reason to believe that nothing happens.
    let (_, place) = entries(log.read(Cursor::start(), LONG).await.unwrap());
    faulty.end_wakeups.store(true, Ordering::SeqCst);
    let log = StoreLog::new(faulty.clone());
    assert!(log.read(place.clone(), LONG).await.is_err());
    // The next ones are asked for, and listened to.
    let reading = tokio::spawn(async move { log.read(place, LONG).await });
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    assert!(!reading.is_finished());
    revoke(&memory, grant(2)).await;
    assert_eq!(said(&entries(reading.await.unwrap().unwrap()).0), [Ok(grant(2))]);
}

/// A store that fails, polls, or is another one all of a sudden.
#[derive(Debug)]
struct Faulty {
    store: Mutex<Arc<MemoryStore>>,
    poll: Option<Duration>,
    is_down: AtomicBool,
    /// The next wake-ups end after the first.
    end_wakeups: AtomicBool,
    reads: AtomicU32,
}

impl Faulty {
    fn over(store: Arc<MemoryStore>) -> Self {
        Self {
            store: Mutex::new(store),
            poll: None,
            is_down: AtomicBool::new(false),
            end_wakeups: AtomicBool::new(false),
            reads: AtomicU32::new(0),
        }
    }

    fn store(&self) -> Arc<MemoryStore> {
        self.store.lock().unwrap().clone()
    }
}

/// A stream that is over.
struct Ended;

impl Stream for Ended {
    type Item = ();

    fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<()>> {
        Poll::Ready(None)
    }
}

#[async_trait]
impl CheckValues for Faulty {
    async fn check_values(&self) -> Result<Vec<CheckValue>, StoreError> {
        self.store().check_values().await
    }

    async fn set_check_value(
        &self,
        name: &str,
        expected: Option<&[u8]>,
        value: Option<&[u8]>,
    ) -> Result<bool, StoreError> {
        self.store().set_check_value(name, expected, value).await
    }
}

#[async_trait]
impl TokenStore for Faulty {
    async fn create(
        &self,
        grant: GrantRecord,
        tokens: Vec<TokenRecord>,
    ) -> Result<CreateOutcome, StoreError> {
        self.store().create(grant, tokens).await
    }

    async fn find(&self, grant: GrantId, token: Option<TokenDigest>) -> Result<Lookup, StoreError> {
        self.store().find(grant, token).await
    }

    async fn advance(&self, step: Advance) -> Result<AdvanceOutcome, StoreError> {
        self.store().advance(step).await
    }

    async fn revoke(&self, revocation: Revocation) -> Result<RevokeOutcome, StoreError> {
        self.store().revoke(revocation).await
    }

    async fn rules(&self, keys: Vec<RuleKey>) -> Result<Rules, StoreError> {
        self.store().rules(keys).await
    }

    async fn list(
        &self,
        of: Selector,
        page: PageRequest,
        now: UnixTime,
    ) -> Result<Listing, StoreError> {
        self.store().list(of, page, now).await
    }

    async fn revocations(&self, after: Cursor, limit: u32) -> Result<RevocationBatch, StoreError> {
        assert!(self.reads.fetch_add(1, Ordering::SeqCst) < 10_000, "it is asked in a loop");
        if self.is_down.load(Ordering::SeqCst) {
            return Err(StoreError::unavailable("a test", "it is down"));
        }
        self.store().revocations(after, limit).await
    }

    fn wakeups(&self) -> LogNotifications {
        if let Some(interval) = self.poll {
            return LogNotifications::Poll(interval);
        }
        if self.end_wakeups.swap(false, Ordering::SeqCst) {
            return LogNotifications::Stream(Box::pin(Ended));
        }
        self.store().wakeups()
    }

    async fn heartbeat(&self, now: UnixTime, until: UnixTime) -> Result<(), StoreError> {
        self.store().heartbeat(now, until).await
    }

    async fn maintain(&self, task: Housekeeping) -> Result<MaintenanceReport, StoreError> {
        self.store().maintain(task).await
    }
}
