use serde_json::{Value, json};

use super::*;
use crate::test_records::{grant, token};

#[test]
fn inactive_is_nothing_but_inactive() {
    assert_eq!(serde_json::to_string(&Introspection::Inactive).unwrap(), r#"{"active":false}"#);
    let chatty = json!({"active": false, "sub": "alice", "exp": "junk-is-not-read", "aud": []});
    assert_eq!(serde_json::from_value::<Introspection>(chatty).unwrap(), Introspection::Inactive);
}

#[test]
fn an_active_answer_survives_the_wire() {
    let grant = grant(1);
    let token = token(grant.id, 1);
    let active = ActiveToken::from_records(&"https://as.example".into(), &grant, &token);
    let answer = Introspection::Active(Box::new(active));
    let json = serde_json::to_value(&answer).unwrap();
    assert_eq!(json["active"], json!(true));
    assert_eq!(json["sub"], json!("alice"));
    assert_eq!(json["exp"], json!(token.expires_at.as_secs()));
    assert_eq!(serde_json::from_value::<Introspection>(json).unwrap(), answer);
}

#[test]
fn a_client_is_not_a_user_of_the_same_name() {
    let grant = GrantRecord { subject: Subject::client("alice").unwrap(), ..grant(1) };
    let token = token(grant.id, 1);
    let active = ActiveToken::from_records(&"https://as.example".into(), &grant, &token);
    let json = serde_json::to_value(Introspection::Active(Box::new(active))).unwrap();
    assert_eq!(json["sub_kind"], json!("client"));
    let read: Introspection = serde_json::from_value(json).unwrap();
    assert_eq!(read.active().unwrap().subject, Some(grant.subject));

    // A user who is called like the client stays a user.
    let grant =
        GrantRecord { subject: Subject::user("web-app").unwrap(), ..crate::test_records::grant(1) };
    let active = ActiveToken::from_records(&"https://as.example".into(), &grant, &token);
    let json = serde_json::to_value(Introspection::Active(Box::new(active))).unwrap();
    let read: Introspection = serde_json::from_value(json).unwrap();
    assert_eq!(read.active().unwrap().subject, Some(grant.subject));

    // A foreign server has no mark.
    let foreign = json!({"active": true, "sub": "job", "client_id": "job"});
    let read: Introspection = serde_json::from_value(foreign).unwrap();
    assert_eq!(read.active().unwrap().subject, Some(Subject::client("job").unwrap()));
}

#[test]
fn only_a_subject_that_may_be_mistaken_is_marked_and_private_claims_stay() {
    for (subject, mark) in [
        (Subject::client("web-app"), Some("client")),
        (Subject::user("web-app"), Some("user")),
        (Subject::user("alice"), None),
    ] {
        let grant = GrantRecord { subject: subject.unwrap(), ..grant(1) };
        let token = token(grant.id, 1);
        let mut active = ActiveToken::from_records(&"https://as.example".into(), &grant, &token);
        active.extra.insert("sub_kind".to_owned(), json!("private"));
        let written = serde_json::to_string(&Introspection::Active(Box::new(active))).unwrap();
        assert_eq!(written.matches("\"sub_kind\"").count(), 1, "{written}");
        let json: serde_json::Value = serde_json::from_str(&written).unwrap();
        assert_eq!(json["sub_kind"], json!(mark.unwrap_or("private")), "{written}");
        assert_eq!(json["tenant"], json!("acme"), "{written}");
    }
}

#[test]
fn members_of_the_wrong_type_are_errors() {
    for bad in [
        json!({}),
        json!({"active": "true"}),
        json!({"active": true, "exp": "1700000000"}),
        json!({"active": null}),
        json!({"active": 1}),
        json!({"active": true, "exp": -1}),
        json!({"active": true, "iat": -0.5}),
        json!({"active": true, "exp": 1e300}),
        json!({"active": true, "exp": [1]}),
        json!({"active": true, "scope": 7}),
        json!({"active": true, "scope": ["a", 7]}),
        json!({"active": true, "scope": "a\"b"}),
        json!({"active": true, "aud": [7]}),
        json!({"active": true, "client_id": 7}),
        json!({"active": true, "cnf": {"kid": "unknown"}}),
        json!({"active": true, "sub": ["a"]}),
    ] {
        assert!(serde_json::from_value::<Introspection>(bad.clone()).is_err(), "{bad}");
    }
}

#[test]
fn what_other_servers_write_is_understood() {
    let read = |claims: Value| {
        serde_json::from_value::<ActiveToken>(claims.clone())
            .unwrap_or_else(|error| panic!("{claims}: {error}"))
    };
    // Rounded so that nothing lives longer.
    let token = read(json!({"exp": 1_700_000_000.75, "iat": 1_700_000_000.25, "nbf": 1.7e9}));
    assert_eq!(token.expires_at, Some(UnixTime::from_secs(1_700_000_000)));
    assert_eq!(token.issued_at, Some(UnixTime::from_secs(1_700_000_001)));
    assert_eq!(token.not_before, Some(UnixTime::from_secs(1_700_000_000)));

    let orders = Scope::parse("orders:read orders:write").unwrap();
    for scope in [
        json!("orders:read orders:write"),
        json!(" orders:read  orders:write "),
        json!(["orders:read", "orders:write"]),
        json!(["orders:read orders:write", ""]),
    ] {
        assert_eq!(read(json!({"scope": scope})).scope, orders, "{scope}");
    }
    for none in [json!(null), json!(""), json!("  "), json!([])] {
        assert!(read(json!({"scope": none})).scope.is_empty(), "{none}");
    }
    assert_eq!(read(json!({"aud": []})).audience, None);

    let names = [
        "scope",
        "client_id",
        "username",
        "token_type",
        "exp",
        "iat",
        "nbf",
        "sub",
        "sub_kind",
        "aud",
        "iss",
        "jti",
        "cnf",
        "auth_time",
        "act",
        "authorization_details",
        "sid",
    ];
    let nulls = names.map(|name| (name.to_owned(), Value::Null));
    let nulls = Value::Object(nulls.into_iter().collect());
    let token = ActiveToken { extra: Map::new(), ..read(nulls) };
    assert_eq!(token, ActiveToken::default(), "null is absent");
}

#[test]
fn a_private_claim_that_has_one_of_our_names_is_the_apps() {
    let foreign = json!({
        "sub": "job", "client_id": "job",
        "grant_id": "8a6f6e6e-2f1c-4c5e-9d2c-0c8f3f0d7f11", "grant_epoch": "spring",
        "sub_kind": "robot",
    });
    let token: ActiveToken = serde_json::from_value(foreign.clone()).unwrap();
    assert_eq!((token.grant, token.epoch), (None, None));
    for name in ["grant_id", "grant_epoch", "sub_kind"] {
        assert_eq!(token.extra[name], foreign[name]);
    }
    // It does not stand there twice when it is written.
    let text = serde_json::to_string(&token).unwrap();
    assert_eq!(text.matches("sub_kind").count(), 1, "{text}");
    let active = json!({"active": false, "sub": "alice"});
    let token: ActiveToken = serde_json::from_value(active).unwrap();
    assert!(token.extra.is_empty());
}

#[test]
fn every_member_is_read_and_refused_if_it_occurs_twice() {
    let members = [
        ("active", "true"),
        ("scope", r#""a b""#),
        ("client_id", r#""app""#),
        ("username", r#""Alice""#),
        ("token_type", r#""DPoP""#),
        ("exp", "1700000060"),
        ("iat", "1700000000"),
        ("nbf", "1700000001"),
        ("sub", r#""alice""#),
        ("aud", r#"["https://a.example","https://b.example"]"#),
        ("iss", r#""https://as.example""#),
        ("jti", r#""j-1""#),
        ("cnf", r#"{"jkt":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}"#),
        ("auth_time", "1699999999"),
        ("act", r#"{"sub":"support"}"#),
        ("authorization_details", r#"[{"type":"payment"}]"#),
        ("sid", r#""sid-1""#),
        ("tenant", r#""acme""#),
    ];
    let object = |members: &[(&str, &str)]| {
        let all: Vec<String> =
            members.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
        format!("{{{}}}", all.join(","))
    };
    let read: Introspection = serde_json::from_str(&object(&members)).unwrap();
    let written = serde_json::to_value(&read).unwrap();
    for (name, value) in members {
        let value: serde_json::Value = serde_json::from_str(value).unwrap();
        assert_eq!(written[name], value, "{name}");
    }
    for again in members {
        let twice = object(&[&members[..], &[again]].concat());
        assert!(serde_json::from_str::<Introspection>(&twice).is_err(), "{twice}");
        // A token alone, as the claims of a JWT.
        assert!(serde_json::from_str::<ActiveToken>(&twice).is_err(), "{twice}");
    }
    serde_json::from_str::<ActiveToken>(&object(&members)).unwrap();
}

#[test]
fn a_member_that_occurs_twice_is_an_error() {
    for twice in [
        r#"{"active":true,"active":false}"#,
        r#"{"active":true,"sub":"alice","sub":"bob"}"#,
        r#"{"active":true,"tenant":"a","tenant":"b"}"#,
    ] {
        assert!(serde_json::from_str::<Introspection>(twice).is_err(), "{twice}");
    }
}
