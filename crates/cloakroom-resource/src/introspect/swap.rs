//! Swaps handles for JWTs.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use cloakroom_core::TokenSecret;
use http::header::HeaderValue;

use crate::cache::revocation_check::is_complete;
use crate::cache::{Answer, CachedValue, Refused};
use crate::error::{InvalidToken, UnavailableError};
use crate::introspect::Introspector;
use crate::layer::token_source::{ServerQuery, ServerReply};
use crate::metrics::Of;
use crate::revocation_replica::TokenFacts;

/// Swaps handles for JWTs for one resource.
#[derive(Debug)]
pub(crate) struct Swap {
    pub(crate) introspector: Arc<dyn Introspector>,
    pub(crate) audience: Arc<str>,
}

/// What replaces a handle.
///
/// In this order in memory: see [`TokenFacts`].
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Replacement {
    facts: TokenFacts,
    /// `Bearer` and the JWT. Redacted in `Debug`, wiped when the last copy is dropped.
    pub(crate) authorization: HeaderValue,
}

impl CachedValue for Arc<Replacement> {
    const IS_REPLACEMENT: bool = true;

    fn facts(&self) -> &TokenFacts {
        &self.facts
    }
}

#[async_trait]
impl ServerQuery for Swap {
    type Value = Arc<Replacement>;

    const OF: Of = Of::Phantom;

    async fn send(&self, handle: &TokenSecret) -> ServerReply<Arc<Replacement>> {
        let Some(swapped) = self.introspector.swap(handle, &self.audience).await? else {
            return Ok(Err(Refused(InvalidToken::Inactive)));
        };
        let authorization = bearer(swapped.jwt().expose())?;
        let (facts, expires_at) = (swapped.facts().clone(), swapped.expires_at());
        // Only this finds a rule about the handle.
        let complete = is_complete(&facts, expires_at, true) && facts.handle_hash.is_some();
        let bytes = authorization.len();
        let confirmation = swapped.confirmation().cloned();
        let value = Arc::new(Replacement { authorization, facts });
        Ok(Ok(Answer { value, complete, not_before: None, expires_at, confirmation, bytes }))
    }
}

/// The header value, over bytes that are wiped.
fn bearer(jwt: &str) -> Result<HeaderValue, UnavailableError> {
    struct Wiped(TokenSecret);

    impl AsRef<[u8]> for Wiped {
        fn as_ref(&self) -> &[u8] {
            self.0.expose().as_bytes()
        }
    }

    let bytes = Bytes::from_owner(Wiped(TokenSecret::new(format!("Bearer {jwt}"))));
    let mut value = HeaderValue::from_maybe_shared(bytes).map_err(UnavailableError::other)?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_is_what_it_looks_like_and_shows_nothing() {
        let value = bearer("a.b.c").unwrap();
        assert_eq!(value.as_bytes(), b"Bearer a.b.c");
        assert!(!format!("{value:?}").contains("a.b.c"));
        assert!(bearer("a\nb").is_err());
    }
}
