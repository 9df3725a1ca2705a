use cloakroom_core::Audience;

use super::*;

#[test]
fn redirect_uris_match_exactly_but_for_a_loopback_port() {
    let client = Client::public("app")
        .redirect_uri("http://127.0.0.1/callback")
        .redirect_uri("https://app.example/cb")
        .build()
        .unwrap();
    for good in
        ["http://127.0.0.1/callback", "http://127.0.0.1:49152/callback", "https://app.example/cb"]
    {
        assert!(client.is_redirect_uri(good), "{good}");
    }
    for bad in [
        "http://127.0.0.1:49152/callback/",
        "http://127.0.0.1:/callback",
        "http://127.0.0.1:80x/callback",
        "http://127.0.0.1:1@evil.example/callback",
        "http://localhost:1/callback",
        "https://127.0.0.1:1/callback",
        "https://app.example:443/cb",
        "https://app.example/cb?x",
        "https://APP.example/cb",
    ] {
        assert!(!client.is_redirect_uri(bad), "{bad}");
    }
}

#[test]
fn secrets_are_long_hashed_and_never_shown() {
    assert!(Client::confidential("app", "short").build().is_err());
    let secret = "0123456789012345678901";
    let builder = Client::confidential("app", secret);
    assert!(!format!("{builder:?}").contains(secret));
    let client = builder.build().unwrap();
    assert!(client.has_secret(secret));
    assert!(!client.has_secret("0123456789012345678902"));
    assert!(!format!("{client:?}").contains(secret));
}

#[test]
fn who_has_no_secret_here_is_not_therefore_public() {
    assert!(Client::public("app").build().unwrap().is_public());
    let client = Client::authenticated_by_app("app").build().unwrap();
    assert!(!client.is_public());
    assert!(!client.has_secret(""));
}

#[test]
fn a_public_client_always_rotates() {
    assert!(Client::public("app").without_rotation().build().unwrap().rotates_refresh_tokens());
}

#[test]
fn only_a_loopback_address_has_a_port_to_choose() {
    let client = Client::public("app")
        .redirect_uri("http://localhost/callback")
        .redirect_uri("https://app.example/callback")
        .redirect_uri("http://[::1]/callback")
        .redirect_uri("http://127.0.0.1")
        .build()
        .unwrap();
    for good in ["http://localhost/callback", "http://[::1]:7/callback", "http://127.0.0.1:7"] {
        assert!(client.is_redirect_uri(good), "{good}");
    }
    for bad in [
        "http://localhost:7/callback",
        "https://app.example:7/callback",
        "http://[::1]:/callback",
        "http://127.0.0.1:7/",
    ] {
        assert!(!client.is_redirect_uri(bad), "{bad}");
    }
}

#[test]
fn each_of_its_secrets_lets_a_client_in_and_nothing_else() {
    let hash = |secret: char| SecretHash::of(&secret.to_string().repeat(22)).unwrap();
    let presented = |secret: char| secret.to_string().repeat(22);
    // One is listed twice, as happens where secrets are replaced by hand.
    let client = Client::hashed("app", [hash('a'), hash('b'), hash('a')]).build().unwrap();
    assert!(!client.is_public());
    for (secret, is_own) in [('a', true), ('b', true), ('c', false)] {
        assert_eq!(client.has_secret(&presented(secret)), is_own, "{secret}");
    }
    assert!(!Client::hashed("app", []).build().unwrap().has_secret(&presented('a')));
    assert_eq!((hash('a') == hash('a'), hash('a') == hash('b')), (true, false));
}

#[test]
fn a_secret_has_22_bytes_or_more() {
    for (bytes, is_good) in [(0, false), (21, false), (22, true), (23, true), (200, true)] {
        assert_eq!(SecretHash::of(&"s".repeat(bytes)).is_ok(), is_good, "{bytes}");
    }
}

#[test]
fn what_is_registered_is_allowed_and_nothing_else() {
    let confidential = || Client::confidential("app", &"s".repeat(22));
    let client = confidential()
        .name("An app")
        .uri("https://app.example")
        .grant_types([GrantType::RefreshToken])
        .redirect_uri("https://app.example/cb")
        .scope("read write")
        .audience("https://a", Format::Opaque)
        .audience("https://b", Format::Jwt)
        .role(Role::Introspect)
        .serves(Serves::Everything)
        .build()
        .unwrap();
    assert_eq!((client.name(), client.scope().to_string()), (Some("An app"), "read write".into()));
    assert_eq!(client.uri(), Some("https://app.example"));
    let audiences: Vec<_> = client.audiences().collect();
    assert_eq!(audiences, [("https://a", &Format::Opaque), ("https://b", &Format::Jwt)]);
    assert_eq!(client.redirect_uris().collect::<Vec<_>>(), ["https://app.example/cb"]);
    assert!(client.allows(GrantType::RefreshToken));
    assert!(!client.allows(GrantType::ClientCredentials));
    assert!(client.has_role(Role::Introspect) && !client.has_role(Role::HandleKeys));
    assert_eq!(client.default_audience(), Some(&Audience::one("https://a").unwrap()));
    assert_eq!(client.format_for("https://b"), Some(&Format::Jwt));
    assert_eq!(client.format_for("https://c"), None);

    let (user, itself) = (Subject::user("app").unwrap(), Subject::client("app").unwrap());
    assert!(client.may_refresh(&user) && !client.may_refresh(&itself));
    let without = confidential().build().unwrap();
    assert_eq!((without.name(), without.uri()), (None, None));
    assert!(!without.may_refresh(&user) && !without.may_refresh(&itself));
    assert!(without.rotates_refresh_tokens());
    let shared = confidential().without_rotation().build().unwrap();
    assert!(!shared.rotates_refresh_tokens());
}

#[test]
fn a_resource_server_serves_what_it_says() {
    let serving = |serves| Client::resource_server("api", &"s".repeat(22), serves).build().unwrap();
    let only = |all: &[&str]| serving(Serves::Only(Audience::new(all).unwrap()));
    for (client, a, b, single) in [
        (Client::public("app").build().unwrap(), false, false, None),
        (serving(Serves::Everything), true, true, None),
        (only(&["https://a"]), true, false, Some("https://a")),
        (only(&["https://a", "https://b"]), true, true, None),
    ] {
        assert_eq!(client.serves("https://a"), a, "{client:?}");
        assert_eq!(client.serves("https://b"), b, "{client:?}");
        assert_eq!(client.only_served(), single, "{client:?}");
    }
}

#[test]
fn a_page_links_to_no_home_page_but_one_of_the_web() {
    for (uri, is_good) in [
        ("https://app.example/about", true),
        ("http://localhost:3000", true),
        ("http://127.0.0.1/", true),
        ("http://app.example", false),
        ("ftp://localhost/", false),
        ("custom://127.0.0.1/", false),
        ("javascript:alert(1)", false),
        ("https://user@app.example", false),
        ("https://:secret@app.example", false),
        ("app.example", false),
    ] {
        assert_eq!(Client::public("app").uri(uri).build().is_ok(), is_good, "{uri}");
    }
}

#[test]
fn roles_have_names() {
    for (name, role) in [
        ("introspect", Role::Introspect),
        ("revocation-log", Role::RevocationLog),
        ("handle-keys", Role::HandleKeys),
    ] {
        assert_eq!(name.parse::<Role>().unwrap(), role);
    }
    assert!("admin".parse::<Role>().is_err());
}
