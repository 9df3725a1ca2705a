//! Chooses the representation of an introspection response.

use ::http::{HeaderMap, header};

/// The representations of an introspection response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Representation {
    /// `application/json` (RFC 7662 §2.2).
    Json,
    /// `application/token-introspection+jwt` (RFC 9701).
    Signed,
    /// `application/jwt`: only the phantom JWT.
    Jwt,
}

/// The supported media ranges (RFC 9110 §12.5.1).
const RANGES: &[(&str, Representation)] = &[
    ("application/json", Representation::Json),
    ("application/jwt", Representation::Jwt),
    ("application/token-introspection+jwt", Representation::Signed),
    ("application/*", Representation::Json),
    ("*/*", Representation::Json),
];

/// The representation with the highest weight, and the first one among equals; JSON if no supported
/// one is named.
pub(super) fn representation(headers: &HeaderMap) -> Representation {
    let mut best = (0, Representation::Json);
    for value in headers.get_all(header::ACCEPT) {
        let Ok(value) = value.to_str() else { continue };
        for range in value.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let named = parts.next().unwrap_or_default();
            let known = |(range, _): &&(&str, _)| named.eq_ignore_ascii_case(range);
            let Some((_, found)) = RANGES.iter().find(known) else { continue };
            let weight = parts
                .find_map(|part| part.strip_prefix(['q', 'Q'])?.strip_prefix('='))
                .map_or(1000, weight);
            if weight > best.0 {
                best = (weight, *found);
            }
        }
    }
    best.1
}

/// A weight (RFC 9110 §12.4.2), in thousandths; zero if it is malformed.
fn weight(text: &str) -> u32 {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    match whole {
        "1" => 1000,
        "0" if fraction.len() <= 3 && digits(fraction) => {
            format!("{fraction:0<3}").parse().unwrap_or(0)
        }
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_heaviest_range_wins() {
        let of = |accept: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, accept.parse().unwrap());
            representation(&headers)
        };
        assert_eq!(representation(&HeaderMap::new()), Representation::Json);
        assert_eq!(of("application/jwt"), Representation::Jwt);
        assert_eq!(of("Application/JWT; q=0.5, */*;q=0.1"), Representation::Jwt);
        assert_eq!(of("application/jwt;q=0, application/json"), Representation::Json);
        assert_eq!(of("application/token-introspection+jwt"), Representation::Signed);
        assert_eq!(of("application/json, application/jwt"), Representation::Json);
        assert_eq!(of("application/json;q=0.9, application/jwt"), Representation::Jwt);
        assert_eq!(of("application/jwt;Q=0, */*"), Representation::Json);
        assert_eq!(of("text/html"), Representation::Json);
        assert_eq!(of("application/jwt;q=junk"), Representation::Json);
    }
}
