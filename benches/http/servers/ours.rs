//! Cloakroom's endpoints.

use cloakroom::core::Audience;
use cloakroom::http::Endpoints;
use cloakroom::{Client, Format, Grant, GrantType, Issuer, IssuerBuilder, Serves};

use super::Prepared;
use crate::Failure;
use crate::case::{API, APP, BATCH, Case, RESOURCE, SCOPE};

/// How many wait for the store at a time: one that writes into a file writes them together.
const AT_A_TIME: usize = 1_000;

pub(super) async fn prepare(
    issuer: IssuerBuilder,
    case: Case,
    tokens: usize,
) -> Result<Prepared, Failure> {
    let format = if case == Case::IssueEs256 { Format::Jwt } else { Format::Opaque };
    let issuer = issuer
        .static_clients([
            Client::confidential(BATCH.id, BATCH.secret)
                .grant_types([GrantType::ClientCredentials])
                .scope(SCOPE)
                .audience(RESOURCE, format),
            Client::public(APP)
                .grant_types([GrantType::RefreshToken])
                .scope(SCOPE)
                .audience(RESOURCE, Format::Opaque),
            Client::resource_server(API.id, API.secret, Serves::Only(Audience::one(RESOURCE)?)),
        ])?
        .build()
        .await?;
    let mut issued = Vec::with_capacity(tokens);
    while issued.len() < tokens {
        let first = issued.len();
        let tasks: Vec<_> = (first..tokens.min(first + AT_A_TIME))
            .map(|user| tokio::spawn(issue(issuer.clone(), case, user)))
            .collect();
        for task in tasks {
            issued.push(task.await??);
        }
    }
    let maintained = issuer.clone();
    tokio::spawn(async move { maintained.run_maintenance().await });
    Ok(Prepared { router: Endpoints::new(issuer).router(), tokens: issued })
}

async fn issue(issuer: Issuer, case: Case, user: usize) -> Result<String, Failure> {
    let tokens = issuer.issue(Grant::user(APP, format!("user-{user}"))?.scope(SCOPE)?).await?;
    let token = match case {
        Case::Refresh | Case::RefreshSqlite => tokens.refresh_token.ok_or("a refresh token")?,
        _ => tokens.access_token,
    };
    Ok(token.expose().to_owned())
}
