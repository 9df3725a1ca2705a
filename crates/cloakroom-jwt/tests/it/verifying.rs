//! What a good token yields, and what the issuer refuses to sign.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use cloakroom_core::format::FormatError;
use cloakroom_core::time::{ManualClock, UnixTime};
use cloakroom_core::{Kid, Subject, TokenDigest};
use cloakroom_jwt::{
    ACCESS_TOKEN_TYP, Algorithm, KeySet, MAX_JWT_BYTES, SignError, Signer, SigningKey, Verifier,
    VerifyError, sign_jwt,
};
use serde_json::json;

use crate::support::{
    ALGORITHMS, AUDIENCE, ISSUER, NOW, claims, header, key_set, runtime, signed, token, verifier,
};

#[test]
fn every_algorithm_signs_and_verifies() {
    for algorithm in ALGORITHMS {
        let key = SigningKey::generate(algorithm).unwrap();
        let jwt = token(&key, &claims());
        let verified = verifier().verify(&key_set(&[&key]), &jwt).unwrap();
        assert_eq!(&verified.kid, key.kid());
        assert_eq!(verified.token.subject, Some(Subject::user("alice").unwrap()));
        assert!(matches!(
            verifier().verify(&KeySet::default(), &jwt),
            Err(VerifyError::UnknownKey(kid)) if &kid == key.kid()
        ));
    }
}

#[test]
fn the_claims_of_rfc_9068_are_read() {
    let key = SigningKey::generate(Algorithm::EdDsa).unwrap();
    let hash = TokenDigest::from_bytes([7; 32]);
    let mut all = claims();
    for (name, value) in [
        ("scope", json!("openid orders:read")),
        ("auth_time", json!(NOW - 60)),
        ("nbf", json!(NOW)),
        ("roles", json!(["buyer"])),
        ("handle_hash", json!(hash)),
        ("stateless", json!(true)),
    ] {
        all[name] = value;
    }
    let verified = verifier().verify(&key_set(&[&key]), &token(&key, &all)).unwrap();
    assert_eq!(verified.handle_hash, Some(hash));
    assert!(verified.stateless);
    let token = verified.token;
    assert_eq!(token.issuer.as_deref(), Some(ISSUER));
    assert_eq!(token.audience.unwrap().single(), Some(AUDIENCE));
    assert_eq!(token.client.unwrap().as_str(), "web-app");
    assert_eq!(token.jti.unwrap().as_str(), "dbe39bf3a3ba4238a513f51d6e1691c4");
    assert_eq!(token.scope.as_str(), "openid orders:read");
    assert_eq!(token.issued_at, Some(UnixTime::from_secs(NOW)));
    assert_eq!(token.expires_at, Some(UnixTime::from_secs(NOW + 600)));
    assert_eq!(token.not_before, Some(UnixTime::from_secs(NOW)));
    assert_eq!(token.auth_time, Some(UnixTime::from_secs(NOW - 60)));
    assert_eq!(
        serde_json::to_value(&token.extra).unwrap(),
        json!({"roles": ["buyer"]}),
        "private claims are taken out, the app's stay"
    );
}

#[test]
fn the_header_has_three_members_in_order() {
    let key = SigningKey::generate(Algorithm::Es256).unwrap();
    let jwt = token(&key, &claims());
    let written = {
        use base64::Engine as _;
        let segment = jwt.split('.').next().unwrap();
        base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(segment).unwrap()
    };
    let expected = format!(r#"{{"alg":"ES256","kid":"{}","typ":"at+jwt"}}"#, key.kid());
    assert_eq!(String::from_utf8(written).unwrap(), expected);
}

#[test]
fn a_header_in_another_order_is_as_good() {
    let key = SigningKey::generate(Algorithm::Es256).unwrap();
    let header = format!(r#"{{ "typ":"at+jwt", "kid":"{}", "alg":"ES256" }}"#, key.kid());
    let jwt = signed(&key, &header, &claims().to_string());
    verifier().verify(&key_set(&[&key]), &jwt).unwrap();
}

#[test]
fn each_key_of_a_set_verifies_its_own_tokens_alone() {
    let keys: Vec<SigningKey> = [Algorithm::Es256, Algorithm::Es256, Algorithm::EdDsa]
        .map(|algorithm| SigningKey::generate(algorithm).unwrap())
        .into();
    let set = key_set(&keys.iter().collect::<Vec<_>>());
    for signer in &keys {
        for named in &keys {
            let jwt = signed(signer, &header(named).to_string(), &claims().to_string());
            let same = signer.kid() == named.kid();
            assert_eq!(verifier().verify(&set, &jwt).is_ok(), same);
        }
    }
}

#[test]
fn time_is_the_clocks_and_leeway_is_bounded() {
    let key = SigningKey::generate(Algorithm::EdDsa).unwrap();
    let keys = key_set(&[&key]);
    let jwt = token(&key, &claims());
    let clock = Arc::new(ManualClock::at(UnixTime::from_secs(NOW)));
    let verifier =
        Verifier::new(ISSUER, AUDIENCE).clock(clock.clone()).leeway(Duration::from_secs(3600));
    let at = |secs| {
        clock.set(UnixTime::from_secs(secs));
        verifier.verify(&keys, &jwt)
    };
    assert!(at(NOW + 600 + 119).is_ok());
    assert!(matches!(at(NOW + 600 + 120), Err(VerifyError::Expired)));
    assert!(at(NOW - 120).is_ok());
    assert!(matches!(at(NOW - 121), Err(VerifyError::NotYetValid)));

    let strict = verifier.leeway(Duration::ZERO);
    clock.set(UnixTime::from_millis((NOW + 600) * 1000 - 1));
    assert!(strict.verify(&keys, &jwt).is_ok());
    clock.advance(Duration::from_millis(1));
    assert!(matches!(strict.verify(&keys, &jwt), Err(VerifyError::Expired)));
}

#[test]
fn the_issuer_itself_accepts_any_audience_but_not_none() {
    let key = SigningKey::generate(Algorithm::EdDsa).unwrap();
    let keys = key_set(&[&key]);
    let verifier =
        Verifier::any_audience(ISSUER).clock(Arc::new(ManualClock::at(UnixTime::from_secs(NOW))));
    let mut claims = claims();
    claims["aud"] = json!(["https://a.example", "https://b.example"]);
    assert!(verifier.verify(&keys, &token(&key, &claims)).is_ok());
    claims.as_object_mut().unwrap().remove("aud");
    assert!(matches!(verifier.verify(&keys, &token(&key, &claims)), Err(VerifyError::Claims(_))));
}

/// Counts its signatures, and fails when told to.
#[derive(Debug)]
struct Remote {
    key: SigningKey,
    signatures: AtomicUsize,
    broken: bool,
}

impl Remote {
    fn new(broken: bool) -> Self {
        Self {
            key: SigningKey::generate(Algorithm::Es256).unwrap(),
            signatures: AtomicUsize::new(0),
            broken,
        }
    }
}

#[async_trait]
impl Signer for Remote {
    fn kid(&self) -> &Kid {
        self.key.kid()
    }

    fn algorithm(&self) -> Algorithm {
        self.key.algorithm()
    }

    async fn sign(&self, signing_input: &[u8]) -> Result<Vec<u8>, SignError> {
        self.signatures.fetch_add(1, Ordering::SeqCst);
        if self.broken {
            return Err(SignError::new("the HSM is on fire"));
        }
        self.key.sign(signing_input).await
    }
}

#[test]
fn a_jwt_takes_one_signature() {
    let signer = Remote::new(false);
    token(&signer, &claims());
    assert_eq!(signer.signatures.load(Ordering::SeqCst), 1);
}

#[test]
fn what_no_http_header_carries_is_not_signed() {
    let signer = Remote::new(false);
    let sign = |pad: usize| {
        let claims = json!({"pad": "x".repeat(pad)});
        runtime().block_on(sign_jwt(&signer, ACCESS_TOKEN_TYP, &claims))
    };
    let mut pad = 5900;
    let largest = loop {
        match sign(pad + 1) {
            Ok(_) => pad += 1,
            Err(error) => {
                let FormatError::TooLarge { size, limit } = error else {
                    panic!("{error:?}");
                };
                assert!(size > limit && limit == MAX_JWT_BYTES);
                break sign(pad).unwrap();
            }
        }
    };
    assert!((MAX_JWT_BYTES - 3..=MAX_JWT_BYTES).contains(&largest.expose().len()));

    let before = signer.signatures.load(Ordering::SeqCst);
    assert!(matches!(sign(64 * 1024), Err(FormatError::TooLarge { .. })));
    assert_eq!(signer.signatures.load(Ordering::SeqCst), before);
}

#[test]
fn a_failing_signer_is_an_outage() {
    let error =
        runtime().block_on(sign_jwt(&Remote::new(true), ACCESS_TOKEN_TYP, &claims())).unwrap_err();
    let FormatError::KeysUnavailable(source) = &error else {
        panic!("{error:?}");
    };
    let root = source.source().expect("the signer's own error");
    assert_eq!(root.to_string(), "the HSM is on fire");
}

#[test]
fn claims_that_are_no_json_are_an_error() {
    let key = SigningKey::generate(Algorithm::EdDsa).unwrap();
    let claims = std::collections::HashMap::from([(vec![1_u8], 1)]);
    let result = runtime().block_on(sign_jwt(&key, ACCESS_TOKEN_TYP, &claims));
    assert!(matches!(result, Err(FormatError::Other(_))));
}
