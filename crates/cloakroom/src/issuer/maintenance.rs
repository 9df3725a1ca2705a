//! The work beside the requests: heartbeat, rotation of signing keys, housekeeping.

use std::convert::Infallible;
use std::future::{Future as _, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use cloakroom_core::Kid;
use cloakroom_core::revocation::{EntryId, Revocation, Target};
use cloakroom_core::store::{Housekeeping, MaintenanceReport};
use cloakroom_jwt::KeyEvent;
use tokio::time::MissedTickBehavior;

use crate::error::TokenError;
use crate::events::{Event, Operation};
use crate::issuer::{Inner, Issuer};

/// How much later than its end a row is deleted, beside the clock skew.
const MARGIN: Duration = Duration::from_secs(60);

/// How long a heartbeat stays in the log, if it comes often. Whoever has read up to one that is gone
/// goes on after the newest revocation before it.
pub(crate) const HEARTBEAT_LIFE: Duration = Duration::from_secs(60);

/// Rows touched by one call of the store.
const BATCH: u32 = 1_000;

/// Calls of the store in one round: a backlog is worked off over many rounds.
const BATCHES: usize = 20;

impl Issuer {
    /// Runs maintenance for ever: a heartbeat into the revocation log each second, the rest each
    /// half minute (both are settings). No housekeeping, however long it takes, holds a heartbeat up.
    /// It also follows the log, so that this server knows what is revoked elsewhere, and notices a
    /// store that went back in time. Spawn it once on every node; nodes do not disturb each other.
    /// Failures are traced and tried again; dropping the future at any time is safe.
    ///
    /// ```no_run
    /// # async fn demo(issuer: cloakroom::Issuer) {
    /// tokio::spawn(async move { issuer.run_maintenance().await });
    /// # }
    /// ```
    pub async fn run_maintenance(&self) {
        let mut heartbeats = pin!(self.run_heartbeats());
        let mut housekeeping = pin!(self.run_housekeeping());
        let mut following = pin!(self.inner.follow_log());
        // Side by side. Neither ends.
        poll_fn(|context| {
            let _ = heartbeats.as_mut().poll(context);
            let _ = housekeeping.as_mut().poll(context);
            let _ = following.as_mut().poll(context);
            Poll::<()>::Pending
        })
        .await;
    }

    /// Writes heartbeats.
    async fn run_heartbeats(&self) -> Infallible {
        let inner = &*self.inner;
        let mut period = tokio::time::interval(inner.heartbeat);
        // A heartbeat that comes late delays the next: two at once say no more than one.
        period.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            period.tick().await;
            if let Err(error) = self.heartbeat().await {
                tracing::warn!(error = &error as &dyn std::error::Error, "no heartbeat");
            }
            inner.refusals.report_due();
        }
    }

    /// Rotates keys and deletes what has ended, again and again.
    async fn run_housekeeping(&self) -> Infallible {
        let inner = &*self.inner;
        loop {
            let pause = match self.maintain().await {
                // A backlog is worked off at the pace of heartbeats.
                Ok(done) if done.more => inner.heartbeat,
                Ok(_) => inner.housekeeping,
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(error, "maintenance failed");
                    inner.housekeeping
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// One round of maintenance: rotates signing keys as their schedule says, and deletes what has
    /// ended. Keys and store are both tried, whichever fails.
    ///
    /// # Errors
    ///
    /// The first failure.
    pub async fn maintain(&self) -> Result<MaintenanceReport, TokenError> {
        let inner = &self.inner;
        inner.refusals.report_due();
        let keys = inner.write(None, |mut write| async move { write.maintain_keys().await }).await;
        let done = self.delete_ended().await;
        if let (Err(_), Err(error)) = (&keys, &done) {
            let error = error as &dyn std::error::Error;
            tracing::warn!(error, "what has ended was not deleted, either");
        }
        keys?;
        let done = done?;
        inner.maintained.store(inner.now().as_millis(), Ordering::Relaxed);
        Ok(done)
    }

    /// Some batches of the store's housekeeping.
    async fn delete_ended(&self) -> Result<MaintenanceReport, TokenError> {
        let inner = &self.inner;
        let mut total = MaintenanceReport::default();
        for _ in 0..BATCHES {
            let task = housekeeping_task(inner, None);
            let done =
                inner.write(None, |write| async move { write.housekeep(task).await }).await?;
            total.grants += done.grants;
            total.tokens += done.tokens;
            total.revocations += done.revocations;
            total.unreadable += done.unreadable;
            total.more = done.more;
            if !done.more {
                break;
            }
            // A store in memory never waits: without this, heartbeats would.
            tokio::task::yield_now().await;
        }
        Ok(total)
    }

    /// Writes a heartbeat into the revocation log.
    async fn heartbeat(&self) -> Result<(), TokenError> {
        let inner = &self.inner;
        let now = inner.now();
        // A reader needs the newest few.
        let until = now + HEARTBEAT_LIFE.max(10 * inner.heartbeat) + inner.clock_skew();
        Ok(inner.write(None, |write| async move { write.heartbeat(now, until).await }).await?)
    }

    /// Ends the current signing key; its successor, which every verifier knows, takes over at once.
    ///
    /// # Errors
    ///
    /// If the successor has not been published for long enough, or the key store fails.
    pub async fn rotate_keys(&self) -> Result<KeyEvent, TokenError> {
        let otherwise = Event::Unconfirmed { operation: Operation::RotateKeys, target: None };
        let rotation =
            self.inner.write(otherwise, |mut write| async move { write.rotate_keys().await });
        Ok(rotation.await?)
    }

    /// Declares a signing key compromised; irreversible. It leaves the JWK Set at once, its
    /// successor signs, and a rule denies everything that it ever signed.
    ///
    /// A node that is cut off from the key store may go on signing with it for
    /// [`KeyPolicy::max_blind`](cloakroom_core::keys::KeyPolicy::max_blind); what it signs is denied
    /// wherever the rule is known.
    ///
    /// # Errors
    ///
    /// If the key is unknown, or a store fails; calling again completes it.
    pub async fn compromise_key(&self, kid: &Kid) -> Result<(), TokenError> {
        let (kid, clock) = (kid.clone(), Arc::clone(&self.inner.clock));
        let target = Target::Key(kid.clone());
        let otherwise = Event::Unconfirmed {
            operation: Operation::CompromiseKey,
            target: Some(target.clone()),
        };
        let work = self.inner.write(otherwise, |mut write| async move {
            let compromised = write.compromise_key(&kid).await?;
            let rule = Revocation::new(target.clone(), clock.now(), compromised.rule_until);
            write.revoke(rule, &Event::Revoked { target }).await?;
            // Its successor needs one, too. If that cannot be made now, it will be in the next round.
            if let Err(error) = write.maintain_keys().await {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "the ring of keys was changed, but not yet put in order");
            }
            Ok(())
        });
        work.await
    }
}

/// One batch of the store's housekeeping; of this sweep first, if one is waited for.
pub(crate) fn housekeeping_task(inner: &Inner, sweep: Option<EntryId>) -> Housekeeping {
    let now = inner.now();
    let before = now - (inner.clock_skew() + MARGIN);
    Housekeeping { now, before, limit: BATCH, sweep }
}
