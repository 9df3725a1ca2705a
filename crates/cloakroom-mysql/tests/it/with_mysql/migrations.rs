//! The tables, made and migrated by many, and refused.

use cloakroom_core::revocation::{RuleKey, Target};
use cloakroom_core::store::{CheckValues as _, PageRequest, Selector};
use cloakroom_core::store::{CreateOutcome, TokenStore as _};
use cloakroom_core::{ClientId, Subject};
use cloakroom_mysql::{ConnectError, MysqlStore};
use futures_util::future::join_all;

use crate::server::{Admin, Tables, store, url};
use crate::support::{NOW, grant, revocation};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_nodes_may_migrate_at_once() {
    let tables = Tables::new();
    let nodes = (0..8).map(|_| tokio::spawn(tables.builder().connect()));
    let stores: Vec<MysqlStore> =
        join_all(nodes).await.into_iter().map(|node| node.unwrap().unwrap()).collect();
    // They all see one log.
    for store in &stores {
        store.heartbeat(NOW, NOW).await.unwrap();
    }
    let mut admin = Admin::connect().await;
    assert_eq!(admin.number(tables.sql("SELECT position FROM ~state")).await, 8);
    assert_eq!(admin.number(tables.sql("SELECT version FROM ~schema_version")).await, 1);
}

/// Every statement commits by itself, so that a migration can stop between any two of them.
#[tokio::test]
async fn a_migration_that_was_interrupted_is_continued() {
    let made = Tables::new();
    made.open().await;
    let mut admin = Admin::connect().await;
    let list = format!(
        "SELECT table_name FROM information_schema.tables \
         WHERE table_schema = DATABASE() AND table_name LIKE '{}%' ORDER BY table_name",
        made.prefix
    );
    let names: Vec<String> =
        admin.rows(list).await.into_iter().map(|mut row| row.take(0).unwrap()).collect();
    assert!(names.len() > 10);
    for missing in &names {
        admin.run(format!("DROP TABLE {missing}")).await;
        let version = format!("{}schema_version", made.prefix);
        if *missing != version {
            admin.run(format!("DELETE FROM {version}")).await;
        }
        let store = made.open().await;
        let grant = grant(&store, "alice", "app").await;
        assert_eq!(store.create(grant, vec![]).await.unwrap(), CreateOutcome::Inserted);
        assert!(store.heartbeat(NOW, NOW).await.is_ok(), "{missing}");
    }
}

#[tokio::test]
async fn a_newer_schema_is_refused() {
    let (tables, _store) = store().await;
    Admin::connect().await.run(tables.sql("UPDATE ~schema_version SET version = 7")).await;
    for migrates in [true, false] {
        let error = tables.builder().auto_migrate(migrates).connect().await.unwrap_err();
        assert!(matches!(error, ConnectError::Newer { found: 7, known: 1 }), "{error:?}");
        assert!(error.to_string().contains("newer"), "{error}");
    }
    let error = tables.builder().migrate().await.unwrap_err();
    assert!(matches!(error, ConnectError::Newer { .. }), "{error:?}");
}

#[tokio::test]
async fn a_program_that_does_not_migrate_needs_tables() {
    let tables = Tables::new();
    let error = tables.builder().auto_migrate(false).connect().await.unwrap_err();
    assert!(matches!(error, ConnectError::NotMigrated { found: 0, needed: 1 }), "{error:?}");
    assert_eq!(tables.builder().migrate().await.unwrap(), 1);
    assert_eq!(tables.builder().migrate().await.unwrap(), 1);
    let store = tables.builder().auto_migrate(false).connect().await.unwrap();
    store.heartbeat(NOW, NOW).await.unwrap();
}

/// The files are what the program runs, for those who run them by themselves.
#[tokio::test]
async fn the_file_makes_the_tables() {
    let tables = Tables::new();
    let file = include_str!("../../../migrations/0001_tables.sql");
    Admin::connect().await.run(tables.sql(file)).await;
    let store = tables.builder().auto_migrate(false).connect().await.unwrap();
    store.heartbeat(NOW, NOW).await.unwrap();
}

#[tokio::test]
async fn what_cannot_be_a_prefix_is_refused() {
    for bad in ["a-b", "a`; DROP TABLE x", "a.b", "é", "~", &"a".repeat(33)] {
        let error = MysqlStore::builder(&url()).table_prefix(bad).connect().await.unwrap_err();
        assert!(matches!(error, ConnectError::Name { .. }), "{bad}: {error:?}");
    }
    for bad in ["", "mysql://host", "postgres://host/d", "mysql://host/d?pool=3"] {
        let error = MysqlStore::connect(bad).await.unwrap_err();
        assert!(matches!(error, ConnectError::Url { .. }), "{bad}: {error:?}");
    }
    let nobody = MysqlStore::connect("mysql://nobody@127.0.0.1:1/d").await.unwrap_err();
    assert!(matches!(nobody, ConnectError::Store(_)), "{nobody:?}");
}

/// Identifiers that most collations take for one another.
#[tokio::test]
async fn identifiers_are_compared_byte_by_byte() {
    let (_tables, store) = store().await;
    let names = [
        "alice",
        "Alice",
        "ALICE",
        "alice ",
        "alice\0",
        "alice\u{301}",
        "alicé",
        "alice\u{ad}",
        "ａlice",
        "ss",
        "ß",
    ];
    for name in names {
        let mut grant = grant(&store, name, "app").await;
        grant.epoch = cloakroom_core::revocation::Epoch::new(u64::MAX);
        assert_eq!(store.create(grant, vec![]).await.unwrap(), CreateOutcome::Inserted);
        assert!(
            store
                .set_check_value(name.trim_end_matches('\0'), None, Some(name.as_bytes()))
                .await
                .is_ok()
        );
    }
    let page = PageRequest { after: None, limit: 100 };
    for name in names {
        let subject = Subject::user(name).unwrap();
        let of = Selector::Subject(subject.clone());
        let listing = store.list(of, page, NOW).await.unwrap();
        assert_eq!(listing.grants.len(), 1, "{name:?}");
        assert_eq!(listing.grants[0].subject, subject);
        store.revoke(revocation(Target::Subject(subject))).await.unwrap();
    }
    for name in names {
        let key = RuleKey::Subject(Subject::user(name).unwrap());
        assert_eq!(store.rules(vec![key]).await.unwrap().rules.len(), 1, "{name:?}");
    }
    for (one, other) in [("app", "App"), ("app", "app ")] {
        let of = |name| Selector::Client(ClientId::new(name).unwrap());
        let mut grant = grant(&store, "bob", one).await;
        grant.epoch = cloakroom_core::revocation::Epoch::new(u64::MAX);
        assert_eq!(store.create(grant, vec![]).await.unwrap(), CreateOutcome::Inserted);
        assert!(store.list(of(other), page, NOW).await.unwrap().grants.is_empty(), "{other:?}");
    }
}
