//! How long a JWK Set may be used.

use std::time::Duration;

use cloakroom_core::freshness::LifeBounds;
use http::header::{self, HeaderMap, HeaderValue};

const BOUNDS: LifeBounds = LifeBounds {
    default: Duration::from_secs(60 * 60),
    at_least: Duration::from_secs(30),
    at_most: Duration::from_secs(24 * 60 * 60),
};

/// How long a response counts, from when it was requested.
pub(super) fn life(headers: &HeaderMap) -> Duration {
    let cache_control = headers.get_all(header::CACHE_CONTROL).iter().filter_map(text);
    BOUNDS.life(cache_control, headers.get(header::AGE).and_then(text))
}

fn text(value: &HeaderValue) -> Option<&str> {
    value.to_str().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_that_says_nothing_counts_for_an_hour() {
        assert_eq!(life(&HeaderMap::new()), Duration::from_secs(3_600));
    }
}
