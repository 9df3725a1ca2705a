//! A look at the ring that changes nothing, for operators.

use cloakroom_core::keys::KeyRecord;
use cloakroom_core::time::UnixTime;

use crate::manager::builder::KeyManagerBuilder;
use crate::manager::error::KeyManagerError;
use crate::manager::ring;
use crate::manager::sealing::Sealing;

/// What [`KeyManagerBuilder::check_ring`] found.
#[derive(Debug)]
#[non_exhaustive]
pub struct RingCheck {
    /// Every record, by generation.
    pub records: Vec<KeyRecord>,
    /// When they were read, by the clock of the settings.
    pub read_at: UnixTime,
    /// Why keys cannot be used: a key-encryption key that is missing or wrong, or a damaged record.
    /// A manager with these settings would not be built.
    pub failures: Vec<KeyManagerError>,
}

impl KeyManagerBuilder {
    /// Loads the ring, and unseals every published key, as [`build`](Self::build) does. It makes no
    /// key and writes nothing.
    ///
    /// # Errors
    ///
    /// If a setting is inconsistent, or the store fails.
    pub async fn check_ring(self) -> Result<RingCheck, KeyManagerError> {
        self.policy.check()?;
        let records = self.store.load().await?;
        let read_at = self.clock.now();
        let sealing =
            Sealing { sealer: self.sealer, issuer: self.issuer, former: self.former_issuers };
        let mut failures = Vec::new();
        match sealing.compare(&*self.store).await {
            Err(error @ KeyManagerError::Store(_)) => return Err(error),
            compared => failures.extend(compared.err()),
        }
        for record in records.iter().filter(|record| record.is_published(read_at)) {
            failures.extend(ring::unseal(record, &sealing).await.err());
        }
        Ok(RingCheck { records, read_at, failures })
    }
}
