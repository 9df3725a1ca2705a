//! What an app may say of a grant.

use cloakroom::{Grant, TokenError};

use super::support::*;

fn grant() -> Grant {
    Grant::user("web-app", "alice").unwrap()
}

#[test]
fn the_name_of_a_user_and_the_way_to_sign_in_are_bounded() {
    let (longest, too_long) = ("a".repeat(255), "a".repeat(256));
    for good in ["a", &longest] {
        assert!(grant().acr(good).is_ok() && grant().username(good).is_ok(), "{good}");
    }
    for bad in ["", "a b", "ä", "\u{7f}", &too_long] {
        assert!(grant().acr(bad).is_err(), "{bad}");
    }
    assert!(grant().username(too_long).is_err());
}

#[tokio::test]
async fn the_identifier_of_a_session_is_bounded() {
    let fixture = Fixture::new().await;
    fixture.issuer.issue(grant().session("s".repeat(255))).await.unwrap();
    let refused = fixture.issuer.issue(grant().session("s".repeat(256))).await;
    assert!(matches!(refused, Err(TokenError::InvalidRequest(_))), "{refused:?}");
}
