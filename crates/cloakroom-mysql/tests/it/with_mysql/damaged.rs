//! One damaged row stops nothing: whatever is damaged in it, whichever method meets it.

use cloakroom_core::keys::schedule::KeyTimes;
use cloakroom_core::keys::{KeyInserted, KeyRecord, KeyStore as _, KeyUpdated};
use cloakroom_core::record::{GrantRecord, TokenRecord};
use cloakroom_core::revocation::{Cursor, RevocationBatch, RuleKey, Target};
use cloakroom_core::store::{
    AdvanceOutcome, CheckValues as _, CreateOutcome, Housekeeping, Lookup, PageRequest, Selector,
    StoreError, TokenStore as _, TokenStoreExt as _,
};
use cloakroom_core::{ClientId, GrantId, Kid, Subject};
use cloakroom_mysql::MysqlStore;

use crate::server::{Admin, Tables, hex};
use crate::support::{DAY, NOW, grant, revocation, step, token};

/// What befalls the row of one grant, or one that hangs off it, as SQL with the grant as `?`.
const OF_THE_GRANT: &[(&str, &str)] = &[
    ("a body of junk", "UPDATE ~grants SET body = X'ff00ff' WHERE id = ?"),
    ("an empty body", "UPDATE ~grants SET body = '' WHERE id = ?"),
    ("a body cut short", "UPDATE ~grants SET body = SUBSTRING(body, 1, 40) WHERE id = ?"),
    ("no chain", "UPDATE ~grants SET digest = NULL WHERE id = ?"),
];

/// Damage elsewhere, which no method may stumble over.
const ELSEWHERE: &[(&str, &str)] = &[
    ("a client that is no text", "UPDATE ~grants SET client = X'ff' WHERE id = ?"),
    ("a subject that is none", "UPDATE ~grants SET subject = X'00' WHERE id = ?"),
    ("a token without a body", "UPDATE ~tokens SET body = '' WHERE grant_id = ?"),
    ("a token of no grant", "UPDATE ~tokens SET grant_id = X'04' WHERE grant_id = ?"),
    ("a rule on nothing", "INSERT INTO ~rules SELECT X'06', 1, 0 FROM DUAL WHERE ? IS NOT NULL"),
    (
        "a sweep of nothing",
        "INSERT INTO ~sweeps SELECT 1 << 40, '', X'07', 0, 0, '' FROM DUAL WHERE ? IS NOT NULL",
    ),
    (
        "a sweep of a JWT",
        "INSERT INTO ~sweeps SELECT 1 << 40, '', X'6a000161', 0, 0, '' FROM DUAL \
         WHERE ? IS NOT NULL",
    ),
];

/// Alice's five sessions at one client, and one of bob's; the third of alice's is damaged.
struct Scene {
    tables: Tables,
    store: MysqlStore,
    grants: Vec<GrantRecord>,
    tokens: Vec<TokenRecord>,
}

impl Scene {
    async fn new() -> Self {
        let (tables, store) = crate::server::store().await;
        let (mut grants, mut tokens) = (Vec::new(), Vec::new());
        for subject in ["alice", "alice", "alice", "alice", "alice", "bob"] {
            let grant = grant(&store, subject, "app").await;
            let token = token(&grant);
            let created = store.create(grant.clone(), vec![token.clone()]).await.unwrap();
            assert_eq!(created, CreateOutcome::Inserted);
            grants.push(grant);
            tokens.push(token);
        }
        Self { tables, store, grants, tokens }
    }

    async fn damage(&self, sql: &str) {
        let id = hex(self.damaged().id.as_bytes());
        let changed = Admin::connect().await.run(self.tables.sql(sql).replace('?', &id)).await;
        assert_eq!(changed, 1, "{sql}");
    }

    fn damaged(&self) -> &GrantRecord {
        &self.grants[2]
    }

    fn whole(&self) -> impl Iterator<Item = (&GrantRecord, &TokenRecord)> {
        let pairs = self.grants.iter().zip(&self.tokens);
        pairs.enumerate().filter(|(at, _)| *at != 2).map(|(_, pair)| pair)
    }

    async fn lives(&self, grant: &GrantRecord, token: &TokenRecord) -> bool {
        match self.store.find(grant.id, Some(token.digest)).await.unwrap() {
            Lookup::Found(found) => found.grant.is_live(NOW) && found.token.is_some(),
            other => panic!("{other:?}"),
        }
    }

    async fn listed(&self, of: Selector) -> (Vec<GrantId>, Vec<GrantId>) {
        let (mut ids, mut unreadable, mut page) =
            (vec![], vec![], PageRequest { after: None, limit: 2 });
        loop {
            let listing = self.store.list(of.clone(), page, NOW).await.unwrap();
            ids.extend(listing.grants.iter().map(|grant| grant.id));
            unreadable.extend(listing.unreadable);
            match listing.next {
                Some(next) => page.after = Some(next),
                None => return (ids, unreadable),
            }
        }
    }

    /// Every method, as far as it is not about the damaged grant, does what it always does.
    async fn goes_on(&self, what: &str) {
        let store = &self.store;
        for (grant, token) in self.whole() {
            assert!(self.lives(grant, token).await, "{what}");
        }
        let whole = |subject: &str| {
            let of = Subject::user(subject).unwrap();
            let mut ids: Vec<_> =
                self.whole().map(|(grant, _)| grant).filter(|grant| grant.subject == of).collect();
            ids.sort_unstable_by_key(|grant| grant.id);
            ids.iter().map(|grant| grant.id).collect::<Vec<_>>()
        };
        let alice = Selector::Subject(Subject::user("alice").unwrap());
        let mut listed = self.listed(alice).await.0;
        listed.retain(|id| *id != self.damaged().id);
        assert_eq!(listed, whole("alice"), "{what}");
        // A step, a new grant, a look at the rules, a heartbeat, the log.
        let (next, _) = step(&self.grants[5]);
        assert_eq!(store.advance(next).await.unwrap(), AdvanceOutcome::Advanced, "{what}");
        let other = grant(store, "carol", "app").await;
        assert_eq!(store.create(other, vec![]).await.unwrap(), CreateOutcome::Inserted, "{what}");
        let key = RuleKey::Client(ClientId::new("app").unwrap());
        assert!(store.rules(vec![key]).await.unwrap().rules.is_empty(), "{what}");
        store.heartbeat(NOW, NOW + DAY).await.unwrap();
        let log = store.revocations(Cursor::start(), 100).await.unwrap();
        assert!(matches!(log, RevocationBatch::Entries { .. }), "{what}");
        assert!(store.load().await.unwrap().is_empty(), "{what}");
        assert!(store.check_values().await.unwrap().is_empty(), "{what}");
    }

    /// Alice logs out everywhere; then all that has ended is deleted.
    async fn ends(&self, what: &str) {
        let store = &self.store;
        let alice = Target::Subject(Subject::user("alice").unwrap());
        store.revoke(revocation(alice)).await.unwrap();
        for (grant, token) in self.whole() {
            let lives = self.lives(grant, token).await;
            assert_eq!(lives, grant.subject == Subject::user("bob").unwrap(), "{what}");
        }
        let end = NOW + 9 * DAY;
        let task = Housekeeping { now: end, before: end, limit: 1_000, sweep: None };
        let mut calls = 0;
        while store.maintain(task).await.unwrap().more {
            calls += 1;
            assert!(calls < 50, "{what}: housekeeping has no end");
        }
        for (grant, _) in self.whole() {
            assert_eq!(store.find(grant.id, None).await.unwrap(), Lookup::Absent, "{what}");
        }
    }
}

#[tokio::test]
async fn a_damaged_grant_is_an_error_is_revoked_and_goes() {
    for (what, sql) in OF_THE_GRANT {
        let scene = Scene::new().await;
        scene.damage(sql).await;
        scene.goes_on(what).await;
        let (store, damaged) = (&scene.store, scene.damaged());
        let corrupt = |error: StoreError| assert!(matches!(error, StoreError::Corrupt { .. }));
        corrupt(store.find(damaged.id, None).await.unwrap_err());
        corrupt(store.find(damaged.id, Some(scene.tokens[2].digest)).await.unwrap_err());
        corrupt(store.create(damaged.clone(), vec![]).await.unwrap_err());
        for of in
            [Selector::Subject(damaged.subject.clone()), Selector::Client(damaged.client.clone())]
        {
            assert_eq!(scene.listed(of).await.1, [damaged.id], "{what}");
        }
        scene.ends(what).await;
        assert_eq!(store.find(damaged.id, None).await.unwrap(), Lookup::Absent, "{what}: it stays");
    }
}

/// A step is judged by columns, and writes a whole record in the place of one that cannot be read.
#[tokio::test]
async fn a_step_mends_a_damaged_body() {
    for (what, sql) in OF_THE_GRANT {
        let scene = Scene::new().await;
        scene.damage(sql).await;
        let (step, next) = step(scene.damaged());
        match scene.store.advance(step).await {
            Ok(advanced) => {
                assert_eq!(advanced, AdvanceOutcome::Advanced, "{what}");
                let found = scene.store.find(next.id, None).await.unwrap();
                assert!(matches!(found, Lookup::Found(found) if *found.grant == next), "{what}");
            }
            Err(error) => {
                assert!(matches!(error, StoreError::Corrupt { .. }), "{what}: {error:?}");
                assert_eq!(*what, "no chain");
            }
        }
    }
}

#[tokio::test]
async fn the_revocation_of_a_damaged_grant_is_whole() {
    for target in [
        |grant: &GrantRecord| Target::Grant(grant.id),
        |grant: &GrantRecord| Target::Subject(grant.subject.clone()),
        |grant: &GrantRecord| Target::Client(grant.client.clone()),
        |grant: &GrantRecord| Target::SubjectAtClient(grant.subject.clone(), grant.client.clone()),
    ] {
        for (what, sql) in OF_THE_GRANT {
            let scene = Scene::new().await;
            scene.damage(sql).await;
            scene.store.revoke(revocation(target(scene.damaged()))).await.unwrap();
            let revoked =
                scene.tables.sql("SELECT revoked_at IS NOT NULL FROM ~grants WHERE id = ");
            let id = hex(scene.damaged().id.as_bytes());
            let revoked = Admin::connect().await.number(revoked + &id).await == 1;
            assert!(revoked, "{what}");
            let of = Selector::Client(scene.damaged().client.clone());
            assert_eq!(scene.listed(of).await.1, [], "{what}: what is revoked is not looked at");
        }
    }
}

#[tokio::test]
async fn damage_elsewhere_stops_nothing() {
    for (what, sql) in ELSEWHERE {
        let scene = Scene::new().await;
        scene.damage(sql).await;
        scene.goes_on(what).await;
        scene.ends(what).await;
    }
}

#[tokio::test]
async fn a_sweep_that_nobody_can_read_is_counted_and_forgotten() {
    for (what, sql) in ELSEWHERE.iter().filter(|(what, _)| what.starts_with("a sweep")) {
        let scene = Scene::new().await;
        scene.damage(sql).await;
        let task = Housekeeping { now: NOW, before: NOW - DAY, limit: 1_000, sweep: None };
        let first = scene.store.maintain(task).await.unwrap();
        assert_eq!((first.unreadable, first.more), (1, false), "{what}");
        assert_eq!(scene.store.maintain(task).await.unwrap().unreadable, 0, "{what}");
        assert!(scene.store.epoch().await.is_ok());
    }
}

#[tokio::test]
async fn a_damaged_signing_key_is_named_and_can_be_deleted() {
    for body in ["x'ff00ff'", "x''", "substr(body, 1, 40)"] {
        let (tables, store) = crate::server::store().await;
        for generation in 1..=3 {
            assert_eq!(store.insert(key(generation)).await.unwrap(), KeyInserted::Inserted);
        }
        let mut admin = Admin::connect().await;
        let sql = format!("UPDATE ~signing_keys SET body = {body} WHERE generation = 2");
        let sql = tables.sql(&sql);
        admin.run(&sql).await;

        // Nobody takes the ring for one that lacks the key.
        let error = store.load().await.unwrap_err();
        assert!(matches!(&error, StoreError::Corrupt { .. }), "{error:?}");
        let how = std::error::Error::source(&error).unwrap().to_string();
        assert!(how.starts_with("generation 2: "), "{how}");
        // The others can be written, and no generation comes back.
        let mut next = key(3);
        next.version = 2;
        next.compromised_at = Some(NOW);
        assert_eq!(store.update(next.clone(), 1).await.unwrap(), KeyUpdated::Updated);
        assert_eq!(store.delete(1, 1).await.unwrap(), KeyUpdated::Updated);
        assert_eq!(store.insert(key(2)).await.unwrap(), KeyInserted::Taken);
        // It can be mended, and deleted.
        let mut repaired = key(2);
        repaired.version = 2;
        assert_eq!(store.update(repaired.clone(), 1).await.unwrap(), KeyUpdated::Updated);
        assert_eq!(store.load().await.unwrap(), [repaired, next.clone()]);
        admin.run(&sql).await;
        assert_eq!(store.delete(2, 2).await.unwrap(), KeyUpdated::Updated);
        assert_eq!(store.load().await.unwrap(), [next]);
    }
}

fn key(generation: u64) -> KeyRecord {
    let kid = Kid::new(format!("key {generation}")).unwrap();
    let public = serde_json::json!({"kty": "EC"});
    let times = KeyTimes::published(NOW);
    KeyRecord::new(generation, kid, "ES256", public, vec![1, 2, 3], times)
}
