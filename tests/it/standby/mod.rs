//! A primary and its streaming standby: what is lost when the standby takes over, and what the servers do.
//!
//! The tests start both by themselves, from the programs of PostgreSQL on this machine.

mod servers;
mod with_postgres;
