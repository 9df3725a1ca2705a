//! Servers that a test starts for itself. They end with the test, however it ends.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// A server in a folder of its own.
#[derive(Debug)]
pub(crate) struct Server {
    folder: TempDir,
    port: u16,
    settings: Vec<String>,
    process: Option<Child>,
}

impl Server {
    /// A server with these settings, such as `--appendonly yes`.
    pub(crate) fn start(settings: &[&str]) -> Self {
        Self::start_on(free_port(), settings)
    }

    pub(crate) fn start_on(port: u16, settings: &[&str]) -> Self {
        let folder = TempDir::new().unwrap();
        let settings = settings.iter().map(ToString::to_string).collect();
        let mut server = Self { folder, port, settings, process: None };
        server.resume();
        server
    }

    pub(crate) const fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://{}", self.address())
    }

    /// Ends it as a crash does.
    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            drop(process.stdin.take());
            process.wait().unwrap();
        }
    }

    /// Starts it again, with what is in its folder.
    pub(crate) fn resume(&mut self) {
        let folder = self.folder.path().display().to_string();
        let settings = self.settings.clone();
        let mut args = vec!["--save", "", "--dir", &folder, "--enable-debug-command", "yes"];
        args.extend(settings.iter().map(String::as_str));
        self.spawn(&args);
    }

    fn spawn(&mut self, args: &[&str]) {
        let log = std::fs::File::create(self.folder.path().join("output")).unwrap();
        // The shell kills the server when this process closes its input, or ends.
        let process = Command::new("sh")
            .args(["-c", "\"$0\" \"$@\" </dev/null & read -r _; kill -9 $!; wait"])
            .arg(program("redis-server"))
            .args(args)
            .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1", "--daemonize", "no"])
            .stdin(Stdio::piped())
            .stdout(log)
            .spawn()
            .unwrap();
        self.process = Some(process);
        let start = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(start.elapsed() < Duration::from_secs(60), "redis-server does not start");
            std::thread::yield_now();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

fn program(name: &str) -> PathBuf {
    let found =
        ["/usr/bin", "/usr/local/bin", "/usr/sbin"].map(|folder| PathBuf::from(folder).join(name));
    found.into_iter().find(|path| path.exists()).unwrap_or_else(|| name.into())
}

pub(crate) fn free_port() -> u16 {
    // A node of a cluster listens on its port and on that plus 10,000.
    loop {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        if port < 55_000 {
            return port;
        }
    }
}

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
        assert!(created.status.success(), "{}", String::from_utf8_lossy(&created.stdout));
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
        let done = reshard.stdin(Stdio::null()).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stdout));
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
        let sentinels: Vec<_> = (0..3).map(|_| Server::sentinel(master.port())).collect();
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
}

impl Server {
    /// A sentinel that watches the server on this port, and soon takes it for dead.
    fn sentinel(master: u16) -> Self {
        let folder = TempDir::new().unwrap();
        let file = folder.path().join("sentinel.conf");
        let settings = format!(
            "sentinel monitor main 127.0.0.1 {master} 2\n\
             sentinel down-after-milliseconds main 500\n\
             sentinel failover-timeout main 2000\n"
        );
        std::fs::write(&file, settings).unwrap();
        let settings = vec![file.display().to_string(), "--sentinel".to_owned()];
        let mut server = Self { folder, port: free_port(), settings, process: None };
        server.spawn(&[&server.settings[0].clone(), "--sentinel"]);
        server
    }

    /// What it answers to a command.
    pub(crate) fn says(&self, command: &[&str]) -> String {
        let mut client = Command::new(program("redis-cli"));
        client.args(["-h", "127.0.0.1", "-p", &self.port.to_string()]).args(command);
        String::from_utf8_lossy(&client.stdin(Stdio::null()).output().unwrap().stdout).into_owned()
    }
}
