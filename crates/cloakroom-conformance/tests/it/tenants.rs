//! Tenants pass the kit, and do not reach each other.
#![allow(clippy::unwrap_used, reason = "what is shared by tests fails as they do")]

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use cloakroom_conformance::{Factory, run_all};
use cloakroom_core::keys::schedule::KeyTimes;
use cloakroom_core::keys::*;
use cloakroom_core::record::*;
use cloakroom_core::revocation::*;
use cloakroom_core::store::*;
use cloakroom_core::time::*;
use cloakroom_core::*;
use cloakroom_memory::{MemorySingleUse, MemoryStore};

type Tenant = TenantStore<MemoryStore>;

const NOW: UnixTime = UnixTime::from_millis(1_700_000_000_000);
/// Beyond what the kit takes for now when it deletes what has ended.
const LATER: UnixTime = UnixTime::MAX;

fn tenant(store: &Arc<MemoryStore>, name: &str) -> Tenant {
    TenantStore::new(Arc::clone(store), name).unwrap()
}

fn two() -> (Arc<MemoryStore>, Tenant, Tenant) {
    let store = Arc::new(MemoryStore::new());
    let (one, other) = (tenant(&store, "acme"), tenant(&store, "globex"));
    (store, one, other)
}

#[test]
fn a_tenant_leaves_room_for_its_name_in_front_of_identifiers() {
    let (_, one, _) = two();
    assert_eq!(one.name(), "acme");
    // `acme` and a character behind it; before the name of a check value, also `tenant/`.
    assert_eq!(one.max_id_bytes(), MAX_ID_BYTES - 5);
    assert_eq!(one.max_name_bytes(), CheckValue::MAX_NAME_BYTES - 12);
}

fn alice() -> Subject {
    Subject::user("alice").unwrap()
}

fn app() -> ClientId {
    ClientId::new("app").unwrap()
}

/// A grant of Alice at "app", the same identifiers for every tenant, with a token.
fn sample(id: u8, epoch: Epoch) -> (GrantRecord, TokenRecord) {
    let audience = Audience::one("https://api.example").unwrap();
    let id = GrantId::from_bytes([id; 16]);
    let mut grant = GrantRecord::new(id, app(), alice(), audience, NOW, LATER);
    grant.epoch = epoch;
    let digest = TokenDigest::compute(TokenKind::Refresh, id.as_bytes());
    let key = ChainKey::random(&Random::system()).unwrap();
    grant.chain = Some(Chain::new(TokenKind::Refresh, digest, key, LATER));
    let digest = TokenDigest::compute(TokenKind::Access, id.as_bytes());
    let token = TokenRecord::new(digest, &grant, NOW, LATER);
    (grant, token)
}

async fn put(store: &dyn TokenStore, id: u8) -> (GrantRecord, TokenRecord) {
    let (grant, token) = sample(id, store.rules(vec![]).await.unwrap().newest_bound.following());
    let created = store.create(grant.clone(), vec![token.clone()]).await.unwrap();
    assert_eq!(created, CreateOutcome::Inserted);
    (grant, token)
}

async fn lives(store: &dyn TokenStore, grant: &GrantRecord) -> bool {
    match store.find(grant.id, None).await.unwrap() {
        Lookup::Found(found) => {
            assert_eq!((&found.grant.client, &found.grant.subject), (&app(), &alice()));
            found.grant.is_live(NOW)
        }
        _ => false,
    }
}

async fn log(store: &dyn TokenStore) -> Vec<LogEvent> {
    let (mut after, mut events) = (Cursor::start(), Vec::new());
    loop {
        // Pages of one: most of them are the other tenant's.
        match store.revocations(after, 1).await.unwrap() {
            RevocationBatch::Entries { entries, next, more, .. } => {
                assert!(!more || !entries.is_empty(), "an empty page, and not the last");
                events.extend(entries.into_iter().map(|entry| entry.event));
                after = next;
                if !more {
                    return events;
                }
            }
            RevocationBatch::Gap => panic!("a gap"),
        }
    }
}

fn key(generation: u64) -> KeyRecord {
    let kid = Kid::new(format!("key {generation}")).unwrap();
    let public = serde_json::json!({"kty": "EC"});
    let times = KeyTimes::published(NOW);
    KeyRecord::new(generation, kid, "ES256", public, vec![1, 2, 3], times)
}

async fn generations(store: &dyn KeyStore) -> Vec<u64> {
    store.load().await.unwrap().iter().map(|record| record.generation).collect()
}

/// A tenant of a store of its own each time, beside a neighbour who was there first.
#[derive(Debug, Default)]
struct Beside(Mutex<Vec<(Tenant, GrantRecord)>>);

impl Beside {
    async fn tenant(&self) -> Arc<Tenant> {
        let (_, own, neighbour) = two();
        let (grant, _) = put(&neighbour, 99).await;
        for target in [
            Target::Subject(Subject::user("bob").unwrap()),
            Target::Client(ClientId::new("other").unwrap()),
            Target::Jti(Jti::new("jti").unwrap()),
        ] {
            neighbour.revoke(Revocation::new(target, NOW, LATER)).await.unwrap();
        }
        for generation in [1, 7] {
            let inserted = neighbour.insert(key(generation)).await.unwrap();
            assert_eq!(inserted, KeyInserted::Inserted);
        }
        self.0.lock().unwrap().push((neighbour, grant));
        Arc::new(own)
    }
}

#[derive(Debug)]
struct Shared(Arc<Beside>);

#[async_trait]
impl Factory for Shared {
    async fn tokens(&self) -> Arc<dyn TokenStore> {
        self.0.tenant().await
    }

    async fn keys(&self) -> Arc<dyn KeyStore> {
        self.0.tenant().await
    }

    fn max_id_bytes(&self) -> usize {
        MAX_ID_BYTES - "acme/".len()
    }

    fn max_name_bytes(&self) -> usize {
        CheckValue::MAX_NAME_BYTES - "tenant/acme/".len()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_tenant_beside_another_passes() {
    let beside = Arc::new(Beside::default());
    run_all(Shared(Arc::clone(&beside))).await.assert_ok();
    // Whatever the kit did, the neighbours have what they had.
    let neighbours = std::mem::take(&mut *beside.0.lock().unwrap());
    assert!(neighbours.len() > 100);
    for (neighbour, grant) in neighbours {
        assert!(lives(&neighbour, &grant).await);
        assert_eq!(generations(&neighbour).await, [1, 7]);
    }
}

/// A tenant alone in its store.
#[derive(Debug)]
struct Alone;

#[async_trait]
impl Factory for Alone {
    async fn tokens(&self) -> Arc<dyn TokenStore> {
        Arc::new(two().1)
    }

    async fn keys(&self) -> Arc<dyn KeyStore> {
        Arc::new(two().1)
    }

    fn max_id_bytes(&self) -> usize {
        two().1.max_id_bytes()
    }

    fn max_name_bytes(&self) -> usize {
        two().1.max_name_bytes()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_tenant_alone_passes() {
    run_all(Alone).await.assert_ok();
}

#[tokio::test]
async fn a_grant_of_another_tenant_is_not_there() {
    let (_, one, other) = two();
    let (grant, token) = put(&one, 1).await;
    assert_eq!(other.find(grant.id, Some(token.digest)).await.unwrap(), Lookup::Absent);
    let position = grant.chain.as_ref().unwrap().position();
    let mut next = grant.clone();
    next.chain.as_mut().unwrap().generation = 1;
    let digest = TokenDigest::compute(TokenKind::Refresh, b"next");
    next.chain.as_mut().unwrap().digest = digest;
    let step = |expected, change| Advance {
        grant: grant.id,
        expected,
        now: NOW,
        change,
        tokens: Vec::new(),
    };
    let elsewhere = ChainPosition { generation: 7, ..position };
    for step in [
        step(position, ChainUpdate::Move(Box::new(next.clone()))),
        step(elsewhere, ChainUpdate::Move(Box::new(next.clone()))),
        step(elsewhere, ChainUpdate::Attach),
        Advance { now: LATER, ..step(elsewhere, ChainUpdate::Attach) },
    ] {
        assert_eq!(other.advance(step.clone()).await.unwrap(), AdvanceOutcome::Unknown, "{step:?}");
    }
    for target in [Target::Grant(grant.id), Target::Token { grant: grant.id, digest: token.digest }]
    {
        let done = other.revoke(Revocation::new(target, NOW, LATER)).await.unwrap();
        assert_eq!(done, RevokeOutcome::Done);
    }
    assert!(lives(&one, &grant).await);
    let found = one.find(grant.id, Some(token.digest)).await.unwrap();
    let Lookup::Found(Found { token: Some(found), .. }) = found else { panic!("{found:?}") };
    assert_eq!(found.revoked_at, None);
    assert_eq!((log(&one).await, log(&other).await), (vec![], vec![]));
    // A foreign token that both take over: the second is told.
    let again = other.create(grant.clone(), vec![token]).await;
    assert!(matches!(again, Err(StoreError::Misuse(_))), "{again:?}");
    let taken = one.advance(step(position, ChainUpdate::Move(Box::new(next)))).await.unwrap();
    assert_eq!(taken, AdvanceOutcome::Advanced);
}

#[tokio::test]
async fn what_one_tenant_revokes_another_does_not_notice() {
    let (_, one, other) = two();
    let (grant, _) = put(&one, 1).await;
    let jti = || Jti::new("jti").unwrap();
    let kid = || Kid::new("kid").unwrap();
    let targets = [
        Target::Subject(alice()),
        Target::Client(app()),
        Target::SubjectAtClient(alice(), app()),
        Target::Jti(jti()),
        Target::Key(kid()),
        Target::Grant(GrantId::from_bytes([8; 16])),
    ];
    for target in &targets {
        other.revoke(Revocation::new(target.clone(), NOW, LATER)).await.unwrap();
    }
    assert!(lives(&one, &grant).await);
    let keys = || targets.iter().filter_map(Target::rule_key).collect::<Vec<_>>();
    assert_eq!(one.rules(keys()).await.unwrap().rules, []);
    let mut known = other.rules(keys()).await.unwrap().rules;
    known.sort_by(|a, b| a.key.cmp(&b.key));
    let mut asked = keys();
    asked.sort();
    assert_eq!(known.into_iter().map(|rule| rule.key).collect::<Vec<_>>(), asked);

    let revocation = Revocation {
        client: Some(app()),
        grant: Some(grant.id),
        ..Revocation::new(Target::Jti(jti()), NOW, LATER)
    };
    one.revoke(revocation.clone()).await.unwrap();
    assert_eq!(log(&one).await, [revocation.event(None)]);
    let told: Vec<Target> = log(&other)
        .await
        .into_iter()
        .map(|event| match event {
            LogEvent::Revoked { target, client: None, .. } => target,
            event => panic!("{event:?}"),
        })
        .collect();
    assert_eq!(told, targets);
    // Heartbeats are everybody's.
    one.heartbeat(NOW, LATER).await.unwrap();
    assert_eq!(log(&other).await.last(), Some(&LogEvent::Heartbeat {}));
    let page = PageRequest { after: None, limit: 10 };
    for of in [
        Selector::Subject(alice()),
        Selector::Client(app()),
        Selector::SubjectAtClient(alice(), app()),
    ] {
        assert_eq!(other.list(of.clone(), page, NOW).await.unwrap().grants, []);
        let own = one.list(of, page, NOW).await.unwrap().grants;
        assert_eq!(
            own.iter().map(|own| (**own).clone()).collect::<Vec<_>>(),
            std::slice::from_ref(&grant)
        );
    }
}

#[tokio::test]
async fn a_tenant_scans_its_own_grants_alone() {
    let (_, one, other) = two();
    let mut own = Vec::new();
    for id in [1, 3, 4] {
        own.push(put(&one, id).await.0);
    }
    put(&other, 2).await;
    let scan = async |after, limit| {
        let Listing { grants, next, .. } =
            one.scan(PageRequest { after, limit }).await.unwrap().unwrap();
        (grants.into_iter().map(Arc::unwrap_or_clone).collect::<Vec<_>>(), next)
    };
    assert_eq!(scan(None, 10).await, (own.clone(), None));
    // A page has room for the grants of others, too, and ends where the store says.
    let second = GrantId::from_bytes([2; 16]);
    assert_eq!(scan(None, 2).await, (own[..1].to_vec(), Some(second)));
    assert_eq!(scan(Some(second), 2).await, (own[1..].to_vec(), None));
}

#[tokio::test]
async fn the_rings_of_tenants_are_apart() {
    let (store, one, other) = two();
    for generation in 1..=3 {
        for tenant in [&one, &other] {
            let inserted = tenant.insert(key(generation)).await.unwrap();
            assert_eq!(inserted, KeyInserted::Inserted);
            assert_eq!(tenant.insert(key(generation)).await.unwrap(), KeyInserted::Taken);
        }
    }
    assert_eq!(one.delete(3, 1).await.unwrap(), KeyUpdated::Updated);
    assert_eq!(one.delete(2, 1).await.unwrap(), KeyUpdated::Updated);
    assert_eq!(one.delete(3, 0).await.unwrap(), KeyUpdated::Stale, "it is emptied");
    assert_eq!(one.insert(key(3)).await.unwrap(), KeyInserted::Taken, "it was used before");
    assert_eq!((generations(&one).await, generations(&other).await), (vec![1], vec![1, 2, 3]));
    // What keeps the place of a deleted key holds no key, and goes with the next.
    let raw = |records: &[KeyRecord]| records.iter().filter(|own| own.sealed.is_empty()).count();
    assert_eq!(raw(&store.load().await.unwrap()), 1);
    assert_eq!(one.insert(key(4)).await.unwrap(), KeyInserted::Inserted);
    assert_eq!(raw(&store.load().await.unwrap()), 0);
    let mut changed = key(1);
    changed.version = 2;
    changed.sealed = vec![9];
    assert_eq!(one.update(changed.clone(), 1).await.unwrap(), KeyUpdated::Updated);
    assert_eq!(one.load().await.unwrap(), [changed, key(4)]);
    assert_eq!(other.load().await.unwrap(), [key(1), key(2), key(3)]);
    // Records deleted by hand: the next key is found a place above them.
    for record in store.load().await.unwrap() {
        assert_eq!(
            store.delete(record.generation, record.version).await.unwrap(),
            KeyUpdated::Updated
        );
    }
    for tenant in [&one, &other] {
        assert_eq!(tenant.insert(key(9)).await.unwrap(), KeyInserted::Inserted);
        assert_eq!(generations(tenant).await, [9]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn tenants_that_insert_at_once_take_nothing_from_each_other() {
    let store = Arc::new(MemoryStore::new());
    for generation in 1..=20 {
        let nodes: Vec<_> = (0..8)
            .map(|number| {
                let tenant = tenant(&store, ["acme", "globex", "initech", "umbrella"][number / 2]);
                tokio::spawn(async move { tenant.insert(key(generation)).await.unwrap() })
            })
            .collect();
        let mut inserted = 0;
        for node in nodes {
            inserted += usize::from(node.await.unwrap() == KeyInserted::Inserted);
        }
        assert_eq!(inserted, 4, "one node of each tenant");
    }
}

#[tokio::test]
async fn what_is_good_once_is_good_once_at_each() {
    let store = Arc::new(MemorySingleUse::new());
    let tenants =
        ["acme", "globex"].map(|name| TenantStore::new(Arc::clone(&store), name).unwrap());
    let id = SingleUse { purpose: "dpop", owner: "a key", value: b"a jti" }.id();
    let spend = Spend { id, until: LATER, now: NOW };
    for tenant in &tenants {
        assert_eq!(tenant.spend(spend).await.unwrap(), Spent::First);
        assert_eq!(tenant.spend(spend).await.unwrap(), Spent::Again);
    }
}

#[tokio::test]
async fn check_values_are_apart_and_names_bounded() {
    let (store, one, other) = two();
    assert!(one.set_check_value("issuer", None, Some(b"a")).await.unwrap());
    assert_eq!(other.check_values().await.unwrap(), []);
    assert_eq!(other.claim("issuer", b"b").await.unwrap(), None);
    assert_eq!(one.claim("issuer", b"c").await.unwrap(), Some(b"a".to_vec()));
    let value = |value: &[u8]| CheckValue { name: "issuer".into(), value: value.into() };
    assert_eq!(one.check_values().await.unwrap(), [value(b"a")]);
    assert_eq!(other.check_values().await.unwrap(), [value(b"b")]);
    for bad in ["", "a/b", "é", "a b", &"x".repeat(33)] {
        assert!(TenantStore::new(Arc::clone(&store), bad).is_err(), "{bad}");
    }
    // One name may begin like another.
    let longer = tenant(&store, "acme2");
    assert_eq!(longer.check_values().await.unwrap(), []);

    let fits = "x".repeat(one.max_id_bytes());
    let find = |user: &str| Selector::Subject(Subject::user(user).unwrap());
    let page = PageRequest { after: None, limit: 1 };
    one.list(find(&fits), page, NOW).await.unwrap();
    let refused = one.list(find(&(fits + "x")), page, NOW).await.unwrap_err();
    assert!(refused.to_string().contains("255 bytes"), "{refused}");
    let (grant, _) = sample(1, Epoch::new(u64::MAX));
    let long = Subject::user("x".repeat(MAX_ID_BYTES)).unwrap();
    let refused = one
        .create(
            {
                let mut grant = grant;
                grant.subject = long;
                grant
            },
            vec![],
        )
        .await;
    assert!(matches!(refused, Err(StoreError::Misuse(_))), "{refused:?}");
}
