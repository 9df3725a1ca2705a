//! PostgreSQL servers of a test.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

use cloakroom::postgres::tokio_postgres::{Client, Config, NoTls};
use tempfile::TempDir;
use tokio::task::yield_now;

use crate::failover::proxy::Proxy;
use crate::free_port::free_port;

/// The user and group that own nothing: PostgreSQL refuses to run as root.
const NOBODY: u32 = 65_534;

const PASSWORD: &str = "of-a-test-on-this-machine";

/// A primary, and a standby that reads from it through a proxy.
#[derive(Debug)]
pub(crate) struct Pair {
    pub(crate) primary: Server,
    pub(crate) standby: Server,
    /// Between them.
    pub(crate) stream: Proxy,
    _folder: TempDir,
}

/// A server, until it is dropped.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) port: u16,
    /// A shell that ends the server when its input ends, even if this process is killed.
    shell: Child,
    input: Option<ChildStdin>,
}

impl Pair {
    pub(crate) async fn start(is_synchronous: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        if is_root() {
            fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
        }
        let (first, second) = (folder.path().join("primary"), folder.path().join("standby"));
        initdb(folder.path(), &first);
        let synchronous = if is_synchronous { "*" } else { "" };
        let primary = Server::start(folder.path(), &first).await;
        let stream = Proxy::to(primary.port).await;
        let mut copy = command("pg_basebackup", folder.path());
        copy.arg("--pgdata").arg(&second).args(["--write-recovery-conf", "--checkpoint", "fast"]);
        let address = config(stream.port);
        run(copy.args(["--no-sync", "--dbname", &format!("{address} dbname=replication")]));
        let standby = Server::start(folder.path(), &second).await;
        let pair = Self { primary, standby, stream, _folder: folder };
        pair.primary
            .run(&format!("ALTER SYSTEM SET synchronous_standby_names = '{synchronous}'"))
            .await;
        pair.primary.run("SELECT pg_reload_conf()").await;
        pair.until_replayed().await;
        pair
    }

    /// The URL of both.
    pub(crate) fn url(&self) -> String {
        let hosts = [&self.primary, &self.standby].map(|it| format!("127.0.0.1:{}", it.port));
        url(&hosts.join(","))
    }

    /// Waits until the standby has all that the primary has committed.
    pub(crate) async fn until_replayed(&self) {
        let client = self.primary.connect().await;
        let row = client.query_one("SELECT pg_current_wal_lsn()::text", &[]).await.unwrap();
        let position: String = row.get(0);
        let behind = format!(
            "SELECT count(*) FROM pg_stat_replication WHERE replay_lsn >= '{position}'::pg_lsn"
        );
        while client.query_one(&behind, &[]).await.unwrap().get::<_, i64>(0) == 0 {
            yield_now().await;
        }
    }

    /// The primary ends at once, and the standby takes over with what it has.
    pub(crate) async fn fail_over(&mut self) {
        self.primary.end();
        self.standby.run("SELECT pg_promote()").await;
    }
}

/// A server with a tablespace on a disk of its own, which is small.
#[derive(Debug)]
pub(crate) struct SmallDisk {
    pub(crate) server: Server,
    _folder: TempDir,
}

impl SmallDisk {
    /// `None` if this user may not mount a disk. The mount is in a namespace of the server's, and ends with it.
    pub(crate) async fn start() -> Option<Self> {
        const MOUNT: &str = "mount -t tmpfs -o size=16m,uid=$1,gid=$1,mode=700 tmpfs \"$0\"; shift; \
                             exec setpriv --reuid=65534 --regid=65534 --clear-groups \"$@\"";
        if !is_root() {
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let (data, disk) = (folder.path().join("data"), folder.path().join("disk"));
        initdb(folder.path(), &data);
        fs::create_dir(&disk).unwrap();
        let mut before = Command::new("unshare");
        before.args(["--mount", "sh", "-ec", MOUNT]).arg(&disk).arg(NOBODY.to_string());
        before.arg("sh").current_dir(folder.path()).stdin(Stdio::null());
        let server = Server::start_by(before, folder.path(), &data).await;
        server.run(&format!("CREATE TABLESPACE small LOCATION '{}'", disk.display())).await;
        Some(Self { server, _folder: folder })
    }

    /// The URL with which new tables are on that disk.
    pub(crate) fn url(&self) -> String {
        format!("{}&options=-c%20default_tablespace%3Dsmall", self.server.url())
    }
}

impl Server {
    async fn start(folder: &Path, data: &Path) -> Self {
        Self::start_by(as_nobody("sh".into(), folder), folder, data).await
    }

    /// Starts it by this shell.
    async fn start_by(mut shell: Command, folder: &Path, data: &Path) -> Self {
        let port = free_port();
        let log = fs::File::create(data.with_extension("log")).unwrap();
        let postgres = command("postgres", folder).get_program().to_owned();
        let wait = "\"$@\" & server=$!; read _; kill -s QUIT $server; wait $server";
        shell.args(["-c", wait, "sh"]).arg(postgres).arg("-D").arg(data);
        for setting in [
            &*format!("port={port}"),
            "listen_addresses=127.0.0.1",
            "unix_socket_directories=",
            "fsync=off",
        ] {
            shell.args(["-c", setting]);
        }
        let log_too = log.try_clone().unwrap();
        let shell = shell.stdin(Stdio::piped()).stdout(log).stderr(log_too);
        let mut shell = shell.spawn().unwrap();
        let input = shell.stdin.take();
        let mut server = Self { port, shell, input };
        while server.try_connect().await.is_none() {
            assert!(server.shell.try_wait().unwrap().is_none(), "PostgreSQL has ended");
            yield_now().await;
        }
        server
    }

    pub(crate) fn url(&self) -> String {
        url(&format!("127.0.0.1:{}", self.port))
    }

    async fn try_connect(&self) -> Option<Client> {
        let config: Config = format!("{} dbname=postgres", config(self.port)).parse().unwrap();
        let (client, connection) = config.connect(NoTls).await.ok()?;
        tokio::spawn(connection);
        Some(client)
    }

    pub(crate) async fn connect(&self) -> Client {
        self.try_connect().await.expect("the server runs")
    }

    pub(crate) async fn run(&self, sql: &str) {
        self.connect().await.batch_execute(sql).await.unwrap();
    }

    /// Ends it without a word to its standby.
    pub(crate) fn end(&mut self) {
        self.input = None;
        self.shell.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}

fn initdb(folder: &Path, data: &Path) {
    let password = folder.join("password");
    fs::write(&password, PASSWORD).unwrap();
    let mut initdb = command("initdb", folder);
    initdb.arg("--pgdata").arg(data).arg("--pwfile").arg(&password);
    initdb.args(["--username", "cloakroom", "--auth", "scram-sha-256"]);
    run(initdb.args(["--encoding", "UTF8", "--no-locale", "--no-sync"]));
}

fn config(port: u16) -> String {
    format!("host=127.0.0.1 port={port} user=cloakroom password={PASSWORD}")
}

fn url(hosts: &str) -> String {
    format!("postgres://cloakroom:{PASSWORD}@{hosts}/postgres?sslmode=disable")
}

/// A program of PostgreSQL. Debian keeps them in a folder for each major version.
fn command(name: &str, folder: &Path) -> Command {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let newest = versions
        .filter_map(|it| Some((it.file_name().to_str()?.parse::<u32>().ok()?, it.path())))
        .map(|(version, path)| (version, path.join("bin").join(name)))
        .filter(|(_, path)| path.exists())
        .max();
    as_nobody(newest.map_or_else(|| name.into(), |(_, path)| path), folder)
}

fn as_nobody(program: PathBuf, folder: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(folder).env("TMPDIR", folder).stdin(Stdio::null());
    if is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    command
}

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

fn run(command: &mut Command) {
    let output = command.output().expect("this test needs PostgreSQL: apt-get install postgresql");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
