//! Tokens in the shapes of large issuers: what is an access token passes under the issuer's profile
//! alone, and nothing else passes under any.

use std::sync::Arc;

use cloakroom_core::time::{ManualClock, UnixTime};
use cloakroom_jwt::{Algorithm, IssuerProfile, KeySet, SigningKey, Verifier, VerifyError};
use serde_json::{Value, json};

use crate::support::{NOW, key_set, signed};

/// An issuer: its preset, its name, the audience that an API expects, and what it writes.
struct Issuer {
    name: &'static str,
    profile: IssuerProfile,
    iss: &'static str,
    audience: &'static str,
    /// The client, subject and scope that an API shall see, and the token.
    access: Vec<(&'static str, &'static str, &'static str, Jwt)>,
    /// Tokens of other kinds.
    others: Vec<(&'static str, Jwt)>,
}

#[derive(Clone)]
struct Jwt {
    typ: Option<&'static str>,
    claims: Value,
}

fn jwt(typ: impl Into<Option<&'static str>>, mut claims: Value) -> Jwt {
    let all = claims.as_object_mut().unwrap();
    all.entry("iat").or_insert(json!(NOW - 10));
    all.entry("exp").or_insert(json!(NOW + 300));
    Jwt { typ: typ.into(), claims }
}

impl Jwt {
    fn sign(&self, key: &SigningKey) -> String {
        let mut header = json!({"alg": "RS256", "kid": key.kid()});
        if let Some(typ) = self.typ {
            header["typ"] = json!(typ);
        }
        signed(key, &header.to_string(), &self.claims.to_string())
    }

    fn without(&self, claim: &str) -> Self {
        let mut other = self.clone();
        other.claims.as_object_mut().unwrap().remove(claim);
        other
    }

    fn with(&self, claim: &str, value: Value) -> Self {
        let mut other = self.clone();
        other.claims[claim] = value;
        other
    }
}

fn keycloak() -> Issuer {
    let iss = "https://id.example/realms/shop";
    let access = jwt(
        "JWT",
        json!({
            "iss": iss, "aud": ["https://orders.example", "account"], "azp": "web-app",
            "sub": "f5b7b7f0-8a0e-4d0f-9c55-3c6b7d2f6a11", "typ": "Bearer",
            "jti": "onrtac:8c1d3f04-9e6f-4f0e-8f0e-1c6c1f2b7d11", "acr": "1",
            "sid": "a2d3d3c1-7c1f-4ed4-8f65-6a1bb2b0a9c1", "scope": "openid orders:read",
            "realm_access": {"roles": ["user"]}, "preferred_username": "alice",
            "allowed-origins": ["https://shop.example"], "email_verified": true,
        }),
    );
    let other =
        |kind: &str| access.with("typ", json!(kind)).with("aud", json!("https://orders.example"));
    Issuer {
        name: "keycloak",
        profile: IssuerProfile::keycloak(),
        iss,
        audience: "https://orders.example",
        access: vec![
            (
                "web-app",
                "f5b7b7f0-8a0e-4d0f-9c55-3c6b7d2f6a11",
                "openid orders:read",
                access.clone(),
            ),
            (
                "web-app",
                "f5b7b7f0-8a0e-4d0f-9c55-3c6b7d2f6a11",
                "openid orders:read",
                // Releases before 25 repeat the nonce of the login.
                access.with("nonce", json!("n-0S6_WzA2Mj")).with("auth_time", json!(NOW - 20)),
            ),
        ],
        others: vec![
            (
                "ID",
                other("ID").with("nonce", json!("n")).with("at_hash", json!("x")).without("scope"),
            ),
            ("ID without nonce", other("ID").without("scope")),
            ("refresh", other("Refresh")),
            ("offline", other("Offline")),
            (
                "logout",
                jwt(
                    "JWT",
                    json!({"iss": iss, "aud": "https://orders.example", "sub": "s", "jti": "1",
                "azp": "web-app", "typ": "Logout",
                "events": {"http://schemas.openid.net/event/backchannel-logout": {}}}),
                ),
            ),
            (
                "logout with its own typ",
                jwt(
                    "logout+jwt",
                    json!({"iss": iss, "aud": "https://orders.example",
                "sub": "s", "jti": "1", "azp": "web-app",
                "events": {"http://schemas.openid.net/event/backchannel-logout": {}}}),
                ),
            ),
            ("no kind", access.without("typ")),
            ("action token", other("verify-email")),
            ("registration", other("RegistrationAccessToken")),
            (
                "introspection",
                jwt("token-introspection+jwt", access.with("active", json!(true)).claims),
            ),
            ("introspection typed JWT", access.with("active", json!(true))),
        ],
    }
}

fn entra() -> Issuer {
    let iss = "https://login.microsoftonline.com/8f6f0d2e-0000-4000-8000-6d1ad5e3f6aa/v2.0";
    let audience = "6e74172b-be56-4843-9ff4-e66a39bb12e3";
    let user = jwt(
        "JWT",
        json!({
            "aud": audience, "iss": iss, "nbf": NOW - 10, "aio": "AXQAi/8IAAAA",
            "azp": "client-1", "azpacr": "0", "name": "Alice", "oid": "690222be",
            "preferred_username": "alice@shop.example", "rh": "0.ARoA", "scp": "orders.read orders.write",
            "sub": "HKZpfaHyWadeOouYlitjrI-KffTm222X5rrV3xDqfKQ", "tid": "8f6f0d2e", "uti": "x-1",
            "ver": "2.0",
        }),
    );
    let app = user
        .without("scp")
        .without("name")
        .without("preferred_username")
        .with("roles", json!(["Orders.Read.All"]));
    let v1 = user.without("azp").with("appid", json!("client-1")).with("ver", json!("1.0"));
    let id = jwt(
        "JWT",
        json!({"ver": "2.0", "iss": iss, "sub": "AAAAAAA", "aud": audience, "oid": "690222be",
            "nonce": "12345", "preferred_username": "alice@shop.example", "tid": "8f6f0d2e"}),
    );
    Issuer {
        name: "entra_id",
        profile: IssuerProfile::entra_id(),
        iss,
        audience,
        access: vec![
            (
                "client-1",
                "HKZpfaHyWadeOouYlitjrI-KffTm222X5rrV3xDqfKQ",
                "orders.read orders.write",
                user.clone(),
            ),
            ("client-1", "HKZpfaHyWadeOouYlitjrI-KffTm222X5rrV3xDqfKQ", "Orders.Read.All", app),
            (
                "client-1",
                "HKZpfaHyWadeOouYlitjrI-KffTm222X5rrV3xDqfKQ",
                "orders.read orders.write",
                v1,
            ),
        ],
        others: vec![
            ("ID", id.clone()),
            ("ID without nonce", id.without("nonce")),
            ("ID with roles", id.without("nonce").with("roles", json!(["admin"]))),
            (
                "ID with roles and nonce",
                id.with("roles", json!(["admin"])).with("azp", json!("client-1")),
            ),
            (
                "logout",
                jwt(
                    "JWT",
                    json!({"iss": iss, "aud": audience, "sub": "s", "jti": "1", "azp": "client-1",
                "scp": "x", "events": {"http://schemas.openid.net/event/backchannel-logout": {}}}),
                ),
            ),
            ("no scopes or roles", user.without("scp")),
        ],
    }
}

fn auth0() -> Issuer {
    let iss = "https://shop.eu.auth0.example/";
    let audience = "https://orders.example";
    let own = jwt(
        "JWT",
        json!({"iss": iss, "sub": "auth0|56f5e8", "aud": [audience, "https://shop.eu.auth0.example/userinfo"],
            "azp": "my_client_id", "scope": "openid orders:read", "permissions": ["orders:read"]}),
    );
    let machine = jwt(
        "JWT",
        json!({"iss": iss, "sub": "my_client_id@clients", "aud": audience, "azp": "my_client_id",
            "gty": "client-credentials"}),
    );
    let rfc = jwt(
        "at+jwt",
        json!({"iss": iss, "sub": "auth0|56f5e8", "aud": audience, "client_id": "my_client_id",
            "jti": "73WakrfVbNJBaAmhQtEeDv", "scope": "orders:read"}),
    );
    let id = jwt(
        "JWT",
        json!({"iss": iss, "sub": "auth0|56f5e8", "aud": audience, "nickname": "alice", "sid": "s",
            "nonce": "n", "email_verified": true}),
    );
    Issuer {
        name: "auth0",
        profile: IssuerProfile::auth0(),
        iss,
        audience,
        access: vec![
            ("my_client_id", "auth0|56f5e8", "openid orders:read", own.clone()),
            ("my_client_id", "my_client_id@clients", "", machine),
            ("my_client_id", "auth0|56f5e8", "orders:read", rfc),
        ],
        others: vec![
            ("ID", id.clone()),
            ("ID without nonce", id.without("nonce")),
            ("ID with at_hash", own.with("at_hash", json!("x"))),
            (
                "ID with azp and nonce",
                id.with("azp", json!("my_client_id")).with("scope", json!("openid")),
            ),
            ("ID with azp", id.without("nonce").with("azp", json!("my_client_id"))),
            (
                "logout",
                jwt(
                    "logout+jwt",
                    json!({"iss": iss, "aud": audience, "sid": "s", "jti": "1",
                "events": {"http://schemas.openid.net/event/backchannel-logout": {}}}),
                ),
            ),
        ],
    }
}

fn okta() -> Issuer {
    let iss = "https://shop.okta.example/oauth2/default";
    let audience = "api://orders";
    let access = jwt(
        None,
        json!({"ver": 1, "jti": "AT.0mP4JKAZX1iACIT4vbEDF7LpvDVjxypPMf0D7uX39RE", "iss": iss,
            "aud": audience, "cid": "nmdP1fcyvdVO11AL7ECm", "uid": "00ujmkLgagxeRrAg20g3",
            "scp": ["openid", "orders.read"], "sub": "alice@shop.example"}),
    );
    let id = jwt(
        None,
        json!({"ver": 1, "jti": "ID.4eAWJOCMB3SX8XewDfVR", "iss": iss, "aud": audience,
            "sub": "00ujmkLgagxeRrAg20g3", "amr": ["pwd"], "auth_time": NOW - 20, "idp": "00o",
            "at_hash": "cpqKfdQA5eH891Ff5oJr_Q", "nonce": "n"}),
    );
    Issuer {
        name: "okta",
        profile: IssuerProfile::okta(),
        iss,
        audience,
        access: vec![(
            "nmdP1fcyvdVO11AL7ECm",
            "alice@shop.example",
            "openid orders.read",
            access.clone(),
        )],
        others: vec![
            ("ID", id.clone()),
            ("ID without hashes", id.without("nonce").without("at_hash")),
            (
                "ID with cid",
                id.without("nonce").without("at_hash").with("cid", json!("nmdP1fcyvdVO11AL7ECm")),
            ),
            (
                "refresh",
                access.with("jti", json!("RT.0mP4JKAZX1iACIT4vbEDF7LpvDVjxypPMf0D7uX39RE")),
            ),
            (
                "logout",
                jwt(
                    "logout+jwt",
                    json!({"iss": iss, "aud": audience, "jti": "LT.1", "sub": "s",
                "cid": "nmdP1fcyvdVO11AL7ECm",
                "events": {"http://schemas.openid.net/event/backchannel-logout": {}}}),
                ),
            ),
        ],
    }
}

fn cognito() -> Issuer {
    let iss = "https://cognito-idp.eu-central-1.amazonaws.example/eu-central-1_example";
    let audience = "1example23456789";
    let access = jwt(
        None,
        json!({"sub": "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee", "cognito:groups": ["buyers"], "iss": iss,
            "version": 2, "client_id": audience, "origin_jti": "o", "event_id": "e", "token_use": "access",
            "scope": "openid orders/read", "auth_time": NOW - 20, "jti": "j-1", "username": "alice"}),
    );
    let id = jwt(
        None,
        json!({"sub": "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee", "iss": iss, "aud": audience,
            "token_use": "id", "auth_time": NOW - 20, "cognito:username": "alice", "jti": "j-2",
            "email": "alice@shop.example", "at_hash": "x"}),
    );
    Issuer {
        name: "cognito",
        profile: IssuerProfile::cognito(),
        iss,
        audience,
        access: vec![(
            audience,
            "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee",
            "openid orders/read",
            access.clone(),
        )],
        others: vec![
            ("ID", id.clone()),
            ("ID with a client", id.with("client_id", json!(audience)).without("at_hash")),
            ("refresh", access.with("token_use", json!("refresh"))),
            ("no kind", access.without("token_use")),
        ],
    }
}

fn google() -> Issuer {
    let iss = "orders-job@shop.iam.gserviceaccount.example";
    let audience = "https://orders.example";
    let access = jwt("JWT", json!({"iss": iss, "sub": iss, "aud": audience}));
    Issuer {
        name: "google_service_account",
        profile: IssuerProfile::google_service_account(),
        iss,
        audience,
        access: vec![(iss, iss, "", access.clone())],
        others: vec![
            (
                "ID",
                access
                    .with("sub", json!("113774264463038321964"))
                    .with("azp", json!(iss))
                    .with("email", json!(iss))
                    .with("email_verified", json!(true)),
            ),
            ("ID with at_hash", access.with("at_hash", json!("x"))),
            ("no subject", access.without("sub")),
        ],
    }
}

fn issuers() -> [Issuer; 6] {
    [keycloak(), entra(), auth0(), okta(), cognito(), google()]
}

fn verifier(issuer: &Issuer, profile: IssuerProfile) -> Verifier {
    Verifier::new(issuer.iss, issuer.audience)
        .profile(profile)
        .clock(Arc::new(ManualClock::at(UnixTime::from_secs(NOW))))
}

fn key() -> (SigningKey, KeySet) {
    let key = SigningKey::generate(Algorithm::Rs256).unwrap();
    let keys = key_set(&[&key]);
    (key, keys)
}

#[test]
fn the_access_tokens_of_each_issuer_pass_under_its_profile() {
    let (key, keys) = key();
    for issuer in issuers() {
        for (client, subject, scope, token) in &issuer.access {
            let verified =
                verifier(&issuer, issuer.profile.clone()).verify(&keys, &token.sign(&key));
            let token = verified.unwrap_or_else(|error| panic!("{}: {error:?}", issuer.name)).token;
            assert_eq!(token.client.as_ref().unwrap().as_str(), *client, "{}", issuer.name);
            assert_eq!(token.subject.as_ref().unwrap().id(), *subject, "{}", issuer.name);
            assert_eq!(token.scope.as_str(), *scope, "{}", issuer.name);
            assert!(token.audience.as_ref().unwrap().contains(issuer.audience));
            assert_eq!(token.issuer.as_deref(), Some(issuer.iss));
        }
    }
}

#[test]
fn nothing_but_a_typed_access_token_passes_without_a_profile() {
    let (key, keys) = key();
    for issuer in issuers() {
        for (.., token) in issuer.access.iter().filter(|(.., token)| token.typ != Some("at+jwt")) {
            let verified =
                verifier(&issuer, IssuerProfile::rfc9068()).verify(&keys, &token.sign(&key));
            assert!(matches!(verified, Err(VerifyError::Header(_))), "{}", issuer.name);
        }
    }
}

#[test]
fn no_other_kind_of_token_passes_under_any_profile() {
    let (key, keys) = key();
    let presets = || {
        let own = issuers().into_iter().map(|issuer| (issuer.name, issuer.profile));
        own.chain([("rfc9068", IssuerProfile::rfc9068())])
    };
    let mut tried = 0;
    for issuer in issuers() {
        for (kind, token) in &issuer.others {
            // As the issuer types it, as others do, and not at all.
            for typ in [token.typ, Some("JWT"), None] {
                let token = Jwt { typ, ..token.clone() };
                // What lacks a mark of one issuer's may be whole for another.
                let lacks = kind.starts_with("no ");
                for (preset, profile) in
                    presets().filter(|(preset, _)| !lacks || *preset == issuer.name)
                {
                    let verified = verifier(&issuer, profile).verify(&keys, &token.sign(&key));
                    assert!(
                        verified.is_err(),
                        "{} of {} under {preset}: {token:?}",
                        kind,
                        issuer.name,
                        token = token.claims
                    );
                    tried += 1;
                }
            }
        }
    }
    assert!(tried > 500, "{tried}");
}

#[test]
fn a_claim_of_other_kinds_spoils_any_access_token() {
    let (key, keys) = key();
    for issuer in issuers() {
        for (.., token) in issuer.access.iter().filter(|(.., token)| token.typ != Some("at+jwt")) {
            for (claim, value) in [
                ("events", json!({"http://schemas.openid.net/event/backchannel-logout": {}})),
                ("token_introspection", json!({"active": true})),
                ("active", json!(true)),
                ("htm", json!("GET")),
                ("htu", json!("https://orders.example")),
                ("token_usage", json!("refresh_token")),
                ("tokenType", json!("id_token")),
                ("type", json!("refresh")),
            ] {
                let verified = verifier(&issuer, issuer.profile.clone())
                    .verify(&keys, &token.with(claim, value).sign(&key));
                assert!(
                    matches!(verified, Err(VerifyError::Claims(_))),
                    "{}: {claim}",
                    issuer.name
                );
            }
            // Nor is what a profile asks for enough for another issuer or audience.
            for claim in ["iss", "exp", "iat"] {
                let verified = verifier(&issuer, issuer.profile.clone())
                    .verify(&keys, &token.without(claim).sign(&key));
                assert!(verified.is_err(), "{}: no {claim}", issuer.name);
            }
            let other = Verifier::new(issuer.iss, "https://billing.example")
                .profile(issuer.profile.clone())
                .clock(Arc::new(ManualClock::at(UnixTime::from_secs(NOW))));
            let verified = other.verify(&keys, &token.sign(&key));
            assert!(matches!(verified, Err(VerifyError::Audience)), "{}", issuer.name);
        }
    }
}

#[test]
fn a_profile_of_the_apps_own() {
    let (key, keys) = key();
    let claims = json!({"iss": "https://as.example", "aud": "https://orders.example", "sub": "alice",
        "azp": "web-app", "roles": ["buyer"], "kind": "access", "jti": "1"});
    let token = jwt("application/ACCESS", claims);
    let profile = IssuerProfile::rfc9068()
        .accept_typ("access")
        .client_in(["client", "azp"])
        .scope_in(["roles"])
        .require_value("kind", ["access", "machine"]);
    let verify = |profile: &IssuerProfile, token: &Jwt| {
        let verifier = Verifier::new("https://as.example", "https://orders.example")
            .profile(profile.clone())
            .clock(Arc::new(ManualClock::at(UnixTime::from_secs(NOW))));
        verifier.verify(&keys, &token.sign(&key))
    };
    let verified = verify(&profile, &token).unwrap();
    assert_eq!(verified.token.client.unwrap().as_str(), "web-app");
    assert_eq!(verified.token.scope.as_str(), "buyer");
    assert_eq!(verified.token.extra["azp"], "web-app", "it stays where it stood, too");

    for bad in [
        token.without("kind"),
        token.with("kind", json!("ACCESS")),
        token.with("kind", json!(["access"])),
        token.without("azp"),
        token.without("jti"),
        Jwt { typ: Some("JWT"), ..token.clone() },
        Jwt { typ: None, ..token.clone() },
    ] {
        assert!(verify(&profile, &bad).is_err(), "{}", bad.claims);
    }
    // The first claim that is there counts, and a claim of the default place does not.
    let both = token.with("client", json!("first")).with("client_id", json!("somebody"));
    assert_eq!(verify(&profile, &both).unwrap().token.client.unwrap().as_str(), "first");
    let scope = verify(&profile, &token.with("scope", json!("admin"))).unwrap().token.scope;
    assert_eq!(scope.as_str(), "buyer");

    let loose = profile.optional_jti().optional_subject().accept_missing_typ();
    verify(&loose, &token.without("jti").without("sub")).unwrap();
    verify(&loose, &Jwt { typ: None, ..token.clone() }).unwrap();
    let prefixed = loose.clone().require_prefix("jti", "AT.");
    assert!(verify(&prefixed, &token).is_err());
    verify(&prefixed, &token.with("jti", json!("AT.1"))).unwrap();
    let any = loose.require_any(["tenant", "org"]);
    assert!(verify(&any, &token).is_err());
    assert!(verify(&any, &token.with("org", json!(null))).is_err());
    verify(&any, &token.with("org", json!(7))).unwrap();
}
