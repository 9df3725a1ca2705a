//! Records, and the way to call an asynchronous store from plain threads.

use std::sync::Arc;
use std::time::Duration;

use cloakroom_core::record::{Chain, ChainKey, GrantRecord, TokenRecord};
use cloakroom_core::revocation::{Cursor, Epoch, LogEntry, Revocation, RevocationBatch, Target};
use cloakroom_core::store::{Advance, CreateOutcome, Found, Lookup, TokenStore};
use cloakroom_core::store::{ChainUpdate, StoreError};
use cloakroom_core::time::{ManualClock, UnixTime};
use cloakroom_core::{Audience, ClientId, GrantId, Random, Scope, Subject, TokenDigest, TokenKind};
use cloakroom_memory::MemoryStore;
use futures_util::FutureExt;

pub(crate) const NOW: UnixTime = UnixTime::from_secs(1_700_000_000);

/// The result of a call. Every method must be done at the first poll: that is how the store keeps
/// its promise on cancellation.
pub(crate) fn ready<T>(future: impl Future<Output = Result<T, StoreError>>) -> T {
    poll(future).unwrap()
}

pub(crate) fn poll<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().expect("done at the first poll")
}

pub(crate) fn is_misuse<T>(future: impl Future<Output = Result<T, StoreError>>) -> bool {
    matches!(poll(future), Err(StoreError::Misuse(_)))
}

pub(crate) fn store() -> MemoryStore {
    MemoryStore::with_clock(Arc::new(ManualClock::at(NOW)))
}

pub(crate) fn secs(seconds: u64) -> UnixTime {
    NOW + Duration::from_secs(seconds)
}

pub(crate) fn alice() -> Subject {
    Subject::user("alice").unwrap()
}

pub(crate) fn app() -> ClientId {
    ClientId::new("app").unwrap()
}

pub(crate) fn id(seed: u64) -> GrantId {
    // Spread over the shards, and ordered by seed, if that is below 1,024.
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&(seed << 54).to_be_bytes());
    bytes[8..].copy_from_slice(&seed.to_be_bytes());
    GrantId::from_bytes(bytes)
}

pub(crate) fn digest(seed: u64) -> TokenDigest {
    TokenDigest::compute(TokenKind::Access, &seed.to_be_bytes())
}

/// A grant of `alice` to `app`, at the epoch of a store at [`NOW`], that ends after 1,000 s. Its
/// chain stands at generation 0 and ends after 500 s.
pub(crate) fn grant(seed: u64) -> GrantRecord {
    let audience = Audience::one("https://orders.example").unwrap();
    let mut grant = GrantRecord::new(id(seed), app(), alice(), audience, NOW, secs(1_000));
    grant.scope = Scope::parse("read").unwrap();
    grant.epoch = Epoch::new(NOW.as_millis()).following();
    let key = ChainKey::random(&Random::system()).unwrap();
    grant.chain = Some(Chain::new(TokenKind::Refresh, digest(0), key, secs(500)));
    grant
}

/// A token of the grant that ends after 100 s.
pub(crate) fn token(grant: &GrantRecord, seed: u64) -> TokenRecord {
    TokenRecord::new(digest(seed), grant, NOW, secs(100))
}

/// The record after one more rotation, to a credential that `seed` names.
pub(crate) fn moved(grant: &GrantRecord, seed: u64) -> GrantRecord {
    let mut next = grant.clone();
    let chain = next.chain.as_mut().unwrap();
    chain.generation += 1;
    chain.digest = digest(seed);
    next
}

pub(crate) fn step(grant: &GrantRecord, change: ChainUpdate, tokens: Vec<TokenRecord>) -> Advance {
    Advance {
        grant: grant.id,
        expected: grant.chain.as_ref().unwrap().position(),
        now: NOW,
        change,
        tokens,
    }
}

pub(crate) fn move_to(grant: &GrantRecord, next: &GrantRecord) -> Advance {
    step(grant, ChainUpdate::Move(Box::new(next.clone())), vec![])
}

pub(crate) fn revocation(target: Target) -> Revocation {
    Revocation::new(target, NOW, secs(2_000))
}

pub(crate) fn revoke(store: &MemoryStore, target: Target) {
    ready(store.revoke(revocation(target)));
}

pub(crate) fn insert(store: &MemoryStore, grant: &GrantRecord, tokens: &[TokenRecord]) {
    let created = ready(store.create(grant.clone(), tokens.to_vec()));
    assert_eq!(created, CreateOutcome::Inserted);
}

pub(crate) fn found(store: &MemoryStore, grant: GrantId, token: Option<TokenDigest>) -> Found {
    match ready(store.find(grant, token)) {
        Lookup::Found(found) => found,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn is_revoked(store: &MemoryStore, grant: GrantId) -> bool {
    found(store, grant, None).grant.revoked_at.is_some()
}

pub(crate) fn newest_bound(store: &MemoryStore) -> Epoch {
    ready(store.rules(vec![])).newest_bound
}

/// The entries after the cursor, and the cursor after them.
pub(crate) fn read(
    store: &MemoryStore,
    after: Cursor,
    limit: u32,
) -> (Vec<LogEntry>, Cursor, bool) {
    match ready(store.revocations(after, limit)) {
        RevocationBatch::Entries { entries, next, more, .. } => (entries, next, more),
        RevocationBatch::Gap => panic!("a gap"),
    }
}
