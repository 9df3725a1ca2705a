//! No statement scans or sorts: what the server plans for each of them, over tables that are filled and
//! analysed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use crate::connection::Script;

/// The statements that each store ran, by the prefix of its tables.
static SEEN: Mutex<BTreeMap<String, BTreeSet<String>>> = Mutex::new(BTreeMap::new());

/// Notes what a store runs, if its statements are wanted. A packet that commits has begun its transaction, or
/// goes on with it by [`Script::resumed`] and [`Script::commit`].
pub(crate) fn note(prefix: &str, script: &Script) {
    const RESUMED: [&str; 3] = ["RELEASE SAVEPOINT begun", "RELEASE SAVEPOINT whole", "COMMIT"];
    let frame: Vec<&str> = script
        .statements()
        .filter(|sql| *sql == "START TRANSACTION" || RESUMED.contains(sql))
        .collect();
    if frame.contains(&"COMMIT") {
        assert!(frame == RESUMED || frame == ["START TRANSACTION", "COMMIT"], "{script:?}");
    }
    let mut seen = SEEN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(statements) = seen.get_mut(prefix) {
        statements.extend(script.statements().map(|text| text.replace('~', prefix)));
    }
}

mod with_mysql {
    use std::time::Duration;

    use cloakroom_core::keys::schedule::KeyTimes;
    use cloakroom_core::keys::{KeyRecord, KeyStore as _};
    use cloakroom_core::record::{Chain, ChainKey, GrantRecord, TokenRecord};
    use cloakroom_core::revocation::{Cursor, Epoch, Revocation, RevocationBatch, RuleKey, Target};
    use cloakroom_core::store::{
        Advance, ChainUpdate, CheckValues as _, Housekeeping, PageRequest, Selector, SingleUseId,
        SingleUseStore as _, Spend, TokenStore as _,
    };
    use cloakroom_core::time::UnixTime;
    use cloakroom_core::{
        Audience, ClientId, GrantId, Jti, Kid, Random, Subject, TokenDigest, TokenKind,
    };
    use mysql_async::prelude::Queryable as _;
    use mysql_async::{Conn, Opts, OptsBuilder, Row};

    use super::*;
    use crate::MysqlStore;

    const NOW: UnixTime = UnixTime::from_secs(2_000_000_000);
    const HOUR: Duration = Duration::from_secs(3_600);

    /// Every table is filled by doubling: so many times.
    const DOUBLINGS: u32 = 18;

    fn grant(number: u32, ends: UnixTime) -> GrantRecord {
        let random = Random::system();
        let mut grant = GrantRecord::new(
            GrantId::random(&random).unwrap(),
            ClientId::new(format!("client {}", number % 20)).unwrap(),
            Subject::user(format!("user {}", number % 300)).unwrap(),
            Audience::one("https://orders.example").unwrap(),
            NOW,
            ends,
        );
        let key = ChainKey::random(&random).unwrap();
        grant.epoch = Epoch::new(u64::MAX);
        grant.chain = Some(Chain::new(TokenKind::Refresh, digest(), key, ends));
        grant
    }

    fn digest() -> TokenDigest {
        TokenDigest::from_bytes(Random::system().array().unwrap())
    }

    /// A call of every method, in every way in which its statements differ.
    async fn work(store: &MysqlStore) {
        for number in 0..6 {
            let ends = if number < 3 { NOW + HOUR } else { NOW };
            for until in [ends, ends + HOUR] {
                let id = SingleUseId::from_bytes(Random::system().array().unwrap());
                for _ in 0..2 {
                    let _ = store.spend(Spend { id, until, now: NOW - HOUR }).await.unwrap();
                }
            }
            let grant = grant(number, ends);
            let token = TokenRecord::new(digest(), &grant, NOW, ends);
            for tokens in [vec![token.clone()], vec![]] {
                let _ = store.create(grant.clone(), tokens.clone()).await.unwrap();
                let _ = store.create(grant.clone(), tokens).await.unwrap();
            }
            let mut next = grant.clone();
            next.chain.as_mut().unwrap().digest = digest();
            for change in [ChainUpdate::Attach, ChainUpdate::Move(Box::new(next))] {
                for tokens in [
                    vec![],
                    vec![token.clone()],
                    vec![{ TokenRecord::new(digest(), &grant, NOW, ends) }],
                ] {
                    let expected = grant.chain.as_ref().unwrap().position();
                    let change = change.clone();
                    let step =
                        Advance { grant: grant.id, expected, now: NOW - HOUR, change, tokens };
                    let _ = store.advance(step).await.unwrap();
                }
            }
            let _ = store.find(grant.id, None).await.unwrap();
            let _ = store.find(grant.id, Some(token.digest)).await.unwrap();
            let absent = GrantId::random(&Random::system()).unwrap();
            for target in [
                Target::Token { grant: grant.id, digest: token.digest },
                Target::Grant(absent),
                Target::Grant(grant.id),
                Target::Jti(Jti::new(format!("jti {number}")).unwrap()),
                Target::Subject(grant.subject.clone()),
                Target::Client(ClientId::new(format!("rare {number}")).unwrap()),
                Target::SubjectAtClient(grant.subject.clone(), grant.client.clone()),
            ] {
                let revocation = Revocation::new(target, NOW, ends);
                store.revoke(revocation).await.unwrap();
            }
            let (subject, client) = (grant.subject.clone(), grant.client.clone());
            for of in [
                Selector::Subject(subject.clone()),
                Selector::Client(client.clone()),
                Selector::SubjectAtClient(subject, client),
            ] {
                let page = PageRequest { after: Some(grant.id), limit: 10 };
                let _ = store.list(of, page, NOW).await.unwrap();
            }
        }
        store.heartbeat(NOW, NOW + HOUR).await.unwrap();
        store.heartbeat(NOW, NOW).await.unwrap();
        let _ = store.rules(vec![]).await.unwrap();
        let keys = (0..3).map(|number| RuleKey::Jti(Jti::new(format!("jti {number}")).unwrap()));
        let _ = store.rules(keys.collect()).await.unwrap();
        let mut cursor = Cursor::start();
        for _ in 0..2 {
            let batch = store.revocations(cursor, 10).await.unwrap();
            let RevocationBatch::Entries { next, .. } = batch else { panic!("a gap") };
            cursor = next;
        }
        let (now, before) = (NOW + 9 * HOUR, NOW + HOUR / 2);
        let task = Housekeeping { now, before, limit: 400, sweep: None };
        let _ = store.maintain(task).await.unwrap();
        let kid = Kid::new("kid").unwrap();
        let times = KeyTimes::published(NOW);
        let mut key = KeyRecord::new(1, kid, "ES256", serde_json::json!({}), vec![1], times);
        let _ = store.insert(key.clone()).await.unwrap();
        key.version = 2;
        let _ = store.update(key, 1).await.unwrap();
        let _ = store.load().await.unwrap();
        let _ = store.delete(1, 2).await.unwrap();
        for (expected, value) in [(None, Some("a")), (Some("a"), Some("b")), (Some("b"), None)] {
            let (expected, value) = (expected.map(str::as_bytes), value.map(str::as_bytes));
            assert!(store.set_check_value("name", expected, value).await.unwrap());
        }
        let _ = store.check_values().await.unwrap();
        let status = store.status(NOW).await.unwrap();
        assert!(status.plans.unwrap().iter().all(|plan| plan.instead.is_none()));
        let _ = store.scan(PageRequest { after: None, limit: 10 }).await.unwrap();
    }

    /// Doubles the rows of the tables that grow, as SQL with `~` for the prefix.
    const FILL: [&str; 5] = [
        "INSERT INTO ~grants SELECT RANDOM_BYTES(16), CONCAT('client ', FLOOR(RAND() * 20)), \
         CONCAT('u:user ', FLOOR(RAND() * 30000)), epoch, generation, RANDOM_BYTES(32), \
         chain_expires_at, expires_at, row_expires_at + RAND() * 1e9, \
         IF(RAND() < 0.5, NULL, 1), tombstone, body FROM ~grants",
        "INSERT INTO ~tokens SELECT RANDOM_BYTES(16), RANDOM_BYTES(32), issued_at, \
         expires_at + RAND() * 1e9, NULL, body FROM ~tokens",
        "INSERT INTO ~rules SELECT RANDOM_BYTES(20), bound, ends_at + RAND() * 1e9 FROM ~rules \
         LIMIT 20000",
        "INSERT INTO ~log SELECT position + (SELECT MAX(position) FROM ~log), RANDOM_BYTES(16), \
         ends_at + RAND() * 1e9, body FROM ~log ORDER BY position LIMIT 20000",
        "INSERT INTO ~single_use SELECT RANDOM_BYTES(32), ends_at + RAND() * 1e9 FROM ~single_use \
         LIMIT 20000",
    ];

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn no_statement_scans_or_sorts() {
        let store = crate::test_store::open().await;
        let (url, prefix) = (crate::test_store::url(), store.pool().prefix().to_string());
        work(&store).await;
        let opts = Opts::from_url(&url.replacen("mariadb://", "mysql://", 1)).unwrap();
        let opts = OptsBuilder::from_opts(opts).prefer_socket(false);
        let mut admin = Conn::new(opts).await.unwrap();
        admin.query_drop("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED").await.unwrap();
        for _ in 0..DOUBLINGS - 3 {
            for sql in FILL {
                admin.query_drop(sql.replace('~', &prefix)).await.unwrap();
            }
        }
        let head = "UPDATE ~state SET position = (SELECT MAX(position) FROM ~log)";
        admin.query_drop(head.replace('~', &prefix)).await.unwrap();
        for table in ["grants", "tokens", "rules", "log", "single_use"] {
            admin.query_drop(format!("ANALYZE TABLE {prefix}{table}")).await.unwrap();
        }
        let grants: i64 = admin
            .query_first(format!("SELECT COUNT(*) FROM {prefix}grants"))
            .await
            .unwrap()
            .unwrap();
        assert!(grants > 150_000, "{grants}");

        SEEN.lock().unwrap().insert(prefix.clone(), BTreeSet::new());
        work(&store).await;
        let seen = SEEN.lock().unwrap().remove(&prefix).unwrap();
        assert!(seen.len() > 60, "{}", seen.len());
        let mut checked = 0;
        for sql in &seen {
            if !is_planned(sql) {
                continue;
            }
            let rows: Vec<Row> = admin.query(format!("EXPLAIN {sql}")).await.unwrap();
            for step in rows {
                checked += 1;
                let text = |name: &str| -> String {
                    step.get_opt::<Option<String>, _>(name)
                        .and_then(Result::ok)
                        .flatten()
                        .unwrap_or_default()
                };
                let (table, kind, extra) = (text("table"), text("type"), text("Extra"));
                let is_small = ["state", "sweeps", "signing_keys", "check_values"]
                    .iter()
                    .any(|name| table == format!("{prefix}{name}"));
                let is_scan = ["ALL", "index"].contains(&kind.as_str());
                let is_result = table.starts_with("<union") || table.starts_with("<derived");
                assert!(
                    !is_scan || is_small || is_result || table.is_empty(),
                    "{sql}\nis planned as: {kind} of {table}, {extra}"
                );
                assert!(!extra.contains("filesort"), "{sql}\nis planned as: {kind}, {extra}");
                assert!(!extra.contains("join buffer"), "{sql}\nis planned as: {kind}, {extra}");
            }
        }
        assert!(checked > 60, "{checked}");
        for sql in FILL {
            let table = sql.split_whitespace().nth(2).unwrap().replace('~', &prefix);
            admin.query_drop(format!("DROP TABLE {table}")).await.unwrap();
        }
    }

    /// Inserts of values have no plan.
    fn is_planned(sql: &str) -> bool {
        let is_of_catalog = sql.contains("information_schema");
        let is_insert_of_values = sql.starts_with("INSERT") && sql.contains(" VALUES (");
        let is_select_or_write =
            ["SELECT", "UPDATE", "DELETE", "INSERT"].iter().any(|start| sql.starts_with(start));
        is_select_or_write && !is_insert_of_values && !is_of_catalog && !sql.contains("GET_LOCK")
    }
}
