//! Narrowing the scope and resources of an access token (RFC 6749 §6, RFC 8707 §2.2).

use cloakroom_core::{Audience, Scope};

use crate::client::Client;
use crate::error::TokenError;

/// The scope of the access token: the requested one, or all that was granted. Scope that the
/// client's registration no longer allows is left out.
pub(crate) fn narrow_scope(
    requested: Option<Scope>,
    granted: &Scope,
    client: &Client,
) -> Result<Scope, TokenError> {
    let most = &granted.intersection(client.scope());
    match requested {
        None => Ok(most.clone()),
        // RFC 6749 §6: "MUST NOT include any scope not originally granted by the resource owner"
        Some(scope) if !scope.is_subset(most) => {
            Err(TokenError::InvalidScope("the scope is wider than what was granted"))
        }
        Some(scope) => Ok(scope),
    }
}

/// The resources of the access token: the requested ones, spelled as they were granted, or all that
/// were granted.
pub(crate) fn narrow_audience(
    requested: &[String],
    granted: &Audience,
) -> Result<Audience, TokenError> {
    if requested.is_empty() {
        return Ok(granted.clone());
    }
    let spelled: Option<Vec<&str>> =
        requested.iter().map(|resource| granted.find(resource)).collect();
    spelled
        .and_then(|spelled| Audience::new(spelled).ok())
        .ok_or(TokenError::InvalidTarget("the resource was not granted"))
}
