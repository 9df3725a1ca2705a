//! Several servers: a cluster, and a master with its replica, with sentinels and without.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use cloakroom_redis::redis::cmd;

use crate::proxy::Proxy;
use crate::server::{Server, program};
use crate::support::connection;

/// A cluster of masters, each with as many replicas.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) nodes: Vec<Server>,
}

impl Cluster {
    pub(crate) fn start(masters: usize, replicas: usize) -> Self {
        let settings = [
            "--cluster-enabled yes",
            "--cluster-config-file nodes.conf",
            "--cluster-node-timeout 1000",
            // A replica that was cut off for long may still take over: the tests say when.
            "--cluster-replica-validity-factor 0",
            "--repl-diskless-sync-delay 0",
        ];
        let settings: Vec<&str> = settings.iter().flat_map(|setting| setting.split(' ')).collect();
        let nodes: Vec<Server> =
            (0..masters * (1 + replicas)).map(|_| Server::start(&settings)).collect();
        let mut create = Command::new(program("redis-cli"));
        create.args(["--cluster", "create"]).args(nodes.iter().map(Server::address));
        create.args(["--cluster-replicas", &replicas.to_string(), "--cluster-yes"]);
        let created = create.stdin(Stdio::null()).output().unwrap();
        assert!(created.status.success(), "{created:?}");
        let cluster = Self { nodes };
        for node in 0..cluster.nodes.len() {
            cluster.until(node, |info| info.contains("cluster_state:ok"));
            let start = Instant::now();
            loop {
                let info = cluster.nodes[node].says(&["INFO", "replication"]);
                if info.contains("master_link_status:up")
                    || info.contains(&format!("connected_slaves:{replicas}"))
                        && info.contains("role:master")
                {
                    break;
                }
                assert!(start.elapsed() < Duration::from_secs(60), "{info}");
                std::thread::yield_now();
            }
        }
        cluster
    }

    pub(crate) fn url(&self) -> String {
        let addresses: Vec<String> = self.nodes.iter().map(Server::address).collect();
        format!("redis+cluster://{}", addresses.join(","))
    }

    /// Moves slots from one node to another.
    pub(crate) fn reshard(&self, from: usize, to: usize, slots: u32) {
        let [from, to] = [from, to].map(|node| self.nodes[node].says(&["CLUSTER", "MYID"]));
        let mut reshard = Command::new(program("redis-cli"));
        reshard.args(["--cluster", "reshard", &self.nodes[0].address(), "--cluster-yes"]);
        reshard.args(["--cluster-from", from.trim(), "--cluster-to", to.trim()]);
        reshard.args(["--cluster-slots", &slots.to_string()]);
        let start = Instant::now();
        loop {
            let done = reshard.stdin(Stdio::null()).output().unwrap();
            if done.status.success() {
                return;
            }
            // It looks before it moves anything, and refuses until every node has heard of the last move.
            let (said, why) = (done.stdout, String::from_utf8_lossy(&done.stderr).into_owned());
            let said = String::from_utf8_lossy(&said);
            let is_early = why.contains("fix your cluster problems before resharding");
            assert!(is_early && start.elapsed() < Duration::from_secs(60), "{said} {why}");
            std::thread::yield_now();
        }
    }

    /// Waits until a node says so of the cluster.
    pub(crate) fn until(&self, node: usize, is_so: impl Fn(&str) -> bool) {
        let start = Instant::now();
        while !is_so(&self.nodes[node].says(&["CLUSTER", "INFO"])) {
            assert!(start.elapsed() < Duration::from_secs(60), "it takes too long");
            std::thread::yield_now();
        }
    }
}

/// A master with a replica, and the sentinels that watch over them.
#[derive(Debug)]
pub(crate) struct Watched {
    pub(crate) master: Server,
    pub(crate) replica: Server,
    pub(crate) sentinels: Vec<Server>,
}

impl Watched {
    pub(crate) fn start() -> Self {
        let master = Server::start(&[]);
        let of = format!("127.0.0.1 {}", master.port());
        let replica = Server::start(&["--replicaof", &of]);
        let start = Instant::now();
        while !replica.says(&["INFO", "replication"]).contains("master_link_status:up") {
            assert!(start.elapsed() < Duration::from_secs(60), "it does not replicate");
            std::thread::yield_now();
        }
        let sentinels: Vec<_> = (0..3).map(|_| sentinel(master.port())).collect();
        let watched = Self { master, replica, sentinels };
        for sentinel in &watched.sentinels {
            let start = Instant::now();
            loop {
                let says = sentinel.says(&["SENTINEL", "MASTERS"]);
                let value = |name: &str| {
                    says.lines().skip_while(|line| *line != name).nth(1).map(ToOwned::to_owned)
                };
                if value("num-slaves").as_deref() == Some("1")
                    && value("num-other-sentinels").as_deref() == Some("2")
                {
                    break;
                }
                assert!(start.elapsed() < Duration::from_secs(60), "{says}");
                std::thread::yield_now();
            }
        }
        watched
    }

    pub(crate) fn url(&self) -> String {
        let addresses: Vec<String> = self.sentinels.iter().map(Server::address).collect();
        format!("redis+sentinel://{}/main", addresses.join(","))
    }

    /// Waits until the replica is the master.
    pub(crate) fn until_promoted(&self) {
        let start = Instant::now();
        while !self.replica.says(&["ROLE"]).starts_with("master") {
            assert!(start.elapsed() < Duration::from_secs(60), "it is not promoted");
            std::thread::yield_now();
        }
    }
}

/// A sentinel that watches the server on this port, and soon takes it for dead.
fn sentinel(master: u16) -> Server {
    Server::sentinel(&format!(
        "sentinel monitor main 127.0.0.1 {master} 2\n\
         sentinel down-after-milliseconds main 500\n\
         sentinel failover-timeout main 2000\n"
    ))
}

/// A master and a replica whose link can be cut.
#[derive(Debug)]
pub(crate) struct Pair {
    pub(crate) master: Server,
    pub(crate) replica: Server,
    pub(crate) link: Proxy,
}

impl Pair {
    pub(crate) async fn start() -> Self {
        let master = Server::start(&["--repl-diskless-sync-delay", "0"]);
        let link = Proxy::start_raw(master.address()).await;
        let of = format!("127.0.0.1 {}", link.port());
        let replica = Server::start(&["--replicaof", &of]);
        while !replica.says(&["INFO", "replication"]).contains("master_link_status:up") {
            tokio::task::yield_now().await;
        }
        Self { master, replica, link }
    }

    /// Waits until the replica has everything.
    pub(crate) async fn catch_up(&self) {
        let mut wait = cmd("WAIT");
        wait.arg(1).arg(30_000);
        let mut master = connection(&self.master.url()).await;
        // `WAIT` waits for the writes of its connection.
        cmd("SET").arg("mark").arg(1).query_async::<()>(&mut master).await.unwrap();
        assert_eq!(wait.query_async::<i64>(&mut master).await.unwrap(), 1);
    }

    /// The replica stops or goes on. Its link stays, so that the master still counts it.
    pub(crate) fn freeze(&self, process: &str, is_frozen: bool) {
        let signal = if is_frozen { "STOP" } else { "CONT" };
        let mut kill = Command::new("sh");
        kill.args(["-c", "kill -s \"$@\"", "sh", signal, process]);
        assert!(kill.status().unwrap().success());
    }

    /// The process of the replica.
    pub(crate) fn process(&self) -> String {
        let info = self.replica.says(&["INFO", "server"]);
        let process = info.lines().find_map(|line| line.strip_prefix("process_id:"));
        process.unwrap().trim().to_owned()
    }

    /// The master dies, and the replica takes its place with what it has.
    pub(crate) fn fail_over(&mut self) {
        self.master.kill();
        assert_eq!(self.replica.says(&["REPLICAOF", "NO", "ONE"]).trim(), "OK");
    }
}
