//! Revocation (RFC 7009), with its cascades.

pub(crate) mod known_revocations;
pub(crate) mod log_follower;
pub(crate) mod log_notifier;
pub(crate) mod log_watch;
pub(crate) mod remembering_store;
pub(crate) mod retention;
pub(crate) mod sessions;
pub(crate) mod store_regression;

use std::sync::Arc;

use cloakroom_core::format::Located;
use cloakroom_core::handle::ChainKind;
use cloakroom_core::revocation::{RuleKey, Target};
use cloakroom_core::store::Lookup;
use cloakroom_core::{ClientId, GrantId, Subject, TokenKind, TokenSecret};

use crate::error::TokenError;
use crate::issuer::{Inner, Issuer};
use crate::revocation::retention::TargetDetails;

impl Issuer {
    /// Revokes a token that a client presents (RFC 7009).
    ///
    /// For an access token, only that token is revoked. A genuine refresh token or code, spent or
    /// not, revokes the grant with all its tokens: "If the particular token is a refresh token and
    /// the authorization server supports the revocation of access tokens, then the authorization
    /// server SHOULD also invalidate all access tokens based on the same authorization grant"
    /// (§2.1). An unknown token is not an error (§2.2).
    ///
    /// # Errors
    ///
    /// [`TokenError::UnauthorizedClient`] if the token was issued to another client (§2.1); another
    /// error if a store or the keys fail. The token may then still be active.
    pub async fn revoke(&self, token: &TokenSecret, client: &ClientId) -> Result<(), TokenError> {
        let inner = &self.inner;
        for kind in [ChainKind::Refresh, ChainKind::Code] {
            let Some(handle) = inner.handles.parse_chain(kind, token.expose()) else {
                continue;
            };
            let Some(grant) = inner.find(handle.grant).await? else {
                return Ok(());
            };
            if !grant.chain.as_ref().is_some_and(|chain| handle.is_genuine(&chain.key)) {
                return Ok(());
            }
            owned(&grant.client, client)?;
            if grant.revoked_at.is_some() {
                // Every revocation is an entry of the log, and a client that repeats one must not
                // fill it.
                return Ok(());
            }
            return revoke_now(inner, Target::Grant(grant.id), TargetDetails::of_client(client))
                .await;
        }
        match inner.locator.locate(token).await? {
            Some(Located { kind: TokenKind::Access, carried: Some(carried), .. }) => {
                owned(&carried.grant.client, client)?;
                let known = inner.store.rules(vec![RuleKey::Jti(carried.jti.clone())]).await?;
                if !known.rules.is_empty() {
                    return Ok(());
                }
                let grant = Some(carried.grant.id);
                let of =
                    TargetDetails { client: Some(client), grant, ends: carried.token.expires_at };
                revoke_now(inner, Target::Jti(carried.jti), of).await
            }
            Some(Located { kind: TokenKind::Access, grant, digest, carried: None, .. }) => {
                let Lookup::Found(found) = inner.store.find(grant, Some(digest)).await? else {
                    return Ok(());
                };
                let Some(token) = found.token else { return Ok(()) };
                owned(&found.grant.client, client)?;
                if token.revoked_at.is_some() || found.grant.revoked_at.is_some() {
                    return Ok(());
                }
                let of =
                    TargetDetails { client: Some(client), grant: None, ends: token.expires_at };
                revoke_now(inner, Target::Token { grant, digest }, of).await
            }
            _ => Ok(()),
        }
    }

    /// Revokes one of a subject's sessions with all its tokens, for a user who picks it from
    /// [`Issuer::sessions`]. Returns whether the subject has such a session. Another subject's
    /// session is not revoked, because grant ids are not secret.
    ///
    /// # Errors
    ///
    /// If the store fails. The session may then still be live.
    pub async fn revoke_session(
        &self,
        subject: &Subject,
        grant: GrantId,
    ) -> Result<bool, TokenError> {
        match self.inner.find(grant).await? {
            Some(found) if found.subject == *subject => {
                revoke_now(
                    &self.inner,
                    Target::Grant(grant),
                    TargetDetails::of_client(&found.client),
                )
                .await?;
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// Revokes a grant of any subject with all its tokens. Check first that the caller may do this;
    /// for a user's own sessions call [`Issuer::revoke_session`].
    ///
    /// # Errors
    ///
    /// If the store fails. The grant may then still be live.
    pub async fn revoke_grant(&self, grant: GrantId) -> Result<(), TokenError> {
        revoke_now(&self.inner, Target::Grant(grant), TargetDetails::default()).await
    }

    /// Revokes every grant that a subject has now: "log out everywhere". A later login is not
    /// affected.
    ///
    /// # Errors
    ///
    /// If the store fails. The grants may then still be live.
    pub async fn revoke_subject(&self, subject: &Subject) -> Result<(), TokenError> {
        revoke_now(&self.inner, Target::Subject(subject.clone()), TargetDetails::default()).await
    }

    /// Revokes every grant that a client has now.
    ///
    /// # Errors
    ///
    /// If the store fails. The grants may then still be live.
    pub async fn revoke_client(&self, client: &ClientId) -> Result<(), TokenError> {
        revoke_now(&self.inner, Target::Client(client.clone()), TargetDetails::default()).await
    }

    /// Revokes every grant that a subject has at a client now: "remove this app".
    ///
    /// # Errors
    ///
    /// If the store fails. The grants may then still be live.
    pub async fn revoke_subject_at_client(
        &self,
        subject: &Subject,
        client: &ClientId,
    ) -> Result<(), TokenError> {
        let target = Target::SubjectAtClient(subject.clone(), client.clone());
        revoke_now(&self.inner, target, TargetDetails::default()).await
    }
}

pub(crate) async fn revoke_now(
    inner: &Arc<Inner>,
    target: Target,
    details: TargetDetails<'_>,
) -> Result<(), TokenError> {
    let revocation = inner.retention().revocation(target, details, inner.now());
    Ok(inner.revoke_and_report(revocation).await?)
}

/// RFC 7009 §2.1: the server "verifies whether the token was issued to the client making the
/// revocation request".
fn owned(owner: &ClientId, client: &ClientId) -> Result<(), TokenError> {
    if owner == client {
        Ok(())
    } else {
        Err(TokenError::UnauthorizedClient("the token was issued to another client"))
    }
}
