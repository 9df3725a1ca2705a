//! The cookies of a browser, and who has sent its request.

use std::time::Duration;

use ::http::{HeaderMap, HeaderName, HeaderValue, header};
use sha2::{Digest as _, Sha256};
use url::Url;

pub(super) const DEVICE: &str = "device";
pub(super) const SESSION: &str = "session";
pub(super) const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// The names of an issuer's cookies. Several issuers may share a host.
pub(super) struct Cookies {
    /// RFC 6265bis §4.1.3.2: with the prefix `__Host-`, no other host of the domain can set the cookie.
    /// It needs HTTPS, which a loopback address does without.
    is_secure: bool,
    issuer: String,
}

impl Cookies {
    pub(super) fn of(issuer: &str) -> Self {
        let digest = Sha256::digest(issuer);
        let issuer_name = digest[..4].iter().map(|byte| format!("{byte:02x}")).collect();
        Self { is_secure: issuer.starts_with("https:"), issuer: issuer_name }
    }

    fn name(&self, name: &str) -> String {
        let prefix = if self.is_secure { "__Host-" } else { "" };
        format!("{prefix}{name}-{}", self.issuer)
    }

    pub(super) fn read<'a>(&self, headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
        let name = self.name(name);
        let fields = headers.get_all(header::COOKIE).iter().filter_map(|field| field.to_str().ok());
        let pairs =
            fields.flat_map(|field| field.split(';')).filter_map(|pair| pair.split_once('='));
        pairs
            .map(|(own, value)| (own.trim(), value.trim()))
            .find(|(own, _)| *own == name)
            .map(|it| it.1)
    }

    /// A cookie that no script can read, and that does not come with the forms of other sites.
    pub(super) fn set(&self, name: &str, value: &str, life: Duration) -> Option<HeaderValue> {
        let (name, life) = (self.name(name), life.as_secs());
        let secure = if self.is_secure { "; Secure" } else { "" };
        let text = zeroize::Zeroizing::new(format!(
            "{name}={value}; Path=/; Max-Age={life}; HttpOnly; SameSite=Lax{secure}"
        ));
        let mut cookie = HeaderValue::from_str(&text).ok()?;
        cookie.set_sensitive(true);
        Some(cookie)
    }
}

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Whether a page of the issuer's origin has sent the request, or nobody but the user.
///
/// Browsers say so in `Sec-Fetch-Site` (W3C Fetch Metadata), which pages cannot change, or else in
/// `Origin` (RFC 6454 §7). A request without both is not from a browser of this decade.
pub(super) fn is_same_origin(issuer: &str, headers: &HeaderMap) -> bool {
    let mut sites = headers.get_all(SEC_FETCH_SITE).iter();
    match (sites.next(), sites.next()) {
        (Some(site), None) => return site == "same-origin" || site == "none",
        (Some(_), Some(_)) => return false,
        (None, _) => {}
    }
    let own = Url::parse(issuer).map(|url| url.origin().ascii_serialization());
    let mut origins = headers.get_all(header::ORIGIN).iter();
    match (own, origins.next(), origins.next()) {
        (Ok(own), Some(origin), None) => origin.as_bytes() == own.as_bytes(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let pairs = pairs.iter().map(|(name, value)| (HeaderName::from_static(name), value));
        pairs.map(|(name, value)| (name, HeaderValue::from_str(value).unwrap())).collect()
    }

    #[test]
    fn only_pages_of_the_origin_and_the_user_send_forms() {
        let issuer = "https://as.example/tenant";
        for (pairs, expected) in [
            (&[("sec-fetch-site", "same-origin")][..], true),
            (&[("sec-fetch-site", "none")], true),
            (&[("sec-fetch-site", "same-site")], false),
            (&[("sec-fetch-site", "cross-site")], false),
            (&[("sec-fetch-site", "same-origin"), ("sec-fetch-site", "cross-site")], false),
            // The browser's word counts more than an address that a proxy may have changed.
            (&[("sec-fetch-site", "same-origin"), ("origin", "http://inside")], true),
            (&[("sec-fetch-site", "cross-site"), ("origin", "https://as.example")], false),
            (&[("origin", "https://as.example")], true),
            (&[("origin", "https://as.example:8443")], false),
            (&[("origin", "http://as.example")], false),
            (&[("origin", "https://as.example.evil.example")], false),
            (&[("origin", "https://evil.example")], false),
            (&[("origin", "null")], false),
            (&[("origin", "https://as.example"), ("origin", "https://as.example")], false),
            (&[], false),
        ] {
            assert_eq!(is_same_origin(issuer, &headers(pairs)), expected, "{pairs:?}");
        }
        let local = headers(&[("origin", "http://127.0.0.1:9000")]);
        assert!(is_same_origin("http://127.0.0.1:9000", &local));
        assert!(!is_same_origin("http://127.0.0.1:9001", &local));
    }

    #[test]
    fn a_cookie_is_found_by_its_whole_name() {
        let cookies = Cookies::of("https://as.example");
        let name = cookies.name(SESSION);
        assert!(name.starts_with("__Host-session-"), "{name}");
        for (field, found) in [
            (format!("{name}=a"), Some("a")),
            (format!("x=1; {name}=a; y=2"), Some("a")),
            (format!("x=1;{name}=a==;y=2"), Some("a==")),
            (format!("x{name}=a"), None),
            (format!("{name}x=a"), None),
            (name.clone(), None),
            (String::new(), None),
        ] {
            assert_eq!(cookies.read(&headers(&[("cookie", &field)]), SESSION), found, "{field}");
        }
        // Those of another issuer at the same host are others.
        let other = Cookies::of("https://as.example/acme");
        assert_eq!(other.read(&headers(&[("cookie", &format!("{name}=a"))]), SESSION), None);
    }
}
