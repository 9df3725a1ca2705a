//! The keys of access handles, for gateways that refuse forged handles themselves.

use ::http::{Request, Response};
use bytes::Bytes;
use zeroize::Zeroizing;

use super::{Endpoints, credentials, respond};
use crate::client::registration::Role;
use crate::error::TokenError;

impl Endpoints {
    pub(super) async fn handle_keys(
        &self,
        request: &Request<Bytes>,
    ) -> Result<Response<Bytes>, TokenError> {
        self.authorized(request, &credentials(request)?, Role::HandleKeys).await?;
        let keys: Zeroizing<String> = self.issuer.inner.handles.access_keys().to_json();
        // Wiped after it is sent.
        Ok(respond::body("application/json", Bytes::from_owner(keys)))
    }
}
