//! Formats of access tokens: JWTs outside, and JWTs that only a gateway sees.

pub(crate) mod access_claims;
pub(crate) mod algorithms;
pub(crate) mod jwt;
pub(crate) mod phantom;
