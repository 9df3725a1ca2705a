//! The resource side against real servers on 127.0.0.1.

#![allow(clippy::unwrap_used)]
mod bearer;
mod cache_bounds;
mod cache_flight;
mod cache_foreign;
mod cache_freshness;
mod cache_handles;
mod cache_jwt;
#[cfg(feature = "metrics")]
mod cache_metrics;
mod cache_revoked;
mod cache_support;
mod connections;
mod discovery;
mod extractor;
mod gateway_discovery;
mod http_client;
mod introspection;
mod issuers;
mod jwks;
mod jwks_outage;
mod metadata;
mod phantom;
mod proof;
mod readiness;
mod reasons;
mod replica_http;
mod replica_log;
mod replica_store;
mod support;
mod token_client;
