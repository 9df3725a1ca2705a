//! Every key lives until the end of what it holds, and no key is left behind.

use std::collections::HashMap;
use std::time::Duration;

use cloakroom_core::Random;
use cloakroom_core::revocation::{Revocation, Target};
use cloakroom_core::store::{
    Advance, AdvanceOutcome, ChainUpdate, CreateOutcome, Housekeeping, PageRequest, Selector,
    SingleUseId, SingleUseStore as _, Spend, Spent, TokenStore as _,
};
use cloakroom_core::time::{Clock as _, SystemClock};
use cloakroom_core::{ClientId, GrantId, Jti, Kid, Subject};
use cloakroom_redis::RedisStore;
use cloakroom_redis::redis::cmd;

use crate::support::{
    DAY, NOW, connection, digest, grant, grant_key, keys, prefix, revocation, step, token, url,
};
use crate::with_redis::kit::open;

const HOUR: u64 = 3_600_000;

/// Grants that move, tokens that come later, and every kind of revocation.
async fn fill(store: &RedisStore) {
    for number in 0..40_u32 {
        let mut record = grant(store, &format!("user {}", number % 7), "app").await;
        record.expires_at = NOW + (1 + number % 5) * DAY;
        record.row_expires_at = NOW + DAY / 2;
        let mut first = token(&record);
        first.expires_at = NOW + number * Duration::from_secs(60);
        assert_eq!(
            store.create(record.clone(), vec![first]).await.unwrap(),
            CreateOutcome::Inserted
        );
        let (mut advance, mut next) = step(&record);
        next.row_expires_at = record.expires_at;
        advance.change = ChainUpdate::Move(Box::new(next.clone()));
        assert_eq!(store.advance(advance).await.unwrap(), AdvanceOutcome::Advanced);
        let mut late = token(&next);
        late.digest = digest();
        late.expires_at = record.expires_at + number * Duration::from_secs(3);
        let attach = Advance {
            grant: next.id,
            expected: next.chain.as_ref().unwrap().position(),
            now: NOW,
            change: ChainUpdate::Attach,
            tokens: vec![late.clone()],
        };
        assert_eq!(store.advance(attach).await.unwrap(), AdvanceOutcome::Advanced);
        for target in match number {
            3 => vec![Target::Grant(record.id)],
            4 => vec![Target::Token { grant: record.id, digest: late.digest }],
            5 => vec![Target::Grant(GrantId::random(&Random::system()).unwrap())],
            6 => vec![Target::Jti(Jti::new("a").unwrap()), Target::Key(Kid::new("k").unwrap())],
            _ => Vec::new(),
        } {
            store.revoke(revocation(target)).await.unwrap();
        }
    }
    for target in [
        Target::Subject(Subject::user("user 1").unwrap()),
        Target::Client(ClientId::new("other").unwrap()),
        Target::SubjectAtClient(Subject::user("user 2").unwrap(), ClientId::new("app").unwrap()),
    ] {
        let rule_until = NOW + 90 * DAY;
        store.revoke(Revocation { rule_until, ..revocation(target) }).await.unwrap();
    }
    store.heartbeat(NOW, NOW + DAY).await.unwrap();
}

/// Keys with their times to live; a negative one stands for none.
async fn lives(url: &str, prefix: &str) -> HashMap<Vec<u8>, i64> {
    let mut connection = connection(url).await;
    let mut lives = HashMap::new();
    for key in keys(url, prefix).await {
        let life: i64 =
            cmd("PEXPIRETIME").arg(&key[..]).query_async(&mut connection).await.unwrap();
        lives.insert(key, life);
    }
    lives
}

/// What stays as long as the store.
fn is_permanent(prefix: &str, key: &[u8]) -> bool {
    ["state", "log", "log-ends", "keys", "values"]
        .iter()
        .any(|name| key == format!("{{{prefix}}}:{name}").as_bytes())
}

fn number(bytes: &[u8]) -> u64 {
    u64::from_be_bytes(bytes[..8].try_into().unwrap())
}

/// The end of the grant, and the last end of all that its key holds.
async fn ends(url: &str, key: &[u8]) -> (u64, u64) {
    let mut all = cmd("HGETALL");
    all.arg(key);
    let fields: HashMap<Vec<u8>, Vec<u8>> =
        all.query_async(&mut connection(url).await).await.unwrap();
    let value = &fields[&b"g"[..]];
    if value[0] == 0 {
        return (number(&value[1..]), number(&value[1..]));
    }
    let (expires, row) = (number(&value[17..]), number(&value[25..]));
    let tokens = fields.iter().filter(|(name, _)| name.len() == 32);
    (expires, tokens.map(|(_, token)| number(token)).chain([expires, row]).max().unwrap())
}

#[tokio::test]
async fn every_key_outlives_what_it_holds() {
    let (url, prefix) = (url(), prefix());
    let store = open(&url, &prefix).await;
    fill(&store).await;
    let lives = lives(&url, &prefix).await;
    let mut connection = connection(&url).await;
    let last = (NOW + 91 * DAY).as_millis();
    let mut kinds = HashMap::<u8, u32>::new();
    for (key, life) in &lives {
        let name = String::from_utf8_lossy(key).into_owned();
        if is_permanent(&prefix, key) {
            assert_eq!(*life, -1, "{name}");
            continue;
        }
        let life = u64::try_from(*life).unwrap_or_else(|_| panic!("{name} never goes"));
        assert!(life < last, "{name} lives for too long");
        let at = key.iter().position(|byte| *byte == b'}').unwrap() + 2;
        let (kind, rest) = (key[at], &key[at + 1..]);
        *kinds.entry(kind).or_default() += 1;
        let ids = async |connection: &mut _| -> Vec<Vec<u8>> {
            cmd("ZRANGE").arg(&key[..]).arg(0).arg(-1).query_async(connection).await.unwrap()
        };
        match kind {
            b'g' if rest.starts_with(b":") => {
                assert!(life >= ends(&url, key).await.1 + HOUR, "{name}");
            }
            b'e' => {
                for id in ids(&mut connection).await {
                    let id = GrantId::from_bytes(id.try_into().unwrap());
                    let grant = u64::try_from(lives[&grant_key(&prefix, id)]).unwrap();
                    assert!(life >= grant, "{name} goes before {id:?}");
                }
            }
            b's' | b'c' if rest.starts_with(b":") => {
                for id in ids(&mut connection).await {
                    let id = GrantId::from_bytes(id.try_into().unwrap());
                    // Lists and sweeps look for live grants.
                    let end = ends(&url, &grant_key(&prefix, id)).await.0;
                    assert!(life >= end + HOUR, "{name} goes before {id:?}");
                }
            }
            b'r' if rest.starts_with(b":") => {
                let value: Vec<u8> =
                    cmd("GET").arg(&key[..]).query_async(&mut connection).await.unwrap();
                assert!(life >= number(&value[8..]) + HOUR, "{name}");
            }
            b'r' if rest == b"ule-ends" => {
                for rule in ids(&mut connection).await {
                    let rule = [format!("{{{prefix}}}:r:").as_bytes(), &rule].concat();
                    assert!(life >= u64::try_from(lives[&rule]).unwrap(), "{name}");
                }
            }
            b'w' => assert!(life >= (NOW + 90 * DAY).as_millis() + HOUR, "{name}"),
            b'r' if rest == b"ecent" => {}
            _ => panic!("{name} is unknown"),
        }
    }
    assert!(kinds[&b'g'] > 40 && kinds[&b's'] >= 20 && kinds[&b'r'] >= 6, "{kinds:?}");
}

#[tokio::test]
async fn a_value_with_no_end_has_keys_that_the_server_accepts() {
    let (url, prefix) = (url(), prefix());
    let store = open(&url, &prefix).await;
    let mut record = grant(&store, "alice", "app").await;
    let never = cloakroom_core::time::UnixTime::MAX;
    (record.expires_at, record.row_expires_at) = (never, never);
    assert_eq!(store.create(record.clone(), vec![]).await.unwrap(), CreateOutcome::Inserted);
    let target = Target::Subject(record.subject);
    let revocation = Revocation { rule_until: never, until: never, ..revocation(target) };
    store.revoke(revocation).await.unwrap();
    for (key, life) in lives(&url, &prefix).await {
        let name = String::from_utf8_lossy(&key).into_owned();
        assert!(is_permanent(&prefix, &key) || life > 0, "{name}");
    }
}

#[tokio::test]
async fn nothing_is_left_when_everything_has_ended() {
    let (url, prefix, other) = (url(), prefix(), prefix());
    let store = open(&url, &prefix).await;
    fill(&store).await;
    let id = SingleUseId::from_bytes(Random::system().array().unwrap());
    let now = SystemClock::new().now();
    let spend = Spend { id, until: now + Duration::from_millis(300), now };
    assert_eq!(store.spend(spend).await.unwrap(), Spent::First);
    let end = NOW + 200 * DAY;
    let task = Housekeeping { now: end, before: end, limit: 10_000, sweep: None };
    // It does the work of the revocations a second time, since their entries have ended.
    let mut calls = 0;
    while store.maintain(task).await.unwrap().more {
        calls += 1;
        assert!(calls < 10, "housekeeping has no end");
    }
    let empty = open(&url, &other).await;
    empty.heartbeat(NOW, NOW + DAY).await.unwrap();
    let names = async |prefix: &str| -> Vec<Vec<u8>> {
        let keys = keys(&url, prefix).await;
        keys.into_iter().map(|key| key[prefix.len() + 1..].to_vec()).collect()
    };
    while names(&prefix).await.iter().any(|key| key.starts_with(b".u")) {
        tokio::task::yield_now().await;
    }
    assert_eq!(names(&prefix).await, names(&other).await);
}

/// Otherwise each list and each sweep of a large client would read them again.
#[tokio::test]
async fn what_is_revoked_leaves_the_indexes_of_its_owners() {
    let (url, prefix) = (url(), prefix());
    let store = open(&url, &prefix).await;
    let listed = async |store: &RedisStore| {
        let of = Selector::Client(ClientId::new("app").unwrap());
        let page = PageRequest { after: None, limit: 100 };
        store.list(of, page, NOW).await.unwrap().grants.len()
    };
    let indexes = async || -> usize {
        let keys = keys(&url, &prefix).await;
        let is_index = |key: &&Vec<u8>| {
            let at = key.iter().position(|byte| *byte == b'}').unwrap();
            key[at..].starts_with(b"}:s:") || key[at..].starts_with(b"}:c:")
        };
        keys.iter().filter(is_index).count()
    };
    let one = grant(&store, "alice", "app").await;
    let _ = store.create(one.clone(), vec![]).await.unwrap();
    assert_eq!((listed(&store).await, indexes().await), (1, 2));
    store.revoke(revocation(Target::Grant(one.id))).await.unwrap();
    assert_eq!(indexes().await, 0);
    // A sweep knows one of its owners alone. Whoever reads the index of the other removes it there.
    let other = grant(&store, "alice", "app").await;
    let _ = store.create(other.clone(), vec![]).await.unwrap();
    store.revoke(revocation(Target::Subject(other.subject))).await.unwrap();
    assert_eq!(indexes().await, 1);
    assert_eq!((listed(&store).await, indexes().await), (0, 0));
}

#[tokio::test]
async fn a_minute_of_work_is_all_that_stays_of_revocations() {
    let (url, prefix) = (url(), prefix());
    let store = open(&url, &prefix).await;
    for _ in 0..20 {
        let record = grant(&store, "alice", "app").await;
        let _ = store.create(record.clone(), vec![]).await.unwrap();
        store.revoke(revocation(Target::Grant(record.id))).await.unwrap();
    }
    let open_work = async || -> (u64, u64) {
        let mut connection = connection(&url).await;
        let key = format!("{{{prefix}}}:work-order");
        let mut count = cmd("ZCOUNT");
        count.arg(&key).arg("-inf").arg(0);
        let open = count.query_async(&mut connection).await.unwrap();
        (open, cmd("ZCARD").arg(&key).query_async(&mut connection).await.unwrap())
    };
    // Done, and kept to be done a second time.
    assert_eq!(open_work().await, (0, 20));
    let task = Housekeeping { now: NOW, before: NOW - DAY, limit: 1_000, sweep: None };
    assert!(!store.maintain(task).await.unwrap().more);
    assert_eq!(open_work().await, (0, 20));
}
