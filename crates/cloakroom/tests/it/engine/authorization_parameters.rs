//! What an authorization request may say, up to its bounds, and how the response is made.

use std::sync::Arc;

use cloakroom::core::TokenSecret;
use cloakroom::memory::MemorySingleUse;
use cloakroom::{AuthorizationError, Client, Format, GrantType, PageError, Prompt};

use super::authorization_requests::{fixture, good, sent};
use super::support::*;

/// The redirect URI of an app on a phone.
const APP: &str = "com.example.app:/callback";

/// A request of `phone`, which needs no PKCE, with more parameters.
fn of_phone(more: &str) -> String {
    format!("response_type=code&client_id=phone{more}")
}

/// A server with one client, `phone`, which has this redirect URI.
async fn with_phone(redirect_uri: &str) -> Fixture {
    let phone = Client::confidential("phone", CLIENT_SECRET)
        .without_pkce()
        .grant_types([GrantType::AuthorizationCode])
        .uri("https://phone.example/about")
        .redirect_uri(redirect_uri)
        .audience(ORDERS, Format::Opaque);
    let single_use = Arc::new(MemorySingleUse::new());
    Fixture::with(|builder| builder.static_clients([phone]).unwrap().single_use(single_use)).await
}

#[tokio::test]
async fn every_prompt_is_understood() {
    let fixture = fixture().await;
    for (prompt, expected) in [
        ("none", &[Prompt::None][..]),
        ("login", &[Prompt::Login]),
        ("consent", &[Prompt::Consent]),
        ("select_account", &[Prompt::SelectAccount]),
        ("create", &[Prompt::Create]),
        ("select_account+consent", &[Prompt::SelectAccount, Prompt::Consent]),
        ("Login", &[]),
    ] {
        let request = fixture.asked(&good(&format!("&prompt={prompt}"))).await.unwrap();
        assert_eq!(request.prompt(), expected, "{prompt}");
    }
}

#[tokio::test]
async fn a_consent_page_can_link_to_the_client() {
    let request = with_phone(CALLBACK).await.asked(&of_phone("")).await.unwrap();
    assert_eq!(request.client_uri(), Some("https://phone.example/about"));
    assert_eq!(fixture().await.asked(&good("")).await.unwrap().client_uri(), None);
}

#[tokio::test]
async fn a_request_may_be_as_long_as_is_said_and_no_longer() {
    let fixture = fixture().await;
    let long = |bytes| {
        let query = good("&ui_locales=");
        let filler = "x".repeat(bytes - query.len());
        query + &filler
    };
    assert!(fixture.asked(&long(16 * 1024)).await.is_ok());
    let refused = fixture.asked(&long(16 * 1024 + 1)).await;
    assert!(matches!(refused, Err(AuthorizationError::Page(PageError::Malformed(_)))));
    for (length, good_length) in [(512, true), (513, false)] {
        let asked = fixture.asked(&good(&format!("&nonce={}", "n".repeat(length)))).await;
        assert_eq!(asked.is_ok(), good_length, "{length}");
    }
}

#[tokio::test]
async fn the_longest_request_that_is_taken_can_be_opened() {
    let fixture = fixture().await;
    // Each of these takes six bytes in the sealed form.
    let start = good(&format!("&ui_locales={}", "\u{1}".repeat(8_000)));
    let asked = async |more| fixture.asked(&format!("{start}{}", "x".repeat(more))).await;
    let mut more = 0;
    while asked(more).await.is_ok() {
        more += 1;
    }
    // The random name of a request takes a few bytes more or less: one of many fits exactly.
    for attempt in 0..2_000 {
        let Ok(request) = asked(more - attempt % 8).await else { continue };
        let sealed = request.seal().unwrap();
        assert!(sealed.len() <= 64 * 1024 && fixture.opened(&sealed).await.is_ok());
        if sealed.len() == 64 * 1024 {
            return;
        }
    }
    panic!("none was as long as can be");
}

/// A browser submits no form to an app.
#[tokio::test]
async fn an_app_gets_no_response_by_form() {
    for (redirect_uri, good) in
        [(CALLBACK, true), ("http://127.0.0.1/callback", true), (APP, false)]
    {
        let fixture = with_phone(redirect_uri).await;
        assert!(fixture.asked(&of_phone("")).await.is_ok(), "{redirect_uri}");
        match fixture.asked(&of_phone("&response_mode=form_post")).await {
            Ok(request) => assert!(good, "{request:?}"),
            Err(AuthorizationError::Redirect(redirect)) => {
                assert!(!good && redirect.error_code() == Some("invalid_request"));
                assert!(redirect.location().unwrap().starts_with(APP));
                assert!(sent(&redirect, "code").is_none());
            }
            Err(other) => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_form_goes_to_a_long_redirect_uri_as_well() {
    let long = format!("{CALLBACK}?{}", "a&".repeat(500));
    let fixture = with_phone(&long).await;
    let request = fixture.asked(&of_phone("&response_mode=form_post")).await.unwrap();
    let redirect = request.deny().await.unwrap();
    assert!(redirect.page().unwrap().contains(&long.replace('&', "&amp;")));
}

/// A buffer that grows would leave the code behind in memory.
#[tokio::test]
async fn a_url_with_a_code_is_made_in_one_piece() {
    let fixture = Fixture::new().await;
    let (code, state) = ("/".repeat(100), "&".repeat(50));
    let url = fixture.issuer.authorization_response(CALLBACK, Some(&state));
    let url = url.code(&TokenSecret::new(code));
    // Of the issuer, this many characters are sent as they are.
    let plain = ISSUER.len() - ISSUER.matches([':', '/']).count();
    assert_eq!(url.capacity(), url.len() + 2 * plain, "it has the room that it may need");
}
