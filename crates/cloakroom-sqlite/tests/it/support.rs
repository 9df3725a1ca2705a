//! What the tests are made of.

use std::time::Duration;

use cloakroom_core::record::{Chain, ChainKey, GrantRecord, TokenRecord};
use cloakroom_core::revocation::{Revocation, Target};
use cloakroom_core::store::{Advance, ChainUpdate, TokenStore, TokenStoreExt as _};
use cloakroom_core::time::UnixTime;
use cloakroom_core::{Audience, ClientId, GrantId, Random, Scope, Subject, TokenDigest, TokenKind};
use cloakroom_sqlite::SqliteStore;
use tempfile::TempDir;

pub(crate) const NOW: UnixTime = UnixTime::from_secs(2_000_000_000);
pub(crate) const DAY: Duration = Duration::from_secs(86_400);

pub(crate) fn digest() -> TokenDigest {
    TokenDigest::from_bytes(Random::system().array().unwrap())
}

/// A grant with a chain, that begins now.
pub(crate) async fn grant(store: &dyn TokenStore, subject: &str, client: &str) -> GrantRecord {
    let random = Random::system();
    let mut grant = GrantRecord::new(
        GrantId::random(&random).unwrap(),
        ClientId::new(client).unwrap(),
        Subject::user(subject).unwrap(),
        Audience::one("https://orders.example").unwrap(),
        NOW,
        NOW + DAY,
    );
    let key = ChainKey::random(&random).unwrap();
    grant.chain = Some(Chain::new(TokenKind::Refresh, digest(), key, NOW + DAY));
    grant.scope = Scope::parse("orders:read orders:write").unwrap();
    grant.epoch = store.epoch().await.unwrap();
    grant
}

pub(crate) fn token(grant: &GrantRecord) -> TokenRecord {
    TokenRecord::new(digest(), grant, NOW, NOW + Duration::from_secs(600))
}

/// The step that moves the chain of this grant on, and the grant after it.
pub(crate) fn step(grant: &GrantRecord) -> (Advance, GrantRecord) {
    let expected = grant.chain.as_ref().unwrap().position();
    let mut next = grant.clone();
    let chain = next.chain.as_mut().unwrap();
    chain.generation += 1;
    chain.digest = digest();
    let change = ChainUpdate::Move(Box::new(next.clone()));
    let tokens = vec![token(&next)];
    (Advance { grant: grant.id, expected, now: NOW, change, tokens }, next)
}

pub(crate) fn revocation(target: Target) -> Revocation {
    Revocation::new(target, NOW, NOW + 2 * DAY)
}

/// A store in a folder of its own.
pub(crate) struct Scene {
    pub(crate) folder: TempDir,
    pub(crate) store: SqliteStore,
}

impl Scene {
    pub(crate) fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let store = SqliteStore::open(folder.path().join("tokens.db")).unwrap();
        Self { folder, store }
    }
}
