//! How long a fetched document is valid.

use std::time::Duration;

use ::http::header::{self, HeaderMap, HeaderValue};
use cloakroom_core::freshness::LifeBounds;

const BOUNDS: LifeBounds = LifeBounds {
    default: Duration::from_secs(60 * 60),
    at_least: Duration::from_secs(60),
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
    fn a_document_that_says_nothing_counts_for_an_hour() {
        assert_eq!(life(&HeaderMap::new()), Duration::from_secs(3_600));
    }

    #[test]
    fn none_counts_for_longer_than_a_day() {
        let value = HeaderValue::from_static("max-age=200000");
        let life = life(&HeaderMap::from_iter([(header::CACHE_CONTROL, value)]));
        assert_eq!(life, Duration::from_secs(86_400));
    }
}
