//! A replica of the revocation log.

mod builder;
mod client_rules;
mod compromised_keys;
mod follow;
#[cfg(test)]
mod follow_loop_tests;
mod http_log;
mod log;
mod rule_index;
mod rule_target;
mod rules;
#[cfg(test)]
mod rules_model_tests;
mod staleness;
mod state;
mod store_log;
#[cfg(test)]
mod test_kit;
mod token_facts;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::AbortHandle;

use crate::error::UnavailableError;
use cloakroom_core::Kid;
use cloakroom_core::time::ClockReading;
use state::ReplicaState;

pub use builder::ReplicaBuilder;
pub use http_log::HttpLog;
pub use log::RevocationLog;
pub use store_log::StoreLog;

pub(crate) use rules::RevocationStatus;
pub(crate) use token_facts::TokenFacts;

/// Follows the revocation log, and knows what is revoked. Cheap to clone; clones share one replica,
/// which stops following when the last clone is dropped.
///
/// Verifiers, introspection caches and gateways consult it on every request, in memory. It reads the
/// whole log before [`follow`](Self::follow) returns, and new entries within milliseconds.
///
/// ```no_run
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// use cloakroom_resource::{ClientCredentials, HttpLog, RevocationReplica};
///
/// let credentials = ClientCredentials::new("orders-api", std::env::var("ORDERS_API_SECRET")?);
/// let log = HttpLog::discover("https://as.example", credentials).await?;
/// let replica = RevocationReplica::follow(log).await?;
/// println!("{} rules, {:?} old", replica.rules(), replica.staleness());
/// # Ok(()) }
/// ```
///
/// # Staleness
///
/// An answer of "nothing new" proves nothing: the server may read from a copy that lags behind, or
/// be cut off from the others. So the servers write a *heartbeat* into the log, once a second by
/// default. A replica that has seen a heartbeat has seen every revocation that was acknowledged
/// before it was written. The [`staleness`](Self::staleness) is the sum of
///
/// | part | reason |
/// |---|---|
/// | the time since the request that brought a new heartbeat was sent | the answer may have taken long; the larger of wall and monotonic time counts, since wall time can be set back and monotonic time stops while a machine sleeps |
/// | the age of that heartbeat when the request was sent | a copy that lags behind returns old ones |
/// | the largest difference between any two clocks | the age compares the server's clock with the local one |
///
/// While nothing is wrong, it stays below [`steady_staleness`](Self::steady_staleness): 7 s by
/// default, of which 5 s are the difference between clocks. If your clocks differ by less, set a
/// smaller difference at the authorization servers, which report it over HTTP, or for this replica
/// alone with [`ReplicaBuilder::clock_skew`].
///
/// Staleness bounds what *may* be unknown. A revocation takes effect as soon as it arrives from the
/// log.
///
/// # When something is wrong
///
/// | problem | rules | staleness |
/// |---|---|---|
/// | the log cannot be read, or does not answer | stay | grows |
/// | the server keeps answering "nothing new", or repeats old heartbeats | stay | grows |
/// | a copy lags behind | stay | at least its lag |
/// | a heartbeat is further in the future than clocks may differ | stay | grows: the heartbeat is ignored |
/// | the position in the log is gone: a store was restored, emptied or failed over | stay | `None` until the log was read from its beginning |
///
/// # When there are too many rules
///
/// A replica holds at most [`ReplicaBuilder::rules`] rules, and 200 for individual tokens of one grant. Beyond that it
/// drops rules, beginning with those that end first:
///
/// | too many rules | dropped | until their end, the replica cannot check |
/// |---|---|---|
/// | for one grant | rules for its tokens | its tokens |
/// | in total | rules of the client that has the most | that client's tokens |
/// | in total, and no client has several | rules for subjects, clients and others | all tokens |
///
/// Tokens that the replica cannot check are introspected, or refused with 503 if introspection is not
/// configured. This ends when the dropped rules would have ended. Rules for signing keys are never
/// dropped.
///
/// A rule ends when the last token that it may deny has ended.
#[derive(Clone)]
pub struct RevocationReplica(Arc<Following>);

struct Following {
    shared: Arc<ReplicaState>,
    task: AbortHandle,
}

impl RevocationReplica {
    /// Reads the log to its end, and then follows it in a task, with default settings. To change them,
    /// use [`builder`](Self::builder).
    ///
    /// # Errors
    ///
    /// [`UnavailableError`] if the log cannot be read, or if this is called outside a tokio runtime.
    ///
    /// # Panics
    ///
    /// If the runtime's timers are not enabled.
    pub async fn follow(log: impl RevocationLog) -> Result<Self, UnavailableError> {
        Self::builder(log).follow().await
    }

    /// A replica with other settings.
    pub fn builder(log: impl RevocationLog) -> ReplicaBuilder {
        ReplicaBuilder::new(Box::new(log))
    }

    /// The replica knows every revocation that was acknowledged longer ago than this. `None` if the
    /// staleness is unknown.
    #[must_use]
    pub fn staleness(&self) -> Option<Duration> {
        self.staleness_at(ClockReading::now(&*self.0.shared.clock))
    }

    /// The upper bound of the [`staleness`](Self::staleness) in normal operation: twice the period
    /// of the heartbeat, plus the largest difference between clocks. If a layer demands a
    /// [`Freshness`](crate::Freshness) below this bound plus some jitter, the replica alone cannot
    /// provide it.
    #[must_use]
    pub fn steady_staleness(&self) -> Duration {
        self.0.shared.steady()
    }

    /// How many rules the replica holds.
    #[must_use]
    pub fn rules(&self) -> usize {
        self.0.shared.read().len()
    }

    /// The staleness at `now`, when a request began by whatever clock.
    pub(crate) fn staleness_at(&self, now: ClockReading) -> Option<Duration> {
        self.0.shared.staleness(now)
    }

    /// What the rules say of a token. Read the staleness first, then this.
    pub(crate) fn revocation_status(&self, facts: &TokenFacts) -> RevocationStatus {
        self.0.shared.revocation_status(facts)
    }

    /// Whether the log has named this key as compromised, even if that rule has ended since.
    pub(crate) fn has_named_key(&self, kid: &Kid) -> bool {
        self.0.shared.has_named_key(kid)
    }
}

impl fmt::Debug for RevocationReplica {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RevocationReplica")
            .field("rules", &self.rules())
            .field("staleness", &self.staleness())
            .finish_non_exhaustive()
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.task.abort();
    }
}
