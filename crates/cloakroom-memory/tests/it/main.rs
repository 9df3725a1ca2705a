//! What `TokenStore` and `KeyStore` ask of every store, held against this one.

#![allow(clippy::unwrap_used)]

mod chain;
mod create;
mod housekeeping;
mod keys;
mod list;
mod log;
mod races;
mod revoke;
mod single_use;
mod support;
