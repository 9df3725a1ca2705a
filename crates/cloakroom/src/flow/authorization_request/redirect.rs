//! The response to an authorization request, complete.

use std::fmt;
use std::sync::Arc;

use cloakroom_core::{TokenSecret, Zeroizing};

use crate::error::TokenError;
use crate::flow::authorization_request::terms::{ResponseMode, Terms};
use crate::flow::authorization_response::AuthorizationResponse;

/// Sends the user's browser back to the client, with a code or an error, `state` and `iss`.
///
/// In axum, it is a response. Without axum, call `into_http`, or build the response from
/// [`location`](Self::location), or from [`page`](Self::page) if the client wants its response as a form.
#[must_use = "it is the response to the browser"]
pub struct AuthorizationRedirect {
    answer: Answer,
    error: Option<&'static str>,
}

enum Answer {
    Location(Zeroizing<String>),
    Page(Zeroizing<String>),
}

impl AuthorizationRedirect {
    /// The URL for `Location`. Answer with 303, so that no browser sends the user's form on to the client (RFC 9700
    /// §4.12). `None` if the client wants its response as a form.
    #[must_use]
    pub fn location(&self) -> Option<&str> {
        match &self.answer {
            Answer::Location(url) => Some(url),
            Answer::Page(_) => None,
        }
    }

    /// An HTML page whose form the browser submits to the client by itself, if the client asked for
    /// `response_mode=form_post`. Its script is [`SCRIPT`](Self::SCRIPT), for a content security policy.
    #[must_use]
    pub fn page(&self) -> Option<&str> {
        match &self.answer {
            Answer::Location(_) => None,
            Answer::Page(html) => Some(html),
        }
    }

    /// The script of [`page`](Self::page).
    pub const SCRIPT: &str = "document.forms[0].submit()";

    /// The URL or the page.
    #[cfg(feature = "http")]
    pub(crate) fn into_parts(self) -> (Option<Zeroizing<String>>, Option<Zeroizing<String>>) {
        match self.answer {
            Answer::Location(url) => (Some(url), None),
            Answer::Page(html) => (None, Some(html)),
        }
    }

    /// The error code that the client gets; `None` if it gets a code.
    #[must_use]
    pub const fn error_code(&self) -> Option<&'static str> {
        self.error
    }
}

impl AuthorizationRedirect {
    /// Sends the browser to the same page again, by `GET`, with this query.
    #[cfg(feature = "http")]
    pub(crate) fn to_query(query: &str) -> Self {
        // RFC 3986 §4.2: relative to the URL of the request.
        Self { answer: Answer::Location(Zeroizing::new(format!("?{query}"))), error: None }
    }
}

impl fmt::Debug for AuthorizationRedirect {
    /// Does not show the code.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthorizationRedirect").field("error", &self.error).finish_non_exhaustive()
    }
}

/// Makes the response to a request whose client and redirect URI are known.
pub(super) struct Responder {
    response: AuthorizationResponse,
    mode: ResponseMode,
}

impl Responder {
    pub(super) fn new(issuer: &Arc<str>, terms: &Terms) -> Self {
        Self::to(issuer, &terms.redirect_uri, terms.state.as_deref(), terms.mode)
    }

    pub(super) fn to(
        issuer: &Arc<str>,
        redirect_uri: &str,
        state: Option<&str>,
        mode: ResponseMode,
    ) -> Self {
        Self { response: AuthorizationResponse::new(issuer, redirect_uri, state), mode }
    }

    pub(super) fn code(&self, code: &TokenSecret) -> AuthorizationRedirect {
        self.with(&[("code", code.expose())], None)
    }

    pub(super) fn error(&self, code: &'static str, description: &str) -> AuthorizationRedirect {
        let description = AuthorizationResponse::description(description);
        let both = [("error", code), ("error_description", &*description)];
        let parameters = if description.is_empty() { &both[..1] } else { &both };
        self.with(parameters, Some(code))
    }

    /// `None` if the client or the redirect URI is unknown.
    pub(super) fn refusal(&self, error: &TokenError) -> Option<AuthorizationRedirect> {
        let code = AuthorizationResponse::refusal_code(error)?;
        Some(self.error(code, error.description().unwrap_or_default()))
    }

    fn with(
        &self,
        parameters: &[(&str, &str)],
        error: Option<&'static str>,
    ) -> AuthorizationRedirect {
        let answer = match self.mode {
            ResponseMode::Query => Answer::Location(Zeroizing::new(self.response.with(parameters))),
            ResponseMode::FormPost => Answer::Page(self.page(parameters)),
        };
        AuthorizationRedirect { answer, error }
    }

    fn page(&self, parameters: &[(&str, &str)]) -> Zeroizing<String> {
        let all = self.response.all(parameters);
        // Long enough from the start: a buffer that grows would leave the code behind. An escaped
        // character takes at most six bytes.
        let length = |(name, value): (&str, &str)| 48 + 6 * (name.len() + value.len());
        let room = 400 + 6 * self.response.redirect_uri().len();
        let room = room + all.clone().map(length).sum::<usize>();
        let mut html = Zeroizing::new(String::with_capacity(room));
        html.push_str("<!doctype html><meta charset=utf-8><title>Back to the app</title>");
        html.push_str("<form method=post action=\"");
        escape(self.response.redirect_uri(), &mut html);
        html.push_str("\">");
        for (name, value) in all {
            html.push_str("<input type=hidden name=\"");
            escape(name, &mut html);
            html.push_str("\" value=\"");
            escape(value, &mut html);
            html.push_str("\">");
        }
        html.push_str("<noscript><button>Continue</button></noscript></form><script>");
        html.push_str(AuthorizationRedirect::SCRIPT);
        html.push_str("</script>");
        html
    }
}

/// Text for an attribute in double quotes.
fn escape(text: &str, html: &mut String) {
    for c in text.chars() {
        match c {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            '\'' => html.push_str("&#39;"),
            c => html.push(c),
        }
    }
}

#[cfg(test)]
mod tests;
