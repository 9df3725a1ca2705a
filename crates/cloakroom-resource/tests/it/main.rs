//! The resource side against real servers on 127.0.0.1.

#![allow(clippy::unwrap_used)]
mod bearer;
mod discovery;
mod extractor;
mod http_client;
mod introspection;
mod jwks;
mod phantom;
mod proof;
mod readiness;
mod support;
