use cloakroom_core::time::{ManualClock, UnixTime};

use super::*;

type Join = Joining<u8, ()>;

fn key(n: u8) -> TokenKey {
    TokenKey::of(&n.to_string())
}

const WITHIN: Freshness = Freshness::within(Duration::from_secs(2));
const EVERY: Freshness = Freshness::every_request();

fn board(
    flights: &Arc<SingleFlight<u8>>,
    n: u8,
    freshness: Freshness,
    clock: &ManualClock,
) -> Join {
    flights.join_or_start(key(n), freshness, ClockReading::now(clock), || None)
}

#[tokio::test]
async fn who_may_join() {
    let clock = ManualClock::at(UnixTime::from_secs(1000));
    let flights = SingleFlight::new(IntrospectionLimits::default());
    let Join::Started(waiter, mut flight) = board(&flights, 1, EVERY, &clock) else { panic!() };
    clock.advance(Duration::from_secs(60));
    let unsent = [board(&flights, 1, EVERY, &clock), board(&flights, 1, WITHIN, &clock)];
    assert!(unsent.iter().all(|it| matches!(it, Join::Joined(_))), "whatever its age, not sent");
    assert!(matches!(board(&flights, 2, EVERY, &clock), Join::Started(..)), "another token");

    let (sent, _turn) = flight.start(&clock).await.unwrap();
    assert_eq!(sent.wall(), clock.now());
    assert!(matches!(board(&flights, 1, WITHIN, &clock), Join::Joined(_)));
    clock.advance(Duration::from_secs(2));
    assert!(matches!(board(&flights, 1, WITHIN, &clock), Join::Joined(_)));
    clock.advance(Duration::from_millis(1));
    let Join::Started(late, newer) = board(&flights, 1, WITHIN, &clock) else { panic!() };
    assert!(newer.number() > flight.number());

    // The older one ends, and leaves the newer one its place.
    flight.complete(|| 1);
    assert_eq!(waiter.result().await.unwrap(), 1);
    for joined in unsent {
        let Join::Joined(waiter) = joined else { panic!() };
        assert_eq!(waiter.result().await.unwrap(), 1);
    }
    let Join::Joined(other) = board(&flights, 1, EVERY, &clock) else { panic!() };
    newer.complete(|| 2);
    assert_eq!((late.result().await.unwrap(), other.result().await.unwrap()), (2, 2));
    assert!(matches!(board(&flights, 1, EVERY, &clock), Join::Started(..)));
}

#[tokio::test]
async fn under_every_request_what_is_sent_is_sent() {
    let clock = ManualClock::at(UnixTime::from_secs(1000));
    let flights = SingleFlight::new(IntrospectionLimits::default());
    let Join::Started(_waiter, mut flight) = board(&flights, 1, EVERY, &clock) else { panic!() };
    let _turn = flight.start(&clock).await.unwrap();
    // At the very same moment by the clock.
    assert!(matches!(board(&flights, 1, EVERY, &clock), Join::Started(..)));
}

#[tokio::test]
async fn an_answer_that_has_landed_is_seen() {
    let clock = ManualClock::at(UnixTime::from_secs(1000));
    let flights: Arc<SingleFlight<u8>> = SingleFlight::new(IntrospectionLimits::default());
    let joining = flights.join_or_start(key(1), WITHIN, ClockReading::now(&clock), || Some(7));
    assert!(matches!(joining, Joining::Answered(7)));
    assert!(format!("{flights:?}").contains("waiting: 0"));
}

#[tokio::test]
async fn what_is_given_up_leaves_no_trace() {
    let clock = ManualClock::at(UnixTime::from_secs(1000));
    let flights = SingleFlight::new(IntrospectionLimits::default().waiting(1));
    let Join::Started(waiter, flight) = board(&flights, 1, EVERY, &clock) else { panic!() };
    assert!(matches!(board(&flights, 2, EVERY, &clock), Join::Full));
    drop(flight);
    assert!(waiter.result().await.is_err(), "an outage, not silence");
    let Join::Started(waiter, mut flight) = board(&flights, 2, EVERY, &clock) else { panic!() };
    drop(waiter);
    assert!(flight.start(&clock).await.is_none(), "nobody waits");
    drop(flight);
    let Join::Started(waiter, mut flight) = board(&flights, 2, EVERY, &clock) else { panic!() };
    let turn = flight.start(&clock).await.unwrap();
    drop((flight, turn));
    assert!(waiter.result().await.is_err());
    assert!(format!("{flights:?}").contains("under_way: 0, waiting: 0"), "{flights:?}");
}
