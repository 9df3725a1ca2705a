//! A public key as the secret of an HMAC, in every spelling that someone might take for "the key"
//! (RFC 8725 §2.1).

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE};
use cloakroom_jwt::{Algorithm, JwkSet, SigningKey};
use serde_json::{Value, json};

use crate::danger::spki;
use crate::support::{ALGORITHMS, accepts, b64, claims, key_set, pem, refuses, token, unb64};

fn spellings(key: &SigningKey) -> Vec<(&'static str, Vec<u8>)> {
    let jwk = serde_json::to_value(key.public_jwk()).unwrap();
    let raw = |member: &str| jwk[member].as_str().map(unb64);
    let der = spki(&jwk);
    let text = pem("PUBLIC KEY", &der);
    let hex: String = der.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut all: Vec<(&'static str, Vec<u8>)> = vec![
        ("nothing", vec![]),
        ("a zero", vec![0]),
        ("kid", key.kid().as_str().into()),
        ("thumbprint", unb64(key.kid().as_str())),
        ("SPKI", der.clone()),
        ("SPKI in base64", STANDARD.encode(&der).into()),
        ("SPKI in base64 without padding", STANDARD_NO_PAD.encode(&der).into()),
        ("SPKI in base64url", b64(&der).into()),
        ("SPKI in base64url with padding", URL_SAFE.encode(&der).into()),
        ("SPKI in hexadecimal", hex.clone().into()),
        ("SPKI in capital hexadecimal", hex.to_uppercase().into()),
        ("PEM", text.clone().into()),
        ("PEM without a last newline", text.trim_end().into()),
        ("PEM with CRLF", text.replace('\n', "\r\n").into()),
        ("PEM with escaped newlines", text.replace('\n', "\\n").into()),
        ("PEM with two last newlines", format!("{text}\n").into()),
        ("PEM in one line", text.replace('\n', "").into()),
        ("PEM named otherwise", text.replace("PUBLIC", "RSA PUBLIC").into()),
        ("JWK", jwk.to_string().into()),
        ("JWK, indented", serde_json::to_vec_pretty(&jwk).unwrap()),
        ("JWK, as published", serde_json::to_vec(key.public_jwk()).unwrap()),
        ("JWK Set", serde_json::to_vec(&JwkSet::new(vec![key.public_jwk().clone()])).unwrap()),
        ("JWK Set, indented", {
            serde_json::to_vec_pretty(&JwkSet::new(vec![key.public_jwk().clone()])).unwrap()
        }),
        ("JWK, the members of a thumbprint", required(&jwk).into()),
    ];
    for member in ["x", "y", "n", "e"] {
        if let Some(value) = raw(member) {
            all.push((member, value));
            all.push((member, jwk[member].as_str().unwrap().into()));
        }
    }
    if let (Some(x), Some(y)) = (raw("x"), raw("y")) {
        let parity = 2 + y[y.len() - 1] % 2;
        all.push(("point", [&[4], &x[..], &y].concat()));
        all.push(("point without its form", [&x[..], &y].concat()));
        all.push(("point, compressed", [&[parity], &x[..]].concat()));
        all.push(("point, hybrid", [&[parity + 4], &x[..], &y].concat()));
    }
    if jwk["kty"] == "RSA" {
        // `RSAPublicKey` (RFC 8017 A.1.1) is the tail of the SPKI: after its two headers, its
        // algorithm and the unused bits.
        let pkcs1 = der[24..].to_vec();
        assert_eq!(pkcs1[..2], [0x30, 0x82]);
        all.push(("PKCS#1 PEM", pem("RSA PUBLIC KEY", &pkcs1).into()));
        all.push(("PKCS#1", pkcs1));
    }
    all
}

/// RFC 7638 §3.2
fn required(jwk: &Value) -> String {
    let members = ["crv", "e", "kty", "n", "x", "y"].into_iter();
    let written: Vec<String> =
        members.filter_map(|name| Some(format!("\"{name}\":{}", jwk.get(name)?))).collect();
    format!("{{{}}}", written.join(","))
}

#[test]
fn a_public_key_is_the_secret_of_no_hmac() {
    for algorithm in ALGORITHMS {
        let key = SigningKey::generate(algorithm).unwrap();
        let keys = key_set(&[&key]);
        for (what, secret) in spellings(&key) {
            for (name, hash) in [
                ("HS256", hmac::HMAC_SHA256),
                ("HS384", hmac::HMAC_SHA384),
                ("HS512", hmac::HMAC_SHA512),
            ] {
                let forge = |alg: &str| {
                    let header = json!({"alg": alg, "kid": key.kid(), "typ": "at+jwt"});
                    let input =
                        format!("{}.{}", b64(header.to_string()), b64(claims().to_string()));
                    let tag = hmac::sign(&hmac::Key::new(hash, &secret), input.as_bytes());
                    format!("{input}.{}", b64(tag))
                };
                let what = format!("{algorithm}: {name} with {what}");
                refuses(&keys, &what, &forge(name), "Algorithm");
                refuses(&keys, &what, &forge(&name.to_lowercase()), "Algorithm");
                refuses(&keys, &what, &forge(algorithm.as_str()), "Signature");
            }
        }
        accepts(&keys, "its own", &token(&key, &claims()));
    }
}

#[test]
fn every_name_of_an_algorithm_but_the_keys_own() {
    let names = [
        "HS256",
        "HS384",
        "HS512",
        "RS256",
        "RS384",
        "RS512",
        "PS256",
        "PS384",
        "PS512",
        "ES256",
        "ES384",
        "ES512",
        "ES256K",
        "EdDSA",
        "Ed25519",
        "Ed448",
        "ML-DSA-44",
        "RS1",
        "RSA1_5",
        "RSA-OAEP",
        "RSA-OAEP-256",
        "A128KW",
        "A256GCMKW",
        "dir",
        "ECDH-ES",
        "ECDH-ES+A128KW",
        "PBES2-HS256+A128KW",
        "A128CBC-HS256",
        "HS256/64",
        "SHA256",
        "http://www.w3.org/2001/04/xmldsig-more#rsa-sha256",
    ];
    for algorithm in ALGORITHMS {
        let key = SigningKey::generate(algorithm).unwrap();
        let keys = key_set(&[&key]);
        for name in names {
            let header = json!({"alg": name, "kid": key.kid(), "typ": "at+jwt"}).to_string();
            let jwt = crate::support::signed(&key, &header, &claims().to_string());
            // RFC 9864 §2.2: the same algorithm, with its curve named.
            let is_ed25519 = name == "Ed25519" && algorithm == Algorithm::EdDsa;
            if name == algorithm.as_str() || is_ed25519 {
                accepts(&keys, name, &jwt);
            } else {
                refuses(&keys, &format!("{name} by a key for {algorithm}"), &jwt, "Algorithm");
            }
        }
    }
}

#[test]
fn the_kid_of_one_key_and_the_signature_of_another() {
    let all = ALGORITHMS.map(|algorithm| SigningKey::generate(algorithm).unwrap());
    let keys = key_set(&all.iter().collect::<Vec<_>>());
    for signer in &all {
        for named in &all {
            for alg in ALGORITHMS {
                let header = json!({"alg": alg.as_str(), "kid": named.kid(), "typ": "at+jwt"});
                let jwt =
                    crate::support::signed(signer, &header.to_string(), &claims().to_string());
                let what = format!("{header} by {:?}", signer.algorithm());
                match (alg == named.algorithm(), signer.kid() == named.kid()) {
                    (true, true) => accepts(&keys, &what, &jwt),
                    (true, false) => refuses(&keys, &what, &jwt, "Signature"),
                    (false, _) => refuses(&keys, &what, &jwt, "Algorithm"),
                }
            }
        }
    }
}
