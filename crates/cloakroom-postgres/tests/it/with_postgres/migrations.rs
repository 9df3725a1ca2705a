//! The tables, made and checked by many nodes at once.

use cloakroom_core::store::{CreateOutcome, TokenStore as _};
use cloakroom_postgres::{ConnectError, PostgresStore};
use futures_util::future::join_all;

use crate::server::{builder, schema, stranger, url};
use crate::support::{grant, token};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_nodes_start_at_once_on_an_empty_database() {
    for prefix in ["", "as1_"] {
        let schema = schema();
        let start = |_| {
            let builder = PostgresStore::builder(&url()).schema(&schema).table_prefix(prefix);
            tokio::spawn(builder.connect())
        };
        let stores = join_all((0..8).map(start)).await;
        let stores: Vec<_> = stores.into_iter().map(|store| store.unwrap().unwrap()).collect();
        let grant = grant(&stores[0], "alice", "app").await;
        let token = token(&grant);
        assert_eq!(
            stores[1].create(grant.clone(), vec![token]).await.unwrap(),
            CreateOutcome::Inserted
        );
        for store in &stores {
            assert_eq!(store.create(grant.clone(), vec![]).await.unwrap(), CreateOutcome::Inserted);
        }
        let versions = format!("SELECT count(*) FROM {schema}.{prefix}version");
        assert_eq!(stranger().await.number(&versions).await, 1);
    }
}

#[tokio::test]
async fn two_prefixes_share_a_schema() {
    let schema = schema();
    let open = async |prefix: &str| {
        PostgresStore::builder(&url()).schema(&schema).table_prefix(prefix).connect().await.unwrap()
    };
    let (one, other) = (open("one_").await, open("other_").await);
    let grant = grant(&one, "alice", "app").await;
    let _ = one.create(grant.clone(), vec![]).await.unwrap();
    assert_eq!(other.create(grant, vec![]).await.unwrap(), CreateOutcome::Inserted);
}

#[tokio::test]
async fn tables_of_a_newer_version_are_refused_and_left_alone() {
    let schema = schema();
    let open = || PostgresStore::builder(&url()).schema(&schema);
    assert_eq!(open().migrate().await.unwrap(), 1);
    let stranger = stranger().await;
    stranger.run(&format!("UPDATE {schema}.version SET version = 2")).await;
    for error in [
        open().connect().await.unwrap_err(),
        open().auto_migrate(false).connect().await.unwrap_err(),
        open().migrate().await.unwrap_err(),
    ] {
        assert!(matches!(error, ConnectError::Newer { found: 2, known: 1 }), "{error:?}");
    }
    assert_eq!(stranger.number(&format!("SELECT version::bigint FROM {schema}.version")).await, 2);
}

#[tokio::test]
async fn a_program_that_may_not_migrate_says_so() {
    let schema = schema();
    let open = || PostgresStore::builder(&url()).schema(&schema).auto_migrate(false);
    let error = open().connect().await.unwrap_err();
    assert!(matches!(error, ConnectError::NotMigrated { found: 0, needed: 1 }), "{error:?}");
    assert_eq!(open().migrate().await.unwrap(), 1);
    open().connect().await.unwrap();
    // The second time there is nothing to do.
    assert_eq!(open().migrate().await.unwrap(), 1);
}

/// The file does what the program does.
#[tokio::test]
async fn the_file_makes_the_same_tables() {
    let (by_program, by_hand) = (schema(), schema());
    PostgresStore::builder(&url()).schema(&by_program).migrate().await.unwrap();
    let stranger = stranger().await;
    let file = include_str!("../../../migrations/0001_tables.sql");
    let file = file.replace("cloakroom.", &format!("{by_hand}."));
    stranger.run(&format!("CREATE SCHEMA {by_hand}; BEGIN; {file} COMMIT")).await;
    let columns = "SELECT string_agg(format('%s %s %s %s', table_name, column_name, data_type, \
                   is_nullable), ', ' ORDER BY table_name, ordinal_position) \
                   FROM information_schema.columns WHERE table_schema = $1";
    let indexes = "SELECT string_agg(replace(indexdef, $1, ''), ', ' ORDER BY indexname) \
                   FROM pg_indexes WHERE schemaname = $1";
    for sql in [columns, indexes] {
        let of = async |schema: &str| stranger.query(sql, &[&schema]).await[0].get::<_, String>(0);
        assert_eq!(of(&by_program).await, of(&by_hand).await);
    }
    PostgresStore::builder(&url()).schema(&by_hand).auto_migrate(false).connect().await.unwrap();
}

#[tokio::test]
async fn a_name_that_needs_quotes_is_refused() {
    for builder in [builder().schema("a\"; DROP TABLE x; --"), builder().table_prefix("A")] {
        let error = builder.connect().await.unwrap_err();
        assert!(matches!(error, ConnectError::Name { .. }), "{error:?}");
    }
    // A word of SQL is a name like any other.
    let stranger = stranger().await;
    builder().schema("table").connect().await.unwrap();
    stranger.run("DROP SCHEMA \"table\" CASCADE").await;
}
