//! Behind `PgBouncer`, which gives each transaction to another server connection.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use async_trait::async_trait;
use cloakroom_conformance::single_use::{SingleUseDatabase, SingleUseFactory};
use cloakroom_conformance::{Factory, checks, run};
use cloakroom_core::keys::KeyStore;
use cloakroom_core::store::{SingleUseStore, TokenStore};
use cloakroom_postgres::tokio_postgres::Config;
use cloakroom_postgres::tokio_postgres::config::Host;
use cloakroom_postgres::{PostgresStore, PostgresStoreBuilder};
use tokio::net::TcpStream;
use tokio::task::yield_now;

use crate::free_port::free_port;
use crate::server::{schema, stranger, url, without_sslmode};

/// A `PgBouncer` of the test's own. It ends with the test.
#[derive(Debug)]
struct Pooler {
    process: Child,
    folder: PathBuf,
    url: String,
}

impl Drop for Pooler {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

impl Pooler {
    async fn start() -> Self {
        let plain = without_sslmode(&url());
        let config: Config = plain.parse().unwrap();
        let Host::Tcp(host) = &config.get_hosts()[0] else { panic!("the server has a TCP port") };
        let port = config.get_ports().first().copied().unwrap_or(5432);
        let (user, database) = (config.get_user().unwrap(), config.get_dbname().unwrap());
        let password = config.get_password().map(|password| String::from_utf8_lossy(password));
        let password = password.map_or(String::new(), |password| format!(" password='{password}'"));
        let free = free_port();
        let folder = std::env::temp_dir().join(format!("cloakroom-{}", schema()));
        fs::create_dir(&folder).unwrap();
        let settings = folder.join("pgbouncer.ini");
        fs::write(
            &settings,
            format!(
                "[databases]\n\
                 {database} = host={host} port={port} user={user}{password}\n\
                 [pgbouncer]\n\
                 listen_addr = 127.0.0.1\n\
                 listen_port = {free}\n\
                 unix_socket_dir =\n\
                 auth_type = any\n\
                 pool_mode = transaction\n\
                 default_pool_size = 10\n\
                 max_client_conn = 1000\n"
            ),
        )
        .unwrap();
        let mut command = Command::new("pgbouncer");
        command.arg("--quiet").arg(&settings).stdout(Stdio::null()).stderr(Stdio::null());
        #[cfg(unix)]
        {
            use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
            use std::os::unix::process::CommandExt as _;
            // It refuses to run as root.
            if fs::metadata(&folder).unwrap().uid() == 0 {
                fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
                fs::set_permissions(&settings, fs::Permissions::from_mode(0o644)).unwrap();
                command.uid(65_534).gid(65_534);
            }
        }
        let mut process =
            command.spawn().expect("this test needs PgBouncer: apt-get install pgbouncer");
        while TcpStream::connect(("127.0.0.1", free)).await.is_err() {
            assert!(process.try_wait().unwrap().is_none(), "PgBouncer has ended");
            yield_now().await;
        }
        let url = format!("postgres://{user}@127.0.0.1:{free}/{database}?sslmode=disable");
        Self { process, folder, url }
    }

    fn builder(&self, schema: &str) -> PostgresStoreBuilder {
        PostgresStore::builder(&self.url).schema(schema).transaction_pooler(true)
    }
}

#[async_trait]
impl Factory for Pooler {
    async fn tokens(&self) -> Arc<dyn TokenStore> {
        Arc::new(self.builder(&schema()).connect().await.unwrap())
    }

    async fn keys(&self) -> Arc<dyn KeyStore> {
        Arc::new(self.builder(&schema()).connect().await.unwrap())
    }
}

/// What each statement does by itself, and that nothing is left behind on the connection of another. Races are
/// those of the server, and are run without the pooler.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_kit_passes_behind_a_pooler() {
    let topics = ["contract::", "log::", "races::create", "races::advance"];
    let chosen: Vec<_> = checks()
        .into_iter()
        .filter(|check| topics.iter().any(|topic| check.name.starts_with(topic)))
        .collect();
    assert!(chosen.len() > 150, "{}", chosen.len());
    run(&chosen, Arc::new(Pooler::start().await)).await.assert_ok();
}

#[async_trait]
impl SingleUseFactory for Pooler {
    async fn database(&self) -> Arc<dyn SingleUseDatabase> {
        Arc::new(Items(schema(), self.url.clone()))
    }
}

#[derive(Debug)]
struct Items(String, String);

#[async_trait]
impl SingleUseDatabase for Items {
    async fn open(&self) -> Arc<dyn SingleUseStore> {
        let builder = PostgresStore::builder(&self.1).schema(&self.0).transaction_pooler(true);
        Arc::new(builder.connect().await.unwrap())
    }

    async fn count(&self) -> Option<u64> {
        let count = format!("SELECT count(*) FROM {}.single_use", self.0);
        Some(stranger().await.number(&count).await.cast_unsigned())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn single_use_items_pass_behind_a_pooler() {
    cloakroom_conformance::single_use::run_all(Pooler::start().await).await.assert_ok();
}
