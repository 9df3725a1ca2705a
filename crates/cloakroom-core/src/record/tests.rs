use std::time::Duration;

use super::*;
use crate::random::Random;
use crate::test_records::{grant, token};
use crate::time::UnixTime;
use serde_json::json;

const MILLISECOND: Duration = Duration::from_millis(1);

fn at(secs: u64) -> UnixTime {
    UnixTime::from_secs(secs)
}

#[test]
fn a_grant_is_live_until_the_first_of_its_ends_and_unless_it_is_revoked() {
    for (end, row_end) in [(1000, 2000), (2000, 1000), (1000, 1000)] {
        let mut grant = grant(1);
        (grant.expires_at, grant.row_expires_at) = (at(end), at(row_end));
        grant.revoked_at = None;
        assert!(grant.is_live(at(1000) - MILLISECOND), "{end} {row_end}");
        assert!(!grant.is_live(at(1000)), "{end} {row_end}");
        grant.revoked_at = Some(at(3000));
        assert!(!grant.is_live(at(999)), "a revocation counts, whatever its time");
    }
}

#[test]
fn a_token_is_live_until_its_end_and_unless_it_is_revoked() {
    let mut token = token(GrantId::from_bytes([1; 16]), 1);
    (token.expires_at, token.revoked_at) = (at(1000), None);
    assert!(token.is_live(at(1000) - MILLISECOND));
    assert!(!token.is_live(at(1000)));
    assert!(!token.is_live(at(1001)));
    token.revoked_at = Some(at(3000));
    assert!(!token.is_live(at(999)), "a revocation counts, whatever its time");
}

#[test]
fn an_earlier_credential_is_recent_until_its_own_window_ends() {
    let mut successor = SealedSuccessor::new(Vec::new(), at(5000));
    successor.earlier = vec![SpentBefore::new(3, at(1000)), SpentBefore::new(4, at(2000))];
    for (generation, now, is_recent) in [
        (3, at(1000) - MILLISECOND, true),
        (3, at(1000), false),
        (3, at(1500), false),
        (4, at(1500), true),
        (4, at(2000), false),
        (5, at(999), false),
        (2, at(999), false),
    ] {
        assert_eq!(successor.is_recent(generation, now), is_recent, "{generation} at {now:?}");
    }
}

#[test]
fn keys_of_chains_are_equal_if_their_bytes_are() {
    let random = Random::system();
    let key = ChainKey::random(&random).unwrap();
    assert_eq!(key, key.clone());
    assert_ne!(key, ChainKey::random(&random).unwrap());
}

#[test]
fn only_a_token_bound_to_a_dpop_key_has_the_type_dpop() {
    for (confirmation, expected) in [
        (None, "Bearer"),
        (Some(Confirmation::JwkThumbprint([1; 32])), "DPoP"),
        (Some(Confirmation::CertificateThumbprint([1; 32])), "Bearer"),
    ] {
        assert_eq!(token_type(confirmation.as_ref()), expected);
    }
}

#[test]
fn debug_shows_no_chain_key() {
    let key = ChainKey([0xab; 16]);
    assert_eq!(format!("{key:?}"), "ChainKey(redacted)");
}

#[test]
fn confirmations_are_written_as_the_rfcs_say() {
    let jkt = serde_json::to_value(Confirmation::JwkThumbprint([0; 32])).unwrap();
    assert_eq!(jkt, json!({"jkt": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}));
    let x5t = serde_json::to_value(Confirmation::CertificateThumbprint([0; 32])).unwrap();
    assert!(x5t.get("x5t#S256").is_some());
}

#[test]
fn a_copy_with_another_chain_keeps_everything_else() {
    let grant = grant(7);
    let chain = grant.chain.clone().unwrap();
    assert_eq!(grant.with_chain(chain.clone()), grant);
    let mut without = chain.clone();
    without.successor = None;
    assert_eq!(chain.without_successor(), without);
    assert_ne!(without, chain, "it has a successor");
}
