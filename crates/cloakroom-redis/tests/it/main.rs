//! The Redis store, held against the contract and against its own promises.

#![allow(clippy::unwrap_used)]

#[path = "../../../../tests/it/free_port.rs"]
mod free_port;
mod proxy;
mod server;
mod support;
mod topology;
mod with_redis;
