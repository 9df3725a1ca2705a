//! What a process knows of revocations: a replica of the revocation log.

mod builder;
mod client_rules;
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
use cloakroom_core::time::ClockReading;
use state::ReplicaState;

pub use builder::ReplicaBuilder;
pub use http_log::HttpLog;
pub use log::RevocationLog;
pub use store_log::StoreLog;

pub(crate) use rules::RevocationStatus;
pub(crate) use token_facts::TokenFacts;

/// What is revoked, kept up to date by following the revocation log. Cheap to clone; clones are
/// one replica, and with the last of them it stops following.
///
/// Verifiers, introspection caches and gateways ask it on every request, in memory. It reads the
/// whole log before [`follow`](Self::follow) returns, and then what is added to it, within
/// milliseconds.
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
/// # How old what it knows is
///
/// That a server answers "nothing new" proves nothing: it may be a copy that lags behind, or cut
/// off from the others. Therefore the servers write a *heartbeat* into the log, on the way that
/// revocations take, once a second by default. Who has seen one has seen every revocation that was
/// acknowledged before it was written. The [`staleness`](Self::staleness) is the sum of
///
/// | | because |
/// |---|---|
/// | the time since the request was sent that brought a heartbeat not seen before | the answer may have been on its way for long; the larger of wall and monotonic time counts, since one stands still while a machine sleeps and the other can be set back |
/// | that heartbeat's age when the request was sent | a copy that lags behind hands out old ones |
/// | the largest difference between any two clocks | the age compares the server's clock with the one here |
///
/// While nothing is wrong it stays below [`steady_staleness`](Self::steady_staleness), twice the
/// period of the heartbeat and the difference between clocks: 7 s by default, of which 5 s are
/// that difference. Where clocks are kept together better than that, say so on both sides, or with
/// [`ReplicaBuilder::clock_skew`].
///
/// Staleness bounds what *may* be unknown; a revocation itself is here as soon as the log's answer
/// is.
///
/// # When something is wrong
///
/// | | rules | staleness |
/// |---|---|---|
/// | the log cannot be read, or does not answer | stay | grows |
/// | the server answers "nothing new" for ever, or with heartbeats that were seen | stay | grows |
/// | a copy lags behind | stay | its lag and more |
/// | a heartbeat is from further ahead than clocks may differ | stay | grows, as if it were not there |
/// | the place in the log is gone: a store was restored, emptied or failed over | stay | `None`, until the log was read from its beginning |
///
/// # When there are too many rules
///
/// A replica holds [`ReplicaBuilder::rules`] at most, and 200 about single tokens of one grant. Beyond
/// that some have to make room, those first that end first:
///
/// | too many | make room | until their end, the replica cannot tell of |
/// |---|---|---|
/// | of one grant | its own | its tokens |
/// | in all | those of the client that has the most | that client's tokens |
/// | in all, and no client has several | those of subjects, clients and others | all tokens |
///
/// Tokens that the replica cannot tell of are introspected, or refused with 503 where nobody can:
/// they are neither denied nor let in. Once the rules that had to make room would have ended, all is as
/// if they had never been. Rules about signing keys stay.
///
/// A rule ends when the last token that it may deny has ended.
#[derive(Clone)]
pub struct RevocationReplica(Arc<Following>);

struct Following {
    shared: Arc<ReplicaState>,
    task: AbortHandle,
}

impl RevocationReplica {
    /// Reads the log to its end, and follows it from then on, in a task of its own. For other than
    /// the defaults there is [`builder`](Self::builder).
    ///
    /// # Errors
    ///
    /// If the log cannot be read, or outside of a tokio runtime.
    ///
    /// # Panics
    ///
    /// If the runtime's time is not enabled.
    pub async fn follow(log: impl RevocationLog) -> Result<Self, UnavailableError> {
        Self::builder(log).follow().await
    }

    /// A replica with settings of its own.
    pub fn builder(log: impl RevocationLog) -> ReplicaBuilder {
        ReplicaBuilder::new(Box::new(log))
    }

    /// How old what is known may be: every revocation that was acknowledged longer ago than this
    /// is known. `None` while nothing can be said.
    #[must_use]
    pub fn staleness(&self) -> Option<Duration> {
        self.staleness_at(ClockReading::now(&*self.0.shared.clock))
    }

    /// What the [`staleness`](Self::staleness) stays below while nothing is wrong: twice the period
    /// of the heartbeat, and the difference between clocks. A freshness below it, and some jitter,
    /// cannot be met by the replica alone.
    #[must_use]
    pub fn steady_staleness(&self) -> Duration {
        self.0.shared.steady()
    }

    /// How many rules are held.
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
