//! How long a revocation is remembered: until no verifier accepts a token that it revokes.

use std::time::Duration;

use cloakroom_core::keys::KeyPolicy;
use cloakroom_core::revocation::{Revocation, Target};
use cloakroom_core::time::UnixTime;
use cloakroom_core::{ClientId, GrantId};
use cloakroom_jwt::Verifier;

use crate::issuer::lifetimes::Lifetimes;

/// The settings that decide how long revocations are remembered.
#[derive(Clone, Copy)]
pub(crate) struct Retention<'a> {
    pub(crate) lifetimes: &'a Lifetimes,
    pub(crate) policy: &'a KeyPolicy,
}

/// What the caller knows of a revoked target.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct TargetDetails<'a> {
    /// The client that it belongs to.
    pub(crate) client: Option<&'a ClientId>,
    /// The grant of a revoked JWT.
    pub(crate) grant: Option<GrantId>,
    /// When it ends by itself.
    pub(crate) ends: UnixTime,
}

impl<'a> TargetDetails<'a> {
    pub(crate) fn of_client(client: &'a ClientId) -> Self {
        Self { client: Some(client), ..Self::default() }
    }
}

impl Retention<'_> {
    /// The revocation of a target, remembered for as long as it matters.
    pub(crate) fn revocation(
        self,
        target: Target,
        details: TargetDetails<'_>,
        now: UnixTime,
    ) -> Revocation {
        // The token may be older than a setting that shortened the life of tokens.
        let until = (now + self.longest_token()).max(details.ends + self.tail());
        // A grant made a moment before may be refreshed for its whole life.
        let rule_until = if target.has_bound() {
            until.max(now + self.lifetimes.grant) + self.policy.clock_skew
        } else {
            until
        };
        Revocation {
            rule_until,
            client: details.client.cloned(),
            grant: details.grant,
            ..Revocation::new(target, now, until)
        }
    }

    /// How long some verifier may accept a token after its grant is revoked.
    fn longest_token(self) -> Duration {
        // The clock that issued a foreign token may be ahead.
        let adopted = self.lifetimes.adopted_token + self.policy.clock_skew;
        self.policy.max_token_life.max(adopted) + self.tail()
    }

    /// How long some verifier may accept a token after its end.
    fn tail(self) -> Duration {
        self.policy.clock_skew + self.policy.leeway.max(Verifier::MAX_LEEWAY)
    }
}
