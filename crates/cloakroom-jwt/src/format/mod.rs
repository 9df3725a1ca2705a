//! Formats of access tokens: JWTs for clients, and handles that a gateway swaps for JWTs.

pub(crate) mod access_claims;
pub(crate) mod algorithms;
pub(crate) mod jwt;
pub(crate) mod phantom;
