//! JWTs and JWK Sets.

use std::sync::{Arc, LazyLock};

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cloakroom::core::Random;
use cloakroom::core::time::{Clock, ManualClock, UnixTime};
use cloakroom::jwt::danger::{Hs256Key, hs256_key_set};
use cloakroom::jwt::{Algorithm, Jwk, JwkSet, KeySet, Signer, SigningKey, Verifier};
use serde_json::json;

const ISSUER: &str = "https://as.example";
const AUDIENCE: &str = "https://orders.example";
const NOW: UnixTime = UnixTime::from_secs(1_800_000_000);

struct Fixture {
    mac: hmac::Key,
    key: Hs256Key,
    keys: KeySet,
    verifier: Verifier,
}

static FIXTURE: LazyLock<Fixture> = LazyLock::new(|| {
    let key = Hs256Key::random(&Random::system()).expect("random bytes");
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::at(NOW));
    Fixture {
        mac: hmac::Key::new(hmac::HMAC_SHA256, key.expose()),
        keys: hs256_key_set(&[&key]),
        verifier: Verifier::new(ISSUER, AUDIENCE).clock(clock),
        key,
    }
});

/// The input is a header and claims, separated by a NUL. They are signed correctly, so that the code
/// after the signature check is reached. The input itself is also presented as a token.
pub(crate) fn jwt(input: &[u8]) {
    let fixture = &*FIXTURE;
    if let Ok(text) = std::str::from_utf8(input) {
        assert!(fixture.verifier.verify(&fixture.keys, text).is_err(), "{text:?}");
    }
    let at = input.iter().position(|byte| *byte == 0).unwrap_or(input.len());
    let (header, claims) = (&input[..at], input.get(at + 1..).unwrap_or_default());
    // `*` in the header stands for the key's name, which changes from run to run.
    let header = String::from_utf8_lossy(header).replace('*', fixture.key.kid().as_str());
    let unsigned = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let signature = hmac::sign(&fixture.mac, unsigned.as_bytes());
    let token = format!("{unsigned}.{}", URL_SAFE_NO_PAD.encode(signature));
    if let Ok(verified) = fixture.verifier.verify(&fixture.keys, &token) {
        let token = verified.token;
        assert_eq!(token.issuer.as_deref(), Some(ISSUER));
        assert!(token.audience.expect("an audience").contains(AUDIENCE));
        assert!(token.expires_at.expect("an end") + std::time::Duration::from_secs(30) > NOW);
        assert!(token.subject.is_some() && token.client.is_some() && token.jti.is_some());
    }
}

pub(crate) fn jwt_seeds() -> Vec<Vec<u8>> {
    let header = json!({ "alg": "HS256", "kid": "*", "typ": "at+jwt" });
    let claims = json!({
        "iss": ISSUER, "aud": [AUDIENCE, "https://other.example"], "sub": "alice",
        "client_id": "web-app", "jti": "1", "iat": NOW.as_secs(), "nbf": NOW.as_secs(),
        "exp": NOW.as_secs() + 600, "scope": "orders:read", "sub_kind": "client",
        "grant_id": "AAAAAAAAAAAAAAAAAAAAAA", "grant_epoch": 1, "stateless": true,
        "handle_hash": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
        "cnf": { "jkt": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA" }, "deep": [[{ "a": [] }]],
    });
    let small = json!({ "iss": ISSUER, "aud": AUDIENCE });
    [claims, small].map(|claims| format!("{header}\0{claims}").into_bytes()).to_vec()
}

/// A JWK Set is read or refused. A set that was read is written without a private part, is equal when
/// it is read again, and can be prepared.
pub(crate) fn jwk_set(input: &[u8]) {
    let Ok(set) = JwkSet::from_json(input) else { return };
    let _ = KeySet::prepare(&set);
    let written = serde_json::to_vec(&set).expect("a set can be written");
    let again = JwkSet::from_json(&written).expect("what was written can be read");
    assert_eq!(serde_json::to_vec(&again).expect("a set can be written"), written);
    let value: serde_json::Value = serde_json::from_slice(&written).expect("JSON");
    for key in value["keys"].as_array().expect("keys") {
        for private in ["d", "p", "q", "dp", "dq", "qi", "oth", "k"] {
            assert!(key.get(private).is_none(), "{key}");
        }
    }
}

pub(crate) fn jwk_set_seeds() -> Vec<Vec<u8>> {
    static SEEDS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
        let jwk = |algorithm| -> Jwk {
            SigningKey::generate(algorithm).expect("a key").public_jwk().clone()
        };
        let all = [Algorithm::Es256, Algorithm::Es384, Algorithm::EdDsa, Algorithm::Rs256];
        vec![
            serde_json::to_vec(&JwkSet::new(all.map(jwk).to_vec())).expect("JSON"),
            br#"{"keys":[{"kty":"oct","k":"AAAA"},{"kty":"EC","crv":"P-256","d":"AA"}]}"#.to_vec(),
        ]
    });
    SEEDS.clone()
}
