//! A user who may do little: what is refused is an error that names the reason, and what a store needs is
//! what the documentation says.

use cloakroom_core::revocation::Target;
use cloakroom_core::store::{CreateOutcome, Lookup, StoreError, TokenStore as _};
use cloakroom_postgres::tokio_postgres::error::SqlState;
use cloakroom_postgres::{ConnectError, PostgresStore, tokio_postgres};

use crate::server::{Stranger, schema, stranger, url};
use crate::support::{DAY, NOW, grant, revocation, step, token};

/// A role of its own, which the store takes on.
struct Role {
    name: String,
    schema: String,
    admin: Stranger,
}

impl Role {
    async fn new() -> Self {
        let (schema, admin) = (schema(), stranger().await);
        let name = format!("role_{schema}");
        admin.run(&format!("CREATE ROLE {name}")).await;
        Self { name, schema, admin }
    }

    async fn connect(&self) -> Result<PostgresStore, ConnectError> {
        let url = url();
        let mark = if url.contains('?') { '&' } else { '?' };
        let url = format!("{url}{mark}options=-c%20role%3D{}", self.name);
        PostgresStore::builder(&url).schema(&self.schema).auto_migrate(false).connect().await
    }

    async fn grant_all(&self) {
        let (name, schema) = (&self.name, &self.schema);
        self.admin
            .run(&format!(
                "GRANT USAGE ON SCHEMA {schema} TO {name}; \
                 GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} TO {name}"
            ))
            .await;
    }

    async fn end(self) {
        let (name, schema) = (&self.name, &self.schema);
        self.admin.run(&format!("DROP SCHEMA {schema} CASCADE; DROP ROLE {name}")).await;
    }
}

fn is_refused(error: &StoreError) {
    let source = std::error::Error::source(error).unwrap();
    let text = format!("{source:?}");
    let codes = [SqlState::INSUFFICIENT_PRIVILEGE];
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error:?}");
    assert!(codes.iter().any(|code| text.contains(code.code())), "{text}");
    // The driver's error is among the sources.
    let mut sources =
        std::iter::successors(std::error::Error::source(error), |error| error.source());
    let is_driver =
        |error: &(dyn std::error::Error + 'static)| error.is::<tokio_postgres::error::DbError>();
    assert!(sources.any(is_driver), "{error:?}");
}

#[tokio::test]
async fn a_user_who_may_only_change_rows_is_enough() {
    let role = Role::new().await;
    PostgresStore::builder(&url()).schema(&role.schema).migrate().await.unwrap();
    role.grant_all().await;
    let store = role.connect().await.unwrap();
    let grant = grant(&store, "alice", "app").await;
    let token = token(&grant);
    assert_eq!(store.create(grant.clone(), vec![token]).await.unwrap(), CreateOutcome::Inserted);
    let _ = store.advance(step(&grant).0).await.unwrap();
    store.revoke(revocation(Target::Grant(grant.id))).await.unwrap();
    store.heartbeat(NOW, NOW + DAY).await.unwrap();
    drop(store);
    role.end().await;
}

#[tokio::test]
async fn a_user_who_may_do_nothing_is_refused() {
    let role = Role::new().await;
    PostgresStore::builder(&url()).schema(&role.schema).migrate().await.unwrap();
    match role.connect().await.unwrap_err() {
        ConnectError::Store(error) => is_refused(&error),
        error => panic!("{error:?}"),
    }
    role.end().await;
}

/// A privilege that is taken away while the store is open.
#[tokio::test]
async fn what_is_forbidden_later_is_an_outage() {
    let role = Role::new().await;
    PostgresStore::builder(&url()).schema(&role.schema).migrate().await.unwrap();
    role.grant_all().await;
    let store = role.connect().await.unwrap();
    let grant = grant(&store, "alice", "app").await;
    let _ = store.create(grant.clone(), vec![]).await.unwrap();
    let (name, schema) = (role.name.clone(), role.schema.clone());
    let all = format!("ALL TABLES IN SCHEMA {schema}");
    role.admin.run(&format!("REVOKE INSERT, UPDATE ON {all} FROM {name}")).await;
    is_refused(&store.advance(step(&grant).0).await.unwrap_err());
    is_refused(&store.heartbeat(NOW, NOW + DAY).await.unwrap_err());
    assert!(matches!(store.find(grant.id, None).await.unwrap(), Lookup::Found(_)));
    role.admin.run(&format!("REVOKE SELECT ON {all} FROM {name}")).await;
    is_refused(&store.find(grant.id, None).await.unwrap_err());
    role.grant_all().await;
    let _ = store.advance(step(&grant).0).await.unwrap();
    store.heartbeat(NOW, NOW + DAY).await.unwrap();
    drop(store);
    role.end().await;
}
