//! One damaged key stops nothing: whatever is damaged in it, whichever method meets it.

use cloakroom_core::record::{GrantRecord, TokenRecord};
use cloakroom_core::revocation::{Cursor, RevocationBatch, RuleKey, Target};
use cloakroom_core::store::{
    AdvanceOutcome, CreateOutcome, Housekeeping, Lookup, PageRequest, Selector, StoreError,
    TokenStore as _, TokenStoreExt as _,
};
use cloakroom_core::{ClientId, GrantId, Subject};
use cloakroom_redis::RedisStore;
use cloakroom_redis::redis::{Cmd, cmd};

use crate::support::{DAY, NOW, ask, grant, grant_key, prefix, revocation, step, token, url};
use crate::with_redis::kit::{damage, open};

/// Alice's five sessions at one client, and one of bob's; the third of alice's is damaged.
struct Scene {
    prefix: String,
    store: RedisStore,
    grants: Vec<GrantRecord>,
    tokens: Vec<TokenRecord>,
}

impl Scene {
    async fn new() -> Self {
        let prefix = prefix();
        let store = open(&url(), &prefix).await;
        let (mut grants, mut tokens) = (Vec::new(), Vec::new());
        for subject in ["alice", "alice", "alice", "alice", "alice", "bob"] {
            let grant = grant(&store, subject, "app").await;
            let token = token(&grant);
            let created = store.create(grant.clone(), vec![token.clone()]).await.unwrap();
            assert_eq!(created, CreateOutcome::Inserted);
            grants.push(grant);
            tokens.push(token);
        }
        Self { prefix, store, grants, tokens }
    }

    fn damaged(&self) -> &GrantRecord {
        &self.grants[2]
    }

    /// A key of the bucket of the damaged grant.
    fn beside(&self, name: &str) -> Vec<u8> {
        let bucket = self.damaged().id.as_bytes()[0] / 4;
        format!("{{{}.{bucket:02x}}}:{name}", self.prefix).into_bytes()
    }

    fn key(&self) -> Vec<u8> {
        grant_key(&self.prefix, self.damaged().id)
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
        let alice = Subject::user("alice").unwrap();
        let mut whole: Vec<_> = self.whole().map(|(grant, _)| grant).collect();
        whole.retain(|grant| grant.subject == alice);
        let mut whole: Vec<_> = whole.iter().map(|grant| grant.id).collect();
        whole.sort_unstable();
        let mut listed = self.listed(Selector::Subject(alice)).await.0;
        listed.retain(|id| *id != self.damaged().id);
        assert_eq!(listed, whole, "{what}");
        let (next, _) = step(&self.grants[5]);
        assert_eq!(store.advance(next).await.unwrap(), AdvanceOutcome::Advanced, "{what}");
        let other = grant(store, "carol", "app").await;
        assert_eq!(store.create(other, vec![]).await.unwrap(), CreateOutcome::Inserted, "{what}");
        let key = RuleKey::Client(ClientId::new("app").unwrap());
        assert!(store.rules(vec![key]).await.unwrap().rules.is_empty(), "{what}");
        store.heartbeat(NOW, NOW + DAY).await.unwrap();
        let log = store.revocations(Cursor::start(), 100).await.unwrap();
        assert!(matches!(log, RevocationBatch::Entries { .. }), "{what}");
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
        match store.find(self.damaged().id, None).await {
            Ok(Lookup::Found(found)) => assert!(found.grant.revoked_at.is_some(), "{what}"),
            Ok(_) | Err(StoreError::Corrupt { .. }) => {}
            Err(error) => panic!("{what}: {error:?}"),
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

/// The commands that damage something.
type Damage = fn(&Scene) -> Vec<Cmd>;

/// What befalls the key of a grant.
fn of_the_grant() -> Vec<(&'static str, Damage)> {
    fn value(scene: &Scene, value: &[u8]) -> Vec<Cmd> {
        let mut set = cmd("HSET");
        set.arg(scene.key()).arg("g").arg(value);
        vec![set]
    }
    vec![
        ("an empty value", |scene| value(scene, b"")),
        ("a value cut short", |scene| value(scene, &[1; 40])),
        ("a version of later", |scene| value(scene, &[9; 400])),
        ("junk", |scene| value(scene, &[&[1][..], &[0xff; 8], &[1; 400]].concat())),
        ("a tombstone of another length", |scene| value(scene, &[0; 12])),
        ("a key of another type", |scene| {
            let mut del = cmd("DEL");
            del.arg(scene.key());
            let mut set = cmd("SET");
            set.arg(scene.key()).arg("x");
            vec![del, set]
        }),
    ]
}

#[tokio::test]
async fn a_damaged_grant_is_an_error_is_revoked_and_stops_nothing() {
    for (what, commands) in of_the_grant() {
        let scene = Scene::new().await;
        for command in commands(&scene) {
            ask::<()>(&url(), &command).await;
        }
        scene.goes_on(what).await;
        let (store, damaged) = (&scene.store, scene.damaged());
        let is_corrupt = |error: StoreError| {
            assert!(matches!(error, StoreError::Corrupt { .. }), "{what}: {error:?}");
        };
        is_corrupt(store.find(damaged.id, None).await.unwrap_err());
        is_corrupt(store.find(damaged.id, Some(scene.tokens[2].digest)).await.unwrap_err());
        is_corrupt(store.advance(step(damaged).0).await.unwrap_err());
        is_corrupt(store.create(damaged.clone(), vec![]).await.unwrap_err());
        for of in
            [Selector::Subject(damaged.subject.clone()), Selector::Client(damaged.client.clone())]
        {
            assert_eq!(scene.listed(of).await.1, [damaged.id], "{what}");
        }
        scene.ends(what).await;
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
        for (what, commands) in of_the_grant() {
            let scene = Scene::new().await;
            for command in commands(&scene) {
                ask::<()>(&url(), &command).await;
            }
            scene.store.revoke(revocation(target(scene.damaged()))).await.unwrap();
            let lookup = scene.store.find(scene.damaged().id, None).await.unwrap();
            assert_eq!(lookup, Lookup::Tombstone, "{what}");
            let late = scene.store.create(scene.damaged().clone(), vec![]).await.unwrap();
            assert_eq!(late, CreateOutcome::Barred, "{what}");
            let of = Selector::Client(scene.damaged().client.clone());
            assert_eq!(scene.listed(of).await.1, [], "{what}: what is revoked is listed");
        }
    }
    // A body that cannot be read leaves the columns.
    let scene = Scene::new().await;
    damage(&url(), &scene.prefix, scene.damaged().id).await;
    scene.ends("a body of junk").await;
}

#[tokio::test]
async fn damage_elsewhere_stops_nothing() {
    fn member(scene: &Scene, name: &str) -> Cmd {
        let mut add = cmd("ZADD");
        add.arg(scene.beside(name)).arg(0).arg("short");
        add
    }
    let elsewhere: [(&str, Damage); 5] = [
        ("a token cut short", |scene| {
            let mut set = cmd("HSET");
            set.arg(scene.key()).arg(&scene.tokens[2].digest.as_bytes()[..]).arg("x");
            vec![set]
        }),
        ("a token of another name", |scene| {
            let mut set = cmd("HSET");
            set.arg(scene.key()).arg("name").arg("x");
            vec![set]
        }),
        ("ids of another length in the indexes", |scene| {
            let subject = Subject::user("alice").unwrap().to_key();
            let owner =
                |kind: &str| format!("{kind}:{}", if kind == "s" { &subject } else { "app" });
            vec![member(scene, "e"), member(scene, &owner("s")), member(scene, &owner("c"))]
        }),
        ("a grant that is gone", |scene| {
            let mut del = cmd("DEL");
            del.arg(scene.key());
            vec![del]
        }),
        ("work that nobody can read", |scene| {
            let [mut add, mut set] = [cmd("ZADD"), cmd("HSET")];
            add.arg(format!("{{{}}}:work-order", scene.prefix));
            add.arg(0).arg(&[1_u8; 16][..]).arg(0).arg(&[2_u8; 16][..]).arg(0).arg("short");
            set.arg(format!("{{{}}}:work", scene.prefix)).arg(&[1_u8; 16][..]).arg("junk");
            vec![add, set]
        }),
    ];
    for (what, commands) in elsewhere {
        let scene = Scene::new().await;
        for command in commands(&scene) {
            ask::<()>(&url(), &command).await;
        }
        scene.goes_on(what).await;
        if what.starts_with("work") {
            let task = Housekeeping { now: NOW, before: NOW - DAY, limit: 100, sweep: None };
            let done = scene.store.maintain(task).await.unwrap();
            assert_eq!((done.unreadable, done.more), (3, false), "{what}");
            assert_eq!(scene.store.maintain(task).await.unwrap().unreadable, 0, "{what}");
        }
        scene.ends(what).await;
        assert!(scene.store.epoch().await.is_ok());
    }
}
