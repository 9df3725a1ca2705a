//! The program as an operator runs it, on stores that the library filled.
#![allow(clippy::unwrap_used, reason = "what tests share fails as they do")]

mod commands;
mod docs;
mod doctor;
mod keys;
mod secrecy;
mod servers;
mod support;
mod tokens;
