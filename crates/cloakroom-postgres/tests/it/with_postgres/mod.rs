//! Tests that need a server.

#[cfg(feature = "deadpool")]
mod app_pool;
mod damaged;
mod dance;
mod faults;
mod hosts;
mod housekeeping;
mod kit;
mod log;
mod migrations;
mod permissions;
mod pooler;
mod processes;
mod tls;
