use cloakroom_core::time::{Clock, ManualClock};

use super::*;

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

#[test]
fn a_jwt_is_young_for_as_long_as_clocks_allow() {
    let clock = ManualClock::at(UnixTime::from_secs(1000));
    let now = ClockReading::now(&clock);
    let at = |secs| Some(UnixTime::from_secs(secs));
    for (issued, within, young) in [
        (at(1000), secs(5), true),
        (at(995), secs(10), true),
        (at(994), secs(10), false),
        (at(1000), secs(4), false),
        (at(1005), secs(5), true),
        (at(1006), secs(100), false),
        (None, secs(100), false),
    ] {
        let freshness = Freshness::within(within);
        assert_eq!(is_younger(issued, secs(5), freshness, now), young, "{issued:?} {within:?}");
    }
    assert!(!is_younger(at(1000), Duration::ZERO, Freshness::every_request(), now));
    assert_eq!(clock.now(), UnixTime::from_secs(1000));
}

#[test]
fn nothing_is_as_old_as_zero() {
    assert_eq!(Freshness::within(Duration::ZERO), Freshness::every_request());
    assert!(!Freshness::every_request().allows(Duration::ZERO));
    assert!(Freshness::within(secs(1)).allows(secs(1)));
}

#[test]
fn where_nobody_introspects_a_bound_covers_the_difference_between_clocks() {
    let millis = Duration::from_millis;
    for (freshness, is_met) in [
        (Freshness::every_request(), false),
        (Freshness::within(millis(1)), false),
        (Freshness::within(millis(4_999)), false),
        (Freshness::within(secs(5)), true),
        (Freshness::within(secs(6)), true),
    ] {
        assert_eq!(without_introspection(freshness, None).is_ok(), is_met, "{freshness:?}");
    }
    assert_eq!(default_of(None), None);
}

#[test]
fn youth_counts_where_nobody_follows_the_log() {
    let clock = ManualClock::at(UnixTime::from_secs(1000));
    let now = ClockReading::now(&clock);
    let within = Freshness::within(secs(10));
    for (issued, young) in [(1000, true), (995, true), (994, false), (1005, true), (1006, false)] {
        let issued_at = Some(UnixTime::from_secs(issued));
        assert_eq!(is_young(issued_at, None, within, now), young, "{issued}");
    }
    assert!(!is_young(None, None, within, now));
}
