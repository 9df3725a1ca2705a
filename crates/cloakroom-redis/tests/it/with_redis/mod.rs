//! Tests that need a server, or the program that is one.

mod faults;
mod kit;
mod outages;
mod processes;
mod single_use;
mod ttl;
