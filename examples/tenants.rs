//! Three issuers over one database, with the same client and user names, but separate data.
//!
//! ```text
//! cargo run --release --example tenants
//! ```

use std::sync::Arc;

use cloakroom::Caller::Internal;
use cloakroom::core::store::TenantStore;
use cloakroom::jwt::AesGcmSealer;
use cloakroom::sqlite::SqliteStore;
use cloakroom::{
    BuildError, Client, Format, Grant, GrantType, HandleKeys, HandleSecret, Issuer, Subject,
    TokenResponse,
};

type Failure = Box<dyn std::error::Error>;

const NAMES: [&str; 3] = ["acme", "globex", "initech"];

fn url(name: &str) -> String {
    format!("https://as.example/{name}")
}

/// The issuer with this URL, over this tenant's part of the store.
async fn issuer(store: &Arc<SqliteStore>, tenant: &str, url: String) -> Result<Issuer, Failure> {
    // From your secret store. Tenants may share these secrets: what is derived from them depends on
    // the issuer's URL, and is valid nowhere else.
    let (handle_secret, sealing_key) = ([1; 32], [2; 32]);
    let app = Client::public("app")
        .grant_types([GrantType::RefreshToken])
        .scope("orders:read")
        .audience("https://orders.example", Format::Opaque);
    let issuer = Issuer::builder(url)
        .store(Arc::new(TenantStore::new(Arc::clone(store), tenant)?))
        .handle_keys(HandleKeys::new(&HandleSecret::new(1, handle_secret)))
        .sealer(Arc::new(AesGcmSealer::new(1, sealing_key)))
        .static_clients([app])?
        .build()
        .await?;
    Ok(issuer)
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let folder = tempfile::tempdir()?;
    let store = Arc::new(SqliteStore::open(folder.path().join("tokens.db"))?);

    // Each tenant has a user `alice`, who signs in at its client `app`.
    let mut tenants: Vec<(Issuer, TokenResponse)> = Vec::new();
    for name in NAMES {
        let issuer = issuer(&store, name, url(name)).await?;
        let tokens = issuer.issue(Grant::user("app", "alice")?).await?;
        println!("{name}: alice has signed in at {}", issuer.url());
        tenants.push((issuer, tokens));
    }

    // A token is valid only at the issuer that made it.
    for (at, (issuer, _)) in tenants.iter().enumerate() {
        for (of, (_, tokens)) in tenants.iter().enumerate() {
            let answer = issuer.introspect(&tokens.access_token, Internal).await?;
            assert_eq!(answer.is_active(), at == of);
        }
    }
    println!("each token is active only at its own issuer");

    // So are the keys that sign JWTs.
    let jwks = [tenants[0].0.jwks().await?, tenants[1].0.jwks().await?];
    assert_ne!(jwks[0].json, jwks[1].json);

    // "Log out everywhere" is everywhere at one issuer.
    let alice = Subject::user("alice")?;
    tenants[0].0.revoke_subject(&alice).await?;
    let mut left = Vec::new();
    for (issuer, _) in &tenants {
        left.push(issuer.sessions(&alice).await?.len());
    }
    assert_eq!(left, [0, 1, 1]);
    println!("acme's alice has logged out everywhere; the other sessions are still active");

    // One maintenance run deletes rows and writes heartbeats for the whole database. It rotates the
    // signing keys of its own issuer only, so each issuer needs one.
    for (issuer, _) in &tenants {
        issuer.maintain().await?;
    }

    // `build()` refuses a mistake in the settings before users notice it.
    match issuer(&store, "acme", url("globex")).await.map_err(<dyn std::error::Error>::downcast) {
        Err(Ok(error)) if matches!(*error, BuildError::Setting { setting: "issuer", .. }) => {
            println!("refused: {error}");
        }
        other => return Err(format!("it was not refused: {other:?}").into()),
    }
    println!("tenants: ok");
    Ok(())
}
