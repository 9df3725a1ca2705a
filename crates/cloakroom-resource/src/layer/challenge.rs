//! The responses to refused requests (RFC 6750 §3, RFC 9449 §7.1).

use std::sync::Arc;

use cloakroom_core::Scope;
use http::header::{self, HeaderValue};
use http::{Response, StatusCode};

use crate::error::TokenError;
use crate::layer::step_up::StepUp;
use crate::verify::proof::Scheme;

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    NoToken,
    /// What is wrong with the request.
    InvalidRequest(&'static str),
    /// The token is longer than any that is accepted.
    TooLarge,
    InvalidToken,
    InsufficientScope,
    /// The user has to sign in again, or in another way.
    InsufficientAuthentication,
    Unavailable,
}

impl From<&TokenError> for Refusal {
    fn from(error: &TokenError) -> Self {
        match error {
            TokenError::Invalid(_) => Self::InvalidToken,
            TokenError::Unavailable(_) => Self::Unavailable,
        }
    }
}

impl Refusal {
    /// `UNAUTHENTICATED`, `PERMISSION_DENIED` or `UNAVAILABLE`.
    const fn grpc_status(self) -> &'static str {
        match self {
            Self::InsufficientScope => "7",
            Self::Unavailable => "14",
            _ => "16",
        }
    }

    /// Why a request is refused before its token is looked at. It shows nothing of the request.
    pub(crate) const fn reason(self) -> &'static str {
        match self {
            Self::NoToken => "it has no token",
            Self::InvalidRequest(why) => why,
            Self::TooLarge => "its token is longer than any that is accepted",
            Self::InvalidToken => "its token is not valid",
            Self::InsufficientScope => "its token lacks a scope",
            Self::InsufficientAuthentication => "its user did not sign in as the route demands",
            Self::Unavailable => "its token cannot be checked",
        }
    }
}

/// The `WWW-Authenticate` values of one resource, made once.
#[derive(Debug, Clone)]
pub(crate) struct Challenges {
    values: Arc<[Values; 2]>,
    /// Whether refusals are answered as gRPC does.
    pub(crate) is_grpc: bool,
}

/// The values in one scheme.
#[derive(Debug)]
struct Values {
    plain: HeaderValue,
    invalid_request: HeaderValue,
    invalid_token: HeaderValue,
    insufficient_scope: HeaderValue,
    insufficient_authentication: HeaderValue,
}

impl Challenges {
    /// The audience is the realm: the name of what is protected. With a `metadata` URL, each value also
    /// says where a client learns how to get a token, and with which scope.
    pub(crate) fn new(
        audience: &str,
        required: &Scope,
        metadata: Option<&str>,
        step_up: &StepUp,
    ) -> Self {
        // What does not go into a quoted-string unescaped is no part of a resource identifier.
        let realm: String = audience
            .chars()
            .filter(|c| matches!(c, ' '..='~') && !matches!(c, '"' | '\\'))
            .collect();
        // RFC 9728 §5.1: "resource_metadata: The URL of the protected resource metadata."
        let metadata = metadata.map(|url| format!(", resource_metadata=\"{url}\""));
        let metadata = metadata.unwrap_or_default();
        let scope = format!(", scope=\"{required}\"");
        // A 401 names the scope only where the client is told how to get a token as well.
        let asked = if metadata.is_empty() || required.is_empty() { "" } else { &scope };
        let values = ["Bearer", "DPoP"].map(|scheme| {
            let value = |rest: &str| {
                HeaderValue::try_from(format!("{scheme} realm=\"{realm}\"{rest}{metadata}"))
                    .unwrap_or(HeaderValue::from_static(scheme))
            };
            Values {
                // RFC 6750 §3: a request without credentials gets no error code.
                plain: value(asked),
                invalid_request: value(", error=\"invalid_request\""),
                invalid_token: value(&format!(", error=\"invalid_token\"{asked}")),
                insufficient_scope: value(&format!(", error=\"insufficient_scope\"{scope}")),
                insufficient_authentication: value(&step_up.challenge()),
            }
        });
        Self { values: Arc::new(values), is_grpc: false }
    }

    /// The response, with an empty body; its challenge is of the scheme that the token came in.
    pub(crate) fn response<B: Default>(&self, refusal: Refusal, scheme: Scheme) -> Response<B> {
        let [bearer, dpop] = &*self.values;
        let values = match scheme {
            Scheme::Bearer => bearer,
            Scheme::Dpop => dpop,
        };
        let mut response = Response::new(B::default());
        let (status, challenge) = match refusal {
            Refusal::NoToken => (StatusCode::UNAUTHORIZED, &values.plain),
            Refusal::InvalidRequest(_) => (StatusCode::BAD_REQUEST, &values.invalid_request),
            Refusal::InvalidToken | Refusal::TooLarge => {
                (StatusCode::UNAUTHORIZED, &values.invalid_token)
            }
            Refusal::InsufficientScope => (StatusCode::FORBIDDEN, &values.insufficient_scope),
            // RFC 9470 §3: "a challenge response with the HTTP 401 (Unauthorized) status code"
            Refusal::InsufficientAuthentication => {
                (StatusCode::UNAUTHORIZED, &values.insufficient_authentication)
            }
            Refusal::Unavailable => {
                *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
                let seconds = HeaderValue::from_static("1");
                response.headers_mut().insert(header::RETRY_AFTER, seconds);
                return self.as_grpc(refusal, response);
            }
        };
        *response.status_mut() = status;
        let challenge = challenge.clone();
        response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        self.as_grpc(refusal, response)
    }

    /// The response with the status of gRPC in place of that of HTTP, if the service speaks gRPC. It has
    /// headers alone ("Trailers-Only"), of which the client sees those for HTTP, too.
    fn as_grpc<B>(&self, refusal: Refusal, mut response: Response<B>) -> Response<B> {
        if self.is_grpc {
            *response.status_mut() = StatusCode::OK;
            let headers = response.headers_mut();
            let grpc = HeaderValue::from_static("application/grpc");
            headers.insert(header::CONTENT_TYPE, grpc);
            headers.insert("grpc-status", HeaderValue::from_static(refusal.grpc_status()));
            headers.insert("grpc-message", HeaderValue::from_static(refusal.reason()));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grpc_service_answers_with_its_own_status() {
        let mut challenges =
            Challenges::new("https://a", &Scope::empty(), None, &StepUp::default());
        challenges.is_grpc = true;
        for (refusal, status) in [
            (Refusal::NoToken, "16"),
            (Refusal::InvalidRequest("it is odd"), "16"),
            (Refusal::TooLarge, "16"),
            (Refusal::InvalidToken, "16"),
            (Refusal::InsufficientAuthentication, "16"),
            (Refusal::InsufficientScope, "7"),
            (Refusal::Unavailable, "14"),
        ] {
            let response: Response<()> = challenges.response(refusal, Scheme::Bearer);
            assert_eq!(response.status(), StatusCode::OK);
            assert_eq!(response.headers()["content-type"], "application/grpc");
            assert_eq!(response.headers()["grpc-status"], status, "{refusal:?}");
            assert_eq!(response.headers()["grpc-message"], refusal.reason());
            let is_outage = refusal == Refusal::Unavailable;
            assert_eq!(response.headers().contains_key("www-authenticate"), !is_outage);
        }
    }

    #[test]
    fn an_odd_audience_cannot_break_out_of_the_realm() {
        let challenges = Challenges::new(
            "a\", error=\"x\\\r\nSet-Cookie: y=z\u{e9}",
            &Scope::empty(),
            None,
            &StepUp::default(),
        );
        let response: Response<()> = challenges.response(Refusal::NoToken, Scheme::Bearer);
        assert_eq!(
            response.headers()[header::WWW_AUTHENTICATE],
            "Bearer realm=\"a, error=xSet-Cookie: y=z\""
        );
    }
}
