//! Cloakroom's endpoints, over its store in memory.

use cloakroom::core::Audience;
use cloakroom::http::Endpoints;
use cloakroom::{Client, Format, Grant, GrantType, Issuer, Serves};

use super::Prepared;
use crate::Failure;
use crate::case::{API, APP, BATCH, Case, RESOURCE, SCOPE};

pub(super) async fn prepare(case: Case, tokens: usize) -> Result<Prepared, Failure> {
    let format = if case == Case::IssueEs256 { Format::Jwt } else { Format::Opaque };
    let issuer = Issuer::dev()
        .static_clients([
            Client::confidential(BATCH.id, BATCH.secret)?
                .grant_types([GrantType::ClientCredentials])
                .scope(SCOPE)?
                .audience(RESOURCE, format)?,
            Client::public(APP)?.scope(SCOPE)?.audience(RESOURCE, Format::Opaque)?,
            Client::resource_server(API.id, API.secret, Serves::Only(Audience::one(RESOURCE)?))?,
        ])?
        .build()
        .await?;
    let mut issued = Vec::with_capacity(tokens);
    for user in 0..tokens {
        let tokens = issuer.issue(Grant::user(APP, format!("user-{user}"))?.scope(SCOPE)?).await?;
        issued.push(tokens.access_token.expose().to_owned());
    }
    let maintained = issuer.clone();
    tokio::spawn(async move { maintained.run_maintenance().await });
    Ok(Prepared { router: Endpoints::new(issuer).router(), tokens: issued })
}
