//! Fail-overs that nobody steers, under load, and an oracle over the history of each session.
//!
//! | | |
//! |---|---|
//! | `with_patroni` | the test itself; `cargo xtask failover postgres` runs it, and nothing else does |
//! | `patroni` | three PostgreSQL servers under Patroni, and the faults that befall their primary |
//! | `proxy` | the network between them, which can be cut |
//! | `load` | three authorization servers, and clients that race each other |
//! | `history` | what each client sent, and what it was answered |
//! | `oracle` | judges a history; its own tests are among the ordinary ones |
//!
//! A fail-over of another server (Redis with Sentinel, Galera) needs a cluster like `patroni`, a module
//! like `with_patroni`, and a line in `xtask/src/failover`.

mod history;
pub(crate) mod load;
mod oracle;
mod patroni;
pub(crate) mod proxy;
mod with_patroni;
