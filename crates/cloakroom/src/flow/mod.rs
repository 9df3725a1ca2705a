//! The ways to a token: issued, taken over, redeemed for a code, refreshed.

pub(crate) mod chain;
pub(crate) mod issue;
pub(crate) mod redeem;
pub(crate) mod refresh;
pub(crate) mod request;
pub(crate) mod successor;
