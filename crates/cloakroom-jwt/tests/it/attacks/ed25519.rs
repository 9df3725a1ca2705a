//! Ed25519: signatures with a second spelling, and keys under which anything is signed
//! (RFC 8032 §5.1.7).

use cloakroom_jwt::{Algorithm, Jwk, SigningKey};
use serde_json::json;

use super::bignum::{add, hex};
use crate::support::{accepts, b64, claims, key_set, reason, refuses, token, unb64};
use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};

/// The order of the group, little-endian.
const L: &str = "edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010";

/// `y` of every point whose order divides 8, as it is spelled and as it might be: nothing but the
/// sign, in the highest bit, is missing.
const SMALL_ORDER: [(&str, &str); 7] = [
    ("order 4", "0000000000000000000000000000000000000000000000000000000000000000"),
    ("order 1", "0100000000000000000000000000000000000000000000000000000000000000"),
    ("order 2", "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
    ("order 8", "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"),
    ("order 8", "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"),
    ("order 4, as p", "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
    ("order 1, as p+1", "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
];

#[test]
fn signatures_that_are_not_right() {
    let key = SigningKey::generate(Algorithm::EdDsa).unwrap();
    let keys = key_set(&[&key]);
    let jwt = token(&key, &claims());
    let (input, signature) = jwt.rsplit_once('.').unwrap();
    let signature = unb64(signature);
    let (r, s) = signature.split_at(32);
    let reversed = |bytes: &[u8]| bytes.iter().rev().copied().collect::<Vec<u8>>();
    // S + L is the same number to whoever forgets to compare it with L.
    let mut larger = reversed(s);
    for what in ["S + L", "S + 2 L", "S + 3 L"] {
        larger = add(&larger, &reversed(&hex(L))).unwrap();
        let bad = [r, &reversed(&larger)].concat();
        refuses(&keys, what, &format!("{input}.{}", b64(bad)), "Signature");
    }
    let mut negative = r.to_vec();
    negative[31] ^= 0x80;
    for (what, bad) in [
        ("zero", vec![0; 64]),
        ("ones", vec![0xff; 64]),
        ("R = 0", [&[0; 32], s].concat()),
        ("S = 0", [r, &[0; 32]].concat()),
        ("S = L", [r, &hex(L)].concat()),
        ("R negated", [&negative, s].concat()),
        ("S, then R", [s, r].concat()),
        ("R of order 1, S = 0", [hex(SMALL_ORDER[1].1), vec![0; 32]].concat()),
        ("63 bytes", signature[..63].to_vec()),
        ("65 bytes", [&signature[..], &[0]].concat()),
        ("empty but for a byte", vec![0]),
        ("twice", [&signature[..], &signature].concat()),
    ] {
        refuses(&keys, what, &format!("{input}.{}", b64(bad)), "Signature");
    }
    for (what, point) in SMALL_ORDER {
        for sign in [0, 0x80] {
            let mut point = hex(point);
            point[31] |= sign;
            let bad = [&point[..], s].concat();
            refuses(&keys, &format!("R of {what}"), &format!("{input}.{}", b64(bad)), "Signature");
        }
    }
    accepts(&keys, "as it was", &jwt);
}

/// A point of small order signs everything: with `R` the same point's negative or the neutral
/// element and `S` zero, one guess in eight or better is a good signature of any words.
#[test]
fn keys_that_are_none() {
    let weak = "Error(the public key cannot be used: the point is of small order or not canonical";
    let mut rows: Vec<(String, Vec<u8>, &str)> = Vec::new();
    for (what, point) in SMALL_ORDER {
        for sign in [0, 0x80] {
            let mut point = hex(point);
            point[31] |= sign;
            rows.push((format!("{what}, sign {sign}"), point, weak));
        }
    }
    // y + p fits into 255 bits for y up to 18: a second spelling of the same point.
    for low in 0xed..=0xff_u8 {
        let point = [&[low], &[0xff; 30][..], &[0x7f]].concat();
        rows.push((format!("y = p + {}", low - 0xed), point, weak));
    }
    let size = "Error(the public key cannot be used: a coordinate has the wrong size";
    for len in [0, 1, 31, 33, 44, 57, 64] {
        rows.push((format!("{len} bytes"), vec![0x55; len], size));
    }
    for (what, x, expected) in rows {
        let jwk = json!({"kty": "OKP", "crv": "Ed25519", "x": b64(x), "kid": "weak"});
        let error = serde_json::from_value::<Jwk>(jwk).expect_err(&what);
        assert!(reason(&error).starts_with(expected), "{what}: {error:?}");
    }
    // The base point (RFC 8032 §5.1), and a point next to those that are refused.
    for good in [
        "5866666666666666666666666666666666666666666666666666666666666666",
        "0300000000000000000000000000000000000000000000000000000000000000",
        "e9ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    ] {
        let jwk = json!({"kty": "OKP", "crv": "Ed25519", "x": b64(hex(good)), "kid": "good"});
        serde_json::from_value::<Jwk>(jwk).unwrap();
    }
}

/// What the check above is for: the library alone takes the neutral element for a key, and then
/// 32 bytes of that and 32 zeros for its signature of anything.
#[test]
fn a_key_of_small_order_would_sign_everything() {
    let neutral = hex(SMALL_ORDER[1].1);
    let signature = [&neutral[..], &[0; 32]].concat();
    for words in ["anything", "anything else"] {
        let key = UnparsedPublicKey::new(&ED25519, &neutral);
        key.verify(words.as_bytes(), &signature).unwrap();
    }
}

/// That a point is on the curve comes out at the first signature: there is none that is right.
#[test]
fn a_key_that_is_no_point_verifies_nothing() {
    let key = SigningKey::generate(Algorithm::EdDsa).unwrap();
    let (input, good) = {
        let jwt = token(&key, &claims());
        let (input, signature) = jwt.rsplit_once('.').unwrap();
        (input.to_owned(), unb64(signature))
    };
    for y in [2, 7, 8, 11] {
        let x = [&[y], &[0; 31][..]].concat();
        let jwk = json!({"kty": "OKP", "crv": "Ed25519", "x": b64(&x), "kid": key.kid()});
        let keys = serde_json::from_value(json!({"keys": [jwk]})).unwrap();
        let keys = cloakroom_jwt::KeySet::prepare(&keys);
        let mut points: Vec<Vec<u8>> = SMALL_ORDER.iter().map(|(_, point)| hex(point)).collect();
        points.extend([x, good[..32].to_vec()]);
        for r in points {
            for s in [&[0; 32][..], &good[32..]] {
                let jwt = format!("{input}.{}", b64([&r[..], s].concat()));
                refuses(&keys, &format!("y = {y}"), &jwt, "Signature");
            }
        }
    }
}
