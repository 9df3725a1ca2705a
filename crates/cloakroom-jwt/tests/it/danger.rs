//! Shared secrets: reachable on purpose, never by accident.

use cloakroom_core::Random;
use cloakroom_jwt::danger::{HS256, Hs256Key, hs256_key_set};
use cloakroom_jwt::{Algorithm, KeyError, KeySet, Signer as _, SigningKey, VerifyError};
use serde_json::json;
use zeroize::Zeroizing;

use crate::support::{ALGORITHMS, b64, claims, header, key_set, pem, signed, token, verifier};

fn secret(bytes: &[u8]) -> Hs256Key {
    Hs256Key::from_secret(Zeroizing::new(bytes.to_vec())).unwrap()
}

#[test]
fn a_shared_secret_signs_and_verifies() {
    let key = Hs256Key::random(&Random::system()).unwrap();
    let other = Hs256Key::random(&Random::system()).unwrap();
    let keys = hs256_key_set(&[&key]);
    let jwt = token(&key, &claims());
    assert_eq!(&verifier().verify(&keys, &jwt).unwrap().kid, key.kid());
    // Not only when the header is the one we write.
    let reordered = format!(r#"{{"typ":"at+jwt","kid":"{}","alg":"HS256"}}"#, key.kid());
    verifier().verify(&keys, &signed(&key, &reordered, &claims().to_string())).unwrap();

    assert!(verifier().verify(&hs256_key_set(&[&other]), &jwt).is_err());
    let forged = signed(&other, &header(&key).to_string(), &claims().to_string());
    assert!(matches!(verifier().verify(&keys, &forged), Err(VerifyError::Signature)));
    for alg in ["none", "HS384", "HS512", "ES256", "hs256"] {
        let mut header = header(&key);
        header["alg"] = json!(alg);
        let jwt = signed(&key, &header.to_string(), &claims().to_string());
        assert!(matches!(verifier().verify(&keys, &jwt), Err(VerifyError::Algorithm)), "{alg}");
    }
}

#[test]
fn a_public_key_is_no_shared_secret() {
    for algorithm in ALGORITHMS {
        let key = SigningKey::generate(algorithm).unwrap();
        let keys = key_set(&[&key]);
        let jwk = serde_json::to_value(key.public_jwk()).unwrap();
        let parsed = serde_json::from_value(jwk.clone()).unwrap();
        let other = jsonwebtoken::DecodingKey::from_jwk(&parsed).unwrap();
        let mut spellings = vec![
            jwk.to_string().into_bytes(),
            serde_json::to_vec(key.public_jwk()).unwrap(),
            serde_json::to_vec_pretty(key.public_jwk()).unwrap(),
            key.kid().as_str().as_bytes().to_vec(),
        ];
        for member in ["x", "y", "n"] {
            let Some(text) = jwk[member].as_str() else {
                continue;
            };
            spellings.push(text.as_bytes().to_vec());
            use base64::Engine as _;
            let raw = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(text).unwrap();
            spellings.push(raw);
        }
        if let Ok(raw) = other.try_get_as_bytes() {
            spellings.push(raw.to_vec());
        }
        let der = spki(&jwk);
        spellings.extend([pem("PUBLIC KEY", &der).into_bytes(), der]);
        for spelling in spellings {
            let forger = secret(&spelling);
            let header = json!({"alg": "HS256", "kid": key.kid(), "typ": "at+jwt"}).to_string();
            let forged = signed(&forger, &header, &claims().to_string());
            let error = verifier().verify(&keys, &forged).unwrap_err();
            assert!(matches!(error, VerifyError::Algorithm), "{algorithm}: {error:?}");
            // Nor under the name of the key's own algorithm.
            let header = crate::support::header(&key).to_string();
            let forged = signed(&forger, &header, &claims().to_string());
            let error = verifier().verify(&keys, &forged).unwrap_err();
            assert!(matches!(error, VerifyError::Signature), "{algorithm}: {error:?}");
        }
    }
}

/// `SubjectPublicKeyInfo` of a JWK: what `openssl` would write.
pub(crate) fn spki(jwk: &serde_json::Value) -> Vec<u8> {
    use aws_lc_rs::encoding::AsDer as _;
    use aws_lc_rs::signature::{
        ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, ParsedPublicKey,
        RsaPublicKeyComponents,
    };
    use base64::Engine as _;
    let raw = |member: &str| {
        base64::engine::general_purpose::URL_SAFE_NO_PAD
            .decode(jwk[member].as_str().unwrap())
            .unwrap()
    };
    let point = || [vec![4], raw("x"), raw("y")].concat();
    let der = match jwk["crv"].as_str() {
        Some("P-256") => ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point()).unwrap().as_der(),
        Some("P-384") => ParsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, point()).unwrap().as_der(),
        Some(_) => ParsedPublicKey::new(&ED25519, raw("x")).unwrap().as_der(),
        None => RsaPublicKeyComponents { n: raw("n"), e: raw("e") }.as_der(),
    };
    der.unwrap().as_ref().to_vec()
}

#[test]
fn a_shared_secret_cannot_come_from_a_jwk_set() {
    let key = secret(&[7; 32]);
    let set = json!({"keys": [
        {"kty": "oct", "k": b64([7; 32]), "alg": "HS256", "kid": key.kid()},
    ]});
    let keys = KeySet::prepare(&serde_json::from_value(set).unwrap());
    assert!(keys.is_empty());
    assert!(verifier().verify(&keys, &token(&key, &claims())).is_err());
    assert!("HS256".parse::<Algorithm>().is_err());
    assert_eq!(HS256.to_string(), "HS256");
}

#[test]
fn secrets_that_can_be_guessed_are_refused() {
    for short in [0, 1, 16, 31] {
        let error = Hs256Key::from_secret(Zeroizing::new(vec![7; short])).unwrap_err();
        assert!(matches!(error, KeyError::TooShort));
    }
    assert_eq!(secret(&[7; 32]).expose(), [7; 32]);
}

#[test]
fn debug_shows_nothing_of_a_shared_secret() {
    let key = secret(b"a-shared-secret-of-thirty-two-by");
    let keys = hs256_key_set(&[&key]);
    let shown = format!("{key:?} {key:#?} {keys:?}");
    assert!(!shown.contains("shared-secret"), "{shown}");
    let hex: String = b"shared-secret".iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(!shown.contains(&hex) && !shown.contains(&b64("a-shared-secret")), "{shown}");
    assert!(!shown.contains("97, 45"), "{shown}");
    assert_eq!(format!("{key:?}"), format!("Hs256Key {{ kid: \"{}\", .. }}", key.kid()));
}
