//! What the tests are made of.

use std::time::Duration;

use cloakroom_core::record::{Chain, ChainKey, GrantRecord, TokenRecord};
use cloakroom_core::revocation::{Epoch, Revocation, Target};
use cloakroom_core::store::{Advance, ChainUpdate, TokenStore, TokenStoreExt as _};
use cloakroom_core::time::UnixTime;
use cloakroom_core::{Audience, ClientId, GrantId, Random, Scope, Subject, TokenDigest, TokenKind};
use cloakroom_redis::redis::aio::MultiplexedConnection;
use cloakroom_redis::redis::{AsyncConnectionConfig, Client, Cmd, FromRedisValue, cmd};

/// Ahead of the server's clock, so that nothing expires by itself.
pub(crate) const NOW: UnixTime = UnixTime::from_secs(2_000_000_000);
pub(crate) const DAY: Duration = Duration::from_secs(86_400);

/// The server for tests.
pub(crate) fn url() -> String {
    std::env::var("CLOAKROOM_TEST_REDIS_URL")
        .expect("CLOAKROOM_TEST_REDIS_URL names a server; `cargo xtask test` starts one")
}

/// A key prefix that no other test uses.
pub(crate) fn prefix() -> String {
    let bytes: [u8; 8] = Random::system().array().unwrap();
    format!("t{:016x}", u64::from_be_bytes(bytes))
}

/// A connection beside those of the stores.
pub(crate) async fn connection(url: &str) -> MultiplexedConnection {
    let client = Client::open(url).unwrap();
    let config = AsyncConnectionConfig::new().set_response_timeout(Some(Duration::from_secs(30)));
    client.get_multiplexed_async_connection_with_config(&config).await.unwrap()
}

pub(crate) async fn ask<T: FromRedisValue>(url: &str, command: &Cmd) -> T {
    command.query_async(&mut connection(url).await).await.unwrap()
}

/// All keys below a prefix.
pub(crate) async fn keys(url: &str, prefix: &str) -> Vec<Vec<u8>> {
    let mut connection = connection(url).await;
    let (mut cursor, mut found) = (0_u64, Vec::new());
    loop {
        let mut scan = cmd("SCAN");
        scan.arg(cursor).arg("MATCH").arg(format!("{{{prefix}*")).arg("COUNT").arg(1000);
        let (next, keys): (u64, Vec<Vec<u8>>) = scan.query_async(&mut connection).await.unwrap();
        found.extend(keys);
        cursor = next;
        if cursor == 0 {
            found.sort();
            found.dedup();
            return found;
        }
    }
}

/// The key of a grant.
pub(crate) fn grant_key(prefix: &str, id: GrantId) -> Vec<u8> {
    let bucket = id.as_bytes()[0] / 4;
    [format!("{{{prefix}.{bucket:02x}}}:g:").as_bytes(), id.as_bytes()].concat()
}

pub(crate) fn digest() -> TokenDigest {
    TokenDigest::from_bytes(Random::system().array().unwrap())
}

/// A grant with a chain, that begins now.
pub(crate) async fn grant(store: &dyn TokenStore, subject: &str, client: &str) -> GrantRecord {
    grant_of(store.epoch().await.unwrap(), subject, client)
}

pub(crate) fn grant_of(epoch: Epoch, subject: &str, client: &str) -> GrantRecord {
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
    grant.epoch = epoch;
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
