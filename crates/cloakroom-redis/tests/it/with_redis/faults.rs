//! Connections that break at every command of every method: no call does half of its work, and a command
//! that is sent twice has the effect of one.

use std::fmt::Debug;

use cloakroom_core::keys::schedule::KeyTimes;
use cloakroom_core::keys::{KeyInserted, KeyRecord, KeyStore as _, KeyUpdated};
use cloakroom_core::record::{GrantRecord, TokenRecord};
use cloakroom_core::revocation::{Cursor, LogEvent, RevocationBatch, RuleKey, Target};
use cloakroom_core::store::{
    Advance, AdvanceOutcome, ChainUpdate, CheckValues as _, CreateOutcome, Housekeeping, Lookup,
    PageRequest, RevokeOutcome, Selector, SingleUseId, SingleUseStore as _, Spend, Spent,
    StoreError, TokenStore as _,
};
use cloakroom_core::{Jti, Kid, Random};
use cloakroom_redis::RedisStore;
use cloakroom_redis::redis::cmd;

use crate::proxy::{Mode, Proxy};
use crate::support::{DAY, NOW, ask, grant, prefix, revocation, step, token, url};
use crate::with_redis::kit::{open, parts, path};

/// A store behind a proxy, another beside it, and something of everything in them.
struct Scene {
    proxy: Proxy,
    store: RedisStore,
    direct: RedisStore,
    grant: GrantRecord,
    token: TokenRecord,
}

impl Scene {
    async fn new() -> Self {
        let (url, prefix) = (url(), prefix());
        let (login, host) = parts(&url);
        let proxy = Proxy::start(host).await;
        let through = format!("redis://{login}127.0.0.1:{}{}", proxy.port(), path(&url));
        let (store, direct) = (open(&through, &prefix).await, open(&url, &prefix).await);
        let grant = grant(&direct, "alice", "app").await;
        let token = token(&grant);
        let created = direct.create(grant.clone(), vec![token.clone()]).await.unwrap();
        assert_eq!(created, CreateOutcome::Inserted);
        Self { proxy, store, direct, grant, token }
    }

    async fn log(&self) -> Vec<LogEvent> {
        match self.direct.revocations(Cursor::start(), 100).await.unwrap() {
            RevocationBatch::Entries { entries, .. } => {
                entries.into_iter().map(|entry| entry.event).collect()
            }
            RevocationBatch::Gap => panic!("a gap"),
        }
    }

    async fn found(&self, record: &GrantRecord, token: &TokenRecord) -> Lookup {
        self.direct.find(record.id, Some(token.digest)).await.unwrap()
    }

    async fn is_live(&self, record: &GrantRecord, token: &TokenRecord) -> bool {
        match self.found(record, token).await {
            Lookup::Found(found) => {
                found.grant.is_live(NOW) && found.token.is_some_and(|token| token.is_live(NOW))
            }
            _ => false,
        }
    }
}

/// The faults at every command of a call, until one comes after its last.
async fn at_every_command(mut call: impl AsyncFnMut(Scene)) {
    // The server knows the scripts from now on: one that it does not know is sent twice anyway.
    call(Scene::new().await).await;
    for fault in [Mode::OneAnswerLost as fn(u32) -> Mode, Mode::OneCommandLost] {
        let mut count = 0;
        loop {
            let scene = Scene::new().await;
            scene.proxy.set(fault(count));
            let mode = scene.proxy.watch();
            call(scene).await;
            if *mode.lock().unwrap() != Mode::Through {
                break;
            }
            count += 1;
            assert!(count < 400, "a call has no end");
        }
        assert!(count > 0, "the call sends no command");
    }
}

fn is<T: Debug + PartialEq>(answer: Result<T, StoreError>, should: impl Into<T>) {
    match answer {
        Ok(answer) => assert_eq!(answer, should.into()),
        Err(error) => panic!("{error:?}"),
    }
}

#[tokio::test]
async fn a_create_is_there_once() {
    at_every_command(async |scene| {
        let new = grant(&scene.direct, "bob", "app").await;
        let held = token(&new);
        is(scene.store.create(new.clone(), vec![held.clone()]).await, CreateOutcome::Inserted);
        assert!(scene.is_live(&new, &held).await);
    })
    .await;
}

#[tokio::test]
async fn a_create_that_is_barred_stays_so() {
    at_every_command(async |scene| {
        let new = grant(&scene.direct, "bob", "app").await;
        let held = token(&new);
        let revocation = revocation(Target::Subject(new.subject.clone()));
        scene.direct.revoke(revocation).await.unwrap();
        is(scene.store.create(new.clone(), vec![held.clone()]).await, CreateOutcome::Barred);
        assert!(!scene.is_live(&new, &held).await);
    })
    .await;
}

#[tokio::test]
async fn a_step_is_taken_once() {
    at_every_command(async |scene| {
        let (advance, next) = step(&scene.grant);
        let held = advance.tokens[0].clone();
        is(scene.store.advance(advance).await, AdvanceOutcome::Advanced);
        let Lookup::Found(found) = scene.found(&next, &held).await else { panic!("it is gone") };
        assert_eq!((&*found.grant, found.token.as_deref()), (&next, Some(&held)));
    })
    .await;
    at_every_command(async |scene| {
        let held = token(&scene.grant);
        let attach = Advance {
            grant: scene.grant.id,
            expected: scene.grant.chain.as_ref().unwrap().position(),
            now: NOW,
            change: ChainUpdate::Attach,
            tokens: vec![held.clone()],
        };
        is(scene.store.advance(attach).await, AdvanceOutcome::Advanced);
        assert!(scene.is_live(&scene.grant, &held).await);
    })
    .await;
}

#[tokio::test]
async fn a_revocation_has_one_entry_and_its_effect() {
    for target in [
        (|scene| Target::Grant(scene.grant.id)) as fn(&Scene) -> Target,
        |scene| Target::Token { grant: scene.grant.id, digest: scene.token.digest },
        |scene| Target::Subject(scene.grant.subject.clone()),
        |scene| Target::Client(scene.grant.client.clone()),
        |scene| Target::SubjectAtClient(scene.grant.subject.clone(), scene.grant.client.clone()),
    ] {
        at_every_command(async |scene| {
            let target = target(&scene);
            is(scene.store.revoke(revocation(target.clone())).await, RevokeOutcome::Done);
            assert!(!scene.is_live(&scene.grant, &scene.token).await, "{target:?}");
            let log = scene.log().await;
            let [LogEvent::Revoked { target: logged, .. }] = &log[..] else { panic!("{log:?}") };
            assert_eq!(*logged, target);
        })
        .await;
    }
    for target in [Target::Jti(Jti::new("a").unwrap()), Target::Key(Kid::new("k").unwrap())] {
        at_every_command(async |scene| {
            is(scene.store.revoke(revocation(target.clone())).await, RevokeOutcome::Done);
            assert_eq!(scene.log().await.len(), 1);
            let rules = scene.direct.rules(vec![target.rule_key().unwrap()]).await.unwrap();
            assert_eq!(rules.rules.len(), 1);
        })
        .await;
    }
}

#[tokio::test]
async fn a_heartbeat_is_there_once() {
    at_every_command(async |scene| {
        is(scene.store.heartbeat(NOW, NOW + DAY).await, ());
        assert_eq!(scene.log().await, [LogEvent::Heartbeat {}]);
    })
    .await;
}

#[tokio::test]
async fn a_read_is_whole() {
    at_every_command(async |scene| {
        let (id, digest) = (scene.grant.id, scene.token.digest);
        let found = scene.store.find(id, Some(digest)).await;
        is(found, scene.direct.find(id, Some(digest)).await.unwrap());
    })
    .await;
    at_every_command(async |scene| {
        let key = RuleKey::Subject(scene.grant.subject.clone());
        scene.direct.revoke(revocation(Target::Subject(scene.grant.subject))).await.unwrap();
        let should = scene.direct.rules(vec![key.clone()]).await.unwrap();
        is(scene.store.rules(vec![key]).await, should);
    })
    .await;
    at_every_command(async |scene| {
        scene.direct.heartbeat(NOW, NOW + DAY).await.unwrap();
        let should = scene.direct.revocations(Cursor::start(), 10).await.unwrap();
        is(scene.store.revocations(Cursor::start(), 10).await, should);
    })
    .await;
    at_every_command(async |scene| {
        let of = Selector::Subject(scene.grant.subject.clone());
        let page = PageRequest { after: None, limit: 10 };
        let listing = scene.store.list(of, page, NOW).await.unwrap();
        assert_eq!(listing.grants.len(), 1);
        assert_eq!(*listing.grants[0], scene.grant);
    })
    .await;
}

#[tokio::test]
async fn housekeeping_goes_on() {
    at_every_command(async |scene| {
        scene.direct.revoke(revocation(Target::Grant(scene.grant.id))).await.unwrap();
        scene.direct.heartbeat(NOW, NOW + 30 * DAY).await.unwrap();
        let end = NOW + 20 * DAY;
        let task = Housekeeping { now: end, before: end, limit: 100, sweep: None };
        scene.store.maintain(task).await.unwrap();
        assert_eq!(scene.found(&scene.grant, &scene.token).await, Lookup::Absent);
        assert_eq!(scene.log().await, [LogEvent::Heartbeat {}]);
    })
    .await;
}

#[tokio::test]
async fn check_values_change_once() {
    at_every_command(async |scene| {
        is(scene.store.set_check_value("issuer", None, Some(b"one")).await, true);
        let values = scene.direct.check_values().await.unwrap();
        assert_eq!(values[0].value, b"one");
    })
    .await;
}

/// Their second answer would be another one, so they are not sent twice: the caller gets an error.
#[tokio::test]
async fn signing_keys_and_items_are_never_written_twice() {
    let key = |version| {
        let kid = Kid::new("a key").unwrap();
        let public = cloakroom_core::serde_json::json!({"kty": "EC"});
        let times = KeyTimes::published(NOW);
        let mut key = KeyRecord::new(1, kid, "ES256", public, vec![1], times);
        key.version = version;
        key
    };
    at_every_command(async |scene| {
        let inserted = scene.store.insert(key(1)).await;
        let ring = scene.direct.load().await.unwrap();
        match inserted {
            Ok(inserted) => assert_eq!((inserted, ring), (KeyInserted::Inserted, vec![key(1)])),
            Err(error) => assert!(error.is_retryable() && (ring.is_empty() || ring == [key(1)])),
        }
        let _ = scene.direct.insert(key(1)).await.unwrap();
        match scene.store.update(key(2), 1).await {
            Ok(updated) => assert_eq!(updated, KeyUpdated::Updated),
            Err(error) => assert!(error.is_retryable()),
        }
    })
    .await;
    at_every_command(async |scene| {
        let id = SingleUseId::from_bytes(Random::system().array().unwrap());
        let spend = Spend { id, until: NOW + DAY, now: NOW };
        let spent = scene.store.spend(spend).await;
        let again = scene.direct.spend(spend).await.unwrap();
        match spent {
            Ok(spent) => assert_eq!((spent, again), (Spent::First, Spent::Again)),
            // Spent or not: the user tries once more, with another one.
            Err(error) => assert!(error.is_retryable()),
        }
    })
    .await;
}

#[tokio::test]
async fn a_server_that_forgot_the_scripts_gets_them_again() {
    let scene = Scene::new().await;
    let flush = async || ask::<()>(&url(), cmd("SCRIPT").arg("FLUSH").arg("SYNC")).await;
    let new = grant(&scene.store, "bob", "app").await;
    flush().await;
    is(scene.store.create(new.clone(), vec![]).await, CreateOutcome::Inserted);
    flush().await;
    is(scene.store.advance(step(&scene.grant).0).await, AdvanceOutcome::Advanced);
    flush().await;
    is(scene.store.revoke(revocation(Target::Subject(new.subject))).await, RevokeOutcome::Done);
    flush().await;
    is(scene.store.heartbeat(NOW, NOW + DAY).await, ());
    flush().await;
    assert_eq!(scene.log().await.len(), 2);
    flush().await;
    let task = Housekeeping { now: NOW, before: NOW, limit: 10, sweep: None };
    scene.store.maintain(task).await.unwrap();
    flush().await;
    let id = SingleUseId::from_bytes(Random::system().array().unwrap());
    is(scene.store.spend(Spend { id, until: NOW + DAY, now: NOW }).await, Spent::First);
}
