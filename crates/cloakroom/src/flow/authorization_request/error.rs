//! What can be wrong with an authorization request.

use std::error::Error;

use crate::error::TokenError;
use crate::flow::authorization_request::redirect::AuthorizationRedirect;

/// An authorization request was refused. In axum, it is the right response.
#[derive(Debug, thiserror::Error)]
#[expect(clippy::exhaustive_enums, reason = "a page is shown, or the user is sent back")]
pub enum AuthorizationError {
    /// Show the user an error page. Do *not* redirect (RFC 6749 §4.1.2.1).
    #[error(transparent)]
    Page(#[from] PageError),
    /// The request came by `POST`: send the browser to the same page again, by `GET`.
    #[error("the authorization request is repeated by GET")]
    Repeat(AuthorizationRedirect),
    /// Send the user back to the client, with the error in the redirect.
    #[error("the authorization request was refused: {}", .0.error_code().unwrap_or_default())]
    Redirect(AuthorizationRedirect),
}

/// So that [`AuthorizationRequest::seal`](crate::AuthorizationRequest::seal) can be used with `?`.
impl From<TokenError> for AuthorizationError {
    fn from(error: TokenError) -> Self {
        Self::Page(error.into())
    }
}

/// An error that is shown to the user, who is not sent back to the client. `Display` is a sentence for
/// the page. It shows nothing of the request.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PageError {
    /// The request cannot be read, or names no client or several.
    #[error("The app sent a request that cannot be understood: {0}.")]
    Malformed(&'static str),
    /// No registered client has this identifier.
    #[error("The app that sent you here is not known.")]
    UnknownClient,
    /// The redirect URI is missing, or not registered for the client.
    #[error("The app that sent you here named an address that is not registered for it.")]
    RedirectUri,
    /// This issuer did not seal the request, or it was sealed for another context, or changed.
    #[error("This page does not belong to your sign-in. Go back to the app, and start again.")]
    Forged,
    /// The sealed request has expired.
    #[error("You took too long. Go back to the app, and start again.")]
    Expired,
    /// The sealed request was approved, denied or ended with an error before.
    #[error("This sign-in was completed before. Go back to the app.")]
    Used,
    /// A page of another site has sent the form ([`Browser`](crate::http::Browser)).
    #[error("This form does not come from this site. Go back, and try again.")]
    Foreign,
    /// Nobody is signed in, or not any more.
    #[error("You are not signed in. Sign in, and try again.")]
    SignedOut,
    /// The user may not sign in.
    #[error("You cannot sign in.")]
    Refused,
    /// The server cannot answer now.
    #[error("The server cannot answer now. Try again in a moment.")]
    Unavailable(#[source] TokenError),
    /// Your handler failed ([`PageError::app`]).
    #[error("Something went wrong here. Try again in a moment.")]
    App(#[source] Box<dyn Error + Send + Sync>),
}

impl PageError {
    /// Your handler failed, for example because its database did: 500, and the error in the trace. With
    /// `?`, an error that is boxed already becomes this by itself.
    pub fn app(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        error.into().into()
    }
}

/// An error of Cloakroom in the box stays what it is; another one becomes [`PageError::App`].
impl From<Box<dyn Error + Send + Sync>> for PageError {
    fn from(error: Box<dyn Error + Send + Sync>) -> Self {
        let other = match error.downcast::<Self>() {
            Ok(own) => return *own,
            Err(other) => other,
        };
        match other.downcast::<TokenError>() {
            Ok(own) => (*own).into(),
            Err(other) => Self::App(other),
        }
    }
}

impl From<TokenError> for PageError {
    fn from(error: TokenError) -> Self {
        match error {
            TokenError::InvalidClient(_) => Self::UnknownClient,
            TokenError::RedirectUri => Self::RedirectUri,
            TokenError::InvalidRequest(why) => Self::Malformed(why),
            error => Self::Unavailable(error),
        }
    }
}

/// Why the user is sent back without a code (RFC 6749 §4.1.2.1, OpenID Connect Core §3.1.2.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum AuthorizationErrorCode {
    /// `access_denied`: the user refuses, or your app does.
    AccessDenied,
    /// `login_required`: the client allows no page, and the user has to sign in.
    LoginRequired,
    /// `consent_required`: the client allows no page, and the user has to consent.
    ConsentRequired,
    /// `interaction_required`: the client allows no page, and another one is needed.
    InteractionRequired,
    /// `account_selection_required`: the client allows no page, and the user has to choose an account.
    AccountSelectionRequired,
    /// `unmet_authentication_requirements`: the user cannot sign in as strongly as the client requires.
    UnmetAuthenticationRequirements,
    /// `server_error`.
    ServerError,
    /// `temporarily_unavailable`.
    TemporarilyUnavailable,
}

impl AuthorizationErrorCode {
    /// The value of `error`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AccessDenied => "access_denied",
            Self::LoginRequired => "login_required",
            Self::ConsentRequired => "consent_required",
            Self::InteractionRequired => "interaction_required",
            Self::AccountSelectionRequired => "account_selection_required",
            Self::UnmetAuthenticationRequirements => "unmet_authentication_requirements",
            Self::ServerError => "server_error",
            Self::TemporarilyUnavailable => "temporarily_unavailable",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("secret of the app")]
    struct AppError;

    #[test]
    fn what_an_app_returns_keeps_its_kind_in_a_box() {
        let boxed = |error: Box<dyn Error + Send + Sync>| PageError::from(error);
        assert!(matches!(boxed(PageError::Used.into()), PageError::Used));
        assert!(matches!(boxed(TokenError::RedirectUri.into()), PageError::RedirectUri));
        let outage = TokenError::Unavailable("x");
        assert!(matches!(boxed(outage.into()), PageError::Unavailable(_)));
        for error in [boxed(AppError.into()), PageError::app(AppError)] {
            assert!(matches!(&error, PageError::App(source) if source.is::<AppError>()));
            assert!(!error.to_string().contains("secret"), "{error}");
        }
        let app = || -> Result<(), PageError> { Err(Box::<dyn Error + Send + Sync>::from("x"))? };
        assert!(matches!(app(), Err(PageError::App(_))));
    }
}
