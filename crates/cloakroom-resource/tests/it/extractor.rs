use axum::Router;
use axum::body::Body;
use axum::routing::get;
use cloakroom_resource::{BearerLayer, VerifiedToken};
use http::Request;
use tower::ServiceExt;

use crate::support::{Key, manual_clock};

async fn whoami(token: VerifiedToken) -> String {
    assert!(token.has_scope("orders:read") && !token.has_scope("orders"));
    assert_eq!(token.client().unwrap().as_str(), "web-app");
    assert_eq!(token.token().jti.as_ref().unwrap().as_str(), "1");
    token.subject().unwrap().id().to_owned()
}

#[tokio::test]
async fn a_handler_gets_the_token_or_the_developer_an_error() {
    let key = Key::new();
    let layer = BearerLayer::new(key.verifier(&manual_clock()));
    let app =
        Router::new().route("/", get(whoami)).route_layer(layer).route("/forgotten", get(whoami));
    let bearer = format!("Bearer {}", key.token().await);
    for (path, expected) in [("/", 200), ("/forgotten", 500)] {
        let request = Request::get(path).header("authorization", &bearer);
        let request = request.body(Body::empty()).unwrap();
        assert_eq!(app.clone().oneshot(request).await.unwrap().status(), expected);
    }
}
