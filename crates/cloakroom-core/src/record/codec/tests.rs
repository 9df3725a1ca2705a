//! Rows and bodies, there and back.

use serde_json::json;

use super::*;
use crate::test_records::{grant, key, token};

/// A grant in which no two values are alike.
fn distinct() -> GrantRecord {
    let at = UnixTime::from_millis;
    let mut grant = grant(1);
    (grant.auth_time, grant.created_at, grant.refreshed_at) = (Some(at(1)), at(2), Some(at(3)));
    (grant.expires_at, grant.row_expires_at, grant.revoked_at) = (at(4), at(5), Some(at(6)));
    grant.audience = Audience::new(["b", "a"]).unwrap();
    grant.device = Device::new([("os", "Linux"), ("city", "Lisbon")]).unwrap();
    grant.unknown = [("n".to_owned(), json!(1))].into_iter().collect();
    let chain = grant.chain.as_mut().unwrap();
    chain.digest = TokenDigest::from_bytes([8; 32]);
    chain.key = ChainKey::from_bytes([9; 16]);
    (chain.expires_at, chain.rotates) = (at(300), false);
    chain.code.as_mut().unwrap().challenge = Some("c".into());
    let successor = chain.successor.as_mut().unwrap();
    successor.until = at(7);
    successor.earlier[0].until = at(8);
    grant
}

fn text(text: &str) -> Vec<u8> {
    [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat()
}

/// Rows outlive the program that wrote them.
#[test]
fn bodies_are_what_they_always_were() {
    let grant = distinct();
    let body = [
        &[2][..],
        &text("orders:read orders:write"),
        &[2],
        &text("b"),
        &text("a"),
        &[1, 1],
        &[4; 32],
        &[1, 1],
        &[1],
        &text("urn:example:mfa"),
        &[2],
        &[1],
        &text("Alice"),
        &[1],
        &text(r#"{"sub":"support"}"#),
        &[1],
        &text(r#"[{"type":"payment"}]"#),
        &[1],
        &text("sid-1"),
        &text(r#"{"tenant":"acme"}"#),
        &[2],
        &text("city"),
        &text("Lisbon"),
        &text("os"),
        &text("Linux"),
        &[1, 3],
        &text(r#"{"n":1}"#),
        // The chain: a refresh token, and its key.
        &[1, 2],
        &[9; 16],
        // Its code.
        &[1],
        &text("https://app.example/cb"),
        &[1, 1],
        &text("c"),
        &[1],
        &text("n-1"),
        &[0],
        // Its successor, and what was spent before.
        &[1, 3, 1, 2, 3, 7, 1, 0, 8, 2, 4, 5, 0, 0],
        // The first bound generation, that it does not rotate, and no unknown fields.
        &[1, 1, 0, 0],
    ]
    .concat();
    let row = grant.to_row();
    assert_eq!(row.body, body);
    let columns = [
        &[2][..],
        &text("web-app"),
        &text("u:alice"),
        // 1,700,000,000,000.
        &[0x80, 0xd0, 0x95, 0xff, 0xbc, 0x31],
        &[1, 2],
        &[8; 32],
        &[1, 0xac, 2],
        &[4, 5, 1, 6],
    ]
    .concat();
    assert_eq!(grant.to_bytes(), [columns, body].concat());
    assert_eq!(GrantRecord::from_row(&row).unwrap(), grant);
    assert_eq!(GrantRecord::from_bytes(grant.id, &grant.to_bytes()).unwrap(), grant);

    let at = UnixTime::from_millis;
    let token = TokenRecord {
        issued_at: at(1),
        expires_at: at(2),
        revoked_at: Some(at(3)),
        confirmation: Some(Confirmation::CertificateThumbprint([5; 32])),
        claims: Some(Claims::default()),
        ..token(grant.id, 1)
    };
    let body = [
        &[2][..],
        &text("orders:read"),
        &[1],
        &text("https://orders.example"),
        &[1, 2],
        &[5; 32],
        // Claims, but none, instead of those of the grant; and no unknown fields.
        &[1, 0, 0],
    ]
    .concat();
    assert_eq!(token.to_row().body, body);
    assert_eq!(token.to_bytes(), [&[2, 1, 2, 1, 3], &*body].concat());
    assert_eq!(TokenRecord::from_row(&token.to_row()).unwrap(), token);
    let again = TokenRecord::from_bytes(grant.id, &token.digest, &token.to_bytes()).unwrap();
    assert_eq!(again, token);
}

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

/// A member that only a newer version knows.
fn newer() -> UnknownFields {
    [("from the future".to_owned(), json!({"kept": [1, "a"]}))].into_iter().collect()
}

#[test]
fn what_a_newer_version_wrote_survives_a_rewrite_however_deep_it_is() {
    let mut grant = grant(1);
    let chain = grant.chain.as_mut().unwrap();
    let successor = chain.successor.as_mut().unwrap();
    successor.earlier[0].unknown = newer();
    successor.unknown = newer();
    chain.code.as_mut().unwrap().unknown = newer();
    chain.unknown = newer();
    grant.unknown = newer();
    assert_eq!(GrantRecord::from_row(&grant.to_row()).unwrap(), grant);
    assert_eq!(GrantRecord::from_bytes(grant.id, &grant.to_bytes()).unwrap(), grant);

    let token = TokenRecord { unknown: newer(), ..token(grant.id, 1) };
    assert_eq!(TokenRecord::from_row(&token.to_row()).unwrap(), token);
}

/// Puts a member that nobody knows into every object of a body in JSON, and counts them.
fn put_unknown(value: &mut Value) -> usize {
    match value {
        Value::Object(members) => {
            let inside: usize = members.values_mut().map(put_unknown).sum();
            members.insert("from the future".into(), json!("kept"));
            inside + 1
        }
        Value::Array(items) => items.iter_mut().map(put_unknown).sum(),
        _ => 0,
    }
}

#[test]
fn what_a_newer_version_wrote_survives_in_the_row_of_a_key() {
    let json_of = |body: &[u8]| serde_json::from_slice::<Value>(&body[1..]).unwrap();
    assert!(key().to_body().starts_with(b"\x01{"));
    let mut json = json_of(&key().to_body());
    // The record, its public key, its times, and when it signs.
    assert_eq!(put_unknown(&mut json), 4);
    let body = [&[JSON][..], json.to_string().as_bytes()].concat();
    assert_eq!(json_of(&KeyRecord::from_body(&body).unwrap().to_body()), json);
}

/// The place of some bytes in a body.
fn place(body: &[u8], of: &[u8]) -> usize {
    body.windows(of.len()).position(|window| window == of).unwrap()
}

#[test]
fn a_binding_that_is_not_understood_is_refused() {
    let mut row = grant(1).to_row();
    let thumbprint = place(&row.body, &[4; 32]);
    assert_eq!(row.body[thumbprint - 1], 1);
    for unknown in [0, 3, 0xff] {
        row.body[thumbprint - 1] = unknown;
        assert!(matches!(GrantRecord::from_row(&row), Err(StoreError::Corrupt { .. })));
    }
    row.body[thumbprint - 1] = 2;
    let read = GrantRecord::from_row(&row).unwrap();
    assert_eq!(read.confirmation, Some(Confirmation::CertificateThumbprint([4; 32])));
}

#[test]
fn the_smallest_records_take_few_bytes() {
    let whole = grant(1);
    let small = GrantRecord::new(
        whole.id,
        whole.client.clone(),
        whole.subject.clone(),
        whole.audience.clone(),
        whole.created_at,
        whole.expires_at,
    );
    let row = small.to_row();
    assert_eq!(GrantRecord::from_row(&row).unwrap(), small);
    // The version, the lengths of scope, claims, device and unknown fields; the time; eight things and
    // a chain that are missing; the audience, the number of its resources and its length.
    assert_eq!(row.body.len(), 5 + 6 + 9 + 2 + "https://orders.example".len());
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
    let longer = [&*good.body, b"\0"].concat();
    for body in [vec![], vec![2], b"\x01{}".to_vec(), vec![0xff; 9], longer] {
        let error = GrantRecord::from_row(&GrantRow { body, ..good.clone() }).unwrap_err();
        assert!(matches!(error, StoreError::Corrupt { .. }), "{error:?}");
    }
    // Whatever is read, is read again as it was written.
    for place in 0..good.body.len() {
        for byte in [0, 1, 0x7f, 0x80, 0xff] {
            let mut row = good.clone();
            row.body[place] = byte;
            if let Ok(read) = GrantRecord::from_row(&row) {
                assert_eq!(GrantRecord::from_row(&read.to_row()).unwrap(), read);
            }
        }
    }
    for broken in [
        GrantRow { client: "é".into(), ..good.clone() },
        GrantRow { subject: "alice".into(), ..good.clone() },
        GrantRow { chain: None, ..good.clone() },
    ] {
        assert!(GrantRecord::from_row(&broken).is_err());
    }
}
