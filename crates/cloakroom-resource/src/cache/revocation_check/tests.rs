use super::*;

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

#[test]
fn a_replica_vouches_only_while_it_is_fresh_and_sure() {
    let within = Freshness::within(secs(10));
    let every = Freshness::every_request();
    for (staleness, status, complete, freshness, expected) in [
        (Some(secs(10)), RevocationStatus::NotRevoked, true, within, RevocationCheck::Passed),
        (Some(secs(11)), RevocationStatus::NotRevoked, true, within, RevocationCheck::Stale),
        (None, RevocationStatus::NotRevoked, true, within, RevocationCheck::Stale),
        (Some(secs(0)), RevocationStatus::NotRevoked, true, every, RevocationCheck::Stale),
        (Some(secs(0)), RevocationStatus::NotRevoked, false, within, RevocationCheck::Unknown),
        (None, RevocationStatus::NotRevoked, false, within, RevocationCheck::Unknown),
        (Some(secs(0)), RevocationStatus::Unknown, true, within, RevocationCheck::Unknown),
        (None, RevocationStatus::Unknown, true, every, RevocationCheck::Unknown),
        (Some(secs(0)), RevocationStatus::Revoked, true, within, RevocationCheck::Revoked),
        (Some(secs(11)), RevocationStatus::Revoked, true, within, RevocationCheck::Revoked),
        (None, RevocationStatus::Revoked, false, every, RevocationCheck::Revoked),
    ] {
        let check = RevocationCheck::from_parts(staleness, status, complete, freshness);
        assert_eq!(check, expected, "{staleness:?} {status:?} {complete} {freshness:?}");
    }
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
