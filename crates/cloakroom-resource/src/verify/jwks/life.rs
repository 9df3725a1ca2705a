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

    #[test]
    fn none_counts_for_longer_than_a_day() {
        const DAY: Duration = Duration::from_secs(86_400);
        let value = HeaderValue::from_static("max-age=200000");
        assert_eq!(life(&HeaderMap::from_iter([(header::CACHE_CONTROL, value)])), DAY);
        // Nor does a set serve for longer after its end.
        assert_eq!(crate::verify::jwks::MAX_STALE, DAY);
    }
}
