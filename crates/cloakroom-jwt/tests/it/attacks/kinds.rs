//! One kind of JWT passed off as another (RFC 8725 §2.8, §3.11, §3.12).

use serde_json::{Value, json};

use super::{NO_HEADER, OWN_KEY, WRONG_TYP};
use crate::bad_input::Bench;
use crate::support::{ISSUER, NOW, accepts, b64, claims, refuses, signed, signed_segments};

#[test]
fn typ_in_every_spelling() {
    let bench = Bench::new();
    let with = |typ: &str| {
        let header = format!(r#"{{"alg":"ES256","kid":"{}","typ":{typ}}}"#, bench.key.kid());
        signed(&bench.key, &header, &claims().to_string())
    };
    // RFC 7515 §4.1.9, RFC 2045 §5.1: without regard to case; `application/` may be left out.
    for good in [
        r#""at+jwt""#,
        r#""AT+JWT""#,
        r#""At+jWt""#,
        r#""application/at+jwt""#,
        r#""APPLICATION/AT+JWT""#,
        r#""application\/at+jwt""#,
        r#""\u0061\u0074+jwt""#,
    ] {
        accepts(&bench.keys, good, &with(good));
    }
    for bad in [
        "null",
        r#""""#,
        r#""JWT""#,
        r#""jwt""#,
        r#""JOSE""#,
        r#""JOSE+JSON""#,
        r#""at+jwt ""#,
        r#"" at+jwt""#,
        r#""at+jwt\t""#,
        r#""at+jwt\n""#,
        r#""at+jwt\u0000""#,
        r#""\ufeffat+jwt""#,
        r#""at+jwt;""#,
        r#""at+jwt; charset=utf-8""#,
        r#""at+jwt;v=1""#,
        r#""application/at+jwt;v=1""#,
        r#""application/ at+jwt""#,
        r#""application//at+jwt""#,
        r#""/at+jwt""#,
        r#""x/at+jwt""#,
        r#""text/at+jwt""#,
        r#""application/application/at+jwt""#,
        r#""application/""#,
        r#""at jwt""#,
        r#""at%2Bjwt""#,
        r#""at-jwt""#,
        r#""at+jwt+jwt""#,
        r#""at+jwt,JWT""#,
        r#""at""#,
        r#""+jwt""#,
        "\"at+jw\u{ff54}\"",
        "\"\u{430}t+jwt\"",
        "\"a\u{2c66}+jwt\"",
    ] {
        refuses(&bench.keys, bad, &with(bad), WRONG_TYP);
    }
    for bad in ["1", "true", "[]", r#"["at+jwt"]"#, r#"{"typ":"at+jwt"}"#, r#""at\+jwt""#] {
        refuses(&bench.keys, bad, &with(bad), NO_HEADER);
    }
    let absent = format!(r#"{{"alg":"ES256","kid":"{}"}}"#, bench.key.kid());
    refuses(&bench.keys, "none", &signed(&bench.key, &absent, &claims().to_string()), WRONG_TYP);
}

/// The header of a kind, its claims, and why they do not pass even under the header of an access
/// token.
fn kinds() -> Vec<(&'static str, Value, Value, &'static str)> {
    let time = |mut claims: Value| {
        claims["iss"] = json!(ISSUER);
        claims["iat"] = json!(NOW);
        claims["exp"] = json!(NOW + 600);
        claims["jti"] = json!("1");
        claims
    };
    let orders = crate::support::AUDIENCE;
    vec![
        (
            "introspection response (RFC 9701 §5)",
            json!({"typ": "token-introspection+jwt"}),
            json!({"iss": ISSUER, "aud": orders, "iat": NOW,
                "token_introspection": {"active": true, "sub": "alice", "client_id": "web-app"}}),
            "Claims(`sub` is missing)",
        ),
        (
            "introspection response to a gateway, of all claims at once",
            json!({"typ": "application/token-introspection+jwt"}),
            time(json!({"aud": "gateway", "sub": "alice", "client_id": "web-app"})),
            "Audience",
        ),
        (
            "phantom JWT for another service",
            json!({"typ": "at+jwt"}),
            time(json!({"aud": "https://billing.example", "sub": "alice", "client_id": "web-app",
                "handle_hash": b64([7; 32])})),
            "Audience",
        ),
        (
            "ID token (OpenID Connect Core §2)",
            json!({"typ": "JWT"}),
            time(json!({"aud": "web-app", "sub": "alice", "nonce": "n-0S6_WzA2Mj"})),
            "Audience",
        ),
        (
            "ID token without typ, for a client with the URL of the API",
            json!({}),
            time(json!({"aud": orders, "azp": "web-app", "sub": "alice", "nonce": "n"})),
            "Claims(`client_id` is missing)",
        ),
        (
            "logout token (OpenID Connect Back-Channel Logout §2.4)",
            json!({"typ": "logout+jwt"}),
            time(json!({"aud": orders, "sub": "alice",
                "events": {"http://schemas.openid.net/event/backchannel-logout": {}}})),
            "Claims(`client_id` is missing)",
        ),
        (
            "security event token (RFC 8417 §2.3)",
            json!({"typ": "secevent+jwt"}),
            time(json!({"aud": orders, "events": {}, "client_id": "web-app"})),
            "Claims(`sub` is missing)",
        ),
        (
            "client assertion (RFC 7523 §3)",
            json!({"typ": "client-authentication+jwt"}),
            json!({"iss": "web-app", "sub": "web-app", "aud": ISSUER, "jti": "1", "exp": NOW + 60}),
            "Issuer",
        ),
        (
            "request object (RFC 9101 §4)",
            json!({"typ": "oauth-authz-req+jwt"}),
            json!({"iss": "web-app", "aud": ISSUER, "client_id": "web-app", "exp": NOW + 60}),
            "Issuer",
        ),
        (
            "token of another issuer with the same keys",
            json!({"typ": "at+jwt"}),
            {
                let mut claims = claims();
                claims["iss"] = json!("https://as.example/tenant");
                claims
            },
            "Issuer",
        ),
    ]
}

#[test]
fn other_kinds_of_jwt_by_the_same_key() {
    let bench = Bench::new();
    for (what, header, claims, expected) in kinds() {
        let mut all = crate::support::header(&bench.key);
        all.as_object_mut().unwrap().remove("typ");
        let own = {
            let mut all = all.clone();
            all.as_object_mut().unwrap().extend(header.as_object().unwrap().clone());
            all
        };
        let jwt = signed(&bench.key, &own.to_string(), &claims.to_string());
        let access = header["typ"] == "at+jwt";
        refuses(&bench.keys, what, &jwt, if access { expected } else { WRONG_TYP });
        // Not even if `typ` did not tell.
        all["typ"] = json!("at+jwt");
        let jwt = signed(&bench.key, &all.to_string(), &claims.to_string());
        refuses(&bench.keys, what, &jwt, expected);
    }
    // RFC 9449 §4.2: a proof carries its key.
    let mut header = crate::support::header(&bench.key);
    header["typ"] = json!("dpop+jwt");
    header["jwk"] = serde_json::to_value(bench.key.public_jwk()).unwrap();
    let proof = json!({"htm": "GET", "htu": "https://orders.example/", "iat": NOW, "jti": "1"});
    let jwt = signed(&bench.key, &header.to_string(), &proof.to_string());
    refuses(&bench.keys, "DPoP proof", &jwt, OWN_KEY);
}

#[test]
fn a_jwt_within_a_jwt() {
    let bench = Bench::new();
    let inner = bench.good();
    let json = "Json(Error(expected value";
    for typ in ["at+jwt", "JWT"] {
        // RFC 7519 §5.2: `cty` is `JWT` where the payload is one.
        let header =
            format!(r#"{{"alg":"ES256","kid":"{}","typ":"{typ}","cty":"JWT"}}"#, bench.key.kid());
        let expected = if typ == "at+jwt" { json } else { WRONG_TYP };
        refuses(&bench.keys, typ, &signed(&bench.key, &header, &inner), expected);
    }
    let usual = crate::support::header(&bench.key).to_string();
    let quoted = format!("\"{inner}\"");
    let text = "Json(Error(invalid type: string";
    refuses(&bench.keys, "as a JSON string", &signed(&bench.key, &usual, &quoted), text);
    let unencoded = signed_segments(&bench.key, &b64(&usual), &inner);
    refuses(&bench.keys, "unencoded", &unencoded, super::SEGMENTS);
    let claim = json!({"jwt": inner}).to_string();
    refuses(&bench.keys, "as a claim", &signed(&bench.key, &usual, &claim), "Issuer");
}
