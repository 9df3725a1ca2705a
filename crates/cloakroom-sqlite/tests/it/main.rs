//! The SQLite store, held against the contract and against its own promises.

#![allow(clippy::unwrap_used)]

mod damaged;
mod faults;
mod flood;
mod groups;
mod housekeeping;
mod kit;
mod log;
mod migrations;
#[cfg(unix)]
mod permissions;
mod processes;
mod restored;
mod single_use;
mod support;
