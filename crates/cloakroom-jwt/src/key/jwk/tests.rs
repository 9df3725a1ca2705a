use serde_json::{Value, json};

use super::*;
use crate::{JwkSet, KeySet, Signer as _, SigningKey};

// RFC 7638 §3.1
const RSA_N: &str = "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw";
// RFC 7515 appendix A.3.1
const EC_X: &str = "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU";
const EC_Y: &str = "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0";
// RFC 8037 appendix A.2
const ED_X: &str = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";

fn rsa() -> Value {
    json!({"kty": "RSA", "n": RSA_N, "e": "AQAB", "alg": "RS256", "kid": "2011-04-29"})
}

fn ec() -> Value {
    json!({"kty": "EC", "crv": "P-256", "x": EC_X, "y": EC_Y, "kid": "ec"})
}

fn okp() -> Value {
    json!({"kty": "OKP", "crv": "Ed25519", "x": ED_X, "kid": "ed"})
}

fn with(mut key: Value, name: &str, value: Value) -> Value {
    key[name] = value;
    key
}

fn read(key: Value) -> Result<Jwk, serde_json::Error> {
    serde_json::from_value(key)
}

#[test]
fn thumbprints_of_the_rfcs() {
    // RFC 7638 §3.1, RFC 8037 appendix A.3
    let thumbprint = |key| read(key).unwrap().thumbprint().to_string();
    assert_eq!(thumbprint(rsa()), "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");
    assert_eq!(thumbprint(okp()), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
    // Whatever else is said about a key, its thumbprint is the same.
    let key = with(okp(), "use", json!("sig"));
    assert_eq!(thumbprint(key), thumbprint(okp()));
}

#[test]
fn a_key_survives_being_written() {
    for key in [
        rsa(),
        ec(),
        okp(),
        with(ec(), "key_ops", json!(["verify"])),
        with(okp(), "use", json!("sig")),
        with(okp(), "alg", json!("EdDSA")),
    ] {
        let jwk = read(key.clone()).unwrap();
        assert_eq!(serde_json::to_value(&jwk).unwrap(), key);
    }
    let chatty = with(ec(), "x5t", json!({"what": ["ever"]}));
    assert_eq!(read(chatty).unwrap(), read(ec()).unwrap());
}

#[test]
fn a_private_key_is_no_jwk() {
    for member in ["d", "p", "q", "dp", "dq", "qi", "oth", "k"] {
        for value in [json!("AQAB"), json!(null), json!([]), json!(0)] {
            for key in [rsa(), ec(), okp()] {
                let private = with(key, member, value.clone());
                let error = read(private.clone()).unwrap_err().to_string();
                assert!(error.contains("secret"), "{private}: {error}");
                let set = json!({"keys": [private, okp()]});
                let set: JwkSet = serde_json::from_value(set).unwrap();
                assert_eq!(set.iter().count(), 1);
            }
        }
    }
}

#[test]
fn unusable_keys_are_errors_alone_and_skipped_in_a_set() {
    let zero = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    let bad = [
        json!({}),
        json!([]),
        json!(["OKP", "Ed25519", ED_X, null, null, null, "kid", null, null, null]),
        json!("key"),
        json!({"kty": "oct", "kid": "x"}),
        json!({"kty": "AKP", "kid": "x"}),
        json!({"kty": "ec", "crv": "P-256", "x": EC_X, "y": EC_Y}),
        with(ec(), "kty", json!(["EC"])),
        with(ec(), "crv", json!("P-521")),
        with(ec(), "crv", json!("P-384")),
        with(ec(), "crv", json!("secp256k1")),
        with(ec(), "x", json!(null)),
        with(ec(), "x", json!(format!("{EC_X}="))),
        with(ec(), "x", json!(EC_X.replace("RVEU", "RVEV"))),
        with(ec(), "x", json!(format!("AA{EC_X}"))),
        with(ec(), "x", json!(&EC_X[..42])),
        with(ec(), "y", json!(EC_X)),
        with(with(ec(), "x", json!(zero)), "y", json!(zero)),
        with(ec(), "alg", json!("RS256")),
        with(ec(), "alg", json!("ES384")),
        with(ec(), "alg", json!("HS256")),
        with(ec(), "alg", json!("none")),
        with(ec(), "alg", json!("ECDH-ES")),
        with(ec(), "kid", json!("")),
        with(ec(), "kid", json!(7)),
        with(ec(), "kid", json!("k".repeat(256))),
        with(ec(), "use", json!(["sig"])),
        with(ec(), "key_ops", json!("verify")),
        with(okp(), "crv", json!("X25519")),
        with(okp(), "crv", json!("Ed448")),
        with(okp(), "alg", json!("ES256")),
        with(okp(), "x", json!("AAAA")),
        with(rsa(), "n", json!("AQAB")),
        with(rsa(), "n", json!("")),
        with(rsa(), "n", json!(&RSA_N[..171])),
        with(rsa(), "n", json!(format!("AA{RSA_N}"))),
        with(rsa(), "e", json!("")),
        with(rsa(), "e", json!("AQ")),
        with(rsa(), "e", json!("BA")),
        with(rsa(), "e", json!("AAEAAQ")),
        with(rsa(), "e", json!("AQAAAAAB")),
        with(rsa(), "alg", json!("ES256")),
        with(rsa(), "alg", json!("RSA-OAEP")),
        with(rsa(), "alg", json!("RS1")),
    ];
    for key in &bad {
        assert!(read(key.clone()).is_err(), "{key}");
    }
    let mut keys = bad.to_vec();
    keys.push(rsa());
    let json = serde_json::to_vec(&json!({"keys": keys, "more": 1})).unwrap();
    let set = JwkSet::from_json(&json).unwrap();
    assert_eq!(set, JwkSet::new(vec![read(rsa()).unwrap()]));
}

#[test]
fn a_member_that_occurs_twice_is_an_error() {
    let twice = format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{ED_X}","x":"{ED_X}"}}"#);
    assert!(serde_json::from_str::<Jwk>(&twice).is_err());
}

#[test]
fn what_is_no_set_is_an_error() {
    for bad in ["", "[]", "[[]]", "{}", "null", r#"{"keys":{}}"#, r#"{"keys":[]"#, "{\"keys\":[]}x"]
    {
        assert!(JwkSet::from_json(bad.as_bytes()).is_err(), "{bad}");
    }
    assert!(JwkSet::from_json(br#"{"keys":[]}"#).is_ok());

    let large = format!(r#"{{"keys":[],"pad":"{}"}}"#, "x".repeat(JwkSet::MAX_BYTES));
    let error = JwkSet::from_json(large.as_bytes()).unwrap_err();
    assert!(matches!(error, JwkError::TooLarge { .. }), "{error}");

    let many = json!({"keys": vec![json!({}); JwkSet::MAX_KEYS + 1]}).to_string();
    let error = JwkSet::from_json(many.as_bytes()).unwrap_err();
    assert!(matches!(error, JwkError::TooManyKeys { count: 101, .. }), "{error}");
}

#[test]
fn only_keys_for_verifying_are_prepared() {
    let prepared = |key: Value| !KeySet::prepare(&JwkSet::new(vec![read(key).unwrap()])).is_empty();
    assert!(prepared(ec()), "its curve has one algorithm");
    assert!(prepared(okp()));
    assert!(prepared(rsa()));
    assert!(prepared(with(ec(), "use", json!("sig"))));
    assert!(prepared(with(ec(), "key_ops", json!(["sign", "verify"]))));
    assert!(!prepared(with(ec(), "use", json!("enc"))));
    assert!(!prepared(with(ec(), "key_ops", json!(["sign"]))));
    assert!(!prepared(with(ec(), "key_ops", json!([]))));
    assert!(prepared(with(rsa(), "alg", json!(null))), "RS256");
    assert!(prepared(with(ec(), "kid", json!(null))), "named by its thumbprint");
}

#[test]
fn a_kid_names_one_key_for_each_algorithm() {
    let other = with(okp(), "kid", json!("ec"));
    let set = JwkSet::new([ec(), other, ec()].map(|key| read(key).unwrap()).to_vec());
    let keys = KeySet::prepare(&set);
    assert_eq!(keys.kids().count(), 2);
    let kid = Kid::new("ec").unwrap();
    assert_eq!(keys.get(&kid, "ES256").unwrap().algorithm, Algorithm::Es256);
    assert_eq!(keys.get(&kid, "Ed25519").unwrap().algorithm, Algorithm::EdDsa);
    assert!(keys.get(&kid, "ES384").is_none());
    assert_eq!(read(rsa()).unwrap().algorithm(), Some(Algorithm::Rs256));
    assert_eq!(read(ec()).unwrap().algorithm(), None);
}

#[test]
fn an_exponent_has_four_bytes_at_most() {
    let exponent = |bytes: &[u8]| read(with(rsa(), "e", json!(URL_SAFE_NO_PAD.encode(bytes))));
    assert!(exponent(&[1, 0, 0, 1]).is_ok());
    assert!(exponent(&[1, 0, 0, 0, 1]).is_err());
}

/// Points of small order are refused, and nothing that resembles them.
#[test]
fn an_ed25519_key_whose_bytes_are_nearly_those_of_a_weak_point_is_accepted() {
    let point = |start: [u8; 2], middle: u8, end: u8| {
        let bytes = [&start[..], &[middle; 29], &[end]].concat();
        read(with(okp(), "x", json!(URL_SAFE_NO_PAD.encode(bytes))))
    };
    // `y` is 257 or -257, and `x` even or odd.
    for sign in [0, 0x80] {
        assert!(point([1, 1], 0, sign).is_ok(), "{sign}");
        assert!(point([0xec, 0xfe], 0xff, 0x7f | sign).is_ok(), "{sign}");
        // 0, 1 and -1, and the prime itself.
        for y in [0, 1] {
            assert!(point([y, 0], 0, sign).is_err(), "{y} {sign}");
        }
        for y in [0xec, 0xed, 0xff] {
            assert!(point([y, 0xff], 0xff, 0x7f | sign).is_err(), "{y} {sign}");
        }
    }
}

/// A header that is one of ours, byte for byte, is not parsed. See `header::select`.
#[test]
fn the_header_that_a_key_writes_is_known_by_its_bytes() {
    for algorithm in [Algorithm::Es256, Algorithm::EdDsa] {
        let key = SigningKey::generate(algorithm).unwrap();
        let keys = KeySet::prepare(&JwkSet::new(vec![key.public_jwk().clone()]));
        let header = key.access_token_header().unwrap();
        let known = keys.by_header(header).unwrap();
        assert_eq!((&known.kid, known.algorithm), (key.kid(), algorithm));
        assert!(keys.by_header(&header[1..]).is_none());
    }
}
