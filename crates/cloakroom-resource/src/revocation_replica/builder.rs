//! The settings of a replica.

use std::sync::Arc;
use std::time::Duration;

use cloakroom_core::time::{Clock, SystemClock};
use tokio::runtime::Handle;

use super::follow::{Follower, Settings};
use super::log::RevocationLog;
use super::rules::Limits;
use super::state::ReplicaState;
use super::{Following, RevocationReplica};
use crate::error::UnavailableError;

/// Settings of a [`RevocationReplica`]; see [`RevocationReplica::builder`].
///
/// ```no_run
/// # async fn run(log: cloakroom_resource::HttpLog) -> Result<(), cloakroom_resource::UnavailableError> {
/// use std::time::Duration;
/// use cloakroom_resource::RevocationReplica;
///
/// let replica = RevocationReplica::builder(log)
///     .clock_skew(Duration::from_millis(100)) // every machine uses PTP
///     .rules(200_000)
///     .follow()
///     .await?;
/// # Ok(()) }
/// ```
#[must_use = "nothing is followed before `follow`"]
#[derive(Debug)]
pub struct ReplicaBuilder {
    log: Box<dyn RevocationLog>,
    clock: Arc<dyn Clock>,
    limits: Limits,
    settings: Settings,
}

impl ReplicaBuilder {
    pub(super) fn new(log: Box<dyn RevocationLog>) -> Self {
        Self {
            log,
            clock: Arc::new(SystemClock::new()),
            limits: Limits { per_grant: 200, total: 500_000 },
            settings: Settings {
                clock_skew: None,
                wait: Duration::from_secs(3),
                first_back_off: Duration::from_millis(100),
                max_back_off: Duration::from_secs(5),
            },
        }
    }

    /// The clock (default: the system clock).
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// The largest difference between this machine's clock and those of the authorization servers
    /// (default: what the servers report, 5 s unless configured). It is a part of the staleness. If a
    /// clock is off by more, the replica underestimates its staleness.
    pub fn clock_skew(mut self, most: Duration) -> Self {
        self.settings.clock_skew = Some(most);
        self
    }

    /// The largest number of rules (default: 500,000, which take 100 to 150 MB). A revocation takes
    /// one rule, that of a handle two, until the last token that it may deny has ended. Allow for
    /// as many revocations as happen within the longest lifetime of a token.
    ///
    /// All clients share the rules. When there are too many, rules of the client that has the most are
    /// dropped: see [`RevocationReplica`].
    pub fn rules(mut self, most: usize) -> Self {
        self.limits.total = most;
        self
    }

    /// How long the log may wait for new entries before it answers (default: 3 s). The time-out of an
    /// [`HttpClient`](crate::HttpClient) must be longer. Over HTTP, fractions of a second are dropped.
    pub fn wait(mut self, most: Duration) -> Self {
        self.settings.wait = most;
        self
    }

    /// How long to wait after the first failure (100 ms). The time doubles with each consecutive
    /// failure, up to [`max_back_off`](Self::max_back_off), and is shortened at random by up to
    /// half. At least 1 ms, at most an hour.
    pub fn first_back_off(mut self, wait: Duration) -> Self {
        self.settings.first_back_off = back_off(wait);
        self
    }

    /// The longest wait after a failure (5 s). At least 1 ms, at most an hour.
    pub fn max_back_off(mut self, wait: Duration) -> Self {
        self.settings.max_back_off = back_off(wait);
        self
    }

    /// Reads the log to its end, and then follows it in a task.
    ///
    /// # Errors
    ///
    /// [`UnavailableError`] if the log cannot be read, or if this is called outside a tokio runtime.
    ///
    /// # Panics
    ///
    /// If the runtime's timers are not enabled.
    pub async fn follow(self) -> Result<RevocationReplica, UnavailableError> {
        let runtime = Handle::try_current().map_err(UnavailableError::other)?;
        let shared = Arc::new(ReplicaState::new(self.clock, self.limits));
        let mut follower = Follower::new(self.log, Arc::clone(&shared), self.settings);
        follower.catch_up().await?;
        let task = runtime.spawn(follower.run()).abort_handle();
        Ok(RevocationReplica(Arc::new(Following { shared, task })))
    }
}

fn back_off(wait: Duration) -> Duration {
    wait.clamp(Duration::from_millis(1), Duration::from_secs(3600))
}
