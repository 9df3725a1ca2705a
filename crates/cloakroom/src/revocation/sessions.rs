//! The sessions of a user, for a page such as "your devices".

use cloakroom_core::record::{Device, GrantRecord};
use cloakroom_core::store::{PageRequest, Selector};
use cloakroom_core::time::UnixTime;
use cloakroom_core::{ClientId, GrantId, Scope, Subject, TokenKind};
use serde::Serialize;

use crate::error::TokenError;
use crate::issuer::Issuer;

/// A live grant of a user. Times serialize as milliseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Session {
    /// The grant, for [`Issuer::revoke_session`].
    pub grant: GrantId,
    /// The user, or the client that acts for itself.
    pub subject: Subject,
    /// The client that holds it.
    pub client: ClientId,
    /// The granted scope.
    pub scope: Scope,
    /// The device, as described by [`Grant::device`](crate::Grant::device).
    pub device: Device,
    /// When it began.
    pub created_at: UnixTime,
    /// When a refresh token was last redeemed.
    pub refreshed_at: Option<UnixTime>,
    /// The latest time at which it ends.
    pub expires_at: UnixTime,
}

impl Issuer {
    /// The live sessions of a subject, newest first, without grants whose code was not redeemed.
    ///
    /// # Errors
    ///
    /// If the store fails.
    pub async fn sessions(&self, subject: &Subject) -> Result<Vec<Session>, TokenError> {
        let mut sessions = Vec::new();
        let mut page = PageRequest { after: None, limit: 100 };
        loop {
            let listed = self.list_sessions(Selector::Subject(subject.clone()), page).await?;
            sessions.extend(listed.sessions);
            match listed.next {
                Some(after) => page.after = Some(after),
                None => break,
            }
        }
        sessions.sort_unstable_by_key(|session| std::cmp::Reverse(session.created_at));
        Ok(sessions)
    }
}

impl Session {
    /// The session of a grant. `None` if the grant is not live, or its code was not redeemed.
    pub(crate) fn of(grant: &GrantRecord, now: UnixTime) -> Option<Self> {
        let has_begun =
            grant.chain.as_ref().is_none_or(|chain| chain.credential != TokenKind::Code);
        (grant.is_live(now) && has_begun).then(|| Self {
            grant: grant.id,
            subject: grant.subject.clone(),
            client: grant.client.clone(),
            scope: grant.scope.clone(),
            device: grant.device.clone(),
            created_at: grant.created_at,
            refreshed_at: grant.refreshed_at,
            expires_at: grant.expires_at,
        })
    }
}
