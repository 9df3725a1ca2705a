//! RFC 9068 §3: its example, signed again with a key of ours under the name that it gives.

use std::sync::Arc;

use cloakroom_core::Subject;
use cloakroom_core::time::{ManualClock, UnixTime};
use cloakroom_jwt::{Algorithm, KeySet, SigningKey, VerifiedJwt, Verifier, VerifyError};
use serde_json::{Value, json};

use crate::support::{published_as, reason, signed};

const HEADER: &str = r#"{"typ":"at+JWT","alg":"RS256","kid":"RjEwOwOA"}"#;
const ISSUER: &str = "https://authorization-server.example.com/";
const AUDIENCE: &str = "https://rs.example.com/";

fn claims() -> Value {
    json!({
        "iss": ISSUER,
        "sub": "5ba552d67",
        "aud": AUDIENCE,
        "exp": 1_639_528_912,
        "iat": 1_618_354_090,
        "jti": "dbe39bf3a3ba4238a513f51d6e1691c4",
        "client_id": "s6BhdRkqt3",
        "scope": "openid profile reademail",
    })
}

struct Example {
    key: SigningKey,
    keys: KeySet,
}

impl Example {
    fn new() -> Self {
        let pem = include_str!("rfc7515-a2.pem");
        let key = SigningKey::from_pkcs8_pem(Algorithm::Rs256, pem).unwrap();
        Self { keys: published_as(&key, "RjEwOwOA"), key }
    }

    fn verify_at(
        &self,
        secs: u64,
        header: &str,
        claims: &Value,
    ) -> Result<VerifiedJwt, VerifyError> {
        Verifier::new(ISSUER, AUDIENCE)
            .clock(Arc::new(ManualClock::at(UnixTime::from_secs(secs))))
            .verify(&self.keys, &signed(&self.key, header, &claims.to_string()))
    }

    fn verify(&self, header: &str, claims: &Value) -> Result<VerifiedJwt, VerifyError> {
        self.verify_at(1_618_354_090, header, claims)
    }
}

#[test]
fn the_example_is_accepted() {
    let verified = Example::new().verify(HEADER, &claims()).unwrap();
    assert_eq!(verified.kid.as_str(), "RjEwOwOA");
    assert_eq!(verified.token.subject, Some(Subject::user("5ba552d67").unwrap()));
    assert_eq!(verified.token.client.unwrap().as_str(), "s6BhdRkqt3");
    assert_eq!(verified.token.jti.unwrap().as_str(), "dbe39bf3a3ba4238a513f51d6e1691c4");
    assert_eq!(verified.token.audience.unwrap().single(), Some(AUDIENCE));
    assert!(verified.token.scope.contains("reademail"));
    assert_eq!(verified.token.expires_at, Some(UnixTime::from_secs(1_639_528_912)));
    assert!(verified.token.grant.is_none() && verified.handle_hash.is_none());
}

#[test]
fn each_required_claim_is_required() {
    let example = Example::new();
    for (member, expected) in [
        ("iss", "Issuer"),
        ("exp", "Claims(`exp` is missing)"),
        ("aud", "Audience"),
        ("sub", "Claims(`sub` is missing)"),
        ("client_id", "Claims(`client_id` is missing)"),
        ("iat", "Claims(`iat` is missing)"),
        ("jti", "Claims(`jti` is missing)"),
    ] {
        let mut without = claims();
        without.as_object_mut().unwrap().remove(member).unwrap();
        let mut null = claims();
        null[member] = Value::Null;
        for claims in [without, null] {
            let error = example.verify(HEADER, &claims).unwrap_err();
            assert_eq!(reason(&error), expected, "{claims}");
        }
    }
    // RFC 9068 §2.2.3: a scope only where one was asked for.
    let mut without = claims();
    without.as_object_mut().unwrap().remove("scope").unwrap();
    assert!(example.verify(HEADER, &without).unwrap().token.scope.is_empty());
}

#[test]
fn every_step_of_section_4_is_taken() {
    let example = Example::new();
    let with = |member: &str, value: Value| {
        let mut claims = claims();
        claims[member] = value;
        claims
    };
    for (what, at, header, claims, expected) in [
        ("typ", 0, HEADER.replace("at+JWT", "JWT"), claims(), "Header(`typ` is not `at+jwt`)"),
        ("no typ", 0, HEADER.replace("typ", "type"), claims(), "Header(`typ` is not `at+jwt`)"),
        ("iss", 0, HEADER.into(), with("iss", json!(ISSUER.trim_end_matches('/'))), "Issuer"),
        ("aud", 0, HEADER.into(), with("aud", json!(format!("{AUDIENCE}a"))), "Audience"),
        ("aud", 0, HEADER.into(), with("aud", json!(["s6BhdRkqt3"])), "Audience"),
        ("none", 0, HEADER.replace("RS256", "none"), claims(), "Algorithm"),
        ("PS256", 0, HEADER.replace("RS256", "PS256"), claims(), "Algorithm"),
        ("exp", 1_639_528_912 + 30, HEADER.into(), claims(), "Expired"),
        ("iat", 1_618_354_090 - 31, HEADER.into(), claims(), "NotYetValid"),
        ("kid", 0, HEADER.replace("RjEwOwOA", "RjEwOw0A"), claims(), "UnknownKey(RjEwOw0A)"),
    ] {
        let at = if at == 0 { 1_618_354_090 } else { at };
        let error = example.verify_at(at, &header, &claims).expect_err(what);
        assert_eq!(reason(&error), expected, "{what}");
    }
    // The times themselves are within.
    for at in [1_618_354_090, 1_639_528_912 - 1] {
        example.verify_at(at, HEADER, &claims()).unwrap();
    }
    // And the signature is looked at.
    let stranger = SigningKey::generate(Algorithm::Rs256).unwrap();
    let forged = signed(&stranger, HEADER, &claims().to_string());
    let verifier = Verifier::new(ISSUER, AUDIENCE);
    assert!(matches!(verifier.verify(&example.keys, &forged), Err(VerifyError::Signature)));
}
