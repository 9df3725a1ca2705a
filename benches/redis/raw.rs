//! The driver by itself: the commands of the store, with the same arguments, on one connection.

use cloakroom_core::record::{GrantRecord, TokenRecord};
use cloakroom_core::store::{Advance, ChainUpdate};
use cloakroom_core::time::UnixTime;
use cloakroom_redis::redis::aio::{ConnectionLike as _, MultiplexedConnection};
use cloakroom_redis::redis::cluster::ClusterClient;
use cloakroom_redis::redis::cluster_async::ClusterConnection;
use cloakroom_redis::redis::{Client, Cmd, FromRedisValue, Script, Value, cmd};

use crate::rows::{grant_value, time, token_value};
use crate::server::calls::Calls;
use crate::server::records::Key;
use crate::server::{self, Login};

/// The scripts of the store, put together as the store does it.
const CREATE: &str = concat!(
    "\n",
    include_str!("../../crates/cloakroom-redis/src/scripts/lib.lua"),
    include_str!("../../crates/cloakroom-redis/src/scripts/create.lua"),
);
const ADVANCE: &str = concat!(
    "\n",
    include_str!("../../crates/cloakroom-redis/src/scripts/lib.lua"),
    include_str!("../../crates/cloakroom-redis/src/scripts/grant.lua"),
    include_str!("../../crates/cloakroom-redis/src/scripts/advance.lua"),
);

pub(crate) struct Raw {
    way: Way,
    prefix: String,
    create: String,
    advance: String,
}

#[derive(Clone)]
enum Way {
    One(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl server::Raw for Raw {
    async fn connect(url: &str, prefix: &str) -> Self {
        let way = match url.strip_prefix("redis+cluster://") {
            Some(hosts) => {
                let nodes = hosts.split(',').map(|host| format!("redis://{host}"));
                let client = ClusterClient::new(nodes).expect("addresses");
                Way::Cluster(client.get_async_connection().await.expect("a cluster"))
            }
            None => {
                let client = Client::open(url).expect("a URL");
                Way::One(client.get_multiplexed_async_connection().await.expect("a server"))
            }
        };
        let [create, advance] =
            [CREATE, ADVANCE].map(|code| Script::new(code).get_hash().to_owned());
        Self { way, prefix: prefix.to_owned(), create, advance }
    }

    /// A cluster ends after its part, and its keys with it.
    async fn remove_all(&self) {
        let Way::One(_) = self.way else { return };
        let mut cursor = 0_u64;
        loop {
            let mut scan = cmd("SCAN");
            scan.arg(cursor).arg("MATCH").arg(format!("{{{}*", self.prefix)).arg("COUNT");
            let (next, keys): (u64, Vec<Vec<u8>>) = self.read(scan.arg(10_000)).await;
            if !keys.is_empty() {
                self.ask(cmd("UNLINK").arg(keys)).await;
            }
            cursor = next;
            if cursor == 0 {
                return;
            }
        }
    }
}

impl Calls for Raw {
    /// The command of `find`.
    async fn find(&self, key: &Key) {
        let mut command = Cmd::with_capacity(4, 128);
        command.arg("HMGET").arg(self.grant(key.grant.as_bytes()));
        command.arg("g").arg(&key.digest.as_bytes()[..]);
        let Value::Array(values) = self.ask(&command).await else { panic!("two values") };
        assert!(matches!(&values[..], [Value::BulkString(_), Value::BulkString(_)]));
    }

    async fn advance(&self, step: Advance) {
        let ChainUpdate::Move(next) = &step.change else { panic!("a move") };
        let id = step.grant.as_bytes();
        let expected =
            [&step.expected.generation.to_be_bytes()[..], &step.expected.digest.as_bytes()[..]];
        let (value, names) = grant_value(&next.to_row());
        let (first, last) = ends(next, &step.tokens[0]);
        let mut command = Cmd::with_capacity(16, 1024);
        command.arg("EVALSHA").arg(&self.advance).arg(2).arg(self.grant(id));
        command.arg(self.in_bucket(id[0], b"e", &[])).arg(&id[..]).arg(expected.concat());
        command.arg(&time(step.now)[..]).arg(value).arg(names.to_string());
        command.arg(&time(first)[..]).arg(&time(last)[..]);
        push(&mut command, &step.tokens[0]);
        assert_eq!(self.ask(&command).await, Value::Int(1));
    }

    /// Inserts a grant, and looks for rules.
    async fn create(&self, (grant, token): Login) {
        let (row, id) = (grant.to_row(), grant.id.as_bytes());
        let (first, last) = ends(&grant, &token);
        let mut command = Cmd::with_capacity(16, 1024);
        command.arg("EVALSHA").arg(&self.create).arg(4).arg(self.grant(id));
        command.arg(self.in_bucket(id[0], b"e", &[]));
        command.arg(self.in_bucket(id[0], b"s:", row.subject.as_bytes()));
        command.arg(self.in_bucket(id[0], b"c:", row.client.as_bytes()));
        command.arg(&id[..]).arg(grant_value(&row).0);
        command.arg(&time(first)[..]).arg(&time(last)[..]);
        push(&mut command, &token);
        assert_eq!(self.ask(&command).await, Value::Int(1));

        let mut look = cmd("MGET");
        for key in grant.rule_keys() {
            look.arg([format!("{{{}}}:r:", self.prefix).as_bytes(), &key.to_bytes()].concat());
        }
        look.arg(format!("{{{}}}:state", self.prefix));
        assert!(matches!(self.ask(&look).await, Value::Array(_)));
    }
}

impl Raw {
    /// The answer. An error of the server is a panic: the store has loaded its scripts before.
    pub(crate) async fn ask(&self, command: &Cmd) -> Value {
        let answer = match self.way.clone() {
            Way::One(mut one) => one.req_packed_command(command).await,
            Way::Cluster(mut cluster) => cluster.req_packed_command(command).await,
        };
        answer.and_then(Value::extract_error).expect("an answer")
    }

    pub(crate) async fn read<T: FromRedisValue>(&self, command: &Cmd) -> T {
        T::from_redis_value(self.ask(command).await).expect("of that type")
    }

    fn in_bucket(&self, first: u8, kind: &[u8], name: &[u8]) -> Vec<u8> {
        let tag = format!("{{{}.{:02x}}}:", self.prefix, first / 4);
        [tag.as_bytes(), kind, name].concat()
    }

    fn grant(&self, id: &[u8]) -> Vec<u8> {
        self.in_bucket(id[0], b"g:", id)
    }

    /// How many bytes `find` reads of a grant.
    pub(crate) async fn size(&self, key: &Key) -> usize {
        let mut size = 0;
        for field in [&b"g"[..], &key.digest.as_bytes()[..]] {
            let mut command = cmd("HSTRLEN");
            command.arg(self.grant(key.grant.as_bytes())).arg(field);
            size += self.read::<usize>(&command).await;
        }
        size
    }

    fn value(&self, key: &Key) -> Vec<u8> {
        self.in_bucket(key.grant.as_bytes()[0], b"raw:", key.grant.as_bytes())
    }

    /// Writes a value for `get`.
    pub(crate) async fn set(&self, key: &Key, value: &[u8]) {
        let mut command = cmd("SET");
        self.ask(command.arg(self.value(key)).arg(value)).await;
    }

    pub(crate) async fn get(&self, key: &Key) {
        let mut command = Cmd::with_capacity(2, 64);
        command.arg("GET").arg(self.value(key));
        assert!(matches!(self.ask(&command).await, Value::BulkString(_)));
    }

    /// Notes an item for this long, in ms, if it is new.
    pub(crate) async fn note(&self, id: &[u8], lives: u64) {
        let mut command = Cmd::with_capacity(6, 128);
        command.arg("SET").arg([b"{", self.prefix.as_bytes(), b".r", id, b"}"].concat());
        command.arg("1").arg("NX").arg("PX").arg(lives);
        assert_eq!(self.ask(&command).await, Value::Okay);
    }

    pub(crate) async fn used_memory(&self) -> f64 {
        let info: String = self.read(cmd("INFO").arg("memory")).await;
        let line = info.lines().find_map(|line| line.strip_prefix("used_memory:"));
        line.and_then(|used| used.trim().parse().ok()).expect("a number")
    }
}

/// When housekeeping looks at it first, and the last end.
fn ends(grant: &GrantRecord, token: &TokenRecord) -> (UnixTime, UnixTime) {
    let last = grant.row_expires_at.max(grant.expires_at).max(token.expires_at);
    (grant.row_expires_at.min(token.expires_at), last)
}

fn push(command: &mut Cmd, token: &TokenRecord) {
    command.arg(&token.digest.as_bytes()[..]).arg(token_value(&token.to_row()));
}
