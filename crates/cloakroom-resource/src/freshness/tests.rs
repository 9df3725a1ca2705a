use cloakroom_core::time::{Clock, ManualClock};

use super::*;

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

#[test]
fn a_replica_vouches_only_while_it_is_fresh_and_sure() {
    let within = Freshness::within(secs(10));
    let every = Freshness::every_request();
    for (staleness, verdict, complete, freshness, expected) in [
        (Some(secs(10)), Verdict::Clear, true, within, RevocationStatus::Fresh),
        (Some(secs(11)), Verdict::Clear, true, within, RevocationStatus::Stale),
        (None, Verdict::Clear, true, within, RevocationStatus::Stale),
        (Some(secs(0)), Verdict::Clear, true, every, RevocationStatus::Stale),
        (Some(secs(0)), Verdict::Clear, false, within, RevocationStatus::Unknown),
        (None, Verdict::Clear, false, within, RevocationStatus::Unknown),
        (Some(secs(0)), Verdict::Unknown, true, within, RevocationStatus::Unknown),
        (None, Verdict::Unknown, true, every, RevocationStatus::Unknown),
        (Some(secs(0)), Verdict::Denied, true, within, RevocationStatus::Denied),
        (Some(secs(11)), Verdict::Denied, true, within, RevocationStatus::Denied),
        (None, Verdict::Denied, false, every, RevocationStatus::Denied),
    ] {
        let standing = RevocationStatus::judge(staleness, verdict, complete, freshness);
        assert_eq!(standing, expected, "{staleness:?} {verdict:?} {complete} {freshness:?}");
    }
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
fn a_token_is_known_completely_only_if_every_rule_could_name_it() {
    use cloakroom_core::revocation::Epoch;
    use cloakroom_core::{ActiveToken, ClientId, GrantId, Jti, Kid, Subject};
    let mut token = ActiveToken::default();
    token.grant = Some(GrantId::from_bytes([1; 16]));
    token.epoch = Some(Epoch::new(1));
    token.subject = Some(Subject::user("alice").unwrap());
    token.client = Some(ClientId::new("app").unwrap());
    token.jti = Some(Jti::new("j").unwrap());
    let (kid, end) = (Some(Kid::new("k").unwrap()), Some(UnixTime::from_secs(1)));
    let facts = TokenFacts::new(&token, kid.clone(), None);
    assert!(is_complete(&facts, end, true) && is_complete(&facts, end, false));
    assert!(!is_complete(&facts, None, true) && !is_complete(&facts, None, false));
    let without: [fn(&mut TokenFacts); 5] = [
        |facts| facts.grant = None,
        |facts| facts.epoch = None,
        |facts| facts.subject = None,
        |facts| facts.client = None,
        |facts| facts.jti = None,
    ];
    for (index, remove) in without.into_iter().enumerate() {
        let mut facts = facts.clone();
        remove(&mut facts);
        assert!(!is_complete(&facts, end, true), "{index}");
        assert!(!is_complete(&facts, end, false), "{index}");
    }
    let unsigned = TokenFacts::new(&token, None, None);
    assert!(!is_complete(&unsigned, end, true), "which key signed the JWT?");
    assert!(is_complete(&unsigned, end, false), "no key signed a handle");
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
