//! Repeats by hand the revocations that a restored database has lost; see `docs/operations.md`.
//!
//! ```console
//! $ cargo run --example after_restore -- tokens.db subject alice
//! ```

use std::error::Error;
use std::sync::Arc;

use cloakroom::core::Kid;
use cloakroom::jwt::AesGcmSealer;
use cloakroom::sqlite::SqliteStore;
use cloakroom::{Client, ClientId, GrantId, HandleKeys, HandleSecret, Issuer, Subject};

const USAGE: &str =
    "after_restore <database> subject <user> | client <id> | grant <id> | key <kid> | rotate";

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let [database, order @ ..] = &arguments[..] else { return Err(USAGE.into()) };
    let issuer = open(database).await?;
    match order {
        ["subject", user] => issuer.revoke_subject(&Subject::user(user)?).await?,
        ["client", client] => issuer.revoke_client(&ClientId::new(client)?).await?,
        ["grant", grant] => issuer.revoke_grant(grant.parse::<GrantId>()?).await?,
        ["key", kid] => issuer.compromise_key(&Kid::new(kid)?).await?,
        ["rotate"] => drop(issuer.rotate_keys().await?),
        _ => return Err(USAGE.into()),
    }
    println!("done: {}", order.join(" "));
    Ok(())
}

/// An issuer over the restored database, with the secrets of your servers. These are demonstration
/// secrets: take yours from your secret store.
async fn open(database: &str) -> Result<Issuer, Box<dyn Error>> {
    let issuer = Issuer::builder("https://as.example")
        .store(Arc::new(SqliteStore::builder(database).open()?))
        .handle_keys(HandleKeys::new(&HandleSecret::new(1, [1; 32])))
        .sealer(Arc::new(AesGcmSealer::new(1, [2; 32])))
        // Nothing is issued here, so any client will do.
        .static_clients([Client::public("after-restore")])?
        .build()
        .await?;
    Ok(issuer)
}
