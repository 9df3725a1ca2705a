//! Servers of their own, for what would disturb the other tests: one that is read-only, that is stopped and
//! started, that has TLS, and one whose deadlocks are counted.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use cloakroom_core::record::GrantRecord;
use cloakroom_core::revocation::Target;
use cloakroom_core::store::{
    AdvanceOutcome, CreateOutcome, Housekeeping, Lookup, SingleUseId, SingleUseStore as _, Spend,
    StoreError, TokenStore as _,
};
use cloakroom_core::{GrantId, Random};
use cloakroom_mysql::mysql_async::prelude::Queryable as _;
use cloakroom_mysql::mysql_async::{Conn, Error, OptsBuilder};
use cloakroom_mysql::{ConnectError, MysqlStore};
use futures_util::future::join_all;
use tempfile::TempDir;

use crate::free_port::free_port;
use crate::support::{DAY, NOW, grant, revocation, step, token};

/// A MariaDB in a temporary folder. Dropping it kills it.
#[derive(Debug)]
pub(super) struct Server {
    folder: TempDir,
    port: u16,
    options: Vec<String>,
    /// What starts the program, if that is not this process.
    starter: Vec<String>,
    process: Option<Child>,
}

/// The server program.
fn program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from))
        .map(|folder| folder.join("mariadbd"))
        .find(|program| program.is_file())
}

fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|id| id.stdout == b"0\n")
}

impl Server {
    /// `None` on a machine without the server: then the URL that the tests got is of another one.
    pub(super) async fn start(options: &[&str]) -> Option<Self> {
        let program = program()?;
        let folder = TempDir::new().unwrap();
        let mut install = Command::new("mariadb-install-db");
        // A server that starts deletes temporary tables of others in the same folder.
        install
            .env("TMPDIR", folder.path())
            .arg("--no-defaults")
            .arg(format!("--datadir={}", folder.path().join("data").display()))
            .args(["--auth-root-authentication-method=normal", "--skip-test-db"])
            .args(["--skip-name-resolve", "--user=root"])
            .stdout(Stdio::null());
        assert!(install.status().unwrap().success());
        let port = free_port();
        let options = options.iter().map(|option| (*option).to_owned()).collect();
        let mut server = Self { folder, port, options, starter: Vec::new(), process: None };
        server.begin(&program).await;
        server.admin().await.query_drop("CREATE DATABASE tokens").await.unwrap();
        Some(server)
    }

    async fn begin(&mut self, program: &Path) {
        let data = self.folder.path().join("data");
        let mut command = match self.starter.split_first() {
            None => Command::new(program),
            Some((starter, arguments)) => {
                let mut command = Command::new(starter);
                command.args(arguments).arg(program);
                command
            }
        };
        let process = command
            .env("TMPDIR", self.folder.path())
            .arg("--no-defaults")
            .arg(format!("--datadir={}", data.display()))
            .args(["--user=root", "--socket=socket", "--pid-file=pid", "--skip-name-resolve"])
            .args(["--bind-address=127.0.0.1", "--debug-no-sync"])
            .arg(format!("--port={}", self.port))
            .args(&self.options)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        self.process = Some(process);
        while self.try_admin().await.is_err() {
            let process = self.process.as_mut().unwrap();
            assert!(process.try_wait().unwrap().is_none(), "the server has ended");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Starts again, with these options as well. The server is not root, since the programs that it starts would
    /// refuse to be.
    pub(super) async fn restart_as_nobody_with(&mut self, options: Vec<String>) {
        self.kill();
        if is_root() {
            let mut chown = Command::new("chown");
            chown.args(["-R", "nobody"]).arg(self.folder.path());
            assert!(chown.status().unwrap().success());
            self.options.push("--user=nobody".to_owned());
        }
        self.options.extend(options);
        self.begin(&program().unwrap()).await;
    }

    /// Starts again, with the tables of the database `tokens` on a small disk of their own. `false` if this user
    /// may not mount one. The mount is in a namespace of the server's, and ends with it.
    async fn move_to_small_disk(&mut self) -> bool {
        const MOUNT: &str = "mount -t tmpfs -o size=4m tmpfs \"$0\"; exec \"$@\"";
        let is_root = is_root();
        if is_root {
            self.kill();
            let disk = self.folder.path().join("data/tokens").display().to_string();
            self.starter =
                ["unshare", "--mount", "sh", "-ec", MOUNT, &disk].map(ToOwned::to_owned).into();
            self.begin(&program().unwrap()).await;
        }
        is_root
    }

    fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    async fn try_admin(&self) -> Result<Conn, Error> {
        let opts = OptsBuilder::default()
            .ip_or_hostname("127.0.0.1")
            .tcp_port(self.port)
            .user(Some("root"))
            .prefer_socket(false);
        Conn::new(opts).await
    }

    pub(super) async fn admin(&self) -> Conn {
        self.try_admin().await.unwrap()
    }

    pub(super) fn url(&self, user: &str) -> String {
        format!("mysql://{user}@127.0.0.1:{}/tokens", self.port)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

fn is_outage<T: std::fmt::Debug>(answer: Result<T, StoreError>) {
    let error = answer.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error:?}");
    assert!(std::error::Error::source(&error).is_some(), "{error:?}");
}

/// A replica, given by mistake; and a primary that becomes a replica while a store is open.
#[tokio::test]
async fn a_server_that_does_not_accept_writes_is_refused() {
    let Some(server) = Server::start(&[]).await else { return };
    let mut admin = server.admin().await;
    // An administrator may write all the same, so the store is somebody else.
    admin.query_drop("CREATE USER app@'127.0.0.1'").await.unwrap();
    admin.query_drop("GRANT ALL ON tokens.* TO app@'127.0.0.1'").await.unwrap();
    let store = MysqlStore::connect(&server.url("app")).await.unwrap();
    let grant = grant(&store, "alice", "app").await;
    assert_eq!(store.create(grant.clone(), vec![]).await.unwrap(), CreateOutcome::Inserted);

    admin.query_drop("SET GLOBAL read_only = 1").await.unwrap();
    for user in ["app", "root"] {
        let error = MysqlStore::connect(&server.url(user)).await.unwrap_err();
        assert!(matches!(error, ConnectError::ReadOnly), "{error:?}");
    }
    is_outage(store.heartbeat(NOW, NOW + DAY).await);
    // What it says about grants may be old from now on. No connection to it is used any more.
    is_outage(store.find(grant.id, None).await);
    is_outage(store.advance(step(&grant).0).await);

    admin.query_drop("SET GLOBAL read_only = 0").await.unwrap();
    assert_eq!(store.advance(step(&grant).0).await.unwrap(), AdvanceOutcome::Advanced);
    store.heartbeat(NOW, NOW + DAY).await.unwrap();
}

/// A program whose user may not change tables.
#[tokio::test]
async fn a_user_who_may_only_read_and_write_rows_is_enough() {
    let Some(server) = Server::start(&[]).await else { return };
    let mut admin = server.admin().await;
    admin.query_drop("CREATE USER app@'127.0.0.1'").await.unwrap();
    admin
        .query_drop("GRANT SELECT, INSERT, UPDATE, DELETE ON tokens.* TO app@'127.0.0.1'")
        .await
        .unwrap();
    let program = || MysqlStore::builder(&server.url("app"));
    let refused = program().connect().await.unwrap_err();
    assert!(matches!(refused, ConnectError::Store(_)), "{refused:?}");
    assert_eq!(MysqlStore::builder(&server.url("root")).migrate().await.unwrap(), 1);
    for store in [program().auto_migrate(false).connect().await, program().connect().await] {
        let store = store.unwrap();
        let grant = grant(&store, "alice", "app").await;
        let token = token(&grant);
        assert_eq!(
            store.create(grant.clone(), vec![token]).await.unwrap(),
            CreateOutcome::Inserted
        );
        store.revoke(revocation(Target::Subject(grant.subject))).await.unwrap();
        let end = NOW + 9 * DAY;
        let task = Housekeeping { now: end, before: end, limit: 1_000, sweep: None };
        while store.maintain(task).await.unwrap().more {}
    }
}

/// The server is killed and started again. The same store works again, and nothing acknowledged is lost.
#[tokio::test]
async fn a_server_that_is_stopped_and_started_is_an_outage_in_between() {
    let Some(mut server) = Server::start(&[]).await else { return };
    let store = MysqlStore::connect(&server.url("root")).await.unwrap();
    let mut known = Vec::new();
    for round in 0..3 {
        for number in 0..20 {
            let grant = grant(&store, "alice", "app").await;
            assert_eq!(
                store.create(grant.clone(), vec![token(&grant)]).await.unwrap(),
                CreateOutcome::Inserted
            );
            if number % 2 == 0 {
                store.revoke(revocation(Target::Grant(grant.id))).await.unwrap();
            }
            known.push((grant, number % 2 == 0));
        }
        let lost = known.last().unwrap().0.clone();
        server.kill();
        is_outage(store.find(lost.id, None).await);
        is_outage(store.advance(step(&lost).0).await);
        is_outage(store.heartbeat(NOW, NOW + DAY).await);
        server.begin(&program().unwrap()).await;
        for (grant, is_revoked) in &known {
            let Lookup::Found(found) = store.find(grant.id, None).await.unwrap() else {
                panic!("round {round}: a grant is gone");
            };
            assert_eq!(found.grant.revoked_at.is_some(), *is_revoked, "round {round}");
        }
    }
}

/// The disk is full. Writes fail, each with its source, and reads go on. When there is room again, the same store
/// works.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_is_full_is_an_outage_of_writes() {
    const TABLE_IS_FULL: u16 = 1114;
    let Some(mut server) = Server::start(&[]).await else { return };
    if !server.move_to_small_disk().await {
        eprintln!("only root may mount a small disk: nothing was tested");
        return;
    }
    let store = MysqlStore::connect(&server.url("root")).await.unwrap();
    let known = grant(&store, "alice", "app").await;
    let known_token = token(&known);
    let created = store.create(known.clone(), vec![known_token.clone()]).await.unwrap();
    assert_eq!(created, CreateOutcome::Inserted);

    let mut admin = server.admin().await;
    // MariaDB 10.11 itself aborts if there is no room for a blob that does not fit into its row.
    admin.query_drop("CREATE TABLE tokens.filler (bytes VARBINARY(4000))").await.unwrap();
    for length in [3_500, 100] {
        let fill = format!("INSERT INTO tokens.filler VALUES (REPEAT('x', {length}))");
        let full = loop {
            if let Err(error) = admin.query_drop(&fill).await {
                break error;
            }
        };
        assert!(matches!(&full, Error::Server(e) if e.code == TABLE_IS_FULL), "{full:?}");
    }
    let mut current = known.clone();
    for kind in 0..4 {
        // Pages that are there have some room.
        let error = loop {
            if let Err(error) = write(&store, &mut current, kind).await {
                break error;
            }
        };
        let mut source: Option<&(dyn std::error::Error + 'static)> = Some(&error);
        let mut is_full = false;
        while let Some(error) = source {
            is_full = is_full
                || matches!(error.downcast_ref(), Some(Error::Server(e)) if e.code == TABLE_IS_FULL);
            source = error.source();
        }
        assert!(matches!(error, StoreError::Unavailable { .. }), "{kind}: {error:?}");
        assert!(is_full, "{kind}: {error:?}");
    }
    let found = store.find(known.id, Some(known_token.digest)).await.unwrap();
    assert!(matches!(&found, Lookup::Found(found) if found.token.is_some()), "{found:?}");

    admin.query_drop("DROP TABLE tokens.filler").await.unwrap();
    let Lookup::Found(found) = store.find(known.id, None).await.unwrap() else {
        panic!("the grant is gone")
    };
    // The step that failed was not taken.
    current = (*found.grant).clone();
    for kind in 0..4 {
        write(&store, &mut current, kind).await.unwrap();
    }
}

/// Every write that adds a row, by its number.
async fn write(store: &MysqlStore, current: &mut GrantRecord, kind: u32) -> Result<(), StoreError> {
    match kind {
        0 => {
            let grant = grant(store, "alice", "app").await;
            let tokens = vec![token(&grant)];
            store.create(grant, tokens).await.map(drop)
        }
        1 => {
            let (step, next) = step(current);
            *current = next;
            store.advance(step).await.map(drop)
        }
        2 => {
            let absent = GrantId::random(&Random::system()).unwrap();
            store.revoke(revocation(Target::Grant(absent))).await.map(drop)
        }
        _ => {
            let id = SingleUseId::from_bytes(Random::system().array().unwrap());
            store.spend(Spend { id, until: NOW + DAY, now: NOW }).await.map(drop)
        }
    }
}

/// Housekeeping on four nodes, beside steps, logins and sweeps of the same grants: no two transactions wait for
/// each other.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn housekeeping_on_many_nodes_makes_no_deadlock() {
    let Some(server) = Server::start(&[]).await else { return };
    let mut nodes = Vec::new();
    for _ in 0..4 {
        nodes.push(MysqlStore::connect(&server.url("root")).await.unwrap());
    }
    let store = Arc::new(nodes[0].clone());
    let mut living = Vec::new();
    for number in 0..600 {
        let mut grant = grant(&*store, &format!("user {}", number % 7), "app").await;
        if number % 2 == 0 {
            // It ends before its token.
            grant.row_expires_at = NOW + Duration::from_secs(1);
        }
        let tokens = vec![token(&grant), token(&grant)];
        assert_eq!(store.create(grant.clone(), tokens).await.unwrap(), CreateOutcome::Inserted);
        living.push(grant);
    }
    let mut tasks = Vec::new();
    for (number, node) in nodes.iter().enumerate() {
        let (node, mine) = (node.clone(), living.clone());
        tasks.push(tokio::spawn(async move {
            let before = NOW + Duration::from_secs(700);
            let task = Housekeeping { now: before, before, limit: 50, sweep: None };
            for round in 0..12 {
                let _ = node.maintain(task).await.unwrap();
                node.heartbeat(NOW, NOW).await.unwrap();
                let of = Target::Subject(mine[(round + number) % 7].subject.clone());
                if round % 3 == 0 {
                    node.revoke(revocation(of)).await.unwrap();
                }
                for grant in mine.iter().skip(number * 7 + round).step_by(60) {
                    let _ = node.advance(step(grant).0).await.unwrap();
                    node.revoke(revocation(Target::Grant(grant.id))).await.unwrap();
                }
            }
        }));
    }
    for task in join_all(tasks).await {
        task.unwrap();
    }
    let sql = "SELECT variable_value FROM information_schema.global_status \
               WHERE variable_name = 'INNODB_DEADLOCKS'";
    let deadlocks: Option<String> = server.admin().await.query_first(sql).await.unwrap();
    assert_eq!(deadlocks.as_deref(), Some("0"));
}

/// A certificate of a private authority, for the name `localhost`.
fn certificates(folder: &Path) {
    let script = r"
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 \
            -subj /CN=authority -keyout ca.key -out ca.pem
        openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=localhost \
            -keyout server.key -out server.csr
        printf 'subjectAltName=DNS:localhost' >server.ext
        openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 \
            -extfile server.ext -out server.pem
    ";
    let mut command = Command::new("sh");
    command.args(["-e", "-c", script]).current_dir(folder).stdout(Stdio::null());
    assert!(command.stderr(Stdio::null()).status().unwrap().success());
}

#[tokio::test]
async fn the_name_of_the_server_is_verified() {
    let folder = TempDir::new().unwrap();
    certificates(folder.path());
    let file = |name: &str| folder.path().join(name).display().to_string();
    let options =
        [format!("--ssl-cert={}", file("server.pem")), format!("--ssl-key={}", file("server.key"))];
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let Some(server) = Server::start(&options).await else { return };
    let mut admin = server.admin().await;
    for sql in
        ["CREATE USER safe@'127.0.0.1' REQUIRE SSL", "GRANT ALL ON tokens.* TO safe@'127.0.0.1'"]
    {
        admin.query_drop(sql).await.unwrap();
    }
    let ca = file("ca.pem");
    let connect = |host: &str, parameters: String| {
        let url = format!("mysql://safe@{host}:{}/tokens?{parameters}", server.port);
        async move { MysqlStore::connect(&url).await }
    };
    for (host, parameters) in [
        ("localhost", format!("ssl-mode=VERIFY_IDENTITY&ssl-ca={ca}")),
        ("localhost", format!("ssl-mode=VERIFY_CA&ssl-ca={ca}")),
        ("127.0.0.1", format!("ssl-mode=VERIFY_CA&ssl-ca={ca}&ssl-server-name=localhost")),
        ("127.0.0.1", "ssl-mode=REQUIRED".to_owned()),
        ("127.0.0.1", "ssl-mode=PREFERRED".to_owned()),
    ] {
        let store = connect(host, parameters.clone()).await;
        let store = store.unwrap_or_else(|error| panic!("{parameters}: {error:?}"));
        store.heartbeat(NOW, NOW + DAY).await.unwrap();
    }
    for (host, parameters) in [
        // Another name than the certificate's.
        ("127.0.0.1", format!("ssl-mode=VERIFY_IDENTITY&ssl-ca={ca}")),
        ("127.0.0.1", format!("ssl-mode=VERIFY_CA&ssl-ca={ca}")),
        ("localhost", format!("ssl-mode=VERIFY_IDENTITY&ssl-ca={ca}&ssl-server-name=db.internal")),
        // An authority that the web does not know.
        ("localhost", "ssl-mode=VERIFY_IDENTITY".to_owned()),
        ("localhost", "ssl-mode=VERIFY_CA".to_owned()),
        // The user needs TLS.
        ("127.0.0.1", "ssl-mode=DISABLED".to_owned()),
        ("127.0.0.1", String::new()),
        ("localhost", "ssl-mode=VERIFY_CA&ssl-ca=/no/such/file".to_owned()),
    ] {
        let error = connect(host, parameters.clone()).await.unwrap_err();
        assert!(matches!(error, ConnectError::Store(_)), "{parameters}: {error:?}");
    }
    // A server without TLS.
    let Some(plain) = Server::start(&["--skip-ssl"]).await else { return };
    let url = |mode: &str| format!("{}?ssl-mode={mode}", plain.url("root"));
    assert!(MysqlStore::connect(&url("PREFERRED")).await.is_ok());
    assert!(MysqlStore::connect(&url("REQUIRED")).await.is_err());
}
