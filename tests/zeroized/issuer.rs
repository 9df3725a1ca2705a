//! Tokens on their way through the engine.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cloakroom::core::scrubbed;
use cloakroom::http::Endpoints;
use cloakroom::{
    ApprovedRequest, Caller, Client, CodeRequest, Format, Grant, GrantType, Issuer, Pkce,
    RefreshRequest, Serves, TokenSecret,
};
use sha2::{Digest, Sha256};

use crate::secrets::{assert_wiped, in_a_task};

pub(crate) const CALLBACK: &str = "https://app.example/callback";
pub(crate) const APP_SECRET: &str = "Yx3+one-app/alone=82163==";
pub(crate) const GATEWAY_SECRET: &str = "Zq7&and-its-gateway%99502";
pub(crate) const VERIFIER: &str = "kT4-proof-of-the-one-who-began-this-login-57301";

/// An issuer of one app, whose tokens for `https://api.example` have this format, and of a gateway.
pub(crate) async fn issuer(format: Format) -> Issuer {
    let app = Client::confidential("app", APP_SECRET)
        .audience("https://api.example", format)
        .scope("read write")
        .redirect_uri(CALLBACK)
        .grant_types([
            GrantType::AuthorizationCode,
            GrantType::RefreshToken,
            GrantType::ClientCredentials,
        ]);
    let gateway = Client::resource_server("gateway", GATEWAY_SECRET, Serves::Everything);
    Issuer::dev()
        .static_clients([app, gateway])
        .expect("two clients")
        .build()
        .await
        .expect("an issuer")
}

pub(crate) fn pkce() -> Pkce {
    // The test hashes it, too, and leaves no more of it behind than the engine may.
    let challenge = scrubbed(|| URL_SAFE_NO_PAD.encode(Sha256::digest(VERIFIER)));
    Pkce::s256(challenge).expect("43 characters")
}

fn grant() -> Grant {
    Grant::user("app", "alice").expect("identifiers")
}

fn app() -> cloakroom::ClientId {
    "app".parse().expect("an identifier")
}

fn again(token: &TokenSecret) -> TokenSecret {
    TokenSecret::new(token.expose())
}

#[test]
fn tokens_are_wiped_from_issue_to_revocation() {
    for format in [Format::Opaque, Format::Phantom, Format::Jwt] {
        assert_wiped(|secrets| {
            let tokens = in_a_task(async move {
                let issuer = issuer(format).await;
                let first = issuer.issue(grant()).await.expect("tokens");
                let spent = first.refresh_token.as_ref().expect("the client may refresh");
                let next = issuer
                    .refresh(RefreshRequest::new(again(spent), app()))
                    .await
                    .expect("a successor");
                // The retry opens the sealed successor.
                let retried = issuer
                    .refresh(RefreshRequest::new(again(spent), app()))
                    .await
                    .expect("the same");
                // A laggard opens one after the other.
                let successor = next.refresh_token.as_ref().expect("a successor");
                let third = issuer
                    .refresh(RefreshRequest::new(again(successor), app()))
                    .await
                    .expect("a successor");
                let caught_up = issuer
                    .refresh(RefreshRequest::new(again(spent), app()))
                    .await
                    .expect("the current one");
                let forged = TokenSecret::new("cr_rt_forged");
                issuer.refresh(RefreshRequest::new(forged, app())).await.expect_err("forged");

                let mut all = Vec::new();
                for response in [first, next, retried, third, caught_up] {
                    let token = &response.access_token;
                    let answer = issuer.introspect(token, Caller::Internal).await;
                    assert!(answer.expect("no outage").is_active());
                    let swapped = issuer.swap(token, None, Caller::Internal).await;
                    all.extend(swapped.expect("no outage").map(|swapped| swapped.jwt));
                    issuer.revoke(token, &app()).await.expect("no outage");
                    all.push(response.access_token);
                    all.extend(response.refresh_token);
                }
                all
            });
            for token in &tokens {
                secrets.add_token("a token", token.expose());
            }
        });
    }
}

#[test]
fn a_code_and_its_verifier_are_wiped() {
    assert_wiped(|secrets| {
        secrets.add("a verifier", VERIFIER);
        let tokens = in_a_task(async move {
            let issuer = issuer(Format::Opaque).await;
            let code = issuer
                .authorize(ApprovedRequest::new(grant(), CALLBACK).pkce(pkce()))
                .await
                .expect("a code");
            let redeem = |verifier: &str| {
                CodeRequest::new(again(&code), app())
                    .redirect_uri(CALLBACK.to_owned())
                    .verifier(TokenSecret::new(verifier))
            };
            issuer.redeem(redeem(&VERIFIER[1..])).await.expect_err("another verifier");
            let response = issuer.redeem(redeem(VERIFIER)).await.expect("tokens");
            issuer.redeem(redeem(VERIFIER)).await.expect_err("it is spent");
            drop(Endpoints::new(issuer));
            [Some(code), Some(response.access_token), response.refresh_token]
        });
        for token in tokens.iter().flatten() {
            secrets.add_token("a token", token.expose());
        }
    });
}
