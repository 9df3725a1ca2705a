//! Tokens of ours verify with `jsonwebtoken`, and the other way round.

use cloakroom_jwt::{Algorithm, SigningKey};
use jsonwebtoken as other;
use serde_json::Value;

use crate::support::{ALGORITHMS, AUDIENCE, ISSUER, claims, key_set, pem, token, verifier};

fn named(algorithm: Algorithm) -> other::Algorithm {
    algorithm.as_str().parse().unwrap()
}

fn encoding_key(key: &SigningKey) -> other::EncodingKey {
    let pem = pem("PRIVATE KEY", &key.to_pkcs8_der().unwrap());
    match key.algorithm() {
        Algorithm::EdDsa => other::EncodingKey::from_ed_pem(pem.as_bytes()),
        Algorithm::Rs256 | Algorithm::Ps256 => other::EncodingKey::from_rsa_pem(pem.as_bytes()),
        _ => other::EncodingKey::from_ec_pem(pem.as_bytes()),
    }
    .unwrap()
}

fn jwk(key: &SigningKey) -> other::jwk::Jwk {
    serde_json::from_value(serde_json::to_value(key.public_jwk()).unwrap()).unwrap()
}

#[test]
fn ours_verify_there() {
    for algorithm in ALGORITHMS {
        let key = SigningKey::generate(algorithm).unwrap();
        let mut validation = other::Validation::new(named(algorithm));
        validation.set_issuer(&[ISSUER]);
        validation.set_audience(&[AUDIENCE]);
        validation.validate_exp = false;
        let decoded = other::decode::<Value>(
            token(&key, &claims()),
            &other::DecodingKey::from_jwk(&jwk(&key)).unwrap(),
            &validation,
        )
        .unwrap();
        assert_eq!(decoded.claims, claims());
        assert_eq!(decoded.header.kid.as_deref(), Some(key.kid().as_str()));
        assert_eq!(decoded.header.typ.as_deref(), Some("at+jwt"));
    }
}

#[test]
fn theirs_verify_here() {
    for algorithm in ALGORITHMS {
        let key = SigningKey::generate(algorithm).unwrap();
        let mut header = other::Header::new(named(algorithm));
        header.typ = Some("at+jwt".to_owned());
        header.kid = Some(key.kid().to_string());
        let jwt = other::encode(&header, &claims(), &encoding_key(&key)).unwrap();
        let verified = verifier().verify(&key_set(&[&key]), &jwt).unwrap();
        assert_eq!(&verified.kid, key.kid());
    }
}

#[test]
fn both_name_a_key_alike() {
    for algorithm in ALGORITHMS {
        let key = SigningKey::generate(algorithm).unwrap();
        let theirs = jwk(&key).thumbprint(other::jwk::ThumbprintHash::SHA256).unwrap();
        assert_eq!(key.kid().as_str(), theirs);
    }
}
