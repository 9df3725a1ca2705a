//! Whatever comes: no panic, and nothing but the token itself passes.

use std::sync::LazyLock;

use cloakroom_jwt::{Algorithm, Jwk, JwkSet, KeySet, SigningKey};
use proptest::prelude::*;

use crate::support::{claims, header, key_set, signed, token, verifier};

static KEY: LazyLock<SigningKey> =
    LazyLock::new(|| SigningKey::generate(Algorithm::Es256).unwrap());
static KEYS: LazyLock<KeySet> = LazyLock::new(|| key_set(&[&KEY]));
static GOOD: LazyLock<String> = LazyLock::new(|| token(&*KEY, &claims()));

/// JSON of any shape.
fn json() -> impl Strategy<Value = serde_json::Value> {
    use serde_json::Value;
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((member(), inner), 0..6)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

fn member() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z]{1,4}",
        prop::sample::select(vec![
            "alg",
            "kid",
            "typ",
            "crit",
            "jwk",
            "kty",
            "crv",
            "x",
            "y",
            "n",
            "e",
            "d",
            "k",
            "use",
            "key_ops",
            "keys",
            "iss",
            "aud",
            "exp",
            "iat",
            "nbf",
            "sub",
            "client_id",
            "jti",
            "cnf",
            "scope",
            "stateless",
            "handle_hash",
            "grant_id",
            "grant_epoch",
            "act",
        ])
        .prop_map(str::to_owned),
    ]
}

proptest! {
    #[test]
    fn junk_is_refused(junk in "[A-Za-z0-9_.=+/ -]{0,300}|.{0,200}") {
        prop_assert!(verifier().verify(&KEYS, &junk).is_err());
    }

    #[test]
    fn junk_in_a_segment_is_refused(at in 0_usize..3, junk in "[A-Za-z0-9_-]{0,200}|.{0,40}") {
        let mut parts: Vec<&str> = GOOD.split('.').collect();
        prop_assume!(parts[at] != junk);
        parts[at] = &junk;
        prop_assert!(verifier().verify(&KEYS, &parts.join(".")).is_err());
    }

    #[test]
    fn a_changed_bit_is_refused(at in any::<prop::sample::Index>(), bit in 0_u8..7) {
        let mut bytes = GOOD.clone().into_bytes();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        let changed = String::from_utf8(bytes).unwrap();
        prop_assert!(verifier().verify(&KEYS, &changed).is_err());
    }

    #[test]
    fn a_lost_or_doubled_piece_is_refused(from in any::<prop::sample::Index>(), to in any::<prop::sample::Index>()) {
        let (from, to) = (from.index(GOOD.len()), to.index(GOOD.len()));
        prop_assume!(from < to);
        let lost = format!("{}{}", &GOOD[..from], &GOOD[to..]);
        let doubled = format!("{}{}", &GOOD[..to], &GOOD[from..]);
        prop_assert!(verifier().verify(&KEYS, &lost).is_err());
        prop_assert!(verifier().verify(&KEYS, &doubled).is_err());
    }

    #[test]
    fn headers_and_claims_of_any_json_never_panic(mut head in json(), body in json()) {
        let _ = verifier().verify(&KEYS, &signed(&*KEY, &head.to_string(), &claims().to_string()));
        let usual = header(&*KEY);
        prop_assert!(verifier().verify(&KEYS, &signed(&*KEY, &usual.to_string(), &body.to_string())).is_err());
        if let (Some(head), Some(usual)) = (head.as_object_mut(), usual.as_object()) {
            head.extend(usual.clone());
        }
        let _ = verifier().verify(&KEYS, &signed(&*KEY, &head.to_string(), &claims().to_string()));
    }

    #[test]
    fn a_jwk_of_any_json_never_panics(value in json()) {
        if let Ok(jwk) = serde_json::from_value::<Jwk>(value.clone()) {
            let _ = KeySet::prepare(&JwkSet::new(vec![jwk]));
        }
        let _ = JwkSet::from_json(value.to_string().as_bytes());
        let set = serde_json::json!({"keys": [value]}).to_string();
        let _ = KeySet::prepare(&JwkSet::from_json(set.as_bytes()).unwrap());
    }

    #[test]
    fn private_keys_of_any_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        for algorithm in crate::support::ALGORITHMS {
            prop_assert!(SigningKey::from_pkcs8_der(algorithm, &bytes).is_err());
        }
    }
}
