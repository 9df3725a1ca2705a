//! Tests that need a server, or the program that is one.

mod cluster;
mod damaged;
mod faults;
mod kit;
mod lost_writes;
mod outages;
mod processes;
mod replicas;
mod round_trips;
mod sentinel;
mod single_use;
mod tls;
mod ttl;
