//! What redeeming a code and redeeming a refresh token have in common: the fixed order of checks.
//!
//! Tag → grant live → genuine → client and key binding → (for codes) redirect URI and verifier →
//! only then the generation. A failure before the last changes nothing: an old code without its
//! verifier, or a refresh token in the hands of another client, cannot end a session.

use std::cmp::Ordering;
use std::sync::Arc;

use cloakroom_core::{
    Chain, ChainHandle, ClientId, Confirmation, GrantId, GrantRecord, Revocation, Target, UnixTime,
};

use crate::error::{GrantRefusal, TokenError};
use crate::events::Event;
use crate::issuer::Inner;

/// Where a genuine credential stands, seen from its chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It is the one that may be redeemed.
    Current,
    /// It was spent by the last step, and its window is open: its successor is kept for it.
    Retriable,
    /// It was spent before that, and its own window is open: a slow tab. The window of the last
    /// rotation does not count: a thief who keeps rotating must not keep it open.
    SpentRecently,
    /// It was spent.
    Spent,
    /// The chain never came so far: the store has gone back in time.
    Newer,
}

impl Standing {
    pub(crate) fn of(handle: &ChainHandle, chain: &Chain, now: UnixTime) -> Self {
        let presented = handle.generation;
        match (presented.cmp(&chain.generation), &chain.successor) {
            (Ordering::Equal, _) if handle.digest == chain.digest => Self::Current,
            (Ordering::Equal | Ordering::Greater, _) => Self::Newer,
            (Ordering::Less, Some(successor)) => {
                if presented + 1 == chain.generation && now < successor.until {
                    Self::Retriable
                } else if successor.is_recent(presented, now) {
                    Self::SpentRecently
                } else {
                    Self::Spent
                }
            }
            (Ordering::Less, None) => Self::Spent,
        }
    }
}

impl Inner {
    /// The grant whose genuine credential this client presents, with its chain: the checks that all
    /// credentials share, in their order.
    pub(crate) async fn grant_of(
        &self,
        handle: &ChainHandle,
        client: &ClientId,
        proved: Option<&Confirmation>,
        now: UnixTime,
    ) -> Result<Arc<GrantRecord>, TokenError> {
        self.check_own_log()?;
        let grant = self.find(handle.grant).await?.ok_or(GrantRefusal::Unknown)?;
        if !grant.is_live(now) {
            return Err(GrantRefusal::Dead.into());
        }
        if !handle.is_genuine(&chain_of(&grant)?.key) {
            return Err(GrantRefusal::Forged.into());
        }
        if grant.client != *client {
            return Err(GrantRefusal::OtherClient.into());
        }
        if grant.confirmation.is_some() && grant.confirmation.as_ref() != proved {
            return Err(GrantRefusal::OtherKey.into());
        }
        Ok(grant)
    }

    /// Ends a grant because a spent credential was presented (RFC 6749 §4.1.2, RFC 9700 §4.14.2).
    pub(crate) async fn end_for_reuse(
        self: &Arc<Self>,
        handle: &ChainHandle,
        grant: &GrantRecord,
        now: UnixTime,
    ) -> TokenError {
        let event = |revoked| Event::ReuseDetected {
            grant: grant.id,
            client: grant.client.clone(),
            credential: handle.kind.token_kind(),
            presented: handle.generation,
            current: generation(grant),
            revoked,
        };
        self.end(grant, now, event, GrantRefusal::Reused).await
    }

    /// Ends a grant because its store has gone back in time.
    pub(crate) async fn end_for_regression(
        self: &Arc<Self>,
        handle: &ChainHandle,
        grant: &GrantRecord,
        now: UnixTime,
    ) -> TokenError {
        let event = |revoked| Event::StoreRegressed {
            grant: grant.id,
            client: grant.client.clone(),
            presented: handle.generation,
            current: generation(grant),
            revoked,
        };
        self.end(grant, now, event, GrantRefusal::Regressed).await
    }

    /// Revokes a grant, and tells why: what the request is refused with. The event says whether the
    /// grant is known to be revoked.
    async fn end(
        self: &Arc<Self>,
        grant: &GrantRecord,
        now: UnixTime,
        event: impl Fn(bool) -> Event,
        refusal: GrantRefusal,
    ) -> TokenError {
        let revocation = self.revocation(Target::Grant(grant.id), Whose::of(&grant.client), now);
        match self.revoke_fully(revocation, event(true), event(false)).await {
            Ok(()) => refusal.into(),
            Err(error) => error.into(),
        }
    }

    /// The revocation of one thing, remembered for as long as it matters.
    pub(crate) fn revocation(&self, target: Target, of: Whose<'_>, now: UnixTime) -> Revocation {
        // It may have been issued when tokens lived longer than they do now.
        let until = (now + self.token_horizon()).max(of.ends + self.token_tail());
        // A grant made a moment before may be refreshed for its whole life.
        let rule_until = if target.has_bound() {
            until.max(now + self.lifetimes.grant + self.clock_skew())
        } else {
            until
        };
        Revocation {
            rule_until,
            client: of.client.cloned(),
            grant: of.grant,
            ..Revocation::new(target, now, until)
        }
    }
}

/// What is known of a thing that is revoked.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Whose<'a> {
    pub(crate) client: Option<&'a ClientId>,
    /// The grant that it hangs off.
    pub(crate) grant: Option<GrantId>,
    /// When it ends by itself.
    pub(crate) ends: UnixTime,
}

impl<'a> Whose<'a> {
    pub(crate) fn of(client: &'a ClientId) -> Self {
        Self { client: Some(client), ..Self::default() }
    }
}

/// The chain of a grant for which a genuine-looking chain handle was presented.
pub(crate) fn chain_of(grant: &GrantRecord) -> Result<&Chain, TokenError> {
    grant.chain.as_ref().ok_or_else(|| GrantRefusal::Forged.into())
}

fn generation(grant: &GrantRecord) -> u32 {
    grant.chain.as_ref().map_or(0, |chain| chain.generation)
}
