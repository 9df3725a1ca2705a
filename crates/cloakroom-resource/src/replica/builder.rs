//! The settings of a replica.

use std::sync::Arc;
use std::time::Duration;

use cloakroom_core::{Clock, SystemClock};
use tokio::runtime::Handle;

use super::follow::{Follower, Settings};
use super::log::RevocationLog;
use super::rules::Limits;
use super::shared::Shared;
use super::{Following, RevocationReplica};
use crate::error::Outage;

/// A [`RevocationReplica`] to be; see [`RevocationReplica::builder`].
///
/// ```no_run
/// # async fn run(log: cloakroom_resource::HttpLog) -> Result<(), cloakroom_resource::Outage> {
/// use std::time::Duration;
/// use cloakroom_resource::RevocationReplica;
///
/// let replica = RevocationReplica::builder(log)
///     .clock_skew(Duration::from_millis(100)) // every machine keeps its clock by PTP
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
            limits: Limits { per_client: 10_000, per_grant: 200, total: 1_000_000 },
            settings: Settings {
                clock_skew: None,
                wait: Duration::from_secs(3),
                back_off: (Duration::from_millis(100), Duration::from_secs(5)),
            },
        }
    }

    /// Where the time comes from (the system's clocks).
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// The largest difference between this machine's clock and those of the authorization servers
    /// (what they say themselves: 5 s by default). It is a part of the staleness. A clock that is
    /// off by more makes the replica believe that it knows more than it does.
    pub fn clock_skew(mut self, most: Duration) -> Self {
        self.settings.clock_skew = Some(most);
        self
    }

    /// How many rules are held at most (1,000,000, which takes about 300 MB). Beyond it nothing
    /// counts as fresh: see [`RevocationReplica`].
    pub fn rules(mut self, most: usize) -> Self {
        self.limits.total = most;
        self
    }

    /// How many of them may be about single tokens and grants of one client (10,000); a handle
    /// takes two. One that revokes more gets a mark instead: its tokens are to be introspected
    /// until the last of those rules would have ended. They are not denied: others have tokens of
    /// that client, too.
    pub fn rules_per_client(mut self, most: usize) -> Self {
        self.limits.per_client = most;
        self
    }

    /// How long the log may wait for something new before it answers (3 s). Over HTTP the client
    /// has to allow that, and the time of an exchange: see [`HttpClient`](crate::HttpClient); and
    /// only whole seconds count.
    pub fn wait(mut self, most: Duration) -> Self {
        self.settings.wait = most;
        self
    }

    /// How long to wait after a failure: after the first (100 ms), twice as long after each
    /// further one in a row, and at most (5 s). A random part of it, up to half, is left out.
    pub fn back_off(mut self, first: Duration, most: Duration) -> Self {
        let least = Duration::from_millis(1);
        self.settings.back_off = (first.max(least), most.max(least));
        self
    }

    /// Reads the log to its end, and follows it from then on, in a task of its own.
    ///
    /// # Errors
    ///
    /// If the log cannot be read, or outside of a tokio runtime.
    ///
    /// # Panics
    ///
    /// If the runtime's time is not enabled.
    pub async fn follow(self) -> Result<RevocationReplica, Outage> {
        let runtime = Handle::try_current().map_err(Outage::other)?;
        let shared = Arc::new(Shared::new(self.clock, self.limits));
        let mut follower = Follower::new(self.log, Arc::clone(&shared), self.settings);
        follower.catch_up().await?;
        let task = runtime.spawn(follower.run()).abort_handle();
        Ok(RevocationReplica(Arc::new(Following { shared, task })))
    }
}
