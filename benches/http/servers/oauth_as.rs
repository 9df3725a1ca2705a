//! The crate `oauth-as`, over its own store in memory, set up like ours. It runs without what its
//! examples add on top: rate limits, events and the sweeper would only slow it down.

use std::sync::Arc;
use std::time::SystemTime;

use axum::Router;
use oauth_as::client::{Client, ClientAuth, ClientId, SecretHash};
use oauth_as::grant::GrantType;
use oauth_as::http::ServiceBuilder;
use oauth_as::jwt::{AccessTokenFormat, EcdsaP256Key, JwtConfig};
use oauth_as::scope::ScopeSet;
use oauth_as::server::{AuthorizationServer, ResourceServerRegistration, ServerConfig};
use oauth_as::store::{MemoryStorage, Storage as _};
use oauth_as::token::{IssuedToken, RefreshTokenRecord};

use super::Prepared;
use crate::Failure;
use crate::case::{API, APP, BATCH, Case, Login, RESOURCE, SCOPE};

const ISSUER: &str = "http://127.0.0.1:9000";

pub(super) async fn prepare(case: Case, tokens: usize) -> Result<Prepared, Failure> {
    let mut config = ServerConfig::new(ISSUER, format!("{ISSUER}/device"));
    config.resource_servers =
        Some([ResourceServerRegistration::new(ClientId::new(API.id), [RESOURCE])].into());
    if case == Case::IssueEs256 {
        let jwt = JwtConfig::new(EcdsaP256Key::generate("key-1"), RESOURCE);
        config.access_token_format = AccessTokenFormat::Jwt(Box::new(jwt));
    }
    let life = config.access_token_ttl;
    let server = AuthorizationServer::new(config, MemoryStorage::new());
    for login in [BATCH, API] {
        server.register_client(client(&login)?).await?;
    }
    server.register_client(app()?).await?;

    let now = SystemTime::now();
    let mut issued = Vec::with_capacity(tokens);
    for user in 0..tokens {
        let (token, subject) = (random_token()?, Some(format!("user-{user}")));
        let scope = ScopeSet::parse(SCOPE)?;
        if case == Case::Refresh {
            let family = format!("grant-{user}");
            let mut record =
                RefreshTokenRecord::new(&token, ClientId::new(APP), subject, scope, family);
            record.resource = vec![RESOURCE.to_owned()];
            record.grant_established_at = now;
            if server.store().put_refresh_token(record).await?.is_refused() {
                return Err("a refresh token was not stored".into());
            }
            issued.push(token);
            continue;
        }
        let mut record =
            IssuedToken::new(&token, ClientId::new(APP), subject, scope, now, now + life);
        record.resource = vec![RESOURCE.to_owned()];
        record.grant_established_at = now;
        if server.store().put_token(record).await?.is_refused() {
            return Err("a token was not stored".into());
        }
        issued.push(token);
    }
    let service = ServiceBuilder::new(Arc::new(server)).build()?;
    Ok(Prepared { router: Router::from(service), tokens: issued })
}

fn client(login: &Login) -> Result<Client, Failure> {
    let scope = ScopeSet::parse(SCOPE)?;
    Ok(Client {
        client_id: ClientId::new(login.id),
        auth: ClientAuth::ConfidentialSecretHash { hash: SecretHash::sha256(login.secret) },
        grant_types: vec![GrantType::ClientCredentials],
        redirect_uris: Vec::new(),
        allowed_scopes: scope.clone(),
        default_scopes: scope,
        name: None,
        registration: None,
    })
}

/// The client with the tokens of many users.
fn app() -> Result<Client, Failure> {
    Ok(Client {
        client_id: ClientId::new(APP),
        auth: ClientAuth::Public,
        grant_types: vec![GrantType::AuthorizationCode, GrantType::RefreshToken],
        ..client(&BATCH)?
    })
}

/// As the crate itself spells its tokens.
fn random_token() -> Result<String, Failure> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
