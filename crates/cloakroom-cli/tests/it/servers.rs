//! The same program on the stores that need a server. Names begin with `with_…`, so that tests without
//! servers leave them out.

use std::sync::Arc;

use cloakroom::core::Random;
use cloakroom::core::keys::KeyStore;
use cloakroom::core::store::TokenStore;
use cloakroom::{Caller, Subject};

use crate::support::*;

fn url(variable: &str) -> String {
    std::env::var(variable)
        .unwrap_or_else(|_| panic!("{variable} names no server: `cargo xtask test` starts one"))
}

fn name() -> String {
    let random: [u8; 8] = Random::system().array().unwrap();
    format!("t{:016x}_", u64::from_le_bytes(random))
}

/// A new operator's first day on a store that somebody else filled.
async fn first_day<S: TokenStore + KeyStore>(store: Arc<S>, tool: &Tool, options: &str) {
    let run = |words: &str| tool.run(&format!("{words} {options}"));
    let issuer = server(&store).await;
    let alice = login(&issuer, "app", "alice", "laptop").await;
    let bob = login(&issuer, "tv", "bob", "tv").await;

    let ran = run("doctor --json").expect(0).json();
    assert_eq!(ran["healthy"], true, "{ran:#?}");
    let texts = ran["findings"].to_string();
    assert!(texts.contains("every grant can be read: 2"), "{texts}");
    let listed = run("sessions list --user alice --json").expect(0).json();
    assert_eq!(listed["sessions"].as_array().unwrap().len(), 1);
    let words: Vec<&str> = "tokens inspect --json".split(' ').chain(options.split(' ')).collect();
    let found = tool.run_with(&words, bob.access_token.expose()).expect(0).json();
    assert_eq!(found["active"], true);
    let grant = found["grant"].as_str().unwrap();
    assert!(run(&format!("grants show {grant}")).expect(0).stdout.contains("state     live"));
    run("sessions revoke --user alice").expect(0);
    assert!(!issuer.introspect(&alice.access_token, Caller::Internal).await.unwrap().is_active());
    assert_eq!(issuer.sessions(&Subject::user("bob").unwrap()).await.unwrap().len(), 1);
    run("maintain").expect(0);
    run("migrate").expect(0);

    // Another secret, and another issuer.
    let wrong = tool.clone().with("CLOAKROOM_HANDLE_SECRET", &hex([9; 32]));
    let ran = wrong.run(&format!("doctor {options}")).expect(1);
    assert!(ran.stdout.contains("FAILED   handle secrets"), "{ran:#?}");
    let wrong = tool.clone().with("CLOAKROOM_ISSUER", "https://other.example");
    let ran = wrong.run(&format!("doctor {options}")).expect(1);
    assert!(ran.stdout.contains("FAILED   issuer"), "{ran:#?}");
}

mod with_postgres {
    use cloakroom::postgres::PostgresStore;

    use super::*;

    #[tokio::test]
    async fn the_first_day() {
        let (url, schema) = (url("CLOAKROOM_TEST_POSTGRES_URL"), name());
        let options = format!("--schema {schema}");
        let tool = Tool::new(&url);
        let ran = tool.run(&format!("doctor {options}")).expect(1);
        assert!(ran.stdout.contains("FAILED   schema"), "{ran:#?}");
        let ran = tool.run(&format!("migrate --dry-run {options}")).expect(0);
        assert!(ran.stdout.contains(&format!("CREATE TABLE \"{schema}\".grants")), "{ran:#?}");
        tool.run(&format!("migrate {options}")).expect(0);
        let store = PostgresStore::builder(&url).schema(&schema).connect().await.unwrap();
        first_day(Arc::new(store), &tool, &options).await;
    }

    #[tokio::test]
    async fn a_missing_index_and_a_bad_row_are_named() {
        let (url, schema) = (url("CLOAKROOM_TEST_POSTGRES_URL"), name());
        let store = PostgresStore::builder(&url).schema(&schema).connect().await.unwrap();
        let issuer = server(&Arc::new(store)).await;
        login(&issuer, "app", "alice", "laptop").await;
        let (client, connection) =
            tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        let damage = format!(
            "DROP INDEX \"{schema}\".grants_by_due; UPDATE \"{schema}\".grants SET body = '\\x00'"
        );
        client.batch_execute(&damage).await.unwrap();
        let ran = Tool::new(&url).run(&format!("doctor --schema {schema}")).expect(1);
        assert!(ran.stdout.contains("the index `grants_by_due` is missing"), "{ran:#?}");
        assert!(ran.stdout.contains("FAILED   rows: 1 of 1 grants"), "{ran:#?}");
    }
}

mod with_mysql {
    use cloakroom::mysql::MysqlStore;

    use super::*;

    #[tokio::test]
    async fn the_first_day() {
        let (url, prefix) = (url("CLOAKROOM_TEST_MYSQL_URL"), name());
        let options = format!("--prefix {prefix}");
        let tool = Tool::new(&url);
        let ran = tool.run(&format!("migrate --dry-run {options}")).expect(0);
        assert!(ran.stdout.contains(&format!("CREATE TABLE IF NOT EXISTS {prefix}grants")));
        tool.run(&format!("migrate {options}")).expect(0);
        let store = MysqlStore::builder(&url).table_prefix(&prefix).connect().await.unwrap();
        first_day(Arc::new(store), &tool, &options).await;
    }
}

mod with_redis {
    use cloakroom::redis::RedisStore;

    use super::*;

    #[tokio::test]
    async fn the_first_day() {
        let (url, prefix) = (url("CLOAKROOM_TEST_REDIS_URL"), name());
        let store = RedisStore::builder(&url).prefix(&prefix).connect().await.unwrap();
        first_day(Arc::new(store), &Tool::new(&url), &format!("--prefix {prefix}")).await;
    }
}
