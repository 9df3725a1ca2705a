//! How old the knowledge may be that a request is let in on.

use std::time::Duration;

use cloakroom_core::time::UnixTime;

use crate::error::SetupError;
use crate::replica::RevocationReplica;
use cloakroom_core::time::ClockReading;

/// How long a revocation may take, at most, to reach a route: from its acknowledgement by the
/// authorization server to the refusal of every request that begins later than that.
///
/// ```
/// use std::time::Duration;
/// use cloakroom_resource::Freshness;
///
/// let banking = Freshness::every_request();
/// let shop = Freshness::within(Duration::from_secs(10));
/// assert_ne!(banking, shop);
/// ```
///
/// `within(d)` is met
///
/// | for | by |
/// |---|---|
/// | a token that was introspected, a handle that was swapped | an answer that was asked for at most `d` ago, |
/// | | or a [`RevocationReplica`] that is at most `d` behind |
/// | a JWT that was verified here | a replica that is at most `d` behind, |
/// | | or, where there is no replica, or a fresh one cannot tell: a JWT issued at most `d` ago, |
/// | | less the difference that clocks may have |
///
/// A signature says nothing of revocation, so that verifying a JWT anew makes nothing fresh; and
/// whoever has stolen a signing key says of his JWTs that they are new. What
/// counts is the time at which the request began, and what was known had been asked for.
///
/// When nothing meets it, [`WhenStale`] decides. A token that is known to be revoked is refused
/// however old that knowledge is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Freshness(Option<Duration>);

impl Freshness {
    /// Every request asks the authorization server; none is answered from memory, and none waits
    /// for an answer that was asked for before it began.
    #[must_use]
    pub const fn every_request() -> Self {
        Self(None)
    }

    /// What is known may be this old. Nothing is as old as zero:
    /// [`every_request`](Self::every_request).
    #[must_use]
    pub const fn within(age: Duration) -> Self {
        if age.is_zero() { Self(None) } else { Self(Some(age)) }
    }

    /// How old; `None` if nothing may be.
    pub(crate) const fn bound(self) -> Option<Duration> {
        self.0
    }

    /// Whether something of this age will do.
    pub(crate) fn allows(self, age: Duration) -> bool {
        self.0.is_some_and(|bound| age <= bound)
    }
}

/// What becomes of a request whose token is remembered, or was verified here, and needs nothing
/// more but a [`RevocationReplica`] that is not too far behind for the route's [`Freshness`].
///
/// It is never let in on that. What no replica can vouch for, such as a token of another server or
/// of a client that revokes in masses, and an opaque token that is not remembered, are introspected
/// whatever is chosen here, where somebody can be asked.
///
/// **The JWT of a handle cannot be introspected** where a gateway has swapped one for the other: no
/// client may hold it, and the authorization server calls none active. Behind a gateway an API
/// needs a replica, and a freshness that the replica can meet; what nothing meets is refused with
/// 503.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum WhenStale {
    /// The authorization server is asked about that very token. Where there is nobody to ask, the
    /// request is refused.
    #[default]
    Introspect,
    /// The request is refused with 503 and `Retry-After`: an authorization server whose log has
    /// come to a halt is not asked about every token at once.
    Refuse,
}

/// The least default: what an API bears that has not thought about it.
const MIN_DEFAULT: Duration = Duration::from_secs(10);
/// What a replica's staleness may exceed its steady state by, with nothing wrong: a slow answer, a
/// late heartbeat.
const JITTER: Duration = Duration::from_secs(1);
/// How far clocks may be apart, where no replica says it.
const CLOCK_SKEW: Duration = Duration::from_secs(5);

/// What a replica can be relied on for, while nothing is wrong.
fn reliable(replica: &RevocationReplica) -> Duration {
    replica.steady_staleness().saturating_add(JITTER)
}

/// What counts where no freshness is named: with a replica, 10 s or what it can be relied on for.
pub(crate) fn default_of(replica: Option<&RevocationReplica>) -> Option<Freshness> {
    replica.map(|replica| Freshness::within(reliable(replica).max(MIN_DEFAULT)))
}

/// Whether verified JWTs can meet it where nobody introspects.
pub(crate) fn without_introspection(
    freshness: Freshness,
    replica: Option<&RevocationReplica>,
) -> Result<(), SetupError> {
    let Some(bound) = freshness.bound() else {
        return Err(SetupError::Freshness("nobody introspects, and a JWT tells nothing by itself"));
    };
    match replica {
        Some(replica) if bound < reliable(replica) => Err(SetupError::Freshness(
            "nobody introspects, and the replica is further behind while nothing is wrong",
        )),
        None if bound < clock_skew(None) => Err(SetupError::Freshness(
            "nobody introspects, no replica is followed, and clocks may differ by more",
        )),
        _ => Ok(()),
    }
}

/// Whether a replica can meet it where a stale one lets nobody ask. Without a replica every request
/// that memory does not answer asks.
pub(crate) fn from_replica_alone(
    freshness: Freshness,
    replica: Option<&RevocationReplica>,
) -> Result<(), SetupError> {
    match (freshness.bound(), replica) {
        (Some(bound), Some(replica)) if bound < reliable(replica) => Err(SetupError::Freshness(
            "a stale replica refuses requests, and it is further behind while nothing is wrong",
        )),
        _ => Ok(()),
    }
}

/// How far clocks may be apart: a part of what a replica is behind while nothing is wrong, so that
/// all of that is certainly enough.
fn clock_skew(replica: Option<&RevocationReplica>) -> Duration {
    replica.map_or(CLOCK_SKEW, RevocationReplica::steady_staleness)
}

/// Whether a JWT is so young that whatever was revoked before `freshness` was revoked before it was
/// issued. One from further in the future than clocks may differ proves nothing.
///
/// Whoever has a signing key writes into `iat` what he likes. Where keys are revoked through a
/// replica, youth therefore counts only as long as it would say so in time.
pub(crate) fn is_young(
    issued_at: Option<UnixTime>,
    replica: Option<&RevocationReplica>,
    freshness: Freshness,
    now: ClockReading,
) -> bool {
    let knows_keys = |replica: &RevocationReplica| {
        replica.staleness_at(now).is_some_and(|staleness| freshness.allows(staleness))
    };
    replica.is_none_or(knows_keys) && is_younger(issued_at, clock_skew(replica), freshness, now)
}

fn is_younger(
    issued_at: Option<UnixTime>,
    clock_skew: Duration,
    freshness: Freshness,
    now: ClockReading,
) -> bool {
    issued_at.is_some_and(|issued| {
        let now = now.wall();
        issued <= now + clock_skew && freshness.allows(now.since(issued) + clock_skew)
    })
}

#[cfg(test)]
mod tests;
