//! The session that the README walks through, over real HTTP.

use serde_json::json;

use super::request::{With, post};
use super::server::{REDIRECT, SECRET, VERIFIER, Wire};

#[tokio::test]
async fn from_a_code_to_the_end_of_everything() {
    let wire = Wire::new().await;
    let token = |form: &[(&str, &str)]| wire.send(post("/token", form).basic("web-app", SECRET));
    let active = async |token: &str| {
        let request = post("/introspect", &[("token", token)]).basic("orders-api", SECRET);
        wire.send(request).await.ok().json()["active"].clone()
    };

    // The app's own page has signed Alice in, and sends her back with a code.
    let code = wire.server.code("web-app").await;
    let redemption = [
        ("grant_type", "authorization_code"),
        ("code", &*code),
        ("redirect_uri", REDIRECT),
        ("code_verifier", VERIFIER),
    ];
    let first = token(&redemption).await.ok();
    assert_eq!(active(&first.member("access_token")).await, json!(true));

    let refresh_token = first.member("refresh_token");
    let refreshing = [("grant_type", "refresh_token"), ("refresh_token", &*refresh_token)];
    let next = token(&refreshing).await.ok();
    assert_eq!(active(&first.member("access_token")).await, json!(true));
    assert_eq!(active(&next.member("access_token")).await, json!(true));

    // Who has the code but not the verifier does no harm.
    token(&redemption[..3]).await.refused(400, "invalid_grant");
    assert_eq!(active(&next.member("access_token")).await, json!(true));

    // RFC 6749 §4.1.2: the code a second time revokes all that came of it.
    token(&redemption).await.refused(400, "invalid_grant");
    for access in [&first, &next] {
        assert_eq!(active(&access.member("access_token")).await, json!(false));
    }
    let refresh_token = next.member("refresh_token");
    let refreshing = [("grant_type", "refresh_token"), ("refresh_token", &*refresh_token)];
    token(&refreshing).await.refused(400, "invalid_grant");
}

#[tokio::test]
async fn a_public_client_logs_out() {
    let wire = Wire::new().await;
    let code = wire.server.code("spa-app").await;
    let send = |path: &str, form: &[(&str, &str)]| {
        wire.send(post(path, &[&[("client_id", "spa-app")], form].concat()))
    };
    let form = [
        ("grant_type", "authorization_code"),
        ("code", &*code),
        ("redirect_uri", REDIRECT),
        ("code_verifier", VERIFIER),
    ];
    let tokens = send("/token", &form).await.ok();
    let (access, refresh) = (tokens.member("access_token"), tokens.member("refresh_token"));

    // The gateway swaps the handle at every request, until there is nothing left to swap.
    let swap = || {
        let request = post("/introspect", &[("token", &*access)]);
        wire.send(request.with("accept", "application/jwt").basic("gateway", SECRET))
    };
    assert_eq!(swap().await.status, 200);
    send("/revoke", &[("token", &refresh)]).await.ok();
    assert_eq!(swap().await.status, 204);
    let form = [("grant_type", "refresh_token"), ("refresh_token", &*refresh)];
    send("/token", &form).await.refused(400, "invalid_grant");
}
