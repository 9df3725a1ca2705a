//! Tests that need a server.

mod kit;
mod log;
mod migrations;
mod processes;
