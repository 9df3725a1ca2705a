//! The MySQL store, held against the contract and against its own promises.

#![allow(clippy::unwrap_used)]

#[path = "../../../../tests/it/free_port.rs"]
mod free_port;
mod proxy;
mod server;
mod support;

/// What needs a server. `cargo xtask test --embedded` leaves it out by this name.
mod with_mysql {
    mod app_pool;
    mod by_hand;
    mod damaged;
    mod galera;
    mod kit;
    mod lost_connections;
    mod migrations;
    mod private;
    mod processes;
    mod single_use;
}
