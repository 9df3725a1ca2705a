//! Access tokens in a format of your own, and tokens taken over from a former system.
//!
//! If you replace another authorization server, you often have to keep the format of its tokens,
//! and accept the tokens that it has already issued. One [`TokenFormat`] does both.
//!
//! ```toml
//! [dependencies]
//! async-trait = "0.1"
//! base64 = "0.23"
//! cloakroom = { path = "../cloakroom/crates/cloakroom" }
//! tokio = { version = "1", features = ["macros", "rt-multi-thread"] }
//! ```

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cloakroom::Caller::Internal;
use cloakroom::core::format::{FormatError, Located, MintContext, Minted, Persisted, TokenFormat};
use cloakroom::core::{GrantId, TokenDigest, TokenKind, TokenSecret};
use cloakroom::{AdoptRequest, Client, Format, Grant, GrantType, Issuer, RefreshRequest};

/// `acme.GRANT.SECRET` for new tokens; 32 hexadecimal digits for those of the former system.
#[derive(Debug)]
struct AcmeTokens;

#[async_trait]
impl TokenFormat for AcmeTokens {
    async fn mint(&self, context: MintContext<'_>) -> Result<Minted, FormatError> {
        // The grant's identifier is no secret; these 192 bits are.
        let secret: [u8; 24] = context.random.array()?;
        let secret = URL_SAFE_NO_PAD.encode(secret);
        let token = TokenSecret::new(format!("acme.{}.{secret}", context.grant.id));
        let digest = TokenDigest::compute(TokenKind::Access, token.expose().as_bytes());
        // The store gets the digest, never the token.
        Ok(Minted::new(token, Persisted::Token(digest)))
    }

    fn locate(&self, presented: &TokenSecret) -> Result<Option<Located>, FormatError> {
        let token = presented.expose();
        let grant: Option<GrantId> = token
            .strip_prefix("acme.")
            .and_then(|rest| rest.split_once('.'))
            .and_then(|(grant, _)| grant.parse().ok());
        if grant.is_none() && !is_former(token) {
            return Ok(None);
        }
        let digest = TokenDigest::compute(TokenKind::Access, token.as_bytes());
        // A former token does not name its grant, so the grant id is derived from its digest.
        let grant = grant.unwrap_or_else(|| GrantId::from_digest(&digest));
        // Nothing here proves that the token is genuine. It is if its digest is in the store.
        Ok(Some(Located::new(TokenKind::Access, grant, digest)))
    }
}

/// Only the spelling that the former system used: two spellings of one token would be two tokens.
fn is_former(token: &str) -> bool {
    token.len() == 32 && token.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let client = Client::confidential("shop", "shop-demo-secret-0123456789")
        .grant_types([GrantType::RefreshToken])
        .scope("orders:read orders:write")
        .audience("https://orders.example", Format::Custom("acme".into()))
        .build()?;
    let shop = client.id().clone();
    let issuer = Issuer::dev()
        .format("acme", Arc::new(AcmeTokens))
        .static_clients([client])?
        .build()
        .await?;

    println!("A new token has the format of the app, and works like any other.");
    let tokens = issuer.issue(Grant::user("shop", "alice")?).await?;
    let token = &tokens.access_token;
    assert!(token.expose().starts_with("acme."));
    println!("  {}… ({} characters)", &token.expose()[..28], token.expose().len());
    assert!(issuer.introspect(token, Internal).await?.is_active());
    let forged = TokenSecret::new(format!("{}A", token.expose()));
    assert!(!issuer.introspect(&forged, Internal).await?.is_active());

    println!("A gateway may swap it for a JWT.");
    let swapped = issuer.swap(token, None, Internal).await?;
    let jwt = swapped.ok_or("an active token is swapped")?.jwt;
    assert_eq!(jwt.expose().split('.').count(), 3);

    println!("The refresh token has the library's format; the new access token has the app's.");
    let refresh_token = tokens.refresh_token.ok_or("the client may refresh")?;
    let next = issuer.refresh(RefreshRequest::new(refresh_token, shop.clone())).await?;
    assert!(next.access_token.expose().starts_with("acme."));

    println!("A token of the former system is unknown at first.");
    let former = TokenSecret::new("6f1d0c8a5b7e4c2f9a3d1e0b8c7a6f54");
    assert!(!issuer.introspect(&former, Internal).await?.is_active());

    let now = issuer.clock().now();
    println!("Adopted, with the data of the former system's database, it is active.");
    let grant = Grant::user("shop", "bob")?.scope("orders:read")?;
    let (issued_at, expires_at) = (now - Duration::from_secs(60), now + Duration::from_secs(300));
    issuer.adopt(AdoptRequest::new(former.clone(), grant, issued_at..expires_at)).await?;
    let answer = issuer.introspect(&former, Internal).await?;
    let active = answer.active().ok_or("an adopted token is active")?;
    println!(
        "  it stands for {}, scope {}",
        active.subject.as_ref().map_or("-", |s| s.id()),
        active.scope
    );
    assert_eq!(active.scope.as_str(), "orders:read");
    assert!(issuer.swap(&former, None, Internal).await?.is_some());

    println!("Revoking one of them leaves the other alone.");
    issuer.revoke(&former, &shop).await?;
    assert!(!issuer.introspect(&former, Internal).await?.is_active());
    assert!(issuer.swap(&former, None, Internal).await?.is_none());
    assert!(issuer.introspect(&next.access_token, Internal).await?.is_active());
    println!("custom format: ok");
    Ok(())
}
