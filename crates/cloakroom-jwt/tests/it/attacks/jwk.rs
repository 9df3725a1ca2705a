//! Keys that are none, that are weak, or that say too much (RFC 7517 §4, RFC 7518 §6).

use cloakroom_core::Kid;
use cloakroom_jwt::{Algorithm, Jwk, KeySet, SigningKey};
use serde_json::{Value, json};

use super::bignum::{add, hex, small};
use crate::support::{b64, reason, unb64};
use crate::vectors::RFC7638_N;

const SECRET: &str = "it holds a private or a shared secret";
const BASE64: &str = "a member is not canonical base64url";
const SIZE: &str = "a coordinate has the wrong size";
const KIND: &str = "its `kty` or `crv` is not supported";
const MISSING: &str = "a required member is missing";
const OFF_P256: &str = "the point is not on P-256";
const OFF_P384: &str = "the point is not on P-384";
const ZERO: &str = "`n` or `e` is empty or has a leading zero";
const BITS: &str = "an RSA key must have 2048 to 8192 bits";
const EXPONENT: &str = "`e` must be odd, at least 3, and at most 4 bytes long";
const EVEN: &str = "`n` is even, so it is not the product of two large primes";
const ALG: &str = "`alg` does not match the key";
const NO_ALG: &str = "its `alg` is not supported";

fn public(algorithm: Algorithm) -> Value {
    serde_json::to_value(SigningKey::generate(algorithm).unwrap().public_jwk()).unwrap()
}

fn with(key: &Value, members: Value) -> Value {
    let mut key = key.clone();
    let (Some(all), Value::Object(members)) = (key.as_object_mut(), members) else {
        panic!("objects");
    };
    all.extend(members);
    key
}

fn without(key: &Value, member: &str) -> Value {
    let mut key = key.clone();
    key.as_object_mut().unwrap().remove(member);
    key
}

#[track_caller]
fn unusable(what: &str, key: &Value, expected: &str) {
    let text = key.to_string();
    let error = serde_json::from_str::<Jwk>(&text).expect_err(&format!("{what}: {text}"));
    let expected = format!("Error(the public key cannot be used: {expected}");
    let reason = reason(&error);
    assert!(reason.starts_with(&expected), "{what}: {reason}, where {expected} was expected");
    // In a set it is left out, and takes nothing with it.
    let other = public(Algorithm::EdDsa);
    let set = json!({"keys": [key, other]});
    let keys = KeySet::prepare(&serde_json::from_value(set).unwrap());
    assert_eq!(keys.kids().map(Kid::as_str).collect::<Vec<_>>(), [other["kid"].as_str().unwrap()]);
}

#[track_caller]
fn usable(what: &str, key: &Value) {
    let set = json!({"keys": [key]});
    let keys = KeySet::prepare(&serde_json::from_value(set).unwrap());
    assert_eq!(keys.kids().count(), 1, "{what}: {key}");
}

#[test]
fn points_that_are_on_no_curve_of_ours() {
    let (p256, p384) = (public(Algorithm::Es256), public(Algorithm::Es384));
    for (key, other, off, p) in [
        (
            &p256,
            &p384,
            OFF_P256,
            hex("ffffffff00000001000000000000000000000000ffffffffffffffffffffffff"),
        ),
        (
            &p384,
            &p256,
            OFF_P384,
            hex(
                "fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffeffffffff0000000000000000ffffffff",
            ),
        ),
    ] {
        usable("as it was", key);
        let (x, y) = (unb64(key["x"].as_str().unwrap()), unb64(key["y"].as_str().unwrap()));
        let size = x.len();
        let changed = {
            let mut y = y.clone();
            y[size - 1] ^= 1;
            y
        };
        let zero = small(0, size);
        let plus_p = add(&small(5, size), &p).unwrap();
        let point = |x: &[u8], y: &[u8]| with(key, json!({"x": b64(x), "y": b64(y)}));
        let zero_before = |bytes: &[u8]| [&[0], bytes].concat();
        for (what, bad, expected) in [
            ("x and y swapped", point(&y, &x), off),
            ("y = x", point(&x, &x), off),
            ("another y", point(&x, &changed), off),
            ("(0, 0)", point(&zero, &zero), off),
            ("(0, 1)", point(&zero, &small(1, size)), off),
            ("(1, 1)", point(&small(1, size), &small(1, size)), off),
            ("x = p", point(&p, &y), off),
            ("y = p", point(&x, &p), off),
            ("x = p + 5", point(&plus_p, &y), off),
            ("ones", point(&vec![0xff; size], &vec![0xff; size]), off),
            ("x with a zero before it", point(&zero_before(&x), &y), SIZE),
            ("both with a zero before them", point(&zero_before(&x), &zero_before(&y)), SIZE),
            ("x a byte short", point(&x[1..], &y), SIZE),
            ("y a byte short", point(&x, &y[..size - 1]), SIZE),
            ("x and y in x", point(&[&x[..], &y].concat(), &[]), SIZE),
            ("a compressed point in x", point(&[&[2], &x[..]].concat(), &y), SIZE),
            ("infinity", point(&[], &[]), SIZE),
            ("infinity (SEC 1)", point(&[0], &[0]), SIZE),
            ("no y", without(key, "y"), MISSING),
            ("no x", without(key, "x"), MISSING),
            ("a null", with(key, json!({"y": null})), MISSING),
            ("the other curve", with(key, json!({"crv": other["crv"]})), SIZE),
            ("its key on the other curve", with(other, json!({"crv": key["crv"]})), SIZE),
            ("no curve", without(key, "crv"), KIND),
            ("no kty", without(key, "kty"), KIND),
        ] {
            unusable(what, &bad, expected);
        }
        for crv in [
            "secp256k1",
            "P-256K",
            "p-256",
            "P-256 ",
            "prime256v1",
            "secp256r1",
            "brainpoolP256r1",
            "Ed25519",
            "X25519",
            "BN254",
            "",
        ] {
            unusable(crv, &with(key, json!({"crv": crv})), KIND);
        }
        for kty in ["ec", "EC ", "OKP", "oct", "ECDSA", "AKP", ""] {
            unusable(kty, &with(key, json!({"kty": kty})), KIND);
        }
        // The padding is no part of the number.
        let text = key["x"].as_str().unwrap();
        for bad in [
            format!("{text}="),
            format!("{text}\n"),
            format!(" {text}"),
            text.replace(['-', '_'], "+") + "+",
            format!("{text}\0"),
        ] {
            unusable("spelling", &with(key, json!({"x": bad})), BASE64);
        }
    }
    // The generator of secp256k1, as a point of P-256.
    let foreign = json!({"kty": "EC", "crv": "P-256", "kid": "k1",
        "x": b64(hex("79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798")),
        "y": b64(hex("483ada7726a3c4655da4fbfc0e1108a8fd17b448a68554199c47d08ffb10d4b8"))});
    unusable("secp256k1", &foreign, OFF_P256);
    // The generators themselves are points like any other.
    usable(
        "the generator",
        &json!({"kty": "EC", "crv": "P-256", "kid": "g",
        "x": b64(hex("6b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296")),
        "y": b64(hex("4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5"))}),
    );
}

#[test]
fn rsa_keys_that_are_weak_or_none() {
    let n = unb64(RFC7638_N);
    let rsa = |n: &[u8], e: &[u8]| json!({"kty": "RSA", "alg": "RS256", "kid": "rsa", "n": b64(n), "e": b64(e)});
    let odd = |len: usize, first: u8| {
        let mut n: Vec<u8> = n.iter().copied().cycle().take(len).collect();
        (n[0], n[len - 1]) = (first, n[len - 1] | 1);
        n
    };
    let even = {
        let mut n = n.clone();
        n[255] &= 0xfe;
        n
    };
    let f4: &[u8] = &[1, 0, 1];
    for (what, key, expected) in [
        ("512 bits", rsa(&odd(64, 0x80), f4), BITS),
        ("1024 bits", rsa(&odd(128, 0xff), f4), BITS),
        ("1536 bits", rsa(&odd(192, 0x80), f4), BITS),
        ("2047 bits", rsa(&odd(256, 0x7f), f4), BITS),
        ("8193 bits", rsa(&odd(1025, 1), f4), BITS),
        ("16384 bits", rsa(&odd(2048, 0x80), f4), BITS),
        ("n = 1", rsa(&[1], f4), BITS),
        ("n = 0", rsa(&[0], f4), ZERO),
        ("n empty", rsa(&[], f4), ZERO),
        ("1024 bits and zeros before", rsa(&[&[0; 128], &odd(128, 0x80)[..]].concat(), f4), ZERO),
        ("n with a zero before it", rsa(&[&[0], &n[..]].concat(), f4), ZERO),
        ("n is even", rsa(&even, f4), EVEN),
        ("e = 0", rsa(&n, &[0]), ZERO),
        ("e empty", rsa(&n, &[]), ZERO),
        ("e = 1", rsa(&n, &[1]), EXPONENT),
        ("e = 2", rsa(&n, &[2]), EXPONENT),
        ("e = 65536", rsa(&n, &[1, 0, 0]), EXPONENT),
        ("e with a zero before it", rsa(&n, &[0, 1, 0, 1]), ZERO),
        ("e of 33 bits", rsa(&n, &[1, 0, 0, 0, 1]), EXPONENT),
        ("e of 64 bits", rsa(&n, &[0xff; 8]), EXPONENT),
        ("e of 2048 bits", rsa(&n, &n), EXPONENT),
        ("e of 8192 bits", rsa(&n, &[0xff; 1024]), EXPONENT),
        ("n and e swapped", rsa(f4, &n), BITS),
        ("no n", without(&rsa(&n, f4), "n"), MISSING),
        ("no e", without(&rsa(&n, f4), "e"), MISSING),
        ("alg of a curve", with(&rsa(&n, f4), json!({"alg": "ES256"})), ALG),
        ("alg with SHA-1", with(&rsa(&n, f4), json!({"alg": "RS1"})), NO_ALG),
        ("alg of encryption", with(&rsa(&n, f4), json!({"alg": "RSA-OAEP"})), NO_ALG),
    ] {
        unusable(what, &key, expected);
    }
    usable("2048 bits", &rsa(&n, f4));
    usable("e = 3", &rsa(&n, &[3]));
    usable("3072 bits", &rsa(&odd(384, 0x80), f4));
    usable("8192 bits", &rsa(&odd(1024, 0x80), f4));
}

#[test]
fn secrets_in_public() {
    let keys = [Algorithm::Es256, Algorithm::Es384, Algorithm::EdDsa, Algorithm::Rs256].map(public);
    for key in &keys {
        for member in ["d", "p", "q", "dp", "dq", "qi", "oth", "k"] {
            for value in [json!("AQAB"), json!(""), json!(null), json!([]), json!({}), json!(1e300)]
            {
                unusable(member, &with(key, json!({member: value})), SECRET);
            }
        }
        // What belongs to other kinds of keys, and is no secret.
        usable("more", &with(key, json!({"D": "AQAB", "priv": "AQAB", "ext": true, "iat": 1})));
    }
    for secret in [
        json!({"kty": "oct", "k": "AAAA", "kid": "x"}),
        json!({"kty": "oct", "k": b64([7; 32]), "kid": "x", "alg": "HS256"}),
        with(&keys[0], json!({"kty": "oct", "k": "AAAA"})),
    ] {
        unusable("oct", &secret, SECRET);
    }
    unusable("oct without k", &json!({"kty": "oct", "kid": "x", "alg": "HS256"}), KIND);
    // An escaped name is the same name.
    let text = keys[0].to_string();
    let escaped = format!("{},\"\\u0064\":\"AQAB\"}}", &text[..text.len() - 1]);
    let error = serde_json::from_str::<Jwk>(&escaped).unwrap_err();
    assert!(error.to_string().contains(SECRET), "{error}");
    // The error shows none of it.
    let shown = "c2VjcmV0LXNlY3JldC1zZWNyZXQ";
    for value in [json!(shown), json!([shown]), json!({"d": shown})] {
        let key = with(&keys[0], json!({"d": value}));
        let error = serde_json::from_value::<Jwk>(key).unwrap_err();
        assert!(!format!("{error:?} {error}").contains(shown), "{error}");
    }
}

#[test]
fn alg_that_does_not_fit_the_key() {
    let fits: [(Algorithm, &[&str]); 5] = [
        (Algorithm::Es256, &["ES256"]),
        (Algorithm::Es384, &["ES384"]),
        (Algorithm::Es512, &["ES512"]),
        (Algorithm::EdDsa, &["EdDSA", "Ed25519"]),
        (Algorithm::Rs256, &["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"]),
    ];
    for (algorithm, own) in fits {
        let key = public(algorithm);
        for alg in fits.iter().flat_map(|(_, own)| own.iter().copied()) {
            let declared = with(&key, json!({"alg": alg}));
            if own.contains(&alg) {
                usable(alg, &declared);
            } else {
                unusable(alg, &declared, ALG);
            }
        }
        for alg in [
            "none", "NONE", "HS256", "HS512", "es256", "ES256K", "RS1", "ed25519", "Ed448",
            "ECDH-ES", "dir", "ES256 ", "",
        ] {
            unusable(alg, &with(&key, json!({"alg": alg})), NO_ALG);
        }
    }
}

#[test]
fn members_of_other_types_and_twice() {
    let key = public(Algorithm::Es256);
    for member in ["kty", "crv", "x", "y", "kid", "alg", "use", "key_ops"] {
        for value in [json!(1), json!(true), json!({"a": 1}), json!([1]), json!([["verify"]])] {
            let bad = with(&key, json!({member: value}));
            assert!(serde_json::from_value::<Jwk>(bad.clone()).is_err(), "{bad}");
        }
        let text = key.to_string();
        let value = key.get(member).cloned().unwrap_or(json!(null));
        let name: String = member.bytes().map(|byte| format!("\\u{byte:04x}")).collect();
        for name in [member, &name] {
            let twice =
                format!("{},\"{name}\":{value},\"{member}\":{value}}}", &text[..text.len() - 1]);
            let error = serde_json::from_str::<Jwk>(&twice).unwrap_err();
            assert!(error.to_string().starts_with("duplicate field"), "{twice}: {error}");
        }
    }
    for (kid, good) in [("k".repeat(255), true), ("k".repeat(256), false), (String::new(), false)] {
        let named = with(&key, json!({"kid": kid}));
        assert_eq!(serde_json::from_value::<Jwk>(named).is_ok(), good, "{} bytes", kid.len());
    }
    for kid in ["a\nb", "a\0b", "a\u{7f}b", "a\u{85}b"] {
        assert!(serde_json::from_value::<Jwk>(with(&key, json!({"kid": kid}))).is_err());
    }
}
