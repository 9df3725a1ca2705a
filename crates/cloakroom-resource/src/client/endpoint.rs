//! Where a request to the authorization server may go.

use http::Uri;
use url::{Host, Url};

use crate::error::SetupError;

/// A URL that tokens, credentials and keys may be sent to: `https`, or `http` on this machine.
#[derive(Debug, Clone)]
pub(crate) struct Endpoint(Url);

impl Endpoint {
    pub(crate) fn parse(what: &'static str, text: &str) -> Result<Self, SetupError> {
        let refuse = |why| Err(SetupError::Url { what, why });
        let Ok(url) = Url::parse(text) else {
            return refuse("it cannot be parsed");
        };
        if !url.username().is_empty() || url.password().is_some() {
            return refuse("it contains credentials");
        }
        if url.fragment().is_some() {
            return refuse("it has a fragment");
        }
        match url.scheme() {
            // The parser accepts no such URL without a host.
            "https" => Ok(Self(url)),
            "http" if is_loopback(&url) => Ok(Self(url)),
            "http" => refuse("plain http is accepted only for this machine; use https"),
            _ => refuse("it is not https"),
        }
    }

    /// An endpoint that metadata names. An issuer on `https` must not name a plain HTTP endpoint:
    /// what listens on this machine does not belong to the issuer.
    pub(crate) fn of_metadata(
        what: &'static str,
        text: &str,
        issuer: &Self,
    ) -> Result<Self, SetupError> {
        let endpoint = Self::parse(what, text)?;
        if issuer.0.scheme() == "https" && endpoint.0.scheme() != "https" {
            return Err(SetupError::Url {
                what,
                why: "it uses plain http, but the issuer uses https",
            });
        }
        Ok(endpoint)
    }

    pub(crate) fn url(&self) -> &Url {
        &self.0
    }

    pub(crate) fn with_path(&self, path: &str) -> Self {
        let mut url = self.0.clone();
        url.set_path(path);
        Self(url)
    }

    pub(crate) fn uri(&self, what: &'static str) -> Result<Uri, SetupError> {
        Uri::try_from(self.0.as_str())
            .map_err(|_| SetupError::Url { what, why: "it cannot be requested over HTTP" })
    }
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_stays_on_this_machine() {
        for good in [
            "https://as.example",
            "https://as.example:8443/jwks?v=1",
            "http://127.0.0.1:9000/jwks",
            "http://[::1]:9000/jwks",
            "http://localhost/jwks",
        ] {
            assert!(Endpoint::parse("x", good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "as.example",
            "http://as.example/jwks",
            "http://127.0.0.1.as.example/",
            "http://localhost.as.example/",
            "http://0.0.0.0/",
            "https://user:secret@as.example/",
            "https://as.example/#jwks",
            "file:///etc/passwd",
            "ftp://as.example/",
            "data:application/json,{}",
        ] {
            assert!(Endpoint::parse("x", bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_remote_issuer_cannot_point_at_this_machine() {
        let issuer = Endpoint::parse("issuer", "https://as.example").unwrap();
        assert!(Endpoint::of_metadata("x", "http://127.0.0.1/jwks", &issuer).is_err());
        assert!(Endpoint::of_metadata("x", "https://keys.example/jwks", &issuer).is_ok());
        let local = Endpoint::parse("issuer", "http://127.0.0.1:9000").unwrap();
        assert!(Endpoint::of_metadata("x", "http://127.0.0.1:9001/jwks", &local).is_ok());
        assert!(Endpoint::of_metadata("x", "http://as.example/jwks", &local).is_err());
    }
}
