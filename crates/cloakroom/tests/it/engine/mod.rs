//! The engine, in process: over the in-memory store, with a clock that moves only when told to.
#![allow(clippy::unwrap_used, reason = "what is shared by tests fails as they do")]

mod attacks;
mod authorization_parameters;
mod authorization_requests;
mod browser;
mod builder;
mod codes;
mod counts;
mod devices;
mod diagnosis;
mod ends;
mod finished;
mod followed_log;
mod formats;
mod grants;
mod jwts;
mod key_orders;
mod keys;
mod laggards;
mod maintenance;
#[cfg(feature = "metrics")]
mod metrics;
mod operator;
mod outage;
mod ownership;
#[cfg(feature = "resource")]
mod protect;
mod races;
mod refresh;
mod refused;
mod regression;
#[cfg(feature = "sqlite")]
mod restored;
mod revocation;
mod scans;
mod secrets;
mod single_use;
mod sinks;
pub(crate) mod store;
pub(crate) mod support;
#[cfg(feature = "testing")]
mod testing;
mod token_hook;
