//! Every token here is refused, and for the right reason: form, header, key, signature.

use cloakroom_jwt::{Algorithm, KeySet, Signer, SigningKey, VerifyError};
use serde_json::{Value, json};

use crate::support::{NOW, b64, claims, header, key_set, signed, signed_segments, token, verifier};

/// An issuer and a verifier that know each other.
pub(crate) struct Bench {
    pub(crate) key: SigningKey,
    pub(crate) keys: KeySet,
}

impl Bench {
    pub(crate) fn new() -> Self {
        let key = SigningKey::generate(Algorithm::Es256).unwrap();
        let keys = key_set(&[&key]);
        Self { key, keys }
    }

    pub(crate) fn good(&self) -> String {
        token(&self.key, &claims())
    }

    pub(crate) fn verify(&self, jwt: &str) -> Result<(), VerifyError> {
        verifier().verify(&self.keys, jwt).map(|_| ())
    }

    #[track_caller]
    pub(crate) fn refused(&self, what: &str, jwt: &str, reason: fn(&VerifyError) -> bool) {
        let error = self.verify(jwt).expect_err(what);
        assert!(reason(&error), "{what}: {error:?}");
    }

    /// A header of the usual members with these over them; null takes one away.
    pub(crate) fn with_header(&self, members: Value) -> String {
        let mut all = header(&self.key);
        overlay(&mut all, members);
        signed(&self.key, &all.to_string(), &claims().to_string())
    }

    pub(crate) fn with_claims(&self, members: Value) -> String {
        let mut all = claims();
        overlay(&mut all, members);
        token(&self.key, &all)
    }
}

fn overlay(all: &mut Value, members: Value) {
    let (Value::Object(all), Value::Object(members)) = (all, members) else {
        panic!("objects");
    };
    for (name, value) in members {
        match value {
            Value::Null => drop(all.remove(&name)),
            value => drop(all.insert(name, value)),
        }
    }
}

#[test]
fn the_tools_of_these_tests_make_good_tokens() {
    let bench = Bench::new();
    for good in [
        bench.good(),
        bench.with_header(json!({})),
        bench.with_header(json!({"cty": "whatever", "x5t": "is ignored"})),
        bench.with_header(json!({"typ": "application/at+jwt"})),
        bench.with_header(json!({"typ": "Application/AT+JWT"})),
        bench.with_header(json!({"typ": "at+JWT"})),
        bench.with_claims(json!({})),
    ] {
        bench.verify(&good).unwrap();
    }
}

#[test]
fn algorithms_that_are_not_the_keys() {
    let bench = Bench::new();
    for alg in [
        "none", "None", "NONE", "nOnE", "", " none", "ES384", "EdDSA", "RS256", "PS256", "HS256",
        "HS384", "es256", "ES256K", "ES512", "ES256\0",
    ] {
        let jwt = bench.with_header(json!({"alg": alg}));
        bench.refused(alg, &jwt, |e| matches!(e, VerifyError::Algorithm));
    }
    for alg in [json!(null), json!(["ES256"]), json!(0), json!({"alg": "ES256"})] {
        let mut header = header(&bench.key);
        header["alg"] = alg;
        let jwt = signed(&bench.key, &header.to_string(), &claims().to_string());
        bench.refused("alg", &jwt, |e| matches!(e, VerifyError::Malformed(_)));
    }
    let jwt = bench.with_header(json!({"alg": null}));
    bench.refused("no alg", &jwt, |e| matches!(e, VerifyError::Malformed(_)));
}

#[test]
fn unsigned_tokens() {
    let bench = Bench::new();
    let unsigned = b64(json!({"alg": "none", "kid": bench.key.kid(), "typ": "at+jwt"}).to_string());
    let body = b64(claims().to_string());
    bench
        .refused("none", &format!("{unsigned}.{body}.AA"), |e| matches!(e, VerifyError::Algorithm));
    bench.refused("no signature", &format!("{unsigned}.{body}."), |e| {
        matches!(e, VerifyError::Malformed(_))
    });
}

#[test]
fn unknown_keys_are_named_only_if_the_rest_of_the_header_is_good() {
    let bench = Bench::new();
    let jwt = bench.with_header(json!({"kid": "who"}));
    let error = bench.verify(&jwt).unwrap_err();
    assert_eq!(error.unknown_key().unwrap().as_str(), "who");
    let stranger = SigningKey::generate(Algorithm::Es256).unwrap();
    let error = bench.verify(&token(&stranger, &claims())).unwrap_err();
    assert_eq!(error.unknown_key(), Some(stranger.public_jwk().kid().unwrap()));

    // Neither of these may send anyone off to fetch keys.
    for members in [
        json!({"kid": "who", "alg": "none"}),
        json!({"kid": "who", "alg": "HS256"}),
        json!({"kid": "who", "typ": "JWT"}),
        json!({"kid": "who", "crit": ["exp"]}),
        json!({"kid": "who", "jwk": {}}),
        json!({"kid": ""}),
        json!({"kid": 1}),
        json!({"kid": "k".repeat(256)}),
        json!({"kid": ["who"]}),
    ] {
        let error = bench.verify(&bench.with_header(members.clone())).unwrap_err();
        assert!(error.unknown_key().is_none(), "{members}");
    }
}

#[test]
fn headers_that_an_access_token_must_not_have() {
    let bench = Bench::new();
    let public = serde_json::to_value(bench.key.public_jwk()).unwrap();
    for members in [
        json!({"typ": "JWT"}),
        json!({"typ": "jwt"}),
        json!({"typ": null}),
        json!({"typ": ""}),
        json!({"typ": "at+jwt "}),
        json!({"typ": "application/jwt"}),
        json!({"typ": "application/application/at+jwt"}),
        json!({"typ": "text/at+jwt"}),
        // As long as `application/`.
        json!({"typ": "application-at+jwt"}),
        json!({"typ": "token-type.4at+jwt"}),
        json!({"typ": "token-introspection+jwt"}),
        json!({"typ": "dpop+jwt"}),
        json!({"crit": ["exp"], "exp": NOW + 600}),
        json!({"crit": ["b64"], "b64": false}),
        json!({"crit": []}),
        json!({"b64": false}),
        json!({"b64": true}),
        json!({"jwk": public}),
        json!({"jwk": public, "kid": null}),
        json!({"jku": "https://evil.example/jwks.json"}),
        json!({"x5u": "https://evil.example/cert.pem"}),
        json!({"x5c": []}),
    ] {
        let jwt = bench.with_header(members.clone());
        bench.refused(&members.to_string(), &jwt, |e| matches!(e, VerifyError::Header(_)));
    }
    // The presence of a null counts, too.
    for member in ["crit", "b64", "jwk", "jku", "x5u", "x5c"] {
        let mut header = header(&bench.key);
        header[member] = Value::Null;
        let jwt = signed(&bench.key, &header.to_string(), &claims().to_string());
        bench.refused(member, &jwt, |e| matches!(e, VerifyError::Header(_)));
    }
    // A foreign key that the token itself brings.
    let foreign = SigningKey::generate(Algorithm::Es256).unwrap();
    let mut header = header(&bench.key);
    header["jwk"] = serde_json::to_value(foreign.public_jwk()).unwrap();
    let jwt = signed(&foreign, &header.to_string(), &claims().to_string());
    bench.refused("foreign jwk", &jwt, |e| matches!(e, VerifyError::Header(_)));
}

#[test]
fn ambiguous_headers() {
    let bench = Bench::new();
    let kid = bench.key.kid();
    for header in [
        format!(r#"{{"alg":"none","alg":"ES256","kid":"{kid}","typ":"at+jwt"}}"#),
        format!(r#"{{"alg":"ES256","kid":"{kid}","kid":"{kid}","typ":"at+jwt"}}"#),
        format!(r#"{{"alg":"ES256","kid":"{kid}","typ":"at+jwt","x":1,"x":1}}"#),
        format!(r#"{{"alg":"ES256","kid":"{kid}","typ":"at+jwt","\u0074yp":"at+jwt"}}"#),
        format!(r#"{{"alg":"ES256","kid":"{kid}","typ":"at+jwt","a":{{"b":1,"b":1}}}}"#),
        format!(r#"{{"alg":"ES256","kid":"{kid}","typ":"at+jwt"}}{{}}"#),
        format!(r#"["ES256","at+jwt","{kid}"]"#),
        "\"header\"".to_owned(),
        "null".to_owned(),
        "{".to_owned(),
        format!(
            r#"{{"alg":"ES256","kid":"{kid}","typ":"at+jwt","a":{}{}}}"#,
            "[".repeat(300),
            "]".repeat(300)
        ),
    ] {
        let jwt = signed(&bench.key, &header, &claims().to_string());
        bench.refused(&header, &jwt, |e| matches!(e, VerifyError::Malformed(_)));
    }
    let jwt = bench.with_header(json!({"pad": "x".repeat(2048)}));
    bench.refused("large header", &jwt, |e| matches!(e, VerifyError::Header(_)));
    // 1536 bytes are 2048 characters, the most; one byte more are two characters more.
    let padded = |bytes: usize| {
        let mut all = header(&bench.key);
        all["pad"] = json!("");
        all["pad"] = json!("x".repeat(bytes - all.to_string().len()));
        signed(&bench.key, &all.to_string(), &claims().to_string())
    };
    bench.verify(&padded(1536)).unwrap();
    bench.refused("a larger header", &padded(1537), |e| matches!(e, VerifyError::Header(_)));
}

#[test]
fn segments_that_are_none() {
    let bench = Bench::new();
    let good = bench.good();
    let parts: Vec<&str> = good.split('.').collect();
    let [header, body, signature] = parts[..] else { panic!("three segments") };
    for bad in [
        String::new(),
        ".".to_owned(),
        "..".to_owned(),
        "...".to_owned(),
        "....".to_owned(),
        header.to_owned(),
        format!("{header}.{body}"),
        format!("{header}.{body}."),
        format!(".{body}.{signature}"),
        format!("{header}..{signature}"),
        format!("{good}."),
        format!(".{good}"),
        format!("{good}.{signature}"),
        format!("{header}.{body}.{body}.{body}.{signature}"),
        format!("{header}=.{body}.{signature}"),
        format!("{good}="),
        format!("{good}=="),
        format!("{good} "),
        format!("{good}\n"),
        format!(" {good}"),
        format!("{header}.{body}.{}", signature.replace(['-', '_'], "+") + "/"),
        format!("{header}.{body}.é"),
        "\u{0}.\u{0}.\u{0}".to_owned(),
        "a.b.c".to_owned(),
    ] {
        bench.refused(&bad, &bad, |e| matches!(e, VerifyError::Malformed(_)));
    }
}

#[test]
fn base64_that_is_not_canonical() {
    let bench = Bench::new();
    // 64 bytes leave four bits over in the last character: 16 spellings for one signature.
    let good = bench.good();
    let spelled = |last: char| format!("{}{last}", &good[..good.len() - 1]);
    let accepted = ('A'..='Z').filter(|&last| bench.verify(&spelled(last)).is_ok()).count();
    assert!(accepted <= 1);
    let (head, last) = good.split_at(good.len() - 1);
    let next = char::from(last.as_bytes()[0] + 1);
    bench.refused("trailing bits", &format!("{head}{next}"), |e| {
        matches!(e, VerifyError::Malformed(_))
    });

    // Signed over the wrong spelling, so that the signature itself is good.
    let header = header(&bench.key).to_string();
    let claims = claims().to_string();
    for padding in 1..=2 {
        // White space until the text leaves so many characters of padding.
        let pad = |text: &str| {
            let want = 3 - padding;
            text.to_owned() + &" ".repeat((3 + want - text.len() % 3) % 3)
        };
        let (header, claims) = (pad(&header), pad(&claims));
        let padded = |text: &str| b64(text) + &"=".repeat(padding);
        bench.verify(&signed(&bench.key, &header, &claims)).unwrap();
        for jwt in [
            signed_segments(&bench.key, &padded(&header), &b64(&claims)),
            signed_segments(&bench.key, &b64(&header), &padded(&claims)),
            signed(&bench.key, &header, &claims) + "==",
        ] {
            bench.refused("padding", &jwt, |e| matches!(e, VerifyError::Malformed(_)));
        }
    }
}

#[test]
fn signatures_that_are_not_right() {
    let bench = Bench::new();
    let good = bench.good();
    let (input, signature) = good.rsplit_once('.').unwrap();
    let raw = {
        use base64::Engine as _;
        base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(signature).unwrap()
    };
    let other = SigningKey::generate(Algorithm::Es256).unwrap();
    let p384 = SigningKey::generate(Algorithm::Es384).unwrap();
    let rt = crate::support::runtime();
    let by = |key: &SigningKey| rt.block_on(Signer::sign(key, input.as_bytes())).unwrap();
    let (r, s) = raw.split_at(32);
    for (what, bad) in [
        ("zero", vec![0; 64]),
        ("zero r", [&[0; 32], s].concat()),
        ("zero s", [r, &[0; 32]].concat()),
        ("all ones", vec![0xff; 64]),
        ("one byte", vec![0]),
        ("truncated", raw[..63].to_vec()),
        ("extended", [&raw[..], &[0]].concat()),
        ("swapped", [s, r].concat()),
        ("DER", der(r, s)),
        ("another key", by(&other)),
        ("another curve", by(&p384)),
        ("megabytes", vec![1; 4096]),
    ] {
        let jwt = format!("{input}.{}", b64(bad));
        bench.refused(what, &jwt, |e| matches!(e, VerifyError::Signature));
    }
    // Good signature, other words.
    let body = b64(claims().to_string().replace("alice", "admin"));
    let header = good.split('.').next().unwrap();
    bench.refused("other claims", &format!("{header}.{body}.{signature}"), |e| {
        matches!(e, VerifyError::Signature)
    });
}

/// `ECDSA-Sig-Value` (RFC 3279 §2.2.3).
pub(crate) fn der(r: &[u8], s: &[u8]) -> Vec<u8> {
    let integer = |bytes: &[u8]| {
        let sign: &[u8] = if bytes[0] & 0x80 == 0 { &[] } else { &[0] };
        [&[2, u8::try_from(bytes.len() + sign.len()).unwrap()], sign, bytes].concat()
    };
    let body = [integer(r), integer(s)].concat();
    [&[0x30, u8::try_from(body.len()).unwrap()], &body[..]].concat()
}

#[test]
fn an_unknown_key_writes_no_lines_of_its_own_into_a_log() {
    let bench = Bench::new();
    let error =
        bench.verify(&bench.with_header(json!({"kid": "a\nERROR forged\u{1b}[2J"}))).unwrap_err();
    assert!(matches!(error, VerifyError::Malformed(_)), "no such kid exists: {error:?}");
    let line = error.to_string();
    assert!(!line.contains(['\n', '\u{1b}']), "{line:?}");
}
