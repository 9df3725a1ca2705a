//! A Redis master with two replicas, and three sentinels that promote one of them.

use std::time::Duration;

use cloakroom::redis::RedisStore;
use tokio::time::sleep;

use crate::failover::redis_node::{Node, REPLICATION, patiently};
use crate::failover::server::Server;
use crate::failover::trial::{BEHIND, FAULTS, Fault, Replicated};

#[derive(Debug)]
pub(crate) struct Watched {
    nodes: Vec<Node>,
    sentinels: Vec<Server>,
}

impl Watched {
    pub(crate) async fn start() -> Self {
        let mut nodes = Vec::new();
        let mut master = None;
        for _ in 0..3 {
            let node = Node::start(async |_, front| {
                let mut settings = vec![
                    "--replica-announce-ip 127.0.0.1".to_owned(),
                    format!("--replica-announce-port {front}"),
                    "--repl-diskless-sync-delay 0".to_owned(),
                ];
                if let Some(master) = master {
                    settings.push(format!("--replicaof 127.0.0.1 {master}"));
                }
                settings
            });
            let node = node.await;
            master = master.or(Some(node.front.port));
            nodes.push(node);
        }
        let settings = format!(
            "sentinel monitor main 127.0.0.1 {} 2\n\
             sentinel down-after-milliseconds main 1000\n\
             sentinel failover-timeout main 3000\n",
            master.unwrap()
        );
        let sentinels: Vec<Server> = (0..3).map(|_| Server::sentinel(&settings)).collect();
        for sentinel in &sentinels {
            // A former master that comes back is told its place after four of these periods.
            let periods = ["SENTINEL", "DEBUG", "publish-period", "500", "info-period", "1000"];
            assert_eq!(sentinel.says(&periods).trim(), "OK");
        }
        let watched = Self { nodes, sentinels };
        watched.until_whole().await;
        watched
    }

    /// A store that asks the sentinels for the master.
    pub(crate) async fn open(&self) -> RedisStore {
        let sentinels: Vec<String> = self.sentinels.iter().map(Server::address).collect();
        let url = format!("redis+sentinel://{}/main", sentinels.join(","));
        let builder = RedisStore::builder(&url).connect_timeout(Duration::from_secs(2));
        builder.response_timeout(Duration::from_secs(1)).connect().await.unwrap()
    }

    /// The server that all sentinels call the master.
    fn master(&self) -> Option<usize> {
        let named = |sentinel: &Server| {
            let address = sentinel.says(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", "main"]);
            let port: u16 = address.lines().nth(1)?.trim().parse().ok()?;
            self.nodes.iter().position(|node| node.front.port == port)
        };
        let mut all = self.sentinels.iter().map(named);
        let first = all.next()??;
        all.all(|it| it == Some(first)).then_some(first)
    }

    fn is_whole(&self) -> bool {
        let Some(master) = self.master() else { return false };
        if self.nodes.iter().any(Node::is_stopped) {
            return false;
        }
        let state = self.nodes[master].says(&["INFO", "replication"]);
        let others = self.nodes.iter().enumerate().filter(|(number, _)| *number != master);
        state.contains("role:master")
            && state.matches("state=online").count() == self.nodes.len() - 1
            && others.map(|(_, node)| node.says(&["ROLE"])).all(|role| role.contains("connected"))
            && self.sentinels.iter().all(|sentinel| {
                let replicas = sentinel.says(&["SENTINEL", "REPLICAS", "main"]);
                let master = sentinel.says(&["SENTINEL", "MASTER", "main"]);
                replicas.matches("\nflags\nslave\n").count() == self.nodes.len() - 1
                    && master.contains("\nflags\nmaster\n")
            })
    }
}

impl Replicated for Watched {
    type Failed = (Fault, usize);

    fn fault(&self, round: usize) -> String {
        format!("{:?}", FAULTS[round % FAULTS.len()])
    }

    async fn until_whole(&self) {
        patiently("two replicas", || self.is_whole().then_some(())).await;
    }

    async fn fail(&self, round: usize) -> Self::Failed {
        let fault = FAULTS[round % FAULTS.len()];
        let old = patiently("a master", || self.master()).await;
        self.nodes[old].front.cut_marked(REPLICATION);
        sleep(BEHIND).await;
        self.nodes[old].inflict(fault);
        patiently("another master", || self.master().filter(|master| *master != old)).await;
        (fault, old)
    }

    async fn mend(&self, (fault, old): Self::Failed) {
        self.nodes[old].mend(fault);
    }
}
