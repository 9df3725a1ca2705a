//! JWK Sets of whoever gets between an API and its issuer (RFC 7517 §5).

use cloakroom_jwt::{Algorithm, JwkError, JwkSet, KeySet, SigningKey};
use serde_json::{Value, json};

use crate::support::{accepts, claims, header, published_as, refuses, signed, token};

fn generate() -> SigningKey {
    SigningKey::generate(Algorithm::Es256).unwrap()
}

fn jwk(key: &SigningKey) -> Value {
    serde_json::to_value(key.public_jwk()).unwrap()
}

fn read(set: &Value) -> KeySet {
    KeySet::prepare(&JwkSet::from_json(set.to_string().as_bytes()).unwrap())
}

#[test]
fn two_keys_of_one_name() {
    let (first, second) = (generate(), generate());
    let mut impostor = jwk(&second);
    impostor["kid"] = json!(first.kid());
    let under = |key: &SigningKey| signed(key, &header(&first).to_string(), &claims().to_string());
    for set in [
        json!({"keys": [jwk(&first), impostor]}),
        json!({"keys": [jwk(&first), impostor, jwk(&first)]}),
    ] {
        let keys = read(&set);
        assert_eq!(keys.kids().count(), 1);
        accepts(&keys, "the first", &under(&first));
        refuses(&keys, "the second", &under(&second), "Signature");
    }
    // Of another kind: the issuer's own set says that both are its keys, each for one algorithm.
    let edwards = SigningKey::generate(Algorithm::EdDsa).unwrap();
    let mut impostor = jwk(&edwards);
    impostor["kid"] = json!(first.kid());
    let keys = read(&json!({"keys": [jwk(&first), &impostor]}));
    let mut head = header(&edwards);
    head["kid"] = json!(first.kid());
    let forged = signed(&edwards, &head.to_string(), &claims().to_string());
    accepts(&keys, "another kind", &forged);
    accepts(&keys, "the first", &under(&first));
    let crossed = signed(&edwards, &header(&first).to_string(), &claims().to_string());
    refuses(&keys, "the algorithm of one and the key of the other", &crossed, "Signature");
    let keys = read(&json!({"keys": [impostor, jwk(&first)]}));
    accepts(&keys, "whichever stands first", &under(&first));
    // One that cannot be used takes no name away.
    let mut unusable = jwk(&second);
    (unusable["kid"], unusable["use"]) = (json!(first.kid()), json!("enc"));
    accepts(&read(&json!({"keys": [unusable, jwk(&first)]})), "enc first", &under(&first));
}

#[test]
fn keys_that_are_not_for_verifying() {
    let key = generate();
    let jwt = token(&key, &claims());
    let with = |members: Value| {
        let mut all = jwk(&key);
        for (name, value) in members.as_object().unwrap() {
            all[name] = value.clone();
        }
        read(&json!({"keys": [all]}))
    };
    for good in [
        json!({}),
        json!({"use": null, "key_ops": null, "alg": null}),
        json!({"use": "sig", "key_ops": ["verify"]}),
        json!({"use": null, "key_ops": ["sign", "verify"]}),
    ] {
        accepts(&with(good.clone()), &good.to_string(), &jwt);
    }
    for bad in [
        json!({"use": "enc"}),
        json!({"use": "SIG"}),
        json!({"use": "sig "}),
        json!({"use": ""}),
        json!({"use": "sig,enc"}),
        json!({"use": null, "key_ops": ["sign"]}),
        json!({"use": null, "key_ops": []}),
        json!({"use": null, "key_ops": ["Verify"]}),
        json!({"use": null, "key_ops": ["encrypt", "wrapKey", "deriveKey"]}),
        json!({"use": "enc", "key_ops": ["verify"]}),
        json!({"use": "sig", "key_ops": ["sign"]}),
    ] {
        let keys = with(bad.clone());
        assert!(keys.is_empty(), "{bad}");
        refuses(&keys, &bad.to_string(), &jwt, "UnknownKey(");
    }
    // Whoever leaves `alg` out of an RSA key means RS256. Nobody tries another.
    let rsa = SigningKey::generate(Algorithm::Rs256).unwrap();
    let mut bare = jwk(&rsa);
    bare["alg"] = json!(null);
    let keys = read(&json!({"keys": [bare]}));
    accepts(&keys, "RS256", &token(&rsa, &claims()));
    let der = rsa.to_pkcs8_der().unwrap();
    for algorithm in [Algorithm::Ps256, Algorithm::Rs384, Algorithm::Rs512, Algorithm::Ps512] {
        let other = SigningKey::from_pkcs8_der(algorithm, &der).unwrap();
        refuses(&keys, algorithm.as_str(), &token(&other, &claims()), "Algorithm");
    }
}

#[test]
fn too_much_of_it() {
    let key = jwk(&generate());
    let junk = |count: usize| vec![json!({"kty": "oct"}); count];
    let parse = |set: &Value| JwkSet::from_json(set.to_string().as_bytes());

    let mut hundred = junk(JwkSet::MAX_KEYS - 1);
    hundred.push(key.clone());
    let keys = KeySet::prepare(&parse(&json!({"keys": hundred})).unwrap());
    assert_eq!(keys.kids().count(), 1, "as many as are allowed");

    for count in [101, 10_000] {
        let error = parse(&json!({"keys": junk(count)})).unwrap_err();
        let expected = |e: &JwkError| matches!(e, JwkError::TooManyKeys { count: n, limit: 100 } if *n == count);
        assert!(expected(&error), "{count}: {error:?}");
        let error = serde_json::from_value::<JwkSet>(json!({"keys": junk(count)})).unwrap_err();
        assert!(error.to_string().contains("the JWK Set has"), "{error}");
    }
    for size in [JwkSet::MAX_BYTES + 1, 10 << 20] {
        let padded = format!("{{\"keys\":[{key}]}}{}", " ".repeat(size));
        let padded = &padded.as_bytes()[..size];
        let error = JwkSet::from_json(padded).unwrap_err();
        assert!(matches!(error, JwkError::TooLarge { size: s, .. } if s == size), "{error:?}");
        assert!(JwkSet::from_json(&padded[..JwkSet::MAX_BYTES]).is_ok(), "up to the limit");
    }
    // As large as allowed, and of whatever costs most.
    for dear in [
        format!("{{\"keys\":[{}]}}", "[".repeat(200_000)),
        format!("{{\"keys\":[{}{}]}}", "[".repeat(100_000), "]".repeat(100_000)),
        format!("{{\"keys\":[],\"a\":{}0{}}}", "{\"a\":".repeat(30_000), "}".repeat(30_000)),
        format!("{{\"keys\":[{}", "{\"keys\":[".repeat(20_000)),
    ] {
        let error = JwkSet::from_json(dear.as_bytes()).unwrap_err();
        assert!(matches!(error, JwkError::Json(_)), "{error:?}");
        assert!(error.to_string().len() < 200);
    }
}

#[test]
fn what_is_no_set() {
    let key = jwk(&generate());
    for (bad, expected) in [
        (String::new(), "Json(Error(EOF while parsing a value"),
        ("[]".into(), "Json(Error(invalid type: sequence"),
        (format!("[{key}]"), "Json(Error(invalid type: sequence"),
        (format!("[[{key}]]"), "Json(Error(invalid type: sequence"),
        (key.to_string(), "Json(Error(missing field `keys`"),
        ("{}".into(), "Json(Error(missing field `keys`"),
        (format!("{{\"Keys\":[{key}]}}"), "Json(Error(missing field `keys`"),
        (format!("{{\"jwks\":{{\"keys\":[{key}]}}}}"), "Json(Error(missing field `keys`"),
        ("{\"keys\":null}".into(), "Json(Error(invalid type: null"),
        (format!("{{\"keys\":{key}}}"), "Json(Error(invalid type: map"),
        ("{\"keys\":\"[]\"}".into(), "Json(Error(invalid type: string"),
        (format!("{{\"keys\":[],\"keys\":[{key}]}}"), "Json(Error(`keys` occurs twice"),
        (format!("{{\"keys\":[],\"\\u006beys\":[{key}]}}"), "Json(Error(`keys` occurs twice"),
        (format!("{{\"keys\":[{key}]}}x"), "Json(Error(trailing characters"),
        (format!("{{\"keys\":[{key}]}}{{}}"), "Json(Error(trailing characters"),
        (format!("\u{feff}{{\"keys\":[{key}]}}"), "Json(Error(expected value"),
        (format!("{{\"keys\":[{key},]}}"), "Json(Error("),
        (format!("{{'keys':[{key}]}}"), "Json(Error(key must be a string"),
        ("null".into(), "Json(Error(invalid type: null"),
        ("<html>".into(), "Json(Error(expected value"),
    ] {
        let error = JwkSet::from_json(bad.as_bytes()).expect_err(&bad);
        let reason = crate::support::reason(&error);
        assert!(reason.starts_with(expected), "{bad}: {reason}, where {expected} was expected");
    }
    let invalid = [b"{\"keys\":[],\"x\":\"", &[0xff][..], b"\"}"].concat();
    assert!(matches!(JwkSet::from_json(&invalid), Err(JwkError::Json(_))));
    // Whatever else is in a set, and whatever it is a set of, the good keys are there.
    let mixed = json!({"keys": [null, 1, "x", [], [[key]], {}, {"keys": [key]}, key], "more": {}});
    assert_eq!(read(&mixed).kids().count(), 1);
}

/// A member that occurs twice in a key decides what that key is: such a set has no one meaning.
#[test]
fn a_key_that_says_two_things() {
    let (key, thief) = (jwk(&generate()), jwk(&generate()));
    let text = key.to_string();
    for more in [
        format!("\"x\":{},\"y\":{}", thief["x"], thief["y"]),
        format!("\"kid\":{}", thief["kid"]),
        "\"use\":\"sig\"".to_owned(),
        "\"\\u006bty\":\"EC\"".to_owned(),
        "\"unknown\":1,\"unknown\":2".to_owned(),
        "\"x5c\":[{\"a\":1,\"a\":1}]".to_owned(),
    ] {
        let twice = format!("{},{more}}}", &text[..text.len() - 1]);
        let set = format!("{{\"keys\":[{},{twice}]}}", jwk(&generate()));
        let reason = crate::support::reason(&JwkSet::from_json(set.as_bytes()).expect_err(&set));
        assert!(
            reason.starts_with("Json(Error(`") && reason.contains("` occurs twice"),
            "{set}: {reason}"
        );
    }
}

#[test]
fn a_kid_is_a_name_and_nothing_else() {
    let key = generate();
    for kid in [
        "../../key",
        "' OR 1=1 --",
        "https://as.example/key",
        "\u{1f511}",
        " ",
        "a b",
        "\"",
        "\\",
        "{}",
        "none",
        "null",
        "0",
    ] {
        let keys = published_as(&key, kid);
        let mut head = header(&key);
        head["kid"] = json!(kid);
        accepts(&keys, kid, &signed(&key, &head.to_string(), &claims().to_string()));
        refuses(&keys, kid, &token(&key, &claims()), "UnknownKey(");
    }
}
