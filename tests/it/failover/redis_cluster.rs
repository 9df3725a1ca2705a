//! A Redis Cluster of three masters, each with a replica. A master fails and its replica takes over; or slots
//! move while their keys are used.

use std::time::Duration;

use cloakroom::redis::RedisStore;
use cloakroom::redis::redis::aio::MultiplexedConnection;
use cloakroom::redis::redis::{self, Client};
use tokio::time::sleep;

use crate::failover::proxy::Proxy;
use crate::failover::redis_node::{Node, REPLICATION, patiently};
use crate::failover::trial::{BEHIND, FAULTS, Fault, Replicated};

const MASTERS: usize = 3;

/// The prefix of the store's keys, in slots of their own.
const PREFIX: &str = "cloakroom";

#[derive(Debug)]
pub(crate) struct Cluster {
    nodes: Vec<Member>,
}

/// A node of the cluster.
#[derive(Debug)]
struct Member {
    node: Node,
    /// Where the others reach it.
    bus: Proxy,
    id: String,
}

/// A line of `CLUSTER NODES`.
struct Line {
    member: usize,
    flags: String,
    is_linked: bool,
    /// The first and the last of each range.
    slots: Vec<(u16, u16)>,
}

/// Reads `5-9` or `7`; a slot that is just being moved is in brackets.
fn range(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    Some((first.parse().ok()?, last.parse().ok()?))
}

impl Cluster {
    pub(crate) async fn start() -> Self {
        let mut nodes = Vec::new();
        for _ in 0..2 * MASTERS {
            let mut bus = None;
            let node = Node::start(async |port, front| {
                let proxy = Proxy::to(port + 10_000).await;
                let settings = vec![
                    "--cluster-enabled yes".to_owned(),
                    "--cluster-config-file nodes.conf".to_owned(),
                    "--cluster-node-timeout 1000".to_owned(),
                    // The last master may be a replica of long ago.
                    "--cluster-replica-validity-factor 0".to_owned(),
                    "--cluster-announce-ip 127.0.0.1".to_owned(),
                    format!("--cluster-announce-port {front}"),
                    format!("--cluster-announce-bus-port {}", proxy.port),
                    "--repl-diskless-sync-delay 0".to_owned(),
                ];
                bus = Some(proxy);
                settings
            });
            let node = node.await;
            let id = node.says(&["CLUSTER", "MYID"]);
            nodes.push(Member { node, bus: bus.unwrap(), id });
        }
        let cluster = Self { nodes };
        cluster.join();
        patiently("all nodes", || cluster.is_joined().then_some(())).await;
        for (master, replica) in cluster.nodes.iter().zip(&cluster.nodes[MASTERS..]) {
            assert_eq!(replica.node.says(&["CLUSTER", "REPLICATE", &master.id]), "OK");
        }
        cluster.until_whole().await;
        cluster
    }

    /// Makes the nodes known to each other, at their proxies, and distributes the slots.
    fn join(&self) {
        let share = 16_384_usize.div_ceil(MASTERS);
        for (number, member) in self.nodes.iter().enumerate() {
            let done = |command: &[&str]| assert_eq!(member.node.says(command), "OK");
            done(&["CLUSTER", "SET-CONFIG-EPOCH", &(number + 1).to_string()]);
            if number < MASTERS {
                let (first, last) = (number * share, ((number + 1) * share).min(16_384) - 1);
                done(&["CLUSTER", "ADDSLOTSRANGE", &first.to_string(), &last.to_string()]);
            }
            let (front, bus) = (member.node.front.port.to_string(), member.bus.port.to_string());
            if number > 0 {
                let meet = ["CLUSTER", "MEET", "127.0.0.1", &front, &bus];
                assert_eq!(self.nodes[0].node.says(&meet), "OK");
            }
        }
    }

    fn is_joined(&self) -> bool {
        (0..self.nodes.len()).all(|it| self.seen_by(it).len() == self.nodes.len())
    }

    pub(crate) async fn open(&self) -> RedisStore {
        let nodes = self.nodes.iter().map(|it| format!("127.0.0.1:{}", it.node.front.port));
        let url = format!("redis+cluster://{}", nodes.collect::<Vec<_>>().join(","));
        let builder = RedisStore::builder(&url).prefix(PREFIX);
        let builder = builder.connect_timeout(Duration::from_secs(2));
        builder.response_timeout(Duration::from_secs(1)).connect().await.unwrap()
    }

    /// The nodes, as one of them sees them.
    fn seen_by(&self, observer: usize) -> Vec<Line> {
        let says = self.nodes[observer].node.says(&["CLUSTER", "NODES"]);
        says.lines()
            .filter_map(|line| {
                let fields: Vec<&str> = line.split_whitespace().collect();
                let is_linked = *fields.get(7)? == "connected";
                Some(Line {
                    member: self.nodes.iter().position(|it| it.id == fields[0])?,
                    flags: fields[2].to_owned(),
                    is_linked,
                    slots: fields[8..].iter().filter_map(|it| range(it)).collect(),
                })
            })
            .collect()
    }

    /// The owner of a slot, as one node sees it.
    fn owner(&self, observer: usize, slot: u16) -> Option<usize> {
        let owns =
            |line: &Line| line.slots.iter().any(|(first, last)| (*first..=*last).contains(&slot));
        self.seen_by(observer).into_iter().find(owns).map(|line| line.member)
    }

    /// The masters with slots, in the order of these, as one node sees them.
    fn masters(&self, observer: usize) -> Vec<usize> {
        let lines = self.seen_by(observer);
        let sane = |line: &&Line| line.flags.contains("master") && !line.flags.contains("fail");
        let mut masters: Vec<(u16, usize)> = lines
            .iter()
            .filter(sane)
            .filter_map(|line| Some((line.slots.first()?.0, line.member)))
            .collect();
        masters.sort_unstable();
        masters.into_iter().map(|(_, member)| member).collect()
    }

    fn is_whole(&self) -> bool {
        if self.nodes.iter().any(|it| it.node.is_stopped()) {
            return false;
        }
        (0..self.nodes.len()).all(|number| {
            let lines = self.seen_by(number);
            let node = &self.nodes[number].node;
            let replication = node.says(&["INFO", "replication"]);
            lines.len() == self.nodes.len()
                && lines.iter().all(|it| it.is_linked && !it.flags.contains("fail"))
                && self.masters(number).len() == MASTERS
                && node.says(&["CLUSTER", "INFO"]).contains("cluster_state:ok")
                && (replication.contains("master_link_status:up")
                    || replication.matches("state=online").count() == 1)
        })
    }

    /// Cuts the network of one node in both directions, or mends it.
    fn isolate(&self, member: usize, is_cut: bool) {
        for (number, other) in self.nodes.iter().enumerate() {
            if number == member {
                other.bus.cut(is_cut);
            } else if is_cut {
                // Its packets begin with its name.
                other.bus.cut_marked(&self.nodes[member].id);
            } else {
                other.bus.cut(false);
            }
        }
    }
}

impl Replicated for Cluster {
    type Failed = (Fault, usize);

    fn fault(&self, round: usize) -> String {
        format!("{:?}", FAULTS[round % FAULTS.len()])
    }

    async fn until_whole(&self) {
        patiently("a whole cluster", || self.is_whole().then_some(())).await;
    }

    async fn fail(&self, round: usize) -> Self::Failed {
        let fault = FAULTS[round % FAULTS.len()];
        // Each master meets each fault; the log is on one of them.
        let old = self.masters(0)[(round + round / FAULTS.len()) % MASTERS];
        self.nodes[old].node.front.cut_marked(REPLICATION);
        sleep(BEHIND).await;
        self.nodes[old].node.inflict(fault);
        if fault == Fault::Cut {
            self.isolate(old, true);
        }
        let others: Vec<usize> = (0..self.nodes.len()).filter(|it| *it != old).collect();
        let is_replaced = || {
            let agree = others.iter().all(|it| {
                let masters = self.masters(*it);
                masters.len() == MASTERS && !masters.contains(&old)
            });
            let states = others.iter().map(|it| self.nodes[*it].node.says(&["CLUSTER", "INFO"]));
            (agree && states.into_iter().all(|it| it.contains("cluster_state:ok"))).then_some(())
        };
        patiently("a replica in its place", is_replaced).await;
        (fault, old)
    }

    async fn mend(&self, (fault, old): Self::Failed) {
        self.nodes[old].node.mend(fault);
        if fault == Fault::Cut {
            self.isolate(old, false);
        }
    }
}

/// The cluster, all of whose slots with keys move to another master in each round.
#[derive(Debug)]
pub(crate) struct Moving(pub(crate) Cluster);

impl Moving {
    async fn connect(&self, member: usize) -> MultiplexedConnection {
        let url = format!("redis://127.0.0.1:{}", self.0.nodes[member].node.front.port);
        Client::open(url).unwrap().get_multiplexed_async_connection().await.unwrap()
    }

    /// The slots of the buckets, and the one of the log.
    fn slots(&self) -> Vec<u16> {
        let node = &self.0.nodes[0].node;
        let tags = (0..64).map(|bucket| format!("{{{PREFIX}.{bucket:02x}}}"));
        let tags = tags.chain([format!("{{{PREFIX}}}")]);
        tags.map(|tag| node.says(&["CLUSTER", "KEYSLOT", &tag]).parse().unwrap()).collect()
    }

    /// Moves a slot, a few keys at a time.
    async fn move_slot(&self, slot: u16, from: usize, to: usize) {
        let (mut source, mut target) = (self.connect(from).await, self.connect(to).await);
        let set = |how: &str, member: usize| {
            let mut command = redis::cmd("CLUSTER");
            command.arg("SETSLOT").arg(slot).arg(how).arg(&self.0.nodes[member].id);
            command
        };
        set("IMPORTING", from).exec_async(&mut target).await.unwrap();
        set("MIGRATING", to).exec_async(&mut source).await.unwrap();
        loop {
            let mut some = redis::cmd("CLUSTER");
            some.arg("GETKEYSINSLOT").arg(slot).arg(4);
            let keys: Vec<Vec<u8>> = some.query_async(&mut source).await.unwrap();
            if keys.is_empty() {
                break;
            }
            let mut migrate = redis::cmd("MIGRATE");
            migrate.arg("127.0.0.1").arg(self.0.nodes[to].node.front.port);
            migrate.arg("").arg(0).arg(5_000).arg("KEYS").arg(keys);
            migrate.exec_async(&mut source).await.unwrap();
        }
        // A message that the old owner sent before can still undo this in one of them, and then neither owns the slot.
        // So it is said again until all agree.
        patiently("an owner on whom all agree", || {
            let node = &self.0.nodes;
            for member in [to, from] {
                let says = ["CLUSTER", "SETSLOT", &slot.to_string(), "NODE", &node[to].id];
                assert_eq!(node[member].node.says(&says), "OK");
            }
            (0..node.len()).all(|it| self.0.owner(it, slot) == Some(to)).then_some(())
        })
        .await;
    }
}

impl Replicated for Moving {
    type Failed = ();

    fn fault(&self, _: usize) -> String {
        "slots move".to_owned()
    }

    async fn until_whole(&self) {
        self.0.until_whole().await;
    }

    async fn fail(&self, _: usize) {
        let masters = self.0.masters(0);
        for slot in self.slots() {
            let from = self.0.owner(0, slot).unwrap();
            let at = masters.iter().position(|master| *master == from).unwrap();
            self.move_slot(slot, from, masters[(at + 1) % masters.len()]).await;
        }
    }

    async fn mend(&self, (): ()) {}
}
