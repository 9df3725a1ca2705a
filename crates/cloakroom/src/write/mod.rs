//! Operations that write: each completes and is reported, even if its caller goes away.
//!
//! The writing methods of the stores are reachable only through a [`Write`]. Once it has written, it
//! must report an event. [`Inner::write`] is the only way to get one.

mod finish;
mod stores;

use std::sync::Arc;

use cloakroom_core::record::{GrantRecord, TokenRecord};
use cloakroom_core::revocation::{Epoch, Revocation, Target};
use cloakroom_core::store::{
    Advance, AdvanceOutcome, CreateOutcome, Housekeeping, MaintenanceReport, RevokeOutcome,
    StoreError,
};
use cloakroom_core::time::UnixTime;
use cloakroom_core::{GrantId, Kid};
use cloakroom_jwt::{Algorithm, Compromised, KeyEvent, KeyManagerError, Resealed, SigningKey};

pub(crate) use self::finish::Finish;
pub(crate) use self::stores::{Keys, Store};
use crate::events::{Event, Operation};
use crate::issuer::Inner;
use crate::issuer::maintenance::housekeeping_task;
use crate::revocation::store_regression::Regression;

/// The right to write, for one operation, and the duty to report it.
///
/// When a write begins, the operation is unreported, until [`Write::report`] is called or the store
/// answers that nothing was done. If an unreported `Write` is dropped, because the store failed,
/// something panicked or the runtime ended, it reports the event for an unknown outcome.
pub(crate) struct Write {
    inner: Arc<Inner>,
    /// The event for an unknown outcome, if there is one.
    otherwise: Option<Event>,
    /// Whether something may have been written that is not reported yet.
    unreported: bool,
}

impl Inner {
    /// Runs an operation that writes. It must begin with its first write, after all checks. Once it
    /// was polled it runs to its end: here, or in a task of its own if the caller goes away.
    pub(crate) fn write<T, F>(
        self: &Arc<Self>,
        otherwise: impl Into<Option<Event>>,
        operation: impl FnOnce(Write) -> F,
    ) -> Finish<T>
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        let write =
            Write { inner: Arc::clone(self), otherwise: otherwise.into(), unreported: false };
        Finish::new(operation(write))
    }

    /// Creates a grant, and reports `done` if it is new.
    pub(crate) fn create_grant(
        self: &Arc<Self>,
        operation: Operation,
        grant: Box<GrantRecord>,
        tokens: Vec<TokenRecord>,
        done: Event,
    ) -> Finish<Result<CreateOutcome, StoreError>> {
        self.write(unconfirmed(operation, grant.id), |mut write| async move {
            let created = write.create(grant, tokens).await?;
            if created == CreateOutcome::Inserted {
                write.report(&done);
            }
            Ok(created)
        })
    }

    /// Takes a step of the chain of this grant, as it was found, and reports `done` if it was taken.
    pub(crate) fn advance(
        self: &Arc<Self>,
        operation: Operation,
        grant: Arc<GrantRecord>,
        step: Advance,
        done: Event,
    ) -> Finish<Result<AdvanceOutcome, StoreError>> {
        self.write(unconfirmed(operation, step.grant), |mut write| async move {
            let advanced = write.advance(&grant, step).await?;
            if advanced == AdvanceOutcome::Advanced {
                write.report(&done);
            }
            Ok(advanced)
        })
    }

    /// Revokes, and returns when no grant or token of the target can be live any more. Reports
    /// `done` as soon as the revocation is in force, and `otherwise` if that is unknown.
    pub(crate) fn revoke_fully(
        self: &Arc<Self>,
        revocation: Revocation,
        done: Event,
        otherwise: Event,
    ) -> Finish<Result<(), StoreError>> {
        self.write(otherwise, |mut write| async move { write.revoke(revocation, &done).await })
    }

    /// Revokes as [`Inner::revoke_fully`] does, and reports that the target is revoked.
    pub(crate) fn revoke_and_report(
        self: &Arc<Self>,
        revocation: Revocation,
    ) -> Finish<Result<(), StoreError>> {
        let target = revocation.target.clone();
        let otherwise =
            Event::Unconfirmed { operation: Operation::Revoke, target: Some(target.clone()) };
        self.revoke_fully(revocation, Event::Revoked { target }, otherwise)
    }

    /// Reports what is waiting to be reported: what the key manager has done so far, even if it
    /// failed halfway, and the signs that the store went back in time.
    pub(crate) fn report_pending(&self) {
        for event in self.keys.writer().take_events() {
            self.report_key(event);
        }
        self.report_regressions();
    }

    fn report_key(&self, event: KeyEvent) {
        match event {
            KeyEvent::Regressed { kid } => {
                self.store.memory().suspect_regression(Some(Regression::Key { kid }));
                self.report_regressions();
            }
            event => self.events.record(&Event::Key(event)),
        }
    }
}

fn unconfirmed(operation: Operation, grant: GrantId) -> Event {
    Event::Unconfirmed { operation, target: Some(Target::Grant(grant)) }
}

impl Write {
    /// Reports what the operation did.
    pub(crate) fn report(&mut self, event: &Event) {
        self.unreported = false;
        self.inner.events.record(event);
    }

    async fn create(
        &mut self,
        grant: Box<GrantRecord>,
        tokens: Vec<TokenRecord>,
    ) -> Result<CreateOutcome, StoreError> {
        self.unreported = true;
        let created = self.inner.store.writer().create(grant, tokens).await;
        self.unreported = matches!(created, Ok(CreateOutcome::Inserted)) || is_unknown(&created);
        created
    }

    async fn advance(
        &mut self,
        grant: &GrantRecord,
        step: Advance,
    ) -> Result<AdvanceOutcome, StoreError> {
        self.unreported = true;
        let advanced = self.inner.store.writer().advance(grant, step).await;
        self.unreported = matches!(advanced, Ok(AdvanceOutcome::Advanced)) || is_unknown(&advanced);
        advanced
    }

    /// Revokes, reports `done`, and finishes the sweep if the store has left one.
    pub(crate) async fn revoke(
        &mut self,
        revocation: Revocation,
        done: &Event,
    ) -> Result<(), StoreError> {
        self.unreported = true;
        let revoked = self.inner.store.writer().revoke(revocation).await;
        self.unreported = revoked.is_ok() || is_unknown(&revoked);
        let revoked = revoked?;
        self.report(done);
        if let RevokeOutcome::Sweeping(sweep) = revoked {
            // It is in force, but `find` does not show every grant as revoked yet.
            let task = || housekeeping_task(&self.inner, Some(sweep));
            while self.housekeep(task()).await?.sweeping {}
        }
        Ok(())
    }

    /// Runs one batch of the store's housekeeping. It needs no report, because what it deletes has
    /// ended. Unreadable rows are reported at once, because the next batch may not meet them again.
    pub(crate) async fn housekeep(
        &self,
        task: Housekeeping,
    ) -> Result<MaintenanceReport, StoreError> {
        let done = self.inner.store.writer().maintain(task).await?;
        if done.unreadable > 0 {
            let count = done.unreadable;
            self.inner.events.record(&Event::CorruptRow { grant: None, count });
        }
        Ok(done)
    }

    /// Raises the newest bound to at least this one. It needs no report, because it revokes nothing.
    pub(crate) async fn raise_bound(
        &self,
        bound: Epoch,
        until: UnixTime,
    ) -> Result<(), StoreError> {
        let nobody = |error| StoreError::unavailable("generating a random name", error);
        let name = GrantId::random(&self.inner.random).map_err(nobody)?.to_string();
        self.inner.store.writer().raise_bound(bound, until, &name).await
    }

    /// Writes a heartbeat, which needs no report.
    pub(crate) async fn heartbeat(&self, now: UnixTime, until: UnixTime) -> Result<(), StoreError> {
        self.inner.store.writer().heartbeat(now, until).await
    }

    /// Rotates, publishes and deletes signing keys as their schedule says.
    pub(crate) async fn maintain_keys(&mut self) -> Result<(), KeyManagerError> {
        let done = self.inner.keys.writer().maintain().await;
        self.unreported = false;
        match &done {
            Ok(_) => self.inner.key_damage.is_gone(),
            Err(
                KeyManagerError::Store(StoreError::Corrupt { .. })
                | KeyManagerError::Damaged { .. },
            ) => self.inner.key_damage.is_met(&self.inner.events),
            Err(_) => {}
        }
        done.iter().flatten().for_each(|event| self.inner.report_key(event.clone()));
        self.inner.report_pending();
        done.map(drop)
    }

    /// Retires the current signing key, that of the main ring or of this algorithm.
    pub(crate) async fn rotate_keys(
        &mut self,
        of: Option<Algorithm>,
    ) -> Result<KeyEvent, KeyManagerError> {
        self.unreported = true;
        let keys = self.inner.keys.writer();
        let rotated = match of {
            Some(algorithm) => keys.rotate_of(algorithm).await,
            None => keys.rotate().await,
        };
        self.unreported = rotated.is_ok() || matches!(rotated, Err(KeyManagerError::Store(_)));
        if let Ok(event) = &rotated {
            self.report(&Event::Key(event.clone()));
        }
        self.inner.report_pending();
        rotated
    }

    /// Ends a signing key.
    pub(crate) async fn retire_key(&mut self, kid: &Kid) -> Result<KeyEvent, KeyManagerError> {
        self.unreported = true;
        let retired = self.inner.keys.writer().retire(kid).await;
        self.unreported = retired.is_ok() || matches!(retired, Err(KeyManagerError::Store(_)));
        if let Ok(event) = &retired {
            self.report(&Event::Key(event.clone()));
        }
        self.inner.report_pending();
        retired
    }

    /// Seals the private halves of the signing keys again.
    pub(crate) async fn reseal_keys(&mut self) -> Result<Resealed, KeyManagerError> {
        self.unreported = true;
        let resealed = self.inner.keys.writer().reseal().await;
        // Each key that was sealed again is an event of its own.
        self.unreported = matches!(resealed, Err(KeyManagerError::Store(_)));
        self.inner.report_pending();
        resealed
    }

    /// Publishes an existing key. The key manager reports it.
    pub(crate) async fn import_key(
        &mut self,
        key: &SigningKey,
    ) -> Result<KeyEvent, KeyManagerError> {
        self.unreported = true;
        let imported = self.inner.keys.writer().import(key).await;
        self.unreported = matches!(imported, Err(KeyManagerError::Store(_)));
        self.inner.report_pending();
        imported
    }

    /// Marks a signing key as compromised. The rule is another write.
    pub(crate) async fn compromise_key(
        &mut self,
        kid: &Kid,
    ) -> Result<Compromised, KeyManagerError> {
        self.unreported = true;
        let compromised = self.inner.keys.writer().compromise(kid).await;
        self.unreported = matches!(compromised, Err(KeyManagerError::Store(_)));
        self.inner.report_pending();
        compromised
    }
}

impl Drop for Write {
    fn drop(&mut self) {
        if let Some(event) = self.otherwise.take().filter(|_| self.unreported) {
            self.inner.events.record(&event);
        }
    }
}

/// Whether a write that failed may have taken effect.
const fn is_unknown<T>(answer: &Result<T, StoreError>) -> bool {
    matches!(answer, Err(StoreError::Unavailable { .. } | StoreError::Corrupt { .. }))
}
