//! Tests that need a server.

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
