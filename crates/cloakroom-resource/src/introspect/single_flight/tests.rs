use cloakroom_core::time::{ManualClock, UnixTime};

use super::*;

type Board = Boarding<u8, ()>;

fn key(n: u8) -> TokenKey {
    TokenKey::of(&n.to_string())
}

const WITHIN: Freshness = Freshness::within(Duration::from_secs(2));
const EVERY: Freshness = Freshness::every_request();

fn board(flights: &Arc<Flights<u8>>, n: u8, freshness: Freshness, clock: &ManualClock) -> Board {
    flights.board(key(n), freshness, Moment::now(clock), || None)
}

#[tokio::test]
async fn who_may_join() {
    let clock = ManualClock::at(UnixTime::from_secs(1000));
    let flights = Flights::new(IntrospectionLimits::default());
    let Board::Started(waiter, mut flight) = board(&flights, 1, EVERY, &clock) else { panic!() };
    clock.advance(Duration::from_secs(60));
    let unsent = [board(&flights, 1, EVERY, &clock), board(&flights, 1, WITHIN, &clock)];
    assert!(unsent.iter().all(|it| matches!(it, Board::Joined(_))), "whatever its age, not sent");
    assert!(matches!(board(&flights, 2, EVERY, &clock), Board::Started(..)), "another token");

    let (sent, _turn) = flight.departs(&clock).await.unwrap();
    assert_eq!(sent.wall(), clock.now());
    assert!(matches!(board(&flights, 1, WITHIN, &clock), Board::Joined(_)));
    clock.advance(Duration::from_secs(2));
    assert!(matches!(board(&flights, 1, WITHIN, &clock), Board::Joined(_)));
    clock.advance(Duration::from_millis(1));
    let Board::Started(late, newer) = board(&flights, 1, WITHIN, &clock) else { panic!() };
    assert!(newer.number() > flight.number());

    // The older one ends, and leaves the newer one its place.
    flight.lands(|| 1);
    assert_eq!(waiter.result().await.unwrap(), 1);
    for joined in unsent {
        let Board::Joined(waiter) = joined else { panic!() };
        assert_eq!(waiter.result().await.unwrap(), 1);
    }
    let Board::Joined(other) = board(&flights, 1, EVERY, &clock) else { panic!() };
    newer.lands(|| 2);
    assert_eq!((late.result().await.unwrap(), other.result().await.unwrap()), (2, 2));
    assert!(matches!(board(&flights, 1, EVERY, &clock), Board::Started(..)));
}

#[tokio::test]
async fn under_every_request_what_is_sent_is_sent() {
    let clock = ManualClock::at(UnixTime::from_secs(1000));
    let flights = Flights::new(IntrospectionLimits::default());
    let Board::Started(_waiter, mut flight) = board(&flights, 1, EVERY, &clock) else { panic!() };
    let _turn = flight.departs(&clock).await.unwrap();
    // At the very same moment by the clock.
    assert!(matches!(board(&flights, 1, EVERY, &clock), Board::Started(..)));
}

#[tokio::test]
async fn an_answer_that_has_landed_is_seen() {
    let clock = ManualClock::at(UnixTime::from_secs(1000));
    let flights: Arc<Flights<u8>> = Flights::new(IntrospectionLimits::default());
    let boarding = flights.board(key(1), WITHIN, Moment::now(&clock), || Some(7));
    assert!(matches!(boarding, Boarding::Landed(7)));
    assert!(format!("{flights:?}").contains("waiting: 0"));
}

#[tokio::test]
async fn what_is_given_up_leaves_no_trace() {
    let clock = ManualClock::at(UnixTime::from_secs(1000));
    let flights = Flights::new(IntrospectionLimits::default().waiting(1));
    let Board::Started(waiter, flight) = board(&flights, 1, EVERY, &clock) else { panic!() };
    assert!(matches!(board(&flights, 2, EVERY, &clock), Board::Full));
    drop(flight);
    assert!(waiter.result().await.is_err(), "an outage, not silence");
    let Board::Started(waiter, mut flight) = board(&flights, 2, EVERY, &clock) else { panic!() };
    drop(waiter);
    assert!(flight.departs(&clock).await.is_none(), "nobody waits");
    drop(flight);
    let Board::Started(waiter, mut flight) = board(&flights, 2, EVERY, &clock) else { panic!() };
    let turn = flight.departs(&clock).await.unwrap();
    drop((flight, turn));
    assert!(waiter.result().await.is_err());
    assert!(format!("{flights:?}").contains("under_way: 0, waiting: 0"), "{flights:?}");
}
