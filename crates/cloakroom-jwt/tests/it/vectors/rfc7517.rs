//! RFC 7517 appendices A and B, RFC 7638 §3.1.

use cloakroom_core::Kid;
use cloakroom_jwt::{Jwk, JwkSet, KeySet};
use serde_json::{Value, json};

use super::RFC7638_N;

const EC_X: &str = "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4";
const EC_Y: &str = "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM";
const EC_D: &str = "870MB6gfuTJ4HtUnUvYMyJpr5eUZNP4Bk43bVdj3eAE";
const RSA_D: &str = "X4cTteJY_gn4FYPsXB8rdXix5vwsg1FLN5E3EaG6RJoVH-HLLKD9M7dx5oo7GURknchnrRweUkC7hT5fJLM0WbFAKNLWY2vv7B6NqXSzUvxT0_YSfqijwp3RTzlBaCxWp4doFk5N2o8Gy_nHNKroADIkJ46pRUohsXywbReAdYaMwFs9tv8d_cPVY3i07a3t8MN6TNwm0dSawm9v47UiCl3Sk5ZiG7xojPLu4sbg1U2jx4IBTNBznbJSzFHK66jT8bgkuqsk0GjskDJk19Z4qwjwbsnn4j2WBii3RL-Us2lGVkY8fkFzme1z0HbIkfz0Y6mqnOYtqc0X4jfcKoAC8Q";

/// The keys of appendix A.1.
fn public() -> [Value; 2] {
    [
        json!({"kty": "EC", "crv": "P-256", "x": EC_X, "y": EC_Y, "use": "enc", "kid": "1"}),
        json!({"kty": "RSA", "n": RFC7638_N, "e": "AQAB", "alg": "RS256", "kid": "2011-04-29"}),
    ]
}

fn parsed(keys: impl serde::Serialize) -> JwkSet {
    JwkSet::from_json(json!({"keys": keys}).to_string().as_bytes()).unwrap()
}

#[test]
fn a1_public_keys() {
    let set = parsed(public());
    let read: Vec<Value> = set.iter().map(|key| serde_json::to_value(key).unwrap()).collect();
    assert_eq!(read, public());
    // The first is for encryption: it is a key, but not one to verify with.
    let keys = KeySet::prepare(&set);
    assert_eq!(keys.kids().map(Kid::as_str).collect::<Vec<_>>(), ["2011-04-29"]);
    let [mut ec, _] = public();
    ec["use"] = json!("sig");
    assert!(!KeySet::prepare(&parsed([ec])).is_empty(), "its point is on the curve");
}

#[test]
fn a2_private_keys() {
    let [mut ec, mut rsa] = public();
    (ec["d"], rsa["d"]) = (json!(EC_D), json!(RSA_D));
    assert_eq!(parsed([&ec, &rsa]).iter().count(), 0);
    for key in [ec, rsa] {
        let error = serde_json::from_value::<Jwk>(key).unwrap_err().to_string();
        assert!(error.contains("it holds a private or a shared secret"), "{error}");
        assert!(!error.contains(EC_D) && !error.contains(RSA_D));
    }
    // `d` is the private half of this point, or the library would refuse the pair.
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
    let unb64 = crate::support::unb64;
    let point = [vec![4], unb64(EC_X), unb64(EC_Y)].concat();
    let signing = &ECDSA_P256_SHA256_FIXED_SIGNING;
    EcdsaKeyPair::from_private_key_and_public_key(signing, &unb64(EC_D), &point).unwrap();
}

#[test]
fn a3_symmetric_keys() {
    for key in [
        json!({"kty": "oct", "alg": "A128KW", "k": "GawgguFyGrWKav7AX4VKUg"}),
        json!({"kty": "oct", "kid": "HMAC key used in JWS spec Appendix A.1 example",
            "k": "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow"}),
    ] {
        let error = serde_json::from_value::<Jwk>(key.clone()).unwrap_err().to_string();
        assert!(error.contains("it holds a private or a shared secret"), "{error}");
        assert_eq!(parsed([key]).iter().count(), 0);
    }
}

#[test]
fn section_3_names_a_key_in_a_sentence() {
    let kid = "Public key used in JWS spec Appendix A.3 example";
    let keys = KeySet::prepare(&parsed([json!({"kty": "EC", "crv": "P-256",
        "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
        "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0", "kid": kid})]));
    assert_eq!(keys.kids().map(Kid::as_str).collect::<Vec<_>>(), [kid]);
}

#[test]
fn appendix_b_brings_a_certificate() {
    // A key with `x5c` is a key; the certificate is not looked at.
    let mut key = json!({"kty": "RSA", "use": "sig", "kid": "1b94c", "e": "AQAB",
        "x5c": ["MIIDQjCCAiqgAwIBAgIGATz/FuLiMA0GCSqGSIb3DQEBBQUAMGIxCzAJBgNVBAYTAlVT"],
        "n": "vrjOfz9Ccdgx5nQudyhdoR17V-IubWMeOZCwX_jj0hgAsz2J_pqYW08PLbK_PdiVGKPrqzmDIsLI7sA25VEnHU1uCLNwBuUiCO11_-7dYbsr4iJmG0Qu2j8DsVyT1azpJC_NG84Ty5KKthuCaPod7iI7w0LK9orSMhBEwwZDCxTWq4aYWAchc8t-emd9qOvWtVMDC2BXksRngh6X5bUYLy6AyHKvj-nUy1wgzjYQDwHMTplCoLtU-o-8SNnZ1tmRoGE9uJkBLdh5gFENabWnU5m1ZqZPdwS-qo-meMvVfJb6jJVWRpl2SUtCnYG2C32qvbWbjZ_jBPD5eunqsIo1vQ"});
    let set = parsed([&key]);
    assert_eq!(set.iter().count(), 1);
    assert!(!KeySet::prepare(&set).is_empty(), "RS256 is meant by those who leave it out");
    key["alg"] = json!("PS256");
    assert!(!KeySet::prepare(&parsed([&key])).is_empty());
}

#[test]
fn rfc_7638_thumbprint() {
    use sha2::{Digest as _, Sha256};
    let canonical = format!(r#"{{"e":"AQAB","kty":"RSA","n":"{RFC7638_N}"}}"#);
    let expected = "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs";
    assert_eq!(crate::support::b64(Sha256::digest(canonical)), expected);
    let [_, rsa] = public();
    for (member, value) in [("kid", json!("x")), ("alg", json!("PS256")), ("use", json!("sig"))] {
        let mut rsa = rsa.clone();
        rsa[member] = value;
        assert_eq!(serde_json::from_value::<Jwk>(rsa).unwrap().thumbprint().as_str(), expected);
    }
}
