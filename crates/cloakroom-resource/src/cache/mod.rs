//! The caches: limited in size, keyed by digest, and without expired entries.

mod answer_cache;
mod jwt_cache;
pub(crate) mod revocation_check;
mod senseless;

use std::fmt;

use quick_cache::Weighter;
use sha2::{Digest as _, Sha256};

pub(crate) use answer_cache::{Answer, AnswerCache, CachedAnswer, CachedValue, Refused};
pub(crate) use jwt_cache::{CheckedJwt, JwtCache};
pub(crate) use senseless::SenselessAnswers;

/// The key of a token in memory: SHA-256 of its text. The tokens themselves are not kept.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct TokenKey([u8; 32]);

impl TokenKey {
    pub(crate) fn of(token: &str) -> Self {
        Self(Sha256::digest(token.as_bytes()).into())
    }
}

impl fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenKey(..)")
    }
}

/// About how many bytes something takes in memory.
pub(crate) trait Footprint {
    fn bytes(&self) -> usize;
}

/// Each KiB begun counts as one entry, so that a bound in entries also bounds the bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ByKibibytes;

impl<T: Footprint> Weighter<TokenKey, T> for ByKibibytes {
    fn weight(&self, _: &TokenKey, entry: &T) -> u64 {
        (entry.bytes() as u64).div_ceil(1024).max(1)
    }
}

type Bounded<T> = quick_cache::sync::Cache<TokenKey, T, ByKibibytes>;

fn bounded<T: Footprint + Clone>(entries: usize) -> Bounded<T> {
    Bounded::with_weighter(entries, entries as u64, ByKibibytes)
}
