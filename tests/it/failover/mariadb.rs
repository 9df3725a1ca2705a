//! A MariaDB primary and its replica, and the address that leads to the primary.
//!
//! Nothing in Debian fails MariaDB over by itself, so the test does what a manager would: it promotes the replica,
//! lets the address lead there, and makes a new replica in place of the old primary.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use cloakroom::mysql::MysqlStore;
use cloakroom::mysql::mysql_async::prelude::Queryable as _;
use cloakroom::mysql::mysql_async::{Conn, Error, OptsBuilder, Row};
use tempfile::TempDir;
use tokio::task::yield_now;

use crate::failover::proxy::Proxy;
use crate::free_port::free_port;

/// The store's user, who is no administrator, and the user of the replica.
const USERS: [&str; 4] = [
    "CREATE USER app@'127.0.0.1'",
    "GRANT ALL ON tokens.* TO app@'127.0.0.1'",
    "CREATE USER replica@'127.0.0.1'",
    "GRANT REPLICATION SLAVE ON *.* TO replica@'127.0.0.1'",
];

/// A primary and a replica.
#[derive(Debug)]
pub(crate) struct Pair {
    pub(crate) primary: Server,
    pub(crate) replica: Server,
    /// From the primary to the replica.
    pub(crate) stream: Proxy,
    /// Where the store connects.
    pub(crate) address: Proxy,
    is_synchronous: bool,
    servers: u32,
    folder: TempDir,
}

/// A server, until it is dropped.
#[derive(Debug)]
pub(crate) struct Server {
    port: u16,
    /// A shell that kills the server when its input ends, even if this process is killed.
    shell: Child,
    input: Option<ChildStdin>,
}

/// A store over the database of this URL.
pub(crate) async fn open(url: &str) -> MysqlStore {
    let store = MysqlStore::builder(url)
        .statement_timeout(Duration::from_secs(2))
        .connect_timeout(Duration::from_secs(2))
        .connect();
    store.await.unwrap()
}

impl Pair {
    /// `None` on a machine without MariaDB.
    pub(crate) async fn start(is_synchronous: bool) -> Option<Self> {
        program("mariadbd")?;
        let folder = tempfile::tempdir().unwrap();
        let primary = Server::start(folder.path(), 1).await;
        let mut admin = primary.connect().await;
        admin.query_drop("CREATE DATABASE tokens").await.unwrap();
        for sql in USERS {
            admin.query_drop(sql).await.unwrap();
        }
        let replica = Server::start(folder.path(), 2).await;
        let (stream, address) = (Proxy::to(primary.port).await, Proxy::to(primary.port).await);
        let pair = Self { primary, replica, stream, address, is_synchronous, servers: 2, folder };
        pair.replicate().await;
        Some(pair)
    }

    pub(crate) fn url(&self) -> String {
        format!("mysql://app@127.0.0.1:{}/tokens", self.address.port)
    }

    /// The replica begins to follow the primary, from where it is.
    async fn replicate(&self) {
        if self.is_synchronous {
            // A commit waits until the replica has it, before others see it, and however long that takes.
            self.replica.run("SET GLOBAL rpl_semi_sync_slave_enabled = 1").await;
            for sql in [
                "SET GLOBAL rpl_semi_sync_master_wait_point = 'AFTER_SYNC'",
                "SET GLOBAL rpl_semi_sync_master_timeout = 1000000000",
                "SET GLOBAL rpl_semi_sync_master_enabled = 1",
            ] {
                self.primary.run(sql).await;
            }
        }
        self.replica
            .run(&format!(
                "CHANGE MASTER TO MASTER_HOST = '127.0.0.1', MASTER_PORT = {}, MASTER_USER = 'replica', \
                 MASTER_CONNECT_RETRY = 1, MASTER_USE_GTID = slave_pos",
                self.stream.port
            ))
            .await;
        self.replica.run("SET GLOBAL read_only = 1").await;
        self.replica.run("START SLAVE").await;
        self.until_replayed().await;
    }

    /// Waits until the replica has all that the primary has committed.
    pub(crate) async fn until_replayed(&self) {
        let position: Option<String> =
            self.primary.connect().await.query_first("SELECT @@gtid_binlog_pos").await.unwrap();
        self.replica.until_applied(&position.unwrap()).await;
    }

    /// The replica gets nothing any more.
    pub(crate) fn cut_replication(&self) {
        self.stream.cut(true);
    }

    /// The replica takes over with what it has, and the address leads to it.
    pub(crate) async fn promote(&self) {
        let mut admin = self.replica.connect().await;
        admin.query_drop("STOP SLAVE IO_THREAD").await.unwrap();
        // What it has received counts as replicated, and may not be applied yet.
        let status: Option<Row> = admin.query_first("SHOW SLAVE STATUS").await.unwrap();
        let received: String = status.unwrap().get("Gtid_IO_Pos").unwrap();
        self.replica.until_applied(&received).await;
        for sql in ["STOP SLAVE", "RESET SLAVE ALL", "SET GLOBAL read_only = 0"] {
            admin.query_drop(sql).await.unwrap();
        }
        self.address.lead_to(self.replica.port);
    }

    /// A new replica in place of the old primary.
    pub(crate) async fn replace_old_primary(&mut self) {
        self.primary.kill();
        self.servers += 1;
        let new = Server::start(self.folder.path(), self.servers).await;
        let old = std::mem::replace(&mut self.primary, std::mem::replace(&mut self.replica, new));
        drop(old);
        let mut admin = self.replica.connect().await;
        // The primary has these in its log already.
        admin.query_drop("SET SESSION sql_log_bin = 0").await.unwrap();
        for sql in USERS {
            admin.query_drop(sql).await.unwrap();
        }
        let copy = "mariadb-dump --no-defaults --host=127.0.0.1 --port=$1 --user=root --single-transaction \
                    --gtid --master-data --databases tokens | \
                    mariadb --no-defaults --host=127.0.0.1 --port=$2 --user=root \
                    --init-command='SET SESSION sql_log_bin = 0'";
        let [from, to] = [self.primary.port, self.replica.port].map(|port| port.to_string());
        let copied = tokio::task::spawn_blocking(move || {
            Command::new("sh").args(["-c", copy, "sh", &from, &to]).output().unwrap()
        });
        let copied = copied.await.unwrap();
        assert!(
            copied.status.success() && copied.stderr.is_empty(),
            "{}",
            String::from_utf8_lossy(&copied.stderr)
        );
        self.stream.cut(false);
        self.stream.lead_to(self.primary.port);
        self.replicate().await;
    }
}

impl Server {
    async fn start(folder: &Path, number: u32) -> Self {
        let data = folder.join(format!("data-{number}"));
        let user = if is_root() { "root" } else { "" };
        let mut install = Command::new("mariadb-install-db");
        // A server that starts deletes temporary tables of others in the same folder.
        let temporary = folder.join(format!("tmp-{number}"));
        fs::create_dir(&temporary).unwrap();
        install
            .env("TMPDIR", &temporary)
            .arg("--no-defaults")
            .arg(format!("--datadir={}", data.display()))
            .args(["--auth-root-authentication-method=normal", "--skip-test-db"])
            .args(["--skip-name-resolve", "--innodb-log-file-size=16M"])
            .args(is_root().then(|| format!("--user={user}")));
        let installed = install.output().unwrap();
        assert!(installed.status.success(), "{}", String::from_utf8_lossy(&installed.stderr));
        let port = free_port();
        let log = fs::File::create(data.with_extension("log")).unwrap();
        let mut shell = Command::new("sh");
        shell
            .env("TMPDIR", &temporary)
            .args(["-c", "\"$@\" & server=$!; read _; kill -s KILL $server; wait $server", "sh"])
            .arg(program("mariadbd").unwrap())
            .arg("--no-defaults")
            .arg(format!("--datadir={}", data.display()))
            .args(is_root().then(|| format!("--user={user}")))
            .args(["--socket=socket", "--pid-file=pid", "--skip-name-resolve"])
            .args(["--bind-address=127.0.0.1", "--debug-no-sync", "--innodb-log-file-size=16M"])
            .args(["--log-bin=binlog", "--binlog-format=ROW", "--log-slave-updates"])
            .arg(format!("--server-id={number}"))
            .arg(format!("--port={port}"));
        let log_too = log.try_clone().unwrap();
        let mut shell = shell.stdin(Stdio::piped()).stdout(log).stderr(log_too).spawn().unwrap();
        let input = shell.stdin.take();
        let mut server = Self { port, shell, input };
        while server.try_connect().await.is_err() {
            assert!(server.shell.try_wait().unwrap().is_none(), "MariaDB has ended");
            yield_now().await;
        }
        server
    }

    async fn try_connect(&self) -> Result<Conn, Error> {
        let opts = OptsBuilder::default()
            .ip_or_hostname("127.0.0.1")
            .tcp_port(self.port)
            .user(Some("root"))
            .prefer_socket(false);
        Conn::new(opts).await
    }

    pub(crate) async fn connect(&self) -> Conn {
        self.try_connect().await.unwrap()
    }

    pub(crate) async fn run(&self, sql: &str) {
        self.connect().await.query_drop(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    }

    /// The URL of this server, wherever the address leads.
    pub(crate) fn url(&self) -> String {
        format!("mysql://app@127.0.0.1:{}/tokens", self.port)
    }

    async fn until_applied(&self, position: &str) {
        let wait = format!("SELECT MASTER_GTID_WAIT('{position}', 120)");
        let waited: Option<i64> = self.connect().await.query_first(wait).await.unwrap();
        assert_eq!(waited, Some(0), "the replica does not get up to {position}");
    }

    /// Kills it without a word to anyone.
    pub(crate) fn kill(&mut self) {
        self.input = None;
        self.shell.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|program| program.is_file())
}

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}
