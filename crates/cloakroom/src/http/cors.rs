//! Cross-origin requests (CORS). No origin is allowed by default.

use ::http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use bytes::Bytes;
use cloakroom_core::InvalidValue;
use url::Url;

use super::respond;

/// The origins whose scripts may call, and the headers that they may send and read.
#[derive(Debug, Clone)]
pub(super) struct Origins {
    allowed: Vec<String>,
    allow_headers: Vec<HeaderName>,
    expose_headers: Vec<HeaderName>,
}

impl Default for Origins {
    fn default() -> Self {
        let dpop = HeaderName::from_static("dpop");
        // Clients of the Model Context Protocol send it with every request, to this server as well.
        let mcp = HeaderName::from_static("mcp-protocol-version");
        let nonce = HeaderName::from_static("dpop-nonce");
        Self {
            allowed: Vec::new(),
            allow_headers: vec![header::AUTHORIZATION, header::CONTENT_TYPE, dpop, mcp],
            expose_headers: vec![nonce, header::RETRY_AFTER, header::WWW_AUTHENTICATE],
        }
    }
}

impl Origins {
    pub(super) fn allow(&mut self, origin: &str) -> Result<(), InvalidValue> {
        self.allowed.push(normalized(origin).ok_or(InvalidValue::new(
            "origin",
            "write a scheme, a host and perhaps a port, such as https://app.example:8443",
        ))?);
        Ok(())
    }

    pub(super) fn allow_header(&mut self, name: HeaderName) {
        self.allow_headers.push(name);
    }

    pub(super) fn expose_header(&mut self, name: HeaderName) {
        self.expose_headers.push(name);
    }

    /// Whether any origin is allowed.
    pub(super) fn any(&self) -> bool {
        !self.allowed.is_empty()
    }

    /// Answers a preflight request.
    pub(super) fn preflight(&self, request: &HeaderMap) -> Response<Bytes> {
        let mut response = respond::empty(StatusCode::NO_CONTENT);
        if self.mark(request, response.headers_mut()) {
            let headers = response.headers_mut();
            let fixed = HeaderValue::from_static;
            headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, fixed("GET, POST"));
            headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, list(&self.allow_headers));
            headers.insert(header::ACCESS_CONTROL_MAX_AGE, fixed("600"));
        } else {
            respond::trace_refusal("scripts of this origin may not call this endpoint");
        }
        response
    }

    /// Lets the script read the response if its origin is allowed.
    pub(super) fn mark(&self, request: &HeaderMap, response: &mut HeaderMap) -> bool {
        // The response depends on the origin, and caches must know.
        response.append(header::VARY, HeaderValue::from_static("origin"));
        let origin = request.get(header::ORIGIN);
        let allowed = origin.filter(|origin| {
            self.allowed.iter().any(|allowed| allowed.as_bytes() == origin.as_bytes())
        });
        if let Some(origin) = allowed {
            response.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
            response.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, list(&self.expose_headers));
        }
        allowed.is_some()
    }
}

/// The names, separated by commas.
fn list(names: &[HeaderName]) -> HeaderValue {
    let names: Vec<&str> = names.iter().map(HeaderName::as_str).collect();
    // Header names are header values.
    HeaderValue::try_from(names.join(", ")).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// The origin as a browser writes it (RFC 6454 §6.2), if it is one.
fn normalized(text: &str) -> Option<String> {
    if text.contains(|c: char| c.is_whitespace() || c == '*') {
        return None;
    }
    let url = Url::parse(text).ok()?;
    let is_bare = matches!(url.path(), "" | "/")
        && url.query().is_none()
        && url.fragment().is_none()
        && url.username().is_empty()
        && url.password().is_none();
    let host = url.host_str().filter(|_| is_bare)?;
    let origin = url.origin();
    if origin.is_tuple() {
        return Some(origin.ascii_serialization());
    }
    // Web views of apps have schemes of their own, such as `capacitor://localhost`.
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    (!host.is_empty() && url.scheme() != "file")
        .then(|| format!("{}://{}{port}", url.scheme(), host.to_ascii_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_written_as_browsers_write_them() {
        for (given, expected) in [
            ("https://app.example", "https://app.example"),
            ("https://app.example/", "https://app.example"),
            ("HTTPS://App.Example", "https://app.example"),
            ("https://app.example:443", "https://app.example"),
            ("http://localhost:80/", "http://localhost"),
            ("http://localhost:5173", "http://localhost:5173"),
            ("https://b\u{fc}cher.example", "https://xn--bcher-kva.example"),
            ("http://[::1]:3000", "http://[::1]:3000"),
            ("capacitor://localhost", "capacitor://localhost"),
        ] {
            assert_eq!(normalized(given).as_deref(), Some(expected), "{given}");
        }
        for bad in [
            "*",
            "null",
            "",
            "app.example",
            "https://*.example",
            "https://app.example/app",
            "https://app.example?x",
            "https://app.example#x",
            "https://user@app.example",
            "https://app.example https://b.example",
            "file:///x",
            "https://",
            "data:text/html,x",
        ] {
            assert_eq!(normalized(bad), None, "{bad}");
        }
    }
}
