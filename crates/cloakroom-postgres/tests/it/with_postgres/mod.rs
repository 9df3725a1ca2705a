//! Tests that need a server.

mod dance;
mod housekeeping;
mod kit;
mod log;
mod migrations;
mod processes;
