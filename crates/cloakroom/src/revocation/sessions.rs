//! The sessions of a user, for a page such as "your devices".

use cloakroom_core::record::{Device, GrantRecord};
use cloakroom_core::store::{PageRequest, Selector};
use cloakroom_core::time::UnixTime;
use cloakroom_core::{ClientId, GrantId, Scope, Subject, TokenKind};

use crate::error::TokenError;
use crate::events::Event;
use crate::issuer::Issuer;

/// A live grant of a user.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Session {
    /// The grant, for [`Issuer::revoke_session`].
    pub grant: GrantId,
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
        let (inner, now) = (&*self.inner, self.inner.now());
        let mut sessions = Vec::new();
        let mut page = PageRequest { after: None, limit: 100 };
        loop {
            let of = Selector::Subject(subject.clone());
            let listing = inner.store.list(of, page, now).await?;
            sessions.extend(listing.grants.iter().filter(|grant| is_session(grant, now)).map(
                |grant| Session {
                    grant: grant.id,
                    client: grant.client.clone(),
                    scope: grant.scope.clone(),
                    device: grant.device.clone(),
                    created_at: grant.created_at,
                    refreshed_at: grant.refreshed_at,
                    expires_at: grant.expires_at,
                },
            ));
            for grant in listing.unreadable {
                inner.events.record(&Event::CorruptRow { grant: Some(grant), count: 1 });
            }
            match listing.next {
                Some(after) => page.after = Some(after),
                None => break,
            }
        }
        sessions.sort_unstable_by_key(|session| std::cmp::Reverse(session.created_at));
        Ok(sessions)
    }
}

fn is_session(grant: &GrantRecord, now: UnixTime) -> bool {
    grant.is_live(now)
        && grant.chain.as_ref().is_none_or(|chain| chain.credential != TokenKind::Code)
}
