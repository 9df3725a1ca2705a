//! The response of the authorization endpoint (RFC 6749 §4.1.2, RFC 9207).

use std::sync::Arc;

use cloakroom_core::{TokenSecret, Zeroizing};
use url::form_urlencoded::byte_serialize;

use crate::error::TokenError;
use crate::issuer::Issuer;

/// Where to send the user's browser after an authorization request, as a URL for `Location`.
///
/// Every response names the issuer in `iss`, so that a client of several servers knows which one
/// has responded (RFC 9207). Say so in the metadata with
/// [`Endpoints::authorization_response_iss`](crate::http::Endpoints::authorization_response_iss).
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use cloakroom::{ApprovedRequest, Client, Format, Grant, GrantType, Issuer, Pkce};
///
/// let callback = "https://app.example/callback?tenant=a";
/// let client = Client::public("app")
///     .grant_types([GrantType::AuthorizationCode])
///     .redirect_uri(callback)
///     .audience("https://orders.example", Format::Opaque);
/// let issuer = Issuer::dev().static_clients([client])?.build().await?;
///
/// // The client and its redirect URI are registered, and the user has signed in and consented.
/// let response = issuer.authorization_response(callback, Some("xyz"));
/// let pkce = Pkce::s256("E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM")?;
/// let request = ApprovedRequest::new(Grant::user("app", "alice")?, callback).pkce(pkce);
/// let code = issuer.authorize(request).await?;
///
/// let location = response.code(&code);
/// assert!(location.starts_with("https://app.example/callback?tenant=a&code="));
/// assert!(location.ends_with("&state=xyz&iss=http%3A%2F%2F127.0.0.1%3A9000"));
///
/// let location = response.error("access_denied", "the user said no");
/// assert!(location.contains("?tenant=a&error=access_denied&error_description=the+user+said+no&"));
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
#[must_use = "it holds the URL to redirect to"]
pub struct AuthorizationResponse {
    issuer: Arc<str>,
    redirect_uri: String,
    state: Option<String>,
}

impl Issuer {
    /// The response to an authorization request, for this redirect URI and this `state`. The redirect
    /// URI must be the client's ([`Client::is_redirect_uri`](crate::Client::is_redirect_uri)).
    pub fn authorization_response(
        &self,
        redirect_uri: impl Into<String>,
        state: Option<&str>,
    ) -> AuthorizationResponse {
        AuthorizationResponse::new(&self.inner.url, redirect_uri, state)
    }
}

impl AuthorizationResponse {
    pub(crate) fn new(
        issuer: &Arc<str>,
        redirect_uri: impl Into<String>,
        state: Option<&str>,
    ) -> Self {
        let (issuer, redirect_uri) = (Arc::clone(issuer), redirect_uri.into());
        Self { issuer, redirect_uri, state: state.map(str::to_owned) }
    }

    /// Sends the user back with a code (RFC 6749 §4.1.2).
    #[must_use]
    pub fn code(&self, code: &TokenSecret) -> Zeroizing<String> {
        Zeroizing::new(self.with(&[("code", code.expose())]))
    }

    /// Sends the user back with an error code of RFC 6749 §4.1.2.1 and a text for the client's
    /// developers. Characters that are not allowed there are removed from the text.
    #[must_use]
    pub fn error(&self, code: &str, description: &str) -> String {
        match &*Self::description(description) {
            "" => self.with(&[("error", code)]),
            why => self.with(&[("error", code), ("error_description", why)]),
        }
    }

    /// Sends the user back because [`Issuer::authorize`] failed. `None` if the user must *not* be sent
    /// to the client, since it or the redirect URI is unknown (RFC 6749 §4.1.2.1): show an error page.
    ///
    /// A revocation while the user signed in ([`TokenError::Barred`]) is reported as
    /// `access_denied`. An outage is reported as `temporarily_unavailable`, and its cause is
    /// traced.
    #[must_use]
    pub fn refusal(&self, error: &TokenError) -> Option<String> {
        let code = Self::refusal_code(error)?;
        Some(self.error(code, error.description().unwrap_or_default()))
    }

    /// The error code of [`AuthorizationResponse::refusal`].
    pub(crate) fn refusal_code(error: &TokenError) -> Option<&'static str> {
        Some(match error.code() {
            Some("invalid_client") => return None,
            _ if matches!(error, TokenError::RedirectUri) => return None,
            Some("invalid_grant") => "access_denied",
            Some(code) => code,
            None => {
                let error: &dyn std::error::Error = error;
                tracing::error!(error, "no code could be issued");
                "temporarily_unavailable"
            }
        })
    }

    /// The text without the characters that may not stand in `error_description`.
    pub(crate) fn description(text: &str) -> String {
        // RFC 6749 §4.1.2.1: "MUST NOT include characters outside the set %x20-21 / %x23-5B /
        // %x5D-7E."
        let allowed = |c: &char| matches!(c, ' '..='!' | '#'..='[' | ']'..='~');
        text.chars().filter(allowed).collect()
    }

    pub(crate) fn redirect_uri(&self) -> &str {
        &self.redirect_uri
    }

    /// These parameters, `state` and `iss`.
    pub(crate) fn all<'a>(
        &'a self,
        parameters: &'a [(&'a str, &'a str)],
    ) -> impl Iterator<Item = (&'a str, &'a str)> + Clone {
        let state = self.state.as_deref().map(|state| ("state", state));
        // RFC 9207 §2: "In authorization responses to the client, including error responses, an
        // authorization server supporting this specification MUST indicate its identity by including
        // the iss parameter in the response."
        parameters.iter().copied().chain(state).chain([("iss", &*self.issuer)])
    }

    /// The redirect URI with these parameters, `state` and `iss`. RFC 6749 §3.1.2: a query component
    /// of the redirect URI "MUST be retained when adding additional query parameters".
    pub(crate) fn with(&self, parameters: &[(&str, &str)]) -> String {
        let all = self.all(parameters);
        let length = |(name, value): (&str, &str)| name.len() + 3 * value.len() + 2;
        let room = self.redirect_uri.len() + all.clone().map(length).sum::<usize>();
        // Long enough from the start: a buffer that grows would leave the code behind.
        let mut url = String::with_capacity(room);
        url.push_str(&self.redirect_uri);
        let mut separator = match self.redirect_uri.split_once('?') {
            None => "?",
            Some((_, "")) => "",
            Some((_, query)) if query.ends_with('&') => "",
            Some(_) => "&",
        };
        for (name, value) in all {
            url.push_str(separator);
            url.push_str(name);
            url.push('=');
            url.extend(byte_serialize(value.as_bytes()));
            separator = "&";
        }
        url
    }
}
