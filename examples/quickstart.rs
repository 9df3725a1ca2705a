//! Issue, introspect, refresh, revoke: a session from start to end.
//!
//! ```toml
//! [dependencies]
//! cloakroom = { path = "../cloakroom/crates/cloakroom" }
//! tokio = { version = "1", features = ["macros", "rt-multi-thread"] }
//! ```

use cloakroom::Caller::Internal;
use cloakroom::core::Subject;
use cloakroom::{Client, Format, Grant, GrantType, Issuer, RefreshRequest};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // An app that may read and write orders, with opaque tokens that it may refresh.
    let client = Client::public("app")
        .grant_types([GrantType::RefreshToken])
        .scope("orders:read orders:write")
        .audience("https://orders.example", Format::Opaque)
        .build()?;
    let app = client.id().clone();

    // An issuer to try things out: everything is in memory, and lost at a restart.
    let issuer = Issuer::dev().static_clients([client])?.build().await?;

    // Alice has signed in, and lets the app read her orders.
    let grant = Grant::user("app", "alice")?.scope("orders:read")?;
    let first = issuer.issue(grant).await?;
    println!("issue: the app has an access token and a refresh token");

    // The app calls an API, which asks what the token stands for.
    let answer = issuer.introspect(&first.access_token, Internal).await?;
    let token = answer.active().ok_or("a fresh token is active")?;
    assert_eq!(token.subject, Some(Subject::user("alice")?));
    assert_eq!(token.scope.as_str(), "orders:read");
    println!("introspect: it stands for alice, scope {}", token.scope);

    // The app trades its refresh token for the next pair of tokens.
    let refresh_token = first.refresh_token.ok_or("the app may refresh")?;
    let refresh = RefreshRequest::new(refresh_token, app.clone());
    let next = issuer.refresh(refresh).await?;
    let answer = issuer.introspect(&next.access_token, Internal).await?;
    assert!(answer.is_active());
    println!("refresh: it has a new access token and a new refresh token");

    // Alice signs out: revoking the refresh token ends the grant and all its tokens.
    let refresh_token = next.refresh_token.ok_or("it has a successor")?;
    issuer.revoke(&refresh_token, &app).await?;
    for token in [&first.access_token, &next.access_token] {
        assert!(!issuer.introspect(token, Internal).await?.is_active());
    }
    println!("revoke: both access tokens are inactive at once");
    Ok(())
}
