//! The rotation of signing keys, as pure functions of time.
//!
//! A key is in the JWK Set before it signs, and until the last token that it signed has expired:
//! [`KeyTimes::published`] → [`Signing::from`] → [`Signing::until`] → [`Signing::published_until`]. The
//! signer is the oldest key that is neither compromised nor ended. So ending the signer takes one
//! compare-and-set, whether it was planned, requested or an emergency, and every verifier already knows the key that
//! takes over.
//!
//! An issuer that signs with several algorithms has a main ring, and another ring for each of the other algorithms.
//! Each ring has a signer of its own. A ring that is added later starts like a rotation: its first key is published for
//! `publish_ahead` before it signs, and until then the ring has no signer.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::keys::KeyRecord;
use crate::record::UnknownFields;
use crate::time::UnixTime;

/// When a key is published, and when it signs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct KeyTimes {
    /// When it was added to the JWK Set.
    pub published: UnixTime,
    /// When it signs. `None` until a second write sets it, from a clock that is read after the
    /// insert has returned. So a slow insert cannot make a key sign before it is published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signing: Option<Signing>,
    /// Fields of a newer version.
    #[serde(flatten)]
    pub unknown: UnknownFields,
}

impl KeyTimes {
    /// A key that was added to the JWK Set at `published` and does not sign yet.
    #[must_use]
    pub fn published(published: UnixTime) -> Self {
        Self { published, signing: None, unknown: UnknownFields::default() }
    }
}

/// When a key signs, and how long it stays published after that.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Signing {
    /// When it starts to sign.
    pub from: UnixTime,
    /// When it stops signing.
    pub until: UnixTime,
    /// When it is removed from the JWK Set.
    pub published_until: UnixTime,
    /// Fields of a newer version.
    #[serde(flatten)]
    pub unknown: UnknownFields,
}

impl Signing {
    /// These times.
    #[must_use]
    pub fn new(from: UnixTime, until: UnixTime, published_until: UnixTime) -> Self {
        Self { from, until, published_until, unknown: UnknownFields::default() }
    }
}

/// Settings for the rotation of signing keys. [`KeyPolicy::check`] refuses combinations under which
/// a verifier could receive a signature by a key that it does not have.
///
/// ```
/// use std::time::Duration;
/// use cloakroom_core::keys::KeyPolicy;
///
/// let policy = KeyPolicy::default().max_token_life(Duration::from_secs(600));
/// policy.check()?;
///
/// let policy = policy.publish_ahead(Duration::from_secs(60));
/// assert!(policy.check().unwrap_err().to_string().contains("publish_ahead"));
/// # Ok::<(), cloakroom_core::keys::PolicyError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeyPolicy {
    /// How long a key signs (30 days).
    pub rotation: Duration,
    /// How long a key is published before it signs (1 day).
    pub publish_ahead: Duration,
    /// How long a key stays published after it has stopped signing (2 days).
    pub retention: Duration,
    /// `max-age` of the JWK Set (1 hour).
    pub jwks_max_age: Duration,
    /// How old the copy of the ring on a node may be (1 minute).
    pub reload: Duration,
    /// How long a node may continue to sign while it cannot reach the store (1 hour). For that long
    /// it may also use a key that has been compromised in the meantime.
    pub max_blind: Duration,
    /// The largest difference between any two clocks (5 seconds).
    pub clock_skew: Duration,
    /// The leeway of verifiers on `exp` (30 seconds).
    pub leeway: Duration,
    /// The longest lifetime of a signed token (1 hour). Revocations of grants, subjects and clients
    /// are remembered for as long. If you shorten the lifetime of tokens, lower this setting only
    /// after the last of the longer-lived tokens has expired.
    pub max_token_life: Duration,
}

/// Makes a setter for each setting, of the same name.
macro_rules! setters {
    ($($setting:ident)+) => {$(
        #[doc = concat!("These settings with another [`", stringify!($setting), "`](Self#structfield.", stringify!($setting), ").")]
        #[must_use]
        pub const fn $setting(mut self, $setting: Duration) -> Self {
            self.$setting = $setting;
            self
        }
    )+};
}

impl KeyPolicy {
    setters! {
        rotation publish_ahead retention jwks_max_age reload max_blind clock_skew leeway
        max_token_life
    }
}

impl Default for KeyPolicy {
    fn default() -> Self {
        const HOUR: u64 = 3600;
        const DAY: u64 = 24 * HOUR;
        Self {
            rotation: Duration::from_secs(30 * DAY),
            publish_ahead: Duration::from_secs(DAY),
            retention: Duration::from_secs(2 * DAY),
            jwks_max_age: Duration::from_secs(HOUR),
            reload: Duration::from_secs(60),
            max_blind: Duration::from_secs(HOUR),
            clock_skew: Duration::from_secs(5),
            leeway: Duration::from_secs(30),
            max_token_life: Duration::from_secs(HOUR),
        }
    }
}

/// A setting that contradicts a limit or another setting, and how to correct it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// The setting must be raised.
    #[error("{setting} is {found:?}, but must be at least {least:?}: {why}")]
    TooShort {
        /// The setting to raise.
        setting: &'static str,
        /// Its value.
        found: Duration,
        /// The smallest value allowed.
        least: Duration,
        /// The reason for the limit.
        why: &'static str,
    },
    /// The setting must be lowered.
    #[error("{setting} is {found:?}, but must be at most {most:?}: {why}")]
    TooLong {
        /// The setting to lower.
        setting: &'static str,
        /// Its value.
        found: Duration,
        /// The largest value allowed.
        most: Duration,
        /// The reason for the limit.
        why: &'static str,
    },
}

impl PolicyError {
    /// The setting to raise or to lower.
    #[must_use]
    pub const fn setting(&self) -> &'static str {
        match self {
            Self::TooShort { setting, .. } | Self::TooLong { setting, .. } => setting,
        }
    }
}

impl KeyPolicy {
    /// The largest [`clock_skew`](KeyPolicy::clock_skew): five minutes. The clock skew lengthens every
    /// wait, and the time in which a spent refresh token may be sent again.
    pub const MAX_CLOCK_SKEW: Duration = Duration::from_secs(300);

    /// The longest duration of any setting: a hundred years. Sums of such durations do not overflow.
    pub const MAX_DURATION: Duration = Duration::from_secs(100 * 366 * 86_400);

    /// Refuses settings under which a key would sign before every verifier has it, or would be
    /// removed before the last token that it signed has expired.
    ///
    /// # Errors
    ///
    /// The setting to change, its limit, and the reason.
    pub fn check(&self) -> Result<(), PolicyError> {
        let at_least = |setting, found, least, why| {
            if found >= least {
                Ok(())
            } else {
                Err(PolicyError::TooShort { setting, found, least, why })
            }
        };
        let at_most = |setting, found, most, why| {
            if found <= most {
                Ok(())
            } else {
                Err(PolicyError::TooLong { setting, found, most, why })
            }
        };
        for (setting, found) in [
            ("rotation", self.rotation),
            ("publish_ahead", self.publish_ahead),
            ("retention", self.retention),
            ("jwks_max_age", self.jwks_max_age),
            ("reload", self.reload),
            ("max_blind", self.max_blind),
            ("leeway", self.leeway),
            ("max_token_life", self.max_token_life),
        ] {
            at_most(setting, found, Self::MAX_DURATION, "no key or token needs to live that long")?;
        }
        at_most(
            "clock_skew",
            self.clock_skew,
            Self::MAX_CLOCK_SKEW,
            "it lengthens the time in which a spent refresh token may be sent again: synchronize the clocks",
        )?;
        let second = Duration::from_secs(1);
        at_least("reload", self.reload, second, "a node would load the ring for every token")?;
        at_least("max_token_life", self.max_token_life, second, "no token could be signed")?;
        at_least(
            "publish_ahead",
            self.publish_ahead,
            self.known_after(),
            "a key may sign only when every verifier's copy of the JWK Set contains it \
             (jwks_max_age + 2 × reload + clock_skew)",
        )?;
        at_least(
            "rotation",
            self.rotation,
            self.publish_ahead,
            "a key's successor is published while the key itself signs (publish_ahead)",
        )?;
        at_least(
            "retention",
            self.retention,
            self.max_token_life + self.clock_skew + self.leeway + self.max_blind,
            "a key stays published until the last token it signed has expired \
             (max_token_life + clock_skew + leeway + max_blind)",
        )?;
        at_least(
            "max_blind",
            self.max_blind,
            self.reload,
            "a node signs between two reloads of the ring (reload)",
        )
    }

    /// How long after its publication every verifier has a key.
    #[must_use]
    pub fn known_after(&self) -> Duration {
        // The settings may not have been checked.
        let reloads = self.reload.saturating_mul(2);
        self.jwks_max_age.saturating_add(reloads).saturating_add(self.clock_skew)
    }

    fn signing(&self, from: UnixTime) -> Signing {
        let until = from + self.rotation;
        Signing::new(from, until, until + self.retention)
    }
}

/// The state of a key. In JSON it is one of `published`, `signing`, `retired` and `gone`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::exhaustive_enums, reason = "the states of a key are these four")]
pub enum KeyState {
    /// It is in the JWK Set and does not sign yet.
    Published,
    /// It signs, or is the next to sign.
    Signing,
    /// It no longer signs and is still in the JWK Set.
    Retired,
    /// It is not in the JWK Set.
    Gone,
}

impl KeyRecord {
    /// The state of the key at `now`, by its own times.
    #[must_use]
    pub fn state(&self, now: UnixTime) -> KeyState {
        match &self.times.signing {
            _ if self.compromised_at.is_some() => KeyState::Gone,
            None => KeyState::Published,
            Some(signing) if now >= signing.published_until => KeyState::Gone,
            Some(signing) if now >= signing.until => KeyState::Retired,
            Some(signing) if now < signing.from => KeyState::Published,
            Some(_) => KeyState::Signing,
        }
    }

    /// Whether the key is in the JWK Set at `now`.
    #[must_use]
    pub fn is_published(&self, now: UnixTime) -> bool {
        self.state(now) != KeyState::Gone
    }

    /// Whether the key is neither compromised nor ended, so that it signs now or later.
    fn lives(&self, now: UnixTime) -> bool {
        matches!(self.state(now), KeyState::Published | KeyState::Signing)
    }

    /// Whether it may sign at `now` if it is the oldest key.
    fn can_sign(&self, now: UnixTime) -> bool {
        self.times.signing.is_some() && self.lives(now)
    }
}

/// The key that signs at `now` in this ring: the oldest that is neither compromised nor ended. `records`
/// are the keys of all rings.
#[must_use]
pub fn signer<'a>(records: &'a [KeyRecord], ring: &str, now: UnixTime) -> Option<&'a KeyRecord> {
    let oldest =
        of_ring(records, ring).filter(|key| key.can_sign(now)).min_by_key(|key| key.generation)?;
    let is_known = ring == MAIN_RING || has_started(records, ring, now);
    is_known.then_some(oldest)
}

/// The name of the main ring.
pub const MAIN_RING: &str = "";

fn of_ring<'a>(records: &'a [KeyRecord], ring: &str) -> impl Iterator<Item = &'a KeyRecord> {
    records.iter().filter(move |key| key.ring == ring)
}

/// Whether a key of the ring has ever signed, by the records that are still there.
fn has_started(records: &[KeyRecord], ring: &str, now: UnixTime) -> bool {
    of_ring(records, ring).any(|key| {
        key.times.signing.as_ref().is_some_and(|Signing { from, until, .. }| {
            *from <= now && from < until && key.compromised_at.is_none_or(|at| *from < at)
        })
    })
}

/// When a key may sign if no key of its ring signs before it.
fn earliest(records: &[KeyRecord], key: &KeyRecord, now: UnixTime, policy: &KeyPolicy) -> UnixTime {
    // Nothing was signed before the key was published, so every JWK Set that was served has it.
    let is_born_first = records.iter().all(|other| {
        other.times.signing.as_ref().is_none_or(|signing| signing.from >= key.times.published)
    });
    if key.ring == MAIN_RING || has_started(records, &key.ring, now) || is_born_first {
        return now;
    }
    now.max(key.times.published + policy.publish_ahead)
}

/// A step of housekeeping on a ring.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "housekeeping must carry out every step")]
pub enum KeyStep {
    /// Make a key of this generation and insert it, published now, without signing times.
    Publish {
        /// Its generation.
        generation: u64,
    },
    /// Write these signing times to the key of this generation.
    Schedule {
        /// Which key.
        generation: u64,
        /// Its times.
        signing: Signing,
    },
    /// Delete the key of this generation.
    Delete {
        /// Which key.
        generation: u64,
    },
}

/// The next step that a ring needs at `now`; `None` if it needs none. `records` are the keys of all
/// rings, and `now` must have been read after they were loaded. Take the step, load them again, and
/// repeat. If several rings are empty, take the steps that publish keys first, so that all rings can sign
/// at once.
#[must_use]
pub fn next_step(
    records: &[KeyRecord],
    ring: &str,
    now: UnixTime,
    policy: &KeyPolicy,
) -> Option<KeyStep> {
    let mut living: Vec<&KeyRecord> = of_ring(records, ring).filter(|key| key.lives(now)).collect();
    living.sort_unstable_by_key(|key| key.generation);
    let highest = records.iter().map(|key| key.generation).max().unwrap_or(0);

    // The ring needs one key to sign, and one that every verifier knows when it takes over. A third
    // key is published before that change, so that an emergency right after it finds a known key.
    let change_is_near = living
        .first()
        .and_then(|key| key.times.signing.as_ref())
        .is_some_and(|signing| now >= signing.until - policy.publish_ahead);
    if living.len() < if change_is_near { 3 } else { 2 } {
        return Some(KeyStep::Publish { generation: highest + 1 });
    }

    let mut before: Option<&KeyRecord> = None;
    for key in &living {
        let predecessor = before.replace(key).and_then(|key| key.times.signing.as_ref());
        let step = |signing| Some(KeyStep::Schedule { generation: key.generation, signing });
        match (&key.times.signing, predecessor) {
            // No key of the ring signs yet.
            (None, None) => return step(policy.signing(earliest(records, key, now, policy))),
            (None, Some(predecessor)) => {
                return step(policy.signing(predecessor.until.max(now + policy.publish_ahead)));
            }
            // It already signs, since its predecessor ended early. Correct its times.
            (Some(signing), None) if signing.from > earliest(records, key, now, policy) => {
                return step(policy.signing(earliest(records, key, now, policy)));
            }
            // It was published late. Its predecessor signs until every verifier knows it.
            (Some(signing), Some(predecessor)) if predecessor.until < signing.from => {
                let index = living.iter().position(|other| other.generation == key.generation)?;
                let generation = living.get(index.checked_sub(1)?)?.generation;
                let until = signing.from;
                let signing = Signing::new(predecessor.from, until, until + policy.retention);
                return Some(KeyStep::Schedule { generation, signing });
            }
            _ => {}
        }
    }

    records
        .iter()
        .find(|key| may_delete(key, now, policy))
        .map(|key| KeyStep::Delete { generation: key.generation })
}

/// Whether nobody needs the record any more. The record of a compromised key stays as long as a
/// verifier may still trust the key.
fn may_delete(key: &KeyRecord, now: UnixTime, policy: &KeyPolicy) -> bool {
    let end = match (&key.times.signing, key.compromised_at) {
        (Some(signing), _) => signing.published_until,
        (None, Some(compromised_at)) => compromised_at + policy.retention,
        (None, None) => return false,
    };
    now >= end + policy.jwks_max_age + policy.clock_skew
}

/// Ends the signer of a ring at `now`, so that its successor takes over. `records` are the keys of all
/// rings. Returns the generation of the signer and the times to write to its record.
///
/// # Errors
///
/// The time at which every verifier will know the successor, if some do not know it yet; `None` if
/// there is no signer or no successor.
pub fn rotate(
    records: &[KeyRecord],
    ring: &str,
    now: UnixTime,
    policy: &KeyPolicy,
) -> Result<(u64, Signing), Option<UnixTime>> {
    let (current, signing) = signer(records, ring, now)
        .and_then(|key| Some((key, key.times.signing.as_ref()?)))
        .ok_or(None)?;
    let successor = of_ring(records, ring)
        .filter(|key| key.can_sign(now) && key.generation > current.generation)
        .min_by_key(|key| key.generation)
        .ok_or(None)?;
    let known = successor.times.published + policy.known_after();
    // Both were published before anything was signed, so every JWK Set that was served has both.
    let born_together = successor.times.published <= signing.from
        && records.iter().all(|key| {
            key.generation >= current.generation
                || key
                    .times
                    .signing
                    .as_ref()
                    .is_some_and(|s| s.published_until <= successor.times.published)
        });
    if now < known && !born_together {
        return Err(Some(known));
    }
    let until = now.max(signing.from);
    Ok((current.generation, Signing::new(signing.from, until, until + policy.retention)))
}

/// Ends the key of this generation at `now`, whether it signs or is yet to sign. Returns the times to
/// write to its record; `None` if it has ended before, or there is no such key.
///
/// # Errors
///
/// Those of [`rotate`], if it is the signer of its ring.
pub fn retire(
    records: &[KeyRecord],
    generation: u64,
    now: UnixTime,
    policy: &KeyPolicy,
) -> Result<Option<Signing>, Option<UnixTime>> {
    let living = records.iter().find(|key| key.generation == generation && key.lives(now));
    let Some(key) = living else { return Ok(None) };
    if signer(records, &key.ring, now).is_some_and(|signer| signer.generation == generation) {
        return rotate(records, &key.ring, now, policy).map(|(_, signing)| Some(signing));
    }
    let from = key.times.signing.as_ref().map_or(now, |signing| signing.from.min(now));
    // A node with an older copy of the ring may sign with it for a while.
    Ok(Some(Signing::new(from, now, now + policy.retention)))
}

#[cfg(test)]
mod tests;
