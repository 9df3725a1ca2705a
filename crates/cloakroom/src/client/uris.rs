//! The URIs of a registration: redirect URIs and resources.

/// Schemes under which a browser runs or reads what the URI itself holds.
const UNSAFE_SCHEMES: [&str; 9] =
    ["javascript", "vbscript", "data", "file", "blob", "about", "filesystem", "view-source", "ftp"];

/// Why a code must not be sent to this URI.
pub(crate) fn redirect_fault(text: &str) -> Option<&'static str> {
    // RFC 6749 §3.1.2: "The redirection endpoint URI MUST be an absolute URI [...] MUST NOT
    // include a fragment component."
    let Ok(uri) = url::Url::parse(text) else { return Some("a redirect URI must be absolute") };
    // A parser drops what stands around a URI, and some of what stands in it; a browser may not.
    if text.chars().any(|c| c.is_whitespace() || c.is_control() || c == '\\') {
        return Some("a redirect URI must not contain spaces or backslashes");
    }
    if uri.fragment().is_some() {
        return Some("a redirect URI must have no fragment");
    }
    if !uri.username().is_empty() || uri.password().is_some() {
        return Some("a redirect URI must not contain user information");
    }
    if UNSAFE_SCHEMES.contains(&uri.scheme()) {
        return Some("a redirect URI must not have this scheme");
    }
    // RFC 8252 §7.3, §8.3: loopback redirects may use plain HTTP, since the request never leaves the
    // device. RFC 9700 §2.6: anything else would carry the code over the network for all to read.
    (uri.scheme() == "http" && !is_loopback(&uri))
        .then_some("a redirect URI with plain http must be on the loopback interface")
}

fn is_loopback(uri: &url::Url) -> bool {
    match uri.host() {
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

/// Whether a page may link to this URL as the home page of a client.
pub(crate) fn is_home_page(text: &str) -> bool {
    url::Url::parse(text).is_ok_and(|uri| {
        let is_web = uri.scheme() == "https" || uri.scheme() == "http" && is_loopback(&uri);
        is_web && uri.username().is_empty() && uri.password().is_none()
    })
}

/// Why this is not a resource indicator (RFC 8707 §2). What a client may be registered for and what a
/// request may name are checked alike, so that a registration never holds what nobody can name.
pub(crate) fn resource_fault(text: &str) -> Option<&'static str> {
    // RFC 8707 §2: "Its value MUST be an absolute URI, as specified by Section 4.3 of [RFC3986]. [...]
    // The URI MUST NOT include a fragment component."
    let is_absolute = url::Url::parse(text).is_ok();
    // RFC 3986 §2, without `#`. A parser drops blanks, and takes a backslash for a slash.
    let plain =
        |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:/?[]@!$&'()*+,;=%".contains(&byte);
    (!is_absolute || !text.bytes().all(plain))
        .then_some("a resource must be an absolute URI without a fragment")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirect_uris_of_browsers_apps_and_the_own_device_are_accepted() {
        for good in [
            "https://app.example/cb",
            "https://app.example:8443/cb?x=1",
            "http://127.0.0.1/cb",
            "http://127.0.0.1:9000/cb",
            "http://[::1]/cb",
            "http://localhost:3000/cb",
            "com.example.app:/cb",
            "myapp://cb",
        ] {
            assert_eq!(redirect_fault(good), None, "{good}");
        }
    }

    #[test]
    fn resources_are_absolute_uris_without_a_fragment() {
        for good in [
            "https://api.example",
            "https://api.example/",
            "https://api.example:8443/v1/orders?tenant=a",
            "http://orders.internal",
            "https://[2001:db8::1]/a",
            "urn:example:orders",
            "api://2b0bb8d1-6e4c-4b0f-9f4f-1d2a3b4c5d6e",
            "tag:example.com,2025:orders",
            "https://api.example/%C3%A9",
        ] {
            assert_eq!(resource_fault(good), None, "{good}");
        }
        for bad in [
            "",
            "orders",
            "/orders",
            "//api.example",
            "api.example/orders",
            "https://",
            "https://api.example#",
            "https://api.example#orders",
            "urn:orders#x",
            " https://api.example",
            "https://api.example ",
            "https://api.example/a b",
            "https://api.example/\n",
            "https://api.\texample",
            "https:\\\\api.example",
            "https://b\u{fc}cher.example",
            "https://api.example/<a>",
            "https://api.example/{a}",
        ] {
            assert!(resource_fault(bad).is_some(), "{bad:?}");
        }
    }
}
