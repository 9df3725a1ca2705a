//! Error bodies reveal nothing: every refused code and refresh token gets the same answer.

use cloakroom::core::handle::{HandleKeys, HandleSecret};

use super::request::{Reply, With, post};
use super::server::{REDIRECT, SECRET, Server, VERIFIER, Wire};

const REFUSED: &str = r#"{"error":"invalid_grant"}"#;

impl Server {
    async fn redeem(&self, client: &str, code: &str, more: &[(&str, &str)]) -> Reply {
        let form = [&[("grant_type", "authorization_code"), ("code", code)], more].concat();
        self.ask(client, "/token", &form).await
    }

    async fn refresh(&self, client: &str, token: &str) -> Reply {
        let form = [("grant_type", "refresh_token"), ("refresh_token", token)];
        self.ask(client, "/token", &form).await
    }
}

#[tokio::test]
async fn every_refused_code_gets_the_same_answer() {
    let right = [("redirect_uri", REDIRECT), ("code_verifier", VERIFIER)];
    let server = Server::new().await;
    let redirect = |uri| [("redirect_uri", uri), right[1]];
    let verifier = |verifier| [right[0], ("code_verifier", verifier)];
    let code = server.code("web-app").await;
    let bare = server.code_without_pkce().await;
    let spent = server.code("web-app").await;
    server.redeem("web-app", &spent, &right).await.ok();
    let revoked = server.code("web-app").await;
    server.ask("web-app", "/revoke", &[("token", &revoked)]).await.ok();
    let lost = Server::new().await.code("web-app").await;
    let keys = HandleKeys::new(&HandleSecret::new(1, [9; 32]));
    let forged = Server::with(|issuer| issuer.handle_keys(keys)).await.code("web-app").await;
    let refresh = server.session("web-app").await.refresh;
    let short = verifier("short");
    let other = verifier("another-verifier-of-the-right-length-0123456789");

    let mut replies = vec![
        ("junk", server.redeem("web-app", "junk", &right).await),
        ("a refresh token", server.redeem("web-app", &refresh, &right).await),
        ("a forged tag", server.redeem("web-app", &forged, &right).await),
        ("an unknown grant", server.redeem("web-app", &lost, &right).await),
        ("a revoked grant", server.redeem("web-app", &revoked, &right).await),
        ("another client's", server.redeem("other-app", &code, &right).await),
        ("neither redirect URI nor PKCE", server.redeem("oidc-app", &bare, &[]).await),
        ("a verifier, but no challenge", server.redeem("oidc-app", &bare, &right).await),
        ("another redirect URI", server.redeem("web-app", &code, &redirect("https://b")).await),
        ("no verifier", server.redeem("web-app", &code, &right[..1]).await),
        ("a short verifier", server.redeem("web-app", &code, &short).await),
        ("another verifier", server.redeem("web-app", &code, &other).await),
        ("spent", server.redeem("web-app", &spent, &right).await),
        ("spent, again", server.redeem("web-app", &spent, &right).await),
    ];
    // None of that spent it.
    server.redeem("web-app", &code, &right).await.ok();
    server.redeem("oidc-app", &bare, &right[..1]).await.ok();
    let late = server.code("web-app").await;
    server.advance(60);
    replies.push(("expired", server.redeem("web-app", &late, &right).await));
    assert_same(&replies);
}

#[tokio::test]
async fn every_refused_refresh_token_gets_the_same_answer() {
    let server = Server::new().await;
    let session = server.session("web-app").await;
    let next = server.refresh("web-app", &session.refresh).await.member("refresh_token");
    let last = server.refresh("web-app", &next).await.member("refresh_token");
    let revoked = server.session("web-app").await.refresh;
    server.ask("web-app", "/revoke", &[("token", &revoked)]).await.ok();
    let lost = Server::new().await.session("web-app").await.refresh;
    let keys = HandleKeys::new(&HandleSecret::new(1, [9; 32]));
    let forged = Server::with(|issuer| issuer.handle_keys(keys)).await;
    let forged = forged.session("web-app").await.refresh;

    let mut replies = vec![
        ("junk", server.refresh("web-app", "junk").await),
        ("an access token", server.refresh("web-app", &session.access).await),
        ("a code", server.refresh("web-app", &server.code("web-app").await).await),
        ("a forged tag", server.refresh("web-app", &forged).await),
        ("an unknown grant", server.refresh("web-app", &lost).await),
        ("a revoked grant", server.refresh("web-app", &revoked).await),
        ("another client's", server.refresh("other-app", &last).await),
    ];
    // A slow tab is not refused.
    let caught_up = server.refresh("web-app", &session.refresh).await.ok();
    assert_eq!(caught_up.member("refresh_token"), last);
    // None of that harmed the session.
    let last = server.refresh("web-app", &last).await.ok().member("refresh_token");
    server.advance(36);
    replies.push(("reused", server.refresh("web-app", &session.refresh).await));
    replies.push(("ended by reuse", server.refresh("web-app", &last).await));
    let idle = server.session("web-app").await.refresh;
    server.advance(14 * 86_400);
    replies.push(("idle for too long", server.refresh("web-app", &idle).await));
    assert_same(&replies);
}

#[track_caller]
fn assert_same(replies: &[(&str, Reply)]) {
    let (_, first) = &replies[0];
    for (what, reply) in replies {
        assert_eq!((reply.status, reply.text()), (400, REFUSED), "{what}");
        assert_eq!(reply.headers, first.headers, "{what}");
    }
}

#[tokio::test]
async fn nothing_of_a_request_comes_back() {
    let wire = Wire::new().await;
    let marked = "x-marks-the-spot-x-marks-the-spot-0123456789";
    for path in ["/token", "/introspect", "/revoke", "/x-marks-the-spot"] {
        for parameter in [
            "grant_type",
            "client_id",
            "client_secret",
            "code",
            "refresh_token",
            "scope",
            "resource",
            "token",
            marked,
        ] {
            let form = [(parameter, marked)];
            for request in [post(path, &form), post(path, &form).basic("web-app", SECRET)] {
                let reply = wire.send(request.with("origin", marked)).await;
                assert!(!format!("{reply:?}").contains("x-marks-the-spot"), "{path} {parameter}");
            }
        }
    }
}
