//! RFC 8037 appendix A. The private key and the signature that it makes are in `keys`.

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use cloakroom_jwt::{Jwk, KeySet};
use serde_json::json;

use crate::support::{b64, reason, refuses, unb64};

const D: &str = "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A";
const X: &str = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
const INPUT: &str = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc";
const SIGNATURE: &str =
    "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";

#[test]
fn a1_a_private_key_is_refused() {
    let pair = Ed25519KeyPair::from_seed_unchecked(&unb64(D)).unwrap();
    assert_eq!(b64(pair.public_key()), X, "it is the private half");
    let private = json!({"kty": "OKP", "crv": "Ed25519", "d": D, "x": X});
    let error = serde_json::from_value::<Jwk>(private).unwrap_err();
    let expected = "Error(the public key cannot be used: it holds a private or a shared secret";
    assert!(reason(&error).starts_with(expected), "{error:?}");
}

#[test]
fn a2_and_a3_a_public_key_and_its_thumbprint() {
    let public = json!({"kty": "OKP", "crv": "Ed25519", "x": X});
    let jwk: Jwk = serde_json::from_value(public.clone()).unwrap();
    assert_eq!(jwk.thumbprint().as_str(), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
    assert_eq!(serde_json::to_value(&jwk).unwrap(), public);
}

#[test]
fn a4_a_signature_of_what_is_no_jwt() {
    let jwt = format!("{INPUT}.{SIGNATURE}");
    let key = UnparsedPublicKey::new(&ED25519, unb64(X));
    key.verify(INPUT.as_bytes(), &unb64(SIGNATURE)).unwrap();
    let set = json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "x": X, "kid": "a2"}]});
    let keys = KeySet::prepare(&serde_json::from_value(set).unwrap());
    assert!(!keys.is_empty());
    refuses(&keys, "A.4", &jwt, "Header(`typ` is not `at+jwt`)");
}

#[test]
fn a6_a_key_for_agreement_signs_nothing() {
    let x25519 = json!({"kty": "OKP", "crv": "X25519", "kid": "Bob",
        "x": "3p7bfXt9wbTTW2HC7OQ1Nz-DQ8hbeGdNrfx-FG-IK08"});
    let error = serde_json::from_value::<Jwk>(x25519).unwrap_err();
    let expected = "Error(the public key cannot be used: its `kty` or `crv` is not supported";
    assert!(reason(&error).starts_with(expected), "{error:?}");
}
