//! Rows and bodies, there and back.

use serde_json::json;

use super::*;
use crate::test_records::{grant, key, token};

#[test]
fn rows_round_trip() {
    let grant = grant(1);
    assert_eq!(GrantRecord::from_row(&grant.to_row()).unwrap(), grant);
    let without_chain = GrantRecord { chain: None, ..grant };
    assert_eq!(GrantRecord::from_row(&without_chain.to_row()).unwrap(), without_chain);
    let token = token(without_chain.id, 1);
    assert_eq!(TokenRecord::from_row(&token.to_row()).unwrap(), token);
}

#[test]
fn records_survive_their_bytes() {
    let mut grant = grant(1);
    grant.revoked_at = Some(UnixTime::from_millis(7));
    for grant in [GrantRecord { chain: None, ..grant.clone() }, grant] {
        let bytes = grant.to_bytes();
        assert_eq!(GrantRecord::from_bytes(grant.id, &bytes).unwrap(), grant);
        for length in 0..bytes.len() {
            assert!(GrantRecord::from_bytes(grant.id, &bytes[..length]).is_err(), "{length}");
        }
    }
    let token = token(GrantId::from_bytes([1; 16]), 1);
    let bytes = token.to_bytes();
    assert_eq!(TokenRecord::from_bytes(token.grant, &token.digest, &bytes).unwrap(), token);
    assert!(TokenRecord::from_bytes(token.grant, &token.digest, b"").is_err());
}

#[test]
fn rule_keys_survive_their_bytes() {
    let (subject, client) = (Subject::user("a\0é").unwrap(), ClientId::new("u:").unwrap());
    let keys = [
        RuleKey::Jti(Jti::new("j").unwrap()),
        RuleKey::Subject(subject.clone()),
        RuleKey::Subject(Subject::Client(client.clone())),
        RuleKey::Client(client.clone()),
        RuleKey::SubjectAtClient(subject, client),
        RuleKey::Key(Kid::new("k").unwrap()),
    ];
    for key in &keys {
        let bytes = key.to_bytes();
        assert_eq!(RuleKey::from_bytes(&bytes).unwrap(), *key);
        for length in 0..bytes.len() {
            let cut = RuleKey::from_bytes(&bytes[..length]);
            assert!(cut.is_err() || cut.is_ok_and(|cut| cut != *key), "{key:?}");
        }
    }
    let all: std::collections::BTreeSet<_> = keys.iter().map(RuleKey::to_bytes).collect();
    assert_eq!(all.len(), keys.len());
}

/// Puts a member that nobody knows into every object of a body, and counts them. Left alone is
/// what a token is bound to: a way to bind that is not understood must be refused.
fn put_unknown(value: &mut Value) -> usize {
    match value {
        Value::Object(members) => {
            let inside = members.iter_mut().filter(|(name, _)| *name != "cnf");
            let inside: usize = inside.map(|(_, value)| put_unknown(value)).sum();
            members.insert("from the future".into(), json!("kept"));
            inside + 1
        }
        Value::Array(items) => items.iter_mut().map(put_unknown).sum(),
        _ => 0,
    }
}

/// A body as a newer version would write it, with so many objects in it.
fn newer(body: &[u8]) -> (Vec<u8>, Value, usize) {
    let mut json: Value = serde_json::from_slice(&body[1..]).unwrap();
    let objects = put_unknown(&mut json);
    ([&[VERSION][..], json.to_string().as_bytes()].concat(), json, objects)
}

fn json_of(body: &[u8]) -> Value {
    serde_json::from_slice(&body[1..]).unwrap()
}

#[test]
fn what_a_newer_version_wrote_survives_a_rewrite_however_deep_it_is() {
    let mut row = grant(1).to_row();
    let (body, json, objects) = newer(&row.body);
    row.body = body;
    let again = GrantRecord::from_row(&row).unwrap();
    assert_eq!(json_of(&again.to_row().body), json);
    // The grant, `act`, an authorization detail, claims, device; the chain, its code, its
    // successor and what was spent before.
    assert_eq!(objects, 9);
    let bytes = GrantRecord::from_bytes(again.id, &again.to_bytes()).unwrap();
    assert_eq!(bytes, again);

    let mut row = token(again.id, 1).to_row();
    let (body, json, objects) = newer(&row.body);
    row.body = body;
    let again = TokenRecord::from_row(&row).unwrap();
    // The token and its claims.
    assert_eq!((json_of(&again.to_row().body), objects), (json, 2));

    let (body, json, objects) = newer(&key().to_body());
    let again = KeyRecord::from_body(&body).unwrap();
    // The record, its public key, its times, and when it signs.
    assert_eq!((json_of(&again.to_body()), objects), (json, 4));
}

#[test]
fn a_binding_that_is_not_understood_is_refused() {
    let mut row = grant(1).to_row();
    let mut body = json_of(&row.body);
    body["cnf"] = json!({"from the future": "a way to prove"});
    row.body = [&[VERSION][..], body.to_string().as_bytes()].concat();
    assert!(matches!(GrantRecord::from_row(&row), Err(StoreError::Corrupt { .. })));
}

#[test]
fn rows_of_before_are_still_read() {
    let mut row = grant(1).to_row();
    let mut body = json_of(&row.body);
    let chain = body["chain"].as_object_mut().unwrap();
    assert!(chain.remove("bound_from").is_some());
    row.body = [&[VERSION][..], body.to_string().as_bytes()].concat();
    let read = GrantRecord::from_row(&row).unwrap();
    assert_eq!(read.chain.unwrap().bound_from, None);
    assert!(read.confirmation.is_some());
}

#[test]
fn the_columns_are_authoritative() {
    let mut row = grant(1).to_row();
    row.revoked_at = Some(5);
    row.epoch = 9;
    let grant = GrantRecord::from_row(&row).unwrap();
    assert_eq!(grant.revoked_at, Some(UnixTime::from_millis(5)));
    assert_eq!(grant.epoch, Epoch::new(9));
}

#[test]
fn damage_is_corrupt_and_never_a_panic() {
    let good = grant(1).to_row();
    for body in [vec![], vec![VERSION], vec![2, b'{', b'}'], b"\x01{}".to_vec(), vec![0xff; 9]] {
        let error = GrantRecord::from_row(&GrantRow { body, ..good.clone() }).unwrap_err();
        assert!(matches!(error, StoreError::Corrupt { .. }), "{error:?}");
    }
    for broken in [
        GrantRow { client: "é".into(), ..good.clone() },
        GrantRow { subject: "alice".into(), ..good.clone() },
        GrantRow { chain: None, ..good.clone() },
    ] {
        assert!(GrantRecord::from_row(&broken).is_err());
    }
}
