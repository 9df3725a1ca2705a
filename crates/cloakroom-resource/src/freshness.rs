//! The maximum age of the knowledge about revocations when a request is let in.

use std::time::Duration;

use cloakroom_core::time::UnixTime;

use crate::error::SetupError;
use crate::revocation_replica::RevocationReplica;
use cloakroom_core::time::ClockReading;

/// The longest time that a revocation may take to reach a route: from when the authorization server
/// acknowledges it until every new request with the token is refused.
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
/// | an introspected token, a swapped handle | an answer that was requested at most `d` ago, |
/// | | or a [`RevocationReplica`] that is at most `d` behind |
/// | a JWT that was verified here | a replica that is at most `d` behind, |
/// | | or, without a replica or if a fresh one cannot tell: a JWT issued at most `d` ago, |
/// | | less the largest difference between clocks |
///
/// A signature says nothing about revocation, so verifying a JWT again does not make it fresher.
/// Ages are measured from when the answer was requested to when the request began.
///
/// If none of these meets it, [`WhenStale`] decides. A token that is known to be revoked is always
/// refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Freshness(Option<Duration>);

impl Freshness {
    /// Every request asks the authorization server. No request is answered from memory, and none
    /// shares an answer that was requested before it began.
    #[must_use]
    pub const fn every_request() -> Self {
        Self(None)
    }

    /// The knowledge about a token may be this old. Zero is the same as
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

/// What happens to a request whose token is cached or verified, when the [`RevocationReplica`] is
/// too far behind for the route's [`Freshness`].
///
/// The request is never let in unchecked. This setting does not affect opaque tokens that are not
/// cached, or tokens that no replica can check, such as those of another server or of a client with
/// too many revocations: they are introspected if introspection is configured.
///
/// **A JWT that a gateway swapped for a handle cannot be introspected**: clients never hold it, and
/// the authorization server reports it as inactive. An API behind a gateway needs a replica, and a
/// freshness that the replica can meet; otherwise the request is refused with 503.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum WhenStale {
    /// The token is introspected. If no introspection is configured, the request is refused with 503.
    #[default]
    Introspect,
    /// The request is refused with 503 and `Retry-After`. This protects an authorization server whose
    /// log has stopped from an introspection of every token.
    Refuse,
}

/// The smallest default.
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

/// The default with a replica: 10 s, or what the replica can be relied on for.
pub(crate) fn default_of(replica: Option<&RevocationReplica>) -> Option<Freshness> {
    replica.map(|replica| Freshness::within(reliable(replica).max(MIN_DEFAULT)))
}

/// Whether verified JWTs can meet it without introspection.
pub(crate) fn without_introspection(
    freshness: Freshness,
    replica: Option<&RevocationReplica>,
) -> Result<(), SetupError> {
    let Some(bound) = freshness.bound() else {
        return Err(SetupError::Freshness("it needs introspection, and none is configured"));
    };
    match replica {
        Some(replica) if bound < reliable(replica) => Err(SetupError::Freshness(
            "no introspection is configured, and the replica is further behind even in normal operation",
        )),
        None if bound < clock_skew(None) => Err(SetupError::Freshness(
            "neither introspection nor a replica is configured, and clocks may differ by more",
        )),
        _ => Ok(()),
    }
}

/// Whether the replica alone can meet it, where a stale replica means that requests are refused.
pub(crate) fn from_replica_alone(
    freshness: Freshness,
    replica: Option<&RevocationReplica>,
) -> Result<(), SetupError> {
    match (freshness.bound(), replica) {
        (Some(bound), Some(replica)) if bound < reliable(replica) => Err(SetupError::Freshness(
            "`WhenStale::Refuse` is set, and the replica is further behind even in normal operation",
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
/// Anyone with a stolen signing key can write any `iat`. Where keys are revoked through a replica, youth
/// therefore counts only while the replica is fresh enough to report a revoked key.
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
