//! The revocation endpoint (RFC 7009).

use super::request::{Reply, post};
use super::server::{REDIRECT, Server, VERIFIER, Wire};

/// Checks the whole answer to a revocation.
#[track_caller]
fn assert_done(reply: &Reply) {
    assert_eq!((reply.status, reply.text()), (200, ""), "{reply:?}");
    assert_eq!(reply.header("cache-control"), "no-store");
}

impl Server {
    async fn is_active(&self, token: &str) -> bool {
        self.introspect("gateway", token).await.ok().json()["active"] == true
    }

    async fn refreshes(&self, client: &str, token: &str) -> bool {
        let form = [("grant_type", "refresh_token"), ("refresh_token", token)];
        self.ask(client, "/token", &form).await.status == 200
    }
}

#[tokio::test]
async fn an_access_token_is_revoked_alone() {
    let server = Server::new().await;
    let session = server.session("web-app").await;
    for _ in 0..2 {
        assert_done(&server.ask("web-app", "/revoke", &[("token", &session.access)]).await);
        assert!(!server.is_active(&session.access).await);
    }
    assert!(server.refreshes("web-app", &session.refresh).await);

    let jwt = server.client_token("batch-job", &[]).await;
    assert_done(&server.ask("batch-job", "/revoke", &[("token", &jwt)]).await);
    assert!(!server.is_active(&jwt).await);
}

#[tokio::test]
async fn a_refresh_token_or_a_code_takes_everything_with_it() {
    let server = Server::new().await;
    // RFC 7009 §2.1: with a refresh token, its access tokens go.
    for hint in ["refresh_token", "access_token", "urn:unheard-of"] {
        let session = server.session("web-app").await;
        let form = [("token", &*session.refresh), ("token_type_hint", hint)];
        assert_done(&server.ask("web-app", "/revoke", &form).await);
        assert!(!server.is_active(&session.access).await, "{hint}");
        assert!(!server.refreshes("web-app", &session.refresh).await, "{hint}");
    }
    let code = server.code("web-app").await;
    assert_done(&server.ask("web-app", "/revoke", &[("token", &code)]).await);
    let form = [
        ("grant_type", "authorization_code"),
        ("code", &*code),
        ("redirect_uri", REDIRECT),
        ("code_verifier", VERIFIER),
    ];
    server.ask("web-app", "/token", &form).await.refused(400, "invalid_grant");
}

#[tokio::test]
async fn an_unknown_token_is_no_error() {
    let server = Server::new().await;
    let lost = Server::new().await.session("web-app").await;
    for token in ["junk", "cr_at_junk", "a.b.c", &lost.access, &lost.refresh] {
        assert_done(&server.ask("web-app", "/revoke", &[("token", token)]).await);
    }
    for form in [&[][..], &[("token", "")], &[("token", "a"), ("token", "b")]] {
        server.ask("web-app", "/revoke", form).await.refused(400, "invalid_request");
    }
}

#[tokio::test]
async fn nobody_revokes_what_another_client_holds() {
    let server = Server::new().await;
    let session = server.session("web-app").await;
    let jwt = server.client_token("batch-job", &[]).await;
    for token in [&session.access, &session.refresh, &jwt] {
        for caller in ["other-app", "orders-api", "gateway"] {
            let reply = server.ask(caller, "/revoke", &[("token", token)]).await;
            reply.refused(400, "unauthorized_client");
        }
        let form = [("token", &**token), ("client_id", "spa-app")];
        server.send(post("/revoke", &form)).await.refused(400, "unauthorized_client");
    }
    assert!(server.is_active(&session.access).await);
    assert!(server.is_active(&jwt).await);
    assert!(server.refreshes("web-app", &session.refresh).await);
}

#[tokio::test]
async fn a_public_client_needs_its_name_alone() {
    let wire = Wire::new().await;
    let session = wire.server.session("spa-app").await;
    let form = [("token", &*session.refresh), ("client_id", "spa-app")];
    assert_done(&wire.send(post("/revoke", &form)).await);
    assert!(!wire.server.is_active(&session.access).await);
}
