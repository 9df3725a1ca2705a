//! The same program on the stores that need a server. Names begin with `with_…`, so that tests without
//! servers leave them out.

use std::sync::Arc;
use std::time::Duration;

use cloakroom::core::keys::KeyStore;
use cloakroom::core::record::GrantRecord;
use cloakroom::core::revocation::{Revocation, Target};
use cloakroom::core::store::{CreateOutcome, PageRequest, TokenStore};
use cloakroom::core::{Audience, Random};
use cloakroom::{Caller, ClientId, GrantId, Subject};

use crate::support::*;

fn url(variable: &str) -> String {
    std::env::var(variable)
        .unwrap_or_else(|_| panic!("{variable} names no server: `cargo xtask test` starts one"))
}

fn name() -> String {
    let random: [u8; 8] = Random::system().array().unwrap();
    format!("t{:016x}_", u64::from_le_bytes(random))
}

/// What the store says of itself is true: every grant is in one page, whatever its state, and a row that
/// has ended is counted.
async fn describes_itself<S: TokenStore + KeyStore>(store: &Arc<S>) {
    let random = Random::system();
    let (began, day) = (now(), 24 * HOUR);
    let mut created = Vec::new();
    for number in 0_u32..40 {
        // A third of them has ended a day ago.
        let ends = if number % 3 == 0 { began - day } else { began + day };
        let grant = GrantRecord::new(
            GrantId::random(&random).unwrap(),
            ClientId::new("app").unwrap(),
            Subject::user(format!("user {number}")).unwrap(),
            Audience::one(ORDERS).unwrap(),
            began - 2 * day,
            ends,
        );
        created.push(grant.id);
        assert_eq!(store.create(grant, Vec::new()).await.unwrap(), CreateOutcome::Inserted);
    }
    // Some are revoked, and one id is revoked before it is created.
    for id in [created[1], created[2], GrantId::random(&random).unwrap()] {
        let revocation = Revocation::new(Target::Grant(id), began, began + day);
        let _ = store.revoke(revocation).await.unwrap();
    }
    created.sort_unstable();
    for limit in [1, 7, 1_000] {
        let (mut found, mut page) = (Vec::new(), PageRequest { after: None, limit });
        loop {
            let listing = store.scan(page).await.unwrap().expect("it can list all grants");
            assert!(listing.unreadable.is_empty());
            found.extend(listing.grants.iter().map(|grant| grant.id));
            match listing.next {
                Some(after) => page.after = Some(after),
                None => break,
            }
        }
        assert_eq!(found, created, "in pages of {limit}");
    }
    let status = store.status(began - HOUR).await.unwrap();
    assert_eq!(status.ended_rows, Some(14), "{status:?}");
    let oldest = status.oldest_ended.unwrap();
    assert!(oldest >= began - 2 * day && oldest <= began - HOUR, "{status:?}");
    assert_eq!(store.status(began - 2 * day).await.unwrap().ended_rows, Some(0));
    assert!(status.problems.is_empty() && status.server.is_some(), "{status:?}");
    // Redis has no plans.
    let plans = status.plans.as_deref().unwrap_or_default();
    let is_redis = status
        .server
        .as_deref()
        .is_some_and(|server| server.starts_with("Redis") || server.starts_with("Valkey"));
    assert_eq!(plans.len() > 10, !is_redis, "{status:?}");
    assert!(plans.iter().all(|plan| plan.instead.is_none()), "{plans:#?}");
    if let Some(time) = status.time {
        let minute = Duration::from_secs(60);
        assert!(time + minute > began && time < now() + minute, "{status:?}");
    }
}

#[tokio::test]
async fn a_file_describes_itself() {
    let file = File::new();
    describes_itself(&file.open()).await;
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
    async fn the_store_describes_itself() {
        let url = url("CLOAKROOM_TEST_POSTGRES_URL");
        let store = PostgresStore::builder(&url).schema(name()).connect().await.unwrap();
        describes_itself(&Arc::new(store)).await;
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
        let slow = "FAILED   plans: to delete grants that have ended, the database does not read the \
                    index `grants_by_due`: ";
        assert!(ran.stdout.contains(slow), "{ran:#?}");
        assert_eq!(ran.stdout.matches("FAILED   plans").count(), 1, "{ran:#?}");
        assert!(ran.stdout.contains("FAILED   rows: 1 of 1 grants"), "{ran:#?}");
    }
}

mod with_mysql {
    use cloakroom::mysql::MysqlStore;
    use mysql_async::prelude::Queryable as _;

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

    #[tokio::test]
    async fn the_store_describes_itself() {
        let url = url("CLOAKROOM_TEST_MYSQL_URL");
        let store = MysqlStore::builder(&url).table_prefix(name()).connect().await.unwrap();
        describes_itself(&Arc::new(store)).await;
    }

    #[tokio::test]
    async fn a_missing_index_is_named_with_what_it_slows_down() {
        let (url, prefix) = (url("CLOAKROOM_TEST_MYSQL_URL"), name());
        let store = MysqlStore::builder(&url).table_prefix(&prefix).connect().await.unwrap();
        server(&Arc::new(store)).await;
        let opts = mysql_async::Opts::from_url(&url.replacen("mariadb://", "mysql://", 1)).unwrap();
        let opts = mysql_async::OptsBuilder::from_opts(opts).prefer_socket(false);
        let mut client = mysql_async::Conn::new(opts).await.unwrap();
        for (table, index) in [("grants", "grants_of_client"), ("rules", "rules_by_end")] {
            client.query_drop(format!("DROP INDEX {index} ON {prefix}{table}")).await.unwrap();
        }
        let ran = Tool::new(&url).run(&format!("doctor --prefix {prefix}")).expect(1);
        for part in [
            "FAILED   schema: the index `PREFIXgrants.grants_of_client` is missing",
            "FAILED   plans: to list the grants of a client, the database does not read the index \
             `grants_of_client`: ",
            "FAILED   plans: to delete rules that have ended, the database does not read the index \
             `rules_by_end`: ALL of PREFIXrules",
        ] {
            assert!(ran.stdout.contains(&part.replace("PREFIX", &prefix)), "{part}: {ran:#?}");
        }
        assert_eq!(ran.stdout.matches("FAILED   plans").count(), 2, "{ran:#?}");
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

    #[tokio::test]
    async fn the_store_describes_itself() {
        let url = url("CLOAKROOM_TEST_REDIS_URL");
        let store = RedisStore::builder(&url).prefix(name()).connect().await.unwrap();
        describes_itself(&Arc::new(store)).await;
    }
}
