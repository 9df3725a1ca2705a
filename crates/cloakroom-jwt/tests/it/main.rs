//! What a user of the crate sees: one binary, a module per subject.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod attacks;
mod bad_claims;
mod bad_input;
mod cross;
mod danger;
mod keys;
mod profiles;
mod properties;
mod support;
mod vectors;
mod verifying;
