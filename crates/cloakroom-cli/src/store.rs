//! Opening a store by its URL.

use std::error::Error;
use std::sync::Arc;

use cloakroom::core::keys::KeyStore;
use cloakroom::core::store::{CheckValue, Migration, StoreError, TenantStore, TokenStore};
use cloakroom::operator::{Check, Finding, Outcome};

use crate::args::Global;
use crate::failure::{Failure, Status};

/// Where the store is.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    url: String,
    tenant: Option<String>,
    prefix: Option<String>,
    schema: Option<String>,
}

/// An open store.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    pub(crate) tokens: Arc<dyn TokenStore>,
    pub(crate) keys: Arc<dyn KeyStore>,
}

/// Why a store could not be opened.
#[derive(Debug)]
pub(crate) struct NotOpened {
    failure: Failure,
    /// The check of `doctor` that this belongs to.
    check: Check,
}

impl From<NotOpened> for Failure {
    fn from(error: NotOpened) -> Self {
        error.failure
    }
}

impl From<Failure> for NotOpened {
    fn from(failure: Failure) -> Self {
        Self { failure, check: Check::Store }
    }
}

impl NotOpened {
    /// The error as a finding of `doctor`. A mistake on the command line is none.
    pub(crate) fn finding(self) -> Result<Finding, Failure> {
        match self.failure.status {
            Status::Usage => Err(self.failure),
            _ => Ok(Finding::new(self.check, Outcome::Failed, self.failure.text)),
        }
    }
}

/// The kind of a store, by the scheme of its URL.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Sqlite,
    Postgres,
    Mysql,
    Redis,
}

impl Place {
    pub(crate) fn of(global: &Global) -> Result<Self, Failure> {
        let url = match &global.store {
            Some(url) if has_password(url) => {
                return Err(Failure::usage(
                    "the URL of --store contains a password, and other users of this machine can \
                     read the command line: put the URL into the variable CLOAKROOM_STORE",
                ));
            }
            Some(url) => url.clone(),
            None => std::env::var("CLOAKROOM_STORE").map_err(|_| {
                Failure::usage(
                    "no store is named: give its URL with --store or in CLOAKROOM_STORE, such as \
                     sqlite:tokens.db",
                )
            })?,
        };
        let place = Self {
            url,
            tenant: global.tenant.clone(),
            prefix: global.prefix.clone(),
            schema: global.schema.clone(),
        };
        place.kind()?;
        Ok(place)
    }

    fn kind(&self) -> Result<Kind, Failure> {
        let scheme = self.url.split(':').next().unwrap_or_default();
        let kind = match scheme {
            "sqlite" => Kind::Sqlite,
            "postgres" | "postgresql" => Kind::Postgres,
            "mysql" | "mariadb" => Kind::Mysql,
            _ if scheme.starts_with("redis") || scheme.starts_with("valkey") => Kind::Redis,
            "memory" => {
                let why = "a store in memory ends with its process: name one that others can open";
                return Err(Failure::usage(why));
            }
            // The rest may hold a password.
            _ => {
                return Err(Failure::usage(
                    "the URL of the store does not begin with sqlite:, postgres:, mysql: or redis:",
                ));
            }
        };
        if self.schema.is_some() && !matches!(kind, Kind::Postgres) {
            return Err(Failure::usage("only a store in PostgreSQL has a --schema"));
        }
        if self.prefix.is_some() && matches!(kind, Kind::Sqlite) {
            return Err(Failure::usage("a store in SQLite has no --prefix"));
        }
        Ok(kind)
    }

    /// Opens the store. Its tables must be there and have the version of this program: nothing is
    /// created or migrated.
    pub(crate) async fn open(&self) -> Result<Store, NotOpened> {
        match self.kind()? {
            #[cfg(feature = "sqlite")]
            Kind::Sqlite => {
                let store = self.sqlite().auto_migrate(false).open().map_err(NotOpened::from)?;
                Ok(self.store(store)?)
            }
            #[cfg(feature = "postgres")]
            Kind::Postgres => {
                let store = self.postgres().auto_migrate(false).connect().await;
                Ok(self.store(store.map_err(NotOpened::from)?)?)
            }
            #[cfg(feature = "mysql")]
            Kind::Mysql => {
                let store = self.mysql().auto_migrate(false).connect().await;
                Ok(self.store(store.map_err(NotOpened::from)?)?)
            }
            #[cfg(feature = "redis")]
            Kind::Redis => {
                // `doctor` reports the policy; a tool that refused to open the store could repair
                // nothing.
                let store = self.redis().allow_eviction().connect().await;
                Ok(self.store(store.map_err(NotOpened::from)?)?)
            }
            #[allow(unreachable_patterns, reason = "with every feature, every kind is known")]
            kind => Err(without(kind).into()),
        }
    }

    /// The migrations that the tables need. `None` if the store has no tables.
    pub(crate) async fn pending(&self) -> Result<Option<Vec<Migration>>, Failure> {
        match self.kind()? {
            #[cfg(feature = "sqlite")]
            Kind::Sqlite => {
                let pending = self.sqlite().pending_migrations();
                Ok(Some(pending.map_err(NotOpened::from)?))
            }
            #[cfg(feature = "postgres")]
            Kind::Postgres => {
                let pending = self.postgres().pending_migrations().await;
                Ok(Some(pending.map_err(NotOpened::from)?))
            }
            #[cfg(feature = "mysql")]
            Kind::Mysql => {
                let pending = self.mysql().pending_migrations().await;
                Ok(Some(pending.map_err(NotOpened::from)?))
            }
            #[cfg(feature = "redis")]
            Kind::Redis => Ok(None),
            #[allow(unreachable_patterns, reason = "with every feature, every kind is known")]
            kind => Err(without(kind)),
        }
    }

    /// Creates or migrates the tables. Returns their version.
    pub(crate) async fn migrate(&self) -> Result<u32, Failure> {
        match self.kind()? {
            #[cfg(feature = "sqlite")]
            Kind::Sqlite => {
                let version = self.sqlite().migrate().map_err(NotOpened::from)?;
                Ok(u32::try_from(version).unwrap_or(u32::MAX))
            }
            #[cfg(feature = "postgres")]
            Kind::Postgres => Ok(self.postgres().migrate().await.map_err(NotOpened::from)?),
            #[cfg(feature = "mysql")]
            Kind::Mysql => Ok(self.mysql().migrate().await.map_err(NotOpened::from)?),
            #[cfg(feature = "redis")]
            Kind::Redis => Ok(0),
            #[allow(unreachable_patterns, reason = "with every feature, every kind is known")]
            kind => Err(without(kind)),
        }
    }

    #[allow(dead_code, reason = "without a feature for a store, nothing is opened")]
    fn store<S: TokenStore + KeyStore>(&self, store: S) -> Result<Store, Failure> {
        let store = Arc::new(store);
        Ok(match &self.tenant {
            None => Store { tokens: store.clone(), keys: store },
            Some(tenant) => {
                let part = Arc::new(TenantStore::new(store, tenant)?);
                Store { tokens: part.clone(), keys: part }
            }
        })
    }

    #[cfg(feature = "sqlite")]
    fn sqlite(&self) -> cloakroom::sqlite::SqliteStoreBuilder {
        let path = self.url.strip_prefix("sqlite:").unwrap_or(&self.url);
        cloakroom::sqlite::SqliteStore::builder(path)
    }

    #[cfg(feature = "postgres")]
    fn postgres(&self) -> cloakroom::postgres::PostgresStoreBuilder {
        let mut builder = cloakroom::postgres::PostgresStore::builder(&self.url);
        if let Some(schema) = &self.schema {
            builder = builder.schema(schema);
        }
        match &self.prefix {
            Some(prefix) => builder.table_prefix(prefix),
            None => builder,
        }
    }

    #[cfg(feature = "mysql")]
    fn mysql(&self) -> cloakroom::mysql::MysqlStoreBuilder {
        let builder = cloakroom::mysql::MysqlStore::builder(&self.url);
        match &self.prefix {
            Some(prefix) => builder.table_prefix(prefix),
            None => builder,
        }
    }

    #[cfg(feature = "redis")]
    fn redis(&self) -> cloakroom::redis::RedisStoreBuilder {
        let builder = cloakroom::redis::RedisStore::builder(&self.url);
        match &self.prefix {
            Some(prefix) => builder.prefix(prefix),
            None => builder,
        }
    }
}

impl Store {
    /// Refuses a store that no issuer has used: a mistyped URL must not become a second store.
    pub(crate) async fn expect_issuer(&self) -> Result<(), Failure> {
        let values = self.tokens.check_values().await?;
        if values.iter().any(|value| {
            value.name == CheckValue::ISSUER || value.name.starts_with(CheckValue::TENANTS)
        }) {
            return Ok(());
        }
        Err(Failure::refused(
            "no issuer has used this store yet: check the URL and the tenant, or start your server \
             first",
        ))
    }
}

/// Whether the URL has a password before its host, or as a parameter.
fn has_password(url: &str) -> bool {
    let Some((_, rest)) = url.split_once("://") else { return false };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let login = rest[..end].rsplit_once('@').map(|(login, _)| login);
    let parameters = rest.split_once('?').map_or("", |(_, parameters)| parameters);
    login.is_some_and(|login| login.contains(':'))
        || parameters.split('&').any(|parameter| parameter.starts_with("password="))
}

#[allow(dead_code, reason = "with every feature, no store is left out")]
fn without(kind: Kind) -> Failure {
    Failure::usage(format!("this program was built without stores in {kind:?}"))
}

/// What is wrong, for the exit status and for `doctor`.
#[allow(dead_code, reason = "without a feature for a store, nothing is opened")]
#[derive(Clone, Copy)]
enum Wrong {
    Usage,
    Schema,
    Server,
    Outage,
}

impl Wrong {
    #[allow(dead_code, reason = "without a feature for a store, nothing is opened")]
    const fn of(error: &StoreError) -> Self {
        if error.is_retryable() { Self::Outage } else { Self::Server }
    }
}

#[allow(dead_code, reason = "without a feature for a store, nothing is opened")]
fn not_opened(error: &(dyn Error + 'static), wrong: Wrong) -> NotOpened {
    let mut failure = Failure::of(error);
    failure.status = match wrong {
        Wrong::Usage => Status::Usage,
        Wrong::Schema | Wrong::Server => Status::Refused,
        Wrong::Outage => Status::Unavailable,
    };
    let check = if matches!(wrong, Wrong::Schema) { Check::Schema } else { Check::Store };
    NotOpened { failure, check }
}

#[cfg(feature = "sqlite")]
impl From<cloakroom::sqlite::OpenError> for NotOpened {
    fn from(error: cloakroom::sqlite::OpenError) -> Self {
        use cloakroom::sqlite::OpenError as E;
        let wrong = match &error {
            E::Newer { .. } | E::NotMigrated { .. } | E::Foreign => Wrong::Schema,
            E::File { .. } => Wrong::Outage,
            E::Store(error) => Wrong::of(error),
            _ => Wrong::Server,
        };
        not_opened(&error, wrong)
    }
}

#[cfg(feature = "postgres")]
impl From<cloakroom::postgres::ConnectError> for NotOpened {
    fn from(error: cloakroom::postgres::ConnectError) -> Self {
        use cloakroom::postgres::ConnectError as E;
        let wrong = match &error {
            E::Newer { .. } | E::NotMigrated { .. } => Wrong::Schema,
            E::Url { .. } | E::Name { .. } => Wrong::Usage,
            E::Store(error) => Wrong::of(error),
            _ => Wrong::Server,
        };
        not_opened(&error, wrong)
    }
}

#[cfg(feature = "mysql")]
impl From<cloakroom::mysql::ConnectError> for NotOpened {
    fn from(error: cloakroom::mysql::ConnectError) -> Self {
        use cloakroom::mysql::ConnectError as E;
        let wrong = match &error {
            E::Newer { .. } | E::NotMigrated { .. } | E::TooOld { .. } => Wrong::Schema,
            E::Url { .. } | E::Name { .. } => Wrong::Usage,
            E::Store(error) => Wrong::of(error),
            _ => Wrong::Server,
        };
        not_opened(&error, wrong)
    }
}

#[cfg(feature = "redis")]
impl From<cloakroom::redis::OpenError> for NotOpened {
    fn from(error: cloakroom::redis::OpenError) -> Self {
        use cloakroom::redis::OpenError as E;
        let wrong = match &error {
            E::Version { .. } | E::Evicts { .. } => Wrong::Schema,
            E::Url(_) | E::Prefix => Wrong::Usage,
            E::Store(error) => Wrong::of(error),
            _ => Wrong::Server,
        };
        not_opened(&error, wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_in_a_url_is_noticed() {
        for url in [
            "postgres://as:secret@db/auth",
            "redis://:secret@host",
            "redis+sentinel://u:p@a:1,b:2/master",
            "postgres://db/auth?password=secret",
        ] {
            assert!(has_password(url), "{url}");
        }
        for url in ["sqlite:a:b@c", "postgres://as@db:5432/auth", "redis://host:6379/0"] {
            assert!(!has_password(url), "{url}");
        }
    }
}
