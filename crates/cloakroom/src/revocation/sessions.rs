//! The sessions of a user, for a page such as "your devices".

use std::sync::Arc;

use cloakroom_core::record::{Device, GrantRecord};
use cloakroom_core::revocation::Target;
use cloakroom_core::store::{Listing, PageRequest, Selector};
use cloakroom_core::time::UnixTime;
use cloakroom_core::{ClientId, GrantId, Scope, Subject, TokenKind};
use serde::Serialize;

use crate::error::TokenError;
use crate::events::Event;
use crate::issuer::{Inner, Issuer};
use crate::revocation::retention::TargetDetails;
use crate::revocation::revoke_now;

/// A live grant of a user.
///
/// `Serialize` writes one object, for a page's script. Its members have the names of the fields; a time is
/// a number of milliseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Session {
    /// The grant, for [`Issuer::revoke_session`].
    pub grant: GrantId,
    /// The user, or the client that acts for itself.
    pub subject: Subject,
    /// The client that holds it. For the session of a [`Browser`](crate::http::Browser) at your own pages,
    /// it is the issuer's URL.
    pub client: ClientId,
    /// The granted scope.
    pub scope: Scope,
    /// The device, as described by [`Grant::device`](crate::Grant::device) and updated at each refresh
    /// ([`RefreshRequest::device`](crate::RefreshRequest::device)).
    pub device: Device,
    /// When it began.
    pub created_at: UnixTime,
    /// When a refresh token was last redeemed.
    pub refreshed_at: Option<UnixTime>,
    /// The latest time at which it ends.
    pub expires_at: UnixTime,
}

impl Session {
    /// When it was last used, as far as the issuer knows: when a refresh token was redeemed, or when it
    /// began. A refresh token that does not rotate leaves no trace.
    #[must_use]
    pub fn last_used_at(&self) -> UnixTime {
        self.refreshed_at.unwrap_or(self.created_at)
    }

    /// The name of its device ([`Grant::on_device`](crate::Grant::on_device)).
    #[must_use]
    pub fn device_id(&self) -> Option<&str> {
        self.device.get(DEVICE_ID)
    }

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

/// How many grants are read at a time.
const PAGE: u32 = 100;

impl Issuer {
    /// The live sessions of a subject, newest first, without grants whose code was not redeemed.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use cloakroom::{Client, Device, Format, Grant, GrantType, Issuer, Subject};
    ///
    /// # let app = Client::public("app")
    /// #     .grant_types([GrantType::RefreshToken])
    /// #     .audience("https://orders.example", Format::Opaque);
    /// # let issuer = Issuer::dev().static_clients([app])?.build().await?;
    /// for name in ["Firefox on Linux", "Safari on iPhone"] {
    ///     let device = Device::new([("name", name)])?;
    ///     issuer.issue(Grant::user("app", "alice")?.device(device)).await?;
    /// }
    ///
    /// let alice = Subject::user("alice")?;
    /// let devices = issuer.sessions(&alice).await?;
    /// assert_eq!(devices.len(), 2);
    ///
    /// // "Log out everywhere else."
    /// assert_eq!(issuer.revoke_other_sessions(&alice, devices[0].grant).await?, 1);
    /// assert_eq!(issuer.sessions(&alice).await?[0].grant, devices[0].grant);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// If the store fails.
    pub async fn sessions(&self, subject: &Subject) -> Result<Vec<Session>, TokenError> {
        let mut sessions = Vec::new();
        let mut page = PageRequest { after: None, limit: PAGE };
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

    /// Revokes the sessions of a subject on one device: "log out this one". The name of the device is
    /// that of [`Grant::on_device`](crate::Grant::on_device), or of a browser
    /// ([`Browser::device`](crate::http::Browser::device)). Returns how many it revoked. Codes that were
    /// not redeemed are revoked, too.
    ///
    /// # Errors
    ///
    /// If the store fails. Some of the sessions may then still be live: call it again.
    pub async fn revoke_device(
        &self,
        subject: &Subject,
        device: &str,
    ) -> Result<usize, TokenError> {
        self.revoke_devices(subject, |id| id == Some(device)).await
    }

    /// Revokes the sessions of a subject on all devices but this one, and those on none: "log out
    /// everywhere else", or a changed password. Otherwise as [`revoke_device`](Self::revoke_device).
    ///
    /// A sign-in on another device that is completed while this runs may stay.
    ///
    /// # Errors
    ///
    /// If the store fails. Some of the sessions may then still be live: call it again.
    pub async fn revoke_other_devices(
        &self,
        subject: &Subject,
        keep: &str,
    ) -> Result<usize, TokenError> {
        self.revoke_devices(subject, |id| id != Some(keep)).await
    }

    async fn revoke_devices(
        &self,
        subject: &Subject,
        is_chosen: impl Fn(Option<&str>) -> bool,
    ) -> Result<usize, TokenError> {
        let now = self.inner.now();
        revoke_each(&self.inner, subject, now, |grant| {
            grant.is_live(now) && is_chosen(grant.device.get(DEVICE_ID))
        })
        .await
    }

    /// Revokes the sessions of a subject except one, with all their tokens: for "log out everywhere else", or after a
    /// change of the password. Returns how many it revoked. Codes that were not redeemed are revoked, too.
    ///
    /// If `keep` is not a session of the subject, all of them are revoked. A sign-in that is completed
    /// while this runs may stay. [`Issuer::revoke_subject`] ends every session in one step.
    ///
    /// # Errors
    ///
    /// If the store fails. Some of the sessions may then still be live: call it again.
    pub async fn revoke_other_sessions(
        &self,
        subject: &Subject,
        keep: GrantId,
    ) -> Result<usize, TokenError> {
        let now = self.inner.now();
        revoke_each(&self.inner, subject, now, |grant| grant.is_live(now) && grant.id != keep).await
    }
}

/// Revokes the older sessions of the same client on the same device, if the new session names one
/// ([`Grant::on_device`](crate::Grant::on_device)). The new session stands, whatever happens here.
///
/// Of two sessions that begin at the same time, the older one is replaced, and never both.
pub(crate) async fn replace_older(inner: &Arc<Inner>, new: &GrantRecord, now: UnixTime) {
    let Some(device) = new.device.get(DEVICE_ID) else { return };
    let is_replaced = |old: &GrantRecord| {
        Session::of(old, now).is_some()
            && old.client == new.client
            && old.device.get(DEVICE_ID) == Some(device)
            && (old.created_at, old.id.as_bytes()) < (new.created_at, new.id.as_bytes())
    };
    if let Err(error) = revoke_each(inner, &new.subject, now, is_replaced).await {
        let error: &dyn std::error::Error = &error;
        tracing::warn!(error, grant = %new.id, "the sessions that it replaces may still be live");
    }
}

/// The name in a [`Device`] of what [`Grant::on_device`](crate::Grant::on_device) sets.
pub(crate) const DEVICE_ID: &str = "id";

/// Revokes the grants of a subject that are chosen.
async fn revoke_each(
    inner: &Arc<Inner>,
    subject: &Subject,
    now: UnixTime,
    is_chosen: impl Fn(&GrantRecord) -> bool,
) -> Result<usize, TokenError> {
    let mut count = 0;
    let mut page = PageRequest { after: None, limit: PAGE };
    loop {
        let listing = grants_of(inner, subject, page, now).await?;
        for grant in listing.grants.iter().filter(|grant| is_chosen(grant)) {
            let details = TargetDetails::of_client(&grant.client);
            revoke_now(inner, Target::Grant(grant.id), details).await?;
            count += 1;
        }
        match listing.next {
            Some(after) => page.after = Some(after),
            None => return Ok(count),
        }
    }
}

/// A page of a subject's grants. Those that cannot be read are reported.
async fn grants_of(
    inner: &Inner,
    subject: &Subject,
    page: PageRequest,
    now: UnixTime,
) -> Result<Listing, TokenError> {
    let listing = inner.store.list(Selector::Subject(subject.clone()), page, now).await?;
    for grant in &listing.unreadable {
        inner.events.record(&Event::CorruptRow { grant: Some(*grant), count: 1 });
    }
    Ok(listing)
}
