//! The engine and its endpoints, against the real in-memory store.

mod cookbook;
mod engine;
mod http;
mod model;
