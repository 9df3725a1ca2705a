//! `none`, keys that come with the token, and `kid` as a way in (RFC 8725 §2.1, §3.10).

use cloakroom_jwt::{Algorithm, JwkSet, KeySet, SigningKey, VerifyError};
use serde_json::{Value, json};

use super::{NO_HEADER, OWN_KEY, SEGMENTS, WRONG_TYP};
use crate::bad_input::Bench;
use crate::support::{NOW, accepts, b64, claims, header, key_set, refuses, signed, verifier};

/// Signed by the issuer's key, under a header of any text.
fn under(bench: &Bench, header: &str) -> String {
    signed(&bench.key, header, &claims().to_string())
}

#[test]
fn none_in_every_spelling() {
    let bench = Bench::new();
    let kid = bench.key.kid();
    for alg in [
        "none",
        "None",
        "NONE",
        "nOnE",
        "NoNe",
        "nonE",
        "none ",
        " none",
        "nonE\\u0000",
        "none\\u0000",
        "\\u006eone",
        "\\u006e\\u006f\\u006e\\u0065",
        "\\u004e\\u004f\\u004e\\u0045",
        "n\u{43e}ne",
        "\u{ff4e}\u{ff4f}\u{ff4e}\u{ff45}",
        "none,ES256",
        "ES256,none",
        "null",
        "",
    ] {
        let header = |kid: &str| format!(r#"{{"alg":"{alg}","kid":"{kid}","typ":"at+jwt"}}"#);
        let unsigned = format!("{}.{}", b64(header(kid.as_str())), b64(claims().to_string()));
        let bare = format!("{}.{}.AA", b64(format!(r#"{{"alg":"{alg}"}}"#)), b64("{}"));
        for (what, jwt, expected) in [
            ("a good signature", under(&bench, &header(kid.as_str())), "Algorithm"),
            ("a signature of one byte", format!("{unsigned}.AA"), "Algorithm"),
            ("a signature of zeros", format!("{unsigned}.{}", b64([0; 64])), "Algorithm"),
            ("no signature", format!("{unsigned}."), SEGMENTS),
            ("no third segment", unsigned.clone(), SEGMENTS),
            ("padding for a signature", format!("{unsigned}.="), "Algorithm"),
            ("an unknown kid", under(&bench, &header("who")), "Algorithm"),
            ("nothing else", bare, WRONG_TYP),
        ] {
            refuses(&bench.keys, &format!("{alg:?} with {what}"), &jwt, expected);
        }
    }
    // An escape is no other name: what is signed by the key's own algorithm is good.
    let escaped = format!(r#"{{"alg":"\u0045S256","kid":"{kid}","typ":"\u0061t+jwt"}}"#);
    accepts(&bench.keys, "escapes", &under(&bench, &escaped));
}

#[test]
fn keys_that_come_with_the_token() {
    let bench = Bench::new();
    let thief = SigningKey::generate(Algorithm::Es256).unwrap();
    let own = serde_json::to_value(thief.public_jwk()).unwrap();
    let known = bench.key.kid().as_str();
    let url = "https://thief.example/keys";
    let rows = [
        ("jwk", own.clone()),
        ("jwk", json!(own.to_string())),
        ("jwk", json!({"kty": "oct", "k": "AAAA"})),
        ("jku", json!(url)),
        ("jku", json!("file:///dev/null")),
        ("jku", json!("http://169.254.169.254/latest/meta-data/")),
        ("jku", json!("https://as.example@thief.example/")),
        ("x5u", json!(url)),
        ("x5c", json!(["MIIB"])),
        ("x5c", json!([])),
        ("\\u006awk", own.clone()),
        ("j\\u006Bu", json!(url)),
        ("x\\u0035u", json!(url)),
        ("x5\\u0063", json!(["MIIB"])),
    ];
    for (member, value) in rows {
        for kid in [json!(known), json!(thief.kid()), json!(""), Value::Null] {
            let header =
                format!(r#"{{"alg":"ES256","kid":{kid},"typ":"at+jwt","{member}":{value}}}"#);
            let jwt = signed(&thief, &header, &claims().to_string());
            let expected = if kid == "" { NO_HEADER } else { OWN_KEY };
            refuses(&bench.keys, &header, &jwt, expected);
        }
    }
    // What only points at a certificate brings no key; the key is still the one that `kid` names.
    for (member, value) in [
        ("x5t", json!("dGhpZWY")),
        ("x5t#S256", json!("dGhpZWY")),
        ("x5t", json!({"jwk": own})),
        ("JWK", own.clone()),
        ("Jku", json!(url)),
        ("jwk ", own.clone()),
        ("jwk\\u0000", own.clone()),
        ("epk", own.clone()),
        ("jwks", json!({"keys": [own]})),
        ("header", json!({"jwk": own, "jku": url})),
    ] {
        let header = |kid: &str| {
            format!(r#"{{"alg":"ES256","kid":"{kid}","typ":"at+jwt","{member}":{value}}}"#)
        };
        let forged = signed(&thief, &header(known), &claims().to_string());
        refuses(&bench.keys, member, &forged, "Signature");
        let own = signed(&thief, &header(thief.kid().as_str()), &claims().to_string());
        refuses(&bench.keys, member, &own, "UnknownKey(");
        accepts(&bench.keys, member, &under(&bench, &header(known)));
    }
}

#[test]
fn kid_as_a_way_in() {
    let bench = Bench::new();
    let kid = bench.key.kid().as_str();
    let look_alike = {
        let at = kid.find(|c: char| c.is_ascii_alphabetic()).unwrap();
        // The same letter, full width.
        let wide = char::from_u32(u32::from(kid[at..].chars().next().unwrap()) + 0xfee0).unwrap();
        format!("{}{wide}{}", &kid[..at], &kid[at + 1..])
    };
    let unknown = "UnknownKey(";
    let rows: Vec<(String, &str)> = vec![
        ("\"../../../../../../dev/null\"".into(), unknown),
        (r#""..\\..\\windows\\win.ini""#.into(), unknown),
        ("\"/proc/self/environ\"".into(), unknown),
        ("\"file:///dev/null\"".into(), unknown),
        ("\"https://thief.example/key.pem\"".into(), unknown),
        ("\"' OR '1'='1\"".into(), unknown),
        ("\"x' UNION SELECT 'AA'; --\"".into(), unknown),
        ("\"| /usr/bin/id\"".into(), unknown),
        ("\"$(id)\"".into(), unknown),
        ("\"${jndi:ldap://thief.example/a}\"".into(), unknown),
        ("\"{{7*7}}\"".into(), unknown),
        ("\"%s%n%x\"".into(), unknown),
        ("\"<script>alert(1)</script>\"".into(), unknown),
        ("\"*\"".into(), unknown),
        ("\"\u{43a}id\"".into(), unknown),
        ("\"\\u202ekid\"".into(), unknown),
        ("\"\\u2028kid\"".into(), unknown),
        (format!("\"{look_alike}\""), unknown),
        (format!("\"{kid} \""), unknown),
        (format!("\" {kid}\""), unknown),
        (format!("\"{kid}=\""), unknown),
        (format!("\"{kid}\\u200b\""), unknown),
        (format!("\"\\ufeff{kid}\""), unknown),
        (format!("\"{}\"", kid.to_lowercase()), unknown),
        (format!("\"{}\"", kid.to_uppercase()), unknown),
        (format!("\"{}\"", &kid[..kid.len() - 1]), unknown),
        (format!("\"{kid},{kid}\""), unknown),
        (format!("\"{}\"", "k".repeat(255)), unknown),
        (format!("\"{}\"", "\u{1f511}".repeat(63)), unknown),
        (format!("\"{}\"", "k".repeat(256)), NO_HEADER),
        (format!("\"{}\"", "\u{1f511}".repeat(64)), NO_HEADER),
        (format!("\"{}\"", "k".repeat(1400)), NO_HEADER),
        (format!("\"{}\"", "k".repeat(2000)), "Header(it is too large)"),
        (format!("\"{}\"", "k".repeat(60_000)), "Header(it is too large)"),
        (format!("\"{kid}\\u0000\""), NO_HEADER),
        (format!("\"\\u0000{kid}\""), NO_HEADER),
        (format!("\"{kid}\\n\""), NO_HEADER),
        (format!("\"{kid}\\r\\nSet-Cookie: a=b\""), NO_HEADER),
        (format!("\"{kid}\\u007f\""), NO_HEADER),
        (format!("\"{kid}\\u0085\""), NO_HEADER),
        (format!("\"{kid}\\u001b[2J\""), NO_HEADER),
        (format!("\"{kid}\n\""), NO_HEADER),
        (format!("\"{kid}\\ud800\""), NO_HEADER),
        (format!("\"{kid}\\x41\""), NO_HEADER),
        ("\"\"".into(), NO_HEADER),
        ("0".into(), NO_HEADER),
        ("-1".into(), NO_HEADER),
        ("1e400".into(), NO_HEADER),
        ("true".into(), NO_HEADER),
        ("[]".into(), NO_HEADER),
        (format!("[\"{kid}\"]"), NO_HEADER),
        (format!("{{\"kid\":\"{kid}\"}}"), NO_HEADER),
        (kid.into(), NO_HEADER),
    ];
    for (text, expected) in rows {
        let header = format!(r#"{{"alg":"ES256","kid":{text},"typ":"at+jwt"}}"#);
        refuses(&bench.keys, &text, &under(&bench, &header), expected);
        if let Err(error) = verifier().verify(&bench.keys, &under(&bench, &header)) {
            let line = error.to_string();
            assert!(!line.contains(['\u{202e}', '\u{2028}', '\n', '\0']), "{line:?}");
        }
    }
    refuses(&KeySet::default(), "no keys at all", &bench.good(), unknown);

    // Escapes are a spelling of JSON, not of the name.
    let escaped: String = kid.bytes().map(|byte| format!("\\u{byte:04x}")).collect();
    let header = format!(r#"{{"alg":"ES256","kid":"{escaped}","typ":"at+jwt"}}"#);
    accepts(&bench.keys, "an escaped kid", &under(&bench, &header));
}

#[test]
fn extensions_that_nobody_understands() {
    let bench = Bench::new();
    let kid = bench.key.kid();
    let expected = "Header(it asks for an extension)";
    for more in [
        r#""crit":["b64"],"b64":false"#,
        r#""crit":["b64"],"b64":true"#,
        r#""b64":false"#,
        r#""crit":["http://openbanking.org.uk/iat"],"http://openbanking.org.uk/iat":1"#,
        r#""crit":["alg"]"#,
        r#""crit":["exp","exp"]"#,
        r#""crit":[""]"#,
        r#""crit":[]"#,
        r#""crit":"b64""#,
        r#""crit":{}"#,
        r#""crit":0"#,
        r#""crit":null"#,
        r#""\u0063rit":["b64"]"#,
        r#""b\u00364":false"#,
    ] {
        let header = format!(r#"{{"alg":"ES256","kid":"{kid}","typ":"at+jwt",{more}}}"#);
        refuses(&bench.keys, more, &under(&bench, &header), expected);
    }
    // A claim in the header (RFC 7519 §5.3) is a copy, and not the claim.
    let mut all = header(&bench.key);
    all["nonce"] = json!("ignored");
    all["exp"] = json!(NOW - 600);
    accepts(&bench.keys, "members that nothing is asked about", &under(&bench, &all.to_string()));
}

#[test]
fn a_token_without_kid_uses_the_only_key_that_fits() {
    let bench = Bench::new();
    let edwards = SigningKey::generate(Algorithm::EdDsa).unwrap();
    let second = SigningKey::generate(Algorithm::Es256).unwrap();
    for absent in
        [r#"{"alg":"ES256","typ":"at+jwt"}"#, r#"{"alg":"ES256","kid":null,"typ":"at+jwt"}"#]
    {
        let jwt = under(&bench, absent);
        accepts(&bench.keys, absent, &jwt);
        accepts(&key_set(&[&edwards, &bench.key]), "beside a key for something else", &jwt);
        refuses(&key_set(&[&second]), "a key of somebody else", &jwt, "Unnamed");
        // Nothing is tried one after the other.
        refuses(&key_set(&[&bench.key, &second]), "two that fit", &jwt, "Unnamed");
        refuses(&key_set(&[&edwards]), "none that fits", &jwt, "Unnamed");
        refuses(&KeySet::default(), "no key", &jwt, "Unnamed");
        let error = verifier().verify(&KeySet::default(), &jwt).unwrap_err();
        assert!(error.may_be_mended_by_new_keys() && error.unknown_key().is_none());
    }
    for alg in ["none", "HS256", "RS1"] {
        let jwt = under(&bench, &format!(r#"{{"alg":"{alg}","typ":"at+jwt"}}"#));
        refuses(&bench.keys, alg, &jwt, "Algorithm");
    }
    // A key without a name is the same key.
    let mut jwk = serde_json::to_value(bench.key.public_jwk()).unwrap();
    jwk["kid"] = json!(null);
    let set = JwkSet::from_json(json!({"keys": [jwk]}).to_string().as_bytes()).unwrap();
    accepts(
        &KeySet::prepare(&set),
        "nobody has a kid",
        &under(&bench, r#"{"alg":"ES256","typ":"at+jwt"}"#),
    );
    accepts(&KeySet::prepare(&set), "its thumbprint", &bench.good());
    let other = under(&bench, r#"{"alg":"ES256","kid":"1","typ":"at+jwt"}"#);
    refuses(&KeySet::prepare(&set), "another name", &other, "UnknownKey(");
}

#[test]
fn no_refusal_before_the_signature_is_an_invitation_to_fetch_keys() {
    let bench = Bench::new();
    let thief = SigningKey::generate(Algorithm::Es256).unwrap();
    let fetches = |jwt: &str| {
        let error = verifier().verify(&bench.keys, jwt).unwrap_err();
        let is_unknown = matches!(error, VerifyError::UnknownKey(_));
        assert_eq!(error.unknown_key().is_some(), is_unknown);
        assert_eq!(error.may_be_mended_by_new_keys(), is_unknown);
        is_unknown
    };
    for alg in [
        "ES256", "ES384", "ES512", "EdDSA", "Ed25519", "RS256", "RS384", "RS512", "PS256", "PS384",
        "PS512",
    ] {
        let header = format!(r#"{{"alg":"{alg}","kid":"new","typ":"at+jwt"}}"#);
        assert!(fetches(&signed(&thief, &header, "{}")), "{alg} may be a key that is new");
    }
    for alg in ["none", "HS256", "HS384", "HS512", "ES256K", "RS1", "dir", "Ed448", "ed25519"] {
        let header = format!(r#"{{"alg":"{alg}","kid":"new","typ":"at+jwt"}}"#);
        assert!(!fetches(&signed(&thief, &header, "{}")), "{alg} is no algorithm of any key");
    }
}
