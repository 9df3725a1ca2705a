//! What only shows from inside: a source of random bytes that fails, a sweep that has not come yet.

use std::sync::Arc;

use cloakroom_core::revocation::RevocationBatch;
use cloakroom_core::time::ManualClock;
use cloakroom_core::{Audience, ClientId, Subject};
use futures_util::FutureExt;

use super::*;

const NOW: UnixTime = UnixTime::from_secs(1_700_000_000);
const END: UnixTime = UnixTime::from_secs(1_700_000_100);

struct Broken;

impl rand_core::TryRng for Broken {
    type Error = std::io::Error;

    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        Err(std::io::Error::other("broken"))
    }

    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        Err(std::io::Error::other("broken"))
    }

    fn try_fill_bytes(&mut self, _: &mut [u8]) -> Result<(), Self::Error> {
        Err(std::io::Error::other("broken"))
    }
}

impl rand_core::TryCryptoRng for Broken {}

fn store(random: Random) -> MemoryStore {
    MemoryStore::with_random(Arc::new(ManualClock::at(NOW)), random)
}

fn client() -> ClientId {
    ClientId::new("app").unwrap()
}

fn revocation() -> Revocation {
    Revocation::new(Target::Client(client()), NOW, END)
}

fn ready<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().unwrap()
}

#[test]
fn without_random_bytes_a_revocation_fails_and_does_nothing() {
    let store = store(Random::from_rng(Broken));
    let revoked = ready(store.revoke(revocation())).unwrap_err();
    let beat = ready(store.heartbeat(NOW, END)).unwrap_err();
    for error in [revoked, beat] {
        assert!(matches!(error, StoreError::Unavailable { .. }), "{error:?}");
        assert!(std::error::Error::source(&error).is_some());
    }
    let rules = ready(store.rules(vec![RuleKey::Client(client())])).unwrap();
    assert!(rules.rules.is_empty());
    assert_eq!(rules.newest_bound.get(), NOW.as_millis());
    let batch = ready(store.revocations(Cursor::start(), 10)).unwrap();
    let RevocationBatch::Entries { entries, .. } = batch else {
        panic!("a gap");
    };
    assert!(entries.is_empty());
}

#[test]
fn listings_apply_a_rule_whose_sweep_has_not_come_yet() {
    let store = store(Random::system());
    let id = GrantId::from_bytes([1; 16]);
    let (subject, audience) =
        (Subject::user("alice").unwrap(), Audience::one("https://orders.example").unwrap());
    let mut grant = GrantRecord::new(id, client(), subject, audience, NOW, END);
    grant.epoch = store.0.revocation_log.rules(vec![]).newest_bound.following();
    let _ = ready(store.create(grant, vec![])).unwrap();
    let page = PageRequest { after: None, limit: 10 };
    let list = || ready(store.list(Selector::Client(client()), page, NOW)).unwrap();
    assert_eq!(list().grants.len(), 1);

    let entry = store.0.entry_id().unwrap();
    store.0.revocation_log.record(entry, &revocation());
    let Lookup::Found(found) = ready(store.find(id, None)).unwrap() else {
        panic!("it is there");
    };
    assert_eq!(found.grant.revoked_at, None, "not swept");
    assert!(list().grants.is_empty());
}
