//! Three PostgreSQL servers under Patroni with one etcd, and what befalls their primary.
//!
//! Everybody reaches a server through its proxies: clients, the other servers, and it etcd. The keeper in
//! xtask ends what is left of the processes, however the test ends.

use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use cloakroom::postgres::PostgresStore;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::failover::proxy::Proxy;
use crate::failover::signal;
use crate::failover::trial::{BEHIND, FAULTS, Fault, Replicated};
use crate::free_port::free_port;

const NODES: usize = 3;

/// How long Patroni's lease of the leader lasts without being renewed.
const LEASE: Duration = Duration::from_secs(8);

/// Far longer than anything takes, even where everything is slow.
const PATIENCE: Duration = Duration::from_secs(120);
const PAUSE: Duration = Duration::from_millis(100);

/// How long a standby has to follow a new primary before it is copied anew.
const REPAIR: Duration = Duration::from_secs(15);

/// What `cargo xtask failover` says.
#[derive(Debug)]
pub(crate) struct Settings {
    folder: PathBuf,
    patroni: PathBuf,
    etcd: PathBuf,
    /// Where PostgreSQL's programs are.
    postgres: PathBuf,
    /// The user and group of the servers, if this process is root.
    user: Option<(u32, u32)>,
    pub(crate) rounds: usize,
    pub(crate) is_synchronous: bool,
}

impl Settings {
    pub(crate) fn from_environment() -> Self {
        let variable = |name| {
            std::env::var(format!("CLOAKROOM_FAILOVER_{name}")).unwrap_or_else(|_| {
                panic!("CLOAKROOM_FAILOVER_{name} is not set: run `cargo xtask failover postgres`")
            })
        };
        let number = |name| variable(name).parse().unwrap();
        let user: u32 = number("UID");
        Self {
            folder: variable("FOLDER").into(),
            patroni: variable("PATRONI").into(),
            etcd: variable("ETCD").into(),
            postgres: variable("POSTGRES").into(),
            user: (user != 0).then(|| (user, number("GID"))),
            rounds: number("ROUNDS").try_into().unwrap(),
            is_synchronous: variable("SYNCHRONOUS") == "true",
        }
    }
}

/// The database.
#[derive(Debug)]
pub(crate) struct Cluster {
    settings: Settings,
    password: String,
    nodes: Vec<Node>,
    etcd: Mutex<Child>,
}

#[derive(Debug)]
struct Node {
    name: String,
    /// Where PostgreSQL and Patroni themselves listen.
    port: u16,
    api: u16,
    postgres: Proxy,
    /// Where standbys read.
    replication: Proxy,
    patroni: Proxy,
    etcd: Proxy,
    process: Mutex<Option<Child>>,
    /// The processes that a fault has stopped.
    stopped: Mutex<Vec<u32>>,
}

impl Cluster {
    /// Starts everything, and waits until all servers run.
    pub(crate) async fn start(settings: Settings) -> Self {
        let random: [u8; 16] = cloakroom::core::Random::system().array().unwrap();
        let password = random.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
        let (client, peer) = (free_port(), free_port());
        let etcd = settings.start_etcd(client, peer);
        let mut nodes = Vec::new();
        for number in 1..=NODES {
            let (port, api) = (free_port(), free_port());
            nodes.push(Node {
                name: format!("node{number}"),
                port,
                api,
                postgres: Proxy::to(port).await,
                replication: Proxy::to(port).await,
                patroni: Proxy::to(api).await,
                etcd: Proxy::to(client).await,
                process: Mutex::default(),
                stopped: Mutex::default(),
            });
        }
        let cluster = Self { settings, password, nodes, etcd: Mutex::new(etcd) };
        for node in 0..NODES {
            cluster.start_node(node);
        }
        cluster.until_whole().await;
        cluster
    }

    /// The URL of the database: all servers.
    pub(crate) fn url(&self) -> String {
        let hosts: Vec<String> =
            self.nodes.iter().map(|node| format!("127.0.0.1:{}", node.postgres.port)).collect();
        let hosts = hosts.join(",");
        format!("postgres://cloakroom:{}@{hosts}/postgres?sslmode=disable", self.password)
    }

    pub(crate) fn is_synchronous(&self) -> bool {
        self.settings.is_synchronous
    }

    pub(crate) fn rounds(&self) -> usize {
        self.settings.rounds
    }

    /// Waits for a primary that is not this server.
    async fn until_leader(&self, but: Option<usize>) -> usize {
        self.patiently("a primary", || async {
            for (number, node) in self.nodes.iter().enumerate() {
                if Some(number) != but && ask(node.api, "/primary").await.is_some() {
                    return Some(number);
                }
            }
            None
        })
        .await
    }

    /// The primary, and the servers that do not follow it.
    async fn view(&self) -> Option<(usize, Vec<usize>)> {
        for (leader, node) in self.nodes.iter().enumerate() {
            if ask(node.api, "/primary").await.is_some() {
                let view = ask(node.api, "/cluster").await?;
                let behind = |number: &usize| !self.follows(&view, *number);
                let mut behind: Vec<usize> = (0..NODES).filter(behind).collect();
                let members = view["members"].as_array()?;
                let is_safe = members.iter().any(|it| it["role"] == "sync_standby");
                if self.settings.is_synchronous && !is_safe && behind.is_empty() {
                    behind = (0..NODES).filter(|number| *number != leader).collect();
                }
                return Some((leader, behind));
            }
        }
        None
    }

    fn follows(&self, view: &Value, number: usize) -> bool {
        let members = view["members"].as_array().map(Vec::as_slice).unwrap_or_default();
        let Some(primary) = members.iter().find(|it| it["role"] == "leader") else { return false };
        members.iter().any(|it| {
            it["name"] == *self.nodes[number].name
                && (it["state"] == "running" || it["state"] == "streaming")
                && it["timeline"] == primary["timeline"]
                && it["lag"].as_u64().unwrap_or_default() < 1 << 20
        })
    }

    /// From now on the standbys read nothing of this server, until its fault is mended.
    fn cut_replication(&self, node: usize) {
        self.nodes[node].replication.cut(true);
    }

    fn inflict(&self, fault: Fault, node: usize) {
        let node = &self.nodes[node];
        let folder = self.settings.folder.join(&node.name);
        match fault {
            Fault::Kill => {
                let process = node.process.lock().unwrap().take();
                let mut process = process.expect("Patroni runs");
                process.kill().unwrap();
                process.wait().unwrap();
                signal("KILL", &postmaster(&folder).into_iter().collect::<Vec<_>>());
            }
            Fault::Stop => {
                let patroni = node.process.lock().unwrap().as_ref().map(Child::id);
                let roots: Vec<u32> = patroni.into_iter().chain(postmaster(&folder)).collect();
                let all = families(&roots);
                signal("STOP", &all);
                *node.stopped.lock().unwrap() = all;
            }
            Fault::Cut => node.cut(true),
        }
    }

    /// Undoes a fault.
    fn mend_fault(&self, fault: Fault, node: usize) {
        self.nodes[node].replication.cut(false);
        match fault {
            Fault::Kill => self.start_node(node),
            Fault::Stop => {
                let all = std::mem::take(&mut *self.nodes[node].stopped.lock().unwrap());
                signal("CONT", &all);
            }
            Fault::Cut => self.nodes[node].cut(false),
        }
    }

    fn start_node(&self, number: usize) {
        let node = &self.nodes[number];
        let settings = self.settings.write_patroni(node, &self.password);
        let mut command = self.settings.command(&self.settings.patroni, &node.name);
        command.arg(settings);
        *node.process.lock().unwrap() = Some(command.spawn().unwrap());
    }

    async fn patiently<T, F>(&self, what: &str, mut look: impl FnMut() -> F) -> T
    where
        F: Future<Output = Option<T>>,
    {
        let waiting = async {
            loop {
                match look().await {
                    Some(found) => return found,
                    None => sleep(PAUSE).await,
                }
            }
        };
        match timeout(PATIENCE, waiting).await {
            Ok(found) => found,
            Err(_) => panic!("no sign of {what}: {}", self.said()),
        }
    }

    /// Saves what the servers have printed, and says where: the folder is removed at the end.
    fn said(&self) -> String {
        let saved = Path::new(env!("CARGO_TARGET_TMPDIR")).join("failover");
        let _ = fs::create_dir_all(&saved);
        for name in self.nodes.iter().map(|node| node.name.as_str()).chain(["etcd"]) {
            let log = format!("{name}.log");
            let _ = fs::copy(self.settings.folder.join(&log), saved.join(&log));
        }
        format!("what the servers printed is in {}", saved.display())
    }

    /// Ends all processes.
    pub(crate) fn end(&self) {
        for node in &self.nodes {
            if let Some(mut process) = node.process.lock().unwrap().take() {
                let _ = process.kill();
                let _ = process.wait();
            }
            let folder = self.settings.folder.join(&node.name);
            signal("QUIT", &postmaster(&folder).into_iter().collect::<Vec<_>>());
        }
        let mut etcd = self.etcd.lock().unwrap();
        let _ = etcd.kill();
        let _ = etcd.wait();
    }
}

impl Replicated for Cluster {
    /// The fault, and the server that failed.
    type Failed = (Fault, usize);

    fn fault(&self, round: usize) -> String {
        format!("{:?}", FAULTS[round % FAULTS.len()])
    }

    /// Waits until every server follows the primary. On a busy machine it may not be the first one that
    /// followed the old one. A standby that does not find its way back is copied anew, as an operator does.
    async fn until_whole(&self) {
        for patience in [REPAIR, 3 * REPAIR, PATIENCE, PATIENCE] {
            let whole = async {
                while !matches!(self.view().await, Some((_, behind)) if behind.is_empty()) {
                    sleep(PAUSE).await;
                }
            };
            if timeout(patience, whole).await.is_ok() {
                return;
            }
            let behind = self.view().await.map(|(_, behind)| behind).unwrap_or_default();
            for number in behind {
                let node = &self.nodes[number];
                println!("{} does not follow, and is copied anew", node.name);
                call(node.api, "POST /reinitialize", "{\"force\": true}").await;
            }
        }
        panic!("the servers do not follow their primary: {}", self.said());
    }

    async fn fail(&self, round: usize) -> Self::Failed {
        let fault = FAULTS[round % FAULTS.len()];
        let old = self.until_leader(None).await;
        let begun = Instant::now();
        self.cut_replication(old);
        sleep(BEHIND).await;
        self.inflict(fault, old);
        self.until_leader(Some(old)).await;
        if fault == Fault::Stop {
            sleep(LEASE.saturating_sub(begun.elapsed())).await;
        }
        (fault, old)
    }

    async fn mend(&self, (fault, old): Self::Failed) {
        self.mend_fault(fault, old);
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.end();
    }
}

/// A store over the database of this URL.
pub(crate) async fn open(url: &str) -> PostgresStore {
    let store = PostgresStore::builder(url)
        .statement_timeout(Duration::from_secs(2))
        .connect_timeout(Duration::from_secs(2))
        .connect();
    store.await.unwrap()
}

impl Node {
    fn cut(&self, is_cut: bool) {
        for proxy in [&self.postgres, &self.replication, &self.patroni, &self.etcd] {
            proxy.cut(is_cut);
        }
    }
}

impl Settings {
    /// A command that runs as the unprivileged user, and prints into a file of this name.
    fn command(&self, program: &Path, name: &str) -> Command {
        let log = self.folder.join(format!("{name}.log"));
        let log = File::options().create(true).append(true).open(log).unwrap();
        let mut command = Command::new(program);
        command
            .current_dir(&self.folder)
            .env("HOME", &self.folder)
            .env("TMPDIR", &self.folder)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            // An interrupt from the terminal is for the keeper to handle.
            .process_group(0);
        if let Some((user, group)) = self.user {
            command.uid(user).gid(group);
        }
        command
    }

    fn start_etcd(&self, client: u16, peer: u16) -> Child {
        let (client, peer) =
            (format!("http://127.0.0.1:{client}"), format!("http://127.0.0.1:{peer}"));
        let mut command = self.command(&self.etcd, "etcd");
        // Over version 3 of etcd's API, Patroni 3.0.2 renews a lease that has ended, and takes the place of
        // the new primary, without a look at who holds it.
        command.arg("--enable-v2");
        command.arg("--data-dir").arg(self.folder.join("etcd"));
        command.args(["--name", "etcd", "--initial-cluster", &format!("etcd={peer}")]);
        command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
        command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        command.spawn().unwrap()
    }

    /// Writes Patroni's settings, which are the same at each start.
    fn write_patroni(&self, node: &Node, password: &str) -> PathBuf {
        let Node { name, port, api, replication, patroni, etcd, .. } = node;
        let (replication, patroni, etcd) = (replication.port, patroni.port, etcd.port);
        let (folder, programs) = (self.folder.display(), self.postgres.display());
        let (lease, is_synchronous) = (LEASE.as_secs(), self.is_synchronous);
        let text = format!(
            "scope: cloakroom
name: {name}
restapi: {{listen: '127.0.0.1:{api}', connect_address: '127.0.0.1:{patroni}'}}
etcd: {{host: '127.0.0.1:{etcd}', use_proxies: true}}
bootstrap:
  dcs:
    ttl: {lease}
    loop_wait: 1
    retry_timeout: 3
    maximum_lag_on_failover: 67108864
    synchronous_mode: {is_synchronous}
    synchronous_mode_strict: {is_synchronous}
    postgresql:
      use_pg_rewind: true
      use_slots: true
      parameters: {{max_connections: 200, wal_keep_size: 256MB, fsync: 'off', wal_sender_timeout: 5s, wal_receiver_timeout: 5s}}
  initdb: [{{encoding: UTF8}}, no-locale, no-sync]
postgresql:
  listen: 127.0.0.1:{port}
  connect_address: 127.0.0.1:{replication}
  data_dir: {folder}/{name}
  bin_dir: {programs}
  pgpass: {folder}/{name}.pgpass
  basebackup: [{{checkpoint: fast}}]
  authentication:
    superuser: {{username: cloakroom, password: '{password}'}}
    replication: {{username: replicator, password: '{password}'}}
  remove_data_directory_on_rewind_failure: true
  remove_data_directory_on_diverged_timelines: true
  parameters: {{unix_socket_directories: ''}}
  pg_hba:
  - host all all 127.0.0.1/32 scram-sha-256
  - host replication replicator 127.0.0.1/32 scram-sha-256
"
        );
        let path = self.folder.join(format!("{name}.yml"));
        fs::write(&path, text).unwrap();
        path
    }
}

/// What Patroni's API on this port answers with status 200.
async fn ask(port: u16, path: &str) -> Option<Value> {
    let (status, body) = call(port, &format!("GET {path}"), "").await?;
    (status == "200").then(|| serde_json::from_str(&body).ok()).flatten()
}

async fn call(port: u16, what: &str, body: &str) -> Option<(String, String)> {
    let calling = async {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
        let length = body.len();
        let request = format!("{what} HTTP/1.0\r\nContent-Length: {length}\r\n\r\n{body}");
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        Some((head.split(' ').nth(1)?.to_owned(), body.to_owned()))
    };
    timeout(Duration::from_secs(2), calling).await.ok().flatten()
}

/// The process of PostgreSQL, if it runs.
fn postmaster(folder: &Path) -> Option<u32> {
    fs::read_to_string(folder.join("postmaster.pid")).ok()?.lines().next()?.parse().ok()
}

/// These processes and their descendants.
fn families(roots: &[u32]) -> Vec<u32> {
    let parents: Vec<(u32, u32)> = fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| {
            let process = entry.file_name().to_str()?.parse().ok()?;
            let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
            // The name before it may contain anything, even parentheses.
            let parent = stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()?;
            Some((process, parent))
        })
        .collect();
    let mut all = roots.to_vec();
    let mut next = 0;
    while let Some(&parent) = all.get(next) {
        all.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(process, _)| *process));
        next += 1;
    }
    all
}
