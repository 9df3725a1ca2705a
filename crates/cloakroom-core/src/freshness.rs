//! How long an HTTP response may be used (RFC 9111 §4.2).

use std::time::Duration;

/// The bounds of a life, whatever the response says.
#[derive(Debug, Clone, Copy)]
#[expect(clippy::exhaustive_structs, reason = "it is a table of constants")]
pub struct LifeBounds {
    /// The life of a response that does not name one.
    pub default: Duration,
    /// The shortest life.
    pub at_least: Duration,
    /// The longest life.
    pub at_most: Duration,
}

impl LifeBounds {
    /// How long a response counts, from when it was requested: its `max-age` less the `Age` that it already
    /// had in a cache on the way. One that must not be stored counts for the shortest time: otherwise each
    /// use would cause a request. Takes the values of `Cache-Control`, and that of `Age`.
    pub fn life<'a>(
        &self,
        cache_control: impl Iterator<Item = &'a str>,
        age: Option<&str>,
    ) -> Duration {
        let mut max_age = None;
        for directive in cache_control.flat_map(|value| value.split(',')).map(str::trim) {
            let (name, value) = directive.split_once('=').unwrap_or((directive, ""));
            if name.eq_ignore_ascii_case("no-store") || name.eq_ignore_ascii_case("no-cache") {
                return self.at_least;
            }
            if name.eq_ignore_ascii_case("max-age") {
                // RFC 9111 §4.2.1: one that cannot be read counts as stale; of two, the shorter is safe.
                let seconds = value.trim_matches('"').parse::<u64>().unwrap_or(0);
                max_age = Some(max_age.map_or(seconds, |other: u64| other.min(seconds)));
            }
        }
        let age = age.and_then(|age| age.parse::<u64>().ok()).unwrap_or(0);
        let life = max_age.map_or(self.default, Duration::from_secs);
        life.saturating_sub(Duration::from_secs(age)).clamp(self.at_least, self.at_most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lives_are_read_and_bounded() {
        let seconds = Duration::from_secs;
        let bounds =
            LifeBounds { default: seconds(3600), at_least: seconds(30), at_most: seconds(86_400) };
        for (cache_control, age, expected) in [
            (&[][..], None, 3600),
            (&["public"], None, 3600),
            (&["max-age=600"], None, 600),
            (&["public, Max-Age=\"600\", must-revalidate"], None, 600),
            (&["max-age=600"], Some("100"), 500),
            (&["max-age=600"], Some("1000"), 30),
            (&["max-age=600"], Some("-1"), 600),
            (&["max-age=600, max-age=300"], None, 300),
            (&["max-age=300", "max-age=600"], None, 300),
            (&["max-age=0"], None, 30),
            (&["max-age=-1"], None, 30),
            (&["max-age=99999999999999999999"], None, 30),
            (&["no-store"], None, 30),
            (&["max-age=600, no-cache"], None, 30),
            (&["max-age=600", "No-Store"], None, 30),
            (&["max-age=31536000"], None, 86_400),
            (&["s-maxage=5"], None, 3600),
        ] {
            let life = bounds.life(cache_control.iter().copied(), age);
            assert_eq!(life.as_secs(), expected, "{cache_control:?} {age:?}");
        }
    }
}
