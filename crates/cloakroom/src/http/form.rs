//! Reading forms from HTTP requests.

use ::http::{HeaderMap, Request, header};
use bytes::Bytes;
use cloakroom_core::TokenSecret;

use crate::error::TokenError;
pub use crate::form::Form;

impl Form {
    /// Parses the form in the body of a request.
    ///
    /// # Errors
    ///
    /// [`TokenError::InvalidRequest`] if the content type is not that of a form, if the body is
    /// compressed or not UTF-8, if it has more than 64 parameters, or if a parameter other than
    /// `resource` (RFC 8707 §2) is repeated.
    pub fn of(request: &Request<Bytes>) -> Result<Self, TokenError> {
        check_headers(request.headers())?;
        Self::parse(request.body())
    }

    /// The value of a required parameter that is secret.
    pub(crate) fn secret(
        &self,
        name: &str,
        missing: &'static str,
    ) -> Result<TokenSecret, TokenError> {
        self.require(name, missing).map(TokenSecret::new)
    }
}

/// That the headers announce a form.
pub(super) fn check_headers(headers: &HeaderMap) -> Result<(), TokenError> {
    if !is_form(headers) {
        return Err(TokenError::InvalidRequest(
            "the content type must be application/x-www-form-urlencoded",
        ));
    }
    if headers.contains_key(header::CONTENT_ENCODING) {
        return Err(TokenError::InvalidRequest("the body must have no content encoding"));
    }
    Ok(())
}

fn is_form(headers: &HeaderMap) -> bool {
    let mut types = headers.get_all(header::CONTENT_TYPE).iter();
    let (Some(value), None) = (types.next(), types.next()) else {
        return false;
    };
    value.to_str().is_ok_and(|value| {
        let essence = value.split(';').next().unwrap_or_default().trim();
        essence.eq_ignore_ascii_case("application/x-www-form-urlencoded")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_content_type_is_checked() {
        let with = |value: &str| {
            let request = Request::post("/").header("content-type", value);
            Form::of(&request.body(Bytes::new()).unwrap())
        };
        assert!(with("application/x-www-form-urlencoded; charset=UTF-8").is_ok());
        assert!(with("Application/X-WWW-Form-Urlencoded").is_ok());
        assert!(with("application/json").is_err());
        let compressed = Request::post("/")
            .header("content-type", "application/x-www-form-urlencoded")
            .header("content-encoding", "gzip");
        assert!(Form::of(&compressed.body(Bytes::new()).unwrap()).is_err());
        assert!(Form::of(&Request::post("/").body(Bytes::new()).unwrap()).is_err());
    }
}
