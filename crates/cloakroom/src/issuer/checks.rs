//! The rules for settings of an issuer, besides lifetimes.

use std::sync::Arc;
use std::time::Duration;

use cloakroom_core::format::TokenFormat;
use url::Url;

use crate::client::registration::Format;
use crate::error::BuildError;

pub(crate) fn refused(setting: &'static str, why: impl Into<String>) -> BuildError {
    BuildError::Setting { setting, why: why.into() }
}

/// RFC 8414 §2: an issuer is "a URL that uses the "https" scheme and has no query or fragment
/// components". Plain HTTP is allowed only for loopback addresses.
pub(crate) fn check_issuer(issuer: &str) -> Result<(), BuildError> {
    let refused = |why: &str| Err(refused("issuer", format!("`{issuer}` {why}")));
    let Ok(url) = Url::parse(issuer) else {
        return refused("is not a URL; an issuer looks like https://as.example");
    };
    let loopback = match url.host() {
        Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
        Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost",
        None => false,
    };
    if url.scheme() != "https" && !(url.scheme() == "http" && loopback) {
        return refused("must use https; http is allowed only for loopback addresses");
    }
    if url.query().is_some() || url.fragment().is_some() {
        return refused("must have neither query nor fragment (RFC 8414 §2)");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return refused("must not contain credentials");
    }
    if issuer.ends_with('/') {
        return refused("ends with a slash: remove it, because issuers are compared byte for byte");
    }
    if url.as_str().trim_end_matches('/') != issuer {
        return refused("is not in normal form, but issuers are compared byte for byte");
    }
    // The path becomes part of routes and of endpoint URLs, and must need no escaping in either.
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte);
    if !url.path().bytes().all(plain) {
        return refused("has a path with characters other than A-Z a-z 0-9 - . _ ~ and /");
    }
    Ok(())
}

/// Refuses two formats of one name.
pub(crate) fn check_formats(
    registered: &[(Format, Arc<dyn TokenFormat>)],
) -> Result<(), BuildError> {
    let built_in = [Format::Opaque, Format::Phantom, Format::Jwt];
    for (index, (format, _)) in registered.iter().enumerate() {
        let name = format.as_str();
        let taken = built_in.iter().any(|own| own.as_str() == name)
            || registered[..index].iter().any(|(other, _)| other == format);
        if taken {
            let why = format!("the name `{name}` is taken: give the format another one");
            return Err(BuildError::Setting { setting: "formats", why });
        }
    }
    Ok(())
}

/// The intervals of maintenance, and what depends on them.
pub(crate) struct Intervals {
    pub(crate) heartbeat: Duration,
    pub(crate) housekeeping: Duration,
    pub(crate) max_log_staleness: Option<Duration>,
    pub(crate) clock_skew: Duration,
}

/// Refuses intervals of maintenance that contradict each other.
pub(crate) fn check_intervals(intervals: &Intervals) -> Result<(), BuildError> {
    let Intervals { heartbeat, housekeeping, max_log_staleness, clock_skew } = *intervals;
    // The first check bounds the sums below, so that they cannot overflow.
    if housekeeping > Duration::from_secs(3600) {
        let why = "keys rotate late if housekeeping runs less often than hourly";
        return Err(refused("housekeeping_interval", why));
    }
    if heartbeat < Duration::from_millis(10) {
        let why = "heartbeats more often than every 10 ms only cause load";
        return Err(refused("heartbeat_interval", why));
    }
    if housekeeping < heartbeat {
        let why = "it must not be shorter than the heartbeat interval";
        return Err(refused("housekeeping_interval", why));
    }
    let steady = 2 * heartbeat + clock_skew;
    if max_log_staleness.is_some_and(|at_most| at_most < steady) {
        let why = "it is less than two heartbeat intervals plus key_policy.clock_skew";
        return Err(refused("max_log_staleness", why));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn issuers_are_https_urls_without_frills() {
        for good in ["https://as.example", "https://as.example/tenant", "http://127.0.0.1:9000"] {
            check_issuer(good).unwrap();
        }
        for bad in [
            "as.example",
            "http://as.example",
            "https://as.example/",
            "https://as.example?x",
            "https://as.example#x",
            "https://me@as.example",
            "ftp://127.0.0.1",
            "https://AS.example",
            "https://as.example:443",
            "https://as.example/a/../b",
            "https://as.example/a b",
            "https://as.example/{tenant}",
            "https://as.example/:tenant",
            "https://as.example/*",
        ] {
            assert!(check_issuer(bad).is_err(), "{bad}");
        }
    }
}
