use cloakroom_core::{Clock, ManualClock};

use super::*;

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

#[test]
fn a_replica_vouches_only_while_it_is_fresh_and_sure() {
    let within = Freshness::within(secs(10));
    let every = Freshness::every_request();
    for (staleness, verdict, complete, freshness, expected) in [
        (Some(secs(10)), Verdict::Clear, true, within, Standing::Fresh),
        (Some(secs(11)), Verdict::Clear, true, within, Standing::Stale),
        (None, Verdict::Clear, true, within, Standing::Stale),
        (Some(secs(0)), Verdict::Clear, true, every, Standing::Stale),
        (Some(secs(0)), Verdict::Clear, false, within, Standing::Unknown),
        (None, Verdict::Clear, false, within, Standing::Unknown),
        (Some(secs(0)), Verdict::Unknown, true, within, Standing::Unknown),
        (None, Verdict::Unknown, true, every, Standing::Unknown),
        (Some(secs(0)), Verdict::Denied, true, within, Standing::Denied),
        (Some(secs(11)), Verdict::Denied, true, within, Standing::Denied),
        (None, Verdict::Denied, false, every, Standing::Denied),
    ] {
        let standing = Standing::judge(staleness, verdict, complete, freshness);
        assert_eq!(standing, expected, "{staleness:?} {verdict:?} {complete} {freshness:?}");
    }
}

#[test]
fn a_jwt_is_young_for_as_long_as_clocks_allow() {
    let clock = ManualClock::at(UnixTime::from_secs(1000));
    let now = Moment::now(&clock);
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
