//! Keys that `openssl` made, and the examples of the RFCs.

use serde_json::{Value, json};

use super::*;
use crate::{JwkSet, KeySet, Verifier, sign_jwt};

const RSA_PKCS1: &str = include_str!("test_keys/rsa-pkcs1.pem");
const RSA_PKCS8: &str = include_str!("test_keys/rsa-pkcs8.pem");
const RSA_JWK: &str = include_str!("test_keys/rsa.jwk.json");
const P256_SEC1: &str = include_str!("test_keys/p256-sec1.pem");
const P256_PKCS8: &str = include_str!("test_keys/p256-pkcs8.pem");
const P256_PUBLIC: &str = include_str!("test_keys/p256-public.pem");
const P384_SEC1: &str = include_str!("test_keys/p384-sec1.pem");
const ED25519_PKCS8: &str = include_str!("test_keys/ed25519-pkcs8.pem");

/// RFC 7517 §A.2.
const P256_JWK: &str = r#"{"kty":"EC","crv":"P-256",
    "x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
    "y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM",
    "d":"870MB6gfuTJ4HtUnUvYMyJpr5eUZNP4Bk43bVdj3eAE","use":"enc","kid":"1"}"#;

/// The key of `P384_SEC1`.
const P384_JWK: &str = r#"{"kty":"EC","crv":"P-384",
    "x":"ncAzGwzyukIbXfE1J50FTrnvKlwyCpjAJBWRG4A4sjET9CTcQiaaE2iJDjANs-IB",
    "y":"f2sr47o-Ui5CIp9a-kIkA9epbzXZN9p_tc2r9TuTHPoJTP2aOfT1ichPyhoqjgfO",
    "d":"lRAW9cnDAA7A-u8D1YxCiO_y0yDIhpdyN7lT2JqkIYu6rqHFjcIw-I5b62GP-O2r"}"#;

const P521_JWK: &str = r#"{"kty":"EC","crv":"P-521","alg":"ES512",
    "x":"ACk55fa6nKaB9XNFSL_YQC7-6TkDPDatNpa61q1GkAoGQEiS60JQ6v9eFNEhjpI0iThqSJXhLv7K-FYdo5jpimHr",
    "y":"AHJxP08qZ86SX3mUhQ9qWBEHHpPJfMqWR2s7piBexR3x_mPh3XSsVxthUdLXB6TtTExLHAbJNAwvTiXVSAh-yNsh",
    "d":"AVPta4Uai__Wm_xpk8Udj5eFoIgewW9QNf2eI4zWCZsEjmnUhhtvrsmKoE3x7gv_fR7qr-jqWy-7jEit9Fb_r6sf"}"#;

/// RFC 8037 §A.1.
const ED25519_JWK: &str = r#"{"kty":"OKP","crv":"Ed25519",
    "d":"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A",
    "x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

fn refusal(result: Result<SigningKey, KeyError>) -> ImportRefusal {
    match result {
        Err(KeyError::Refused(refusal)) => refusal,
        other => panic!("not refused: {other:?}"),
    }
}

fn pem_refusal(algorithm: Algorithm, pem: &str) -> ImportRefusal {
    refusal(SigningKey::import_pem(algorithm, pem))
}

/// PKCS#8 as PEM.
fn pem(der: &[u8]) -> String {
    use base64::engine::general_purpose::STANDARD;
    let body = STANDARD.encode(der);
    format!("-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----\n")
}

fn jwk_refusal(algorithm: Algorithm, jwk: &Value) -> ImportRefusal {
    refusal(SigningKey::import_jwk(algorithm, &jwk.to_string()))
}

/// What an imported key signs verifies under its public key.
#[test]
fn every_form_of_a_key_is_imported() {
    let imported = [
        SigningKey::import_pem(Algorithm::Rs256, RSA_PKCS1),
        SigningKey::import_pem(Algorithm::Rs256, RSA_PKCS8),
        SigningKey::import_jwk(Algorithm::Rs256, RSA_JWK),
        SigningKey::import_pem(Algorithm::Es256, P256_SEC1),
        SigningKey::import_pem(Algorithm::Es256, P256_PKCS8),
        SigningKey::import_jwk(Algorithm::Es256, P256_JWK),
        SigningKey::import_jwk(Algorithm::Es256, &format!(r#"{{"keys":[{P256_JWK}]}}"#)),
        SigningKey::import_pem(Algorithm::Es384, P384_SEC1),
        SigningKey::import_pem(Algorithm::EdDsa, ED25519_PKCS8),
        SigningKey::import_jwk(Algorithm::EdDsa, ED25519_JWK),
        SigningKey::import_jwk(Algorithm::Es384, P384_JWK),
        SigningKey::import_jwk(Algorithm::Es512, P521_JWK),
    ]
    .map(|imported| imported.unwrap());
    assert_eq!(imported[0].kid(), imported[1].kid());
    assert_eq!(imported[0].kid(), imported[2].kid());
    assert_eq!(imported[3].kid(), imported[4].kid());
    assert_eq!(imported[7].kid(), imported[10].kid());
    // RFC 8037 §A.3.
    assert_eq!(imported[9].kid().as_str(), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
    for key in imported {
        let keys = KeySet::prepare(&JwkSet::new(vec![key.public_jwk().clone()]));
        let claims = json!({
            "iss": "https://as.example", "aud": "https://orders.example", "sub": "alice",
            "client_id": "app", "jti": "1", "iat": 1, "exp": u32::MAX,
        });
        let jwt = block_on(sign_jwt(&key, crate::ACCESS_TOKEN_TYP, &claims)).unwrap();
        let verifier = Verifier::new("https://as.example", "https://orders.example");
        verifier.verify(&keys, jwt.expose()).unwrap();
        // It can be sealed and opened, as every key of a ring.
        let der = key.to_pkcs8_der().unwrap();
        let again = SigningKey::from_pkcs8_der(key.algorithm(), &der);
        assert_eq!(again.unwrap().kid(), key.kid());
        let again = SigningKey::import_pem(key.algorithm(), &pem(&der));
        assert_eq!(again.unwrap().kid(), key.kid());
    }
}

/// `openssl ecparam -genkey` puts the parameters before the key.
#[test]
fn other_blocks_around_the_key_are_skipped() {
    let parameters =
        "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n";
    let text = format!("of the old server\n{parameters}{P256_SEC1}{P256_PUBLIC}");
    SigningKey::import_pem(Algorithm::Es256, &text).unwrap();
}

#[test]
fn weak_rsa_keys_are_refused() {
    let small = include_str!("test_keys/rsa-1024.pem");
    assert_eq!(pem_refusal(Algorithm::Rs256, small), ImportRefusal::TooSmall { bits: 1024 });
    let roca = include_str!("test_keys/roca.pem");
    for algorithm in [Algorithm::Rs256, Algorithm::Ps512] {
        assert_eq!(pem_refusal(algorithm, roca), ImportRefusal::Roca);
    }
    // As a JWK, and without the help of the cryptographic library.
    let (_, der) = private_block(roca).unwrap();
    let modulus = der::pkcs1_modulus(&der).unwrap();
    let mut jwk: Value = serde_json::from_str(RSA_JWK).unwrap();
    jwk["n"] = json!(URL_SAFE_NO_PAD.encode(&modulus[1..]));
    assert_eq!(jwk_refusal(Algorithm::Rs256, &jwk), ImportRefusal::Roca);
    let almost = [&[0x7f][..], &[0xff; 255]].concat();
    for (modulus, bits) in [(&[0xff; 128][..], 1024), (&almost, 2047), (&[0; 256], 0)] {
        jwk["n"] = json!(URL_SAFE_NO_PAD.encode(modulus));
        assert_eq!(jwk_refusal(Algorithm::Rs256, &jwk), ImportRefusal::TooSmall { bits });
    }
}

#[test]
fn a_key_of_another_type_or_curve_is_refused_by_name() {
    let secp256k1 = include_str!("test_keys/secp256k1-sec1.pem");
    // RFC 8410 §7, with the object identifier of Ed448.
    let ed448 = [0x30, 0x47, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x71, 4, 0x3b, 4, 0x39];
    let ed448 = pem(&[&ed448[..], &[7; 57]].concat());
    for (algorithm, pem, found) in [
        (Algorithm::Es256, secp256k1, "a key on another curve"),
        (Algorithm::EdDsa, &*ed448, "a key on another curve"),
        (Algorithm::Es256, P384_SEC1, "an EC key on P-384"),
        (Algorithm::Es384, P256_PKCS8, "an EC key on P-256"),
        (Algorithm::Es512, P256_SEC1, "an EC key on P-256"),
        (Algorithm::Es256, RSA_PKCS8, "an RSA key"),
        (Algorithm::Es256, RSA_PKCS1, "an RSA key"),
        (Algorithm::Rs256, ED25519_PKCS8, "an Ed25519 key"),
        (Algorithm::EdDsa, P256_PKCS8, "an EC key on P-256"),
    ] {
        let refusal = pem_refusal(algorithm, pem);
        assert!(
            matches!(refusal, ImportRefusal::WrongType { found: name, .. } if name == found),
            "{refusal}"
        );
    }
    let ec = |curve: &str| {
        let mut jwk: Value = serde_json::from_str(P256_JWK).unwrap();
        jwk["crv"] = json!(curve);
        jwk_refusal(Algorithm::Es256, &jwk)
    };
    for curve in ["P-384", "secp256k1", "Ed448"] {
        assert!(matches!(ec(curve), ImportRefusal::WrongType { .. }), "{curve}");
    }
    let rsa: Value = serde_json::from_str(RSA_JWK).unwrap();
    let other = |jwk: &Value| match jwk_refusal(Algorithm::Ps256, jwk) {
        ImportRefusal::OtherAlgorithm { algorithm: Algorithm::Ps256, found } => found,
        refusal => panic!("{refusal}"),
    };
    assert_eq!(other(&rsa), "RS256");
    // What the file says goes into a log, so it is short and has no control characters.
    let long = json!({ "kty": "RSA", "alg": format!("\u{1b}[2J{}", "x".repeat(99)) });
    assert_eq!(other(&long), format!("?[2J{}", "x".repeat(28)));
}

#[test]
fn what_is_public_encrypted_or_ambiguous_is_refused() {
    assert_eq!(pem_refusal(Algorithm::Es256, P256_PUBLIC), ImportRefusal::PublicOnly);
    for encrypted in [
        include_str!("test_keys/encrypted-pkcs8.pem"),
        include_str!("test_keys/encrypted-sec1.pem"),
    ] {
        assert_eq!(pem_refusal(Algorithm::Es256, encrypted), ImportRefusal::Encrypted);
        let both = format!("{encrypted}{P256_SEC1}");
        assert_eq!(pem_refusal(Algorithm::Es256, &both), ImportRefusal::SeveralKeys(2));
    }
    let two = format!("{P256_SEC1}{ED25519_PKCS8}");
    assert_eq!(pem_refusal(Algorithm::Es256, &two), ImportRefusal::SeveralKeys(2));
    for nothing in ["", "not a key", "-----BEGIN X-----\n-----END X-----"] {
        assert_eq!(pem_refusal(Algorithm::Es256, nothing), ImportRefusal::NoKey);
    }
    let mut public: Value = serde_json::from_str(P256_JWK).unwrap();
    public.as_object_mut().unwrap().remove("d");
    assert_eq!(jwk_refusal(Algorithm::Es256, &public), ImportRefusal::PublicOnly);
    let key: Value = serde_json::from_str(P256_JWK).unwrap();
    assert_eq!(
        jwk_refusal(Algorithm::Es256, &json!({ "keys": [key, key] })),
        ImportRefusal::SeveralKeys(2)
    );
    assert_eq!(jwk_refusal(Algorithm::Es256, &json!({ "keys": [] })), ImportRefusal::NoKey);
    let shared = json!({ "kty": "oct", "k": "AAAA" });
    let why = "a shared secret is no signing key";
    assert_eq!(jwk_refusal(Algorithm::Es256, &shared), ImportRefusal::Malformed(why));
}

/// No damage panics, is accepted, or shows a part of the key.
#[test]
fn damage_is_refused() {
    let cut = |text: &str, at: usize| format!("{}{}", &text[..at], &text[at + 1..]);
    for (algorithm, pem) in [
        (Algorithm::Rs256, RSA_PKCS1),
        (Algorithm::Es256, P256_SEC1),
        (Algorithm::EdDsa, ED25519_PKCS8),
    ] {
        let body = pem.find('\n').unwrap() + 1;
        for at in body..body + 40 {
            let refusal = pem_refusal(algorithm, &cut(pem, at));
            let text = refusal.to_string();
            assert!(!text.contains(&pem[body..body + 8]), "{text}");
        }
    }
    for member in ["n", "d", "p", "q", "dp", "dq", "qi"] {
        let mut jwk: Value = serde_json::from_str(RSA_JWK).unwrap();
        let other = jwk["q"].clone();
        jwk[member] = if member == "q" { jwk["p"].clone() } else { other };
        refusal(SigningKey::import_jwk(Algorithm::Rs256, &jwk.to_string()));
        jwk[member] = json!("not base64url!");
        refusal(SigningKey::import_jwk(Algorithm::Rs256, &jwk.to_string()));
        jwk.as_object_mut().unwrap().remove(member);
        refusal(SigningKey::import_jwk(Algorithm::Rs256, &jwk.to_string()));
    }
    for (algorithm, text) in [(Algorithm::Es256, P256_JWK), (Algorithm::EdDsa, ED25519_JWK)] {
        let mut jwk: Value = serde_json::from_str(text).unwrap();
        jwk["d"] = json!(URL_SAFE_NO_PAD.encode([7; 32]));
        assert!(matches!(jwk_refusal(algorithm, &jwk), ImportRefusal::Malformed(_)));
        jwk["d"] = json!(URL_SAFE_NO_PAD.encode([7; 31]));
        refusal(SigningKey::import_jwk(algorithm, &jwk.to_string()));
    }
    // A second member of a name could be read as the first by somebody else.
    let twice = P256_JWK.replace(r#""kid":"1""#, r#""kty":"EC""#);
    assert!(matches!(
        refusal(SigningKey::import_jwk(Algorithm::Es256, &twice)),
        ImportRefusal::Malformed(_)
    ));
}
