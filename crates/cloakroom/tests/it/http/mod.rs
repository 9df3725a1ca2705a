//! The endpoints: tables through [`Endpoints::handle`](cloakroom::http::Endpoints::handle), and the
//! main stories over real sockets of 127.0.0.1.
#![allow(clippy::unwrap_used, reason = "what is shared by tests fails as they do")]

mod authentication;
mod authenticators;
mod authorization;
mod cors;
mod deregistration;
mod directories;
mod documents;
mod faulty_store;
#[cfg(unix)]
mod few_files;
mod followers;
mod gone;
mod handle_keys;
mod introspection;
mod junk;
mod log_watch;
mod methods;
#[cfg(unix)]
mod nginx;
mod outage;
mod phantom;
mod refused;
mod registration;
mod registration_room;
mod request;
mod resources;
mod revocation;
mod revocations;
mod serve;
mod server;
mod signed;
mod silence;
mod slow_peers;
mod story;
mod token;
mod token_errors;
mod traces;
