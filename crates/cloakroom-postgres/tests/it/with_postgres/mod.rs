//! Tests that need a server.

mod kit;
mod migrations;
