//! Well signed, and refused all the same: what the claims say is not acceptable.

use cloakroom_jwt::VerifyError;
use serde_json::{Value, json};

use crate::bad_input::Bench;
use crate::support::{
    AUDIENCE, ISSUER, NOW, b64, claims, header, signed, signed_segments, verifier,
};

#[test]
fn claims_of_somebody_else_or_of_another_time() {
    let bench = Bench::new();
    type Reason = fn(&VerifyError) -> bool;
    let issuer: Reason = |e| matches!(e, VerifyError::Issuer);
    let audience: Reason = |e| matches!(e, VerifyError::Audience);
    let expired: Reason = |e| matches!(e, VerifyError::Expired);
    let early: Reason = |e| matches!(e, VerifyError::NotYetValid);
    let table: &[(Value, Reason)] = &[
        (json!({"iss": null}), issuer),
        (json!({"iss": ""}), issuer),
        (json!({"iss": "https://as.example/"}), issuer),
        (json!({"iss": "https://AS.example"}), issuer),
        (json!({"iss": "https://evil.example"}), issuer),
        (json!({"aud": null}), audience),
        (json!({"aud": "https://billing.example"}), audience),
        (json!({"aud": "https://orders.example//"}), audience),
        (json!({"aud": "https://orders.example/v1"}), audience),
        (json!({"aud": "https://orders.example?"}), audience),
        (json!({"aud": ["https://billing.example"]}), audience),
        (json!({"exp": 0}), expired),
        (json!({"exp": NOW - 600}), expired),
        (json!({"exp": NOW - 30}), expired),
        (json!({"nbf": NOW + 31}), early),
        (json!({"nbf": u64::MAX}), early),
        (json!({"iat": NOW + 31}), early),
        (json!({"iat": NOW + 31, "nbf": NOW}), early),
    ];
    for (members, reason) in table {
        bench.refused(&members.to_string(), &bench.with_claims(members.clone()), *reason);
    }
    // Within the leeway of 30 s, and meant for this resource.
    for members in [
        json!({"exp": NOW - 29}),
        json!({"nbf": NOW + 30}),
        json!({"iat": NOW + 30}),
        json!({"exp": u64::MAX}),
        json!({"aud": ["https://billing.example", AUDIENCE]}),
        // The same resource: libraries that parse URLs add the slash.
        json!({"aud": format!("{AUDIENCE}/")}),
    ] {
        bench.verify(&bench.with_claims(members)).unwrap();
    }
}

#[test]
fn claims_that_are_missing_or_of_the_wrong_type() {
    let bench = Bench::new();
    for member in ["sub", "client_id", "jti", "iat", "exp"] {
        let jwt = bench.with_claims(json!({member: null}));
        bench.refused(member, &jwt, |e| matches!(e, VerifyError::Claims(_)));
    }
    let exp = NOW + 600;
    for members in [
        json!({"exp": exp.to_string()}),
        json!({"exp": -0.5}),
        json!({"exp": -1}),
        json!({"exp": true}),
        json!({"exp": [exp]}),
        json!({"exp": 1e300}),
        json!({"iat": NOW.to_string()}),
        json!({"nbf": "0"}),
        json!({"auth_time": "0"}),
        json!({"iss": [ISSUER]}),
        json!({"iss": {"iss": ISSUER}}),
        json!({"aud": [AUDIENCE, 1]}),
        json!({"aud": [[AUDIENCE]]}),
        json!({"aud": {AUDIENCE: true}}),
        json!({"sub": ["alice"]}),
        json!({"sub": 1}),
        json!({"sub": ""}),
        json!({"client_id": 1}),
        json!({"jti": 1}),
        json!({"scope": ["a", 1]}),
        json!({"scope": {"a": true}}),
        json!({"scope": "a\tb"}),
        json!({"cnf": {"kid": "unknown confirmation"}}),
        json!({"cnf": "jkt"}),
    ] {
        let jwt = bench.with_claims(members.clone());
        bench.refused(&members.to_string(), &jwt, |e| matches!(e, VerifyError::Json(_)));
    }
    let empty = bench.with_claims(json!({"aud": []}));
    bench.refused("an empty audience", &empty, |e| matches!(e, VerifyError::Audience));
    for (member, kind) in [
        ("token_use", "refresh_token"),
        ("token_usage", "refresh_token"),
        ("token_type", "Refresh"),
        ("typ", "ID"),
        ("token_use", "id"),
    ] {
        let jwt = bench.with_claims(json!({member: kind}));
        bench.refused(member, &jwt, |e| matches!(e, VerifyError::Claims(_)));
    }
}

#[test]
fn claims_that_others_write_in_their_own_way() {
    let bench = Bench::new();
    for members in [
        json!({"exp": 1_700_000_600.0_f64}),
        json!({"exp": 1_700_000_600.5_f64}),
        json!({"iat": 1_700_000_000.25_f64}),
        json!({"nbf": 1_699_999_999.5_f64}),
        json!({"scope": ["a", "b"]}),
        json!({"scope": " a  b "}),
        json!({"scope": null, "username": null, "nbf": null, "cnf": null, "act": null}),
        json!({"grant_id": "8a6f6e6e-2f1c-4c5e-9d2c-0c8f3f0d7f11"}),
        json!({"grant_epoch": "spring"}),
        json!({"sub_kind": "robot"}),
        json!({"handle_hash": "AAAA"}),
        json!({"stateless": "true"}),
        json!({"token_use": "access", "typ": "Bearer"}),
    ] {
        let verified = bench.verify(&bench.with_claims(members.clone()));
        verified.unwrap_or_else(|error| panic!("{members}: {error:?}"));
    }
    // Nothing lives longer for a fraction.
    let bench = Bench::new();
    for members in [json!({"exp": 1_699_999_970.9_f64}), json!({"nbf": 1_700_000_030.1_f64})] {
        assert!(bench.verify(&bench.with_claims(members.clone())).is_err(), "{members}");
    }
}

#[test]
fn ambiguous_claims() {
    let bench = Bench::new();
    let good = claims().to_string();
    let also = |more: &str| format!("{},{more}}}", &good[..good.len() - 1]);
    bench.verify(&signed(&bench.key, &header(&bench.key).to_string(), &also("\"a\":0"))).unwrap();
    for claims in [
        also(r#""sub":"admin""#),
        also(r#""\u0073ub":"admin""#),
        also(r#""sub":"alice""#),
        also(&format!(r#""exp":{}"#, NOW + 900)),
        also(r#""tenant":1,"tenant":2"#),
        also(r#""act":{"sub":"a","sub":"b"}"#),
        also(r#""authorization_details":[{"x":{"type":1,"type":2}}]"#),
        also(
            r#""cnf":{"jkt":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA","jkt":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}"#,
        ),
        also(&format!(r#""a":{}{}"#, "[".repeat(100), "]".repeat(100))),
        also(&format!(r#""a":{}0{}"#, "{\"a\":".repeat(100), "}".repeat(100))),
        also(&format!(r#""a":{}"#, "[".repeat(2000))),
        good.clone() + "x",
        good.clone() + &good,
        good[..good.len() - 1].to_owned(),
        format!("[{good}]"),
        "null".to_owned(),
        "\"claims\"".to_owned(),
        " ".to_owned(),
        "\u{feff}".to_owned() + &good,
    ] {
        let jwt = signed(&bench.key, &header(&bench.key).to_string(), &claims);
        bench.refused(&claims, &jwt, |e| matches!(e, VerifyError::Json(_)));
    }
    let not_text =
        signed_segments(&bench.key, &b64(header(&bench.key).to_string()), &b64([0xff, 0xfe]));
    bench.refused("no UTF-8", &not_text, |e| matches!(e, VerifyError::Json(_)));
}

#[test]
fn tokens_beyond_the_limit_are_not_read() {
    let bench = Bench::new();
    let jwt = signed(
        &bench.key,
        &header(&bench.key).to_string(),
        &json!({"pad": "x".repeat(64 * 1024)}).to_string(),
    );
    bench.refused("64 KiB of claims", &jwt, |e| matches!(e, VerifyError::TooLarge));
    bench.refused("junk", &".".repeat(8193), |e| matches!(e, VerifyError::TooLarge));

    let good = bench.good();
    let at = |limit| verifier().max_bytes(limit).verify(&bench.keys, &good);
    assert!(at(good.len()).is_ok());
    assert!(matches!(at(good.len() - 1), Err(VerifyError::TooLarge)));
}
