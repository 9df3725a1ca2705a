//! How long a fetched document is valid.

use std::time::Duration;

use ::http::header::{self, HeaderMap};

/// The life of a document whose response does not name one.
const DEFAULT: Duration = Duration::from_secs(60 * 60);
/// Bounds of the life of a document.
const BOUNDS: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(24 * 60 * 60));

/// How long a response counts, from when it was requested (RFC 9111 §4.2): its `max-age` less the `Age`
/// that it already had in a cache on the way. One that must not be stored counts for the shortest time:
/// otherwise each request of the client would cause a fetch.
pub(super) fn life(headers: &HeaderMap) -> Duration {
    let directives = headers
        .get_all(header::CACHE_CONTROL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim);
    let mut max_age = None;
    for directive in directives {
        let (name, value) = directive.split_once('=').unwrap_or((directive, ""));
        if name.eq_ignore_ascii_case("no-store") || name.eq_ignore_ascii_case("no-cache") {
            return BOUNDS.0;
        }
        if name.eq_ignore_ascii_case("max-age") {
            // RFC 9111 §4.2.1: one that cannot be read counts as stale; of two, the shorter is safe.
            let seconds = value.trim_matches('"').parse::<u64>().unwrap_or(0);
            max_age = Some(max_age.map_or(seconds, |other: u64| other.min(seconds)));
        }
    }
    let age = headers
        .get(header::AGE)
        .and_then(|value| value.to_str().ok()?.parse::<u64>().ok())
        .unwrap_or(0);
    let life = max_age.map_or(DEFAULT, Duration::from_secs);
    life.saturating_sub(Duration::from_secs(age)).clamp(BOUNDS.0, BOUNDS.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lives_are_read_and_bounded() {
        for (cache_control, age, seconds) in [
            (None, None, 3600),
            (Some("public"), None, 3600),
            (Some("max-age=600"), None, 600),
            (Some("public, Max-Age=\"600\", must-revalidate"), None, 600),
            (Some("max-age=600"), Some("100"), 500),
            (Some("max-age=600"), Some("1000"), 60),
            (Some("max-age=600, max-age=300"), None, 300),
            (Some("max-age=0"), None, 60),
            (Some("max-age=-1"), None, 60),
            (Some("max-age=99999999999999999999"), None, 60),
            (Some("no-store"), None, 60),
            (Some("max-age=600, no-cache"), None, 60),
            (Some("max-age=31536000"), None, 86_400),
        ] {
            let mut headers = HeaderMap::new();
            if let Some(value) = cache_control {
                headers.insert(header::CACHE_CONTROL, value.parse().unwrap());
            }
            if let Some(value) = age {
                headers.insert(header::AGE, value.parse().unwrap());
            }
            assert_eq!(life(&headers).as_secs(), seconds, "{cache_control:?} {age:?}");
        }
    }
}
