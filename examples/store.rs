//! `--store` of the examples: where they keep grants and keys.

use std::error::Error;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use cloakroom::core::TokenSecret;
use cloakroom::core::keys::KeyStore;
use cloakroom::core::store::SingleUseStore;
use cloakroom::core::store::TokenStore;
use cloakroom::jwt::AesGcmSealer;
use cloakroom::memory::MemoryStore;
#[cfg(feature = "mysql")]
use cloakroom::mysql::MysqlStore;
#[cfg(feature = "postgres")]
use cloakroom::postgres::PostgresStore;
#[cfg(feature = "redis")]
use cloakroom::redis::RedisStore;
use cloakroom::sqlite::SqliteStore;
use cloakroom::{HandleKeys, HandleSecret, Issuer, IssuerBuilder};

type Failure = Box<dyn Error + Send + Sync>;

#[derive(Debug, Clone)]
pub(crate) enum Store {
    Memory,
    Sqlite(PathBuf),
    /// The URL of a database.
    #[cfg(feature = "mysql")]
    Mysql(String),
    /// The URL of a database.
    #[cfg(feature = "postgres")]
    Postgres(String),
    /// The URL of a server, of sentinels or of a cluster.
    #[cfg(feature = "redis")]
    Redis(String),
}

impl FromStr for Store {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (scheme, rest) = text.split_once(':').unwrap_or((text, ""));
        match scheme {
            "memory" if text == scheme => Ok(Self::Memory),
            "sqlite" if !rest.is_empty() => Ok(Self::Sqlite(rest.into())),
            #[cfg(feature = "mysql")]
            "mysql" | "mariadb" => Ok(Self::Mysql(text.to_owned())),
            #[cfg(feature = "postgres")]
            "postgres" | "postgresql" => Ok(Self::Postgres(text.to_owned())),
            #[cfg(feature = "redis")]
            _ if scheme.starts_with("redis") || scheme.starts_with("valkey") => {
                Ok(Self::Redis(text.to_owned()))
            }
            #[cfg(not(feature = "mysql"))]
            "mysql" | "mariadb" => Err("build the example with `--features mysql`"),
            #[cfg(not(feature = "postgres"))]
            "postgres" | "postgresql" => Err("build the example with `--features postgres`"),
            #[cfg(not(feature = "redis"))]
            _ if scheme.starts_with("redis") || scheme.starts_with("valkey") => {
                Err("build the example with `--features redis`")
            }
            _ => Err(
                "it is not `memory`, `sqlite:` and a path, or a URL of MySQL, PostgreSQL or Redis",
            ),
        }
    }
}

impl Store {
    /// An issuer that keeps its grants and keys here, and its token store.
    pub(crate) async fn open(
        &self,
        url: &str,
    ) -> Result<(IssuerBuilder, Arc<dyn TokenStore>), Failure> {
        match self {
            Self::Memory => {
                let store = Arc::new(MemoryStore::new());
                // Makes handle keys and a sealing key at random.
                Ok((Issuer::dev().url(url).store(Arc::clone(&store)), store))
            }
            Self::Sqlite(path) => {
                let mut secrets = path.clone().into_os_string();
                secrets.push(".secrets");
                issuer(url, Arc::new(SqliteStore::open(path)?), Path::new(&secrets))
            }
            #[cfg(feature = "mysql")]
            Self::Mysql(server) => {
                let store = MysqlStore::connect(server).await?;
                issuer(url, Arc::new(store), Path::new("mysql.secrets"))
            }
            #[cfg(feature = "postgres")]
            Self::Postgres(server) => {
                let store = PostgresStore::connect(server).await?;
                issuer(url, Arc::new(store), Path::new("postgres.secrets"))
            }
            #[cfg(feature = "redis")]
            Self::Redis(server) => {
                let store = RedisStore::connect(server).await?;
                issuer(url, Arc::new(store), Path::new("redis.secrets"))
            }
        }
    }
}

fn issuer<S: TokenStore + KeyStore + SingleUseStore>(
    url: &str,
    store: Arc<S>,
    secrets: &Path,
) -> Result<(IssuerBuilder, Arc<dyn TokenStore>), Failure> {
    let (handles, sealing) = secrets_of(secrets)?;
    let issuer = Issuer::builder(url)
        .store(Arc::clone(&store))
        .single_use(store.clone())
        .handle_keys(HandleKeys::new(&HandleSecret::from_hex(1, handles.expose())?))
        .sealer(Arc::new(AesGcmSealer::from_hex(1, sealing.expose())?));
    Ok((issuer, store))
}

/// The handle secret and the key that seals signing keys, created at the first start. They are not in
/// the database, so a copy of the database alone is worth nothing. A real server takes them from its
/// environment or a vault.
fn secrets_of(path: &Path) -> Result<(TokenSecret, TokenSecret), Failure> {
    let failed = |error| format!("the secrets in {} cannot be used: {error}", path.display());
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    match options.open(path) {
        Ok(mut file) => {
            for _ in 0..2 {
                let mut secret = [0; 32];
                getrandom::fill(&mut secret)?;
                for byte in secret {
                    write!(file, "{byte:02x}").map_err(failed)?;
                }
                writeln!(file).map_err(failed)?;
            }
        }
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(failed(error).into()),
    }
    let text = TokenSecret::new(std::fs::read_to_string(path).map_err(failed)?);
    match text.expose().lines().collect::<Vec<_>>()[..] {
        [handles, sealing] => Ok((TokenSecret::new(handles), TokenSecret::new(sealing))),
        _ => Err(format!("{} does not hold two lines", path.display()).into()),
    }
}
