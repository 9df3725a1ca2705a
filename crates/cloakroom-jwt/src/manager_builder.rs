//! The settings of a key manager.

use std::sync::Arc;
use std::time::Duration;

use cloakroom_core::{Clock, KeyPolicy, KeyStore, PolicyError, SystemClock};

use crate::algorithm::Algorithm;
use crate::manager::KeyManager;
use crate::manager_error::KeyManagerError;
use crate::seal::KeySealer;

/// The settings of a [`KeyManager`]; see [`KeyManager::builder`].
#[derive(Debug)]
#[must_use]
pub struct KeyManagerBuilder {
    pub(crate) store: Arc<dyn KeyStore>,
    pub(crate) sealer: Arc<dyn KeySealer>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) policy: KeyPolicy,
    pub(crate) algorithm: Algorithm,
}

impl KeyManagerBuilder {
    pub(crate) fn new(store: Arc<dyn KeyStore>, sealer: Arc<dyn KeySealer>) -> Self {
        Self {
            store,
            sealer,
            clock: Arc::new(SystemClock::new()),
            policy: KeyPolicy::default(),
            algorithm: Algorithm::default(),
        }
    }

    /// What new keys sign with (ES256). Keys that exist keep what they have.
    pub const fn algorithm(mut self, algorithm: Algorithm) -> Self {
        self.algorithm = algorithm;
        self
    }

    /// How keys live.
    pub const fn policy(mut self, policy: KeyPolicy) -> Self {
        self.policy = policy;
        self
    }

    /// Where the time comes from (the system).
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Loads the ring, opens every key that is published, and makes the first keys if there are
    /// none.
    ///
    /// # Errors
    ///
    /// If a setting is inconsistent, the store fails, or the sealer cannot open what the ring
    /// holds.
    pub async fn build(self) -> Result<KeyManager, KeyManagerError> {
        check(&self.policy)?;
        if self.algorithm.as_str().parse() != Ok(self.algorithm) {
            return Err(KeyManagerError::NotPublic(self.algorithm));
        }
        KeyManager::start(self).await
    }
}

/// The longest that any duration may be: far beyond use, and far from overflowing a sum.
const LONGEST: Duration = Duration::from_secs(100 * 366 * 86_400);

fn check(policy: &KeyPolicy) -> Result<(), KeyManagerError> {
    for (setting, found) in [
        ("rotation", policy.rotation),
        ("publish_ahead", policy.publish_ahead),
        ("retention", policy.retention),
        ("jwks_max_age", policy.jwks_max_age),
        ("reload", policy.reload),
        ("max_blind", policy.max_blind),
        ("clock_skew", policy.clock_skew),
        ("leeway", policy.leeway),
        ("max_token_life", policy.max_token_life),
    ] {
        if found > LONGEST {
            return Err(KeyManagerError::TooLong { setting, found, most: LONGEST });
        }
    }
    for (setting, found, why) in [
        ("reload", policy.reload, "the ring would be loaded for every token"),
        ("max_token_life", policy.max_token_life, "no token could be signed"),
    ] {
        let least = Duration::from_secs(1);
        if found < least {
            return Err(KeyManagerError::Policy(PolicyError { setting, found, least, why }));
        }
    }
    Ok(policy.check()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_is_checked_and_the_error_names_it() {
        check(&KeyPolicy::default()).unwrap();
        let with = |change: fn(&mut KeyPolicy)| {
            let mut policy = KeyPolicy::default();
            change(&mut policy);
            check(&policy).unwrap_err().to_string()
        };
        for (error, setting) in [
            (with(|p| p.rotation = Duration::MAX), "rotation"),
            (with(|p| p.publish_ahead = Duration::MAX), "publish_ahead"),
            (with(|p| p.retention = Duration::MAX), "retention"),
            (with(|p| p.jwks_max_age = Duration::MAX), "jwks_max_age"),
            (with(|p| p.reload = Duration::MAX), "reload"),
            (with(|p| p.max_blind = Duration::MAX), "max_blind"),
            (with(|p| p.clock_skew = Duration::MAX), "clock_skew"),
            (with(|p| p.leeway = Duration::MAX), "leeway"),
            (with(|p| p.max_token_life = Duration::MAX), "max_token_life"),
            (with(|p| p.reload = Duration::ZERO), "reload"),
            (with(|p| p.max_token_life = Duration::ZERO), "max_token_life"),
            (with(|p| p.publish_ahead = Duration::ZERO), "publish_ahead"),
            (with(|p| p.retention = Duration::ZERO), "retention"),
        ] {
            assert!(error.contains(setting), "{error}");
        }
    }
}
