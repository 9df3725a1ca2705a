//! The revocation endpoint (RFC 7009).

use ::http::{Request, Response, StatusCode};
use bytes::Bytes;

use super::form::Form;
use super::{Endpoints, respond};
use crate::error::TokenError;

impl Endpoints {
    pub(super) async fn revoke(
        &self,
        request: &Request<Bytes>,
    ) -> Result<Response<Bytes>, TokenError> {
        let form = Form::of(request)?;
        let client = self.authenticate(request, &form).await?;
        // The token shows its own type, so `token_type_hint` is ignored (RFC 7009 §2.1).
        let token = form.secret("token", "token is missing")?;
        self.issuer.revoke(&token, client.id()).await?;
        Ok(respond::empty(StatusCode::OK))
    }
}
