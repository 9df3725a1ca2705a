//! Two Galera nodes, both of which take writes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use cloakroom_conformance::{Check, Database, Factory, Instance, checks, run};
use cloakroom_core::keys::KeyStore;
use cloakroom_core::revocation::Target;
use cloakroom_core::store::{AdvanceOutcome, TokenStore};
use cloakroom_mysql::MysqlStore;
use cloakroom_mysql::mysql_async::Row;
use cloakroom_mysql::mysql_async::prelude::Queryable as _;
use futures_util::future::join;

use super::private::Server;
use crate::free_port::free_port;
use crate::server::Tables;
use crate::support::{grant, revocation, step, token};

const PROVIDER: &str = "/usr/lib/galera/libgalera_smm.so";

/// They end when this is dropped.
#[derive(Debug)]
struct Nodes([Server; 2]);

impl Nodes {
    /// `None` on a machine without MariaDB and Galera.
    async fn start() -> Option<Self> {
        if !std::path::Path::new(PROVIDER).is_file() {
            return None;
        }
        let mut nodes = [Server::start(&[]).await?, Server::start(&[]).await?];
        let first = free_port();
        nodes[0].restart_as_nobody_with(settings(first, "")).await;
        // It copies the files of the first.
        let other = format!("127.0.0.1:{first}");
        nodes[1].restart_as_nobody_with(settings(free_port(), &other)).await;
        let nodes = Self(nodes);
        for node in 0..2 {
            while nodes.status(node, "wsrep_local_state_comment").await != "Synced"
                || nodes.status(node, "wsrep_cluster_size").await != "2"
            {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        Some(nodes)
    }

    async fn status(&self, node: usize, name: &str) -> String {
        let sql = format!("SHOW STATUS LIKE '{name}'");
        let rows: Vec<Row> = self.0[node].admin().await.query(sql).await.unwrap();
        rows.into_iter().next().unwrap().take(1).unwrap()
    }

    /// How many transactions lost a conflict with one of the other node.
    async fn conflicts(&self) -> usize {
        let mut count = 0;
        for node in 0..2 {
            for name in ["wsrep_local_cert_failures", "wsrep_local_bf_aborts"] {
                count += self.status(node, name).await.parse::<usize>().unwrap();
            }
        }
        count
    }

    async fn open(&self, node: usize, tables: &Tables) -> MysqlStore {
        let url = self.0[node].url("root");
        MysqlStore::builder(&url).table_prefix(&tables.prefix).connect().await.unwrap()
    }
}

/// The options of a node that hears the others on this port.
fn settings(port: u16, others: &str) -> Vec<String> {
    let (changes, copy) = (free_port(), free_port());
    vec![
        "--wsrep-on=ON".to_owned(),
        format!("--wsrep-provider={PROVIDER}"),
        format!("--wsrep-cluster-address=gcomm://{others}"),
        format!("--wsrep-node-address=127.0.0.1:{port}"),
        format!(
            "--wsrep-provider-options=gmcast.listen_addr=tcp://127.0.0.1:{port};\
             ist.recv_addr=127.0.0.1:{changes}"
        ),
        "--wsrep-sst-method=rsync".to_owned(),
        format!("--wsrep-sst-receive-address=127.0.0.1:{copy}"),
        "--binlog-format=ROW".to_owned(),
        "--innodb-autoinc-lock-mode=2".to_owned(),
    ]
}

/// Each of two steps from one position is sent to a node of its own. Neither sees the other's lock: the nodes find
/// out at the commit, and one of the transactions is given up. The server must say so: it can also repeat the
/// statement that was interrupted, alone, and then report success for a transaction that is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_write_that_another_node_overtook_runs_again() {
    let Some(nodes) = Nodes::start().await else { return };
    let tables = Tables::new();
    let (one, two) = (nodes.open(0, &tables).await, nodes.open(1, &tables).await);
    let mut rounds = 0;
    while nodes.conflicts().await < 100 {
        rounds += 1;
        assert!(rounds < 2_000, "they never meet");
        let record = grant(&one, "alice", "app").await;
        let _ = one.create(record.clone(), vec![token(&record)]).await.unwrap();
        let (first, second) = (step(&record), step(&record));
        let (left, right) = join(one.advance(first.0), two.advance(second.0)).await;
        let (left, right) = (left.unwrap(), right.unwrap());
        let won = |outcome: &AdvanceOutcome| *outcome == AdvanceOutcome::Advanced;
        assert!(won(&left) != won(&right), "{left:?} {right:?}");
        let next = if won(&left) { first.1 } else { second.1 };
        // What one node acknowledged, the other sees at once, and in the same order.
        let (left, right) =
            join(one.revoke(revocation(Target::Grant(record.id))), two.advance(step(&next).0))
                .await;
        left.unwrap();
        let right = right.unwrap();
        assert!(matches!(right, AdvanceOutcome::Advanced | AdvanceOutcome::Dead), "{right:?}");
        for store in [&one, &two] {
            let dead = store.advance(step(&next).0).await.unwrap();
            assert!(!won(&dead), "it is revoked");
        }
    }
}

/// The stores that are opened on the same data are on different nodes, in turn.
#[derive(Debug)]
struct Spread {
    nodes: Arc<Nodes>,
    tables: Tables,
    next: AtomicUsize,
}

impl Spread {
    async fn store(&self) -> MysqlStore {
        self.nodes.open(self.next.fetch_add(1, Ordering::Relaxed) % 2, &self.tables).await
    }

    async fn instance(&self) -> Instance {
        let store = self.store().await;
        Instance::new(Arc::new(store.clone()), Arc::new(store))
    }
}

#[async_trait]
impl Database for Spread {
    async fn open(&self) -> Instance {
        self.instance().await
    }

    async fn another(&self) -> Option<Instance> {
        Some(self.instance().await)
    }
}

#[derive(Debug)]
struct Galera(Arc<Nodes>);

impl Galera {
    fn spread(&self) -> Spread {
        Spread { nodes: Arc::clone(&self.0), tables: Tables::new(), next: AtomicUsize::new(0) }
    }
}

#[async_trait]
impl Factory for Galera {
    async fn tokens(&self) -> Arc<dyn TokenStore> {
        Arc::new(self.spread().store().await)
    }

    async fn keys(&self) -> Arc<dyn KeyStore> {
        Arc::new(self.spread().store().await)
    }

    async fn database(&self) -> Option<Arc<dyn Database>> {
        Some(Arc::new(self.spread()))
    }
}

/// What several instances on the same data must see of each other, with each on a node of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn instances_on_different_nodes_pass_the_kit() {
    let Some(nodes) = Nodes::start().await else { return };
    let is_among = |check: &Check| check.name.starts_with("database::");
    let checks: Vec<Check> = checks().into_iter().filter(is_among).collect();
    assert!(checks.len() > 5, "{}", checks.len());
    run(&checks, Arc::new(Galera(Arc::new(nodes)))).await.assert_ok();
}
