//! Fail-overs that nobody steers, under load, and an oracle over the history of each session.
//!
//! | | |
//! |---|---|
//! | `with_patroni` | the test itself; `cargo xtask failover postgres` runs it, and nothing else does |
//! | `with_redis` | the same for Redis, run by `cargo xtask failover redis-…`, and a master that is cut off with its server |
//! | `trial` | the rounds: something fails under load, is mended, and the history is judged |
//! | `patroni` | three PostgreSQL servers under Patroni, and the faults that befall their primary |
//! | `redis_sentinel` | a Redis master, its two replicas and three sentinels |
//! | `redis_cluster` | a Redis Cluster of three masters, each with a replica; its slots can move |
//! | `with_mariadb` | the same for MariaDB, run by `cargo xtask failover mysql` |
//! | `mariadb` | a MariaDB primary and its replica, which the test promotes |
//! | `proxy` | the network between them, which can be cut |
//! | `load` | three authorization servers, and clients that race each other |
//! | `history` | what each client sent, and what it was answered |
//! | `oracle` | judges a history; its own tests are among the ordinary ones |
//!
//! A fail-over of another server (Galera) needs a cluster like `patroni`, a module like `with_patroni`, and
//! a line in `xtask/src/failover`.

mod history;
pub(crate) mod load;
pub(crate) mod mariadb;
mod oracle;
pub(crate) mod patroni;
pub(crate) mod proxy;
mod redis_cluster;
mod redis_node;
mod redis_sentinel;
#[path = "../../../crates/cloakroom-redis/tests/it/server.rs"]
#[expect(dead_code, reason = "the tests of the store need more of it")]
mod server;
mod trial;
mod with_mariadb;
mod with_patroni;
mod with_redis;

use std::process::Command;

/// Sends a signal to processes.
fn signal(signal: &str, processes: &[u32]) {
    if processes.is_empty() {
        return;
    }
    // Part of every shell, but a program only on some machines. One of them may have ended meanwhile.
    let mut kill = Command::new("sh");
    kill.args(["-c", "kill -s \"$@\" 2>/dev/null", "sh", signal]);
    kill.args(processes.iter().map(ToString::to_string));
    let _ = kill.status();
}
