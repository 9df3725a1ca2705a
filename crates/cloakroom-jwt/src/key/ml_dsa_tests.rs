//! The examples of RFC 9964, Appendix A, and keys of our own.

use aws_lc_rs::signature::{ML_DSA_44_SIGNING, ML_DSA_65_SIGNING, PqdsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::key::algorithm::Algorithm;
use crate::key::jwk::Jwk;
use crate::{ACCESS_TOKEN_TYP, JwkSet, KeySet, Signer as _, SigningKey, Verifier, sign_jwt};

/// The key with the seed of the examples: 32 zero bytes.
fn example(algorithm: Algorithm) -> SigningKey {
    let kind = match algorithm {
        Algorithm::MlDsa44 => &ML_DSA_44_SIGNING,
        _ => &ML_DSA_65_SIGNING,
    };
    let pair = PqdsaKeyPair::from_seed(kind, &[0; 32]).unwrap();
    SigningKey::from_pkcs8_der(algorithm, pair.to_pkcs8v1().unwrap().as_ref()).unwrap()
}

#[test]
fn the_keys_of_the_rfc_have_its_thumbprints() {
    for (algorithm, kid) in [
        (Algorithm::MlDsa44, "T4xl70S7MT6Zeq6r9V9fPJGVn76wfnXJ21-gyo0Gu6o"),
        (Algorithm::MlDsa65, "Suiu29qbfuaBaR4Ats-c6XQBePB_OpAxAwcTR_0KXVM"),
    ] {
        let key = example(algorithm);
        assert_eq!(key.kid().as_str(), kid);
        let json = serde_json::to_value(key.public_jwk()).unwrap();
        assert_eq!((&json["kty"], &json["alg"]), (&json!("AKP"), &json!(algorithm.as_str())));
        let read: Jwk = serde_json::from_value(json).unwrap();
        assert_eq!(&read, key.public_jwk());
        assert_eq!(read.thumbprint().as_str(), kid);
    }
}

#[test]
fn the_signature_of_the_rfc_verifies() {
    let jws = include_str!("ml_dsa_44.jws").trim_end();
    let (input, signature) = jws.rsplit_once('.').unwrap();
    let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
    let jwk = example(Algorithm::MlDsa44).public_jwk().clone();
    let key = jwk.material.prepare(Algorithm::MlDsa44).unwrap();
    key.verify_sig(input.as_bytes(), &signature).unwrap();
    for at in [0, 1000, signature.len() - 1] {
        let mut damaged = signature.clone();
        damaged[at] ^= 1;
        assert!(key.verify_sig(input.as_bytes(), &damaged).is_err(), "{at}");
    }
    assert!(jwk.material.prepare(Algorithm::MlDsa65).is_err());
}

#[tokio::test]
async fn a_jwt_is_signed_and_verified_like_any_other() {
    for (algorithm, bytes) in [(Algorithm::MlDsa44, 2420), (Algorithm::MlDsa65, 3309)] {
        let key = SigningKey::generate(algorithm).unwrap();
        let again = SigningKey::from_pkcs8_der(algorithm, &key.to_pkcs8_der().unwrap()).unwrap();
        assert_eq!(again.kid(), key.kid());
        assert_eq!(algorithm.as_str().parse(), Ok(algorithm));
        assert_eq!(again.sign(b"input").await.unwrap().len(), bytes);
        let jwt = sign_jwt(
            &again,
            ACCESS_TOKEN_TYP,
            &json!({
                "iss": "https://as.example", "aud": "https://orders.example", "sub": "alice",
                "client_id": "web-app", "jti": "1", "iat": 1_700_000_000, "exp": 4_000_000_000_u64,
            }),
        )
        .await
        .unwrap();
        // What the docs say that it weighs.
        let size = jwt.expose().len();
        assert!((3400..4900).contains(&size), "{algorithm}: {size}");
        let published = serde_json::to_vec(&JwkSet::new(vec![key.public_jwk().clone()])).unwrap();
        let keys = KeySet::prepare(&JwkSet::from_json(&published).unwrap());
        let verifier = Verifier::new("https://as.example", "https://orders.example");
        assert_eq!(&verifier.verify(&keys, jwt.expose()).unwrap().kid, key.kid());
        let other = SigningKey::generate(algorithm).unwrap().public_jwk().clone();
        let mut other = serde_json::to_value(other).unwrap();
        other["kid"] = key.kid().as_str().into();
        let set = serde_json::to_vec(&json!({"keys": [other]})).unwrap();
        let others = KeySet::prepare(&JwkSet::from_json(&set).unwrap());
        assert!(verifier.verify(&others, jwt.expose()).is_err());
    }
}

#[test]
fn what_is_no_public_key_of_its_algorithm_is_refused() {
    let good = serde_json::to_value(example(Algorithm::MlDsa44).public_jwk()).unwrap();
    let refused = |change: &dyn Fn(&mut Value)| {
        let mut jwk = good.clone();
        change(&mut jwk);
        serde_json::from_value::<Jwk>(jwk).unwrap_err().to_string()
    };
    // RFC 9964 §3: `alg` is required.
    assert!(refused(&|jwk| drop(jwk.as_object_mut().unwrap().remove("alg"))).contains("kty"));
    assert!(refused(&|jwk| jwk["alg"] = "ML-DSA-87".into()).contains("kty"));
    assert!(refused(&|jwk| jwk["alg"] = "ES256".into()).contains("kty"));
    assert!(refused(&|jwk| jwk["alg"] = "ML-DSA-65".into()).contains("size"));
    assert!(refused(&|jwk| jwk["pub"] = "AAAA".into()).contains("size"));
    assert!(refused(&|jwk| drop(jwk.as_object_mut().unwrap().remove("pub"))).contains("missing"));
    assert!(refused(&|jwk| jwk["priv"] = "A".repeat(43).into()).contains("private"));
}
