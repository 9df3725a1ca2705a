//! The work between requests: heartbeats, rotation of signing keys, housekeeping.

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
use cloakroom_jwt::{Algorithm, KeyEvent, KeyStatus, Resealed};
use tokio::time::MissedTickBehavior;

use crate::error::TokenError;
use crate::events::{Event, Operation};
use crate::issuer::{Inner, Issuer};
use crate::metrics;

/// How long after its end a row is deleted, in addition to the clock skew.
pub(crate) const MARGIN: Duration = Duration::from_secs(60);

/// How long a heartbeat stays in the log at least. A reader whose last heartbeat is gone continues
/// after the newest revocation before it.
pub(crate) const HEARTBEAT_LIFE: Duration = Duration::from_secs(60);

/// Rows touched by one call of the store.
const BATCH: u32 = 1_000;

/// Calls of the store in one round. A backlog is worked off over several rounds.
const BATCHES: usize = 20;

impl Issuer {
    /// Runs maintenance forever. It writes a heartbeat into the revocation log
    /// ([`IssuerBuilder::heartbeat_interval`]), rotates keys and deletes what has ended
    /// ([`IssuerBuilder::housekeeping_interval`]). Housekeeping never delays a heartbeat. It also
    /// follows the log, so that this server learns what other servers revoke, and notices a store
    /// that went back in time. Until such a store is repaired, it writes no heartbeat.
    ///
    /// Spawn it once on every node; the nodes do not interfere with each other. Failures are
    /// logged, and the work is tried again. You may drop the future at any time.
    ///
    /// [`IssuerBuilder::heartbeat_interval`]: crate::IssuerBuilder::heartbeat_interval
    /// [`IssuerBuilder::housekeeping_interval`]: crate::IssuerBuilder::housekeeping_interval
    ///
    /// ```no_run
    /// # async fn demo(issuer: cloakroom::Issuer) {
    /// tokio::spawn(async move { issuer.run_maintenance().await });
    /// # }
    /// ```
    pub async fn run_maintenance(&self) {
        metrics::begin();
        let mut heartbeats = pin!(run_heartbeats(&self.inner));
        let mut housekeeping = pin!(run_housekeeping(&self.inner));
        let mut following = pin!(self.inner.follow_log());
        // Concurrently. None of them ends.
        poll_fn(|context| {
            let _ = heartbeats.as_mut().poll(context);
            let _ = housekeeping.as_mut().poll(context);
            let _ = following.as_mut().poll(context);
            Poll::<()>::Pending
        })
        .await;
    }

    /// Runs one round of maintenance: rotates signing keys if they are due, and deletes what has
    /// ended. If one of the two fails, the other is still tried.
    ///
    /// # Errors
    ///
    /// The first failure.
    pub async fn maintain(&self) -> Result<MaintenanceReport, TokenError> {
        maintain(&self.inner).await
    }

    /// Retires the current signing key of the main ring
    /// ([`IssuerBuilder::algorithm`](crate::IssuerBuilder::algorithm)). Its successor, which every
    /// verifier knows, takes over at once.
    ///
    /// # Errors
    ///
    /// If the successor has not been published for long enough, or the key store fails.
    pub async fn rotate_keys(&self) -> Result<KeyEvent, TokenError> {
        self.rotate_ring(None).await
    }

    /// Like [`Issuer::rotate_keys`], for the keys of this algorithm
    /// ([`IssuerBuilder::algorithm_for`](crate::IssuerBuilder::algorithm_for)).
    ///
    /// # Errors
    ///
    /// If no key of this algorithm signs. Otherwise those of [`Issuer::rotate_keys`].
    pub async fn rotate_keys_of(&self, algorithm: Algorithm) -> Result<KeyEvent, TokenError> {
        self.rotate_ring(Some(algorithm)).await
    }

    async fn rotate_ring(&self, of: Option<Algorithm>) -> Result<KeyEvent, TokenError> {
        let otherwise = Event::Unconfirmed { operation: Operation::RotateKeys, target: None };
        let rotation =
            self.inner.write(otherwise, |mut write| async move { write.rotate_keys(of).await });
        Ok(rotation.await?)
    }

    /// Ends a signing key now, whether it signs or is to sign later. What it signed stays valid until it
    /// expires. If somebody else may have the key, call [`Issuer::compromise_key`] instead. You can
    /// repeat the call.
    ///
    /// # Errors
    ///
    /// If the key is unknown, if it signs and its successor has not been published for long enough, or
    /// if the key store fails.
    pub async fn retire_key(&self, kid: &Kid) -> Result<KeyEvent, TokenError> {
        let kid = kid.clone();
        let otherwise = Event::Unconfirmed {
            operation: Operation::RetireKey,
            target: Some(Target::Key(kid.clone())),
        };
        let retirement =
            self.inner.write(otherwise, |mut write| async move { write.retire_key(&kid).await });
        Ok(retirement.await?)
    }

    /// Seals again every private key that is sealed under an older key-encryption key than the current one, and says
    /// which of the older ones are no longer needed; see [`KeyManager::reseal`](cloakroom_jwt::KeyManager::reseal). The
    /// key-encryption keys seal nothing else: refresh tokens and handles have other keys.
    ///
    /// # Errors
    ///
    /// If the sealer lacks a key or its current key was replaced, or if the key store fails. Once the cause is gone,
    /// call it again to complete the work.
    pub async fn reseal_keys(&self) -> Result<Resealed, TokenError> {
        let otherwise = Event::Unconfirmed { operation: Operation::ResealKeys, target: None };
        let work =
            self.inner.write(otherwise, |mut write| async move { write.reseal_keys().await });
        Ok(work.await?)
    }

    /// The signing keys that the key store holds now, ordered by generation, with those that have ended
    /// and are not deleted yet. This takes one read of the store.
    ///
    /// # Errors
    ///
    /// If the key store fails.
    pub async fn key_states(&self) -> Result<Vec<KeyStatus>, TokenError> {
        Ok(self.inner.keys.states().await?)
    }

    /// Marks a signing key as compromised, which cannot be undone. The key leaves the JWK Set at
    /// once, its successor signs, and a rule denies everything that it has ever signed.
    ///
    /// A node that is cut off from the key store may keep signing with the key for
    /// [`KeyPolicy::max_blind`](cloakroom_core::keys::KeyPolicy::max_blind). Every verifier that
    /// knows the rule denies what it signs.
    ///
    /// # Errors
    ///
    /// If the key is unknown or a store fails. If a store fails, call it again to complete it.
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
            // Its successor needs a successor, too. If none can be made now, the next round makes
            // it.
            if let Err(error) = write.maintain_keys().await {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(
                    error,
                    "the key was marked as compromised, but no new successor could be made yet"
                );
            }
            Ok(())
        });
        work.await
    }
}

/// Writes heartbeats.
async fn run_heartbeats(inner: &Arc<Inner>) -> Infallible {
    let mut period = tokio::time::interval(inner.heartbeat);
    // A late heartbeat delays the next one: two at once say no more than one.
    period.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        period.tick().await;
        if let Err(error) = write_heartbeat(inner).await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the heartbeat could not be written"
            );
        }
        inner.refusals.report_due();
    }
}

/// Rotates keys and deletes what has ended, repeatedly.
async fn run_housekeeping(inner: &Arc<Inner>) -> Infallible {
    loop {
        let pause = match maintain(inner).await {
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

async fn maintain(inner: &Arc<Inner>) -> Result<MaintenanceReport, TokenError> {
    inner.refusals.report_due();
    let keys = inner.write(None, |mut write| async move { write.maintain_keys().await }).await;
    let done = delete_ended(inner).await;
    if let (Err(_), Err(error)) = (&keys, &done) {
        let error = error as &dyn std::error::Error;
        tracing::warn!(error, "expired rows could not be deleted");
    }
    #[cfg(feature = "metrics")]
    measure(inner, done.as_ref().ok()).await;
    keys?;
    let done = done?;
    inner.maintained.store(inner.now().as_millis(), Ordering::Relaxed);
    Ok(done)
}

/// Reports what a round of maintenance did, and what is left to do, even if it failed.
#[cfg(feature = "metrics")]
async fn measure(inner: &Arc<Inner>, done: Option<&MaintenanceReport>) {
    done.into_iter().for_each(metrics::housekeeping);
    let now = inner.now();
    match inner.store.status(now - (inner.clock_skew() + MARGIN)).await {
        Ok(status) => status.ended_rows.into_iter().for_each(metrics::backlog),
        Err(error) => tracing::debug!(%error, "the backlog of housekeeping is not measured"),
    }
    let keys = inner.keys.manager().loaded_states();
    for key in keys.iter().filter(|key| key.signs_now) {
        let ring = keys.iter().filter(|other| other.ring == key.ring);
        let may_sign = ring.filter(|other| other.compromised_at.is_none());
        let until = may_sign.filter_map(|other| other.signs_until).max();
        if let (Some(from), Some(until)) = (key.signs_from, until) {
            metrics::signing_key(&key.algorithm, now, from, until);
        }
    }
}

/// Some batches of the store's housekeeping.
async fn delete_ended(inner: &Arc<Inner>) -> Result<MaintenanceReport, TokenError> {
    let mut total = MaintenanceReport::default();
    for _ in 0..BATCHES {
        let task = housekeeping_task(inner, None);
        let done = inner.write(None, |write| async move { write.housekeep(task).await }).await?;
        total.grants += done.grants;
        total.tokens += done.tokens;
        total.revocations += done.revocations;
        total.unreadable += done.unreadable;
        total.more = done.more;
        if !done.more {
            break;
        }
        // The in-memory store never yields: let the heartbeats run.
        tokio::task::yield_now().await;
    }
    Ok(total)
}

/// Writes a heartbeat into the revocation log, unless the log may lack revocations: a heartbeat tells
/// readers that it lacks none.
async fn write_heartbeat(inner: &Arc<Inner>) -> Result<(), TokenError> {
    let now = inner.now();
    // The store may have gone back in time since the last reading.
    inner.read_log_if_idle().await?;
    let memory = inner.store.memory();
    if memory.is_in_doubt() && memory.may_lack_revocations(now) {
        return Ok(());
    }
    // A reader needs the newest heartbeats.
    let until = now + HEARTBEAT_LIFE.max(10 * inner.heartbeat) + inner.clock_skew();
    Ok(inner.write(None, |write| async move { write.heartbeat(now, until).await }).await?)
}

/// One batch of the store's housekeeping. If a caller waits for a sweep, the batch begins with it.
pub(crate) fn housekeeping_task(inner: &Inner, sweep: Option<EntryId>) -> Housekeeping {
    let now = inner.now();
    let before = now - (inner.clock_skew() + MARGIN);
    Housekeeping { now, before, limit: BATCH, sweep }
}
