//! The oracle convicts: gateways that do what they must not, each broken in one place.
//!
//! What is broken is what an app may put in: who introspects, the log, the clock. The layers are the
//! ones that `nothing_revoked` acquits.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use cloakroom::core::Random;
use cloakroom::core::time::{Clock, ManualClock, SystemClock};
use cloakroom::resource::{
    Cursor, EntryId, Freshness, Introspection, Introspector, LogEntry, LogEvent, PhantomJwt,
    PhantomLayer, RevocationBatch, RevocationLog, RevocationPage, RevocationReplica, TokenSecret,
    UnavailableError,
};
use tokio::time::timeout;

use crate::authority::{EDGES, ORDERS};
use crate::edge::{Wires, gateway};
use crate::oracle::{Verdicts, judge};
use crate::people::How;
use crate::tape::Place;
use crate::web::{Web, bearer};
use crate::{HANGS, people_at};

const BOUND: Duration = Duration::from_secs(2);

/// What a gateway is built of.
struct Parts {
    wires: Wires,
    clock: Arc<dyn Clock>,
}

impl Parts {
    async fn replica(&self, log: impl RevocationLog) -> RevocationReplica {
        self.wires.replica(log).follow().await.unwrap()
    }
}

/// A handle that a gateway remembers is revoked. Later than its bound after that, it comes again.
async fn trial<F>(bound: Duration, build: impl FnOnce(Arc<Parts>) -> F) -> Verdicts
where
    F: Future<Output = (PhantomLayer, Option<RevocationReplica>)>,
{
    let clock = Arc::new(ManualClock::at(SystemClock::new().now()));
    let people = people_at(clock.clone()).await;
    let (place, wires) =
        (Place { name: EDGES[0], bound }, Wires::new(EDGES[0], &people.authority).await);
    let parts = Arc::new(Parts { wires, clock: clock.clone() });
    let (layer, replica) = build(Arc::clone(&parts)).await;
    let layer = layer.cache(100).freshness(Freshness::within(bound)).unwrap();
    let edge = gateway(place, &people.tape, &layer, None).await;
    let (token, web) = (people.sign_in(1, 0).await.unwrap(), Web::new());
    let visit =
        || async { web.get(&edge.url(), &bearer(&token.secret), token.number).await.unwrap() };
    assert_eq!(visit().await, 200);
    assert!(people.revoke(How::Token, &token).await);
    clock.advance(bound + Duration::from_millis(1));
    // If it follows a log, it may say that it knows all.
    while replica.as_ref().is_some_and(|it| it.staleness().is_none_or(|age| age > bound)) {
        tokio::task::yield_now().await;
    }
    visit().await;
    judge(&people.tape, &people.tokens())
}

async fn convicted<F>(bound: Duration, build: impl FnOnce(Arc<Parts>) -> F)
where
    F: Future<Output = (PhantomLayer, Option<RevocationReplica>)>,
{
    let verdicts = timeout(HANGS, trial(bound, build)).await.unwrap();
    assert_eq!((verdicts.let_in(EDGES[0]), verdicts.convictions.len()), (1, 1), "{verdicts:?}");
}

#[tokio::test]
async fn not_what_is_as_it_should_be() {
    for bound in [Duration::ZERO, BOUND] {
        let alone = |parts: Arc<Parts>| async move { (parts.wires.gateway(), None) };
        let following = |parts: Arc<Parts>| async move {
            let replica = parts.replica(parts.wires.http_log()).await;
            (parts.wires.gateway().replica(replica.clone()), Some(replica))
        };
        let alone = timeout(HANGS, trial(bound, alone)).await.unwrap();
        // Under "every request" a replica is too old for everything, however new it is.
        let verdicts = if bound.is_zero() {
            vec![alone]
        } else {
            vec![alone, timeout(HANGS, trial(bound, following)).await.unwrap()]
        };
        for verdicts in verdicts {
            verdicts.acquit();
            let seen = verdicts.seen(EDGES[0]);
            assert_eq!((seen.live, seen.refused), (1, 1), "{verdicts}");
        }
    }
}

/// Remembers every answer for ever, which is not for it to do.
#[derive(Debug)]
struct Remembers<I>(I, Mutex<Option<PhantomJwt>>);

#[async_trait]
impl<I: Introspector> Introspector for Remembers<I> {
    async fn introspect(&self, token: &TokenSecret) -> Result<Introspection, UnavailableError> {
        self.0.introspect(token).await
    }

    async fn swap(
        &self,
        token: &TokenSecret,
        resource: &str,
    ) -> Result<Option<PhantomJwt>, UnavailableError> {
        let remembered = self.1.lock().unwrap().clone();
        if remembered.is_some() {
            return Ok(remembered);
        }
        let swapped = self.0.swap(token, resource).await?;
        self.1.lock().unwrap().clone_from(&swapped);
        Ok(swapped)
    }
}

#[tokio::test]
async fn an_answer_that_was_asked_for_earlier() {
    for bound in [Duration::ZERO, BOUND] {
        convicted(bound, |parts| async move {
            let introspector = Remembers(parts.wires.introspection(), Mutex::default());
            (PhantomLayer::new(introspector, ORDERS).clock(Arc::clone(&parts.clock)), None)
        })
        .await;
    }
}

#[tokio::test]
async fn ages_that_do_not_grow() {
    convicted(BOUND, |parts| async move {
        let stands_still = Arc::new(ManualClock::at(parts.clock.now()));
        (parts.wires.gateway().clock(stands_still), None)
    })
    .await;
}

/// Hears that the log is alive, and nothing of what is revoked.
#[derive(Debug)]
struct Deaf<L>(L);

#[async_trait]
impl<L: RevocationLog> RevocationLog for Deaf<L> {
    async fn read(
        &self,
        after: Cursor,
        wait: Duration,
    ) -> Result<RevocationPage, UnavailableError> {
        let mut page = self.0.read(after, wait).await?;
        if let RevocationBatch::Entries { entries, .. } = &mut page.batch {
            entries.retain(|entry| matches!(entry.event, LogEvent::Heartbeat {}));
        }
        Ok(page)
    }
}

#[tokio::test]
async fn a_rule_that_is_not_heeded() {
    convicted(BOUND, |parts| async move {
        let replica = parts.replica(Deaf(parts.wires.http_log())).await;
        (parts.wires.gateway().replica(replica.clone()), Some(replica))
    })
    .await;
}

/// Has read the log once, and takes each answer since then for proof that nothing happened.
#[derive(Debug)]
struct Hopes<L>(L, Arc<dyn Clock>);

#[async_trait]
impl<L: RevocationLog> RevocationLog for Hopes<L> {
    async fn read(&self, after: Cursor, _: Duration) -> Result<RevocationPage, UnavailableError> {
        let mut page = self.0.read(after.clone(), Duration::ZERO).await?;
        let (id, now) = (EntryId::random(&Random::system()).unwrap(), self.1.now());
        let (event, until) = (LogEvent::Heartbeat {}, now + Duration::from_secs(3600));
        if let RevocationBatch::Entries { entries, next, .. } = &mut page.batch
            && after != Cursor::start()
        {
            (*entries, *next) = (vec![LogEntry { id, event, at: now, until }], after);
        }
        Ok(page)
    }
}

#[tokio::test]
async fn a_staleness_that_is_hoped() {
    convicted(BOUND, |parts| async move {
        let log = Hopes(parts.wires.http_log(), Arc::clone(&parts.clock));
        let replica = parts.replica(log).await;
        (parts.wires.gateway().replica(replica.clone()), Some(replica))
    })
    .await;
}

/// Takes an outage for a verdict.
#[derive(Debug)]
struct Jumps<I>(I);

#[async_trait]
impl<I: Introspector> Introspector for Jumps<I> {
    async fn introspect(&self, token: &TokenSecret) -> Result<Introspection, UnavailableError> {
        self.0.introspect(token).await
    }

    async fn swap(
        &self,
        token: &TokenSecret,
        resource: &str,
    ) -> Result<Option<PhantomJwt>, UnavailableError> {
        Ok(self.0.swap(token, resource).await.unwrap_or_default())
    }
}

#[tokio::test]
async fn a_live_token_that_is_refused() {
    let people = crate::people().await;
    let wires = Wires::new(EDGES[0], &people.authority).await;
    let layers = [
        (wires.gateway(), 503, 0),
        (PhantomLayer::new(Jumps(wires.introspection()), ORDERS), 401, 1),
    ];
    let token = people.sign_in(1, 0).await.unwrap();
    people.authority.kill();
    for (layer, status, convictions) in layers {
        let place = Place { name: EDGES[0], bound: Duration::ZERO };
        let edge = gateway(place, &people.tape, &layer, None).await;
        let answer = Web::new().get(&edge.url(), &bearer(&token.secret), token.number).await;
        assert_eq!(answer, Some(status));
        let verdicts = judge(&people.tape, &people.tokens());
        assert_eq!(verdicts.convictions.len(), convictions, "{verdicts:?}");
    }
}
